//! A run's routing row: who may drive it, when it needs attention, how far its journal goes.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, RunId};

/// Where a run stands. The first three are live; stuck and paused ones wait for people; the others are final
/// until someone reopens the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Created, never driven yet (or reopened by `retry`); due at `ready_at`.
    Queued,
    /// In the hands of its owner, as long as that one's lease lasts.
    Running,
    /// Paused; due at `ready_at`, or only when a message arrives if that is none.
    Waiting,
    Completed,
    Failed,
    Cancelled,
    Terminated,
    /// Parked: the code no longer fits the journal. Kept whole until `retry`.
    Stuck,
    /// Held up by people, or by a step that has used up its attempts: nobody drives it until it is resumed.
    Paused,
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
            Self::Paused => 8,
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
            8 => Self::Paused,
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
            Self::Paused => "paused",
        }
    }

    /// Somebody will go on with it, without anybody's help.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Waiting)
    }

    /// Whether the run has ended: no message can reach it any more.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Terminated
        )
    }
}

/// The seed of a run's recorded values (`uuid`, `random`, jitter), drawn once at its creation; it tells this
/// life of the run's id from any other. Its last byte numbers the tries of the creation, and no value is
/// derived from it: a creation that is sent again after the run was deleted makes another life.
pub type Seed = [u8; 16];

/// The part of a seed that all tries of one creation share.
pub const DRAWN: usize = 15;

/// The seed for the next try of the same creation.
#[must_use]
pub const fn next_try(mut seed: Seed) -> Seed {
    seed[DRAWN] = seed[DRAWN].wrapping_add(1);
    seed
}

/// Whether both are seeds of one creation.
pub fn is_same_creation(one: &Seed, other: &Seed) -> bool {
    one[..DRAWN] == other[..DRAWN]
}

/// One row of routing state. Everything a handler may depend on is in the journal, except
/// `started_at` and `seed`, which are written once and never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    pub run_id: RunId,
    pub workflow: String,
    pub version: String,
    /// The queue that it stands in.
    pub queue: String,
    /// 0 to 9, lower first.
    pub priority: u8,
    pub status: Status,
    pub created_at: Millis,
    /// When the run was first given to an owner; the origin of its logical clock.
    pub started_at: Option<Millis>,
    /// Of a running run: when it was claimed, or last rewritten.
    pub updated_at: Millis,
    pub finished_at: Option<Millis>,
    /// When a queued or waiting run needs attention, or a paused one would. None for a wait that only a message
    /// ends, and for all others: a running run has its owner's lease.
    pub ready_at: Option<Millis>,
    pub owner: Option<String>,
    /// Raised by each claim and each intervention: the fencing token.
    pub epoch: i64,
    /// The least encoding that can read its journal and inbox.
    pub format: u8,
    /// The index at which the journal of the present generation begins.
    pub journal_start: u64,
    /// The index after the last entry. Of a running run: as it was claimed, or last rewritten; commits that
    /// only append leave it (see [`crate::store::RunCommit`]).
    pub journal_len: u64,
    /// How often it was continued as new.
    pub generation: u64,
    /// How many messages the inbox ever got: the highest `seq` given out.
    pub inbox_len: u64,
    /// The highest `seq` that a driver of the run has taken note of.
    pub inbox_seen: u64,
    /// How many messages are unread (neither consumed nor set aside), and the sum of their payloads' lengths.
    pub unread: u64,
    pub unread_bytes: u64,
    /// How long the whole run may take.
    pub timeout: Option<Millis>,
    /// When the whole run times out.
    pub deadline: Option<Millis>,
    /// How many drivers in a row were lost over it at the length `lost_at` of its journal.
    pub lost: u32,
    pub lost_at: u64,
    /// Keys of the open waits: `timer`, `event:NAME`, `approval:ID`, `retry:STEP`, `exhausted:STEP`. A
    /// running run keeps those of its last pause.
    pub waits: Vec<String>,
    pub tags: Vec<String>,
    pub seed: Seed,
    /// Why a stuck run is stuck, or who has paused a paused one and why; for people.
    pub note: Option<String>,
    /// The run that started this one, and the first of that family.
    pub parent: Option<RunId>,
    pub root: Option<RunId>,
    /// What started it if no program did.
    pub origin: Option<String>,
}

impl RunRow {
    /// What a paused run is when its pause is over.
    pub const fn before_pause(&self) -> Status {
        if self.started_at.is_some() {
            Status::Waiting
        } else {
            Status::Queued
        }
    }

    /// A claim takes the run from an owner that has ended, when its journal has this length: notes that a
    /// driver was lost over it. Progress starts the count anew.
    pub const fn lose_driver(&mut self, journal_len: u64) {
        self.lost = if self.lost_at == journal_len {
            self.lost.saturating_add(1)
        } else {
            1
        };
        self.lost_at = journal_len;
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn status_codes_round_trip_and_never_change() {
        let names: Vec<_> = (0..9)
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
                "stuck",
                "paused"
            ]
        );
        for code in 0..9 {
            assert_eq!(Status::from_code(code).map(Status::code), Some(code));
        }
        assert_eq!(Status::from_code(9), None);
    }
}
