//! Messages and timers reach the runs they are for, wherever these are.

use duramen_core::run::Status;
use duramen_engine::{Config, Driven};

use crate::faults::Fault;
use crate::host::Host;
use crate::lab::{Lab, config};
use crate::toy::{Job, join};

/// Waits for an event while a step is in flight, and acts on it.
fn listens(host: &mut Host) {
    host.program(|ctx| async move {
        let step = ctx.clone();
        let event = ctx.clone();
        let jobs: Vec<Job> = vec![
            Box::pin(async move { step.step("slow").await }),
            Box::pin(async move {
                event.event("x", None).await?;
                event.step("heard").await
            }),
        ];
        join(jobs).await.pop().unwrap()
    });
}

fn waits(host: &mut Host) {
    host.program(|ctx| async move {
        let got = ctx.event("x", None).await?;
        ctx.step("heard").await?;
        Ok(got)
    });
}

#[test]
fn a_message_sent_through_the_same_engine_reaches_a_running_run_at_once() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        listens(&mut a);
        a.start("r");
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        let polls = a.store.calls_of("unread");
        a.send(lab.message("r", "x", "1"));
        // Before the next poll, where no other program can come between.
        let limit = if lab.sim.is_some() { 5 } else { 2_000 };
        lab.until(limit, &mut [&mut a], |_| lab.facts.times("r", "heard") == 1);
        assert!(lab.sim.is_none() || a.store.calls_of("unread") == polls + 1);
    }
}

#[test]
fn a_message_sent_elsewhere_reaches_a_running_run_with_the_next_poll() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        listens(&mut a);
        a.start("r");
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        lab.send("r", "x", "1");
        lab.until(2_000, &mut [&mut a], |_| lab.facts.times("r", "heard") == 1);
    }
}

#[test]
fn a_cancellation_reaches_a_running_run() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    listens(&mut a);
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    let cancel = lab.cancel("r");
    a.send(cancel);
    lab.until(10, &mut [&mut a], |_| {
        lab.status("r") == Some(Status::Cancelled)
    });
    assert_eq!(a.how("r"), [Driven::Cancelled]);
}

#[test]
fn a_message_that_nobody_asks_for_is_brought_once() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move { ctx.step("slow").await });
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    lab.send("r", "later", "1");
    lab.pass(10_000, &mut [&mut a]);
    lab.send("r", "later", "2");
    lab.pass(10_000, &mut [&mut a]);
    assert_eq!(a.told, 2);
    let polls = a.store.calls_of("unread");
    assert!(polls <= 60, "{polls} in 20 seconds");
}

#[test]
fn a_pause_and_a_message_at_the_same_time_never_lose_the_wake_up() {
    for seed in 0..60 {
        let lab = Lab::sim(seed + 1);
        let mut a = lab.process("a");
        waits(&mut a);
        // The pause and the message take effect and are answered in every order.
        a.store.set(move |call| match (call.method, seed % 3) {
            ("commit", 0) | ("deliver", 2) => Fault::Delay(10),
            ("commit", 1) => Fault::Late(10),
            ("deliver", 1) => Fault::Late(5),
            _ => Fault::None,
        });
        a.start("r");
        lab.pass(i64::try_from(seed / 3).unwrap(), &mut [&mut a]);
        a.send(lab.message("r", "x", "1"));
        lab.until(75, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(lab.output("r"), "1");
        lab.check();
    }
}

#[test]
fn a_wake_up_is_not_lost_when_the_host_hears_of_its_pause_after_the_message() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    waits(&mut a);
    lab.register(&mut a);
    a.start("r");
    a.round();
    // The pause has taken place; the host has not come to it yet.
    assert_eq!(lab.status("r"), Some(Status::Waiting));
    a.stopped = true;
    a.send(lab.message("r", "x", "1"));
    lab.pass(5, &mut [&mut a]);
    a.stopped = false;
    lab.until(10, &mut [&mut a], |_| lab.is_final("r"));
}

#[test]
fn a_run_that_was_started_here_is_woken_by_its_timer_on_time() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.sleep(333).await?;
            ctx.step("woke").await
        });
        a.start("r");
        lab.until(1_000, &mut [&mut a], |hosts| {
            hosts[0].how("r") == [Driven::Paused]
        });
        lab.until(2_000, &mut [&mut a], |_| lab.is_final("r"));
        let row = lab.detail("r").unwrap().row;
        let late = row.finished_at.unwrap() - row.created_at - 333;
        let most = if lab.sim.is_some() { 1 } else { 700 };
        assert!((0..=most).contains(&late), "{late} ms late");
        assert_eq!(a.engine.followed(), 0);
    }
}

#[test]
fn a_sleep_that_is_over_before_its_pause_is_recorded_ends_all_the_same() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.sleep(10).await?;
            ctx.step("woke").await
        });
        a.store.set(|call| match call.method {
            "commit" => Fault::Late(60),
            _ => Fault::None,
        });
        a.start("r");
        lab.until(1_000, &mut [&mut a], |_| lab.is_final("r"));
    }
}

#[test]
fn a_run_that_was_started_here_is_woken_by_messages_from_elsewhere() {
    for lab in Lab::all() {
        let (mut a, mut b) = (lab.process("a"), lab.process("b"));
        waits(&mut a);
        a.start("r");
        lab.until(1_000, &mut [&mut a, &mut b], |hosts| {
            hosts[0].how("r") == [Driven::Paused]
        });
        b.send(lab.message("r", "x", "1"));
        lab.until(1_000, &mut [&mut a, &mut b], |_| lab.is_final("r"));
        assert_eq!(lab.output("r"), "1");
    }
}

#[test]
fn each_of_many_followed_runs_is_looked_at_whatever_else_goes_on() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    waits(&mut a);
    for n in 0..600 {
        a.start(&format!("r{n:03}"));
    }
    lab.until(5_000, &mut [&mut a], |hosts| hosts[0].ended.len() == 600);
    lab.send("r599", "x", "1");
    for _ in 0..50 {
        a.engine.nudge();
        lab.pass(20, &mut [&mut a]);
    }
    assert!(lab.is_final("r599"));
}

#[test]
fn following_costs_little_while_nothing_happens() {
    let lab = Lab::sim(1);
    let mut a = lab.process_with(Config {
        lease: 30_000,
        ..config("a")
    });
    waits(&mut a);
    a.start("r");
    lab.pass(5_000, &mut [&mut a]);
    let before = a.store.total();
    lab.pass(60_000, &mut [&mut a]);
    let spent = a.store.total() - before;
    // Two looks a second, and a few heartbeats.
    assert!(spent <= 130, "{spent} statements in a minute");
}

#[test]
fn a_run_that_ends_elsewhere_is_not_followed_any_more() {
    for working in [false, true] {
        let lab = Lab::sim(1);
        let (mut a, mut b) = (lab.process("a"), lab.process("b"));
        waits(&mut a);
        waits(&mut b);
        a.start("r");
        lab.until(1_000, &mut [&mut a, &mut b], |hosts| {
            hosts[0].how("r") == [Driven::Paused]
        });
        if working {
            // Its only place is taken: it cannot get the run back.
            a.program(|ctx| async move { ctx.step("slow").await });
            a.engine.work(1, 20, 1_000);
            a.start("busy");
        } else {
            a.engine.register(Vec::new());
        }
        lab.pass(100, &mut [&mut a, &mut b]);
        b.engine.work(10, 20, 1_000);
        b.send(lab.message("r", "x", "1"));
        lab.until(100, &mut [&mut a, &mut b], |_| lab.is_final("r"));
        assert_eq!(b.how("r"), [Driven::Completed]);
        lab.pass(12_000, &mut [&mut a, &mut b]);
        assert_eq!(a.engine.followed(), usize::from(working));
    }
}
