//! What a run's end makes of its family, as messages.

use super::{MessageKind, NewMessage};
use crate::family::{End, message_id};
use crate::ids::RunId;
use crate::run::Seed;

/// Tells a parent of the end of a child. `place` is where that end stands: see [`message_id`].
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
