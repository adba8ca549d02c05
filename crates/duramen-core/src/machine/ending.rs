//! The handler has returned or raised.

use super::divergence::Handler;
use super::ledger::Weight;
use super::replay::recorded;
use super::{Halt, Machine, Phase};
use crate::ids::{Millis, Payload};
use crate::journal::{Entry, Kind, Meta};
use crate::run::Status;

/// How the handler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Completed(Payload),
    /// With the recorded form of its error, and the operation whose failure it was, if it was one.
    Failed {
        error: Payload,
        op: Option<String>,
    },
    /// After a cancellation was delivered to it.
    Cancelled(Payload),
}

impl Ending {
    const fn how(&self) -> (Kind, Status, &'static str) {
        match self {
            Self::Completed(_) => (Kind::RunFinished, Status::Completed, "returned"),
            Self::Failed { .. } => (Kind::RunFailed, Status::Failed, "raised"),
            Self::Cancelled(_) => (Kind::RunCancelled, Status::Cancelled, "was cancelled"),
        }
    }
}

impl Machine {
    /// Records the end. On replay of a finished run it is checked against the journal instead.
    pub fn finish(&mut self, ending: Ending, wall: Millis) -> Result<(), Halt> {
        self.check_driving()?;
        let (kind, status, how) = ending.how();
        if let Some(placed) = self.history.pop() {
            self.replayed += 1;
            if placed.entry.kind == kind && self.history.is_empty() {
                self.phase = Phase::Gone;
                return Ok(());
            }
            self.diverge(placed.index, recorded(&placed), Handler::Ended { how });
            return self.check_driving();
        }
        let meta = Meta {
            cause: match &ending {
                Ending::Completed(_) => None,
                Ending::Cancelled(_) => self.cancelled_at,
                Ending::Failed { op, .. } => {
                    op.as_deref().and_then(|op| self.failures.get(op).copied())
                }
            },
            ..Meta::default()
        };
        let (Ending::Completed(payload)
        | Ending::Failed { error: payload, .. }
        | Ending::Cancelled(payload)) = ending;
        let at = self.advance(wall);
        self.ledger.append(
            Entry::new(kind, "".into(), payload, at).with_meta(&meta),
            Weight::Hard,
        );
        for slot in self.ops.slots() {
            self.close_op(slot);
        }
        self.phase = Phase::Ended(status);
        Ok(())
    }
}
