//! Claimed runs over which drivers were lost before: they are set back or parked instead of driven,
//! see [`duramen_core::suspect`].

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{ClaimedRun, Next, RunCommit};
use duramen_core::suspect::{SET_BACK, Verdict, verdict};

use crate::common::Common;
use crate::host::Driven;

/// What is made of claimed runs.
#[derive(Debug, Default)]
pub(super) struct Sifted {
    /// To be driven.
    pub(super) sound: Vec<ClaimedRun>,
    /// To be committed instead of driving the others.
    pub(super) commits: Vec<RunCommit>,
    /// What that makes of them.
    pub(super) settled: Vec<(RunId, Driven)>,
}

/// Tells the runs that may be driven from those to be released or parked.
pub(super) fn sift(runs: Vec<ClaimedRun>, common: &Common, now: Millis) -> Sifted {
    let mut sifted = Sifted::default();
    for run in runs {
        let (driven, next) = match verdict(&run.row, run.was, common.config.lease) {
            Verdict::Drive => {
                if run.was == Status::Running {
                    tracing::info!(run = %run.row.run_id, "the process that drove the run is gone; the run goes on here");
                }
                sifted.sound.push(run);
                continue;
            }
            Verdict::SetBack { pause } => {
                tracing::warn!(
                    run = %run.row.run_id,
                    lost = run.row.lost,
                    pause,
                    "drivers were lost over this run; it is set back for so many milliseconds"
                );
                let next = Next::Waiting {
                    ready_at: Some(now.saturating_add(pause)),
                    waits: vec![SET_BACK.to_owned()],
                };
                (Driven::Paused, next)
            }
            Verdict::Park { note } => {
                tracing::error!(run = %run.row.run_id, "the run is parked: {note}");
                (Driven::Stuck, Next::Stuck { note })
            }
        };
        sifted.settled.push((run.row.run_id.clone(), driven));
        sifted.commits.push(instead(run.row, common, next, now));
    }
    sifted
}

/// The commit that is made instead of driving a run.
fn instead(row: RunRow, common: &Common, next: Next, at: Millis) -> RunCommit {
    RunCommit {
        run_id: row.run_id,
        seed: row.seed,
        owner: common.owner().to_string(),
        epoch: row.epoch,
        expected_len: row.journal_len,
        entries: Vec::new(),
        read: Vec::new(),
        // All of them: unseen messages would make it due at once. They come with the next claim.
        inbox_seen: Some(row.inbox_len),
        next,
        state: None,
        outgoing: Vec::new(),
        written: Vec::new(),
        format: None,
        at,
    }
}
