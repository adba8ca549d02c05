//! All that is known of a run while it is driven, but for who drives it and what is on its way.

use super::arrivals::{Arrivals, Arrived};
use super::clock::Clock;
use super::ends::Ends;
use super::facts::Facts;
use super::history::{History, Placed};
use super::ledger::Ledger;
use super::naming::Naming;
use super::op::{Op, OpKind, Ops, StepPhase};
use super::patches::Patches;
use super::steps::Steps;
use super::streams::Streams;
use super::turn::Outcome;
use super::updates::Updates;
use crate::family::{End, Ended};
use crate::ids::{Millis, OpId};
use crate::inbox::{Inbox, Slot};
use crate::journal::{Entry, Kind};

/// See the module's head. The machine's own parts work on it; primitives get a [`Desk`].
///
/// [`Desk`]: super::desk::Desk
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) facts: Facts,
    pub(crate) clock: Clock,
    /// What the journal still has for the handler.
    pub(crate) history: History,
    pub(crate) naming: Naming,
    /// What the handler asked for and has not been told yet.
    pub(crate) ops: Ops,
    pub(crate) inbox: Inbox,
    pub(crate) steps: Steps,
    pub(crate) arrivals: Arrivals,
    /// Where each entry of the journal stands.
    pub(crate) ledger: Ledger,
    pub(crate) ends: Ends,
    pub(crate) patches: Patches,
    pub(crate) streams: Streams,
    pub(crate) updates: Updates,
    /// The id that the last request got.
    pub(crate) last_op: OpId,
}

impl Progress {
    /// A run of whose journal `length` entries are durable, and none of them has been read.
    pub(crate) fn new(facts: Facts, length: u64) -> Self {
        Self {
            clock: Clock::new(facts.started_at),
            facts,
            history: History::default(),
            naming: Naming::default(),
            ops: Ops::default(),
            inbox: Inbox::default(),
            steps: Steps::default(),
            arrivals: Arrivals::default(),
            ledger: Ledger::new(length),
            ends: Ends::default(),
            patches: Patches::default(),
            streams: Streams::default(),
            updates: Updates::default(),
            last_op: "".into(),
        }
    }

    /// Puts an operation into the table.
    pub(crate) fn open(&mut self, id: OpId, kind: OpKind, deadline: Option<Millis>) -> Slot {
        let barrier = self.ledger.barrier();
        self.last_op = id.clone();
        self.ops.open(id, barrier, kind, deadline)
    }

    /// Takes an operation out of every index.
    pub(crate) fn close(&mut self, slot: Slot) -> Option<Op> {
        let op = self.ops.close(slot)?;
        if let Some(key) = op.kind.message_key() {
            self.inbox.close(key, slot);
            if let OpKind::Updates { key } = &op.kind {
                self.updates.stop_taking(key);
            }
        } else if let OpKind::Step {
            phase: StepPhase::Running,
            ..
        } = &op.kind
        {
            self.steps.stop(slot);
        }
        Some(op)
    }

    /// A result that a reopening took back serves the operation in `slot` without running it again.
    pub(crate) fn recall(&mut self, slot: Slot) -> bool {
        let Some(op) = self.ops.get(slot) else {
            return false;
        };
        let entry = self.history.recall(&op.id, |entry| match &op.kind {
            OpKind::Step { .. } => entry.kind == Kind::StepCompleted,
            OpKind::Approval { .. } => entry.kind == Kind::ApprovalResolved,
            // Automatic ids count requests: under new code the same id may be another event's.
            OpKind::Event { key } => {
                entry.kind == Kind::EventReceived
                    && entry
                        .meta()
                        .is_ok_and(|meta| meta.wait.is_none_or(|wait| *wait == **key))
            }
            OpKind::Child { .. } => entry.kind == Kind::ChildFinished,
            OpKind::Timer | OpKind::Updates { .. } | OpKind::Update { .. } => false,
        });
        let Some(entry) = entry else {
            return false;
        };
        match op.kind.message_key() {
            Some(key) => self.inbox.close(key, slot),
            None => self.ops.set_phase(slot, StepPhase::Arrived, None),
        }
        self.arrivals.add(slot, Arrived::Recalled(entry));
        true
    }

    /// What a recorded entry tells the handler.
    pub(crate) fn recorded_outcome(&mut self, placed: Placed, kind: &OpKind) -> Outcome {
        let Placed { index, entry } = placed;
        match entry.kind {
            Kind::StepCompleted => Outcome::StepCompleted(Some(entry.payload)),
            Kind::StepFailed => {
                self.ends.failed(entry.op, index);
                Outcome::StepFailed(entry.payload)
            }
            Kind::ChildFinished => {
                let ended = ended_of(&entry);
                if ended != Ended::Completed {
                    self.ends.failed(entry.op, index);
                }
                Outcome::ChildEnded(End {
                    ended,
                    payload: entry.payload,
                })
            }
            Kind::TimerFired if matches!(kind, OpKind::Timer) => Outcome::Fired,
            Kind::TimerFired => Outcome::TimedOut,
            _ => Outcome::Received(Some(entry.payload)),
        }
    }

    /// Goes through the entries that come next and tell the handler nothing: reopenings, parkings, and marks of patches,
    /// which nobody needs to ask for (the code may have no older branch any more). So what it asks for is compared
    /// with the entry behind them.
    pub(crate) fn pass_notes(&mut self) {
        while let Some(placed) = self.history.front()
            && matches!(
                placed.entry.kind,
                Kind::RunReopened | Kind::PatchMarked | Kind::RunParked
            )
        {
            let Some(placed) = self.history.pop() else {
                return;
            };
            match placed.entry.kind {
                Kind::RunReopened => self.reopened(placed.entry.at),
                Kind::PatchMarked => self.patches.marked(placed.entry.op),
                _ => {}
            }
        }
    }

    /// `retry` reopened the run here: open steps get fresh attempts.
    pub(crate) fn reopened(&mut self, at: Millis) {
        self.ends.reopened(at);
        for slot in self.ops.slots() {
            let Some(OpKind::Step { failed, phase, .. }) =
                self.ops.get_mut(slot).map(|op| &mut op.kind)
            else {
                continue;
            };
            *failed = 0;
            if matches!(*phase, StepPhase::Backoff | StepPhase::Exhausted) {
                self.ops.set_phase(slot, StepPhase::Requested, None);
                self.steps.add(slot);
            }
        }
    }

    /// The journal was gone through: of open polls, when they look next.
    pub(crate) fn go_on_looking(&mut self, wall: Millis) {
        for slot in self.ops.polls() {
            let Some(op) = self.ops.get_mut(slot) else {
                continue;
            };
            let OpKind::Step {
                looks: Some(looks),
                phase,
                failed,
                ..
            } = &mut op.kind
            else {
                continue;
            };
            let last = looks.last(wall);
            match phase {
                StepPhase::Requested if self.clock.now() > last => {
                    let next = looks.next(wall);
                    self.ops.set_phase(slot, StepPhase::Backoff, Some(next));
                }
                // There was a look since the one that failed.
                StepPhase::Backoff if op.deadline.is_some_and(|until| until < last) => *failed = 0,
                _ => {}
            }
        }
    }

    /// Whether it is to be paused as soon as nothing of it is in flight: nothing new starts until then.
    pub(crate) fn is_pausing(&self) -> bool {
        self.history.is_empty()
            && (self.inbox.pause().is_some()
                || (self.ops.exhausted().is_some() && !self.inbox.has_cancel()))
    }

    /// What people are told of a run that is to be paused.
    pub(crate) fn pause_note(&self) -> Option<String> {
        if !self.is_pausing() {
            return None;
        }
        let Some(op) = self.ops.exhausted() else {
            return self.inbox.pause().map(|message| message.name.clone());
        };
        let attempts = match op.kind {
            OpKind::Step { failed, .. } if failed > 1 => format!(" after {failed} attempts"),
            _ => String::new(),
        };
        Some(format!(
            "step {:?} has failed for good{attempts}: `retry` lets it try again, `skip` gives it a result",
            op.id
        ))
    }

    /// When the run's own time is over.
    pub(crate) fn limit(&self) -> Option<Millis> {
        self.ends.limit(&self.facts)
    }

    /// When something is due next by the clock alone.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let soonest = self.ops.earliest().map(|(deadline, _)| deadline);
        match (soonest, self.limit()) {
            (Some(deadline), Some(limit)) => Some(deadline.min(limit)),
            (deadline, limit) => deadline.or(limit),
        }
    }

    /// What the handler waits for, for differences: enough to recognise the place.
    pub(crate) fn open_operations(&self) -> Vec<String> {
        const SHOWN: usize = 8;
        let mut open: Vec<String> = self
            .ops
            .iter()
            .take(SHOWN)
            .map(|(_, op)| format!("{} {:?}", op.kind.name(), op.id.trim_start_matches('#')))
            .collect();
        if self.ops.len() > SHOWN {
            open.push(format!("and {} more", self.ops.len() - SHOWN));
        }
        open
    }
}

/// How a child ended, as it is recorded.
fn ended_of(entry: &Entry) -> Ended {
    let recorded = entry.meta().ok().and_then(|meta| meta.ended);
    recorded.unwrap_or(Ended::Completed)
}
