//! Durable timers: `sleep`, `sleep_until`, every timer of the handler's own loop, and the run's time-out.

use crate::ids::{Millis, Payload};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind};
use crate::machine::ledger::Weight;
use crate::machine::op::{OpKind, StepPhase};
use crate::machine::{Halt, Machine, Outcome, Turn};

/// The operation id of the run's own time-out; `#` keeps it apart from every user's id.
pub const RUN_TIMEOUT_OP: &str = "#run-timeout";

/// Who asked for a timer; the stem of its automatic id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerStem {
    /// `ctx.sleep` and `ctx.sleep_until`.
    Sleep,
    /// `asyncio.sleep`, `asyncio.timeout`, `loop.call_later` …
    Timer,
}

impl Machine {
    /// The handler asks to be woken at an instant of the logical clock.
    pub fn request_timer(&mut self, stem: TimerStem, deadline: Millis) -> Result<Slot, Halt> {
        self.check_driving()?;
        let id = self.naming.automatic(match stem {
            TimerStem::Sleep => "sleep",
            TimerStem::Timer => "timer",
        });
        let slot = self.open_op(
            id,
            OpKind::Timer {
                deadline,
                opened: false,
            },
        );
        self.ops.set_deadline(slot, None, Some(deadline));
        Ok(slot)
    }

    /// The deadline of an operation has passed: a timer fires, a wait times out, a pause between
    /// attempts is over.
    pub(crate) fn deadline_passed(&mut self, slot: Slot, wall: Millis) -> Option<Turn> {
        let op = self.ops.get(slot)?;
        let outcome = match &op.kind {
            OpKind::Step {
                phase: StepPhase::Backoff { until },
                ..
            } => {
                let until = *until;
                self.backoff_over(slot, until);
                return None;
            }
            OpKind::Step { .. } => return None,
            OpKind::Timer { .. } => Outcome::Fired,
            OpKind::Event { .. } | OpKind::Approval { .. } => Outcome::TimedOut,
        };
        let op = self.close_op(slot)?;
        let at = self.advance(wall);
        self.ledger.append(
            Entry::new(Kind::TimerFired, op.id, Payload::new(), at),
            Weight::Hard,
        );
        Some(Turn::Deliver { slot, outcome, at })
    }

    /// The run's own time is over.
    pub(crate) fn run_timed_out(&mut self, wall: Millis) -> Turn {
        self.set_timed_out();
        let at = self.advance(wall);
        self.ledger.append(
            Entry::new(Kind::TimerFired, RUN_TIMEOUT_OP.into(), Payload::new(), at),
            Weight::Hard,
        );
        Turn::TimeOut { at }
    }
}
