//! Changes of a run from outside its driver.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, RunId};
use crate::journal::Entry;
use crate::run::Status;
use crate::store::Outgoing;

/// A change of a run from outside its driver. It raises the epoch, so that a driver is fenced off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Intervention {
    /// Ends a live, stuck or paused run as terminated and appends `entry`, with what leaves the run by that.
    Terminate {
        run_id: RunId,
        entry: Entry,
        outgoing: Vec<Outgoing>,
    },
    /// Makes a failed, cancelled, terminated, stuck or paused run queued and due now, appending `entries`; nothing
    /// leaves the run without one.
    ///
    /// With a `version` the run goes on with the code of that version of its workflow. So may a waiting run, and a
    /// queued one, which keeps its place in the line.
    Reopen {
        run_id: RunId,
        expected_len: u64,
        entries: Vec<Entry>,
        outgoing: Vec<Outgoing>,
        #[serde(default)]
        version: Option<String>,
        now: Option<Millis>,
    },
    /// Removes a run and all that belongs to it; a live or paused one only if `force`.
    Delete { run_id: RunId, force: bool },
}

impl Intervention {
    pub const fn run_id(&self) -> &RunId {
        match self {
            Self::Terminate { run_id, .. }
            | Self::Reopen { run_id, .. }
            | Self::Delete { run_id, .. } => run_id,
        }
    }

    /// Whether something leaves the run with it.
    pub const fn sends(&self) -> bool {
        match self {
            Self::Terminate { outgoing, .. } | Self::Reopen { outgoing, .. } => {
                !outgoing.is_empty()
            }
            Self::Delete { .. } => false,
        }
    }

    /// Whether a run in this status may be changed so, its journal being that long.
    pub const fn is_allowed(&self, status: Status, journal_len: u64) -> bool {
        match self {
            Self::Terminate { .. } => {
                status.is_live() || matches!(status, Status::Stuck | Status::Paused)
            }
            Self::Reopen {
                expected_len,
                version,
                ..
            } => {
                let at_rest = match status {
                    Status::Running | Status::Completed => false,
                    Status::Queued | Status::Waiting => version.is_some(),
                    Status::Failed
                    | Status::Cancelled
                    | Status::Terminated
                    | Status::Stuck
                    | Status::Paused => true,
                };
                at_rest && journal_len == *expected_len
            }
            Self::Delete { force, .. } => {
                *force || !(status.is_live() || matches!(status, Status::Paused))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intervened {
    Done,
    NotFound,
    /// The run's status (or its journal length, when reopening) does not allow it.
    NotAllowed,
    /// Somebody else's transaction holds the run. Nothing was changed; it may be asked for again.
    Blocked,
}
