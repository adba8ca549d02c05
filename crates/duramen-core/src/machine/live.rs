//! Live turns: each outcome that came in gets its place in the journal at the moment it is delivered.

use super::seal;
use crate::family::{End, Ended};
use crate::ids::Millis;
use crate::inbox::Slot;
use crate::journal::{Entry, Kind};
use crate::primitives::{cancel, child, poll, step, timer, update};
use crate::progress::arrivals::Arrived;
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;
use crate::progress::op::OpKind;
use crate::progress::state::Progress;
use crate::progress::turn::{Outcome, StepOutcome, Turn};

/// Which of the things that are due comes first.
enum First {
    Cancel,
    Message(Slot),
    Deadline(Slot),
    RunTimeout,
}

/// The next of what came in.
pub(super) fn arrived(run: &mut Progress, wall: Millis) -> Option<Turn> {
    go_live(run, wall);
    update::settle(Desk::of(run), wall, false);
    if let Some(turn) = update::again(Desk::of(run), wall) {
        return Some(turn);
    }
    while let Some((slot, arrived)) = run.arrivals.next() {
        let turn = match arrived {
            Arrived::Step(StepOutcome::NotYet) => poll::not_yet(Desk::of(run), slot, wall),
            Arrived::Step(outcome) => step::ended(Desk::of(run), slot, outcome, wall),
            Arrived::Recalled(entry) => record_again(run, slot, entry, wall),
            Arrived::Durable { at } => seal::delivered(run, slot, at),
        };
        if turn.is_some() {
            return turn;
        }
    }
    None
}

/// The last recorded entry was gone through: what is open now and has a result that a
/// reopening took back is served by it. Before, nobody could know whether the journal has it
/// again.
fn go_live(run: &mut Progress, wall: Millis) {
    if !run.history.end() {
        return;
    }
    if run.history.has_memo() {
        for slot in run.ops.slots() {
            run.recall(slot);
        }
    }
    run.go_on_looking(wall);
}

fn record_again(run: &mut Progress, slot: Slot, entry: Entry, wall: Millis) -> Option<Turn> {
    let op = run.close(slot)?;
    let at = run.clock.advance(wall);
    let payload = entry.payload.clone();
    let outcome = match entry.kind {
        Kind::StepCompleted => Outcome::StepCompleted(Some(payload)),
        Kind::ChildFinished => Outcome::ChildEnded(End {
            ended: Ended::Completed,
            payload,
        }),
        _ => Outcome::Received(Some(payload)),
    };
    let again = Entry {
        op: op.id,
        at,
        ..entry
    };
    run.ledger.append(again, Weight::Hard);
    Some(Turn::Deliver { slot, outcome, at })
}

/// The earliest of what is due: a message counts from its arrival, a timer from its deadline.
pub(super) fn due(run: &mut Progress, wall: Millis) -> Option<Turn> {
    loop {
        match first_due(run, wall)? {
            First::Cancel => return cancel::arrived(Desk::of(run), wall),
            First::RunTimeout => return Some(timer::run_timed_out(Desk::of(run), wall)),
            First::Message(slot) if is_child(run, slot) => {
                if let Some(turn) = child::ended(Desk::of(run), slot, wall) {
                    return Some(turn);
                }
            }
            First::Message(slot) => {
                let key = run.ops.get(slot)?.kind.wait_key()?;
                let message = run.inbox.offer(key, slot)?;
                return Some(Turn::Offer { slot, message });
            }
            First::Deadline(slot) => {
                if let Some(turn) = timer::deadline_passed(Desk::of(run), slot, wall) {
                    return Some(turn);
                }
            }
        }
    }
}

fn first_due(run: &Progress, wall: Millis) -> Option<First> {
    let arrived = match run.inbox.next_match() {
        Some(matched) => match matched.slot {
            None => return Some(First::Cancel),
            Some(slot) => Some((matched.message.at, slot)),
        },
        None => None,
    };
    let timer = run.ops.earliest().filter(|(until, _)| *until <= wall);
    let limit = run.limit().filter(|limit| *limit <= wall);
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
            let in_time = message_for(run, slot).is_some_and(|at| at <= until);
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
fn message_for(run: &Progress, slot: Slot) -> Option<Millis> {
    match &run.ops.get(slot)?.kind {
        // Updates are taken at any time, whatever the deadlines.
        OpKind::Updates { .. } => None,
        kind => Some(run.inbox.match_of(kind.message_key()?, slot)?.at),
    }
}

fn is_child(run: &Progress, slot: Slot) -> bool {
    let op = run.ops.get(slot);
    op.is_some_and(|op| matches!(op.kind, OpKind::Child { .. }))
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
