//! Schedules: what starts runs at their times, as rows that a store keeps and does not look into.
//!
//! A store knows of a schedule when somebody has to look at it next, and for which workflow. When it fires,
//! what becomes of a run that overlaps with the last one, and what is caught up with is decided by whoever
//! finds it due, written down by one change of its row, and then carried out.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, Payload};

/// A schedule as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRow {
    pub id: String,
    /// Drawn by whoever wrote the row last, so that no two states have the same, not even those of two lives
    /// of one id.
    pub version: i64,
    /// What it starts runs of: those who know this workflow look at it.
    pub workflow: String,
    /// When somebody has to look at it; none: never, until it is changed.
    pub next_at: Option<Millis>,
    pub definition: Payload,
    pub state: Payload,
}

/// A change of a schedule, whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleChange {
    pub id: String,
    /// The version that it must have; none: there must be no such schedule.
    pub expected: Option<i64>,
    /// What stands there afterwards; none: nothing.
    pub row: Option<ScheduleRow>,
}

/// Which schedules somebody has to look at now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleAsk {
    pub workflows: Vec<String>,
    /// Only those behind this one, in the order of their times and ids.
    pub after: Option<(Millis, String)>,
    pub limit: u32,
    pub now: Option<Millis>,
}

/// The answer to a [`ScheduleAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueSchedules {
    pub now: Millis,
    /// By time and id.
    pub rows: Vec<ScheduleRow>,
    /// When somebody has to look at the next one behind these; it may be due already.
    pub next_at: Option<Millis>,
}
