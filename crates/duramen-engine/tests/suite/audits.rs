//! What the store says that a process holds against what it has in hand.

use std::sync::atomic::Ordering;

use duramen_core::ids::Millis;
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::Intervention;
use duramen_engine::Driven;

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::{Lab, now};

const LEASE: Millis = 3_000;

fn busy(lab: &Lab, count: usize) -> Host {
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        if ctx.input().starts_with("quick") {
            return ctx.step("one").await;
        }
        ctx.step("slow").await
    });
    for n in 0..count {
        a.start(&format!("r{n:04}"));
    }
    lab.until(1_000, &mut [&mut a], |hosts| hosts[0].in_flight() == count);
    a
}

fn terminate(lab: &Lab, run_id: &str) {
    let entry = Entry::new(Kind::RunTerminated, "".into(), "stop".into(), lab.env.now());
    let run_id = run_id.into();
    now(lab.store.intervene(vec![Intervention::Terminate {
        run_id,
        entry,
        outgoing: Vec::new(),
    }]));
}

#[test]
fn runs_that_people_terminate_are_dropped_within_about_a_lease_wherever_they_stand() {
    for seed in 1..8 {
        let lab = Lab::sim(seed);
        let mut a = busy(&lab, 2_500);
        lab.pass(i64::try_from(seed * 700).unwrap(), &mut [&mut a]);
        // On the edges of pages, too.
        let ended = [
            "r0000", "r0999", "r1000", "r1001", "r1777", "r1999", "r2499",
        ];
        for run_id in ended {
            terminate(&lab, run_id);
        }
        // A pass begins within a lease, and goes through its pages within two thirds of one.
        lab.until(2 * LEASE, &mut [&mut a], |hosts| hosts[0].ended.len() == 7);
        for run_id in ended {
            assert_eq!(a.how(run_id), [Driven::Lost]);
        }
        lab.pass(3 * LEASE, &mut [&mut a]);
        assert_eq!((a.ended.len(), a.engine.active()), (7, 2_493));
    }
}

#[test]
fn a_few_runs_are_compared_within_a_lease() {
    let lab = Lab::sim(1);
    let mut a = busy(&lab, 3);
    for n in 0..3 {
        lab.pass(LEASE / 2 + 100, &mut [&mut a]);
        terminate(&lab, &format!("r{n:04}"));
        lab.until(LEASE + 10, &mut [&mut a], |hosts| {
            hosts[0].ended.len() == n + 1
        });
    }
}

#[test]
fn runs_that_come_and_go_during_a_comparison_are_neither_lost_nor_let_go() {
    for seed in 1..20 {
        let lab = Lab::sim(seed);
        let mut a = busy(&lab, 5);
        a.engine.work(100, 20, 100);
        a.store.set(move |call| match (call.method, seed % 3) {
            ("held", 0) => Fault::Late(90),
            ("held", 1) => Fault::Delay(90),
            ("claim", 2) => Fault::Late(70),
            ("commit", _) => Fault::Late(i64::try_from(seed % 5).unwrap()),
            _ => Fault::None,
        });
        for n in 0..200 {
            lab.enqueue(&[&format!("quick{n}")]);
            a.start(&format!("quick-too{n}"));
            lab.pass(37, &mut [&mut a]);
        }
        lab.pass(1_000, &mut [&mut a]);
        assert_eq!(a.ended.len(), 400);
        assert!(
            a.ended
                .iter()
                .all(|(_, driven)| *driven == Driven::Completed)
        );
        assert_eq!(a.engine.counters().orphans.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn orphans_of_every_page_are_let_go_after_two_looks_and_not_before() {
    let lab = Lab::sim(1);
    let mut a = busy(&lab, 10);
    a.engine.work(5_000, 20, 1_000);
    // The answers to these claims are lost: about two thousand runs.
    a.store.set(|call| match (call.method, call.number) {
        ("claim", ..12) => Fault::Lose(unavailable()),
        _ => Fault::None,
    });
    let ids: Vec<String> = (0..2_000).map(|n| format!("quick{n:04}")).collect();
    lab.enqueue(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    lab.until(4 * LEASE, &mut [&mut a], |_| {
        ids.iter().all(|run| lab.is_final(run))
    });
    assert!(a.engine.counters().orphans.load(Ordering::Relaxed) > 1_000);
    for run_id in &ids {
        assert_eq!(lab.facts.times(run_id, "one"), 1);
    }
    assert_eq!(a.in_flight(), 10);
    lab.check();
}

#[test]
fn an_audit_that_fails_goes_on_where_it_was_and_holds_up_no_heartbeat() {
    let lab = Lab::sim(1);
    let mut a = busy(&lab, 2_500);
    a.store.set(|call| match (call.method, call.number % 3) {
        ("held", 1) => Fault::Refuse(unavailable()),
        ("held", 2) => Fault::Late(2 * LEASE),
        _ => Fault::None,
    });
    terminate(&lab, "r2222");
    let beats = a.store.calls_of("heartbeat");
    lab.until(20 * LEASE, &mut [&mut a], |hosts| hosts[0].ended.len() == 1);
    lab.pass(10 * LEASE, &mut [&mut a]);
    assert!(a.store.calls_of("heartbeat") - beats >= 30);
    assert_eq!(&*a.engine.owner(), "a");
    assert_eq!(lab.status("r0001"), Some(Status::Running));
}

#[test]
fn a_run_that_was_let_go_is_not_driven_here_when_its_answer_comes_at_last() {
    for method in ["claim", "create"] {
        let lab = Lab::sim(1);
        let mut a = busy(&lab, 1);
        let mut b = lab.process("b");
        b.program(|ctx| async move { ctx.step("slow").await });
        let next = a.store.calls_of(method);
        a.store.set(move |call| match call.method {
            name if name == method && call.number == next => Fault::Late(3 * LEASE),
            _ => Fault::None,
        });
        if method == "claim" {
            lab.enqueue(&["late"]);
            let token = a.token();
            a.engine.take(token, "late".into(), None);
        } else {
            a.start("late");
        }
        lab.until(100, &mut [&mut a], |_| {
            lab.status("late") == Some(Status::Running)
        });
        b.engine.work(10, 20, 100);
        lab.until(2 * LEASE + 200, &mut [&mut a, &mut b], |hosts| {
            hosts[1].in_flight() == 1
        });
        lab.pass(3 * LEASE, &mut [&mut a, &mut b]);
        assert_eq!(lab.facts.times("late", "slow"), 1);
        assert_eq!((a.in_flight(), b.in_flight()), (1, 1));
        // It may come back, later.
        b.engine.yield_all();
        b.store.die();
        let token = a.token();
        lab.pass(2 * LEASE, &mut [&mut a]);
        if method == "claim" {
            a.engine.take(token, "late".into(), None);
        }
        lab.until(2 * LEASE, &mut [&mut a], |hosts| hosts[0].in_flight() == 2);
        a.complete_all();
        lab.until(100, &mut [&mut a], |_| lab.is_final("late"));
        assert_eq!(a.engine.followed(), 0);
    }
}
