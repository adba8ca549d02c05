//! `retry`: takes back the failure that ended a run, and makes the run due again.

use std::sync::Arc;

use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::{Entry, Kind, Meta};
use duramen_core::run::Status;
use duramen_core::store::{Intervened, Intervention, RunDetail};

use crate::engine::Engine;
use crate::host::{HostEvent, Reply, Token};
use crate::inline::on_completion;

impl Engine {
    /// Reopens a failed, cancelled, terminated or stuck run.
    pub fn reopen(self: &Arc<Self>, token: Token, run_id: RunId) {
        let engine = Arc::clone(self);
        on_completion(self.store.get(vec![run_id]), move |result| {
            let detail = match result.map(|details| details.into_iter().next().flatten()) {
                Ok(Some(detail)) => detail,
                Ok(None) => return engine.answer(token, Intervened::NotFound),
                Err(error) => {
                    return engine.host.push(HostEvent::Reply {
                        token,
                        reply: Err(error),
                    });
                }
            };
            if detail.row.status == Status::Completed
                || !(detail.row.status.is_final() || detail.row.status == Status::Stuck)
            {
                return engine.answer(token, Intervened::NotAllowed);
            }
            let reopen = Intervention::Reopen {
                run_id: detail.row.run_id.clone(),
                expected_len: detail.row.journal_len,
                entries: reopening(&detail, engine.now()),
                now: engine.env.explicit_now(),
            };
            let nudged = Arc::clone(&engine);
            engine.call(token, engine.store.intervene(vec![reopen]), move |done| {
                nudged.nudge();
                Reply::Intervened(done)
            });
        });
    }

    fn answer(&self, token: Token, intervened: Intervened) {
        self.host.push(HostEvent::Reply {
            token,
            reply: Ok(Reply::Intervened(vec![intervened])),
        });
    }
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
        .unwrap_or_else(|| detail.row.journal_len.saturating_sub(1));
    let meta = Meta {
        cause: Some(cause),
        ..Meta::default()
    };
    vec![Entry::new(Kind::RunReopened, "".into(), Payload::new(), now).with_meta(&meta)]
}
