//! Delivery of recorded entries, and the exact check that the code still fits them.

use super::divergence::{Handler, Recorded};
use super::history::Placed;
use super::op::{OpKind, StepPhase};
use super::{Machine, Outcome, Turn};
use crate::inbox::Slot;
use crate::journal::{BadEntry, Kind, Meta};
use crate::primitives::timer::RUN_TIMEOUT_OP;

impl Machine {
    /// Goes through the next recorded entry. Called when nothing is runnable: whatever the handler
    /// was going to ask for before this entry, it has asked for.
    pub(super) fn replay_turn(&mut self) -> Option<Turn> {
        let placed = self.history.pop()?;
        self.replayed += 1;
        let Placed { index, entry } = &placed;
        match entry.kind {
            Kind::StepCompleted => self.replay_end(
                &placed,
                |kind| matches!(kind, OpKind::Step { .. }),
                Outcome::StepCompleted(Some(entry.payload.clone())),
            ),
            Kind::StepFailed => {
                self.failures.insert(entry.op.clone(), *index);
                self.replay_end(
                    &placed,
                    |kind| matches!(kind, OpKind::Step { .. }),
                    Outcome::StepFailed(entry.payload.clone()),
                )
            }
            Kind::EventReceived => self.replay_end(
                &placed,
                |kind| matches!(kind, OpKind::Event { .. }),
                Outcome::Received(Some(entry.payload.clone())),
            ),
            Kind::ApprovalResolved => self.replay_end(
                &placed,
                |kind| matches!(kind, OpKind::Approval { .. }),
                Outcome::Received(Some(entry.payload.clone())),
            ),
            Kind::TimerFired if &*entry.op == RUN_TIMEOUT_OP => {
                self.timed_out = true;
                let at = self.advance(entry.at);
                Some(Turn::TimeOut { at })
            }
            Kind::TimerFired => {
                let outcome = match self.open_kind(&entry.op) {
                    Some(OpKind::Timer { .. }) => Outcome::Fired,
                    _ => Outcome::TimedOut,
                };
                self.replay_end(
                    &placed,
                    |kind| !matches!(kind, OpKind::Step { .. }),
                    outcome,
                )
            }
            Kind::CancelRequested => {
                self.cancelled_at = Some(*index);
                let at = self.advance(entry.at);
                Some(Turn::Cancel {
                    reason: entry.payload.clone(),
                    at,
                })
            }
            Kind::StepAttemptFailed | Kind::WaitOpened | Kind::ApprovalRequested => {
                self.replay_note(&placed);
                None
            }
            Kind::RunReopened => {
                self.reopened();
                None
            }
            Kind::ValueRecorded
            | Kind::RunCreated
            | Kind::RunFinished
            | Kind::RunFailed
            | Kind::RunCancelled
            | Kind::RunTerminated
            | Kind::ChildStarted
            | Kind::ChildFinished
            | Kind::PatchMarked => {
                self.not_asked(&placed);
                None
            }
        }
    }

    fn open_kind(&self, id: &str) -> Option<&OpKind> {
        let slot = self.ops.slot_of(id)?;
        self.ops.get(slot).map(|op| &op.kind)
    }

    /// An entry that ends an operation: it must be open, and of that kind.
    fn replay_end(
        &mut self,
        placed: &Placed,
        fits: impl Fn(&OpKind) -> bool,
        outcome: Outcome,
    ) -> Option<Turn> {
        let slot = self.find_open(placed, fits)?;
        self.close_op(slot);
        let at = self.advance(placed.entry.at);
        Some(Turn::Deliver { slot, outcome, at })
    }

    fn find_open(&mut self, placed: &Placed, fits: impl Fn(&OpKind) -> bool) -> Option<Slot> {
        let Some(slot) = self.ops.slot_of(&placed.entry.op) else {
            self.not_asked(placed);
            return None;
        };
        let asked = match self.ops.get(slot) {
            Some(op) if fits(&op.kind) => return Some(slot),
            Some(op) => op.kind.name(),
            None => "nothing",
        };
        self.diverge(placed.index, recorded(placed), Handler::OtherKind { asked });
        None
    }

    fn not_asked(&mut self, placed: &Placed) {
        let open = self.open_operations();
        self.diverge(placed.index, recorded(placed), Handler::Waiting { open });
    }

    /// An entry that tells something of an open operation and delivers nothing.
    fn replay_note(&mut self, placed: &Placed) {
        let meta = match placed.entry.meta() {
            Ok(meta) => meta,
            Err(error) => return self.unreadable(placed, error),
        };
        let fits: fn(&OpKind, &Meta) -> bool = match placed.entry.kind {
            Kind::StepAttemptFailed => |kind, _| matches!(kind, OpKind::Step { .. }),
            Kind::ApprovalRequested => |kind, _| matches!(kind, OpKind::Approval { .. }),
            _ => |kind, meta| match kind {
                OpKind::Timer { .. } => meta.wait.as_deref() == Some("timer"),
                OpKind::Event { key, .. } => meta.wait.as_ref() == Some(key),
                _ => false,
            },
        };
        let Some(slot) = self.find_open(placed, |kind| fits(kind, &meta)) else {
            return;
        };
        let Some(op) = self.ops.get_mut(slot) else {
            return;
        };
        let (old, new) = match &mut op.kind {
            OpKind::Step { failed, phase, .. } => {
                *failed = meta.attempt.unwrap_or(1);
                let until = meta.retry_at.unwrap_or(placed.entry.at);
                let old = match *phase {
                    StepPhase::Backoff { until } => Some(until),
                    _ => None,
                };
                *phase = StepPhase::Backoff { until };
                (old, Some(until))
            }
            // The deadline was fixed when it was first reached, whatever the code says now.
            OpKind::Timer { deadline, opened } => {
                *opened = true;
                let old = *deadline;
                *deadline = meta.deadline.unwrap_or(old);
                (Some(old), Some(*deadline))
            }
            OpKind::Event {
                deadline, opened, ..
            }
            | OpKind::Approval {
                deadline, opened, ..
            } => {
                *opened = true;
                let old = *deadline;
                *deadline = meta.deadline;
                (old, *deadline)
            }
        };
        self.ops.set_deadline(slot, old, new);
    }

    fn unreadable(&mut self, placed: &Placed, error: BadEntry) {
        let open = self.open_operations();
        self.diverge(
            placed.index,
            Recorded::Unreadable(error),
            Handler::Waiting { open },
        );
    }

    /// `retry` reopened the run here: open steps get fresh attempts, and results that were taken
    /// back serve the operations that are open again.
    fn reopened(&mut self) {
        for slot in self.ops.slots() {
            let Some(op) = self.ops.get_mut(slot) else {
                continue;
            };
            if let OpKind::Step { failed, phase, .. } = &mut op.kind {
                *failed = 0;
                if let StepPhase::Backoff { until } = *phase {
                    *phase = StepPhase::Requested;
                    self.ops.set_deadline(slot, Some(until), None);
                    self.startable.push_back(slot);
                }
            }
            self.recall(slot);
        }
    }
}

pub(super) fn recorded(placed: &Placed) -> Recorded {
    Recorded::Entry {
        kind: placed.entry.kind,
        op: placed.entry.op.to_string(),
    }
}
