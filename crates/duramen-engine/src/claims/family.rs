//! Whoever goes on with a run here goes on with its children: also with those that another process has started,
//! which may have died.

use std::sync::Arc;

use duramen_core::ids::RunId;
use duramen_core::run::Status;
use duramen_core::store::{Filter, StoreError};

use super::hands::Hands;
use crate::common::Common;

/// Children that are read in one go.
const PAGE: u32 = 1_000;

/// Finds the live children of a run, theirs, and so on, in the background.
pub(super) fn adopt_family(common: &Arc<Common>, hands: &Arc<Hands>, run_id: &RunId) {
    let (common, hands) = (Arc::clone(common), Arc::clone(hands));
    let parents = vec![run_id.clone()];
    let env = Arc::clone(&common.env);
    env.spawn(Box::pin(async move {
        if let Err(error) = adopt(&common, &hands, parents).await {
            tracing::debug!(%error, "the children of a run could not be looked for; they are left to others");
        }
    }));
}

async fn adopt(common: &Common, hands: &Hands, mut parents: Vec<RunId>) -> Result<(), StoreError> {
    while let Some(parent) = parents.pop() {
        let mut cursor = None;
        loop {
            let filter = Filter {
                parent: Some(parent.clone()),
                status: vec![Status::Queued, Status::Running, Status::Waiting],
                ..Filter::default()
            };
            let page = common.store.list(filter, PAGE, cursor).await?;
            for row in page.rows {
                if row.status == Status::Running {
                    // In whoever's hands: tried again when that may have ended.
                    hands.adopt(&row.run_id, Some(common.clock.now()));
                } else {
                    hands.adopt(&row.run_id, row.ready_at);
                }
                parents.push(row.run_id);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(())
}
