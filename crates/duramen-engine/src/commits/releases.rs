//! Runs that are leased to this process and that nobody drives here: they are given back.

use std::sync::Arc;

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::RunRow;
use duramen_core::store::{CommitOutcome, Next, RunCommit, StoreError};

use crate::common::Common;
use crate::inline::on_completion;

/// See the module's head.
pub(crate) struct Releases {
    pub(super) common: Arc<Common>,
}

impl Releases {
    pub(super) const fn new(common: Arc<Common>) -> Self {
        Self { common }
    }

    /// Releases runs that are leased to this process and that nobody drives here, as they are.
    pub(crate) fn let_go(&self, rows: impl IntoIterator<Item = RunRow>) {
        let now = self.common.clock.now();
        let commits: Vec<RunCommit> = rows
            .into_iter()
            .map(|row| RunCommit {
                owner: self.common.owner().to_string(),
                ..release(row, now)
            })
            .collect();
        if !commits.is_empty() {
            let under_way = self.common.pending.begin();
            on_completion(self.common.store.commit(commits), move |result| {
                if let Err(error) = result {
                    tracing::debug!(%error, "runs could not be released; their leases will end");
                }
                drop(under_way);
            });
        }
    }

    /// Commits what is made of claimed runs instead of driving them. `aside` is told of each that stands
    /// aside now, and when it will be due.
    pub(crate) fn set_aside(
        &self,
        commits: Vec<RunCommit>,
        aside: impl Fn(&RunId, Option<Millis>) + Send + 'static,
    ) {
        let after: Vec<(RunId, Option<Millis>)> = commits
            .iter()
            .map(|commit| match &commit.next {
                Next::Waiting { ready_at, .. } => (commit.run_id.clone(), *ready_at),
                _ => (commit.run_id.clone(), None),
            })
            .collect();
        let under_way = self.common.pending.begin();
        on_completion(self.common.store.commit(commits), move |result| {
            match result {
                Ok(outcomes) => {
                    for ((run_id, ready_at), outcome) in after.into_iter().zip(outcomes) {
                        if matches!(outcome, CommitOutcome::Applied { .. }) {
                            aside(&run_id, ready_at);
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "runs could not be set aside; their leases will end");
                }
            }
            drop(under_way);
        });
    }
}

/// Lets go of a run as it stands, due at once.
pub(super) fn release(row: RunRow, now: Millis) -> RunCommit {
    RunCommit {
        run_id: row.run_id,
        seed: row.seed,
        owner: row.owner.unwrap_or_default(),
        epoch: row.epoch,
        expected_len: row.journal_len,
        entries: Vec::new(),
        read: Vec::new(),
        inbox_seen: None,
        next: Next::Waiting {
            ready_at: Some(now),
            waits: row.waits,
        },
        state: None,
        outgoing: Vec::new(),
        written: Vec::new(),
        format: None,
        at: now,
    }
}

/// The rows of those runs that there are, with the lengths that their journals have right now.
pub(crate) async fn rows_as_they_stand(
    common: &Common,
    run_ids: Vec<RunId>,
) -> Result<Vec<RunRow>, StoreError> {
    let standings = common.store.standing(run_ids.clone()).await?;
    let details = common.store.get(run_ids).await?;
    let rows = standings.into_iter().zip(details);
    Ok(rows
        .filter_map(|(standing, detail)| {
            let (standing, mut row) = (standing?, detail?.row);
            // What has changed between the two is fenced by its epoch, or by the length.
            row.journal_len = standing.journal_len;
            Some(row)
        })
        .collect())
}
