//! A readable account of how the code differs from the journal.

use std::fmt;

use crate::journal::{BadEntry, Kind};

/// The handler and the journal do not fit together. The run is parked, never failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The journal index where they part.
    pub index: u64,
    /// What the journal has there.
    pub recorded: Recorded,
    /// What the handler did instead.
    pub handler: Handler,
}

/// The journal's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    Entry {
        kind: Kind,
        op: String,
    },
    Unreadable(BadEntry),
    /// The journal ends here; the handler is the one that cannot go on.
    End,
}

/// The handler's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// It has not asked for that operation; these are the ones it waits for.
    Waiting { open: Vec<String> },
    /// It asked for that id, but as another kind of operation.
    OtherKind { asked: &'static str },
    /// It asked for a recorded value of another id.
    OtherValue { asked: String },
    /// It has ended.
    Ended { how: &'static str },
    /// It awaits something that no journal entry, step or timer can ever complete.
    Deadlocked,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.handler == Handler::Deadlocked {
            return write!(
                f,
                "the handler awaits something that is not durable (a future or lock of its own that nothing \
                 will complete): no step, timer, event or approval is open, so it can never go on. Await \
                 operations of the context instead, or put the waiting into a step; then `retry` the run"
            );
        }
        write!(
            f,
            "the code no longer fits the journal at entry {}: ",
            self.index
        )?;
        match &self.recorded {
            Recorded::Entry { kind, op } if op.is_empty() => {
                write!(f, "expected (recorded) {}", kind.name())?;
            }
            Recorded::Entry { kind, op } => {
                write!(f, "expected (recorded) {} of {op:?}", kind.name())?;
            }
            Recorded::Unreadable(error) => write!(f, "{error}")?,
            Recorded::End => write!(f, "the journal ends")?,
        }
        match &self.handler {
            Handler::Waiting { open } if open.is_empty() => {
                write!(
                    f,
                    ", found a handler that has not asked for it and waits for nothing"
                )?;
            }
            Handler::Waiting { open } => write!(
                f,
                ", found a handler that has not asked for it; it waits for {}",
                open.join(", ")
            )?,
            Handler::OtherKind { asked } => {
                write!(f, ", found a handler that asked for that id as {asked}")?;
            }
            Handler::OtherValue { asked } => {
                write!(f, ", found a handler that asked for {asked:?}")?;
            }
            Handler::Ended { how } => write!(f, ", found a handler that {how}")?,
            Handler::Deadlocked => {}
        }
        write!(
            f,
            ". Nothing was lost: deploy code that fits, then `retry` the run"
        )
    }
}
