//! What must hold whatever happens: one function for each rule, over what is known of the world.
//!
//! The facts come from the store's own answers (see `judge.rs`) and from the hosts. A rule that is
//! broken is reported once; the simulation stops there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{CommitOutcome, Delivery, MessageKind, NewMessage, RunCommit};

use crate::model;

/// Clocks that differ by so little are taken for one; see the engine's tolerance.
const CLOCK_TOLERANCE: Millis = 20;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// What the handler learnt with a journal entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The entry's index.
    pub place: u64,
    pub what: String,
}

/// Who drove a run in one epoch.
#[derive(Debug, Clone)]
struct Tenure {
    owner: String,
    leased_until: Millis,
    /// How far the journal went when it was claimed, and goes now by this driver's own commits.
    durable: u64,
    /// What the handler learnt that may not be durable yet.
    seen: Vec<Seen>,
}

/// What is known of one run.
#[derive(Debug, Default)]
pub struct RunFacts {
    input: Payload,
    pub history: Vec<Entry>,
    tenures: BTreeMap<i64, Tenure>,
    /// What handlers learnt with durable entries.
    learnt: BTreeMap<u64, String>,
    /// Steps whose end is recorded, and for others the failed attempts that are.
    ended: BTreeSet<String>,
    failed: BTreeMap<String, u32>,
    /// Attempts that came out, with what.
    outcomes: BTreeSet<(String, u32, String)>,
    sent: BTreeMap<String, Sent>,
    /// Commits that the store said had failed, and that may have taken place all the same.
    unsure: Vec<RunCommit>,
    /// The status that somebody was shown as the final one.
    shown: Option<Status>,
}

#[derive(Debug)]
struct Sent {
    kind: MessageKind,
    name: String,
    payload: String,
    /// The store said that it keeps it.
    kept: bool,
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

/// All that is known, and the first rule that was found broken.
#[derive(Debug, Default)]
pub struct Facts {
    pub runs: BTreeMap<RunId, RunFacts>,
    pub violation: Option<Violation>,
    pub counts: Counts,
}

/// What happened, for people.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub runs: u64,
    pub commits: u64,
    pub fenced: u64,
    pub steps: u64,
    pub messages: u64,
    pub duplicates: u64,
    pub crashes: u64,
    pub zombies: u64,
    pub faults: u64,
    pub power_cuts: u64,
    pub sweeps: u64,
    pub prefixes: u64,
}

impl Counts {
    pub const fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.commits += other.commits;
        self.fenced += other.fenced;
        self.steps += other.steps;
        self.messages += other.messages;
        self.duplicates += other.duplicates;
        self.crashes += other.crashes;
        self.zombies += other.zombies;
        self.faults += other.faults;
        self.power_cuts += other.power_cuts;
        self.sweeps += other.sweeps;
        self.prefixes += other.prefixes;
    }
}

impl Facts {
    /// Keeps the first rule that is broken.
    pub fn judge(&mut self, rule: &'static str, found: Result<(), String>) {
        if let Err(what) = found {
            self.violation.get_or_insert(Violation { rule, what });
        }
    }

    pub fn run(&mut self, run_id: &RunId) -> &mut RunFacts {
        self.runs.entry(run_id.clone()).or_default()
    }

    pub fn created(&mut self, row: &RunRow, input: Payload, first: Entry) {
        self.counts.runs += 1;
        let run = self.run(&row.run_id);
        run.input = input;
        run.history.push(first);
        if row.owner.is_some() {
            run.leased(row);
        }
    }

    pub fn claimed(&mut self, row: &RunRow) {
        self.run(&row.run_id).leased(row);
    }

    pub fn renewed(&mut self, run_id: &RunId, epoch: i64, until: Millis) {
        if let Some(tenure) = self.run(run_id).tenures.get_mut(&epoch) {
            tenure.leased_until = until;
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
                kept: false,
            });
    }

    pub fn delivered(&mut self, message: &NewMessage, result: Delivery) {
        self.counts.messages += 1;
        match result {
            Delivery::Delivered | Delivery::Buffered => {
                if let Some(sent) = self.run(&message.run_id).sent.get_mut(&message.message_id) {
                    sent.kept = true;
                }
            }
            Delivery::Duplicate => self.counts.duplicates += 1,
            Delivery::NotFound | Delivery::Finished => {}
        }
    }

    /// A commit took place: what the handler had learnt with its entries stands for ever.
    pub fn committed(&mut self, commit: &RunCommit) {
        let run = self.run(&commit.run_id);
        run.append(&commit.entries);
        run.unsure.clear();
        if let Some(tenure) = run.tenures.get_mut(&commit.epoch) {
            tenure.durable = commit.expected_len + commit.entries.len() as u64;
        }
        let found = run.settle(commit.epoch);
        self.judge(REPLAY, found);
    }

    /// A handler learnt something with the entry at that place.
    pub fn saw(&mut self, run_id: &RunId, epoch: i64, seen: Seen) {
        let run = self.run(run_id);
        let Some(tenure) = run.tenures.get_mut(&epoch) else {
            return;
        };
        tenure.seen.push(seen);
        let found = run.settle(epoch);
        self.judge(REPLAY, found);
    }

    pub fn came_out(&mut self, run_id: &RunId, op: &str, attempt: u32, payload: &str) {
        self.run(run_id)
            .outcomes
            .insert((op.to_owned(), attempt, payload.to_owned()));
    }

    pub fn shown(&mut self, run_id: &RunId, status: Status) {
        self.run(run_id).shown.get_or_insert(status);
    }
}

impl RunFacts {
    fn leased(&mut self, row: &RunRow) {
        self.tenures.insert(
            row.epoch,
            Tenure {
                owner: row.owner.clone().unwrap_or_default(),
                leased_until: row.ready_at.unwrap_or(Millis::MAX),
                durable: row.journal_len,
                seen: Vec::new(),
            },
        );
    }

    pub fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry.kind {
                Kind::StepCompleted | Kind::StepFailed => {
                    self.ended.insert(entry.op.to_string());
                }
                Kind::StepAttemptFailed => {
                    let attempt = entry.meta().ok().and_then(|meta| meta.attempt);
                    self.failed
                        .insert(entry.op.to_string(), attempt.unwrap_or(1));
                }
                _ => {}
            }
            self.history.push(entry.clone());
        }
    }

    pub fn unsure(&mut self, commit: &RunCommit) {
        self.unsure.push(commit.clone());
    }

    /// A journal that is longer than was known: one of the commits that failed did take place.
    pub fn take_place(&mut self, journal: &[Entry]) -> Result<(), String> {
        let known = self.history.len();
        let Some(tail) = journal.get(known..).filter(|tail| !tail.is_empty()) else {
            return Ok(());
        };
        let found = self
            .unsure
            .iter()
            .find(|commit| commit.expected_len == known as u64 && commit.entries == tail)
            .cloned();
        let Some(commit) = found else {
            return Ok(()); // the comparison of histories says what is wrong
        };
        self.append(&commit.entries);
        self.unsure.clear();
        if let Some(tenure) = self.tenures.get_mut(&commit.epoch) {
            tenure.durable = self.history.len() as u64;
        }
        self.settle(commit.epoch)
    }

    /// What was learnt in this epoch with entries that are durable now stands for ever. Entries that
    /// another driver has written in their place do not count.
    fn settle(&mut self, epoch: i64) -> Result<(), String> {
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
    fn consumed(&self) -> BTreeSet<String> {
        self.history
            .iter()
            .filter_map(|entry| entry.meta().ok()?.message)
            .collect()
    }

    pub fn learnt(&self) -> &BTreeMap<u64, String> {
        &self.learnt
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

/// A payload that handlers do not take: its message is set aside.
pub fn is_unfit(payload: &str) -> bool {
    payload.starts_with("bad")
}

pub(crate) fn text(payload: &Payload) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// The names of the rules, as violations give them.
pub const FENCING: &str = "a stale epoch never writes";
pub const ONE_HISTORY: &str = "no journal ever has two histories";
pub const EFFECTS_ONCE: &str = "an effect completes once per recorded operation";
pub const BARRIER: &str = "an effect waits until what came before it is durable";
pub const NOTHING_LOST: &str = "nothing acknowledged is lost";
pub const REPLAY: &str = "replay equals the first pass at every prefix";
pub const LEGAL: &str = "a run's outcome is one that its journal makes legal";
pub const ENDS: &str = "every run ends or is legitimately waiting";
pub const LEASE: &str = "no step starts after its lease";
pub const BUDGETS: &str = "budgets are kept";

/// A commit that took place was written by the run's present owner, in its epoch, at its end.
pub fn a_stale_epoch_never_writes(
    before: Option<&RunRow>,
    commit: &RunCommit,
    outcome: &CommitOutcome,
) -> Result<(), String> {
    if !matches!(outcome, CommitOutcome::Applied { .. }) {
        return Ok(());
    }
    let Some(row) = before else {
        return Err(format!("{} wrote to no run", commit.owner));
    };
    if row.status == Status::Running
        && row.owner.as_deref() == Some(&*commit.owner)
        && row.epoch == commit.epoch
        && row.journal_len == commit.expected_len
    {
        return Ok(());
    }
    Err(format!(
        "{} wrote to {} in epoch {} at entry {}, when it was {} of {:?} in epoch {} with {} entries",
        commit.owner,
        commit.run_id,
        commit.epoch,
        commit.expected_len,
        row.status.name(),
        row.owner,
        row.epoch,
        row.journal_len
    ))
}

/// What is read of a journal from `from` on continues all that was ever acknowledged of it.
pub fn no_journal_has_two_histories(
    run: &RunFacts,
    run_id: &RunId,
    from: usize,
    read: &[Entry],
) -> Result<(), String> {
    let known = run.history.get(from..).unwrap_or(&[]);
    if known.len() != read.len() {
        return Err(format!(
            "{run_id} had {} entries and now has {}",
            run.history.len(),
            from + read.len()
        ));
    }
    for (index, (before, now)) in known.iter().zip(read).enumerate() {
        if before != now {
            return Err(format!(
                "entry {} of {run_id} was {before:?} and is now {now:?}",
                from + index
            ));
        }
    }
    Ok(())
}

/// No step starts whose end is recorded, and no attempt whose failure is.
pub fn an_effect_completes_once(run: &RunFacts, start: &Starting) -> Result<(), String> {
    let (op, attempt) = (&start.op, start.attempt);
    if run.ended.contains(op) {
        return Err(format!("{op} starts again although its end is recorded"));
    }
    match run.failed.get(op) {
        Some(failed) if *failed >= attempt => Err(format!(
            "attempt {attempt} of {op} starts again although its failure is recorded"
        )),
        _ => Ok(()),
    }
}

/// What stood in the journal when a step was asked for is durable when it starts, and so is the
/// failure of the attempt before.
pub fn an_effect_waits_for_what_came_before(
    run: &RunFacts,
    start: &Starting,
) -> Result<(), String> {
    let durable = run.history.len() as u64;
    if durable < start.asked_at {
        return Err(format!(
            "{} starts when {durable} of the {} entries before it are durable",
            start.op, start.asked_at
        ));
    }
    if start.attempt > 1 && run.failed.get(&start.op) != Some(&(start.attempt - 1)) {
        return Err(format!(
            "attempt {} of {} starts before the one before it is recorded",
            start.attempt, start.op
        ));
    }
    Ok(())
}

/// A step starts only while the run is leased to its driver.
pub fn no_step_starts_after_its_lease(run: &RunFacts, start: &Starting) -> Result<(), String> {
    let Some(tenure) = run.tenures.get(&start.epoch) else {
        return Err(format!(
            "{} starts in epoch {}, which nobody was ever given",
            start.op, start.epoch
        ));
    };
    let late = start.now - tenure.leased_until;
    if late > CLOCK_TOLERANCE {
        return Err(format!(
            "{} starts {late} ms after the lease of {} has ended",
            start.op, tenure.owner
        ));
    }
    Ok(())
}

/// What somebody was told of is there: runs with their first input, messages, ends.
pub fn nothing_acknowledged_is_lost(
    run: &RunFacts,
    run_id: &RunId,
    row: Option<&RunRow>,
) -> Result<(), String> {
    let Some(row) = row else {
        return Err(format!("{run_id} was created and is not there"));
    };
    if run
        .history
        .first()
        .is_none_or(|first| first.payload != run.input)
    {
        return Err(format!("the first input of {run_id} is not kept"));
    }
    if run.shown.is_some_and(|shown| shown != row.status) {
        let shown = run.shown.map_or("", Status::name);
        return Err(format!("{run_id} was {shown} and is {}", row.status.name()));
    }
    let claimed = run.tenures.keys().next_back().copied().unwrap_or(0);
    if claimed > row.epoch {
        let epoch = row.epoch;
        return Err(format!(
            "{run_id} was claimed in epoch {claimed} and is in epoch {epoch}"
        ));
    }
    let kept = run.sent.values().filter(|sent| sent.kept).count() as u64;
    if kept > row.inbox_len {
        return Err(format!(
            "{run_id} got {} of the {kept} messages that were accepted",
            row.inbox_len
        ));
    }
    Ok(())
}

/// A run that rests has ended, or waits for a message that nobody has sent.
pub fn every_run_ends_or_waits(run: &RunFacts, row: &RunRow) -> Result<(), String> {
    let run_id = &row.run_id;
    if row.status.is_final() {
        return Ok(());
    }
    if row.status == Status::Stuck {
        return Err(format!("{run_id} is stuck: {:?}", row.note));
    }
    if row.status != Status::Waiting || row.waits.is_empty() {
        let (status, waits) = (row.status.name(), &row.waits);
        return Err(format!("{run_id} rests {status}, waiting for {waits:?}"));
    }
    let consumed = run.consumed();
    let slept_over = run.sent.iter().find(|(id, sent)| {
        let wakes = match sent.kind.wait_key(&sent.name) {
            Some(key) => row.waits.contains(&key),
            None => true,
        };
        sent.kept && wakes && !is_unfit(&sent.payload) && !consumed.contains(*id)
    });
    match slept_over {
        Some((id, _)) => Err(format!("{run_id} sleeps over message {id:?}")),
        None => Ok(()),
    }
}

/// A sweep takes up no more than it was allowed to.
pub fn a_sweep_keeps_its_limits(
    found: [usize; 3],
    most: [usize; 3],
    limit: usize,
) -> Result<(), String> {
    let over = found.iter().zip(most).any(|(found, most)| *found > most);
    if over || found.iter().sum::<usize>() > limit {
        return Err(format!(
            "a sweep took {found:?} runs, allowed were {most:?} and {limit} in all"
        ));
    }
    Ok(())
}

/// A claim answers no more than was asked for.
pub fn a_claim_keeps_its_limit(found: usize, limit: u32) -> Result<(), String> {
    if found > limit as usize {
        return Err(format!("a claim of {limit} runs brought {found}"));
    }
    Ok(())
}
