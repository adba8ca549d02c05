//! Durable timers: `sleep`, `sleep_until`, every timer of the handler's own loop, and the run's time-out.

use crate::ids::{Millis, OpId, Payload};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind};
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;
use crate::progress::naming::Holder;
use crate::progress::op::{OpKind, StepPhase};
use crate::progress::turn::{Outcome, Turn};

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

/// The handler asks to be woken at an instant of the logical clock.
pub(crate) fn request(mut desk: Desk<'_>, stem: TimerStem, deadline: Millis) -> Slot {
    let stem = match stem {
        TimerStem::Sleep => "sleep",
        TimerStem::Timer => "timer",
    };
    let id = desk.numbered(stem, Holder::Unnamed);
    desk.open(id, OpKind::Timer, Some(deadline))
}

/// The deadline of an operation has passed: a timer fires, a wait times out, a pause between
/// attempts is over.
pub(crate) fn deadline_passed(mut desk: Desk<'_>, slot: Slot, wall: Millis) -> Option<Turn> {
    let outcome = match &desk.op(slot)?.kind {
        OpKind::Step {
            phase: StepPhase::Backoff,
            ..
        } => {
            desk.backed_off(slot);
            return None;
        }
        OpKind::Step { .. }
        | OpKind::Child { .. }
        | OpKind::Updates { .. }
        | OpKind::Update { .. } => return None,
        OpKind::Timer => Outcome::Fired,
        OpKind::Event { .. } | OpKind::Approval { .. } => Outcome::TimedOut,
    };
    let op = desk.close(slot)?;
    let (_, at) = fired(&mut desk, op.id, wall);
    Some(Turn::Deliver { slot, outcome, at })
}

/// The run's own time is over.
pub(crate) fn run_timed_out(mut desk: Desk<'_>, wall: Millis) -> Turn {
    let (index, at) = fired(&mut desk, RUN_TIMEOUT_OP.into(), wall);
    desk.timed_out(index);
    Turn::TimeOut { at }
}

fn fired(desk: &mut Desk<'_>, id: OpId, wall: Millis) -> (u64, Millis) {
    let at = desk.advance(wall);
    let entry = Entry::new(Kind::TimerFired, id, Payload::new(), at);
    (desk.record(entry, Weight::Hard), at)
}

#[cfg(test)]
mod tests {
    use crate::journal::Kind;
    use crate::machine::testing::{Fault, Rest, Sim, T0, job, join};
    use crate::run::Status;

    #[test]
    fn the_deadline_is_fixed_when_it_is_first_reached() {
        let mut sim = Sim::new(|ctx| async move { ctx.sleep(1_000).await });
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.ready_at, Some(T0 + 1_000));
        sim.deploy(|ctx| async move { ctx.sleep(9_000).await });
        sim.clock += 1_000;
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_crash_does_not_restart_a_sleep() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.sleep(1_000).await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.apply();
        // The pause was never written; another driver comes much later.
        sim.crash();
        sim.clock += 700;
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.ready_at, Some(T0 + 1_000));
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines() {
        let mut sim = Sim::new(|ctx| async move {
            let sleeps = vec![job(ctx.sleep(30)), job(ctx.sleep(10)), job(ctx.sleep(10))];
            join(sleeps).await.into_iter().collect()
        });
        sim.claim();
        sim.clock += 40;
        sim.run();
        assert_eq!(
            sim.seen,
            ["sleep-2 fired", "sleep-3 fired", "sleep-1 fired"]
        );
    }

    #[test]
    fn a_deadline_so_near_that_the_lease_is_kept_writes_nothing() {
        let mut sim = Sim::new(|ctx| async move { ctx.sleep(20).await });
        sim.hold = 50;
        sim.claim();
        assert_eq!(sim.settle(), Rest::Hold(T0 + 20));
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(
            sim.store.story(),
            ["run_created", "timer_fired sleep-1", "run_finished"]
        );
    }

    #[test]
    fn a_deadline_that_the_logical_clock_has_passed_fires_whatever_the_host_says() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.sleep(0).await
        });
        sim.claim();
        sim.settle();
        sim.clock += 5_000;
        sim.complete("a");
        assert!(sim.turn());
        sim.clock -= 4_000;
        assert_eq!(sim.settle(), Rest::Committing);
        assert_eq!(sim.seen, ["a=a!", "sleep-1 fired"]);
    }

    #[test]
    fn the_runs_own_time_out_cancels_the_handler_once() {
        let mut sim = Sim::new(|ctx| async move {
            let flow = ctx.event("never", None).await;
            assert_eq!(flow, Err(Fault::Cancelled));
            ctx.step("cleanup").await?;
            flow
        });
        sim.store.row.deadline = Some(T0 + 500);
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.ready_at, Some(T0 + 500));
        assert_eq!(sim.run_through(), Status::Failed);
        assert_eq!(sim.seen, ["time-out", "cleanup=cleanup!"]);
        let end = sim.store.journal.last().unwrap();
        assert_eq!(end.meta().unwrap().cause, Some(2), "the time-out ended it");
    }

    #[test]
    fn a_run_that_is_retried_after_its_time_out_gets_its_time_again() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("go", None).await });
        // Its start was put off: the deadline is further from its creation than the time it has.
        sim.store.row.created_at = T0 - 9_000;
        sim.store.row.timeout = Some(500);
        sim.store.row.deadline = Some(T0 + 500);
        assert_eq!(sim.run_through(), Status::Failed);
        sim.clock += 10_000;
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.ready_at, Some(sim.clock + 500));
        sim.event("go", "1");
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn the_clock_of_the_handler_is_that_of_the_last_delivered_entry() {
        let mut sim = Sim::new(|ctx| async move {
            let before = ctx.now();
            ctx.step("a").await?;
            Ok(format!("{}", ctx.now() - before))
        });
        sim.claim();
        sim.settle();
        sim.clock += 70;
        sim.run();
        let end = sim.store.journal.last().unwrap();
        assert_eq!(
            (end.kind, &end.payload[..]),
            (Kind::RunFinished, &b"70"[..])
        );
    }
}
