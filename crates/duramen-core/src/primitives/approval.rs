//! Approvals: a recorded request, and a decision that comes as a message.

use crate::ids::{Millis, OpId, Payload, check_op_id};
use crate::inbox::Slot;
use crate::machine::op::OpKind;
use crate::machine::{Halt, Machine};

impl Machine {
    /// The handler asks for a decision. The approval's id is the operation's id: derived from the
    /// order of requests, never random, so that a crash cannot mint another one.
    pub fn request_approval(
        &mut self,
        id: Option<&str>,
        request: Payload,
        deadline: Option<Millis>,
    ) -> Result<(Slot, OpId), Halt> {
        self.check_driving()?;
        let id = match id {
            Some(id) => {
                check_op_id(id)?;
                self.naming.explicit(id)
            }
            None => self.naming.automatic("approval"),
        };
        let key = format!("approval:{id}");
        let slot = self.open_op(
            id.clone(),
            OpKind::Approval {
                key: key.clone(),
                deadline,
                request,
                opened: false,
            },
        );
        self.open_wait(slot, &key, deadline);
        Ok((slot, id))
    }
}
