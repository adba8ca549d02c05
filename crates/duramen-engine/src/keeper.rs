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

use crate::driver::Driven;
use crate::engine::{Engine, Signals};
use crate::env::span;
use crate::host::{HostEvent, Ticket};

/// Runs until the engine is closed or dropped.
pub(crate) async fn keep(weak: Weak<Engine>, signals: Arc<Signals>) {
    let mut suspects = BTreeMap::new();
    let mut again = false;
    loop {
        let Some(engine) = weak.upgrade().filter(|engine| !engine.is_closing()) else {
            return;
        };
        // A lease that begins now has its first heartbeat within a third of it.
        let share = if again { 12 } else { 3 };
        let sleep = engine.env.sleep(span((engine.config.lease / share).max(1)));
        drop(engine);
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = signals.beats.notified() => continue,
        }
        let Some(engine) = weak.upgrade().filter(|engine| !engine.is_closing()) else {
            return;
        };
        again = false;
        if engine.active() == 0 {
            // Without heartbeats, orphans are freed by the end of their leases.
            suspects.clear();
        } else if let Err(error) = beat(&engine, &mut suspects).await {
            tracing::warn!(%error, "leases could not be renewed; trying again");
            again = true;
        }
    }
}

/// Renews the leases and drops the runs that someone else has taken.
async fn beat(engine: &Arc<Engine>, suspects: &mut BTreeMap<RunId, i64>) -> Result<(), StoreError> {
    if engine.host.blocked_for() > engine.config.lease {
        // The host has not moved for a whole lease. Its runs are better off elsewhere.
        tracing::warn!(
            "the event loop has been blocked for longer than a lease; leases are not renewed"
        );
        return Ok(());
    }
    engine.host.probe();
    let believed = engine.registry().held();
    let asked = engine.asking();
    let beat = Heartbeat {
        owner: engine.config.owner.clone(),
        lease: engine.config.lease,
        now: engine.env.explicit_now(),
    };
    engine.counters.heartbeats.fetch_add(1, Ordering::Relaxed);
    let beat = engine.store.heartbeat(beat).await?;
    engine.learn_clock(asked, beat.now);
    let orphans = settle(engine, believed, &beat, suspects);
    engine
        .registry()
        .renewed(&beat.held, engine.leased_from(asked));
    if !orphans.is_empty() {
        free(engine, orphans).await;
    }
    Ok(())
}

/// Compares what is held with what is driven here.
fn settle(
    engine: &Arc<Engine>,
    believed: Vec<(Ticket, RunId, i64)>,
    beat: &Beat,
    suspects: &mut BTreeMap<RunId, i64>,
) -> Vec<(RunId, i64)> {
    let held: BTreeSet<(&RunId, i64)> = beat.held.iter().map(|(id, epoch)| (id, *epoch)).collect();
    let lost: Vec<(Ticket, RunId, i64)> = believed
        .into_iter()
        .filter(|(_, run_id, epoch)| !held.contains(&(run_id, *epoch)))
        .collect();
    engine.drop_lost(lost);
    let before = std::mem::take(suspects);
    let registry = engine.registry();
    let mut orphans = Vec::new();
    for (run_id, epoch) in &beat.held {
        if registry.drives(run_id, *epoch) {
            continue;
        }
        if before.get(run_id) == Some(epoch) {
            orphans.push((run_id.clone(), *epoch));
        }
        suspects.insert(run_id.clone(), *epoch);
    }
    orphans
}

/// Lets go of runs that are leased to this engine and unknown here.
async fn free(engine: &Arc<Engine>, orphans: Vec<(RunId, i64)>) {
    let run_ids = orphans.iter().map(|(run_id, _)| run_id.clone()).collect();
    let details = match engine.store.get(run_ids).await {
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
            let mine = row.owner.as_deref() == Some(engine.owner()) && row.epoch == epoch;
            (mine && !engine.registry().drives(&row.run_id, epoch)).then_some(row)
        })
        .collect();
    engine
        .counters
        .orphans
        .fetch_add(rows.len() as u64, Ordering::Relaxed);
    engine.let_go(rows);
    engine.nudge();
}

impl Engine {
    /// The store says that these are not held any more. Their places are free at once; the host is
    /// told, and a host that does not know them cannot keep them here.
    fn drop_lost(&self, lost: Vec<(Ticket, RunId, i64)>) {
        let mut events = Vec::new();
        for (ticket, _, epoch) in lost {
            let still = self
                .registry()
                .get_mut(ticket)
                .is_some_and(|active| active.epoch == epoch && active.leaving.is_none());
            if still {
                self.ended(ticket, Driven::Lost);
                events.push(HostEvent::Lost {
                    ticket,
                    epoch,
                    error: None,
                });
            }
        }
        self.host.push_all(events);
    }
}
