//! Owners: one row for each incarnation of a process, with the one lease it has.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, RunId};

/// A sign of life of an owner. The first one registers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub owner: String,
    /// How long the lease lasts from now on.
    pub lease: Millis,
    /// For people: host and process.
    pub label: Option<String>,
    /// For people: what it serves.
    pub serves: Vec<String>,
    /// The highest encoding it reads.
    pub format: u8,
    /// The incarnation before this one, which let its lease lapse: what it still holds is moved to this
    /// owner, with epochs as they are. It counts as ended from now on, even if its lease has not ended.
    pub succeeds: Option<String>,
    pub now: Option<Millis>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub now: Millis,
    /// False when the lease had ended before: this owner has ended for good, and needs a new name.
    pub alive: bool,
    /// What it got from the incarnation that it succeeds: run ids with their epochs, by run id.
    pub inherited: Vec<(RunId, i64)>,
}

/// An owner as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRow {
    pub owner: String,
    pub label: Option<String>,
    pub serves: Vec<String>,
    pub format: u8,
    pub started_at: Millis,
    /// The last sign of life.
    pub seen_at: Millis,
    pub lease_until: Millis,
    /// When it was found to have ended.
    pub ended_at: Option<Millis>,
    /// Runs in hand.
    pub held: u64,
}

/// How long ended owners are kept for people to see.
pub const ENDED_OWNERS_KEPT: Millis = 24 * 60 * 60 * 1_000;
