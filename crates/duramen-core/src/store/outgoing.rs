//! What leaves a run with a commit and is carried out after it: children, messages, stream items.
//!
//! The items of a commit are kept by the same transaction. Whoever made the commit carries them out, one
//! after the other, and reports them as sent; if it dies, anybody does who asks for what is still unsent.
//! Carrying an item out twice does no harm: each is idempotent at its target (a run's id, a message's id,
//! an item's place). So they need no lease of their own, and no transaction touches two runs. A run that has
//! ended is not forgotten by this: its items stand by themselves until the last one is out.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, Payload, RunId};

/// What an outgoing item is. The numbers are stored: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutgoingKind {
    /// A run to create.
    Start,
    /// A message to another run.
    Message,
    /// An item of a stream.
    StreamItem,
}

impl OutgoingKind {
    /// The number that stores keep; append-only.
    pub const fn code(self) -> i64 {
        match self {
            Self::Start => 0,
            Self::Message => 1,
            Self::StreamItem => 2,
        }
    }

    /// The inverse of [`OutgoingKind::code`].
    pub const fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Start,
            1 => Self::Message,
            2 => Self::StreamItem,
            _ => return None,
        })
    }
}

/// An item as a commit brings it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    pub kind: OutgoingKind,
    /// The run that it is for.
    pub target: RunId,
    /// Opaque to the store.
    pub body: Payload,
}

/// An item that is kept. Run, entry and number say which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    pub run_id: RunId,
    /// `expected_len` of its commit.
    pub entry: u64,
    /// Its place among the items of that commit, from 0.
    pub number: u32,
    pub kind: OutgoingKind,
    pub target: RunId,
    pub body: Payload,
    /// `at` of its commit.
    pub at: Millis,
}

/// A question for items that are still to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsentAsk {
    /// Only items of commits made at this instant or before: those who made later ones are at it.
    pub before: Millis,
    /// Only items of this run.
    pub run_id: Option<RunId>,
    pub limit: u32,
}
