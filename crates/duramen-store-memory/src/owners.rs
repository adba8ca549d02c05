//! Owners and their leases.

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::{Beat, ENDED_OWNERS_KEPT, Heartbeat, OwnerRow};

use crate::state::{State, instant};

/// One incarnation of one process.
#[derive(Debug)]
pub(crate) struct Owner {
    label: Option<String>,
    serves: Vec<String>,
    format: u8,
    started_at: Millis,
    seen_at: Millis,
    lease_until: Millis,
    ended_at: Option<Millis>,
}

impl Owner {
    const fn is_live(&self, now: Millis) -> bool {
        self.ended_at.is_none() && self.lease_until > now
    }

    /// The instant at which its runs are anybody's, if that has not come.
    const fn ends_at(&self, now: Millis) -> Millis {
        if self.is_live(now) {
            self.lease_until
        } else {
            now
        }
    }
}

impl State {
    pub(crate) fn is_live(&self, owner: &str, now: Millis) -> bool {
        self.owners
            .get(owner)
            .is_some_and(|owner| owner.is_live(now))
    }

    /// When the runs of an owner are anybody's. One that is not known has ended.
    pub(crate) fn ends_at(&self, owner: &str, now: Millis) -> Millis {
        self.owners
            .get(owner)
            .map_or(now, |owner| owner.ends_at(now))
    }

    /// Whoever let its lease lapse has ended for good, whatever the clock says later.
    pub(crate) fn end_the_lapsed(&mut self, now: Millis) {
        for owner in self.owners.values_mut() {
            if owner.ended_at.is_none() && owner.lease_until <= now {
                owner.ended_at = Some(now);
            }
        }
    }

    pub(crate) fn heartbeat(&mut self, beat: Heartbeat) -> Beat {
        let now = instant(beat.now);
        let lease_until = now.saturating_add(beat.lease);
        let answer = |alive, inherited| Beat {
            now,
            alive,
            inherited,
        };
        if let Some(owner) = self.owners.get_mut(&beat.owner) {
            if !owner.is_live(now) {
                owner.ended_at.get_or_insert(now);
                return answer(false, Vec::new());
            }
            owner.seen_at = now;
            owner.lease_until = lease_until;
            owner.label = beat.label;
            owner.serves = beat.serves;
            owner.format = beat.format;
        } else {
            self.forget_the_ended(now);
            let owner = Owner {
                label: beat.label,
                serves: beat.serves,
                format: beat.format,
                started_at: now,
                seen_at: now,
                lease_until,
                ended_at: None,
            };
            self.owners.insert(beat.owner.clone(), owner);
        }
        let inherited = match beat.succeeds {
            Some(former) if former != beat.owner => self.move_runs(&former, &beat.owner, now),
            _ => Vec::new(),
        };
        answer(true, inherited)
    }

    fn move_runs(&mut self, from: &str, to: &str, now: Millis) -> Vec<(RunId, i64)> {
        if let Some(former) = self.owners.get_mut(from) {
            former.ended_at.get_or_insert(now);
        }
        let mut moved = Vec::new();
        for run in self.runs.values_mut() {
            if run.row.owner.as_deref() == Some(from) {
                run.row.owner = Some(to.to_owned());
                moved.push((run.row.run_id.clone(), run.row.epoch));
            }
        }
        moved
    }

    /// Forgets owners that have ended a day ago and hold nothing.
    fn forget_the_ended(&mut self, now: Millis) {
        let long_ago = now.saturating_sub(ENDED_OWNERS_KEPT);
        let Self { runs, owners, .. } = self;
        owners.retain(|name, owner| {
            owner.ended_at.is_none_or(|at| at > long_ago)
                || runs
                    .values()
                    .any(|run| run.row.owner.as_deref() == Some(name))
        });
    }

    pub(crate) fn retire(&mut self, owner: &str, now: Option<Millis>) {
        let now = instant(now);
        if let Some(owner) = self.owners.get_mut(owner) {
            owner.ended_at.get_or_insert(now);
        }
    }

    pub(crate) fn owners(&self) -> Vec<OwnerRow> {
        self.owners
            .iter()
            .map(|(name, owner)| OwnerRow {
                owner: name.clone(),
                label: owner.label.clone(),
                serves: owner.serves.clone(),
                format: owner.format,
                started_at: owner.started_at,
                seen_at: owner.seen_at,
                lease_until: owner.lease_until,
                ended_at: owner.ended_at,
                held: self.held(name, None, u32::MAX).len() as u64,
            })
            .collect()
    }

    pub(crate) fn held(&self, owner: &str, after: Option<&RunId>, limit: u32) -> Vec<(RunId, i64)> {
        self.runs
            .values()
            .filter(|run| run.row.owner.as_deref() == Some(owner))
            .filter(|run| after.is_none_or(|after| run.row.run_id > *after))
            .take(limit as usize)
            .map(|run| (run.row.run_id.clone(), run.row.epoch))
            .collect()
    }
}
