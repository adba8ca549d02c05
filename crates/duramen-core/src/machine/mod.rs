//! The replay machine of one run: a synchronous state machine that decides everything and does nothing.
//!
//! Its driver (a host with an event loop, or a simulator) does four things in a circle:
//!
//! 1. lets the handler run until nothing is runnable; the handler *requests* operations meanwhile;
//! 2. calls [`Machine::turn`] again and again, does what each [`Turn`] says, and lets the handler
//!    run until nothing is runnable after each delivery;
//! 3. when the turn is [`Turn::Idle`], asks [`Machine::next_commit`] and hands a commit to the store;
//! 4. reports what comes in: step outcomes, messages, commit outcomes, time.
//!
//! **Log-order delivery.** The handler learns outcomes in exactly the order in which they stand in
//! the journal, one at a time. While recorded entries remain, [`Machine::turn`] delivers those;
//! after that each outcome is given its place in the journal at the moment it is delivered.

#[cfg(test)]
mod cost;
pub mod divergence;
mod ending;
#[cfg(test)]
mod fuzz;
pub mod history;
pub mod ledger;
mod live;
pub mod naming;
pub mod op;
mod pause;
#[cfg(test)]
mod properties;
pub(crate) mod replay;
mod seal;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::{InvalidId, Millis, OpId, Payload, RunId};
use crate::inbox::{Inbox, Slot};
use crate::journal::{BadEntry, ENCODING, Entry, Kind};
use crate::primitives::step::StepOutcome;
use crate::run::{RunRow, Seed, Status};
use crate::store::{ClaimedRun, Message, RunCommit};

use divergence::{Divergence, Handler, Recorded};
use history::History;
use ledger::Ledger;
use naming::Naming;
use op::{Op, OpKind, Ops, StepPhase};

pub use ending::Ending;
pub use pause::{AfterCommit, Decision};

/// What a driver must do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Complete the operation in `slot`; the logical clock now shows `at`.
    Deliver {
        slot: Slot,
        outcome: Outcome,
        at: Millis,
    },
    /// Check the message against what the operation in `slot` expects, then call
    /// [`Machine::accept`] or [`Machine::refuse`].
    Offer { slot: Slot, message: Message },
    /// Start an attempt (from 1) of the step in `slot`.
    Start { slot: Slot, op: OpId, attempt: u32 },
    /// The result in `slot` is sealed: carry this commit out in the transaction that its function
    /// ran in, then report by [`Machine::committed`], or by [`Machine::step_done`] if the
    /// transaction was rolled back.
    Seal { slot: Slot, commit: Box<RunCommit> },
    /// Cancel the handler; the payload is the reason.
    Cancel { reason: Payload, at: Millis },
    /// The run's own time is over: cancel the handler.
    TimeOut { at: Millis },
    /// Nothing to do until something comes in.
    Idle,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With the recorded result, or with none when the driver itself has just brought it.
    StepCompleted(Option<Payload>),
    StepFailed(Payload),
    Fired,
    /// An event's or a decision's payload, or none when the driver has just accepted it.
    Received(Option<Payload>),
    TimedOut,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// Recorded already, and nothing else is runnable: the handler goes on without suspending.
    Ready { outcome: Outcome, at: Millis },
    /// To be delivered by a later turn.
    Pending(Slot),
}

/// The handler may not go on: its coroutine has to be abandoned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error("{0}")]
    Diverged(Divergence),
    #[error("this run is no longer driven here")]
    Gone,
    #[error("{0}")]
    InvalidId(#[from] InvalidId),
}

/// Facts of a run that never change while it is driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub run_id: RunId,
    pub workflow: String,
    pub version: String,
    pub owner: String,
    pub epoch: i64,
    pub seed: Seed,
    pub created_at: Millis,
    pub started_at: Millis,
    pub deadline: Option<Millis>,
    /// How long the run may take, counted from its beginning or its last reopening.
    pub timeout: Option<Millis>,
    /// The index at which the journal of this generation begins. The machine counts from there.
    pub journal_start: u64,
    /// The least encoding that can read the run, as the store knows it.
    pub format: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Driving,
    /// The handler has ended; the final commit is due or under way.
    Ended(Status),
    /// Its journal has what only a newer build reads: to be left to those who can.
    Leaving {
        format: u8,
        waits: Vec<String>,
    },
    /// To be parked with this note.
    Parking {
        note: String,
        /// Nothing but the note is left to be written: what came before it was refused.
        bare: bool,
    },
    /// A commit that releases the lease is under way.
    Releasing,
    /// Released by a pause; can be resumed by a new claim.
    Paused,
    /// Final, parked, or lost to another owner.
    Gone,
}

/// What the commit under way makes of the run. The phase may have moved on since it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Save,
    Release,
    End,
}

#[derive(Debug)]
enum Arrived {
    Step(StepOutcome),
    /// A result that a reopening took back.
    Recalled(Entry),
    /// A result that a transaction of the user's own has made durable.
    Durable {
        at: Millis,
    },
}

/// See the module's head.
#[derive(Debug)]
pub struct Machine {
    pub(crate) facts: Facts,
    pub(crate) history: History,
    pub(crate) naming: Naming,
    pub(crate) inbox: Inbox,
    pub(crate) ops: Ops,
    pub(crate) ledger: Ledger,
    /// The logical clock: when the last delivered entry was recorded.
    pub(crate) now: Millis,
    pub(crate) startable: VecDeque<Slot>,
    /// Steps in flight.
    pub(crate) running: u32,
    pub(crate) last_op: OpId,
    arrived: VecDeque<(Slot, Arrived)>,
    /// Results that wait to be sealed.
    to_seal: VecDeque<(Slot, Payload)>,
    sealed: Option<seal::Sealed>,
    /// Steps in flight whose functions run in transactions of the user's own.
    pub(crate) transacting: BTreeSet<Slot>,
    /// The wait whose message the driver is checking, and the message's number.
    offered: Option<(Slot, u64)>,
    /// Journal index of each delivered step failure, so that the one that ends the run is known.
    failures: BTreeMap<OpId, u64>,
    cancelled_at: Option<u64>,
    timed_out_at: Option<u64>,
    reopened_at: Option<Millis>,
    yielding: bool,
    /// Everything recorded has been gone through.
    live: bool,
    state: Option<Payload>,
    phase: Phase,
    sent: Option<Sent>,
    divergence: Option<Divergence>,
    input: Payload,
    pub(crate) replayed: u64,
}

impl Machine {
    /// Takes up a claimed run. A journal that cannot be read gives a machine that parks the run; so
    /// does one that is missing, so a run that was claimed as warm must be given to
    /// [`Machine::resume`] or have its journal loaded first.
    pub fn new(run: ClaimedRun, owner: &str) -> Self {
        let ClaimedRun {
            row,
            journal,
            inbox,
            inbox_more,
            was: _,
        } = run;
        let length = row.journal_len.saturating_sub(row.journal_start);
        let started_at = row.started_at.unwrap_or(row.created_at);
        let mut machine = Self {
            facts: Facts {
                run_id: row.run_id.clone(),
                workflow: row.workflow.clone(),
                version: row.version.clone(),
                owner: owner.to_owned(),
                epoch: row.epoch,
                seed: row.seed,
                created_at: row.created_at,
                started_at,
                deadline: row.deadline,
                timeout: row.timeout,
                journal_start: row.journal_start,
                format: row.format,
            },
            history: History::default(),
            naming: Naming::default(),
            inbox: Inbox::default(),
            ops: Ops::default(),
            ledger: Ledger::new(length),
            now: started_at,
            startable: VecDeque::new(),
            running: 0,
            last_op: "".into(),
            arrived: VecDeque::new(),
            to_seal: VecDeque::new(),
            sealed: None,
            transacting: BTreeSet::new(),
            offered: None,
            failures: BTreeMap::new(),
            cancelled_at: None,
            timed_out_at: None,
            reopened_at: None,
            yielding: false,
            live: false,
            state: None,
            phase: Phase::Driving,
            sent: None,
            divergence: None,
            input: Payload::new(),
            replayed: 0,
        };
        machine.add_messages(inbox, inbox_more, &row);
        machine.read_journal(journal.unwrap_or_default(), length, &row.waits);
        machine
    }

    fn read_journal(&mut self, journal: Vec<Entry>, expected: u64, waits: &[String]) {
        let found = journal.len() as u64;
        if found != expected {
            return self.diverge(
                found.min(expected),
                Recorded::Length { found, expected },
                waiting_nothing(),
            );
        }
        match History::new(journal) {
            Ok(history) => self.history = history,
            Err((_, BadEntry::Newer { found })) => {
                self.phase = Phase::Leaving {
                    format: found,
                    waits: waits.to_vec(),
                };
                return;
            }
            Err((index, error)) => {
                return self.diverge(index, Recorded::Unreadable(error), waiting_nothing());
            }
        }
        match self.history.pop() {
            Some(first) if first.entry.kind == Kind::RunCreated => self.input = first.entry.payload,
            Some(first) => self.diverge(0, replay::recorded(&first), waiting_nothing()),
            None => self.diverge(0, Recorded::End, waiting_nothing()),
        }
    }

    /// Goes on with a run that was paused here, after a new claim found its journal unchanged.
    pub fn resume(&mut self, row: &RunRow, inbox: Vec<Message>, inbox_more: bool) {
        if self.phase == Phase::Paused {
            self.phase = Phase::Driving;
            self.yielding = false;
            self.facts.epoch = row.epoch;
            self.facts.format = row.format;
            if let Some(owner) = &row.owner {
                self.facts.owner.clone_from(owner);
            }
            self.add_messages(inbox, inbox_more, row);
        }
    }

    /// The process that drives it has taken a new name, and what it held has been moved to that.
    pub fn set_owner(&mut self, owner: &str) {
        owner.clone_into(&mut self.facts.owner);
    }

    /// Takes in unread messages that came with a claim.
    fn add_messages(&mut self, inbox: Vec<Message>, more: bool, row: &RunRow) {
        let last = inbox.last().map_or(0, |message| message.seq);
        self.inbox.store_knows(row.inbox_seen);
        self.deliver(inbox);
        if more {
            // Those behind it come later, and the run may not pause before it knows them.
            self.inbox.expect(last, row.inbox_len);
        } else {
            self.inbox.saw(row.inbox_len);
        }
    }

    /// Takes in messages that arrived while the run is driven.
    pub fn deliver(&mut self, messages: Vec<Message>) {
        for message in messages {
            if message.encoding > ENCODING {
                // For a newer build: what is here is brought to an end, and the run left to one.
                self.yielding = true;
            } else {
                self.inbox.add(message);
            }
        }
    }

    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    pub const fn input(&self) -> &Payload {
        &self.input
    }

    /// The logical clock.
    pub const fn now(&self) -> Millis {
        self.now
    }

    /// Whether recorded entries remain to be delivered.
    pub fn is_replaying(&self) -> bool {
        !self.history.is_empty()
    }

    /// How many recorded entries were gone through so far.
    pub const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Length of the journal as stores count it, staged entries included.
    pub const fn journal_len(&self) -> u64 {
        self.facts.journal_start + self.ledger.journal_len()
    }

    /// How far the journal is durable, as stores count it.
    pub const fn durable_len(&self) -> u64 {
        self.facts.journal_start + self.ledger.durable_len()
    }

    /// Why the run is being parked, if it is because of a divergence.
    pub const fn divergence(&self) -> Option<&Divergence> {
        self.divergence.as_ref()
    }

    /// Whether a cancellation was delivered to the handler.
    pub const fn was_cancelled(&self) -> bool {
        self.cancelled_at.is_some()
    }

    /// Whether the run's own time-out was delivered to the handler.
    pub const fn was_timed_out(&self) -> bool {
        self.timed_out_at.is_some()
    }

    /// Whether the handler may still be run.
    pub const fn is_driving(&self) -> bool {
        matches!(self.phase, Phase::Driving)
    }

    /// Whether it was released by a pause and can be resumed.
    pub const fn is_paused(&self) -> bool {
        matches!(self.phase, Phase::Paused)
    }

    /// The id that the last request got: what [`Ending::Failed`] names when its failure ends the run.
    pub const fn last_op(&self) -> &OpId {
        &self.last_op
    }

    /// Steps in flight.
    pub const fn steps_running(&self) -> u32 {
        self.running
    }

    /// Starts no fresh work any more: what is in flight is recorded, then the run is released, due at once.
    pub const fn yield_now(&mut self) {
        self.yielding = true;
    }

    /// The run's state object changed; it goes out with the next commit.
    pub fn set_state(&mut self, state: Payload) {
        self.state = Some(state);
    }

    /// Gives the run up because the lease was lost: nothing of it may be written any more.
    pub fn abandon(&mut self) {
        self.phase = Phase::Gone;
    }

    /// The handler no longer waits for an operation. True if it is a step in flight, to be stopped.
    pub fn cancel_op(&mut self, slot: Slot) -> bool {
        self.close_op(slot).is_some_and(|op| {
            matches!(
                op.kind,
                OpKind::Step {
                    phase: StepPhase::Running,
                    ..
                }
            )
        })
    }

    /// What the store must be told of who can read these entries, if it does not know.
    pub(crate) fn raised_format(&self, entries: &[Entry]) -> Option<u8> {
        let needed = entries.iter().map(|entry| entry.encoding).max()?;
        (needed > self.facts.format).then_some(needed)
    }

    /// Takes an operation out of every index.
    pub(crate) fn close_op(&mut self, slot: Slot) -> Option<Op> {
        let op = self.ops.close(slot)?;
        self.transacting.remove(&slot);
        match &op.kind {
            OpKind::Event { key } | OpKind::Approval { key, .. } => {
                self.inbox.close(key, slot);
                // A message that was on offer stays for the next wait.
                self.offered = self.offered.filter(|(other, _)| *other != slot);
            }
            OpKind::Step {
                phase: StepPhase::Running,
                ..
            } => self.running -= 1,
            OpKind::Step { .. } | OpKind::Timer => {}
        }
        Some(op)
    }

    /// Puts an operation into the table.
    pub(crate) fn open_op(&mut self, id: OpId, kind: OpKind, deadline: Option<Millis>) -> Slot {
        let barrier = self.ledger.barrier();
        self.last_op = id.clone();
        self.ops.open(id, barrier, kind, deadline)
    }

    pub(crate) fn check_driving(&self) -> Result<(), Halt> {
        match (&self.phase, &self.divergence) {
            (Phase::Driving, _) => Ok(()),
            (_, Some(divergence)) => Err(Halt::Diverged(divergence.clone())),
            _ => Err(Halt::Gone),
        }
    }

    /// Brings an outcome in; it gets its place in the journal in a later turn.
    pub(crate) fn arrive(&mut self, slot: Slot, outcome: StepOutcome) {
        self.arrived.push_back((slot, Arrived::Step(outcome)));
    }

    /// Moves the logical clock to the wall clock; it never goes back.
    pub(crate) fn advance(&mut self, wall: Millis) -> Millis {
        self.now = self.now.max(wall);
        self.now
    }

    /// The code and the journal do not fit together: park the run.
    pub(crate) fn diverge(&mut self, index: u64, recorded: Recorded, handler: Handler) {
        let divergence = Divergence {
            index,
            recorded,
            handler,
        };
        self.phase = Phase::Parking {
            note: format!("{divergence} (run of version {:?})", self.facts.version),
            bare: false,
        };
        self.divergence = Some(divergence);
    }

    pub(crate) fn note_failure(&mut self, op: &OpId, index: u64) {
        self.failures.insert(op.clone(), index);
    }

    pub(crate) const fn set_timed_out_at(&mut self, index: u64) {
        self.timed_out_at = Some(index);
    }

    pub(crate) const fn set_cancelled_at(&mut self, index: u64) {
        self.cancelled_at = Some(index);
    }

    /// What the handler waits for, for differences: enough to recognise the place.
    pub(crate) fn open_operations(&self) -> Vec<String> {
        const SHOWN: usize = 8;
        let mut open: Vec<String> = self
            .ops
            .iter()
            .take(SHOWN)
            .map(|(_, op)| format!("{} {:?}", op.kind.name(), op.id))
            .collect();
        if self.ops.len() > SHOWN {
            open.push(format!("and {} more", self.ops.len() - SHOWN));
        }
        open
    }
}

const fn waiting_nothing() -> Handler {
    Handler::Waiting { open: Vec::new() }
}
