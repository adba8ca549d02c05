//! Answers that are lost: what was asked for may have taken place, and nobody waits for a lease to find out.

use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_core::store::{Created, Delivery, Intervened, Intervention, NewRun};
use duramen_engine::{Driven, Reply};

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::{Lab, new_run, now};

const LEASE: Millis = 3_000;
/// As long as an answer that is lost may cost, and far less than a lease.
const SOON: Millis = 200;

fn lose(host: &Host, method: &'static str, at: usize) {
    host.store.set(move |call| match call.method {
        name if name == method && call.number == at => Fault::Lose(unavailable()),
        _ => Fault::None,
    });
}

fn reply(lab: &Lab, host: &mut Host, token: u64, limit: Millis) -> Reply {
    lab.until(limit, &mut [&mut *host], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    host.replies.remove(&token).unwrap().unwrap()
}

#[test]
fn a_commit_that_took_place_unanswered_is_known_for_what_it_did() {
    // Saves, a pause with an entry, and the end.
    for at in 0..5 {
        for lab in Lab::all() {
            let mut a = lab.process("a");
            a.program(|ctx| async move {
                ctx.step("one").await?;
                ctx.step("two").await?;
                ctx.sleep(100).await?;
                ctx.step("three").await?;
                ctx.step("four").await
            });
            lose(&a, "commit", at);
            a.start("r");
            let limit = if lab.sim.is_some() { 100 + SOON } else { 2_500 };
            lab.until(limit, &mut [&mut a], |hosts| {
                lab.is_final("r") && hosts[0].how("r").len() == 2
            });
            assert_eq!(a.how("r"), [Driven::Paused, Driven::Completed]);
            assert_eq!(a.engine.pipeline().refused(), 0);
            let journal = now(lab.store.load("r".into(), 0, 100));
            assert_eq!(journal.len(), 8);
            for op in ["one", "two", "three", "four"] {
                assert_eq!(lab.facts.times("r", op), 1);
            }
            lab.check();
        }
    }
}

#[test]
fn of_a_batch_whose_answer_was_lost_each_run_goes_on_at_the_cost_of_one_look() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        ctx.step("slow").await?;
        ctx.step("after").await
    });
    for n in 0..30 {
        a.start(&format!("r{n}"));
    }
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 30);
    // Of these one is terminated while the answer is on its way.
    lose(&a, "commit", 0);
    a.complete_all();
    lab.pass(10, &mut [&mut a]);
    let entry = duramen_core::journal::Entry::new(
        duramen_core::journal::Kind::RunTerminated,
        "".into(),
        "stop".into(),
        lab.env.now(),
    );
    let run_id = "r7".into();
    now(lab.store.intervene(vec![Intervention::Terminate {
        run_id,
        entry,
        outgoing: Vec::new(),
    }]));
    lab.until(SOON, &mut [&mut a], |hosts| hosts[0].ended.len() == 30);
    for n in 0..30 {
        let driven = if n == 7 {
            Driven::Lost
        } else {
            Driven::Completed
        };
        assert_eq!(a.how(&format!("r{n}")), [driven]);
    }
    // And another of who follows the one that was lost.
    assert!(a.store.calls_of("standing") <= 2);
    assert_eq!(a.engine.pipeline().refused(), 1);
    lab.check();
}

#[test]
fn a_commit_of_which_only_the_look_is_refused_too_is_looked_at_again() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        ctx.step("one").await?;
        ctx.step("two").await
    });
    a.store.set(|call| match (call.method, call.number) {
        ("commit", 0) => Fault::Lose(unavailable()),
        ("standing", ..3) => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    a.start("r");
    lab.until(LEASE / 2, &mut [&mut a], |_| lab.is_final("r"));
    assert_eq!(a.how("r"), [Driven::Completed]);
    lab.check();
}

#[test]
fn a_start_whose_answer_was_lost_is_this_start_and_drives() {
    for lost in 1..4 {
        for lab in Lab::all() {
            let mut a = lab.process("a");
            a.program(|ctx| async move { ctx.step("one").await });
            a.store.set(move |call| match (call.method, call.number) {
                ("create", number) if number < lost => Fault::Lose(unavailable()),
                _ => Fault::None,
            });
            let token = a.start("r");
            match reply(&lab, &mut a, token, 2_500) {
                Reply::Started { new, ticket, .. } => {
                    assert!(new && ticket.is_some(), "{new}, {ticket:?}");
                }
                other => panic!("{other:?}"),
            }
            lab.until(SOON, &mut [&mut a], |_| lab.is_final("r"));
            assert_eq!((a.how("r"), a.driven), (vec![Driven::Completed], 1));
        }
    }
}

#[test]
fn a_creation_whose_answer_was_lost_is_answered_as_one() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    lab.enqueue(&["old"]);
    lose(&a, "create", 0);
    let token = a.token();
    let fresh = NewRun {
        seed: [9; 16],
        ..new_run("fresh")
    };
    let old = NewRun {
        seed: [9; 16],
        ..new_run("old")
    };
    a.engine.create(token, vec![fresh, old]);
    match reply(&lab, &mut a, token, SOON) {
        Reply::Created(created) => {
            assert!(created[0].is_new());
            assert!(matches!(created[1], Created::Exists { .. }));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_is_out_for_longer_than_moments_is_an_error_to_who_starts() {
    let lab = Lab::clocks(1);
    let mut a = lab.process("a");
    lab.register(&mut a);
    a.store.set(|call| match call.method {
        "create" => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    let (start, create) = (a.start("r"), a.token());
    a.engine.create(create, vec![new_run("s")]);
    lab.until(2 * LEASE, &mut [&mut a], |hosts| {
        hosts[0].replies.len() == 3
    });
    for token in [start, create] {
        assert_eq!(a.replies[&token].as_ref().unwrap_err(), &unavailable());
    }
    assert!(a.store.calls_of("create") < 30);
}

#[test]
fn an_id_that_exists_is_gone_on_with_by_who_starts_it_again() {
    for (queued, pauses) in [(true, false), (false, false), (false, true)] {
        let lab = Lab::sim(1);
        let program = |host: &mut Host| {
            host.program(move |ctx| async move {
                if pauses {
                    ctx.sleep(2 * LEASE).await?;
                }
                ctx.step("one").await
            });
        };
        if queued {
            lab.enqueue(&["r"]);
        } else {
            // Its process has crashed in a step, or while it slept.
            let mut dead = lab.process("dead");
            dead.program(move |ctx| async move {
                if pauses {
                    ctx.sleep(2 * LEASE).await?;
                }
                ctx.step("slow").await
            });
            dead.start("r");
            lab.pass(100, &mut [&mut dead]);
            dead.store.die();
        }
        let mut a = lab.process("a");
        program(&mut a);
        let token = a.start("r");
        match reply(&lab, &mut a, token, 10) {
            Reply::Started { new, .. } => assert!(!new),
            other => panic!("{other:?}"),
        }
        // When its owner's lease has ended, or its sleep.
        let limit = if queued { 10 } else { 2 * LEASE + 600 };
        lab.until(limit, &mut [&mut a], |_| {
            lab.status("r") == Some(Status::Running) || lab.is_final("r")
        });
        lab.until(limit, &mut [&mut a], |hosts| {
            hosts[0].is_in_flight("slow") || lab.is_final("r")
        });
    }
}

#[test]
fn a_run_that_this_process_holds_without_knowing_is_driven_when_someone_starts_it() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move { ctx.step("one").await });
    lab.register(&mut a);
    lab.enqueue(&["r"]);
    let at = a.store.calls_of("claim");
    lose(&a, "claim", at);
    let token = a.token();
    a.engine.take(token, "r".into(), None);
    lab.until(10, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    assert_eq!(lab.status("r"), Some(Status::Running));
    a.start("r");
    lab.until(SOON, &mut [&mut a], |_| lab.is_final("r"));
    assert_eq!(a.driven, 1);
}

#[test]
fn a_message_whose_answer_was_lost_wakes_its_run_all_the_same() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move { ctx.event("x", None).await });
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].ended.len() == 1);
    lose(&a, "deliver", 0);
    let message = lab.message("r", "x", "1");
    let token = a.send(message);
    match reply(&lab, &mut a, token, SOON) {
        Reply::Delivered(delivered) => assert_eq!(delivered[0].result, Delivery::Duplicate),
        other => panic!("{other:?}"),
    }
    lab.until(10, &mut [&mut a], |_| lab.is_final("r"));
}

#[test]
fn one_that_is_held_by_others_among_fifty_holds_up_none_of_the_others() {
    let lab = Lab::clocks(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move { ctx.event("x", None).await });
    let ids: Vec<String> = (0..50).map(|n| format!("r{n:02}")).collect();
    a.engine.work(100, 20, 1_000);
    *a.store.held.lock().unwrap() = Some("r07".into());
    let token = a.token();
    let runs = ids.iter().map(|run_id| new_run(run_id)).collect();
    a.engine.create(token, runs);
    lab.until(100, &mut [&mut a], |hosts| hosts[0].ended.len() == 49);
    assert!(!a.replies.contains_key(&token));
    *a.store.held.lock().unwrap() = None;
    match reply(&lab, &mut a, token, LEASE) {
        Reply::Created(created) => assert!(created.iter().all(Created::is_new)),
        other => panic!("{other:?}"),
    }
    lab.until(2_000, &mut [&mut a], |hosts| hosts[0].ended.len() == 50);

    *a.store.held.lock().unwrap() = Some("r08".into());
    let messages = ids.iter().map(|run_id| lab.message(run_id, "x", "1"));
    let token = a.token();
    a.engine.deliver(token, messages.collect());
    lab.until(100, &mut [&mut a], |hosts| hosts[0].ended.len() == 99);
    let calls = a.store.calls_of("deliver");
    match reply(&lab, &mut a, token, 2 * LEASE) {
        Reply::Delivered(delivered) => {
            for (run_id, delivered) in ids.iter().zip(delivered) {
                let blocked = delivered.result == Delivery::Blocked;
                assert_eq!(blocked, run_id == "r08");
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(a.store.calls_of("deliver") - calls < 15);
    let token = a.token();
    let delete = |run_id: &String| Intervention::Delete {
        run_id: run_id.as_str().into(),
        force: true,
    };
    a.engine.intervene(token, ids.iter().map(delete).collect());
    match reply(&lab, &mut a, token, 2 * LEASE) {
        Reply::Intervened(done) => {
            let blocked = |done: &&Intervened| **done == Intervened::Blocked;
            assert_eq!(done.iter().filter(blocked).count(), 1);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_id_that_others_are_about_to_create_is_waited_for() {
    for ends in [true, false] {
        let lab = Lab::clocks(1);
        let mut a = lab.process("a");
        *a.store.held.lock().unwrap() = Some("r".into());
        let token = a.start("r");
        lab.pass(LEASE / 2, &mut [&mut a]);
        if ends {
            *a.store.held.lock().unwrap() = None;
        }
        lab.until(2 * LEASE, &mut [&mut a], |hosts| {
            hosts[0].replies.contains_key(&token)
        });
        assert_eq!(a.replies[&token].is_ok(), ends);
        assert_eq!(lab.status("r").is_some(), ends);
    }
}
