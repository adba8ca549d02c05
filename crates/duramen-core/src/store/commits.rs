//! Commits: the one way in which a driver changes its run.

use serde::{Deserialize, Serialize};

use super::{Outgoing, StreamWrite};
use crate::ids::{Millis, Payload, RunId};
use crate::journal::Entry;
use crate::run::{Seed, Status};

/// One atomic change of one run.
///
/// A commit that only appends ([`RunCommit::only_appends`]) leaves the run's row as it is where the store
/// allows it: the journal's key fences the length, and the row's derived columns (`journal_len`,
/// `updated_at`) are written when the run pauses or ends, or is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCommit {
    pub run_id: RunId,
    /// The life of the run that is meant: an id that was deleted and created anew has another.
    pub seed: Seed,
    pub owner: String,
    pub epoch: i64,
    /// The index of the first entry; what the journal's length must be.
    pub expected_len: u64,
    pub entries: Vec<Entry>,
    /// Messages that were consumed or set aside.
    pub read: Vec<ReadMessage>,
    /// The highest message `seq` the driver has taken note of, if that has changed.
    pub inbox_seen: Option<u64>,
    pub next: Next,
    /// The run's state object, when it changed.
    pub state: Option<Payload>,
    /// What leaves the run, in this order. A commit that has any appends an entry.
    pub outgoing: Vec<Outgoing>,
    /// What the handler has written to streams, in this order. Each has an entry, so there are no more than these.
    #[serde(default)]
    pub written: Vec<StreamWrite>,
    /// Only builds that read this encoding can go on with the run from here on; never lowers it.
    pub format: Option<u8>,
    /// The driver's time, for `updated_at` and `finished_at`.
    pub at: Millis,
}

impl RunCommit {
    /// Whether the row of the run may be left as it is.
    pub const fn only_appends(&self) -> bool {
        matches!(self.next, Next::Running)
            && self.read.is_empty()
            && self.inbox_seen.is_none()
            && self.format.is_none()
    }

    /// The length of the journal after it.
    pub const fn length_after(&self) -> u64 {
        self.expected_len.saturating_add(self.entries.len() as u64)
    }
}

/// What becomes of the run with a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Next {
    /// Keeps its owner.
    Running,
    /// Releases it. If the inbox holds messages beyond `inbox_seen`, the run is due at once.
    Waiting {
        ready_at: Option<Millis>,
        waits: Vec<String>,
    },
    /// Ends the run: completed, failed or cancelled.
    Finished { status: Status },
    /// Parks the run with a reason for people.
    Stuck { note: String },
    /// Releases it as paused: not to be claimed until a message frees it. If the inbox holds messages beyond
    /// `inbox_seen`, one of which may be that message, it is released as waiting instead, due at once.
    Paused {
        ready_at: Option<Millis>,
        waits: Vec<String>,
        note: String,
    },
    /// The last entry, `run_created`, begins the next generation under that version: same id, inbox and
    /// dedupe keys. The journal starts there, and the same transaction removes what stood before, so that a
    /// run is no larger for having many. Queued from `ready_at` on, and the time-out begins anew.
    Continued { ready_at: Millis, version: String },
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMessage {
    pub seq: u64,
    /// Why it was set aside; none when it was consumed.
    pub refused: Option<String>,
    /// The answer to its sender.
    pub reply: Option<Payload>,
}

/// The answer to one run commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CommitOutcome {
    /// It took place. `due` when the run was released and is due at once because of unseen messages.
    Applied { due: bool },
    /// Life, owner, epoch, status or journal length differ. Nothing was written now. (A commit that is sent
    /// again after its answer was lost gets this too: [`super::Queries::standing`] tells.)
    Fenced,
    /// Somebody else's transaction holds the run, for longer than others should wait for it. Nothing was
    /// written, and the same commit may be sent again.
    Blocked,
    /// No store of this kind could keep this commit, ever (too large, for example). Nothing was written.
    Rejected { reason: String },
}
