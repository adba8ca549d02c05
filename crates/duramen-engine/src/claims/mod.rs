//! Which runs this process takes up: by its worker, in sweeps, one by one, and those that were started
//! here; and what is known of a run from its claim until it leaves the host's hands.
//!
//! `intake` asks the store and hands runs to the host; `hands` remembers them; `worker`, `follow` and
//! `sweep` say when.

mod alarm;
mod follow;
mod followed;
mod group;
mod hands;
mod intake;
mod suspects;
mod sweep;
mod unread;
mod warm;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::run::RunRow;
use duramen_core::store::{Delivered, Delivery, Hint, WorkflowKey};

pub(crate) use hands::Hands;
pub use intake::CLAIM_BYTES;
pub use sweep::SweepOptions;

use crate::commits::Releases;
use crate::common::Common;
use crate::host::{HostEvent, Reply, Ticket, Token};
use crate::leases::Leases;
use crate::ticks::Ticks;

use alarm::Alarm;
use intake::{Intake, Wish};
use sweep::Sweep;
use unread::Unread;
use worker::{Work, Working};

/// A run that is being created for this process.
pub(crate) struct Creation {
    intake: Arc<Intake>,
    wish: Wish,
}

impl Creation {
    /// It was created: the host gets it, if it is still wanted here.
    pub(crate) fn done(&self, row: &RunRow, input: Payload) -> Option<Ticket> {
        self.intake.drive_new(row, input, self.wish)
    }
}

/// See the module's head.
pub(crate) struct Claims {
    common: Arc<Common>,
    leases: Arc<Leases>,
    alarm: Arc<Alarm>,
    unread: Arc<Unread>,
    hands: Arc<Hands>,
    intake: Arc<Intake>,
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
    ) -> Self {
        let alarm = Arc::new(Alarm::new(Arc::clone(&common)));
        let unread = Unread::new(Arc::clone(&common), Arc::clone(&leases));
        let hands = Arc::new(Hands::new(
            Arc::clone(&common),
            Arc::clone(&leases),
            ticks,
            Arc::clone(&unread),
            Arc::clone(&alarm),
        ));
        let intake = Arc::new(Intake::new(
            Arc::clone(&common),
            Arc::clone(&leases),
            releases,
            Arc::clone(&hands),
        ));
        let work = Work::new(
            Arc::clone(&common),
            Arc::clone(&intake),
            Arc::clone(&hands),
            Arc::clone(&alarm),
        );
        Self {
            common,
            leases,
            alarm,
            unread,
            hands,
            intake,
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
        let mut claim = self.intake.claim_one(run_id);
        claim.now = now.or(claim.now);
        let (intake, hands) = (Arc::clone(&self.intake), Arc::clone(&self.hands));
        let under_way = self.common.pending.begin();
        let claim = self.common.store.claim(claim);
        self.common.call(token, claim, move |claimed| {
            if own {
                // Before the host has it: a pause must find that it is followed.
                for run in &claimed.runs {
                    hands.own(&run.row.run_id);
                }
            }
            let runs = intake.take_up(claimed, wish, None, now);
            drop(under_way);
            Reply::Taken(runs)
        });
    }

    /// To be called before a run is created for this process.
    pub(crate) fn creation(&self) -> Creation {
        self.work.rest(false);
        Creation {
            intake: Arc::clone(&self.intake),
            wish: self.intake.wish(),
        }
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

    /// What a store's answer to messages needs: drivers and followers in this process are told at once.
    pub(crate) fn on_delivery(
        &self,
        run_ids: Vec<RunId>,
    ) -> impl FnOnce(&[Delivered]) + Send + 'static {
        let (hands, unread) = (Arc::clone(&self.hands), Arc::clone(&self.unread));
        let (alarm, common) = (Arc::clone(&self.alarm), Arc::clone(&self.common));
        move |delivered| {
            let answers = || run_ids.iter().zip(delivered);
            let mine =
                answers().any(|(_, delivered)| delivered.owner.as_deref() == Some(common.owner()));
            let due: Vec<&RunId> = answers()
                .filter(|(_, answer)| {
                    answer.owner.is_none() && answer.result == Delivery::Delivered
                })
                .map(|(run_id, _)| run_id)
                .collect();
            if !due.is_empty() {
                hands.woken(due.iter().copied());
            }
            if mine {
                unread.fetch();
            }
            if !due.is_empty() {
                alarm.nudge();
            }
        }
    }
}
