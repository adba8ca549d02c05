//! Replays a journal by itself, up to each of its prefixes: what the handler learns from the first
//! entries may not depend on those that follow, nor on whether it learnt them live.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use duramen_core::ids::Millis;
use duramen_core::journal::{Entry, Kind};
use duramen_core::machine::{Machine, Turn};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::ClaimedRun;

use crate::desk::Desk;
use crate::handler::{Handler, Port};
use crate::model::{failure, output};
use crate::newer;
use crate::oracles::RunFacts;
use crate::program::Program;
use duramen_core::ids::Payload;
use duramen_core::machine::Ending;

use crate::handler::{Fault, Flow};

/// Replay of every prefix gives the beginning of what the whole gives, and the whole gives what the
/// handlers learnt when they were driven. Says how many prefixes there were.
pub fn replay_equals_the_first_pass(
    program: &Rc<Program>,
    row: &RunRow,
    run: &RunFacts,
) -> Result<u64, String> {
    // That people ended it is nothing that its code could ask for.
    let journal = match run.history.split_last() {
        Some((last, before)) if last.kind == Kind::RunTerminated => before,
        _ => &run.history,
    };
    let whole = replay(program, row, journal)?;
    if run.reopened {
        // Places say nothing once some were taken back; that each prefix fits the code does.
        let ended = |length: usize| journal[length - 1].kind == Kind::RunTerminated;
        for length in (1..journal.len()).filter(|length| !ended(*length)) {
            replay(program, row, &journal[..length])?;
        }
        return Ok(journal.len() as u64);
    }
    for (place, first) in run.learnt() {
        // The entry that ends a run tells the handler nothing.
        if let Some(now) = whole.get(place)
            && now == first
        {
            continue;
        }
        let now = whole.get(place);
        return Err(format!(
            "entry {place} of {} told the handler {first:?} and tells it {now:?} on replay",
            row.run_id
        ));
    }
    for length in 1..journal.len() {
        let part = replay(program, row, &journal[..length])?;
        let length = length as u64;
        if !part.iter().eq(whole.range(..length)) {
            return Err(format!(
                "{length} entries of {} tell the handler {part:?}, the whole journal {:?}",
                row.run_id,
                whole.range(..length).collect::<Vec<_>>()
            ));
        }
    }
    Ok(journal.len() as u64)
}

/// What a handler learns from a journal, by the index of the entry it learns it with.
fn replay(
    program: &Rc<Program>,
    row: &RunRow,
    journal: &[Entry],
) -> Result<BTreeMap<u64, String>, String> {
    let length = journal.len() as u64;
    let mut entries = journal.to_vec();
    entries.iter_mut().for_each(newer::known);
    let machine = Machine::new(
        ClaimedRun {
            row: RunRow {
                journal_len: length,
                format: 1,
                ..row.clone()
            },
            was: Status::Waiting,
            journal: Some(entries),
            inbox: Vec::new(),
            inbox_more: false,
        },
        "replay",
    );
    let desk = Rc::new(RefCell::new(Desk::new(machine)));
    let mut handler = Handler::new(program, Rc::clone(&desk) as Rc<RefCell<dyn Port>>);
    let mut ended = false;
    loop {
        if !ended
            && desk.borrow().driver.is_driving()
            && let Some(flow) = handler.drain()
        {
            ended = true;
            let machine = &mut desk.borrow_mut().driver;
            let ending = ending(&flow, machine);
            // A divergence is looked for below.
            let _ = machine.finish(ending, Millis::MIN);
        }
        if !desk.borrow().driver.is_replaying() || !desk.borrow().driver.is_driving() {
            break;
        }
        let before = desk.borrow().driver.journal_len();
        let turn = desk.borrow_mut().driver.turn(Millis::MIN);
        if desk.borrow().driver.journal_len() > length {
            break; // live from here on
        }
        match turn {
            Turn::Deliver { slot, outcome, .. } => {
                desk.borrow_mut().deliver(slot, outcome, before);
            }
            Turn::Cancel { .. } => {
                desk.borrow_mut().interrupt("cancelled", before);
                handler.cancel();
            }
            Turn::TimeOut { .. } => {
                desk.borrow_mut().interrupt("timed out", before);
                handler.cancel();
            }
            Turn::Offer { .. }
            | Turn::Apply { .. }
            | Turn::Start { .. }
            | Turn::Seal { .. }
            | Turn::Idle => break,
        }
    }
    if let Some(divergence) = desk.borrow().driver.divergence() {
        return Err(format!(
            "the first {length} entries of {} do not replay: {divergence}",
            row.run_id
        ));
    }
    let seen = std::mem::take(&mut desk.borrow_mut().seen);
    Ok(seen
        .into_iter()
        .filter(|seen| seen.place < length)
        .map(|seen| (seen.place, seen.what))
        .collect())
}

/// How a handler's end is told to its machine.
pub(crate) fn ending(flow: &Flow, machine: &Machine) -> Ending {
    match flow {
        Ok(digest) => Ending::Completed(Payload::from(output(*digest))),
        Err(Fault::Cancelled) if machine.was_cancelled() => Ending::Cancelled(Payload::new()),
        Err(fault) => {
            let (error, op) = failure(fault);
            Ending::Failed {
                error: Payload::from(error),
                op,
            }
        }
    }
}
