//! Live turns: each outcome that came in gets its place in the journal at the moment it is delivered.

use super::ledger::Weight;
use super::op::{OpKind, StepPhase};
use super::{Arrived, Machine, Outcome, Phase, Turn};
use crate::ids::Millis;
use crate::inbox::Slot;
use crate::journal::{Entry, Kind};

/// Which of the things that are due comes first.
enum First {
    Cancel,
    Message(Slot),
    Deadline(Slot),
    RunTimeout,
}

impl Machine {
    /// What to do next. Call it only when nothing is runnable in the handler's loop.
    pub fn turn(&mut self, wall: Millis) -> Turn {
        // A deadline that the logical clock has passed is over, whatever this host's clock says.
        while self.phase == Phase::Driving {
            if self.history.is_empty() {
                let wall = self.now.max(wall);
                if let Some(turn) = self.live_turn(wall) {
                    return turn;
                }
                break;
            }
            if let Some(turn) = self.replay_turn() {
                return turn;
            }
        }
        Turn::Idle
    }

    /// One live outcome gets its place in the journal, or one step starts.
    fn live_turn(&mut self, wall: Millis) -> Option<Turn> {
        if self.is_sealed() {
            return None;
        }
        self.go_live();
        while let Some((slot, arrived)) = self.arrived.pop_front() {
            let turn = match arrived {
                Arrived::Step(outcome) => self.step_ended(slot, outcome, wall),
                Arrived::Recalled(entry) => self.record_again(slot, entry, wall),
                Arrived::Durable { at } => self.durable_arrived(slot, at),
            };
            if turn.is_some() {
                return turn;
            }
        }
        if let Some(turn) = self.next_seal(wall) {
            return Some(turn);
        }
        if self.yielding {
            return None;
        }
        self.next_due(wall).or_else(|| self.next_start())
    }

    /// The last recorded entry was gone through: what is open now and has a result that a
    /// reopening took back is served by it. Before, nobody could know whether the journal has it
    /// again.
    fn go_live(&mut self) {
        if !std::mem::replace(&mut self.live, true) && self.history.has_memo() {
            for slot in self.ops.slots() {
                self.recall(slot);
            }
        }
    }

    /// The earliest of what is due: a message counts from its arrival, a timer from its deadline.
    fn next_due(&mut self, wall: Millis) -> Option<Turn> {
        loop {
            match self.first_due(wall)? {
                First::Cancel => return self.cancel_arrived(wall),
                First::RunTimeout => return Some(self.run_timed_out(wall)),
                First::Message(slot) => return self.offer(slot),
                First::Deadline(slot) => {
                    if let Some(turn) = self.deadline_passed(slot, wall) {
                        return Some(turn);
                    }
                }
            }
        }
    }

    fn first_due(&self, wall: Millis) -> Option<First> {
        let matched = self.inbox.next_match();
        let arrived = match matched {
            Some(matched) => match matched.slot {
                None => return Some(First::Cancel),
                Some(slot) => Some((matched.message.at, slot)),
            },
            None => None,
        };
        let timer = self.ops.earliest().filter(|(until, _)| *until <= wall);
        let limit = self.limit().filter(|limit| *limit <= wall);
        let soonest = match (timer, limit) {
            (Some((until, _)), Some(limit)) => Some(until.min(limit)),
            (timer, limit) => timer.map(|(until, _)| until).or(limit),
        };
        if let Some((at, slot)) = arrived
            && soonest.is_none_or(|soonest| at <= soonest)
        {
            return Some(First::Message(slot));
        }
        match timer {
            Some((until, slot)) if limit.is_none_or(|limit| until <= limit) => {
                // Numbers and times of messages may disagree when senders' clocks do: a wait never
                // times out while it could have a message that came in time.
                let in_time = self.message_for(slot).is_some_and(|at| at <= until);
                Some(if in_time {
                    First::Message(slot)
                } else {
                    First::Deadline(slot)
                })
            }
            _ => limit.map(|_| First::RunTimeout),
        }
    }

    /// When the message came that this wait would get.
    fn message_for(&self, slot: Slot) -> Option<Millis> {
        match &self.ops.get(slot)?.kind {
            OpKind::Event { key } | OpKind::Approval { key, .. } => {
                Some(self.inbox.match_of(key, slot)?.at)
            }
            OpKind::Step { .. } | OpKind::Timer => None,
        }
    }

    fn offer(&mut self, slot: Slot) -> Option<Turn> {
        let key = self.ops.get(slot)?.kind.wait_key()?;
        let message = self.inbox.match_of(key, slot)?.clone();
        self.offered = Some((slot, message.seq));
        Some(Turn::Offer { slot, message })
    }

    /// The offered message is what the operation expects: it is consumed.
    pub fn accept(&mut self, wall: Millis) -> Turn {
        self.answer(None).map_or(Turn::Idle, |(slot, message)| {
            self.message_received(slot, message, wall)
        })
    }

    /// The offered message does not fit: it is set aside with the reason, and the run goes on waiting.
    pub fn refuse(&mut self, reason: String) {
        self.answer(Some(reason));
    }

    /// Takes the offered message out of the inbox. None if the offer is off: the wait has ended, or
    /// the run is not driven any more; then the message stays.
    fn answer(&mut self, refused: Option<String>) -> Option<(Slot, crate::store::Message)> {
        let (slot, seq) = self.offered.take()?;
        if self.phase != Phase::Driving {
            return None;
        }
        let key = self.ops.get(slot)?.kind.wait_key()?;
        Some((slot, self.inbox.take(key, seq, refused)?))
    }

    /// A result that a reopening took back serves the operation in `slot` without running it again.
    pub(crate) fn recall(&mut self, slot: Slot) -> bool {
        let Some(op) = self.ops.get(slot) else {
            return false;
        };
        let entry = self.history.recall(&op.id, |entry| match &op.kind {
            OpKind::Step { .. } => entry.kind == Kind::StepCompleted,
            OpKind::Approval { .. } => entry.kind == Kind::ApprovalResolved,
            // Automatic ids count requests: under new code the same id may be another event's.
            OpKind::Event { key } => {
                entry.kind == Kind::EventReceived
                    && entry
                        .meta()
                        .is_ok_and(|meta| meta.wait.is_none_or(|wait| *wait == **key))
            }
            OpKind::Timer => false,
        });
        let Some(entry) = entry else {
            return false;
        };
        match &op.kind {
            OpKind::Event { key } | OpKind::Approval { key, .. } => self.inbox.close(key, slot),
            OpKind::Step { .. } | OpKind::Timer => {
                self.ops.set_phase(slot, StepPhase::Arrived, None);
            }
        }
        self.arrived.push_back((slot, Arrived::Recalled(entry)));
        true
    }

    /// Whether an operation requested now may be served from what a reopening took back.
    pub(crate) fn recalls(&self) -> bool {
        self.history.is_empty() && self.history.has_memo()
    }

    fn record_again(&mut self, slot: Slot, entry: Entry, wall: Millis) -> Option<Turn> {
        let op = self.close_op(slot)?;
        let at = self.advance(wall);
        let payload = Some(entry.payload.clone());
        let outcome = if entry.kind == Kind::StepCompleted {
            Outcome::StepCompleted(payload)
        } else {
            Outcome::Received(payload)
        };
        let again = Entry {
            op: op.id,
            at,
            ..entry
        };
        self.ledger.append(again, Weight::Hard);
        Some(Turn::Deliver { slot, outcome, at })
    }

    /// When the run's own time is over. A run that was reopened after that gets its time again:
    /// it would fail at once otherwise, whatever was mended.
    pub(crate) fn limit(&self) -> Option<Millis> {
        let deadline = self
            .facts
            .deadline
            .filter(|_| self.timed_out_at.is_none())?;
        match (self.reopened_at, self.facts.timeout) {
            // As long again as it was given, wherever the first deadline was counted from.
            (Some(at), Some(timeout)) if at >= deadline => Some(at.saturating_add(timeout)),
            _ => Some(deadline),
        }
    }

    /// When something is due next by the clock alone.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let soonest = self.ops.earliest().map(|(deadline, _)| deadline);
        match (soonest, self.limit()) {
            (Some(deadline), Some(limit)) => Some(deadline.min(limit)),
            (deadline, limit) => deadline.or(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::Millis;
    use crate::machine::testing::{Fault, Rest, Sim, T0, job, join};
    use crate::run::Status;

    /// A message after `message` ms, a timer and the run's limit; what came first to last.
    fn order(message: Millis, timer: Millis, limit: Millis) -> Vec<String> {
        let mut sim = Sim::new(move |ctx| async move {
            let jobs = vec![job(ctx.sleep(timer)), job(ctx.event("x", None))];
            join(jobs).await;
            Ok(String::new())
        });
        sim.store.row.deadline = Some(T0 + limit);
        sim.claim();
        sim.clock = T0 + message;
        sim.event("x", "1");
        // The driver was busy elsewhere and finds all of them due.
        sim.clock = T0 + 10_000;
        sim.run();
        sim.seen
    }

    #[test]
    fn what_is_due_comes_in_the_order_of_its_time() {
        let (message, timer, limit) = ("event-1=1", "sleep-1 fired", "time-out");
        assert_eq!(order(10, 20, 30), [message, timer]);
        assert_eq!(order(20, 10, 30), [timer, message]);
        assert_eq!(order(30, 10, 20), [timer, limit]);
        assert_eq!(order(10, 30, 20), [message, limit]);
        assert_eq!(order(20, 30, 10), [limit]);
        // At the same instant: the message, then the timer, then the limit.
        assert_eq!(order(10, 10, 10), [message, timer]);
        assert_eq!(order(20, 10, 10), [timer, limit]);
        assert_eq!(order(10, 20, 10), [message, limit]);
    }

    #[test]
    fn results_that_arrived_come_before_what_is_due_and_steps_start_last() {
        let mut sim = Sim::new(|ctx| async move {
            let steps = async {
                ctx.step("a").await?;
                ctx.step("b").await
            };
            let waits = vec![job(ctx.sleep(10)), job(ctx.event("x", None))];
            let (flow, _) = (steps.await, join(waits).await);
            flow
        });
        sim.claim();
        sim.settle();
        sim.clock += 20;
        sim.event("x", "1");
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert_eq!(sim.seen, ["a=a!", "sleep-1 fired", "event-1=1"]);
        assert_eq!(sim.starts, ["a/1"]);
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_cancellation_comes_before_every_other_message_and_timer() {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![job(ctx.sleep(10)), job(ctx.event("x", None))];
            join(jobs).await;
            Err(Fault::Cancelled)
        });
        sim.claim();
        sim.event("x", "1");
        sim.clock += 50;
        sim.cancel("enough");
        assert_eq!(sim.run(), Status::Cancelled);
        assert_eq!(sim.seen, ["cancel enough"]);
        assert_eq!(sim.store.read, [(2, None)]);
    }
}
