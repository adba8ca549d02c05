//! Cancellation: a message that reaches the handler whatever it waits for.

use crate::ids::Millis;
use crate::journal::{Entry, Kind, Meta};
use crate::machine::ledger::Weight;
use crate::machine::{Machine, Turn};
use crate::store::Message;

impl Machine {
    pub(crate) fn cancel_arrived(&mut self, message: &Message, wall: Millis) -> Turn {
        self.inbox.take(message, None);
        let at = self.advance(wall);
        let meta = Meta {
            message: Some(message.message_id.clone()),
            ..Meta::default()
        };
        let index = self.ledger.append(
            Entry::new(
                Kind::CancelRequested,
                "".into(),
                message.payload.clone(),
                at,
            )
            .with_meta(&meta),
            Weight::Hard,
        );
        self.set_cancelled_at(index);
        Turn::Cancel {
            reason: message.payload.clone(),
            at,
        }
    }
}
