//! Waiting for events: messages that came early are kept in the inbox until they are asked for.

use crate::ids::{InvalidId, Millis, OpId, check_event_name};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind, Meta};
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;
use crate::progress::naming::Holder;
use crate::progress::op::OpKind;
use crate::progress::turn::{Outcome, Turn};
use crate::store::Message;

/// The handler asks for the next event of a name.
pub(crate) fn request(
    mut desk: Desk<'_>,
    name: &str,
    id: Option<&str>,
    deadline: Option<Millis>,
) -> Result<Slot, InvalidId> {
    check_event_name(name)?;
    let id = desk.id(id, "event", Holder::Event)?;
    let key = format!("event:{name}").into();
    Ok(desk.open_wait(id, OpKind::Event { key }, deadline))
}

/// The handler asks for what completes a token: an event of a name that nobody else can send, since names that
/// begin with `__` are refused to senders. The token's id is the operation's id.
pub(crate) fn request_token(
    mut desk: Desk<'_>,
    id: Option<&str>,
    deadline: Option<Millis>,
) -> Result<(Slot, OpId), InvalidId> {
    let id = desk.id(id, "token", Holder::Event)?;
    let key = format!("event:__token:{id}").into();
    let slot = desk.open_wait(id.clone(), OpKind::Event { key }, deadline);
    Ok((slot, id))
}

/// A message was accepted, an event's or an approval's: its place in the journal and its consumption
/// are one commit.
pub(crate) fn received(mut desk: Desk<'_>, slot: Slot, message: Message, wall: Millis) -> Turn {
    let Some(op) = desk.close(slot) else {
        return Turn::Idle;
    };
    let (kind, wait) = match op.kind {
        // The name of the event: so that replay can tell when the code waits for another one.
        OpKind::Event { key } => (Kind::EventReceived, Some(key.to_string())),
        // An approval's key is its operation's id.
        _ => (Kind::ApprovalResolved, None),
    };
    let at = desk.advance(wall);
    let meta = Meta {
        wait,
        message: Some(message.message_id),
        ..Meta::default()
    };
    let entry = Entry::new(kind, op.id, message.payload, at);
    desk.record(entry.with_meta(&meta), Weight::Hard);
    Turn::Deliver {
        slot,
        outcome: Outcome::Received(None),
        at,
    }
}

#[cfg(test)]
mod tests {
    use crate::machine::testing::{Fault, Rest, Sim, T0, job, join};
    use crate::machine::{Machine, Turn};
    use crate::run::Status;
    use crate::store::{MessageKind, ReadMessage};

    #[test]
    fn an_event_that_came_early_is_kept() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.event("paid", None).await
        });
        sim.event("paid", "7");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["a=a!", "event-1=7"]);
    }

    #[test]
    fn a_late_event_wakes_the_run_and_its_consumption_is_one_commit_with_its_entry() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("paid", None).await });
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.waits, ["event:paid"]);
        assert_eq!(sim.store.row.ready_at, None);
        sim.event("paid", "7");
        assert_eq!(sim.run(), Status::Completed);
        let commit = sim.store.commits.last().unwrap();
        let read = ReadMessage {
            seq: 1,
            refused: None,
            reply: None,
        };
        assert_eq!(commit.read, [read]);
        assert_eq!(
            commit.entries[0].meta.as_deref(),
            Some(r#"{"wait":"event:paid","message":"m1"}"#)
        );
    }

    #[test]
    fn whether_a_message_came_in_time_is_decided_by_its_time_not_by_the_drivers() {
        for (delay, status) in [(100, Status::Completed), (101, Status::Failed)] {
            let mut sim = Sim::new(|ctx| async move { ctx.event("paid", Some(100)).await });
            assert_eq!(sim.run(), Status::Waiting);
            assert_eq!(sim.store.row.ready_at, Some(T0 + 100));
            sim.clock += delay;
            sim.event("paid", "7");
            sim.clock += 10_000;
            assert_eq!(sim.run(), status, "after {delay} ms");
        }
    }

    #[test]
    fn a_wait_does_not_time_out_over_a_message_that_came_in_time_but_was_numbered_late() {
        let mut sim = Sim::new(|ctx| async move {
            let waits = vec![
                job(ctx.event("other", None)),
                job(ctx.event("paid", Some(100))),
            ];
            join(waits).await.into_iter().collect()
        });
        sim.claim();
        sim.clock += 5_000;
        sim.event("other", "1");
        sim.clock -= 4_950;
        sim.event("paid", "2");
        sim.clock += 5_000;
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_message_that_came_too_late_is_kept_for_the_next_wait() {
        let mut sim = Sim::new(|ctx| async move {
            assert_eq!(ctx.event("paid", Some(100)).await, Err(Fault::TimedOut));
            ctx.event("paid", None).await
        });
        sim.run();
        sim.clock += 200;
        sim.event("paid", "7");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["event-1 timed out", "event-2=7"]);
    }

    #[test]
    fn an_event_of_another_name_is_kept_and_does_not_keep_the_run_awake() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.event("paid", None).await?;
            ctx.event("shipped", None).await
        });
        sim.run();
        sim.event("shipped", "1");
        assert_eq!(sim.run(), Status::Waiting);
        assert!(sim.store.read.is_empty());
        sim.event("paid", "2");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["event-1=2", "event-2=1"]);
    }

    #[test]
    fn a_message_that_does_not_fit_is_set_aside_and_the_run_goes_on_waiting() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("paid", Some(500)).await });
        sim.event("paid", "bad");
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.read, [(1, Some("does not fit".to_owned()))]);
        assert_eq!(sim.store.row.ready_at, Some(T0 + 500));
        sim.event("paid", "7");
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn several_waits_take_messages_first_come_first_served() {
        let mut sim = Sim::new(|ctx| async move {
            let names = ["x", "x", "y"];
            let waits = names.map(|name| job(ctx.event(name, None)));
            join(waits.into()).await.into_iter().collect()
        });
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.waits, ["event:x", "event:y"]);
        sim.event("y", "1");
        sim.event("x", "2");
        sim.event("x", "3");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["event-3=1", "event-1=2", "event-2=3"]);
    }

    #[test]
    fn a_message_on_offer_stays_if_its_wait_ends_before_the_answer() {
        let mut sim = Sim::new(|ctx| async move {
            let waits = vec![job(ctx.event("x", None)), job(ctx.step("a"))];
            join(waits).await.into_iter().collect()
        });
        sim.claim();
        sim.event("x", "1");
        let turn = sim.machine(|machine| machine.turn(T0));
        let Turn::Offer { slot, .. } = turn else {
            panic!("{turn:?}")
        };
        sim.machine(|machine| machine.cancel_op(slot));
        assert_eq!(sim.machine(|machine| machine.accept(T0)), Turn::Idle);
        assert!(!sim.machine(|machine| machine.progress().inbox.has_read()));
    }

    #[test]
    fn an_answer_after_the_store_refused_a_commit_consumes_nothing() {
        let mut sim = Sim::new(|ctx| async move {
            let steps = ["a", "b"].map(|id| job(ctx.step(id)));
            let wait = job(ctx.event("x", None));
            join(steps.into_iter().chain([wait]).collect()).await;
            Ok(String::new())
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        sim.event("x", "1");
        let turn = sim.machine(|machine| machine.turn(T0));
        assert!(matches!(turn, Turn::Offer { .. }));
        sim.reject_next();
        sim.apply();
        assert_eq!(sim.machine(|machine| machine.accept(T0)), Turn::Idle);
        assert_eq!(sim.run(), Status::Stuck);
        assert_eq!(sim.store.story(), ["run_created"]);
        assert!(sim.store.read.is_empty());
    }

    #[test]
    fn a_message_that_overtakes_another_on_its_way_to_the_driver_hides_nothing() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.event("x", None).await?;
            ctx.event("y", None).await
        });
        sim.warm = true;
        sim.claim();
        let y = sim.store.deliver(MessageKind::Event, "y", "1", T0);
        let x = sim.store.deliver(MessageKind::Event, "x", "2", T0);
        sim.machine(|machine| Machine::deliver(machine, vec![x]));
        sim.settle();
        sim.machine(|machine| Machine::deliver(machine, vec![y]));
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn reserved_names_are_refused() {
        let mut sim = Sim::new(|ctx| async move {
            let refused = ctx.event("__timer", None).await;
            assert!(matches!(refused, Err(Fault::Refused(_))));
            ctx.event("x", None).await
        });
        sim.event("x", "1");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["event-1=1"]);
    }
}
