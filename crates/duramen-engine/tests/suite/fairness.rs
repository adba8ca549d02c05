//! What many due runs of one kind do to the others.

use duramen_core::run::Status;
use duramen_core::store::{NewRun, Start};

use crate::host::Host;
use crate::lab::{Lab, key, new_run, now};

fn enqueue(lab: &Lab, workflow: &str, prefix: &str, count: usize, at: i64) {
    let runs = (0..count).map(|n| NewRun {
        workflow: workflow.into(),
        start: Start::Queued { at: Some(at) },
        now: lab.env.explicit_now(),
        ..new_run(&format!("{prefix}{n:04}"))
    });
    now(lab.store.create(runs.collect()));
}

fn ended(host: &Host, prefix: &str) -> usize {
    let of = |(run, _): &&(duramen_core::ids::RunId, _)| run.starts_with(prefix);
    host.ended.iter().filter(of).count()
}

/// A worker on two workflows, both of which a step keeps busy.
fn worker(lab: &Lab, places: usize) -> Host {
    let mut host = lab.process("a");
    host.engine.register(vec![key("w"), key("v")]);
    host.program(|ctx| async move { ctx.step("slow").await });
    host.engine.work(places, 20, 1_000);
    host
}

#[test]
fn a_flood_of_one_workflow_leaves_the_others_their_share() {
    for places in [1, 4, 100] {
        let lab = Lab::sim(1);
        // All of them are due long before the others.
        enqueue(&lab, "w", "flood", 2_000, lab.env.now() - 60_000);
        let mut a = worker(&lab, places);
        lab.until(5_000, &mut [&mut a], |hosts| hosts[0].in_flight() == places);
        enqueue(&lab, "v", "late", 20, lab.env.now());
        let mut rounds = 0;
        while ended(&a, "late") < 20 {
            rounds += 1;
            assert!(rounds <= 10 + 42_usize.div_ceil(places), "{places} places");
            a.complete_all();
            lab.pass(25, &mut [&mut a]);
        }
        assert!(ended(&a, "flood") > 0);
    }
}

#[test]
fn a_flood_of_new_runs_does_not_hold_up_those_that_have_begun() {
    let lab = Lab::sim(1);
    let mut a = worker(&lab, 1);
    a.program(|ctx| async move {
        if ctx.input().starts_with("begun") {
            ctx.event("go", None).await?;
        }
        ctx.step("slow").await
    });
    enqueue(&lab, "w", "begun", 5, lab.env.now());
    let begun: Vec<String> = (0..5).map(|n| format!("begun{n:04}")).collect();
    lab.until(5_000, &mut [&mut a], |_| {
        begun
            .iter()
            .all(|run| lab.status(run) == Some(Status::Waiting))
    });
    enqueue(&lab, "w", "flood", 1_000, lab.env.now() - 60_000);
    lab.until(5_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    for run_id in &begun {
        lab.send(run_id, "go", "1");
    }
    for _ in 0..12 {
        a.complete_all();
        lab.pass(25, &mut [&mut a]);
    }
    assert!(begun.iter().all(|run| lab.is_final(run)));
    assert!(ended(&a, "flood") > 3, "new runs have their share, too");
}

#[test]
fn of_one_line_the_earliest_due_comes_first() {
    let lab = Lab::sim(1);
    let at = lab.env.now() - 60_000;
    for n in (0..30).rev() {
        enqueue(&lab, "w", &format!("r{n:02}"), 1, at + n);
    }
    let mut a = worker(&lab, 1);
    lab.until(60_000, &mut [&mut a], |hosts| {
        hosts[0].complete_all();
        hosts[0].ended.len() == 30
    });
    assert!(a.ended.is_sorted_by_key(|(run, _)| run.clone()));
}
