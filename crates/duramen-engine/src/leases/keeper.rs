//! The keeper: renews the leases of the runs that are driven here, a third of a lease apart, and
//! finds out which of them are lost.
//!
//! A heartbeat renews all runs that the store says this engine's owner has. Some of them may not be
//! driven here: the answer to a claim, a creation or a commit was lost on its way. Renewed for ever,
//! such a run would be driven by nobody. So what is held and not known here is let go, once it has
//! been so for two heartbeats (an answer may still be under way at the first).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use duramen_core::ids::RunId;
use duramen_core::store::{Beat, Heartbeat, StoreError};
use tokio::sync::Notify;

use super::lease::{Leases, Listener};
use crate::env::span;
use crate::host::{HostEvent, Ticket};

/// Renews the leases from now on, until they are closed or dropped.
pub(crate) fn keep(leases: &Arc<Leases>, listener: Weak<dyn Listener>) {
    let keeping = run(Arc::downgrade(leases), listener, Arc::clone(&leases.bell));
    leases.common.env.spawn(Box::pin(keeping));
}

async fn run(leases: Weak<Leases>, listener: Weak<dyn Listener>, bell: Arc<Notify>) {
    let living = || {
        let leases = leases.upgrade()?;
        (!leases.common.is_closing()).then_some(leases)
    };
    let mut keeper = Keeper {
        listener,
        suspects: BTreeMap::new(),
    };
    let mut again = false;
    loop {
        let Some(leases) = living() else { return };
        // A lease that begins now has its first heartbeat within a third of it.
        let share = if again { 12 } else { 3 };
        let sleep = leases
            .common
            .env
            .sleep(span((leases.span() / share).max(1)));
        drop(leases);
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = bell.notified() => continue,
        }
        let Some(leases) = living() else { return };
        again = false;
        if leases.held().len() == 0 {
            // Without heartbeats, orphans are freed by the end of their leases.
            keeper.suspects.clear();
        } else if let Err(error) = keeper.beat(&leases).await {
            tracing::warn!(%error, "leases could not be renewed; trying again");
            again = true;
        }
    }
}

struct Keeper {
    listener: Weak<dyn Listener>,
    /// What was held and not driven here at the last heartbeat.
    suspects: BTreeMap<RunId, i64>,
}

impl Keeper {
    /// Renews the leases and drops the runs that someone else has taken.
    async fn beat(&mut self, leases: &Leases) -> Result<(), StoreError> {
        let common = &*leases.common;
        if common.host.blocked_for() > leases.span() {
            // The host has not moved for a whole lease. Its runs are better off elsewhere.
            tracing::warn!(
                "the event loop has been blocked for longer than a lease; leases are not renewed"
            );
            return Ok(());
        }
        common.host.probe();
        let believed = leases.held().believed();
        let asked = common.clock.asking();
        let beat = Heartbeat {
            owner: common.owner().to_owned(),
            lease: leases.span(),
            now: common.clock.explicit_now(),
        };
        common.counters.heartbeats.fetch_add(1, Ordering::Relaxed);
        let beat = common.store.heartbeat(beat).await?;
        common.clock.learn(asked, beat.now);
        let orphans = self.settle(leases, believed, &beat);
        leases.held().renew(&beat.held, leases.from(asked));
        if !orphans.is_empty() {
            self.free(leases, orphans).await;
        }
        Ok(())
    }

    /// Compares what is held with what is driven here.
    fn settle(
        &mut self,
        leases: &Leases,
        believed: Vec<(Ticket, RunId, i64)>,
        beat: &Beat,
    ) -> Vec<(RunId, i64)> {
        let held: BTreeSet<(&RunId, i64)> =
            beat.held.iter().map(|(id, epoch)| (id, *epoch)).collect();
        let lost = believed
            .into_iter()
            .filter(|(_, run_id, epoch)| !held.contains(&(run_id, *epoch)))
            .map(|(ticket, _, epoch)| (ticket, epoch));
        self.drop_lost(leases, lost);
        let before = std::mem::take(&mut self.suspects);
        let mut orphans = Vec::new();
        for (run_id, epoch) in &beat.held {
            if leases.held().has_tenure(run_id, *epoch) {
                continue;
            }
            if before.get(run_id) == Some(epoch) {
                orphans.push((run_id.clone(), *epoch));
            }
            self.suspects.insert(run_id.clone(), *epoch);
        }
        orphans
    }

    /// The store says that these are not held any more. Their places are free at once; the host is
    /// told, and a host that does not know them cannot keep them here.
    fn drop_lost(&self, leases: &Leases, lost: impl Iterator<Item = (Ticket, i64)>) {
        let mut events = Vec::new();
        for (ticket, epoch) in lost {
            if leases.held().believes(ticket, epoch) {
                if let Some(listener) = self.listener.upgrade() {
                    listener.lost(ticket);
                }
                events.push(HostEvent::Lost {
                    ticket,
                    epoch,
                    error: None,
                });
            }
        }
        leases.common.host.push_all(events);
    }

    /// Lets go of runs that are leased to this process and unknown here.
    async fn free(&self, leases: &Leases, orphans: Vec<(RunId, i64)>) {
        let common = &*leases.common;
        let run_ids = orphans.iter().map(|(run_id, _)| run_id.clone()).collect();
        let details = match common.store.get(run_ids).await {
            Ok(details) => details,
            Err(error) => {
                tracing::warn!(%error, "runs that nobody drives could not be read; trying again");
                return;
            }
        };
        let rows: Vec<_> = orphans
            .into_iter()
            .zip(details)
            .filter_map(|((_, epoch), detail)| {
                let row = detail?.row;
                let mine = row.owner.as_deref() == Some(common.owner()) && row.epoch == epoch;
                (mine && !leases.held().has_tenure(&row.run_id, epoch)).then_some(row)
            })
            .collect();
        common
            .counters
            .orphans
            .fetch_add(rows.len() as u64, Ordering::Relaxed);
        leases.releases.let_go(rows);
        if let Some(listener) = self.listener.upgrade() {
            listener.freed();
        }
    }
}
