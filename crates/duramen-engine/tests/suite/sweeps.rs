//! Sweeps: order, limits, budgets, reports.

use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_core::store::StoreError;
use duramen_engine::{Reply, SweepOptions, SweepReport, Token};

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::Lab;
use crate::toy::{Job, join};

fn options() -> SweepOptions {
    SweepOptions {
        limit: 100,
        max_recovered: 25,
        max_timers: 25,
        max_queued: 25,
        deadline: None,
        min_remaining: 0,
        now: None,
        max_bytes: None,
    }
}

fn begin(host: &mut Host, options: SweepOptions) -> Token {
    let token = host.token();
    host.engine.sweep(token, options);
    token
}

fn report(host: &mut Host, token: Token) -> Result<SweepReport, StoreError> {
    match host.replies.remove(&token).unwrap() {
        Ok(Reply::Swept(report)) => Ok(report),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    }
}

fn sweep(lab: &Lab, host: &mut Host, options: SweepOptions) -> SweepReport {
    let token = begin(host, options);
    lab.until(60_000, &mut [&mut *host], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    report(host, token).unwrap()
}

fn names(report: &[(duramen_core::ids::RunId, &'static str)]) -> Vec<String> {
    let mut names: Vec<String> = report
        .iter()
        .map(|(run_id, kind)| format!("{run_id} {kind}"))
        .collect();
    names.sort();
    names
}

/// `n` runs of each class: a crashed worker's, those whose timer is due, queued ones.
fn classes(lab: &Lab, n: usize) {
    let mut crashed = lab.process("crashed");
    crashed.program(|ctx| async move {
        if ctx.input().starts_with("timer") {
            return ctx.sleep(1_000).await;
        }
        ctx.step("slow").await
    });
    for n in 0..n {
        crashed.start(&format!("timer{n}"));
        crashed.start(&format!("crash{n}"));
    }
    lab.pass(100, &mut [&mut crashed]);
    drop(crashed);
    let queued: Vec<String> = (0..n).map(|n| format!("queued{n}")).collect();
    lab.enqueue(&queued.iter().map(String::as_str).collect::<Vec<_>>());
    lab.pass(5_000, &mut []);
    lab.clock().skip(5_000);
}

fn finishes(host: &mut Host) {
    host.program(|ctx| async move {
        if ctx.input().starts_with("timer") {
            ctx.sleep(1_000).await?;
        } else if ctx.input().starts_with("crash") {
            ctx.step("slow").await?;
        }
        Ok("done".into())
    });
}

#[test]
fn recoveries_come_first_then_timers_then_queued_runs_and_each_class_has_its_limit() {
    let lab = Lab::sim(1);
    classes(&lab, 4);
    let mut a = lab.process("a");
    finishes(&mut a);
    let token = begin(
        &mut a,
        SweepOptions {
            limit: 6,
            max_recovered: 3,
            max_timers: 2,
            max_queued: 25,
            ..options()
        },
    );
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 3);
    a.complete_all();
    lab.until(100, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    let swept = report(&mut a, token).unwrap();
    let counts = [&swept.recovered, &swept.timers, &swept.queued].map(Vec::len);
    assert_eq!(counts, [3, 2, 1]);
    assert!(swept.more && !swept.deadline_reached);
    let token = begin(&mut a, options());
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    a.complete_all();
    lab.until(100, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    let swept = report(&mut a, token).unwrap();
    assert_eq!(names(&swept.recovered).len(), 1);
    assert_eq!(names(&swept.timers).len(), 2);
    assert_eq!(names(&swept.queued).len(), 3);
    assert!(!swept.more);
    assert!(lab.is_final("timer3") && lab.is_final("crash3") && lab.is_final("queued3"));
}

#[test]
fn every_way_in_which_a_run_leaves_the_sweep_is_named_and_a_poison_run_strands_no_other() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            match &*ctx.input() {
                "poison" => ctx.step("first").await?,
                "cancelled" | "paused" => ctx.event("x", None).await?,
                _ => return Ok("done".into()),
            };
            ctx.event("x", None).await
        });
        a.start("poison");
        a.start("cancelled");
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].ended.len() == 2);
        drop(a);
        lab.send("poison", "x", "1");
        let cancel = lab.cancel("cancelled");
        crate::lab::now(lab.store.deliver(vec![cancel]));
        lab.enqueue(&["bad", "good", "paused"]);
        let mut b = lab.process("b");
        b.program(|ctx| async move {
            match &*ctx.input() {
                "poison" => ctx.step("renamed").await,
                "bad" => ctx.step("bad").await,
                "good" => ctx.step("good").await,
                _ => ctx.event("x", None).await,
            }
        });
        let swept = sweep(&lab, &mut b, options());
        assert_eq!(
            names(&swept.timers),
            ["cancelled cancelled", "poison stuck"]
        );
        assert_eq!(
            names(&swept.queued),
            ["bad failed", "good completed", "paused paused"]
        );
        assert!(!swept.more);
        assert_eq!(b.engine.active(), 0);
    }
}

#[test]
fn with_too_little_time_left_runs_yield_and_more_remains() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        ctx.step("slow").await?;
        ctx.step("fresh").await
    });
    lab.enqueue(&["r1", "r2"]);
    let token = begin(
        &mut a,
        SweepOptions {
            deadline: Some(lab.env.now() + 1_000),
            min_remaining: 400,
            ..options()
        },
    );
    lab.pass(700, &mut [&mut a]);
    a.complete("slow");
    lab.until(400, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    let swept = report(&mut a, token).unwrap();
    assert_eq!(names(&swept.queued), ["r1 paused", "r2 running"]);
    assert!(swept.deadline_reached && swept.more);
    assert_eq!(lab.facts.times("r1", "fresh"), 0);
    assert_eq!(lab.status("r1"), Some(Status::Waiting));
    // The one whose step is in flight is kept, and released when the step has ended.
    a.complete("slow");
    lab.until(100, &mut [&mut a], |_| {
        lab.status("r2") == Some(Status::Waiting)
    });
    let swept = sweep(&lab, &mut a, options());
    assert_eq!(names(&swept.timers), ["r1 completed", "r2 completed"]);
    lab.check();
}

#[test]
fn runs_that_all_yield_in_time_still_leave_more_to_do() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        ctx.step("slow").await?;
        ctx.step("fresh").await
    });
    lab.enqueue(&["r"]);
    let token = begin(
        &mut a,
        SweepOptions {
            deadline: Some(lab.env.now() + 1_000),
            min_remaining: 400,
            ..options()
        },
    );
    lab.pass(700, &mut [&mut a]);
    a.complete("slow");
    lab.until(50, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    let swept = report(&mut a, token).unwrap();
    assert!(swept.deadline_reached && swept.more);
}

#[test]
fn without_time_nothing_is_claimed() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    lab.enqueue(&["r"]);
    let swept = sweep(
        &lab,
        &mut a,
        SweepOptions {
            deadline: Some(lab.env.now() + 1_000),
            min_remaining: 1_000,
            ..options()
        },
    );
    assert!(swept.deadline_reached && swept.more && swept.queued.is_empty());
    assert_eq!(a.store.calls_of("claim"), 0);
}

#[test]
fn a_claim_stays_within_the_memory_budget() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    lab.enqueue(&["r1", "r2", "r3"]);
    let options = SweepOptions {
        max_bytes: Some(3),
        ..options()
    };
    let swept = sweep(&lab, &mut a, options);
    assert_eq!((swept.queued.len(), swept.more), (1, true));
}

#[test]
fn an_explicit_instant_decides_what_is_due_and_time_stands_still_there() {
    const DAY: Millis = 86_400_000;
    for lab in [Lab::sim(1), Lab::memory()] {
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.sleep(DAY).await?;
            // A step in flight beside a deadline that never comes: nothing may spin.
            let (step, event) = (ctx.clone(), ctx.clone());
            let jobs: Vec<Job> = vec![
                Box::pin(async move { step.step("slow").await }),
                Box::pin(async move { event.event("x", Some(5_000)).await }),
            ];
            Ok(format!("{:?}", join(jobs).await))
        });
        lab.enqueue(&["r"]);
        let now = lab.env.now();
        assert_eq!(sweep(&lab, &mut a, options()).queued.len(), 1);
        assert!(sweep(&lab, &mut a, options()).timers.is_empty());
        let later = SweepOptions {
            now: Some(now + DAY + 100),
            ..options()
        };
        let token = begin(&mut a, later);
        lab.until(1_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        lab.pass(50, &mut [&mut a]);
        a.complete("slow");
        lab.until(1_000, &mut [&mut a], |hosts| {
            hosts[0].replies.contains_key(&token)
        });
        assert_eq!(names(&report(&mut a, token).unwrap().timers), ["r paused"]);
        assert_eq!(a.engine.ticks(), 0);
    }
}

#[test]
fn a_past_instant_makes_nothing_spin() {
    let lab = Lab::memory();
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        let (step, event) = (ctx.clone(), ctx.clone());
        let jobs: Vec<Job> = vec![
            Box::pin(async move { step.step("slow").await }),
            Box::pin(async move { event.event("x", Some(5_000)).await }),
        ];
        join(jobs).await.pop().unwrap()
    });
    let mut run = crate::lab::new_run("r");
    run.now = Some(1_000);
    crate::lab::now(lab.store.create(vec![run]));
    let past = SweepOptions {
        now: Some(2_000),
        ..options()
    };
    begin(&mut a, past);
    lab.until(1_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    let (mut rounds, end) = (0, lab.env.now() + 300);
    lab.until(1_000, &mut [&mut a], |_| {
        rounds += 1;
        lab.env.now() >= end
    });
    assert!(rounds < 150, "{rounds} rounds in 300 ms");
}

#[test]
fn a_store_that_fails_in_the_middle_of_a_sweep_leaves_no_run_behind() {
    let lab = Lab::sim(1);
    classes(&lab, 1);
    let mut a = lab.process("a");
    finishes(&mut a);
    a.store.set(|call| match (call.method, call.number) {
        ("claim", 1) => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    let token = begin(&mut a, options());
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    a.complete("slow");
    lab.until(100, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    assert_eq!(report(&mut a, token).unwrap_err(), unavailable());
    assert_eq!(lab.status("crash0"), Some(Status::Completed));
}

#[test]
fn a_run_that_nobody_can_drive_here_does_not_hold_the_sweep_up() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move { ctx.step("slow").await });
    lab.enqueue(&["r1", "r2"]);
    let token = begin(&mut a, options());
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 2);
    a.abandon("r1");
    lab.pass(10, &mut [&mut a]);
    a.complete("slow");
    lab.until(100, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    let swept = report(&mut a, token).unwrap();
    assert_eq!(names(&swept.queued), ["r1 lost", "r2 completed"]);
    assert!(swept.more);
}

#[test]
fn each_run_knows_the_sweep_whose_budget_it_must_keep_to() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        ctx.step("slow").await?;
        ctx.event("go", None).await?;
        ctx.step("slow").await
    });
    let one = SweepOptions {
        limit: 1,
        ..options()
    };
    lab.enqueue(&["r1"]);
    let first = begin(&mut a, one);
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    lab.enqueue(&["r2"]);
    let second = begin(&mut a, one);
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 2);
    a.start("r3");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 3);
    assert_eq!(a.sweep_of("r1"), Some(first));
    assert_eq!(a.sweep_of("r2"), Some(second));
    assert_eq!(a.sweep_of("r3"), None);
    // The first ends before the second, and nothing of it is left behind.
    a.complete_all();
    lab.until(100, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&first) && hosts[0].replies.contains_key(&second)
    });
    assert_eq!(a.sweep_of("r1"), None);
    let send = lab.message("r1", "go", "1");
    a.send(send);
    lab.pass(20, &mut [&mut a]);
    let third = begin(&mut a, one);
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    assert_eq!((a.sweep_of("r1"), a.resumed), (Some(third), 1));
}
