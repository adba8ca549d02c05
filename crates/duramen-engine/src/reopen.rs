//! `retry` takes back the failure that ended a run, or gives the step that it is paused for fresh attempts; `skip`
//! gives that step a result. Both make the run due again.

use std::sync::Arc;

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind, Meta};
use duramen_core::machine::op::EXHAUSTED;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    Intervened, Intervention, Outgoing, RunDetail, Store, StoreError, inquiries,
};

use crate::calls::{Call, Interventions};
use crate::host::{HostEvent, Reply};
use crate::insist::insist;

/// Entries of a journal that are read in one go.
const PAGE: u32 = 10_000;

/// What is wanted of a run that is to go on.
enum Wanted {
    Retry {
        version: Option<String>,
    },
    /// The step gets that result, as if its function had returned it.
    Skip {
        op: String,
        result: Payload,
    },
}

/// What a run may be reopened by.
pub(crate) enum Reopening {
    By(Intervention),
    /// It cannot be.
    Not(Intervened),
}

/// Reopens a run that has not completed and is in nobody's hands; one that has not ended only for another version, or
/// if it is paused for a step.
pub(crate) fn reopen(call: Call, run_id: RunId, version: Option<String>) {
    change(call, run_id, Wanted::Retry { version });
}

/// Gives a step that its run is paused for a result.
pub(crate) fn skip(call: Call, run_id: RunId, op: String, result: Payload) {
    change(call, run_id, Wanted::Skip { op, result });
}

fn change(call: Call, run_id: RunId, wanted: Wanted) {
    let common = Arc::clone(&call.common);
    let under_way = common.pending.begin();
    let env = Arc::clone(&common.env);
    env.spawn(Box::pin(async move {
        let (now, explicit) = (common.clock.now(), common.clock.explicit_now());
        let reply = match going_on(&*common.store, run_id, wanted, now, explicit).await {
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

/// How that run is retried at `at`.
pub(crate) async fn reopening(
    store: &dyn Store,
    run_id: RunId,
    at: Millis,
    now: Option<Millis>,
) -> Result<Reopening, StoreError> {
    let retry = Wanted::Retry { version: None };
    going_on(store, run_id, retry, at, now).await
}

async fn going_on(
    store: &dyn Store,
    run_id: RunId,
    wanted: Wanted,
    at: Millis,
    now: Option<Millis>,
) -> Result<Reopening, StoreError> {
    let detail = store.get(vec![run_id]).await?.into_iter().next().flatten();
    let Some(detail) = detail else {
        return Ok(Reopening::Not(Intervened::NotFound));
    };
    let row = &detail.row;
    if let Some(Err(error)) = detail.end.as_ref().map(Entry::check_readable) {
        // Which failure ended it stands in what this build cannot read; a guess would replay wrongly.
        let reason = error.to_string();
        return Err(StoreError::Other { reason });
    }
    let Some(entries) = entries(&detail, &wanted, at) else {
        return Ok(Reopening::Not(Intervened::NotAllowed));
    };
    let outgoing = if row.status.is_final() {
        questions(store, row, at).await?
    } else {
        Vec::new()
    };
    let reopen = Intervention::Reopen {
        run_id: row.run_id.clone(),
        expected_len: row.journal_len,
        entries,
        outgoing,
        version: match wanted {
            Wanted::Retry { version } => version,
            Wanted::Skip { .. } => None,
        },
        now,
    };
    if !reopen.is_allowed(row.status, row.journal_len) {
        return Ok(Reopening::Not(Intervened::NotAllowed));
    }
    Ok(Reopening::By(reopen))
}

/// What its journal gets by that; none if the run is not to be changed so. The journal of a run that has not ended is
/// whole.
fn entries(detail: &RunDetail, wanted: &Wanted, at: Millis) -> Option<Vec<Entry>> {
    let row = &detail.row;
    match wanted {
        Wanted::Skip { op, result } => {
            if row.status != Status::Paused || !exhausted(row).any(|each| each == op) {
                return None;
            }
            let meta = Meta {
                skipped: true,
                ..Meta::default()
            };
            let entry = Entry::new(Kind::StepCompleted, (**op).into(), result.clone(), at);
            Some(vec![entry.with_meta(&meta)])
        }
        Wanted::Retry { .. } if row.status == Status::Paused => {
            exhausted(row).next()?;
            Some(vec![reopened(&Meta::default(), at)])
        }
        Wanted::Retry { .. } if row.status.is_final() => {
            (!is_undone(detail)).then(|| vec![reopened(&cause(detail), at)])
        }
        Wanted::Retry { .. } => Some(Vec::new()),
    }
}

/// The steps that a run is paused for.
fn exhausted(row: &RunRow) -> impl Iterator<Item = &str> {
    row.waits
        .iter()
        .filter_map(|wait| wait.strip_prefix(EXHAUSTED))
}

/// Whether what the run had done was undone before it ended: there is nothing left to go on with.
fn is_undone(detail: &RunDetail) -> bool {
    let end = detail.end.as_ref().and_then(|end| end.meta().ok());
    end.is_some_and(|meta| meta.undone)
}

/// What ended the run.
fn cause(detail: &RunDetail) -> Meta {
    let cause = detail
        .end
        .as_ref()
        .and_then(|end| end.meta().ok())
        .and_then(|meta| meta.cause)
        .unwrap_or_else(|| {
            // As the machine counts: from the beginning of the present generation.
            let length = detail
                .row
                .journal_len
                .saturating_sub(detail.row.journal_start);
            length.saturating_sub(1)
        });
    Meta {
        cause: Some(cause),
        ..Meta::default()
    }
}

/// The entry that takes back what its meta names and gives open steps fresh attempts.
fn reopened(meta: &Meta, at: Millis) -> Entry {
    Entry::new(Kind::RunReopened, "".into(), Payload::new(), at).with_meta(meta)
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
