//! Waiting for events: messages that came early are kept in the inbox until they are asked for.

use crate::ids::{Millis, check_event_name, check_op_id};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind, Meta};
use crate::machine::ledger::Weight;
use crate::machine::op::OpKind;
use crate::machine::{Halt, Machine, Outcome, Turn};
use crate::store::{Message, MessageKind};

impl Machine {
    /// The handler asks for the next event of a name.
    pub fn request_event(
        &mut self,
        name: &str,
        id: Option<&str>,
        deadline: Option<Millis>,
    ) -> Result<Slot, Halt> {
        self.check_driving()?;
        check_event_name(name)?;
        let id = match id {
            Some(id) => {
                check_op_id(id)?;
                self.naming.explicit(id)
            }
            None => self.naming.automatic("event"),
        };
        let key = format!("event:{name}");
        let slot = self.open_op(
            id,
            OpKind::Event {
                key: key.clone(),
                deadline,
                opened: false,
            },
        );
        self.open_wait(slot, &key, deadline);
        Ok(slot)
    }

    /// Enters a wait into the inbox and the order of deadlines.
    pub(crate) fn open_wait(&mut self, slot: Slot, key: &str, deadline: Option<Millis>) {
        self.ops.set_deadline(slot, None, deadline);
        if !(self.history.is_empty() && self.recall(slot)) {
            self.inbox.open(key, slot);
        }
    }

    /// A message was accepted: its place in the journal and its consumption are one commit.
    pub(crate) fn message_received(&mut self, slot: Slot, message: Message, wall: Millis) -> Turn {
        let Some(op) = self.close_op(slot) else {
            return Turn::Idle;
        };
        let kind = match message.kind {
            MessageKind::Approval => Kind::ApprovalResolved,
            MessageKind::Event | MessageKind::Cancel => Kind::EventReceived,
        };
        let at = self.advance(wall);
        let meta = Meta {
            message: Some(message.message_id),
            ..Meta::default()
        };
        self.ledger.append(
            Entry::new(kind, op.id, message.payload, at).with_meta(&meta),
            Weight::Hard,
        );
        Turn::Deliver {
            slot,
            outcome: Outcome::Received(None),
            at,
        }
    }
}
