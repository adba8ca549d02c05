//! When a commit is due, what it says, and what follows from its outcome.

use super::divergence::{Handler, Recorded};
use super::ledger::Weight;
use super::op::{OpKind, StepPhase};
use super::{Machine, Phase};
use crate::ids::{Millis, Payload};
use crate::journal::{Entry, Kind, Meta};
use crate::store::{CommitOutcome, Next, RunCommit};

/// What to do when a turn was idle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; something in flight will come in.
    Wait,
    /// Nothing is in flight, but a deadline is so near that the lease is kept until then.
    Hold { until: Millis },
    /// Hand this to the store; report its outcome by [`Machine::committed`].
    Commit(Box<RunCommit>),
}

/// What became of the run with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCommit {
    /// It is still driven here.
    Driving,
    /// Released by a pause; `due` if it is due again already.
    Paused { due: bool },
    /// It has reached a final status or was parked.
    Ended,
    /// Another owner has it: nothing was written, throw everything away.
    Lost,
}

impl Machine {
    /// Decides what the store must be told now. `hold` is how near a deadline must be for the
    /// lease to be kept instead of released.
    pub fn next_commit(&mut self, wall: Millis, hold: Millis) -> Decision {
        if self.ledger.is_in_flight() {
            return Decision::Wait;
        }
        match self.phase.clone() {
            Phase::Gone | Phase::Paused | Phase::Releasing => Decision::Wait,
            Phase::Ended(status) => self.commit(Next::Finished { status }, wall),
            Phase::Parking(note) => self.commit(Next::Stuck { note }, wall),
            Phase::Driving => self.pause_or_save(wall, hold),
        }
    }

    fn pause_or_save(&mut self, wall: Millis, hold: Millis) -> Decision {
        if !self.is_quiescent() {
            return self.save(wall, Decision::Wait);
        }
        if self.yielding {
            let waits = self.open_waits(wall);
            let ready_at = Some(wall);
            return self.commit(Next::Waiting { ready_at, waits }, wall);
        }
        if self.ops.is_empty() {
            self.diverge(
                self.ledger.journal_len(),
                Recorded::End,
                Handler::Deadlocked,
            );
            return self.next_commit(wall, hold);
        }
        let limit = self.facts.deadline.filter(|_| !self.timed_out);
        let ready_at = match (self.ops.earliest().map(|(deadline, _)| deadline), limit) {
            (Some(deadline), Some(limit)) => Some(deadline.min(limit)),
            (deadline, limit) => deadline.or(limit),
        };
        if let Some(until) = ready_at
            && until.saturating_sub(wall) <= hold
        {
            return self.save(wall, Decision::Hold { until });
        }
        let waits = self.open_waits(wall);
        self.commit(Next::Waiting { ready_at, waits }, wall)
    }

    /// A commit that keeps the lease, if something is staged that must not be lost.
    fn save(&mut self, wall: Millis, otherwise: Decision) -> Decision {
        if self.ledger.has_hard() || self.inbox.has_read() {
            self.commit(Next::Running, wall)
        } else {
            otherwise
        }
    }

    /// Nothing is in flight and nothing can start: only time or a message can bring the run on.
    fn is_quiescent(&mut self) -> bool {
        while let Some(slot) = self.startable.front() {
            if self.is_requested(*slot) {
                break;
            }
            self.startable.pop_front();
        }
        self.running == 0
            && self.arrived.is_empty()
            && self.offered.is_none()
            && self.history.is_empty()
            && (self.startable.is_empty() || self.yielding)
    }

    pub(crate) fn is_requested(&self, slot: crate::inbox::Slot) -> bool {
        matches!(
            self.ops.get(slot).map(|op| &op.kind),
            Some(OpKind::Step {
                phase: StepPhase::Requested,
                ..
            })
        )
    }

    /// Records each wait that was not recorded yet, with its deadline, and names them all.
    fn open_waits(&mut self, wall: Millis) -> Vec<String> {
        let at = self.now.max(wall);
        let mut waits = Vec::new();
        for (_, op) in self.ops.iter_mut() {
            let (kind, payload, key, deadline, opened) = match &mut op.kind {
                OpKind::Step { phase, .. } => {
                    let stem = if matches!(phase, StepPhase::Backoff { .. }) {
                        "retry"
                    } else {
                        "step"
                    };
                    waits.push(format!("{stem}:{}", op.id));
                    continue;
                }
                OpKind::Timer { deadline, opened } => (
                    Kind::WaitOpened,
                    Payload::new(),
                    "timer",
                    Some(*deadline),
                    opened,
                ),
                OpKind::Event {
                    key,
                    deadline,
                    opened,
                } => (
                    Kind::WaitOpened,
                    Payload::new(),
                    key.as_str(),
                    *deadline,
                    opened,
                ),
                OpKind::Approval {
                    key,
                    deadline,
                    request,
                    opened,
                } => (
                    Kind::ApprovalRequested,
                    request.clone(),
                    key.as_str(),
                    *deadline,
                    opened,
                ),
            };
            waits.push(key.to_owned());
            if !std::mem::replace(opened, true) {
                let meta = Meta {
                    wait: Some(key.to_owned()),
                    deadline,
                    ..Meta::default()
                };
                self.ledger.append(
                    Entry::new(kind, op.id.clone(), payload, at).with_meta(&meta),
                    Weight::Hard,
                );
            }
        }
        waits.sort_unstable();
        waits.dedup();
        waits
    }

    fn commit(&mut self, next: Next, wall: Millis) -> Decision {
        if !matches!(next, Next::Running)
            && !matches!(self.phase, Phase::Ended(_) | Phase::Parking(_))
        {
            self.phase = Phase::Releasing;
        }
        let (expected_len, entries) = self.ledger.take();
        Decision::Commit(Box::new(RunCommit {
            run_id: self.facts.run_id.clone(),
            owner: self.facts.owner.clone(),
            epoch: self.facts.epoch,
            expected_len,
            entries,
            read: self.inbox.take_read(),
            inbox_seen: self.inbox.seen(),
            next,
            state: self.state.take(),
            at: self.now.max(wall),
        }))
    }

    /// Takes in the outcome of the commit in flight.
    pub fn committed(&mut self, outcome: &CommitOutcome) -> AfterCommit {
        match outcome {
            CommitOutcome::Applied { due } => {
                self.ledger.applied();
                match self.phase {
                    Phase::Driving => AfterCommit::Driving,
                    Phase::Releasing => {
                        self.phase = Phase::Paused;
                        AfterCommit::Paused { due: *due }
                    }
                    Phase::Ended(_) | Phase::Parking(_) | Phase::Paused | Phase::Gone => {
                        self.phase = Phase::Gone;
                        AfterCommit::Ended
                    }
                }
            }
            CommitOutcome::Fenced => {
                self.phase = Phase::Gone;
                AfterCommit::Lost
            }
            CommitOutcome::Rejected { reason } => {
                self.ledger.rolled_back();
                if matches!(self.phase, Phase::Parking(_)) {
                    // Even the note was refused: give up and leave the run to a later recovery.
                    self.phase = Phase::Gone;
                    return AfterCommit::Lost;
                }
                self.phase = Phase::Parking(format!(
                    "the store refused to record this run's progress: {reason}. What was recorded \
                     before is whole; mend the cause, then `retry` the run"
                ));
                AfterCommit::Driving
            }
        }
    }
}
