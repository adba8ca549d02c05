//! A run whose last commit was carried out by others, with an outcome that nobody knows here.
//!
//! It was dropped by its driver and is still leased to this engine, unless another has it. Its end
//! of the lease would bring it back; this brings it back sooner. Nothing rests on it: a release is
//! fenced by the journal's length like every commit. While the transaction in doubt is open in the
//! database, the release waits for it there; afterwards either the release takes place, and the
//! transaction did not, or the other way round.

use std::sync::Arc;
use std::time::Duration;

use duramen_core::ids::RunId;
use duramen_core::store::CommitOutcome;

use crate::engine::Engine;
use crate::tenure::release;

/// How often the release is tried. Then the lease ends it, or the keeper.
const TRIES: u32 = 8;

impl Engine {
    /// Lets go of the run, as it stands in the store, if it is still this engine's.
    pub(crate) fn settle_doubt(self: &Arc<Self>, run_id: RunId, epoch: i64) {
        let engine = Arc::clone(self);
        let under_way = self.pending.begin();
        self.env.spawn(Box::pin(async move {
            for tries in 0..TRIES {
                if engine.try_release(&run_id, epoch).await {
                    break;
                }
                engine.env.sleep(Duration::from_millis(25 << tries)).await;
            }
            drop(under_way);
        }));
    }

    /// True when there is nothing more to do.
    async fn try_release(self: &Arc<Self>, run_id: &RunId, epoch: i64) -> bool {
        let row = match self.store.get(vec![run_id.clone()]).await {
            Ok(details) => details
                .into_iter()
                .next()
                .flatten()
                .map(|detail| detail.row),
            Err(error) => {
                tracing::warn!(%error, run = %run_id, "a run in doubt could not be read; trying again");
                return false;
            }
        };
        let Some(row) =
            row.filter(|row| row.epoch == epoch && row.owner.as_deref() == Some(self.owner()))
        else {
            return true; // another has it, or it has ended
        };
        let now = self.now();
        let outcome = self.store.commit(vec![release(row, now)]).await;
        match outcome.as_deref() {
            Ok([CommitOutcome::Applied { .. }]) => {
                self.registry().refollow(run_id, Some(now));
                self.nudge();
                true
            }
            // The transaction in doubt has come between: look again.
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(%error, run = %run_id, "a run in doubt could not be released; trying again");
                false
            }
        }
    }
}
