//! The keeper: registers this process when something is to be held for the first time, renews its lease a
//! third of it apart from then on, and takes a new name when it has lapsed.
//!
//! A heartbeat writes one row, however many runs are held. Only a lapse costs more: the next name is told
//! which of the runs it has taken over, and those that are not among them are lost. The steps of the others
//! go on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use duramen_core::ids::RunId;
use duramen_core::store::{Beat, Heartbeat, StoreError};
use tokio::sync::Notify;

use super::lease::{Leases, Listener};
use crate::env::{Moment, span};

/// So many names are tried in a row.
const MOST_NAMES: usize = 100;
/// The most runs in one answer to what is held.
pub(super) const PAGE: u32 = 1_000;

pub(super) fn keep(leases: &Arc<Leases>, listener: Weak<dyn Listener>) {
    let keeping = run(Arc::downgrade(leases), listener, Arc::clone(&leases.bell));
    leases.common.env.spawn(Box::pin(keeping));
}

async fn run(leases: Weak<Leases>, listener: Weak<dyn Listener>, bell: Arc<Notify>) {
    let mut keeper = Keeper {
        listener,
        former: None,
        sent: false,
        next: Moment::NEVER,
        soonest: Moment::LONG_AGO,
    };
    while let Some(leases) = leases
        .upgrade()
        .filter(|leases| !leases.common.is_closing())
    {
        let now = leases.common.clock.moment();
        if leases.is_waited_for() {
            keeper.next = keeper.next.min(keeper.soonest);
        }
        if now >= keeper.next {
            let under_way = leases.common.pending.begin();
            keeper.round(&leases).await;
            drop(under_way);
            continue;
        }
        let sleep = (keeper.next != Moment::NEVER)
            .then(|| leases.common.env.sleep(span(keeper.next.since(now))));
        drop(leases);
        let Some(sleep) = sleep else {
            bell.notified().await;
            continue;
        };
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = bell.notified() => {}
        }
    }
}

struct Keeper {
    listener: Weak<dyn Listener>,
    /// A name of this process that has ended, and may still have runs.
    former: Option<Arc<str>>,
    /// The latest name may have been registered by this process.
    sent: bool,
    next: Moment,
    /// After a failure, however many wait for a lease, not before that.
    soonest: Moment,
}

impl Keeper {
    async fn round(&mut self, leases: &Leases) {
        let common = &*leases.common;
        let now = common.clock.moment();
        let pause = if common.host.blocked_for() > leases.span() {
            // The host has not moved for a whole lease. Its runs are better off elsewhere.
            tracing::warn!(
                "the event loop has been blocked for longer than a lease, which is not renewed"
            );
            leases.span() / 12
        } else {
            common.host.probe();
            match self.beat(leases).await {
                Ok(()) => leases.span() / 3,
                Err(error) => {
                    tracing::debug!(%error, "the lease could not be renewed; trying again");
                    leases.tell(&Err(error));
                    leases.span() / 12
                }
            }
        };
        self.next = now.after(pause.max(1));
        self.soonest = if pause < leases.span() / 3 {
            common.clock.moment().after(pause.clamp(1, 100))
        } else {
            Moment::LONG_AGO
        };
        self.next = self.next.max(self.soonest);
    }

    /// Renews the lease, under a new name if it must be.
    async fn beat(&mut self, leases: &Leases) -> Result<(), StoreError> {
        let common = &*leases.common;
        for _ in 0..MOST_NAMES {
            if common.is_closing() {
                return Err(StoreError::Closed);
            }
            let name = common.incarnation.latest();
            let changing = common.incarnation.is_changing();
            let succeeds = self.former.as_deref().filter(|_| changing);
            let beat = Heartbeat {
                succeeds: succeeds.map(str::to_owned),
                ..leases.heartbeat(&name)
            };
            // Without an answer the row may be there, and what was taken over as well.
            let unsure = std::mem::replace(&mut self.sent, true);
            leases.registers();
            common.counters.heartbeats.fetch_add(1, Ordering::Relaxed);
            let asked = common.clock.asking();
            let beat = common.store.heartbeat(beat).await?;
            common.clock.learn(asked, beat.now);
            if beat.alive {
                if changing {
                    self.takes_over(leases, &name, beat, unsure).await?;
                }
                leases.renew(asked.until(leases.span()));
                return Ok(());
            }
            // It has ended for good. A name that was never this process's has nothing for it.
            leases.ends();
            if unsure {
                tracing::warn!(owner = %name, "the lease has lapsed; going on under another name");
                self.former = Some(name);
            }
            common.incarnation.change();
            self.sent = false;
        }
        Err(StoreError::Other {
            reason: format!(
                "{MOST_NAMES} names of this process have ended already; give it another one"
            ),
        })
    }

    /// The new name is registered: what it has taken over goes on, all else is lost.
    async fn takes_over(
        &mut self,
        leases: &Leases,
        name: &Arc<str>,
        beat: Beat,
        unsure: bool,
    ) -> Result<(), StoreError> {
        let held = if unsure {
            // An answer before this one may have told the rest.
            all_held(leases, name).await?
        } else {
            beat.inherited
        };
        let lost = leases.held().pass_on(Arc::clone(name), &held);
        leases.drop_lost(self.listener.upgrade().as_ref(), lost);
        leases.common.incarnation.settle();
        self.former = None;
        Ok(())
    }
}

async fn all_held(leases: &Leases, name: &str) -> Result<Vec<(RunId, i64)>, StoreError> {
    let mut held: Vec<(RunId, i64)> = Vec::new();
    loop {
        let after = held.last().map(|(run_id, _)| run_id.clone());
        let store = &leases.common.store;
        let page = store.held(name.to_owned(), after, PAGE).await?;
        let more = page.len() == PAGE as usize;
        held.extend(page);
        if !more {
            return Ok(held);
        }
    }
}
