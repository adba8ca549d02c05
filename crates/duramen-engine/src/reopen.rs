//! `retry` takes back the failure that ended a run, or gives the step that it is paused for fresh attempts; `skip`
//! gives that step a result. Both make the run due again.

use std::sync::Arc;

use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::{Entry, Kind, Meta};
use duramen_core::machine::op::EXHAUSTED;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Intervened, Intervention, RunDetail, StoreError};

use crate::calls::{Call, Interventions};
use crate::host::{HostEvent, Reply};
use crate::inline::on_completion;
use crate::insist::insist;

/// Reopens a failed, cancelled, terminated or stuck run, or one that is paused for a step.
pub(crate) fn reopen(call: Call, run_id: RunId) {
    change(call, run_id, |detail, now| {
        let row = &detail.row;
        match row.status {
            Status::Stuck => Some(Vec::new()),
            Status::Paused if exhausted(row).next().is_some() => {
                Some(vec![reopening(&Meta::default(), now)])
            }
            status if status.is_final() && status != Status::Completed && !is_undone(detail) => {
                Some(vec![reopening(&cause(detail), now)])
            }
            _ => None,
        }
    });
}

/// Gives a step that its run is paused for a result, as if its function had returned it.
pub(crate) fn skip(call: Call, run_id: RunId, op: String, result: Payload) {
    change(call, run_id, move |detail, now| {
        let row = &detail.row;
        if row.status != Status::Paused || !exhausted(row).any(|each| each == op) {
            return None;
        }
        let meta = Meta {
            skipped: true,
            ..Meta::default()
        };
        let entry = Entry::new(Kind::StepCompleted, (*op).into(), result.clone(), now);
        Some(vec![entry.with_meta(&meta)])
    });
}

/// The steps that a run is paused for.
fn exhausted(row: &RunRow) -> impl Iterator<Item = &str> {
    row.waits
        .iter()
        .filter_map(|wait| wait.strip_prefix(EXHAUSTED))
}

/// Makes a run due with the entries that its row asks for; none: it is not to be changed.
fn change(
    call: Call,
    run_id: RunId,
    entries: impl FnOnce(&RunDetail, i64) -> Option<Vec<Entry>> + Send + 'static,
) {
    let detail = call.common.store.get(vec![run_id]);
    on_completion(detail, move |result| {
        let (common, token) = (Arc::clone(&call.common), call.token);
        let answer = |reply| common.host.push(HostEvent::Reply { token, reply });
        let refuse = |intervened| answer(Ok(Reply::Intervened(vec![intervened])));
        let detail = match result.map(|details| details.into_iter().next().flatten()) {
            Ok(Some(detail)) => detail,
            Ok(None) => return refuse(Intervened::NotFound),
            Err(error) => return answer(Err(error)),
        };
        let unreadable = detail.end.as_ref().map(Entry::check_readable);
        if let Some(Err(error)) = unreadable {
            // Which failure ended it stands in what this build cannot read; a guess would replay wrongly.
            let reason = error.to_string();
            return answer(Err(StoreError::Other { reason }));
        }
        let Some(entries) = entries(&detail, common.clock.now()) else {
            return refuse(Intervened::NotAllowed);
        };
        let reopen = Intervention::Reopen {
            run_id: detail.row.run_id.clone(),
            expected_len: detail.row.journal_len,
            entries,
            now: common.clock.explicit_now(),
        };
        insist(&common, Interventions(call), vec![reopen]);
    });
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
        .unwrap_or_else(|| detail.row.journal_len.saturating_sub(1));
    Meta {
        cause: Some(cause),
        ..Meta::default()
    }
}

/// The entry that takes back what its meta names and gives open steps fresh attempts.
fn reopening(meta: &Meta, now: i64) -> Entry {
    Entry::new(Kind::RunReopened, "".into(), Payload::new(), now).with_meta(meta)
}
