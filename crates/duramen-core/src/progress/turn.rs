//! The words between the machine and its driver: what is asked for, what is to be done, how it ended.

use super::divergence::Divergence;
use crate::family::End;
use crate::ids::{InvalidId, Millis, OpId, Payload};
use crate::inbox::Slot;
use crate::store::{Message, RunCommit};

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// Recorded already, and nothing else is runnable: the handler goes on without suspending.
    Ready { outcome: Outcome, at: Millis },
    /// To be delivered by a later turn.
    Pending(Slot),
}

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
    ///
    /// [`Machine::accept`]: crate::machine::Machine::accept
    /// [`Machine::refuse`]: crate::machine::Machine::refuse
    Offer { slot: Slot, message: Message },
    /// An update was accepted: apply it by the function that `taker` was asked for with, and report its end
    /// by [`Machine::update_done`]. Without a payload: the one that was just offered.
    ///
    /// [`Machine::update_done`]: crate::machine::Machine::update_done
    Apply {
        taker: Slot,
        slot: Slot,
        payload: Option<Payload>,
        at: Millis,
    },
    /// Start an attempt (from 1) of the step in `slot`.
    Start { slot: Slot, op: OpId, attempt: u32 },
    /// The result in `slot` is sealed: carry this commit out in the transaction that its function
    /// ran in, then report by [`Machine::committed`], or by [`Machine::step_done`] if the
    /// transaction was rolled back.
    ///
    /// [`Machine::committed`]: crate::machine::Machine::committed
    /// [`Machine::step_done`]: crate::machine::Machine::step_done
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
    /// A child's.
    ChildEnded(End),
}

/// How an attempt of a step ended, as the driver reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    Succeeded(Payload),
    /// Of a poll: it has not found what it looks for.
    NotYet,
    Failed {
        error: Payload,
        /// False when the user's rules forbid another attempt.
        retryable: bool,
    },
}

/// How the function of an update ended, as the driver reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateOutcome {
    Succeeded(Payload),
    Failed(Payload),
}

impl UpdateOutcome {
    /// The answer to the update's sender: a byte that says how it ended, then the payload.
    pub fn reply(&self) -> Payload {
        let (how, payload) = match self {
            Self::Succeeded(payload) => (b'+', payload),
            Self::Failed(payload) => (b'-', payload),
        };
        let mut reply = Vec::with_capacity(1 + payload.len());
        reply.push(how);
        reply.extend_from_slice(payload);
        reply.into()
    }
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
