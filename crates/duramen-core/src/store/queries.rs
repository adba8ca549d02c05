//! What people and drivers ask without changing anything.

use serde::{Deserialize, Serialize};

use super::Message;
use crate::ids::{Millis, Payload, RunId};
use crate::journal::Entry;
use crate::run::{RunRow, Seed, Status};

/// A run as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDetail {
    pub row: RunRow,
    /// The input of the present generation.
    pub input: Payload,
    /// The newest journal entry when the run is final: its output, error or reason.
    pub end: Option<Entry>,
    pub state: Option<Payload>,
    pub memo: Option<Payload>,
    /// Messages that were set aside, newest last, with the reason.
    pub refused: Vec<(Message, String)>,
}

/// Where a run stands right now, and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub status: Status,
    pub seed: Seed,
    pub owner: Option<String>,
    pub epoch: i64,
    /// Exact, also of a running run.
    pub journal_len: u64,
    pub generation: u64,
    pub ready_at: Option<Millis>,
}

/// Which runs to list or count; absent fields match all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    pub workflow: Option<String>,
    pub version: Option<String>,
    pub queue: Option<String>,
    /// Empty: any.
    pub status: Vec<Status>,
    pub tag: Option<String>,
    /// A wait key, such as `event:payment-received`.
    pub waiting_for: Option<String>,
    pub parent: Option<RunId>,
    /// All of a family but its first run.
    pub root: Option<RunId>,
    pub created_after: Option<Millis>,
    pub created_before: Option<Millis>,
    /// Only runs that have ended before this instant.
    pub finished_before: Option<Millis>,
    pub id_prefix: Option<String>,
}

/// The place after a page's last row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    pub created_at: Millis,
    pub run_id: RunId,
}

/// One page of rows, by `created_at` descending, then `run_id` descending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub rows: Vec<RunRow>,
    /// Where the next page begins; none on the last.
    pub next: Option<Cursor>,
}

/// The runs of one lane and status that have not ended, counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpenRuns {
    pub workflow: String,
    pub version: String,
    pub queue: String,
    pub format: u8,
    pub status: Status,
    pub count: u64,
    /// The run among them that was created first; of several the one with the least id.
    pub oldest: Cursor,
}
