//! Claimed runs over which drivers were lost before: they are set back or parked instead of driven,
//! see [`duramen_core::suspect`].

use std::sync::Arc;

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::RunRow;
use duramen_core::store::{ClaimedRun, CommitOutcome, Next, RunCommit};
use duramen_core::suspect::{Verdict, verdict};

use crate::driver::Driven;
use crate::engine::Engine;
use crate::inline::on_completion;
use crate::sweep::Group;

impl Engine {
    /// Keeps the runs that may be driven, and releases or parks the others.
    pub(crate) fn sift(
        self: &Arc<Self>,
        runs: Vec<ClaimedRun>,
        group: Option<&Arc<Group>>,
        clock: Option<Millis>,
    ) -> Vec<ClaimedRun> {
        let now = clock.unwrap_or_else(|| self.now());
        let mut commits = Vec::new();
        let mut sound = Vec::with_capacity(runs.len());
        for run in runs {
            let (driven, next) = match verdict(&run.row, run.was, self.config.lease) {
                Verdict::Drive => {
                    sound.push(run);
                    continue;
                }
                Verdict::SetBack { pause, wait } => {
                    tracing::warn!(
                        run = %run.row.run_id,
                        lost = run.row.lost_drivers(),
                        pause,
                        "drivers were lost over this run; it is set back for so many milliseconds"
                    );
                    let next = Next::Waiting {
                        ready_at: Some(now.saturating_add(pause)),
                        waits: vec![wait],
                    };
                    (Driven::Paused, next)
                }
                Verdict::Park { note } => {
                    tracing::error!(run = %run.row.run_id, "the run is parked: {note}");
                    (Driven::Stuck, Next::Stuck { note })
                }
            };
            if let Some(group) = group {
                group.settled(run.row.run_id.clone(), driven);
            }
            commits.push(self.instead(run.row, next, now));
        }
        if !commits.is_empty() {
            self.set_aside(commits);
        }
        sound
    }

    /// The commit that is made instead of driving a run.
    fn instead(&self, row: RunRow, next: Next, at: Millis) -> RunCommit {
        RunCommit {
            run_id: row.run_id,
            owner: self.config.owner.clone(),
            epoch: row.epoch,
            expected_len: row.journal_len,
            entries: Vec::new(),
            read: Vec::new(),
            // All of them: unseen messages would make it due at once. They come with the next claim.
            inbox_seen: row.inbox_len,
            next,
            state: None,
            at,
        }
    }

    fn set_aside(self: &Arc<Self>, commits: Vec<RunCommit>) {
        let after: Vec<(RunId, Option<Millis>)> = commits
            .iter()
            .map(|commit| match &commit.next {
                Next::Waiting { ready_at, .. } => (commit.run_id.clone(), *ready_at),
                _ => (commit.run_id.clone(), None),
            })
            .collect();
        let engine = Arc::clone(self);
        let under_way = self.pending.begin();
        on_completion(self.store.commit(commits), move |result| {
            match result {
                Ok(outcomes) => {
                    for ((run_id, ready_at), outcome) in after.into_iter().zip(outcomes) {
                        if matches!(outcome, CommitOutcome::Applied { .. }) {
                            engine.stands_aside(&run_id, ready_at);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "runs could not be set aside; their leases will end");
                }
            }
            drop(under_way);
        });
    }

    /// Whoever started the run here goes on following it, unless it is parked.
    fn stands_aside(&self, run_id: &RunId, ready_at: Option<Millis>) {
        let mut registry = self.registry();
        match ready_at {
            None => registry.forget(run_id),
            Some(at) => {
                if !registry.refollow(run_id, Some(at)) {
                    registry.follow_if_own(run_id, Some(at));
                }
            }
        }
        drop(registry);
        if let Some(at) = ready_at {
            self.due_at(at);
        }
    }
}
