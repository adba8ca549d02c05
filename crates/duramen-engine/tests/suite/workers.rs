//! The worker loop.

use duramen_core::run::Status;
use duramen_core::store::{NewRun, Start};
use duramen_engine::{Config, Driven, Reply};

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::{Lab, config, new_run, now};

fn slow(host: &mut Host) {
    host.program(|ctx| async move {
        ctx.step("slow").await?;
        ctx.step("fresh").await
    });
}

#[test]
fn no_more_runs_are_driven_than_there_are_places_and_each_free_place_is_used() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        slow(&mut a);
        let ids: Vec<String> = (0..60).map(|n| format!("r{n:02}")).collect();
        lab.enqueue(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        a.engine.work(20, 20, 1_000);
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 20);
        lab.pass(200, &mut [&mut a]);
        assert_eq!((a.in_flight(), a.engine.active()), (20, 20));
        // One place of twenty: no quarter will come free for a long time.
        a.complete("slow");
        lab.until(500, &mut [&mut a], |hosts| hosts[0].driven == 21);
        while a.ended.len() < 60 {
            a.complete_all();
            lab.pass(5, &mut [&mut a]);
            assert!(a.engine.active() <= 20);
        }
        let claims = a.store.calls_of("claim");
        assert!(claims < 40, "{claims} claims for 60 runs");
        lab.check();
    }
}

#[test]
fn a_deadline_is_met_exactly_however_far_the_polls_are_apart() {
    for seed in 1..8 {
        let lab = Lab::sim(seed);
        let mut a = lab.process("a");
        a.engine.work(10, 20, 1_000);
        lab.pass(i64::try_from(seed * 97).unwrap(), &mut [&mut a]);
        let at = lab.env.now() + 2_345;
        // Created by another process: nobody tells this one.
        now(lab.store.create(vec![NewRun {
            start: Start::Queued { at: Some(at) },
            now: lab.env.explicit_now(),
            ..new_run("r")
        }]));
        lab.until(5_000, &mut [&mut a], |_| lab.is_final("r"));
        let late = lab.env.now() - at;
        assert!((0..=1).contains(&late), "{late} ms late");
    }
}

#[test]
fn deadlines_of_runs_that_pause_here_are_met_exactly() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.engine.work(10, 20, 60_000);
    a.program(|ctx| async move { ctx.sleep(12_345).await });
    lab.pass(100_000, &mut [&mut a]);
    a.start("r");
    lab.until(20_000, &mut [&mut a], |_| lab.is_final("r"));
    let row = lab.detail("r").unwrap().row;
    let late = row.finished_at.unwrap() - row.created_at - 12_345;
    assert!((0..=1).contains(&late), "{late} ms late");
}

#[test]
fn an_idle_worker_sends_at_most_two_statements_a_second() {
    for poll_max in [1_000, 500] {
        let lab = Lab::sim(1);
        let mut a = lab.process_with(Config {
            lease: 30_000,
            ..config("a")
        });
        a.engine.work(100, 20, poll_max);
        a.program(|ctx| async move { ctx.sleep(86_400_000).await });
        a.start("asleep");
        lab.pass(5_000, &mut [&mut a]);
        let before = a.store.total();
        lab.pass(60_000, &mut [&mut a]);
        let spent = a.store.total() - before;
        // Beside it, what it started itself is looked at from time to time, and its lease is renewed.
        let most = 60_000 / usize::try_from(poll_max).unwrap() + 13 + 9;
        assert!(spent <= most, "{spent} statements in a minute");
    }
}

#[test]
fn a_nudge_is_never_missed() {
    for seed in 1..60 {
        let lab = Lab::sim(seed);
        let mut a = lab.process("a");
        a.engine.work(10, 20, 60_000);
        a.store.set(move |call| match call.method {
            "claim" | "next_due" if seed % 2 == 0 => Fault::Late(3),
            "claim" | "next_due" => Fault::Delay(3),
            _ => Fault::None,
        });
        lab.pass(70_000 + i64::try_from(seed % 10).unwrap(), &mut [&mut a]);
        let token = a.token();
        a.engine.create(token, vec![new_run("r")]);
        lab.until(40, &mut [&mut a], |_| lab.is_final("r"));
    }
}

#[test]
fn polling_goes_on_when_the_store_fails() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.store.set(|call| match call.method {
        "claim" | "next_due" if call.number < 5 => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    a.engine.work(10, 20, 1_000);
    lab.enqueue(&["r"]);
    lab.until(5_000, &mut [&mut a], |_| lab.is_final("r"));
}

#[test]
fn odd_poll_times_do_no_harm() {
    for (least, most) in [(500, 20), (0, 0), (5_000, 1)] {
        let lab = Lab::sim(1);
        let mut a = lab.process("a");
        a.store.set(|call| match (call.method, call.number) {
            ("claim", 0) => Fault::Refuse(unavailable()),
            _ => Fault::None,
        });
        a.engine.work(0, least, most);
        lab.pass(10_000, &mut [&mut a]);
        lab.enqueue(&["r"]);
        lab.until(11_000, &mut [&mut a], |_| lab.is_final("r"));
    }
}

#[test]
fn after_stop_work_nothing_more_is_claimed() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    slow(&mut a);
    a.engine.work(10, 20, 100);
    lab.enqueue(&["r1"]);
    lab.until(500, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    a.engine.stop_work();
    lab.enqueue(&["r2"]);
    lab.pass(2_000, &mut [&mut a]);
    assert_eq!(lab.status("r2"), Some(Status::Queued));
    a.complete("slow");
    lab.until(50, &mut [&mut a], |_| lab.is_final("r1"));
    a.engine.work(10, 20, 100);
    lab.until(50, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
}

#[test]
fn yield_all_reaches_runs_whose_claim_is_under_way() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    slow(&mut a);
    slow(&mut b);
    a.start("r1");
    lab.until(50, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    a.store.set(|call| match call.method {
        "claim" | "create" => Fault::Late(50),
        _ => Fault::None,
    });
    lab.enqueue(&["r2"]);
    a.engine.work(10, 20, 100);
    a.start("r3");
    lab.pass(20, &mut [&mut a]);
    a.engine.stop_work();
    a.engine.yield_all();
    lab.pass(100, &mut [&mut a]);
    a.complete("slow");
    lab.pass(100, &mut [&mut a]);
    assert_eq!((a.how("r1"), a.driven), (vec![Driven::Paused], 1));
    for run_id in ["r1", "r2", "r3"] {
        assert_eq!(lab.status(run_id), Some(Status::Waiting));
    }
    assert_eq!(lab.facts.times("r1", "fresh"), 0);
    assert_eq!(
        (lab.facts.times("r2", "slow"), lab.facts.times("r3", "slow")),
        (0, 0)
    );
    b.engine.work(10, 20, 100);
    lab.until(200, &mut [&mut b], |hosts| hosts[0].in_flight() == 2);
    b.complete_all();
    lab.until(200, &mut [&mut b], |_| {
        ["r1", "r2", "r3"].iter().all(|run| lab.is_final(run))
    });
    lab.check();
}

#[test]
fn a_claim_that_is_answered_after_closing_leaves_its_runs_to_others() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    a.store.set(|call| match call.method {
        "claim" => Fault::Late(50),
        _ => Fault::None,
    });
    lab.enqueue(&["r"]);
    a.engine.work(10, 20, 100);
    lab.pass(10, &mut [&mut a]);
    let token = a.token();
    a.engine.close(token);
    lab.pass(50, &mut [&mut a]);
    assert!(matches!(a.replies.get(&token), Some(Ok(Reply::Done))));
    b.engine.work(10, 20, 100);
    lab.until(200, &mut [&mut a, &mut b], |_| lab.is_final("r"));
    assert_eq!((a.driven, b.driven), (0, 1));
    let spent = a.store.total();
    lab.pass(60_000, &mut [&mut a]);
    assert_eq!(
        a.store.total(),
        spent,
        "a closed engine leaves the store alone"
    );
}

#[test]
fn two_workers_share_what_is_due() {
    for lab in Lab::all() {
        let (mut a, mut b) = (lab.process("a"), lab.process("b"));
        for host in [&mut a, &mut b] {
            host.program(|ctx| async move {
                ctx.sleep(100).await?;
                ctx.step("one").await
            });
            host.engine.work(16, 20, 200);
        }
        let ids: Vec<String> = (0..200).map(|n| format!("r{n}")).collect();
        lab.enqueue(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        lab.until(20_000, &mut [&mut a, &mut b], |_| {
            ids.iter().all(|run| lab.is_final(run))
        });
        for run_id in &ids {
            assert_eq!(lab.facts.times(run_id, "one"), 1);
        }
        lab.check();
    }
}

#[test]
fn an_engine_that_is_dropped_ends_its_tasks() {
    let lab = Lab::memory();
    let a = lab.process("a");
    let weak = std::sync::Arc::downgrade(&a.store);
    lab.pass(50, &mut []);
    drop(a);
    let begun = std::time::Instant::now();
    while weak.upgrade().is_some() {
        assert!(
            begun.elapsed().as_millis() < 1_000,
            "something holds the store"
        );
        std::thread::yield_now();
    }
}
