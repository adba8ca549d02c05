//! A copy of a run as it stands in the store, for whoever only reads along: nobody is disturbed by it.

use duramen_core::ids::RunId;
use duramen_core::journal::{Entry, Kind};
use duramen_core::store::{ClaimedRun, RunDetail, Store, StoreError};

/// The most entries of one request to the store.
const PAGE: u32 = 1_000;
/// How often it is read anew because the run was deleted and created again meanwhile.
const TRIES: u32 = 3;

/// The run with its journal of the present generation, as far as that is durable; none if there is none.
///
/// Whoever drives it may go on meanwhile: each beginning of a journal is one that a driver might have found.
pub(crate) async fn read(
    store: &dyn Store,
    run_id: RunId,
) -> Result<Option<ClaimedRun>, StoreError> {
    for _ in 0..TRIES {
        let details = store.get(vec![run_id.clone()]).await?;
        let Some(RunDetail { mut row, .. }) = details.into_iter().flatten().next() else {
            return Ok(None);
        };
        let journal = load(store, &run_id, row.journal_start).await?;
        let standings = store.standing(vec![run_id.clone()]).await?;
        let Some(standing) = standings.into_iter().flatten().next() else {
            return Ok(None);
        };
        if standing.seed != row.seed || journal.is_empty() {
            continue;
        }
        row.journal_len = row.journal_start + journal.len() as u64;
        return Ok(Some(ClaimedRun {
            was: row.status,
            row,
            journal: Some(journal),
            inbox: Vec::new(),
            inbox_more: false,
        }));
    }
    Err(StoreError::Other {
        reason: format!("run {run_id:?} was created anew again and again while it was read"),
    })
}

async fn load(store: &dyn Store, run_id: &RunId, start: u64) -> Result<Vec<Entry>, StoreError> {
    let mut journal: Vec<Entry> = Vec::new();
    loop {
        let from = start + journal.len() as u64;
        let page = store.load(run_id.clone(), from, PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        for entry in page {
            let begins = entry.kind == Kind::RunCreated && !journal.is_empty();
            // The code has no part in either: the next generation is another handler's, and nobody asked
            // this one when the run was terminated.
            if begins || entry.kind == Kind::RunTerminated {
                return Ok(journal);
            }
            journal.push(entry);
        }
        if is_last {
            return Ok(journal);
        }
    }
}
