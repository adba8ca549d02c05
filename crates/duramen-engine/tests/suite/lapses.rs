//! A lease that has lapsed: the process goes on under another name, with what nobody else has taken.

use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_core::store::{CommitOutcome, OwnerRow};
use duramen_engine::{Config, Driven, Reply};

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::{Lab, config, now};

const LEASE: Millis = 3_000;

fn slow(host: &mut Host) {
    host.program(|ctx| async move {
        ctx.step("slow").await?;
        ctx.step("after").await
    });
}

fn owners(lab: &Lab) -> Vec<OwnerRow> {
    now(lab.store.owners())
}

fn names(lab: &Lab) -> Vec<String> {
    owners(lab).into_iter().map(|owner| owner.owner).collect()
}

/// A process with so many runs whose steps are in flight.
fn busy(lab: &Lab, count: usize) -> (Host, Vec<String>) {
    let mut a = lab.process("a");
    slow(&mut a);
    let ids: Vec<String> = (0..count).map(|n| format!("r{n:05}")).collect();
    for run_id in &ids {
        a.start(run_id);
    }
    lab.until(1_000, &mut [&mut a], |hosts| hosts[0].in_flight() == count);
    (a, ids)
}

#[test]
fn a_heartbeat_of_ten_thousand_runs_is_one_call_and_one_row() {
    let lab = Lab::sim(1);
    let (mut a, _) = busy(&lab, 10_000);
    lab.pass(LEASE, &mut [&mut a]);
    let count = |a: &Host, method| a.store.calls_of(method);
    let before = ["heartbeat", "held", "get", "standing", "claim"].map(|name| count(&a, name));
    lab.pass(10 * LEASE, &mut [&mut a]);
    let after = ["heartbeat", "held", "get", "standing", "claim"].map(|name| count(&a, name));
    let spent: Vec<usize> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    assert!((29..=31).contains(&spent[0]), "{spent:?}");
    // A pass of eleven pages in each lease.
    assert!((99..=121).contains(&spent[1]), "{spent:?}");
    assert_eq!(spent[2..], [0, 0, 0]);
    let owners = owners(&lab);
    assert_eq!((owners.len(), owners[0].held), (1, 10_000));
}

#[test]
fn a_process_that_was_stopped_while_nobody_else_was_there_goes_on_with_all_its_runs() {
    for seed in 1..6 {
        let lab = Lab::sim(seed);
        let (mut a, ids) = busy(&lab, 30);
        lab.clock().skip(5 * LEASE);
        lab.pass(LEASE, &mut [&mut a]);
        assert_eq!(&*a.engine.owner(), "a~2");
        assert_eq!((a.in_flight(), a.driven), (30, 30));
        a.complete_all();
        lab.until(1_000, &mut [&mut a], |_| {
            ids.iter().all(|run| lab.is_final(run))
        });
        for run_id in &ids {
            assert_eq!(a.how(run_id), [Driven::Completed]);
            assert_eq!(lab.facts.times(run_id, "slow"), 1);
        }
        // And again.
        a.start("more");
        lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        lab.clock().skip(5 * LEASE);
        a.complete_all();
        lab.until(LEASE, &mut [&mut a], |_| lab.is_final("more"));
        assert_eq!(a.how("more"), [Driven::Completed]);
        assert_eq!(names(&lab), ["a", "a~2", "a~3"]);
        lab.check();
    }
}

#[test]
fn of_the_runs_of_a_blocked_process_those_that_another_took_are_lost_and_the_others_go_on() {
    for seed in 1..6 {
        let lab = Lab::sim(seed);
        let (mut a, ids) = busy(&lab, 20);
        let mut b = lab.process("b");
        slow(&mut b);
        b.engine.work(10, 20, 100);
        a.stopped = true;
        lab.until(4 * LEASE, &mut [&mut a, &mut b], |hosts| {
            hosts[1].in_flight() == 10
        });
        b.engine.stop_work();
        a.stopped = false;
        lab.until(LEASE, &mut [&mut a, &mut b], |hosts| {
            hosts[0].ended.len() == 10
        });
        assert!(a.ended.iter().all(|(_, driven)| *driven == Driven::Lost));
        assert_eq!((a.in_flight(), a.engine.active()), (10, 10));
        a.complete_all();
        b.complete_all();
        lab.until(1_000, &mut [&mut a, &mut b], |_| {
            ids.iter().all(|run| lab.is_final(run))
        });
        for run_id in &ids {
            let lost = usize::from(a.how(run_id) == [Driven::Lost]);
            assert_eq!(lab.facts.times(run_id, "slow"), 1 + lost);
            assert_eq!(lab.facts.times(run_id, "after"), 1);
        }
        lab.check();
    }
}

#[test]
fn a_commit_that_is_on_its_way_over_a_lapse_takes_place_under_the_next_name() {
    for delay in [4 * LEASE, 5 * LEASE, 6 * LEASE] {
        for seed in 1..6 {
            let lab = Lab::sim(seed);
            let (mut a, _) = busy(&lab, 3);
            a.store.set(move |call| match (call.method, call.number) {
                ("commit", 0) => Fault::Delay(delay),
                _ => Fault::None,
            });
            a.complete_all();
            a.stopped = true;
            lab.pass(3 * LEASE, &mut [&mut a]);
            a.stopped = false;
            // It is on its way for longer than a lease: what it comes to is waited for all the same.
            lab.until(7 * LEASE, &mut [&mut a], |hosts| hosts[0].ended.len() == 3);
            lab.until(3 * LEASE, &mut [&mut a], |hosts| {
                hosts[0].complete_all();
                (0..3).all(|n| lab.is_final(&format!("r{n:05}")))
            });
            lab.check();
        }
    }
}

#[test]
fn a_commit_that_is_fenced_because_its_owner_has_another_name_is_sent_again() {
    for seed in 1..10 {
        let lab = Lab::sim(seed);
        let (mut a, ids) = busy(&lab, 5);
        // The process was stopped; its first commits and its first heartbeat afterwards are neck and neck.
        lab.clock().skip(5 * LEASE);
        let late = i64::try_from(seed).unwrap();
        a.store.set(move |call| match call.method {
            "commit" => Fault::Delay(10),
            "heartbeat" => Fault::Late(5 + late),
            _ => Fault::None,
        });
        let token = a.token();
        a.engine.take(token, "nobody".into(), None);
        lab.pass(i64::try_from(seed % 3).unwrap(), &mut [&mut a]);
        a.complete_all();
        lab.until(LEASE, &mut [&mut a], |_| {
            ids.iter().all(|run| lab.is_final(run))
        });
        for run_id in &ids {
            assert_eq!(a.how(run_id), [Driven::Completed]);
            assert_eq!(lab.facts.times(run_id, "slow"), 1);
        }
        assert_eq!(a.engine.pipeline().refused(), 0);
        lab.check();
    }
}

#[test]
fn what_a_name_takes_over_is_known_though_the_answer_was_lost() {
    for lost in 2..5 {
        let lab = Lab::sim(1);
        let (mut a, ids) = busy(&lab, 2_500);
        a.store.set(move |call| match (call.method, call.number) {
            ("heartbeat", number) if (2..=lost).contains(&number) => Fault::Lose(unavailable()),
            _ => Fault::None,
        });
        lab.clock().skip(5 * LEASE);
        lab.pass(LEASE, &mut [&mut a]);
        assert!(a.engine.owner().starts_with("a~"));
        assert_eq!((a.in_flight(), a.ended.len()), (2_500, 0));
        a.complete_all();
        lab.until(1_000, &mut [&mut a], |_| {
            ids.iter().all(|run| lab.is_final(run))
        });
        lab.check();
    }
}

#[test]
fn a_first_heartbeat_whose_answer_was_lost_costs_a_moment() {
    for lost in 1..4 {
        let lab = Lab::sim(1);
        let mut a = lab.process("a");
        a.store.set(move |call| match (call.method, call.number) {
            ("heartbeat", number) if number < lost => Fault::Lose(unavailable()),
            _ => Fault::None,
        });
        a.start("r");
        lab.until(500, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!((names(&lab), a.driven), (vec!["a".to_owned()], 1));
    }
}

#[test]
fn a_claim_that_is_answered_under_the_next_name_is_driven_if_nobody_else_has_its_runs() {
    for taken in [false, true] {
        let lab = Lab::sim(1);
        let (mut a, mut b) = (lab.process("a"), lab.process("b"));
        slow(&mut a);
        slow(&mut b);
        lab.register(&mut a);
        a.engine.work(10, 20, 1_000);
        lab.pass(100, &mut [&mut a]);
        lab.enqueue(&["r"]);
        // The answer comes soon after the next name was taken, before that lets go of what it does not know.
        let claims = a.store.calls_of("claim");
        a.store.set(move |call| match call.method {
            "claim" if call.number == claims => Fault::Late(4 * LEASE + 500),
            _ => Fault::None,
        });
        lab.until(1_100, &mut [&mut a], |_| {
            lab.status("r") == Some(Status::Running)
        });
        // Blocked, for longer than a lease.
        a.stopped = true;
        lab.pass(3 * LEASE, &mut [&mut a]);
        if taken {
            b.engine.work(10, 20, 100);
        }
        lab.pass(LEASE, &mut [&mut a, &mut b]);
        a.stopped = false;
        lab.until(LEASE / 3, &mut [&mut a, &mut b], |hosts| {
            &*hosts[0].engine.owner() == "a~2"
        });
        lab.until(LEASE / 3, &mut [&mut a, &mut b], |hosts| {
            hosts[0].in_flight() + hosts[1].in_flight() == 1
        });
        lab.pass(5 * LEASE, &mut [&mut a, &mut b]);
        assert_eq!(b.in_flight(), usize::from(taken));
        assert_eq!(lab.facts.times("r", "slow"), 1);
    }
}

#[test]
fn a_step_that_has_not_begun_does_not_begin_until_there_is_a_lease_again() {
    let lab = Lab::sim(1);
    let (mut a, _) = busy(&lab, 1);
    lab.clock().skip(5 * LEASE);
    a.store.set(|call| match (call.method, call.number) {
        ("heartbeat", ..6) => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    a.complete_all();
    lab.until(LEASE, &mut [&mut a], |hosts| {
        hosts[0].store.calls_of("heartbeat") == 6
    });
    assert_eq!(lab.facts.times("r00000", "after"), 0);
    lab.until(LEASE, &mut [&mut a], |_| lab.is_final("r00000"));
    assert_eq!(a.how("r00000"), [Driven::Completed]);
}

#[test]
fn a_restart_under_the_same_name_takes_the_next_one_and_nothing_of_the_dead() {
    let lab = Lab::sim(1);
    let (a, _) = busy(&lab, 3);
    a.store.die();
    drop(a);
    lab.clock().skip(2 * LEASE);
    let mut again = lab.process("a");
    slow(&mut again);
    lab.register(&mut again);
    assert_eq!(&*again.engine.owner(), "a~2");
    let held: Vec<u64> = owners(&lab).iter().map(|owner| owner.held).collect();
    assert_eq!(held, [3, 0]);
    again.engine.work(10, 20, 100);
    lab.until(1_000, &mut [&mut again], |hosts| hosts[0].in_flight() == 3);
}

#[test]
fn a_worker_without_runs_is_seen_alive_and_one_that_was_forgotten_registers_again() {
    let lab = Lab::sim(1);
    let mut a = lab.process_with(Config {
        label: Some("here:1".into()),
        serves: vec!["w".into()],
        ..config("a")
    });
    a.engine.work(10, 20, 1_000);
    lab.pass(20 * LEASE, &mut [&mut a]);
    let owner = owners(&lab).remove(0);
    assert_eq!(owner.label.as_deref(), Some("here:1"));
    assert_eq!(owner.serves, ["w"]);
    assert!(owner.ended_at.is_none() && owner.lease_until > lab.env.now());
    // Somebody has ended it.
    now(lab.store.retire("a".into(), lab.instant()));
    lab.enqueue(&["r"]);
    lab.until(1_100, &mut [&mut a], |_| lab.is_final("r"));
    assert_eq!(names(&lab), ["a", "a~2"]);
}

#[test]
fn closing_ends_the_owner_and_its_runs_are_anybodys_at_once() {
    for lost in [false, true] {
        let lab = Lab::sim(1);
        let (mut a, _) = busy(&lab, 3);
        let mut b = lab.process("b");
        slow(&mut b);
        lab.register(&mut b);
        b.engine.work(10, 20, 200);
        if lost {
            a.store.set(|call| match call.method {
                "retire" => Fault::Lose(unavailable()),
                _ => Fault::None,
            });
        }
        let token = a.token();
        a.engine.close(token);
        lab.until(10, &mut [&mut a], |hosts| {
            hosts[0].replies.contains_key(&token)
        });
        assert!(matches!(a.replies.get(&token), Some(Ok(Reply::Done))));
        drop(a);
        lab.until(210, &mut [&mut b], |hosts| hosts[0].in_flight() == 3);
    }
}

#[test]
fn an_engine_that_held_nothing_closes_without_a_call() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    let token = a.token();
    a.engine.close(token);
    lab.until(10, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    assert_eq!(a.store.total(), 0);
}

#[test]
fn a_commit_in_the_hands_of_a_transaction_has_the_name_of_its_time() {
    for lapses_before in [true, false] {
        let lab = Lab::sim(1);
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.step("slow").await?;
            ctx.step("tx").await?;
            ctx.step("after").await
        });
        a.start("r");
        lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        if lapses_before {
            lab.clock().skip(5 * LEASE);
        }
        a.complete("slow");
        lab.until(LEASE, &mut [&mut a], |hosts| !hosts[0].sealed.is_empty());
        let (ticket, commit) = a.sealed.remove(0);
        if lapses_before {
            assert_eq!(commit.owner, "a~2");
            let outcome = now(lab.store.commit(vec![commit]));
            assert_eq!(outcome, [CommitOutcome::Applied { due: false }]);
            a.sealed(ticket, true);
        } else {
            lab.clock().skip(5 * LEASE);
            lab.pass(LEASE, &mut [&mut a]);
            // The run has been moved to another name meanwhile: it is rolled back, and runs again.
            assert_eq!(now(lab.store.commit(vec![commit])), [CommitOutcome::Fenced]);
            a.sealed(ticket, false);
            lab.until(LEASE, &mut [&mut a], |hosts| !hosts[0].sealed.is_empty());
            let (ticket, commit) = a.sealed.remove(0);
            now(lab.store.commit(vec![commit]));
            a.sealed(ticket, true);
        }
        lab.until(100, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(lab.facts.times("r", "slow"), 1);
        assert_eq!(lab.facts.times("r", "after"), 1);
        lab.check();
    }
}
