//! Updates: requests that a handler takes at any time, applies once and answers.
//!
//! A handler *takes* the updates of a name from then on (`ctx.on_update`); nothing is recorded of that. A
//! message of that name is offered to the host, which decodes and validates it. One that is refused is set
//! aside with the reason, which its sender reads. One that is accepted gets its place in the journal, and its
//! function runs as an operation of its own until it ends; its end and the answer to its sender are one commit.
//!
//! Until then the message stays unread in the store: an accepted update without an end is known by its
//! message's id in the journal, so that no later driver takes it on a second time. Replay starts its function
//! again, as it starts the handler. A run that ends before answers nobody: whoever waits sees the end.

use std::sync::Arc;

use crate::ids::{InvalidId, Millis, Payload, check_update_name};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind, Meta};
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;
use crate::progress::naming::Holder;
use crate::progress::op::OpKind;
use crate::progress::turn::{Turn, UpdateOutcome};

/// The handler takes the updates of a name from now on. Asked for again, it is the same operation.
pub(crate) fn request(mut desk: Desk<'_>, name: &str) -> Result<Slot, InvalidId> {
    check_update_name(name)?;
    let key: Arc<str> = format!("update:{name}").into();
    if let Some(slot) = desk.taker(&key) {
        return Ok(slot);
    }
    // `#` keeps it apart from every user's id.
    let id = format!("#{key}").into();
    let slot = desk.open_wait(id, OpKind::Updates { key: key.clone() }, None);
    desk.take_updates(key, slot);
    Ok(slot)
}

/// The offered message was accepted: its place in the journal comes before whatever its function does.
pub(crate) fn accepted(mut desk: Desk<'_>, taker: Slot, wall: Millis) -> Turn {
    let Some(OpKind::Updates { key }) = desk.op(taker).map(|op| &op.kind) else {
        return Turn::Idle;
    };
    let key = key.clone();
    let Some(message) = desk.take_on_offered() else {
        return Turn::Idle;
    };
    record(desk, taker, &key, message.message_id, message.payload, wall).with_live_value()
}

/// An update that a reopening took back is applied again, before any new one.
pub(crate) fn again(mut desk: Desk<'_>, wall: Millis) -> Option<Turn> {
    let (taker, entry) = desk.recall_update()?;
    let meta = entry.meta().unwrap_or_default();
    let key: Arc<str> = meta.wait.unwrap_or_default().into();
    let message = meta.message.unwrap_or_default();
    desk.take_on(&message);
    Some(record(desk, taker, &key, message, entry.payload, wall))
}

fn record(
    mut desk: Desk<'_>,
    taker: Slot,
    key: &Arc<str>,
    message: String,
    payload: Payload,
    wall: Millis,
) -> Turn {
    let id = desk.numbered("update", Holder::Unnamed);
    let at = desk.advance(wall);
    let meta = Meta {
        wait: Some(key.to_string()),
        message: Some(message.clone()),
        ..Meta::default()
    };
    let entry = Entry::new(Kind::UpdateAccepted, id.clone(), payload.clone(), at);
    desk.record(entry.with_meta(&meta), Weight::Hard);
    let slot = desk.open(id, OpKind::Update { message }, None);
    Turn::Apply {
        taker,
        slot,
        payload: Some(payload),
        at,
    }
}

impl Turn {
    /// The driver has decoded the payload itself to validate it.
    fn with_live_value(self) -> Self {
        match self {
            Self::Apply {
                taker, slot, at, ..
            } => Self::Apply {
                taker,
                slot,
                payload: None,
                at,
            },
            other => other,
        }
    }
}

/// The function of the update in `slot` has ended; it gets its place in the journal in a later turn.
pub(crate) fn done(mut desk: Desk<'_>, slot: Slot, outcome: UpdateOutcome) {
    if matches!(
        desk.op(slot).map(|op| &op.kind),
        Some(OpKind::Update { .. })
    ) {
        desk.update_ended(slot, outcome);
    }
}

/// Gives the ends of functions their place, each with the answer to its sender. One whose message has not
/// come yet (it is in a later page of a long inbox) waits for it, unless the run is `ending`.
pub(crate) fn settle(mut desk: Desk<'_>, wall: Millis, ending: bool) {
    while let Some(slot) = desk.first_ended_update() {
        let message = match desk.op(slot).map(|op| &op.kind) {
            Some(OpKind::Update { message }) => message.clone(),
            _ => String::new(),
        };
        if !ending && !desk.can_answer(&message) {
            return;
        }
        let Some((slot, outcome)) = desk.next_ended_update() else {
            return;
        };
        let Some(op) = desk.close(slot) else {
            continue;
        };
        desk.answer_update(&message, outcome.reply());
        let (payload, failed) = match outcome {
            UpdateOutcome::Succeeded(result) => (result, None),
            UpdateOutcome::Failed(error) => (error, Some(true)),
        };
        let meta = Meta {
            failed,
            ..Meta::default()
        };
        // The record tells the handler nothing, so its clock stays where it is.
        let at = desk.at(wall);
        let entry = Entry::new(Kind::UpdateFinished, op.id, payload, at);
        desk.record(entry.with_meta(&meta), Weight::Hard);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use crate::journal::{Kind, Meta};
    use crate::machine::Machine;
    use crate::machine::testing::{Ctx, Fault, Flow, Journal, Sim, T0, failed};
    use crate::run::Status;
    use crate::store::Next;

    /// Takes deposits until it is told to close, and gives what they come to.
    async fn account(ctx: Ctx) -> Flow {
        let balance = Rc::new(RefCell::new(0));
        let sum = Rc::clone(&balance);
        ctx.on_update("deposit", move |_, amount| {
            let sum = Rc::clone(&sum);
            async move {
                let Ok(amount) = amount.parse::<i32>() else {
                    return Err(Fault::Raised(format!("{amount} is no number")));
                };
                *sum.borrow_mut() += amount;
                Ok(sum.borrow().to_string())
            }
        });
        ctx.event("close", None).await?;
        let total = balance.borrow().to_string();
        Ok(total)
    }

    /// Takes orders whose function runs a step.
    async fn shop(ctx: Ctx) -> Flow {
        ctx.on_update("order", |ctx, what| async move {
            ctx.step(&format!("ship {what}")).await
        });
        ctx.event("close", None).await
    }

    #[test]
    fn an_update_wakes_a_waiting_run_and_its_end_and_answer_are_one_commit_with_its_acceptance() {
        let mut sim = Sim::new(account);
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.waits, ["event:close", "update:deposit"]);
        sim.update("deposit", "5");
        assert_eq!(sim.run(), Status::Waiting);
        let commit = sim.store.commits.last().unwrap();
        let kinds: Vec<_> = commit.entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::UpdateAccepted, Kind::UpdateFinished]);
        assert!(matches!(commit.next, Next::Waiting { .. }));
        assert_eq!(sim.store.replies, [(1, "+5".to_owned())]);
        assert_eq!(
            commit.entries[0].meta.as_deref(),
            Some(r#"{"wait":"update:deposit","message":"m1"}"#)
        );
    }

    #[test]
    fn replay_applies_what_was_accepted_in_its_place_and_answers_nobody_twice() {
        let mut sim = Sim::new(account);
        sim.run();
        for amount in ["5", "what", "7"] {
            sim.update("deposit", amount);
            assert_eq!(sim.run(), Status::Waiting);
        }
        sim.event("close", "now");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(
            &sim.store.journal.last().unwrap().payload[..],
            b"12",
            "each was applied once, in each replay anew"
        );
        let no = "-Raised(\"what is no number\")".to_owned();
        let replies = [(1, "+5".to_owned()), (2, no), (3, "+12".to_owned())];
        assert_eq!(sim.store.replies, replies);
        let finished: Vec<_> = sim
            .store
            .journal
            .iter()
            .filter(|entry| entry.kind == Kind::UpdateFinished)
            .map(|entry| (&*entry.op, entry.meta().unwrap().failed))
            .collect();
        let expected = [
            ("update-1", None),
            ("update-2", Some(true)),
            ("update-3", None),
        ];
        assert_eq!(finished, expected);
    }

    #[test]
    fn a_refused_update_is_set_aside_with_the_reason_and_leaves_no_trace() {
        let mut sim = Sim::new(account);
        sim.update("deposit", "bad");
        sim.update("deposit", "1");
        assert_eq!(sim.run(), Status::Waiting);
        let refused = (1, Some("does not fit".to_owned()));
        assert_eq!(sim.store.read, [refused, (2, None)]);
        assert_eq!(sim.store.replies, [(2, "+1".to_owned())]);
    }

    #[test]
    fn an_update_that_is_taken_by_nobody_yet_is_kept() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.event("go", None).await?;
            account(ctx).await
        });
        sim.update("deposit", "5");
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.ready_at, None, "it keeps nobody awake");
        sim.event("go", "1");
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.replies, [(1, "+5".to_owned())]);
    }

    #[test]
    fn an_accepted_update_is_gone_on_with_after_a_crash_and_not_taken_on_again() {
        let mut sim = Sim::new(shop);
        sim.run();
        sim.update("order", "a");
        sim.claim();
        sim.settle();
        // Accepted, and durable before its step starts.
        sim.apply();
        sim.settle();
        assert_eq!(sim.starts, ["ship a/1"]);
        assert!(sim.store.read.is_empty());
        for _ in 0..2 {
            sim.crash();
            sim.claim();
            sim.settle();
        }
        assert_eq!(sim.starts, ["ship a/1"; 3]);
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.replies, [(1, "+ship a!".to_owned())]);
        assert_eq!(
            sim.store.story()[2..],
            [
                "update_accepted update-1",
                "step_completed ship a",
                "update_finished update-1"
            ]
        );
        // And a claim after that finds nothing to do.
        sim.event("unrelated", "1");
        sim.store.row.ready_at = Some(sim.clock);
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.replies.len(), 1);
    }

    #[test]
    fn a_run_with_an_update_that_waits_itself_is_released_and_not_due() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.on_update("ask", |ctx, _| async move { ctx.event("told", None).await });
            ctx.event("close", None).await
        });
        sim.update("ask", "1");
        for _ in 0..3 {
            assert_eq!(sim.run(), Status::Waiting);
            assert_eq!(sim.store.row.ready_at, None);
            sim.store.row.ready_at = Some(sim.clock);
        }
        assert_eq!(
            sim.store
                .story()
                .iter()
                .filter(|entry| entry.starts_with("update"))
                .count(),
            1
        );
        sim.event("told", "42");
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.replies, [(1, "+42".to_owned())]);
    }

    #[test]
    fn a_handler_that_waits_for_nothing_but_updates_is_no_deadlock() {
        let mut sim = Sim::new(|ctx| async move {
            let closed = Rc::new(RefCell::new(false));
            let told = Rc::clone(&closed);
            ctx.on_update("close", move |_, _| {
                let told = Rc::clone(&told);
                async move {
                    *told.borrow_mut() = true;
                    Ok("closed".into())
                }
            });
            std::future::poll_fn(|_| {
                if *closed.borrow() {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
            Ok("done".into())
        });
        assert_eq!(sim.run(), Status::Waiting);
        sim.update("close", "1");
        assert_eq!(sim.run(), Status::Completed);
        // The end of the run does not come before the update's.
        assert_eq!(
            sim.store.story(),
            [
                "run_created",
                "update_accepted update-1",
                "update_finished update-1",
                "run_finished"
            ]
        );
        assert_eq!(sim.store.replies, [(1, "+closed".to_owned())]);
        assert_eq!(sim.store.commits.len(), 2);
        let mut again = Sim::replaying(Journal::new("", T0), |_| async { Ok(String::new()) });
        again.store.journal = sim.store.journal;
        again.store.row.journal_len = 4;
        again.deploy(|ctx| async move {
            ctx.on_update("close", |_, _| async { Ok("closed".into()) });
            // Ends in the same drain as the update.
            let mut polls = 0;
            std::future::poll_fn(move |_| {
                polls += 1;
                if polls > 1 {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
            Ok("done".into())
        });
        again.claim();
        again.settle();
        assert!(again.machine(|machine| machine.divergence().is_none()));
    }

    #[test]
    fn an_update_that_a_reopening_took_back_is_applied_again_and_answered_once() {
        let mut sim = Sim::new(|ctx| async move {
            let balance = Rc::new(RefCell::new(0));
            let sum = Rc::clone(&balance);
            ctx.on_update("deposit", move |ctx, amount| {
                let sum = Rc::clone(&sum);
                async move {
                    ctx.step(&format!("book {amount}")).await?;
                    *sum.borrow_mut() += amount.parse::<i32>().unwrap();
                    Ok(sum.borrow().to_string())
                }
            });
            let flow = ctx.step("bad").await;
            ctx.event("close", None).await?;
            flow?;
            let total = balance.borrow().to_string();
            Ok(total)
        })
        .rule(|op, _| {
            if op == "bad" {
                failed("boom")
            } else {
                crate::machine::testing::succeeded("1")
            }
        });
        assert_eq!(sim.run(), Status::Waiting);
        sim.update("deposit", "5");
        sim.run();
        sim.update("deposit", "7");
        sim.run();
        sim.event("close", "now");
        assert_eq!(sim.run(), Status::Failed);
        let replies = sim.store.replies.clone();
        assert_eq!(replies[0], (1, "+5".to_owned()));
        sim = sim.rule(|_, _| crate::machine::testing::succeeded("1"));
        sim.store.retry(sim.clock);
        sim.starts.clear();
        assert_eq!(sim.run(), Status::Completed, "{:?}", sim.store.row.note);
        assert_eq!(&sim.store.journal.last().unwrap().payload[..], b"12");
        assert!(
            !sim.starts.contains(&"book 5/1".to_owned()),
            "it was booked before"
        );
        let of_first = sim.store.replies.iter().filter(|(seq, _)| *seq == 1);
        assert_eq!(of_first.count(), 1);
        // What went on after the reopening replays.
        assert!(sim.store.story().contains(&"run_reopened".to_owned()));
    }

    #[test]
    fn an_update_that_the_code_takes_no_longer_parks_the_run() {
        let meta = Meta {
            wait: Some("update:deposit".into()),
            message: Some("m1".into()),
            ..Meta::default()
        };
        let journal = || Journal::new("", T0).with(Kind::UpdateAccepted, "update-1", "5", &meta);
        let note = |program: fn(Ctx) -> crate::machine::testing::Job| {
            let mut sim = Sim::replaying(journal(), program);
            assert_eq!(sim.run(), Status::Stuck);
            sim.store.row.note.unwrap()
        };
        let nothing = note(|ctx| Box::pin(async move { ctx.event("close", None).await }));
        assert!(
            nothing.contains("update_accepted of \"update-1\" by \"update:deposit\", found a handler that takes no updates"),
            "{nothing}"
        );
        let other = note(|ctx| Box::pin(shop(ctx)));
        assert!(
            other.contains("found a handler that takes no such update; it takes update:order"),
            "{other}"
        );
        let journal = journal().entry(Kind::UpdateFinished, "update-1", "5");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            ctx.on_update("deposit", |ctx, _| async move { ctx.step("new").await });
            ctx.event("close", None).await
        });
        assert_eq!(sim.run(), Status::Stuck);
        let note = sim.store.row.note.unwrap();
        assert!(
            note.contains("found an update whose function goes on"),
            "{note}"
        );
    }

    #[test]
    fn names_with_two_underscores_are_refused_and_the_same_name_is_one_operation() {
        let mut sim = Sim::new(account);
        sim.claim();
        let refused = sim.machine(|machine: &mut Machine| machine.request_updates("__x"));
        assert!(refused.is_err());
        let one = sim.machine(|machine| machine.request_updates("deposit"));
        assert_eq!(
            one,
            sim.machine(|machine| machine.request_updates("deposit"))
        );
    }
}
