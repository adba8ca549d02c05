//! `retry`: takes back the failure that ended a run, and makes the run due again.

use std::sync::Arc;

use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::{Entry, Kind, Meta};
use duramen_core::run::Status;
use duramen_core::store::{Intervened, Intervention, RunDetail, StoreError};

use crate::calls::{Call, Interventions};
use crate::host::{HostEvent, Reply};
use crate::inline::on_completion;
use crate::insist::insist;

/// Reopens a failed, cancelled, terminated or stuck run.
pub(crate) fn reopen(call: Call, run_id: RunId) {
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
        if detail.row.status == Status::Completed
            || !(detail.row.status.is_final() || detail.row.status == Status::Stuck)
        {
            return refuse(Intervened::NotAllowed);
        }
        let unreadable = detail.end.as_ref().map(Entry::check_readable);
        if let Some(Err(error)) = unreadable {
            // Which failure ended it stands in what this build cannot read; a guess would replay wrongly.
            let reason = error.to_string();
            return answer(Err(StoreError::Other { reason }));
        }
        let reopen = Intervention::Reopen {
            run_id: detail.row.run_id.clone(),
            expected_len: detail.row.journal_len,
            entries: reopening(&detail, common.clock.now()),
            now: common.clock.explicit_now(),
        };
        insist(&common, Interventions(call), vec![reopen]);
    });
}

/// The entry that takes back the cause of the end; a stuck run's journal is whole and needs none.
fn reopening(detail: &RunDetail, now: i64) -> Vec<Entry> {
    if detail.row.status == Status::Stuck {
        return Vec::new();
    }
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
    let meta = Meta {
        cause: Some(cause),
        ..Meta::default()
    };
    vec![Entry::new(Kind::RunReopened, "".into(), Payload::new(), now).with_meta(&meta)]
}
