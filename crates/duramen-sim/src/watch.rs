//! Answers that were lost: have the runs gone on soon after?

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::Seed;

use crate::facts::RunLife;
use crate::world::ProcessId;

/// What the caller of a lost answer waits for.
#[derive(Debug, Clone)]
pub enum Lost {
    Nothing,
    /// Runs that are driven there, each with its epoch.
    Commits(Vec<(RunLife, i64)>),
    /// A run that was to be driven there.
    Creation {
        run_id: RunId,
        seed: Seed,
    },
    /// Whatever it brought.
    Claim,
}

/// An answer that was lost, until its runs are looked at.
#[derive(Debug, Clone)]
pub struct Watch {
    pub process: ProcessId,
    pub since: Millis,
    /// How much had befallen the process until then: if more does, it may take longer.
    pub troubles: u64,
    pub lost: Lost,
}
