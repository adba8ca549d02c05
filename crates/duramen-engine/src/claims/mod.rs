//! Which runs this process takes up: by its worker, in sweeps, one by one, and those that were started
//! here; and what is known of a run from its claim until it leaves the host's hands.
//!
//! `intake` asks the store and hands runs to the host; `hands` remembers them; `worker`, `follow` and
//! `sweep` say when.

mod alarm;
mod creation;
mod family;
mod follow;
mod followed;
mod group;
mod hands;
mod intake;
mod pages;
mod suspects;
mod sweep;
mod unread;
mod warm;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::RunRow;
use duramen_core::store::{Claim, Delivered, Delivery, Hint, NewRun, WorkflowKey};

pub(crate) use hands::Hands;
pub use intake::CLAIM_BYTES;
pub use sweep::SweepOptions;

use crate::commits::Releases;
use crate::common::Common;
use crate::ends::Ends;
use crate::host::{HostEvent, Reply, Token};
use crate::leases::Leases;
use crate::ticks::Ticks;

use alarm::Alarm;
use creation::Creation;
use family::adopt_family;
use intake::Intake;
use sweep::Sweep;
use unread::Unread;
use worker::{Work, Working};

/// See the module's head.
pub(crate) struct Claims {
    common: Arc<Common>,
    leases: Arc<Leases>,
    releases: Arc<Releases>,
    alarm: Arc<Alarm>,
    unread: Arc<Unread>,
    hands: Arc<Hands>,
    intake: Arc<Intake>,
    told: Arc<Told>,
    work: Arc<Work>,
    /// The store gives hints.
    watching: AtomicBool,
}

impl Claims {
    pub(crate) fn new(
        common: Arc<Common>,
        leases: Arc<Leases>,
        releases: Arc<Releases>,
        ticks: Arc<Ticks>,
        ends: Arc<Ends>,
    ) -> Self {
        let alarm = Arc::new(Alarm::new(Arc::clone(&common)));
        let unread = Unread::new(Arc::clone(&common), Arc::clone(&leases));
        let hands = Arc::new(Hands::new(
            Arc::clone(&common),
            Arc::clone(&leases),
            ticks,
            Arc::clone(&unread),
            Arc::clone(&alarm),
            ends,
        ));
        let intake = Arc::new(Intake::new(
            Arc::clone(&common),
            Arc::clone(&leases),
            Arc::clone(&releases),
            Arc::clone(&hands),
        ));
        let work = Work::new(
            Arc::clone(&common),
            Arc::clone(&intake),
            Arc::clone(&hands),
            Arc::clone(&alarm),
        );
        let told = Arc::new(Told {
            common: Arc::clone(&common),
            hands: Arc::clone(&hands),
            unread: Arc::clone(&unread),
            alarm: Arc::clone(&alarm),
        });
        Self {
            common,
            leases,
            releases,
            alarm,
            unread,
            hands,
            intake,
            told,
            work,
            watching: AtomicBool::new(false),
        }
    }

    pub(crate) const fn hands(&self) -> &Arc<Hands> {
        &self.hands
    }

    pub(crate) const fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// Runs that were started here and have not been seen to end.
    pub(crate) fn followed(&self) -> usize {
        self.hands.remembered()
    }

    pub(crate) fn close(&self) {
        self.alarm.ring();
        self.unread.ring();
    }

    pub(crate) fn register(&self, workflows: Vec<WorkflowKey>) {
        self.intake.register(workflows);
        self.alarm.nudge();
    }

    pub(crate) fn register_queues(&self, queues: Vec<String>) {
        self.intake.register_queues(queues);
        self.alarm.nudge();
    }

    /// Claims due runs of registered workflows from now on, in the background.
    pub(crate) fn work(&self, concurrency: usize, poll_min: Millis, poll_max: Millis) {
        // Who never works needs no hints, and a store may need a connection for them.
        if !self.watching.swap(true, Ordering::AcqRel) {
            let alarm = Arc::downgrade(&self.alarm);
            let unread = Arc::downgrade(&self.unread);
            self.common.store.watch(Arc::new(move |hint| match hint {
                Hint::Due => {
                    if let Some(alarm) = alarm.upgrade() {
                        alarm.hint();
                    }
                }
                Hint::Unread => {
                    if let Some(unread) = unread.upgrade() {
                        unread.hint();
                    }
                }
            }));
        }
        let poll_min = poll_min.max(1);
        self.work.set(Some(Working {
            concurrency: concurrency.max(1),
            poll_min,
            poll_max: poll_max.max(poll_min),
        }));
    }

    pub(crate) fn stop_work(&self) {
        self.work.set(None);
    }

    /// Every run starts nothing fresh and is released as soon as it can be. So is every run whose claim
    /// or creation is under way. Paused runs that were started here are left alone until something is to
    /// be driven here again.
    pub(crate) fn yield_all(&self) {
        self.work.rest(true);
        self.intake.yields();
        let tickets = self.leases.held().tickets();
        self.common.host.push_all(
            tickets
                .into_iter()
                .map(|ticket| HostEvent::Yield { ticket }),
        );
    }

    /// Claims one run if it is due, and drives it. If it is to be `own`, this process goes on with it
    /// whenever it is due, as with one that was started here.
    pub(crate) fn take(&self, token: Token, run_id: RunId, now: Option<Millis>, own: bool) {
        self.work.rest(false);
        let wish = self.intake.wish();
        let (intake, hands) = (Arc::clone(&self.intake), Arc::clone(&self.hands));
        let common = Arc::clone(&self.common);
        let under_way = self.common.pending.begin();
        self.common.env.spawn(Box::pin(async move {
            let claim = || {
                let claim = intake.claim_one(run_id.clone());
                Claim {
                    now: now.or(claim.now),
                    ..claim
                }
            };
            let reply = intake.ask(claim).await.map(|claimed| {
                if own {
                    // Before the host has it: a pause must find that it is followed.
                    hands.adopt(&run_id, None);
                    adopt_family(&common, &hands, &run_id);
                }
                Reply::Taken(intake.take_up(claimed, wish, None, now))
            });
            common.host.push(HostEvent::Reply { token, reply });
            drop(under_way);
        }));
    }

    /// Creates a run that is leased to this process from the beginning, and drives it; one that exists is
    /// gone on with here.
    pub(crate) fn start(&self, token: Token, run: NewRun) {
        self.work.rest(false);
        let creation = Creation {
            common: Arc::clone(&self.common),
            leases: Arc::clone(&self.leases),
            releases: Arc::clone(&self.releases),
            intake: Arc::clone(&self.intake),
            hands: Arc::clone(&self.hands),
            token,
            run,
            wish: self.intake.wish(),
            since: self.common.clock.moment(),
            failures: 0,
            _under_way: self.common.pending.begin(),
        };
        creation.begin();
    }

    /// Runs a sweep in the background; the report comes as a reply.
    pub(crate) fn sweep(&self, token: Token, options: SweepOptions) {
        let (common, intake) = (Arc::clone(&self.common), Arc::clone(&self.intake));
        let sweep = Sweep::new(Arc::clone(&common), intake, token, options);
        self.common.env.spawn(Box::pin(async move {
            let reply = sweep.run().await.map(Reply::Swept);
            common.host.push(HostEvent::Reply { token, reply });
        }));
    }

    /// Whom answers to calls of others concern.
    pub(crate) const fn told(&self) -> &Arc<Told> {
        &self.told
    }
}

/// Drivers, followers and the worker of this process, who are told at once of what was changed through it.
pub(crate) struct Told {
    common: Arc<Common>,
    hands: Arc<Hands>,
    unread: Arc<Unread>,
    alarm: Arc<Alarm>,
}

impl Told {
    /// Something may be due.
    pub(crate) fn nudge(&self) {
        self.alarm.nudge();
    }

    /// A run was started by another: who goes on with that one here goes on with it.
    pub(crate) fn started(&self, by: &RunId, row: &RunRow) {
        if !row.status.is_final() {
            self.hands.started(by, &row.run_id, row.ready_at);
        }
        self.alarm.nudge();
    }

    /// A child was reopened with its parent.
    pub(crate) fn reopened(&self, parent: &RunId, run_id: &RunId, at: Millis) {
        self.hands.started(parent, run_id, Some(at));
        self.alarm.nudge();
    }

    /// Messages were delivered to these runs.
    pub(crate) fn delivered<'a>(
        &self,
        answers: impl Iterator<Item = (&'a RunId, &'a Delivered)> + Clone,
    ) {
        let is_own = |owner: &str| self.common.incarnation.is_own(owner);
        let mine = answers
            .clone()
            .any(|(_, delivered)| delivered.owner.as_deref().is_some_and(is_own));
        // The answer to the first of two may have been lost.
        let kept = |result| matches!(result, Delivery::Delivered | Delivery::Duplicate);
        let due: Vec<&RunId> = answers
            .filter(|(_, answer)| answer.owner.is_none() && kept(answer.result))
            .map(|(run_id, _)| run_id)
            .collect();
        if !due.is_empty() {
            self.hands.woken(due.iter().copied());
        }
        if mine {
            self.unread.fetch();
        }
        if !due.is_empty() {
            self.alarm.nudge();
        }
    }
}
