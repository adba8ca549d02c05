//! `retry`: takes back the failure that ended a run, and makes the run due again.

use std::sync::Arc;

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind, Meta};
use duramen_core::run::RunRow;
use duramen_core::store::{
    Intervened, Intervention, Outgoing, RunDetail, Store, StoreError, inquiries,
};

use crate::calls::{Call, Interventions};
use crate::host::{HostEvent, Reply};
use crate::insist::insist;

/// Entries of a journal that are read in one go.
const PAGE: u32 = 10_000;

/// What a run may be reopened by.
pub(crate) enum Reopening {
    By(Intervention),
    /// It cannot be.
    Not(Intervened),
}

/// Reopens a run that has not completed and is in nobody's hands; one that has not ended only for another version.
pub(crate) fn reopen(call: Call, run_id: RunId, version: Option<String>) {
    let common = Arc::clone(&call.common);
    let under_way = common.pending.begin();
    let env = Arc::clone(&common.env);
    env.spawn(Box::pin(async move {
        let (now, explicit) = (common.clock.now(), common.clock.explicit_now());
        let reply = match reopening(&*common.store, run_id, version, now, explicit).await {
            Ok(Reopening::By(reopen)) => {
                return insist(&common, Interventions(call), vec![reopen]);
            }
            Ok(Reopening::Not(refused)) => Ok(Reply::Intervened(vec![refused])),
            Err(error) => Err(error),
        };
        let token = call.token;
        common.host.push(HostEvent::Reply { token, reply });
        drop(under_way);
    }));
}

/// How that run is reopened at `at`.
pub(crate) async fn reopening(
    store: &dyn Store,
    run_id: RunId,
    version: Option<String>,
    at: Millis,
    now: Option<Millis>,
) -> Result<Reopening, StoreError> {
    let detail = store.get(vec![run_id]).await?.into_iter().next().flatten();
    let Some(detail) = detail else {
        return Ok(Reopening::Not(Intervened::NotFound));
    };
    let row = &detail.row;
    let mut reopen = Intervention::Reopen {
        run_id: row.run_id.clone(),
        expected_len: row.journal_len,
        entries: Vec::new(),
        outgoing: Vec::new(),
        version,
        now,
    };
    if !reopen.is_allowed(row.status, row.journal_len) {
        return Ok(Reopening::Not(Intervened::NotAllowed));
    }
    if let Some(Err(error)) = detail.end.as_ref().map(Entry::check_readable) {
        // Which failure ended it stands in what this build cannot read; a guess would replay wrongly.
        let reason = error.to_string();
        return Err(StoreError::Other { reason });
    }
    // The journal of a run that has not ended is whole, and its inbox as well.
    if row.status.is_final()
        && let Intervention::Reopen {
            entries, outgoing, ..
        } = &mut reopen
    {
        entries.push(taking_back(&detail, at));
        *outgoing = questions(store, row, at).await?;
    }
    Ok(Reopening::By(reopen))
}

/// The entry that takes back the cause of the end.
fn taking_back(detail: &RunDetail, at: Millis) -> Entry {
    let cause = detail
        .end
        .as_ref()
        .and_then(|end| end.meta().ok())
        .and_then(|meta| meta.cause)
        .unwrap_or_else(|| detail.row.journal_len.saturating_sub(1));
    let meta = Meta {
        cause: Some(cause),
        ..Meta::default()
    };
    Entry::new(Kind::RunReopened, "".into(), Payload::new(), at).with_meta(&meta)
}

/// What it asks its children.
async fn questions(
    store: &dyn Store,
    row: &RunRow,
    at: Millis,
) -> Result<Vec<Outgoing>, StoreError> {
    let mut family = Vec::new();
    let mut from = row.journal_start;
    while from < row.journal_len {
        let page = store.load(row.run_id.clone(), from, PAGE).await?;
        if page.is_empty() {
            break;
        }
        from += page.len() as u64;
        let of_children =
            |entry: &Entry| matches!(entry.kind, Kind::ChildStarted | Kind::ChildFinished);
        family.extend(page.into_iter().filter(of_children));
    }
    let asked = inquiries(row, &family, at);
    Ok(asked.iter().map(Outgoing::inquiry).collect())
}
