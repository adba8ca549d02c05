//! What must hold whatever happens: one function for each rule, over what is known of the world.
//!
//! For the facts see `facts.rs`. A rule that is broken is reported once; the simulation stops there.

use std::fmt;

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{ENCODING, Entry, Kind, Meta};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{CommitOutcome, MessageKind, RunCommit, Standing, StreamItem};

pub use crate::counts::Counts;
pub use crate::facts::{Facts, RunFacts, Seen, Starting};
use crate::owners::Owners;

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

/// A payload that handlers do not take: its message is set aside.
pub fn is_unfit(payload: &str) -> bool {
    payload.starts_with("bad")
}

/// What an entry says beside its payload, also one that only newer builds can read.
pub(crate) fn meta(entry: &Entry) -> Option<Meta> {
    let mut entry = entry.clone();
    entry.encoding = entry.encoding.min(ENCODING);
    entry.meta().ok()
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
pub const LAPSE: &str = "a lapse is final";
pub const ONE_DRIVER: &str = "no run is driven by two live owners";
pub const FORMATS: &str = "a run is left to those who can read it";
pub const ONE_ROW: &str = "a heartbeat writes one row";
pub const PROMPT: &str = "a lost answer costs a round trip";
pub const STREAMS: &str = "an item is in its stream once for each time that it was written";
pub const CARRIED: &str = "what leaves a run is carried out once";

/// A commit that took place was written by the run's present owner, in its life and epoch, at its end.
pub fn a_stale_epoch_never_writes(
    before: Option<&Standing>,
    commit: &RunCommit,
    outcome: &CommitOutcome,
) -> Result<(), String> {
    if !matches!(outcome, CommitOutcome::Applied { .. }) {
        return Ok(());
    }
    let Some(run) = before else {
        return Err(format!("{} wrote to no run", commit.owner));
    };
    if run.seed != commit.seed {
        return Err(format!(
            "{} wrote to another life of {} than it drives",
            commit.owner, commit.run_id
        ));
    }
    if run.status == Status::Running
        && run.owner.as_deref() == Some(&*commit.owner)
        && run.epoch == commit.epoch
        && run.journal_len == commit.expected_len
    {
        return Ok(());
    }
    Err(format!(
        "{} wrote to {} in epoch {} at entry {}, when it was {} of {:?} in epoch {} with {} entries",
        commit.owner,
        commit.run_id,
        commit.epoch,
        commit.expected_len,
        run.status.name(),
        run.owner,
        run.epoch,
        run.journal_len
    ))
}

/// Numbers go from 1 without a gap, there are as many items as the journal has entries, and none is missing before
/// another one's place.
pub fn an_item_is_there_once(
    run_id: &RunId,
    stream: &str,
    journal: &[Entry],
    items: &[StreamItem],
) -> Result<(), String> {
    let entries = journal.iter().filter(|entry| {
        entry.kind == Kind::StreamWritten
            && meta(entry).and_then(|meta| meta.stream).as_deref() == Some(stream)
    });
    let (noted, found) = (entries.count(), items.len());
    if noted != found {
        return Err(format!(
            "{run_id} wrote {noted} times to {stream}, which has {found} items"
        ));
    }
    let mut valid = 0;
    for (item, seq) in items.iter().zip(1..) {
        if item.seq != seq || item.index > valid {
            return Err(format!(
                "{run_id}: item {} of {stream} stands at {seq}, with the place {} behind {valid} others",
                item.seq, item.index
            ));
        }
        valid = item.index + 1;
    }
    Ok(())
}

/// Whoever claims a run reads all that is in it, and the run says what that takes.
pub fn only_readers_claim(run: &RunFacts, row: &RunRow, reads: u8) -> Result<(), String> {
    let (run_id, owner, needed) = (&row.run_id, &row.owner, run.format());
    if row.format < needed {
        return Err(format!(
            "{run_id} has format {}, and what is in it needs {needed}",
            row.format
        ));
    }
    if row.format > reads {
        return Err(format!(
            "{owner:?} claims {run_id} of format {}, and reads up to {reads}",
            row.format
        ));
    }
    Ok(())
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
    if start.epoch <= run.cut_off {
        return Ok(()); // it cannot know yet
    }
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
    if start.epoch <= run.cut_off {
        return Ok(()); // it cannot know yet
    }
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
pub fn no_step_starts_after_its_lease(
    run: &RunFacts,
    owners: &Owners,
    start: &Starting,
) -> Result<(), String> {
    let Some(tenure) = run.tenures.get(&start.epoch) else {
        return Err(format!(
            "{} starts in epoch {}, which nobody was ever given",
            start.op, start.epoch
        ));
    };
    let lasts = owners.get(&tenure.owner).map_or(0, |owner| owner.lasts);
    let late = start.now - lasts;
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
            // What pauses a run and ends that is in no journal.
            None => sent.kind == MessageKind::Cancel,
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
