//! Ends of runs by people: `terminate` and `delete`. What a run's end means to others leaves it with that.

use std::sync::Arc;

use duramen_core::family::{End, Ended};
use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    Intervened, Intervention, Outgoing, StoreError, end_of_child, place_of_end,
};

use crate::calls::{Call, Interventions};
use crate::carrier::Carrier;
use crate::host::{HostEvent, Reply};
use crate::insist::insist;

/// Ends a run as terminated, with the entry that says so.
pub(crate) fn terminate(call: Call, run_id: RunId, entry: Entry) {
    let env = Arc::clone(&call.common.env);
    env.spawn(Box::pin(async move {
        let row = row(&call, &run_id).await;
        let end = row.map(|row| row.map(|row| termination(&row, entry, Ended::Terminated)));
        go_on(call, end);
    }));
}

/// Removes a run, when all that it has sent is out. A live one that has a parent ends before.
pub(crate) fn delete(call: Call, run_id: RunId, force: bool) {
    let env = Arc::clone(&call.common.env);
    env.spawn(Box::pin(async move {
        let deletion = deletion(&call, run_id, force).await;
        go_on(call, deletion);
    }));
}

async fn deletion(
    call: &Call,
    run_id: RunId,
    force: bool,
) -> Result<Option<Intervention>, StoreError> {
    let Some(row) = row(call, &run_id).await? else {
        return Ok(None);
    };
    if force || !row.status.is_live() {
        if row.parent.is_some() && !row.status.is_final() {
            let reason = Payload::from_static(b"\"it was deleted\"");
            let at = call.common.clock.now();
            let entry = Entry::new(Kind::RunTerminated, "".into(), reason, at);
            let end = termination(&row, entry, Ended::Deleted);
            call.common.store.intervene(vec![end]).await?;
        }
        let (common, told) = (&*call.common, &*call.told);
        Carrier { common, told }.carry_out(&run_id).await?;
    }
    Ok(Some(Intervention::Delete { run_id, force }))
}

async fn row(call: &Call, run_id: &RunId) -> Result<Option<RunRow>, StoreError> {
    let found = call.common.store.get(vec![run_id.clone()]).await?;
    Ok(found.into_iter().next().flatten().map(|detail| detail.row))
}

fn termination(row: &RunRow, entry: Entry, ended: Ended) -> Intervention {
    let place = place_of_end(Status::Terminated, row.journal_len, Some(entry.at));
    let end = End {
        ended,
        payload: entry.payload.clone(),
    };
    let told = row.parent.iter().map(|parent| {
        Outgoing::message(&end_of_child(parent, &row.run_id, &row.seed, &place, &end))
    });
    Intervention::Terminate {
        run_id: row.run_id.clone(),
        outgoing: told.collect(),
        entry,
    }
}

fn go_on(call: Call, change: Result<Option<Intervention>, StoreError>) {
    let reply = match change {
        Ok(Some(change)) => {
            let common = Arc::clone(&call.common);
            return insist(&common, Interventions(call), vec![change]);
        }
        Ok(None) => Ok(Reply::Intervened(vec![Intervened::NotFound])),
        Err(error) => Err(error),
    };
    let token = call.token;
    call.common.host.push(HostEvent::Reply { token, reply });
}
