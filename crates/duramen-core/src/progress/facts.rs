//! Who the run is.

use std::borrow::Cow;

use super::ledger::Taken;
use crate::derive::of_generation;
use crate::ids::{Millis, RunId};
use crate::journal::Entry;
use crate::run::{RunRow, Seed};
use crate::store::{Next, RunCommit};

/// Facts of a run that never change while it is driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub run_id: RunId,
    pub workflow: String,
    pub version: String,
    pub owner: String,
    pub epoch: i64,
    pub seed: Seed,
    /// What values are derived from: the seed, or what the generation makes of it.
    drawn: Seed,
    pub created_at: Millis,
    pub started_at: Millis,
    pub deadline: Option<Millis>,
    /// How long the run may take, counted from its beginning or its last reopening.
    pub timeout: Option<Millis>,
    /// The run that started this one, and the first of that family.
    pub parent: Option<RunId>,
    pub root: Option<RunId>,
    /// How often it was continued as new.
    pub generation: u64,
    /// The index at which the journal of this generation begins. The machine counts from there.
    pub journal_start: u64,
    /// The least encoding that can read the run, as the store knows it.
    pub format: u8,
}

impl Facts {
    /// As a claim tells them.
    pub(crate) fn of(row: &RunRow, owner: &str) -> Self {
        Self {
            run_id: row.run_id.clone(),
            workflow: row.workflow.clone(),
            version: row.version.clone(),
            owner: owner.to_owned(),
            epoch: row.epoch,
            seed: row.seed,
            drawn: of_generation(&row.seed, row.generation),
            created_at: row.created_at,
            started_at: row.started_at.unwrap_or(row.created_at),
            deadline: row.deadline,
            timeout: row.timeout,
            parent: row.parent.clone(),
            root: row.root.clone(),
            generation: row.generation,
            journal_start: row.journal_start,
            format: row.format,
        }
    }

    /// A name that no other generation of the run makes: the text, from the second one on with the number of
    /// the generation behind it. Whatever is known outside of the run by what the handler calls it (approvals,
    /// idempotency keys, children, messages) goes through this: its operations have the same ids in each.
    pub fn in_generation<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.generation {
            0 => Cow::Borrowed(text),
            generation => Cow::Owned(format!("{text}@{generation}")),
        }
    }

    /// What values are derived from.
    pub(crate) const fn drawn(&self) -> &Seed {
        &self.drawn
    }

    /// The same run after a new claim, whose fence is another.
    pub(crate) fn claimed_again(&mut self, row: &RunRow) {
        self.epoch = row.epoch;
        self.format = row.format;
        if let Some(owner) = &row.owner {
            self.owner.clone_from(owner);
        }
    }

    /// A commit of what is taken from the ledger, in the run's name and with its fence.
    /// What it says of the inbox and of the state is left to be filled in.
    pub(crate) fn commit(&self, taken: Taken, next: Next, at: Millis) -> Box<RunCommit> {
        let Taken {
            expected,
            entries,
            outgoing,
            written,
        } = taken;
        let format = self.raised_format(&entries);
        Box::new(RunCommit {
            run_id: self.run_id.clone(),
            seed: self.seed,
            owner: self.owner.clone(),
            epoch: self.epoch,
            expected_len: self.journal_start + expected,
            entries,
            read: Vec::new(),
            inbox_seen: None,
            next,
            state: None,
            outgoing,
            written,
            format,
            at,
        })
    }

    /// What the store must be told of who can read these entries, if it does not know.
    pub(crate) fn raised_format(&self, entries: &[Entry]) -> Option<u8> {
        let needed = entries.iter().map(|entry| entry.encoding).max()?;
        (needed > self.format).then_some(needed)
    }

    /// The store was told, or is about to be.
    pub(crate) fn told_format(&mut self, format: Option<u8>) {
        self.format = format.unwrap_or(self.format);
    }
}
