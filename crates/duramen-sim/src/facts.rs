//! What is known of the world: from the store's own answers (see `judge.rs`) and from the hosts.

use std::collections::{BTreeMap, BTreeSet};

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::{RunRow, Seed, Status};
use duramen_core::store::{Delivery, MessageKind, NewMessage, RunCommit};

use crate::counts::Counts;
use crate::letters::Letters;
use crate::model;
use crate::oracles::{self, REPLAY, Violation, is_unfit, text};
use crate::owners::Owners;

/// What the handler learnt with a journal entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The entry's index.
    pub place: u64,
    pub what: String,
}

/// Who drove a run in one epoch.
#[derive(Debug, Clone)]
pub(crate) struct Tenure {
    pub(crate) owner: String,
    /// When it began.
    pub(crate) since: Millis,
    /// How far the journal went when it was claimed, and goes now by this driver's own commits.
    durable: u64,
    /// What the handler learnt that may not be durable yet.
    seen: Vec<Seen>,
}

/// What is known of one life of a run.
#[derive(Debug, Default)]
pub struct RunFacts {
    pub(crate) input: Payload,
    pub history: Vec<Entry>,
    pub(crate) tenures: BTreeMap<i64, Tenure>,
    /// What handlers learnt with durable entries.
    learnt: BTreeMap<u64, String>,
    /// Steps whose end is recorded, and for others the failed attempts that are.
    pub(crate) ended: BTreeSet<String>,
    pub(crate) failed: BTreeMap<String, u32>,
    /// Attempts that came out, with what.
    outcomes: BTreeSet<(String, u32, String)>,
    pub(crate) sent: BTreeMap<String, Sent>,
    /// Changes that the store said had failed, and that may have taken place all the same.
    unsure: Vec<Unsure>,
    /// The status that somebody was shown as the final one.
    pub(crate) shown: Option<Status>,
    /// Drivers of this epoch and of earlier ones were cut off although their leases lasted: by people, or by
    /// a clock of the store that was set. They notice late, and what they start meanwhile is not theirs to
    /// know.
    pub(crate) cut_off: i64,
    /// Somebody has taken back a part of its journal.
    pub reopened: bool,
    /// A deletion failed, and may have taken place.
    pub(crate) may_be_gone: bool,
}

#[derive(Debug, Clone)]
struct Unsure {
    epoch: i64,
    expected_len: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) kind: MessageKind,
    pub(crate) name: String,
    pub(crate) payload: String,
    pub(crate) encoding: u8,
    /// The store said that it keeps it.
    pub(crate) kept: bool,
}

/// A step that is about to start.
#[derive(Debug, Clone)]
pub struct Starting {
    pub epoch: i64,
    pub op: String,
    pub attempt: u32,
    /// How far the journal went, hard entries only, when the handler asked for it.
    pub asked_at: u64,
    pub now: Millis,
}

/// A run's id and which life of it is meant.
pub type RunLife = (RunId, Seed);

/// All that is known, and the first rule that was found broken.
#[derive(Debug, Default)]
pub struct Facts {
    pub lives: BTreeMap<RunLife, RunFacts>,
    /// The life of each run that there is now.
    pub present: BTreeMap<RunId, Seed>,
    /// Ids that were deleted, and had a life before.
    pub deleted: BTreeSet<RunId>,
    pub owners: Owners,
    pub letters: Letters,
    /// The world's time.
    pub now: Millis,
    pub violation: Option<Violation>,
    pub counts: Counts,
}

impl Facts {
    /// Keeps the first rule that is broken.
    pub fn judge(&mut self, rule: &'static str, found: Result<(), String>) {
        if let Err(what) = found {
            self.violation.get_or_insert(Violation { rule, what });
        }
    }

    pub fn life(&mut self, life: RunLife) -> &mut RunFacts {
        self.lives.entry(life).or_default()
    }

    /// The present life of a run; nothing is known of one that is not there.
    pub fn run(&mut self, run_id: &RunId) -> &mut RunFacts {
        let seed = self.present.get(run_id).copied().unwrap_or_default();
        self.life((run_id.clone(), seed))
    }

    pub fn created(&mut self, row: &RunRow, input: Payload, first: Entry) {
        self.counts.runs += 1;
        self.counts.recreated += u64::from(self.deleted.remove(&row.run_id));
        self.present.insert(row.run_id.clone(), row.seed);
        let now = self.now;
        // A creation that is sent again after the run was deleted brings the same seed once more.
        let before = self.lives.remove(&(row.run_id.clone(), row.seed));
        let run = self.run(&row.run_id);
        // Nobody can tell then which of the two a driver of the first epoch means.
        run.reopened = before.is_some_and(|before| !before.history.is_empty());
        run.input = input;
        run.history.push(first);
        if row.owner.is_some() {
            run.leased(row, now);
        }
    }

    /// A run was claimed. `lasted` says that the lease of whoever had it before was not over yet by a clock
    /// that nobody sets.
    pub fn claimed(&mut self, row: &RunRow, lasted: bool) {
        self.counts.claims += 1;
        let now = self.now;
        let run = self.run(&row.run_id);
        if lasted {
            run.cut_off = row.epoch - 1;
        }
        run.leased(row, now);
    }

    /// It has another life from now on, or none.
    pub fn deleted(&mut self, run_id: &RunId) {
        self.counts.deleted += 1;
        if self.present.remove(run_id).is_some() {
            self.deleted.insert(run_id.clone());
        }
    }

    /// People have changed a run: whoever drove it is cut off.
    pub fn intervened(&mut self, run_id: &RunId, entries: &[Entry], row: Option<&RunRow>) {
        let run = self.run(run_id);
        run.append(entries);
        if let Some(row) = row {
            run.cut_off = row.epoch - 1;
            run.shown = row.status.is_final().then_some(row.status);
        }
    }

    /// Somebody is about to send this.
    pub fn sending(&mut self, message: &NewMessage) {
        let payload = text(&message.payload);
        let run = self.run(&message.run_id);
        run.sent
            .entry(message.message_id.clone())
            .or_insert_with(|| Sent {
                kind: message.kind,
                name: message.name.clone(),
                payload,
                encoding: message.encoding,
                kept: false,
            });
    }

    pub fn delivered(&mut self, message: &NewMessage, result: Delivery) {
        self.counts.messages += 1;
        let seed = self.present.get(&message.run_id).copied();
        let target = (message.run_id.clone(), seed.unwrap_or_default());
        let carried = self.letters.carried(&message.message_id, target, result);
        self.counts.carried += u64::from(carried == Ok(true));
        self.judge(oracles::CARRIED, carried.map(drop));
        match result {
            Delivery::Delivered | Delivery::Buffered => {
                if let Some(sent) = self.run(&message.run_id).sent.get_mut(&message.message_id) {
                    sent.kept = true;
                }
            }
            Delivery::Duplicate => self.counts.duplicates += 1,
            Delivery::Blocked => self.counts.blocked += 1,
            Delivery::NotFound | Delivery::Finished | Delivery::Full => {}
        }
    }

    /// A commit took place: what the handler had learnt with its entries stands for ever.
    pub fn committed(&mut self, commit: &RunCommit) {
        let run = self.life((commit.run_id.clone(), commit.seed));
        run.append(&commit.entries);
        run.unsure.clear();
        if let Some(tenure) = run.tenures.get_mut(&commit.epoch) {
            tenure.durable = commit.length_after();
        }
        let found = run.settle(commit.epoch);
        self.judge(REPLAY, found);
    }

    /// A handler learnt something with the entry at that place.
    pub fn saw(&mut self, life: RunLife, epoch: i64, seen: Seen) {
        let run = self.life(life);
        let Some(tenure) = run.tenures.get_mut(&epoch) else {
            return;
        };
        tenure.seen.push(seen);
        let found = run.settle(epoch);
        self.judge(REPLAY, found);
    }

    /// What somebody holds goes to another name: epochs stay.
    pub fn inherited(&mut self, run_id: &RunId, epoch: i64, to: &str) {
        self.counts.inherited += 1;
        if let Some(tenure) = self.run(run_id).tenures.get_mut(&epoch) {
            to.clone_into(&mut tenure.owner);
        }
    }
}

impl RunFacts {
    fn leased(&mut self, row: &RunRow, since: Millis) {
        self.tenures.insert(
            row.epoch,
            Tenure {
                owner: row.owner.clone().unwrap_or_default(),
                since,
                durable: row.journal_len,
                seen: Vec::new(),
            },
        );
    }

    pub fn came_out(&mut self, op: &str, attempt: u32, payload: &str) {
        self.outcomes
            .insert((op.to_owned(), attempt, payload.to_owned()));
    }

    pub fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry.kind {
                Kind::StepCompleted | Kind::StepFailed => {
                    self.ended.insert(entry.op.to_string());
                }
                Kind::StepAttemptFailed => {
                    let attempt = oracles::meta(entry).and_then(|meta| meta.attempt);
                    self.failed
                        .insert(entry.op.to_string(), attempt.unwrap_or(1));
                }
                Kind::RunReopened => self.take_back(entry),
                _ => {}
            }
            self.history.push(entry.clone());
        }
    }

    /// Failures behind the cause of a reopening are forgiven; results stay for ever.
    fn take_back(&mut self, reopened: &Entry) {
        self.reopened = true;
        self.failed.clear();
        let cause = oracles::meta(reopened).and_then(|meta| meta.cause);
        let cause = cause.and_then(|at| usize::try_from(at).ok());
        let forgiven = self
            .history
            .get(cause.unwrap_or(usize::MAX)..)
            .unwrap_or(&[]);
        for entry in forgiven {
            if entry.kind == Kind::StepFailed {
                self.ended.remove(&*entry.op);
            }
        }
    }

    pub fn unsure(&mut self, epoch: i64, expected_len: u64, entries: &[Entry]) {
        self.unsure.push(Unsure {
            epoch,
            expected_len,
            entries: entries.to_vec(),
        });
    }

    /// A journal that is longer than was known: one of the changes that failed did take place.
    pub fn take_place(&mut self, journal: &[Entry]) -> Result<(), String> {
        let known = self.history.len();
        let Some(tail) = journal.get(known..).filter(|tail| !tail.is_empty()) else {
            return Ok(());
        };
        let found = self
            .unsure
            .iter()
            .find(|change| change.expected_len == known as u64 && change.entries == tail)
            .cloned();
        let Some(change) = found else {
            return Ok(()); // the comparison of histories says what is wrong
        };
        self.append(&change.entries);
        self.unsure.clear();
        if self.reopened {
            self.shown = None;
        }
        if let Some(tenure) = self.tenures.get_mut(&change.epoch) {
            tenure.durable = self.history.len() as u64;
        }
        self.settle(change.epoch)
    }

    /// What was learnt in this epoch with entries that are durable now stands for ever. Entries that
    /// another driver has written in their place do not count, and places say nothing any more once some
    /// were taken back.
    fn settle(&mut self, epoch: i64) -> Result<(), String> {
        if self.reopened {
            return Ok(());
        }
        let Some(tenure) = self.tenures.get_mut(&epoch) else {
            return Ok(());
        };
        let durable = tenure.durable;
        let mut found = Ok(());
        tenure.seen.retain(|seen| {
            if seen.place >= durable {
                return true;
            }
            let first = self.learnt.entry(seen.place);
            let first = first.or_insert_with(|| seen.what.clone());
            if *first != seen.what {
                found = Err(format!(
                    "entry {} told one handler {first:?} and another {:?}",
                    seen.place, seen.what
                ));
            }
            false
        });
        found
    }

    /// Ids of messages that the journal shows as consumed.
    pub(crate) fn consumed(&self) -> BTreeSet<String> {
        self.history
            .iter()
            .filter_map(|entry| oracles::meta(entry)?.message)
            .collect()
    }

    pub fn learnt(&self) -> &BTreeMap<u64, String> {
        &self.learnt
    }

    /// The least encoding that can read what is known of it.
    pub fn format(&self) -> u8 {
        let entries = self.history.iter().map(|entry| entry.encoding);
        let kept = self.sent.values().filter(|sent| sent.kept);
        entries
            .chain(kept.map(|sent| sent.encoding))
            .max()
            .unwrap_or(1)
    }
}

impl model::World for RunFacts {
    fn came_out(&self, op: &str, attempt: u32, payload: &str) -> bool {
        let outcome = (op.to_owned(), attempt, payload.to_owned());
        self.outcomes.contains(&outcome)
    }

    fn was_sent(&self, message: &str, wait: Option<&str>, payload: &str) -> bool {
        self.sent.get(message).is_some_and(|sent| {
            sent.kind.wait_key(&sent.name).as_deref() == wait
                && sent.payload == payload
                && !is_unfit(payload)
        })
    }
}
