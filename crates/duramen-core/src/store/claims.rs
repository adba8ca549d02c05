//! Claims: who drives a run.

use serde::{Deserialize, Serialize};

use super::Message;
use crate::ids::{Millis, RunId};
use crate::journal::Entry;
use crate::run::{RunRow, Status};

/// Which due runs a claim takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// Running, but its owner has ended.
    Recovery,
    /// Waiting, and a deadline has passed or a message has arrived.
    Wake,
    /// Queued, and the start time has come.
    Queued,
    /// Any of the three.
    Any,
}

impl Due {
    /// The statuses of the runs that it means.
    pub const fn statuses(self) -> &'static [Status] {
        match self {
            Self::Recovery => &[Status::Running],
            Self::Wake => &[Status::Waiting],
            Self::Queued => &[Status::Queued],
            Self::Any => &[Status::Running, Status::Waiting, Status::Queued],
        }
    }
}

/// A request for runs to drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its lease must last.
    pub owner: String,
    pub now: Option<Millis>,
    pub due: Due,
    pub limit: u32,
    /// Only runs of these lanes ([`crate::lanes::Lane::key`]); an empty list claims nothing.
    pub lanes: Vec<String>,
    /// Only this run.
    pub run_id: Option<RunId>,
    /// Runs whose journal of that length the claimer still has: they come without it.
    pub warm: Vec<(RunId, u64)>,
    /// The line that comes first, see [`crate::lanes`].
    #[serde(default)]
    pub turn: u64,
    /// Stop adding runs when what comes with them (journals and inboxes) exceeds this many payload bytes;
    /// at least one run comes.
    pub max_bytes: Option<u64>,
}

/// Claimed runs, in turn from each line ([`crate::lanes`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// The instant that the decision used.
    pub now: Millis,
    pub runs: Vec<ClaimedRun>,
    /// Whether a limit ended the claim, so that more may be due.
    pub more: bool,
    /// The owner has no lease that lasts: nothing was looked for. It may never have been registered.
    pub lapsed: bool,
}

/// A run with all that its driver needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedRun {
    /// The row after the claim; its `journal_len` is exact.
    pub row: RunRow,
    /// The status before the claim.
    pub was: Status,
    /// The journal from `row.journal_start` on; none when the claim said that it is warm.
    pub journal: Option<Vec<Entry>>,
    /// The first unread messages in order of arrival, no more than [`super::INBOX_PAGE`] and, but for one,
    /// [`super::INBOX_PAGE_BYTES`].
    pub inbox: Vec<Message>,
    /// Whether unread messages were left behind: they come by [`super::Inboxes::inbox`].
    pub inbox_more: bool,
}

/// A question for the next instant at which a claim could find something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueAsk {
    pub lanes: Vec<String>,
    pub now: Option<Millis>,
}

/// When something may be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextDue {
    pub now: Millis,
    /// The least `ready_at` of waiting and queued runs of the lanes; if an owner holds runs of them, the
    /// end of its lease (`now` for one that has ended) counts as well.
    pub ready_at: Option<Millis>,
}
