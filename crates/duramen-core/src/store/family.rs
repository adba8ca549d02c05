//! What the end of a run, and its reopening, make of its family.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MessageKind, NewMessage};
use crate::derive::{child_seed, life};
use crate::family::{End, message_id, message_ids};
use crate::ids::{Millis, OpId, RunId};
use crate::journal::{Entry, Kind};
use crate::run::{RunRow, Seed, Status};

/// Tells a parent of the end of a child. `place` is where that end stands: see [`place_of_end`].
pub fn end_of_child(
    parent: &RunId,
    child: &RunId,
    seed: &Seed,
    place: &str,
    end: &End,
) -> NewMessage {
    NewMessage {
        run_id: parent.clone(),
        message_id: message_id(seed, place),
        kind: MessageKind::Child,
        name: child.to_string(),
        payload: end.to_payload(),
        fingerprint: None,
        encoding: 1,
        now: None,
    }
}

/// Where the end of a run stands: in its journal, but for one that somebody else wrote behind a journal whose
/// length he did not know.
pub fn place_of_end(status: Status, journal_len: u64, finished_at: Option<Millis>) -> String {
    match (status, finished_at) {
        (Status::Terminated, Some(at)) => format!("terminated:{at}"),
        _ => journal_len.to_string(),
    }
}

/// A parent that was reopened asks how a child stands: what it was told meanwhile, nobody kept.
///
/// A child that has ended as its parent was told is reopened, too. Any other end is told (again), and a child that
/// goes on will tell of its end by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquiry {
    pub parent: RunId,
    pub child: RunId,
    pub seed: Seed,
    /// Where the end stands that the parent was told of, if it was.
    pub told: Option<String>,
    /// When the parent was reopened.
    pub at: Millis,
}

/// What a parent that is reopened at `at` has to ask: of each child in the journal of its present generation that
/// is not known to have completed.
pub fn inquiries(parent: &RunRow, journal: &[Entry], at: Millis) -> Vec<Inquiry> {
    let mut open: BTreeMap<OpId, Inquiry> = BTreeMap::new();
    for entry in journal {
        let Ok(meta) = entry.meta() else {
            continue;
        };
        match (entry.kind, meta.run) {
            (Kind::ChildStarted, Some(child)) => {
                let inquiry = Inquiry {
                    parent: parent.run_id.clone(),
                    child,
                    seed: child_seed(&parent.seed, parent.generation, &entry.op),
                    told: None,
                    at,
                };
                open.entry(entry.op.clone()).or_insert(inquiry);
            }
            (Kind::ChildFinished, _) if meta.ended.is_none() => {
                open.remove(&entry.op);
            }
            (Kind::ChildFinished, _) => {
                if let (Some(inquiry), Some(message)) = (open.get_mut(&entry.op), meta.message) {
                    let ids = message_ids(&life(&inquiry.seed));
                    inquiry.told = message.strip_prefix(&ids).map(str::to_owned);
                }
            }
            _ => {}
        }
    }
    open.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Ended;
    use crate::ids::Payload;
    use crate::journal::Meta;
    use crate::machine::testing::{Sim, T0};

    fn started(op: &str) -> Entry {
        Entry::new(Kind::ChildStarted, op.into(), Payload::new(), T0).with_meta(&Meta {
            run: Some(format!("run/{op}").into()),
            ..Meta::default()
        })
    }

    fn finished(row: &RunRow, op: &str, place: &str, ended: Option<Ended>) -> Entry {
        let seed = child_seed(&row.seed, 0, op);
        Entry::new(Kind::ChildFinished, op.into(), Payload::new(), T0).with_meta(&Meta {
            message: Some(message_id(&seed, place)),
            ended,
            ..Meta::default()
        })
    }

    #[test]
    fn a_reopened_parent_asks_for_what_it_has_not_heard_of_and_for_what_has_failed() {
        let row = Sim::new(|_| async { Ok(String::new()) }).store.row;
        let journal = [
            started("open"),
            started("failed"),
            started("done"),
            finished(&row, "done", "4", None),
            finished(&row, "failed", "7", Some(Ended::Failed)),
        ];
        let asked = inquiries(&row, &journal, 9);
        let asked: Vec<_> = asked
            .iter()
            .map(|one| (&*one.child, one.told.as_deref()))
            .collect();
        assert_eq!(asked, [("run/failed", Some("7")), ("run/open", None)]);
    }
}
