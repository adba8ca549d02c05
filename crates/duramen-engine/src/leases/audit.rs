//! The audit: what the store says this process holds against what is in hand.
//!
//! Some runs that are held by the store may not be driven here: the answer to a claim, a creation or a commit
//! was lost on its way. Under a lease that is renewed for ever such a run would be driven by nobody. So what
//! is held and not known here is let go at the second look (an answer may still be under way at the first).
//! And some that are driven here may not be held: people have terminated or deleted them.
//!
//! One pass over all runs a lease, in pages, spread over its heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use duramen_core::ids::RunId;
use duramen_core::store::StoreError;
use tokio::sync::Notify;

use super::keeper::PAGE;
use super::lease::{Leases, Listener};
use crate::commits::rows_as_they_stand;
use crate::host::Ticket;

/// Heartbeats in a lease.
const BEATS: usize = 3;

/// How long the answers that are under way at a first look have until the second, where that is not left to
/// the next heartbeat.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// A task of its own: a store that is slow here must not hold up a heartbeat.
pub(super) fn audit(leases: &Arc<Leases>, listener: Weak<dyn Listener>) {
    let auditing = run(
        Arc::downgrade(leases),
        listener,
        Arc::clone(&leases.renewed),
    );
    leases.common.env.spawn(Box::pin(auditing));
}

async fn run(leases: Weak<Leases>, listener: Weak<dyn Listener>, renewed: Arc<Notify>) {
    let mut audit = Audit {
        listener,
        owner: "".into(),
        beats: 0,
        pass: None,
        found: 0,
        suspects: BTreeMap::new(),
    };
    loop {
        renewed.notified().await;
        let Some(leases) = leases
            .upgrade()
            .filter(|leases| !leases.common.is_closing())
        else {
            return;
        };
        let doubt = leases.takes_doubt();
        let looked = if doubt {
            audit.look_now(&leases).await
        } else {
            audit.look(&leases).await
        };
        if let Err(error) = looked {
            tracing::debug!(%error, "what is held could not be read; trying again");
            if doubt {
                leases.keep_doubt();
            }
        }
    }
}

struct Audit {
    listener: Weak<dyn Listener>,
    /// The name that is audited.
    owner: Arc<str>,
    /// Heartbeats since the last pass began.
    beats: usize,
    /// The pass under way: the run behind which it goes on, and how many were found before it.
    pass: Option<(Option<RunId>, usize)>,
    /// How many the last pass found.
    found: usize,
    /// What was held and not driven here at the last look.
    suspects: BTreeMap<RunId, i64>,
}

impl Audit {
    /// Both looks in a row, from the beginning: an answer was lost that may have given this process runs.
    async fn look_now(&mut self, leases: &Leases) -> Result<(), StoreError> {
        (self.beats, self.pass) = (BEATS, None);
        self.look(leases).await?;
        leases.common.env.sleep(SECOND_LOOK).await;
        self.look(leases).await
    }

    /// After each heartbeat.
    async fn look(&mut self, leases: &Leases) -> Result<(), StoreError> {
        let owner = leases.common.owner();
        if owner != self.owner {
            // What the new name has taken over is a look at it, too: a process whose lease lapses again and
            // again would never get to a second one otherwise.
            (self.owner, self.pass) = (owner, None);
            let unclaimed: BTreeMap<RunId, i64> = leases.held().unclaimed().into_iter().collect();
            self.suspects
                .retain(|run_id, epoch| unclaimed.get(run_id) == Some(epoch));
            self.free(leases).await?;
            self.suspects = unclaimed;
        } else if !self.suspects.is_empty() {
            self.free(leases).await?;
        }
        self.beats += 1;
        if self.pass.is_none() {
            if self.beats < BEATS {
                return Ok(());
            }
            (self.beats, self.pass) = (0, Some((None, 0)));
            leases.common.outbox.look();
        }
        let expected = self.found.max(leases.held().len());
        let pages = expected / PAGE as usize + 1;
        for _ in 0..pages.div_ceil(BEATS) {
            let Some((after, before)) = self.pass.take() else {
                break;
            };
            self.pass = Some((after.clone(), before)); // should the next fail
            self.pass = self.page(leases, after, before).await?;
        }
        Ok(())
    }

    /// Compares a page, and says where the next begins.
    async fn page(
        &mut self,
        leases: &Leases,
        after: Option<RunId>,
        before: usize,
    ) -> Result<Option<(Option<RunId>, usize)>, StoreError> {
        // What is claimed from here on is not missed.
        let believed = leases.held().believed(after.as_ref());
        let store = &leases.common.store;
        let held = store.held(self.owner.to_string(), after, PAGE).await?;
        if leases.common.incarnation.has_changed_since(&self.owner) {
            return Ok(None);
        }
        let found = before + held.len();
        let end = held
            .last()
            .filter(|_| held.len() == PAGE as usize)
            .map(|(run_id, _)| run_id.clone());
        self.compare(leases, believed, &held, end.as_ref());
        if end.is_none() {
            self.found = found;
        }
        Ok(end.map(|end| (Some(end), found)))
    }

    fn compare(
        &mut self,
        leases: &Leases,
        believed: Vec<(Ticket, RunId, i64)>,
        held: &[(RunId, i64)],
        end: Option<&RunId>,
    ) {
        let known: BTreeSet<(&RunId, i64)> = held.iter().map(|(id, epoch)| (id, *epoch)).collect();
        let lost = believed
            .into_iter()
            .take_while(|(_, run_id, _)| end.is_none_or(|end| run_id <= end))
            .filter(|(_, run_id, epoch)| !known.contains(&(run_id, *epoch)))
            .map(|(ticket, _, epoch)| (ticket, epoch));
        leases.drop_lost(self.listener.upgrade().as_ref(), lost);
        for (run_id, epoch) in held {
            if !leases.held().has_tenure(run_id, *epoch) {
                self.suspects.insert(run_id.clone(), *epoch);
            }
        }
    }

    /// Lets go of runs that are leased to this process and unknown here, at the second look.
    async fn free(&mut self, leases: &Leases) -> Result<(), StoreError> {
        let common = &*leases.common;
        let mut orphans = std::mem::take(&mut self.suspects);
        orphans.retain(|run_id, epoch| !leases.held().has_tenure(run_id, *epoch));
        if orphans.is_empty() {
            return Ok(());
        }
        let run_ids = orphans.keys().cloned().collect();
        let rows = rows_as_they_stand(common, run_ids).await?;
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|row| {
                row.owner.as_deref() == Some(&*self.owner)
                    && orphans.get(&row.run_id) == Some(&row.epoch)
                    && leases.held().forgo(row)
            })
            .collect();
        common
            .counters
            .orphans
            .fetch_add(rows.len() as u64, Ordering::Relaxed);
        if !rows.is_empty() {
            leases.releases.let_go(rows);
            if let Some(listener) = self.listener.upgrade() {
                listener.freed();
            }
        }
        Ok(())
    }
}
