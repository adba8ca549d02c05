//! The worker: claims due runs while it is told to, and wakes the runs that were started here.
//!
//! Budget of an idle worker: one look at the earliest due time per `poll_max`. Of a busy one: a
//! claim when a quarter of its places is free, or when `poll_min` has passed since the last. Hints of
//! the store make a claim earlier, and nothing else: whatever they miss is found by the next poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use duramen_core::ids::Millis;
use duramen_core::lanes::{Line, turn_after};
use duramen_core::store::{Claim, ClaimedRun, Due, StoreError};
use tokio::sync::Notify;

use super::alarm::Alarm;
use super::follow::{Follower, Tools};
use super::hands::Hands;
use super::intake::Intake;
use crate::common::Common;
use crate::env::{Moment, span};

/// The most runs in one claim.
const CLAIM_MOST: usize = 256;
/// The longest sleep; the time of day may be set in the meantime.
const LONGEST: Millis = 5_000;

/// How often a worker that has nothing to do looks for runs that only a newer build can read.
const AHEAD: Millis = 60_000;

/// How the worker runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Working {
    pub(super) concurrency: usize,
    pub(super) poll_min: Millis,
    pub(super) poll_max: Millis,
}

/// What the worker is told to do.
pub(super) struct Work {
    common: Arc<Common>,
    intake: Arc<Intake>,
    hands: Arc<Hands>,
    alarm: Arc<Alarm>,
    working: Mutex<Option<Working>>,
    /// Everybody was told to yield, and nobody has asked for anything to be driven since: paused
    /// runs that were started here are left to others.
    resting: AtomicBool,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.alarm.ring();
    }
}

impl Work {
    /// Nothing is claimed until it is told so.
    pub(super) fn new(
        common: Arc<Common>,
        intake: Arc<Intake>,
        hands: Arc<Hands>,
        alarm: Arc<Alarm>,
    ) -> Arc<Self> {
        let work = Arc::new(Self {
            common,
            intake,
            hands,
            alarm,
            working: Mutex::default(),
            resting: AtomicBool::new(false),
        });
        let worker = Worker::new().run(Arc::downgrade(&work), Arc::clone(&work.alarm.bell));
        work.common.env.spawn(Box::pin(worker));
        work
    }

    pub(super) fn set(&self, working: Option<Working>) {
        if working.is_some() {
            self.rest(false);
        }
        *self.working.lock().unwrap_or_else(PoisonError::into_inner) = working;
        self.alarm.nudge();
    }

    fn working(&self) -> Option<Working> {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rest(&self, rest: bool) {
        if self.resting.swap(rest, Ordering::AcqRel) && !rest {
            self.alarm.nudge();
        }
    }

    fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Acquire)
    }
}

/// Where the worker is. The host may be held up and clocks may be set: all of this is measured by the
/// clock that nobody can set.
struct Worker {
    /// When to claim, or to look, next.
    next_claim: Moment,
    /// When the last claim was made.
    last_claim: Moment,
    poll: Millis,
    /// The last claim found nothing: ask when something is due before claiming again.
    idle: bool,
    /// When to look for runs of newer builds next.
    next_ahead: Moment,
    /// The line that the next claim begins with.
    turn: u64,
    follower: Follower,
}

impl Worker {
    const fn new() -> Self {
        Self {
            next_claim: Moment::LONG_AGO,
            last_claim: Moment::LONG_AGO,
            poll: 0,
            idle: false,
            next_ahead: Moment::LONG_AGO,
            turn: 0,
            follower: Follower::new(),
        }
    }

    /// Until the engine is closed or dropped.
    async fn run(mut self, work: Weak<Work>, bell: Arc<Notify>) {
        while let Some(work) = work.upgrade().filter(|work| !work.common.is_closing()) {
            let until = self.round(&work).await;
            let now = work.common.clock.moment();
            let until = until.min(now.after(LONGEST));
            work.alarm.asleep(until);
            let sleep = work.common.env.sleep(span(until.since(now)));
            drop(work);
            tokio::select! {
                biased; // the order is not left to chance: a simulation must be able to repeat it
                () = sleep => {}
                () = bell.notified() => {}
            }
        }
    }

    /// Does what is due and says when to look again.
    async fn round(&mut self, work: &Work) -> Moment {
        let working = work.working();
        let news = work.alarm.awake(working.is_some());
        if news.look {
            // Something has changed: whatever was planned is off.
            self.next_claim = Moment::LONG_AGO;
            self.idle = false;
            self.poll = 0;
            self.follower.look();
        }
        let claim = match working {
            Some(working) => {
                let due = work.common.clock.moment_of(news.due);
                self.next_claim = self.next_claim.min(due);
                if news.hinted {
                    // Hints of a busy fleet come in thousands: no more than one claim a `poll_min`.
                    let soonest = self.last_claim.after(working.poll_min);
                    self.next_claim = self.next_claim.min(soonest);
                    self.idle = false;
                }
                self.claims(work, working).await
            }
            None => Moment::NEVER,
        };
        if work.is_resting() {
            return claim;
        }
        let tools = Tools {
            common: &work.common,
            intake: &work.intake,
            hands: &work.hands,
        };
        let working = work.working().is_some();
        claim.min(self.follower.round(tools, working).await)
    }

    /// Claims as long as there are places and something may be due.
    async fn claims(&mut self, work: &Work, working: Working) -> Moment {
        let common = &work.common;
        loop {
            let now = common.clock.moment();
            if now < self.next_claim {
                return self.next_claim;
            }
            if common.host.blocked_for() > (common.config.lease / 3).max(1_000) {
                // What it has is more than it can do.
                return now.after(working.poll_max);
            }
            // A claim for the sake of one place is worth it when it has been free for a while.
            let patience = self.last_claim.after(working.poll_min);
            let least = if now < patience {
                working.concurrency.div_ceil(4)
            } else {
                1
            };
            let free = work.hands.room(working.concurrency, least);
            if free < least {
                // Whichever run makes the room nudges this worker.
                return if least > 1 { patience } else { Moment::NEVER };
            }
            if self.idle && !self.is_due(work, working).await {
                return self.next_claim;
            }
            self.last_claim = now;
            let wish = work.intake.wish();
            let under_way = common.pending.begin();
            let lanes = work.intake.lanes();
            let turn = self.turn;
            let request = || Claim {
                turn,
                lanes: lanes.to_vec(),
                ..work.intake.claim(Due::Any, free.min(CLAIM_MOST))
            };
            match work.intake.ask(request).await {
                Ok(claimed) => {
                    if let Some(run) = claimed.runs.last() {
                        self.served(&lanes, run);
                    }
                    let (found, more) = (claimed.runs.len(), claimed.more);
                    work.intake.take_up(claimed, wish, None, None);
                    drop(under_way);
                    if found > 0 {
                        self.idle = false;
                        self.poll = working.poll_min;
                        self.next_claim = if more {
                            Moment::LONG_AGO
                        } else {
                            now.after(self.poll)
                        };
                    } else {
                        self.pause(now, working);
                        // Also tells at once when something comes due before the next poll.
                        self.is_due(work, working).await;
                        if now >= self.next_ahead {
                            self.next_ahead = now.after(AHEAD);
                            work.intake.look_ahead().await;
                        }
                    }
                }
                Err(error) => self.failed(now, working, &error),
            }
            if work.working().is_none() || common.is_closing() {
                return Moment::NEVER;
            }
        }
    }

    /// The next claim begins with the line behind the one that was served last.
    fn served(&mut self, all: &[String], run: &ClaimedRun) {
        let key = run.row.lane().key();
        let line = Line {
            status: run.was,
            lane: &key,
        };
        self.turn = turn_after(Due::Any, all, line).unwrap_or(0);
    }

    /// The next poll is twice as far away as the last was.
    fn pause(&mut self, now: Moment, working: Working) {
        self.idle = true;
        self.poll = (self.poll * 2).clamp(working.poll_min, working.poll_max);
        self.next_claim = now.after(self.poll);
    }

    fn failed(&mut self, now: Moment, working: Working, error: &StoreError) {
        tracing::debug!(%error, "runs could not be claimed; trying again");
        let most = working.poll_max.max(1_000);
        self.poll = (self.poll * 2).clamp(working.poll_min.min(most), most);
        self.next_claim = now.after(self.poll);
    }

    /// Whether something is due. If it will be before the next poll, that is when to come back.
    async fn is_due(&mut self, work: &Work, working: Working) -> bool {
        let clock = &work.common.clock;
        let asked = clock.asking();
        let next = match work.common.store.next_due(work.intake.due_ask()).await {
            Ok(next) => next,
            Err(error) => {
                self.failed(clock.moment(), working, &error);
                return false;
            }
        };
        clock.learn(asked, next.now);
        let store_now = clock.explicit_now().unwrap_or(next.now);
        let now = clock.moment();
        match next.ready_at {
            Some(at) if at <= store_now => {
                // Just claimed, and still there: others are at it too. Do not race them for it.
                now >= self.next_claim
            }
            ready_at => {
                if now >= self.next_claim {
                    self.pause(now, working);
                }
                if let Some(at) = ready_at {
                    // As far away as it is for the store, whatever this machine's clocks say.
                    let due = now.after(at.saturating_sub(store_now));
                    self.next_claim = self.next_claim.min(due);
                }
                false
            }
        }
    }
}
