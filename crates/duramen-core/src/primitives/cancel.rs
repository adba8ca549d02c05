//! Cancellation: a message that reaches the handler whatever it waits for.

use crate::ids::Millis;
use crate::journal::{Entry, Kind, Meta};
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;
use crate::progress::turn::Turn;

/// The oldest cancellation gets its place in the journal.
pub(crate) fn arrived(mut desk: Desk<'_>, wall: Millis) -> Option<Turn> {
    let message = desk.take_cancel()?;
    let at = desk.advance(wall);
    let meta = Meta {
        message: Some(message.message_id),
        ..Meta::default()
    };
    let reason = message.payload;
    let entry = Entry::new(Kind::CancelRequested, "".into(), reason.clone(), at);
    let index = desk.record(entry.with_meta(&meta), Weight::Hard);
    desk.cancelled(index);
    Some(Turn::Cancel { reason, at })
}

#[cfg(test)]
mod tests {
    use crate::machine::testing::{Fault, Rest, Sim, T0};
    use crate::run::Status;

    #[test]
    fn a_cancellation_that_came_first_is_delivered_before_the_first_step() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.cancel("enough");
        assert_eq!(sim.run(), Status::Cancelled);
        assert!(sim.starts.is_empty());
        assert_eq!(sim.seen, ["cancel enough"]);
        let end = sim.store.journal.last().unwrap();
        assert_eq!(end.meta().unwrap().cause, Some(1));
    }

    #[test]
    fn it_reaches_a_waiting_run_once_and_clean_up_steps_run() {
        let mut sim = Sim::new(|ctx| async move {
            let flow = ctx.event("never", None).await;
            assert_eq!(flow, Err(Fault::Cancelled));
            ctx.step("undo-1").await?;
            ctx.step("undo-2").await?;
            flow
        });
        sim.run();
        sim.cancel("enough");
        assert_eq!(sim.store.row.ready_at, Some(T0));
        sim.claim();
        sim.settle();
        sim.apply();
        // It stands in the journal: the next driver replays it and is not told again.
        sim.crash();
        assert_eq!(sim.run(), Status::Cancelled);
        assert_eq!(sim.store.read, [(1, None)]);
        assert_eq!(
            sim.store.story(),
            [
                "run_created",
                "wait_opened event-1",
                "cancel_requested",
                "step_completed undo-1",
                "step_completed undo-2",
                "run_cancelled"
            ]
        );
    }

    #[test]
    fn it_stops_a_step_in_flight_whose_result_then_counts_for_nothing() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("slow").await });
        sim.claim();
        assert_eq!(sim.settle(), Rest::Waiting);
        sim.cancel("enough");
        assert_eq!(sim.settle(), Rest::Committing);
        assert_eq!(sim.stopped, ["slow"]);
        assert_eq!(sim.run(), Status::Cancelled);
    }

    #[test]
    fn a_result_that_arrived_first_comes_first() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        sim.cancel("enough");
        sim.complete("a");
        assert_eq!(sim.run(), Status::Cancelled);
        assert_eq!(sim.seen, ["a=a!", "cancel enough"]);
        assert_eq!(sim.starts, ["a/1"]);
    }

    #[test]
    fn retrying_a_cancelled_run_takes_the_cancellation_back() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("go", None).await });
        sim.run();
        sim.cancel("enough");
        assert_eq!(sim.run(), Status::Cancelled);
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Waiting);
        sim.event("go", "1");
        assert_eq!(sim.run(), Status::Completed);
    }
}
