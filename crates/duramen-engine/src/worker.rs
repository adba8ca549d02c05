//! The worker: claims due runs while it is told to, and wakes the runs that were started here.
//!
//! Budget of an idle worker: one look at the earliest due time per `poll_max`. Of a busy one: a
//! claim when a quarter of its places is free, or when `poll_min` has passed since the last. Hints of
//! the store make a claim earlier, and nothing else: whatever they miss is found by the next poll.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use duramen_core::ids::{Millis, RunId};
use duramen_core::lines::{Line, turn_after};
use duramen_core::store::{Claim, ClaimedRun, Due, Hint, StoreError, WorkflowKey};

use crate::engine::{Engine, Signals, Working};
use crate::env::span;

/// How often paused runs that were started here are looked at, for messages from other engines:
/// at first, and when nothing has changed for a while.
const FOLLOW_SOONEST: Millis = 100;
const FOLLOW_LATEST: Millis = 500;
/// A worker claims whatever is due: it only has to find out which of these have ended elsewhere.
const FOLLOW_WORKING: Millis = 5_000;
/// So many followed runs are looked at in one go.
const FOLLOW_BATCH: usize = 256;
/// The most runs in one claim.
const CLAIM_MOST: usize = 256;
/// The longest sleep; the clock may be set in the meantime.
const LONGEST: Millis = 5_000;

#[derive(Default)]
struct Worker {
    /// When to claim, or to look, next.
    next_claim: Millis,
    /// When the last claim was made.
    last_claim: Millis,
    poll: Millis,
    /// The last claim found nothing: ask when something is due before claiming again.
    idle: bool,
    next_follow: Millis,
    follow_poll: Millis,
    follow_from: Option<RunId>,
    /// The line that the next claim begins with.
    turn: u64,
}

/// Runs until the engine is closed or dropped.
pub(crate) async fn work(weak: Weak<Engine>, signals: Arc<Signals>) {
    let mut worker = Worker::default();
    while let Some(engine) = weak.upgrade().filter(|engine| !engine.is_closing()) {
        // From here on every signal is kept for the sleep below, whatever this round has seen.
        engine.resting_until.store(Millis::MAX, Ordering::Release);
        if engine.take_look() {
            worker.look();
        }
        let until = worker.round(&engine).await;
        let now = engine.now();
        let until = until.min(now + LONGEST);
        engine.resting_until.store(until, Ordering::Release);
        let sleep = engine.env.sleep(span(until.saturating_sub(now)));
        drop(engine);
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = signals.work.notified() => {}
        }
    }
}

impl Worker {
    /// Something has changed: whatever was planned is off.
    fn look(&mut self) {
        self.next_claim = 0;
        self.idle = false;
        self.poll = 0;
        self.follow_poll = FOLLOW_SOONEST;
    }

    /// Does what is due and says when to look again.
    async fn round(&mut self, engine: &Arc<Engine>) -> Millis {
        let hint = engine.take_hint();
        let claim = match engine.working() {
            Some(working) => {
                self.next_claim = self.next_claim.min(hint);
                if engine.take_hinted(Hint::Due) {
                    // Hints of a busy fleet come in thousands: no more than one claim a `poll_min`.
                    let soonest = self.last_claim.saturating_add(working.poll_min);
                    self.next_claim = self.next_claim.min(soonest);
                    self.idle = false;
                }
                self.claims(engine, working).await
            }
            None => Millis::MAX,
        };
        claim.min(self.follow(engine).await)
    }

    /// Claims as long as there are places and something may be due.
    async fn claims(&mut self, engine: &Arc<Engine>, working: Working) -> Millis {
        loop {
            let now = engine.now();
            if now < self.next_claim {
                return self.next_claim;
            }
            if engine.host.blocked_for() > (engine.config.lease / 3).max(1_000) {
                // What it has is more than it can do.
                return now + working.poll_max;
            }
            // A claim for the sake of one place is worth it when it has been free for a while.
            let patience = self.last_claim.saturating_add(working.poll_min);
            let least = if now < patience {
                working.concurrency.div_ceil(4)
            } else {
                1
            };
            let free = engine.registry().room(working.concurrency, least);
            if free < least {
                // Whichever run makes the room nudges this worker.
                return if least > 1 { patience } else { Millis::MAX };
            }
            if self.idle && !self.is_due(engine, working).await {
                return self.next_claim;
            }
            self.last_claim = now;
            let asked = engine.asking();
            let under_way = engine.pending.begin();
            let request = Claim {
                turn: self.turn,
                ..engine.claim_request(Due::Any, free.min(CLAIM_MOST))
            };
            let workflows = request.workflows.clone();
            match engine.store.claim(request).await {
                Ok(claimed) => {
                    if let Some(run) = claimed.runs.last() {
                        self.served(&workflows, run);
                    }
                    let (found, more) = (claimed.runs.len(), claimed.more);
                    engine.take_up(claimed, asked, None, None);
                    drop(under_way);
                    if found > 0 {
                        self.idle = false;
                        self.poll = working.poll_min;
                        self.next_claim = if more { 0 } else { now + self.poll };
                    } else {
                        self.rest(now, working);
                        // Also tells at once when something comes due before the next poll.
                        self.is_due(engine, working).await;
                    }
                }
                Err(error) => self.failed(now, working, &error),
            }
            if engine.working().is_none() || engine.is_closing() {
                return Millis::MAX;
            }
        }
    }

    /// The next claim begins with the line behind the one that was served last.
    fn served(&mut self, workflows: &[WorkflowKey], run: &ClaimedRun) {
        let of =
            |key: &&WorkflowKey| key.name == run.row.workflow && key.version == run.row.version;
        if let Some(workflow) = workflows.iter().find(of) {
            let status = run.was;
            let line = Line { status, workflow };
            self.turn = turn_after(Due::Any, workflows, line).unwrap_or(0);
        }
    }

    /// The next poll is twice as far away as the last was.
    fn rest(&mut self, now: Millis, working: Working) {
        self.idle = true;
        self.poll = (self.poll * 2).clamp(working.poll_min, working.poll_max);
        self.next_claim = now + self.poll;
    }

    fn failed(&mut self, now: Millis, working: Working, error: &StoreError) {
        tracing::warn!(%error, "runs could not be claimed; trying again");
        let most = working.poll_max.max(1_000);
        self.poll = (self.poll * 2).clamp(working.poll_min.min(most), most);
        self.next_claim = now + self.poll;
    }

    /// Whether something is due. If it will be before the next poll, that is when to come back.
    async fn is_due(&mut self, engine: &Arc<Engine>, working: Working) -> bool {
        let asked = engine.asking();
        let next = match engine.store.next_due(engine.workflows()).await {
            Ok(next) => next,
            Err(error) => {
                self.failed(engine.now(), working, &error);
                return false;
            }
        };
        engine.learn_clock(asked, next.now);
        let store_now = engine.env.explicit_now().unwrap_or(next.now);
        let now = engine.now();
        match next.ready_at {
            Some(at) if at <= store_now => {
                // Just claimed, and still there: others are at it too. Do not race them for it.
                now >= self.next_claim
            }
            ready_at => {
                if now >= self.next_claim {
                    self.rest(now, working);
                }
                if let Some(at) = ready_at {
                    // As far away as it is for the store: by a clock that is a little ahead of the
                    // store's, it may be over already, and would be asked for again and again.
                    self.next_claim = self.next_claim.min(now + (at - store_now));
                }
                false
            }
        }
    }

    /// Wakes paused runs that were started here, and forgets those that have ended.
    async fn follow(&mut self, engine: &Arc<Engine>) -> Millis {
        let now = engine.now();
        let working = engine.working().is_some();
        let followed = engine.registry().followed();
        if followed == 0 || engine.is_resting() {
            return Millis::MAX;
        }
        let mut next = None;
        if !working {
            let (due, later) = engine.registry().follow_due(now, CLAIM_MOST);
            next = later;
            if !due.is_empty() {
                self.claim_followed(engine, due).await;
                next = Some(now);
            }
        }
        if now >= self.next_follow {
            let changed = self.look_around(engine).await;
            self.follow_poll = if working {
                FOLLOW_WORKING
            } else if changed || followed > FOLLOW_BATCH {
                FOLLOW_SOONEST
            } else {
                (self.follow_poll * 5 / 4).clamp(FOLLOW_SOONEST, FOLLOW_LATEST)
            };
            self.next_follow = now + self.follow_poll;
            if changed {
                next = Some(now);
            }
        }
        // A look brings the next poll nearer.
        self.next_follow = self
            .next_follow
            .min(now + self.follow_poll.max(FOLLOW_SOONEST));
        next.unwrap_or(Millis::MAX).min(self.next_follow)
    }

    /// Claims them all at once, so that the store can make one transaction of it.
    async fn claim_followed(&mut self, engine: &Arc<Engine>, due: Vec<RunId>) {
        let asked = engine.asking();
        let _under_way = engine.pending.begin();
        let (active, due): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|run_id| engine.registry().is_active(run_id));
        let later = engine.now() + FOLLOW_SOONEST;
        for run_id in active {
            // A host that is held up has not yet let go of what was lost meanwhile.
            engine.registry().refollow(&run_id, Some(later));
        }
        let claims: Vec<_> = due
            .into_iter()
            .map(|run_id| {
                let claim = engine.store.claim(engine.claim_one(run_id.clone()));
                (run_id, claim)
            })
            .collect();
        let mut missed = Vec::new();
        for (run_id, claim) in claims {
            match claim.await {
                // Someone else has it, or it is due later than was thought.
                Ok(claimed) if claimed.runs.is_empty() => missed.push(run_id),
                Ok(claimed) => {
                    engine.take_up(claimed, asked, None, None);
                }
                Err(error) => {
                    tracing::warn!(%error, "a run could not be claimed; trying again");
                    let later = engine.now() + FOLLOW_SOONEST;
                    engine.registry().refollow(&run_id, Some(later));
                }
            }
        }
        if !missed.is_empty() {
            look_at(engine, missed, engine.now() + FOLLOW_SOONEST).await;
        }
    }

    /// Looks at the next batch of followed runs. True if one of them is due earlier than was known.
    async fn look_around(&mut self, engine: &Arc<Engine>) -> bool {
        let batch = engine
            .registry()
            .followed_after(self.follow_from.as_ref(), FOLLOW_BATCH);
        self.follow_from = batch
            .last()
            .filter(|_| batch.len() == FOLLOW_BATCH)
            .cloned();
        !batch.is_empty() && look_at(engine, batch, 0).await
    }
}

/// Learns from the store when followed runs are due (no earlier than `soonest`), and which have
/// ended. True if one of them is due at another time than was known.
async fn look_at(engine: &Arc<Engine>, run_ids: Vec<RunId>, soonest: Millis) -> bool {
    let details = match engine.store.get(run_ids.clone()).await {
        Ok(details) => details,
        Err(error) => {
            tracing::warn!(%error, "runs could not be looked at; trying again");
            let later = soonest.max(engine.now() + FOLLOW_SOONEST);
            let mut registry = engine.registry();
            for run_id in run_ids.iter().filter(|_| soonest > 0) {
                registry.refollow(run_id, Some(later));
            }
            return false;
        }
    };
    let mut changed = false;
    let mut registry = engine.registry();
    for (run_id, detail) in run_ids.into_iter().zip(details) {
        match detail {
            Some(detail) if !detail.row.status.is_final() => {
                let at = detail.row.ready_at.map(|at| at.max(soonest));
                changed |= !registry.is_active(&run_id) && registry.refollow(&run_id, at);
            }
            _ => registry.forget(&run_id),
        }
    }
    changed
}
