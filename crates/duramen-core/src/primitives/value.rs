//! Recorded values: answered at once, on the first pass and on replay alike.

use crate::derive::ValueKind;
use crate::ids::Payload;
use crate::journal::{Entry, Kind};
use crate::machine::divergence::{Handler, Recorded};
use crate::machine::ledger::Weight;
use crate::machine::{Halt, Machine};

impl Machine {
    /// The handler asks for a value. It never suspends, so on replay the entry must be the next one.
    pub fn request_value(&mut self, kind: ValueKind) -> Result<Payload, Halt> {
        self.check_driving()?;
        let id = self.naming.automatic(kind.name());
        let Some(placed) = self.history.front() else {
            let value = kind.derive(&self.facts.seed, &id, self.now);
            self.ledger.append(
                Entry::new(Kind::ValueRecorded, id, value.clone(), self.now),
                Weight::Light,
            );
            return Ok(value);
        };
        if placed.entry.kind == Kind::ValueRecorded && placed.entry.op == id {
            let value = placed.entry.payload.clone();
            self.history.pop();
            self.replayed += 1;
            return Ok(value);
        }
        let (index, recorded) = (
            placed.index,
            Recorded::Entry {
                kind: placed.entry.kind,
                op: placed.entry.op.to_string(),
            },
        );
        self.diverge(
            index,
            recorded,
            Handler::OtherValue {
                asked: id.to_string(),
            },
        );
        self.check_driving()?;
        Err(Halt::Gone)
    }
}
