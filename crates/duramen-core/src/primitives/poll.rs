//! Polls: a step that is repeated until its function finds what it looks for.
//!
//! Of a look that finds nothing, nothing is recorded: when the next one is due follows from when the poll was asked
//! for ([`Looks`]). So the journal has one entry of a poll, however often it looks, and one for each attempt that
//! failed. A run that waits for the next look holds no worker. Who takes it up again looks, unless something was
//! recorded since the last point of the grid: then the look there was made by whoever recorded it, or is made
//! up for by the next.

use crate::ids::{InvalidId, Millis, Payload};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind};
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;
use crate::progress::looks::{Looks, PollRule};
use crate::progress::op::{Checkpoint, OpKind};
use crate::progress::turn::{Outcome, Requested, Turn};
use crate::retry::RetryPolicy;

use super::step;

/// The handler asks for a poll; see [`Machine::request_poll`].
///
/// [`Machine::request_poll`]: crate::machine::Machine::request_poll
pub(crate) fn request(
    desk: Desk<'_>,
    id: &str,
    retry: RetryPolicy,
    rule: PollRule,
    alone: bool,
) -> Result<Requested, InvalidId> {
    let looks = Looks::new(rule, desk.now());
    step::begin(desk, id, retry, Checkpoint::Durable, Some(looks), alone)
}

/// A look has found nothing: the next one is due later, or the time is over.
pub(crate) fn not_yet(mut desk: Desk<'_>, slot: Slot, wall: Millis) -> Option<Turn> {
    let OpKind::Step {
        looks: Some(looks), ..
    } = desk.op(slot)?.kind
    else {
        return None;
    };
    let at = desk.at(wall);
    if looks.end().is_some_and(|end| end <= at) {
        let op = desk.close(slot)?;
        let at = desk.advance(wall);
        desk.record(
            Entry::new(Kind::TimerFired, op.id, Payload::new(), at),
            Weight::Hard,
        );
        let outcome = Outcome::TimedOut;
        return Some(Turn::Deliver { slot, outcome, at });
    }
    if let OpKind::Step { failed, .. } = &mut desk.op_mut(slot)?.kind {
        // Its rule is about one look.
        *failed = 0;
    }
    desk.back_off(slot, looks.next(at));
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::machine::testing::program::RETRY;
    use crate::machine::testing::{
        Ctx, Fault, Flow, Sim, T0, failed, job, join, succeeded, within,
    };
    use crate::primitives::step::StepOutcome;
    use crate::run::Status;
    use crate::store::Next;

    const RULE: PollRule = PollRule {
        every: 100,
        growth: 1_000,
        cap: 100,
        timeout: None,
    };

    async fn polling(ctx: Ctx, rule: PollRule) -> Flow {
        match ctx.poll("ready", RetryPolicy::NEVER, rule).await {
            Err(Fault::TimedOut) => Ok("too late".into()),
            other => other,
        }
    }

    /// Finds nothing so many times.
    fn after(many: u32) -> impl Fn(&str, u32) -> StepOutcome {
        let looks = Cell::new(0);
        move |_, _| {
            looks.set(looks.get() + 1);
            if looks.get() > many {
                succeeded("found")
            } else {
                StepOutcome::NotYet
            }
        }
    }

    #[test]
    fn a_thousand_looks_are_one_entry_and_none_holds_a_worker() {
        for warm in [false, true] {
            let mut sim = Sim::new(|ctx| polling(ctx, RULE)).rule(after(1_000));
            sim.warm = warm;
            assert_eq!(sim.run(), Status::Waiting);
            assert_eq!(sim.store.row.waits, ["poll:ready"]);
            assert_eq!(sim.store.row.ready_at, Some(T0 + 100));
            assert_eq!(sim.run_through(), Status::Completed);
            assert_eq!(sim.starts.len(), 1_001);
            assert_eq!(sim.clock, T0 + 100_000);
            assert_eq!(
                sim.store.story(),
                ["run_created", "step_completed ready", "run_finished"]
            );
            assert!(sim.store.commits.iter().all(|commit| {
                matches!(commit.next, Next::Finished { .. }) || commit.entries.is_empty()
            }));
        }
    }

    #[test]
    fn it_looks_one_last_time_when_its_time_is_over() {
        for (warm, hits) in [(false, true), (true, true), (false, false), (true, false)] {
            let rule = PollRule {
                timeout: Some(250),
                ..RULE
            };
            let looks = if hits { 3 } else { 4 };
            let mut sim = Sim::new(move |ctx| polling(ctx, rule)).rule(after(looks));
            sim.warm = warm;
            assert_eq!(sim.run_through(), Status::Completed);
            assert_eq!(sim.starts.len(), 4);
            assert_eq!(sim.clock, T0 + 250);
            let end = &sim.store.journal.last().unwrap().payload;
            assert_eq!(&end[..], if hits { &b"found"[..] } else { b"too late" });
        }
    }

    #[test]
    fn what_it_found_and_that_it_gave_up_are_replayed() {
        for hits in [true, false] {
            let rule = PollRule {
                timeout: Some(50),
                ..RULE
            };
            let mut sim = Sim::new(move |ctx| async move {
                let found = polling(ctx.clone(), rule).await?;
                ctx.event("go", None).await?;
                Ok(found)
            })
            .rule(after(if hits { 1 } else { 9 }));
            assert_eq!(sim.run_through(), Status::Waiting);
            sim.starts.clear();
            sim.event("go", "1");
            assert_eq!(sim.run_through(), Status::Completed);
            assert!(sim.starts.is_empty());
        }
    }

    #[test]
    fn other_wake_ups_do_not_make_it_look_more_often_than_its_grid() {
        for warm in [false, true] {
            let mut sim = Sim::new(|ctx| async move {
                let events = async |ctx: &Ctx| {
                    for _ in 0..20 {
                        ctx.event("go", None).await?;
                    }
                    Ok(String::new())
                };
                let jobs = vec![
                    job(polling(ctx.clone(), RULE)),
                    job(async move { events(&ctx).await }),
                ];
                join(jobs).await.into_iter().collect()
            })
            .rule(after(9));
            sim.warm = warm;
            sim.run();
            for n in 0..20 {
                sim.clock = T0 + 5 + 10 * n;
                sim.event("go", "1");
                assert_eq!(sim.run(), Status::Waiting, "{n}");
            }
            // T0 and T0 + 100, the first one perhaps once more: nothing had been recorded by then.
            let most = if warm { 2 } else { 3 };
            assert!((2..=most).contains(&sim.starts.len()), "{:?}", sim.starts);
        }
    }

    #[test]
    fn a_look_that_a_crash_has_swallowed_is_made_again() {
        let mut sim = Sim::new(|ctx| polling(ctx, RULE)).rule(after(3));
        sim.run();
        sim.clock = T0 + 100;
        sim.claim();
        sim.settle();
        assert_eq!(sim.starts.len(), 2);
        sim.crash();
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.starts.len(), 3);
    }

    #[test]
    fn what_a_look_raises_follows_the_retry_rule_of_that_look() {
        let many = Rc::new(Cell::new(0));
        let seen = many.clone();
        let mut sim = Sim::new(|ctx| async move { ctx.poll("ready", RETRY, RULE).await }).rule(
            // Each look fails twice and finds nothing the third time.
            move |_, _| {
                seen.set(seen.get() + 1);
                match seen.get() {
                    n if n > 15 => succeeded("found"),
                    n if n % 3 == 0 => StepOutcome::NotYet,
                    _ => failed("boom"),
                }
            },
        );
        assert_eq!(sim.run_through(), Status::Completed);
        let failures = sim.store.story();
        let failures = failures
            .iter()
            .filter(|entry| *entry == "step_attempt_failed ready");
        assert_eq!(failures.count(), 10);
        let mut sim = Sim::new(|ctx| async move { ctx.poll("ready", RETRY, RULE).await })
            .rule(|_, _| failed("boom"));
        assert_eq!(sim.run_through(), Status::Failed);
        assert_eq!(sim.starts, ["ready/1", "ready/2", "ready/3"]);
    }

    #[test]
    fn a_poll_that_the_handler_gives_up_leaves_nothing_behind() {
        let mut sim = Sim::new(|ctx| async move {
            let looks = ctx.poll("ready", RetryPolicy::NEVER, RULE);
            let found = within(&ctx, 250, job(looks)).await;
            assert!(found.is_err());
            ctx.step("next").await
        })
        .rule(|op, _| {
            if op == "next" {
                succeeded("done")
            } else {
                StepOutcome::NotYet
            }
        });
        assert_eq!(sim.run_through(), Status::Completed);
    }
}
