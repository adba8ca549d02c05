//! A run whose last commit was carried out by others, with an outcome that nobody knows here.
//!
//! It was dropped by its driver and is still leased to this engine, unless another has it. Its end
//! of the lease would bring it back; this brings it back sooner. Nothing rests on it: a release is
//! fenced by the journal's length like every commit. While the transaction in doubt is open in the
//! database, the release waits for it there; afterwards either the release takes place, and the
//! transaction did not, or the other way round.

use std::sync::Arc;
use std::time::Duration;

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::CommitOutcome;

use super::releases::{Releases, release, rows_as_they_stand};
use crate::common::Common;

/// How often the release is tried. Then the lease ends it, or the keeper.
const TRIES: u32 = 8;

/// What a try has come to.
enum Doubt {
    /// The run was released, due at that instant.
    Released(Millis),
    /// Another has it, or it has ended.
    Over,
    Remains,
}

/// Lets go of the run, as it stands in the store, if it is still this process's; `then` is told for
/// when.
pub(crate) fn settle_doubt(
    releases: &Arc<Releases>,
    run_id: RunId,
    epoch: i64,
    then: impl FnOnce(&RunId, Millis) + Send + 'static,
) {
    let under_way = releases.common.pending.begin();
    let env = Arc::clone(&releases.common.env);
    let releases = Arc::clone(releases);
    env.spawn(Box::pin(async move {
        for tries in 0..TRIES {
            match try_release(&releases.common, &run_id, epoch).await {
                Doubt::Released(at) => {
                    then(&run_id, at);
                    break;
                }
                Doubt::Over => break,
                Doubt::Remains => {}
            }
            let pause = Duration::from_millis(25 << tries);
            releases.common.env.sleep(pause).await;
        }
        drop(under_way);
    }));
}

async fn try_release(common: &Common, run_id: &RunId, epoch: i64) -> Doubt {
    let row = match rows_as_they_stand(common, vec![run_id.clone()]).await {
        Ok(rows) => rows.into_iter().next(),
        Err(error) => {
            tracing::debug!(%error, run = %run_id, "a run in doubt could not be read; trying again");
            return Doubt::Remains;
        }
    };
    let is_own = |owner: &str| common.incarnation.is_own(owner);
    let mine = row.filter(|row| row.epoch == epoch && row.owner.as_deref().is_some_and(is_own));
    let Some(row) = mine else {
        return Doubt::Over;
    };
    let now = common.clock.now();
    let outcome = common.store.commit(vec![release(row, now)]).await;
    match outcome.as_deref() {
        Ok([CommitOutcome::Applied { .. }]) => Doubt::Released(now),
        // The transaction in doubt has come between: look again.
        Ok(_) => Doubt::Remains,
        Err(error) => {
            tracing::debug!(%error, run = %run_id, "a run in doubt could not be released; trying again");
            Doubt::Remains
        }
    }
}
