//! A run's routing row: who may drive it, when it needs attention, how far its journal goes.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, RunId};

/// Where a run stands. The first three are live, the others are final until someone reopens the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Created, never driven yet (or reopened by `retry`); due at `ready_at`.
    Queued,
    /// Leased to an owner until `ready_at`.
    Running,
    /// Paused; due at `ready_at`, or only when a message arrives if that is none.
    Waiting,
    Completed,
    Failed,
    Cancelled,
    Terminated,
    /// Parked: the code no longer fits the journal. Kept whole until `retry`.
    Stuck,
}

impl Status {
    /// The number that stores keep; append-only.
    pub const fn code(self) -> i64 {
        match self {
            Self::Queued => 0,
            Self::Running => 1,
            Self::Waiting => 2,
            Self::Completed => 3,
            Self::Failed => 4,
            Self::Cancelled => 5,
            Self::Terminated => 6,
            Self::Stuck => 7,
        }
    }

    /// The inverse of [`Status::code`].
    pub const fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Queued,
            1 => Self::Running,
            2 => Self::Waiting,
            3 => Self::Completed,
            4 => Self::Failed,
            5 => Self::Cancelled,
            6 => Self::Terminated,
            7 => Self::Stuck,
            _ => return None,
        })
    }

    /// The name shown to people and used by filters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Terminated => "terminated",
            Self::Stuck => "stuck",
        }
    }

    /// Whether the run has ended: no message can reach it any more.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Terminated
        )
    }
}

/// The seed of a run's recorded values (`uuid`, `random`, jitter), drawn once at its creation.
pub type Seed = [u8; 16];

/// One row of routing state. Everything a handler may depend on is in the journal, except
/// `started_at` and `seed`, which are written once and never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    pub run_id: RunId,
    pub workflow: String,
    pub version: String,
    pub status: Status,
    pub created_at: Millis,
    /// When the run was first leased to an owner; the origin of its logical clock.
    pub started_at: Option<Millis>,
    pub updated_at: Millis,
    pub finished_at: Option<Millis>,
    /// When the run needs attention; none for final, stuck and message-only waits.
    pub ready_at: Option<Millis>,
    pub owner: Option<String>,
    /// Raised by each claim, reopening and termination: the fencing token.
    pub epoch: i64,
    pub journal_len: u64,
    /// How many messages the inbox ever got: the highest `seq` given out.
    pub inbox_len: u64,
    /// The highest `seq` that a driver of the run has taken note of.
    pub inbox_seen: u64,
    /// When the whole run times out.
    pub deadline: Option<Millis>,
    /// Keys of the open waits: `timer`, `event:NAME`, `approval:ID`, `retry:STEP`. A running run
    /// keeps those of its last pause.
    pub waits: Vec<String>,
    pub tags: Vec<String>,
    pub seed: Seed,
    /// Why a stuck run is stuck, for people. Of a running run that was taken over from a driver whose
    /// lease had ended: [`RunRow::standing`].
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn status_codes_round_trip_and_never_change() {
        let names: Vec<_> = (0..8)
            .filter_map(Status::from_code)
            .map(Status::name)
            .collect();
        assert_eq!(
            names,
            [
                "queued",
                "running",
                "waiting",
                "completed",
                "failed",
                "cancelled",
                "terminated",
                "stuck"
            ]
        );
        for code in 0..8 {
            assert_eq!(Status::from_code(code).map(Status::code), Some(code));
        }
        assert_eq!(Status::from_code(8), None);
    }
}
