//! What a newer build wrote or sent: left to it, without asking the store for it again and again, and said once.

use duramen_core::journal::ENCODING;
use duramen_core::run::Status;
use duramen_core::store::NewMessage;
use duramen_engine::Driven;

use crate::lab::{Lab, new_run, now};

fn newer(lab: &Lab, run_id: &str, name: &str) -> NewMessage {
    NewMessage {
        encoding: ENCODING + 1,
        ..lab.message(run_id, name, "1")
    }
}

fn deliver(lab: &Lab, run_id: &str, name: &str) {
    now(lab.store.deliver(vec![newer(lab, run_id, name)]));
}

#[test]
fn a_message_of_a_newer_build_makes_a_driver_let_go_once_what_is_in_flight_is_recorded() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.step("slow").await?;
            ctx.step("next").await
        });
        a.engine.work(10, 20, 1_000);
        a.start("r");
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        deliver(&lab, "r", "x");
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].newer == 1);
        assert_eq!(lab.status("r"), Some(Status::Running));
        a.complete("slow");
        lab.until(2_000, &mut [&mut a], |hosts| {
            hosts[0].how("r") == [Driven::Paused]
        });
        let row = lab.detail("r").unwrap().row;
        assert_eq!((row.status, row.owner), (Status::Waiting, None));
        assert_eq!((row.format, row.journal_len), (ENCODING + 1, 2));
        assert!(
            row.ready_at.is_some(),
            "whoever can read it takes it at once"
        );
        assert_eq!(lab.facts.times("r", "next"), 0);
        // It was let go, so that it is not gone on with here as one that was started here.
        assert_eq!(a.engine.followed(), 0);
        deliver(&lab, "r", "y");
        lab.pass(10, &mut [&mut a]);
        assert_eq!(a.newer, 1);
    }
}

#[test]
fn a_run_started_here_that_only_newer_builds_can_take_is_asked_for_ever_less_often() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move { ctx.event("x", None).await });
    a.start("r");
    lab.until(2_000, &mut [&mut a], |_| {
        lab.status("r") == Some(Status::Waiting)
    });
    deliver(&lab, "r", "x");
    lab.pass(60_000, &mut [&mut a]);
    let before = a.store.calls_of("claim");
    lab.pass(60_000, &mut [&mut a]);
    let spent = a.store.calls_of("claim") - before;
    assert!((1..=12).contains(&spent), "{spent} claims in a minute");
    assert_eq!(lab.status("r"), Some(Status::Waiting));
}

#[test]
fn an_idle_worker_says_once_that_runs_wait_for_a_newer_build() {
    for lab in Lab::all() {
        lab.enqueue(&["old"]);
        let mut a = lab.process("a");
        a.program(|ctx| async move { ctx.step("s").await });
        let mut new = new_run("r");
        new.now = lab.instant();
        now(lab.store.create(vec![new]));
        deliver(&lab, "r", "x");
        a.engine.work(10, 20, 200);
        lab.until(5_000, &mut [&mut a], |hosts| {
            hosts[0].complete_all();
            hosts[0].newer == 1 && lab.is_final("old")
        });
        lab.enqueue(&["r2"]);
        deliver(&lab, "r2", "x");
        if lab.sim.is_some() {
            let looks = a.store.calls_of("next_due");
            lab.pass(300_000, &mut [&mut a]);
            // It does not look ahead any more: one look a poll is all.
            assert!(a.store.calls_of("next_due") - looks <= 300_000 / 200 + 1);
        }
        assert_eq!(a.newer, 1);
        assert_eq!(lab.status("r"), Some(Status::Queued));
        assert_eq!(lab.detail("r").unwrap().row.epoch, 0);
    }
}

#[test]
fn a_worker_that_nothing_waits_for_says_nothing() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move { ctx.step("s").await });
    a.engine.work(10, 20, 1_000);
    lab.pass(200_000, &mut [&mut a]);
    assert_eq!(a.newer, 0);
}
