//! Paused runs whose handlers are kept.

use std::num::NonZeroUsize;

use duramen_core::ids::RunId;
use duramen_core::run::{RunRow, Seed};
use lru::LruCache;

use crate::host::Ticket;

/// A handler that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) ticket: Ticket,
    /// Where it stands in the journal.
    pub(super) journal_len: u64,
    /// Tells its run from a later one of the same id.
    pub(super) seed: Seed,
    /// That of the claim under which it was driven.
    pub(super) epoch: i64,
}

impl Kept {
    /// Whether it goes on with a run that was claimed. If anybody had the run meanwhile it does not, however long the
    /// journal is: the run may be another version's since.
    pub(super) fn fits(&self, row: &RunRow) -> bool {
        self.journal_len == row.journal_len && self.seed == row.seed && self.epoch + 1 == row.epoch
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Warm(Option<LruCache<RunId, Kept>>);

impl Warm {
    pub(super) fn new(most: usize) -> Self {
        Self(NonZeroUsize::new(most).map(LruCache::new))
    }

    pub(super) fn take(&mut self, run_id: &RunId) -> Option<Kept> {
        self.0.as_mut()?.pop(run_id)
    }

    /// The one that must make room, if any, comes back.
    pub(super) fn keep(&mut self, run_id: RunId, kept: Kept) -> Option<Ticket> {
        match &mut self.0 {
            None => Some(kept.ticket),
            Some(warm) => warm.push(run_id, kept).map(|(_, evicted)| evicted.ticket),
        }
    }

    /// What a claim says of kept handlers: of one run, or of all.
    pub(super) fn runs(&self, only: Option<&RunId>) -> Vec<(RunId, u64)> {
        let said = |(run_id, kept): (&RunId, &Kept)| (run_id.clone(), kept.journal_len);
        match (&self.0, only) {
            (None, _) => Vec::new(),
            (Some(warm), None) => warm.iter().map(said).collect(),
            (Some(warm), Some(run_id)) => {
                let kept = warm.peek(run_id);
                kept.map(|kept| said((run_id, kept))).into_iter().collect()
            }
        }
    }
}
