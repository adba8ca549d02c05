//! A process that is gone at any moment: the run still ends right, and no recorded step runs again.

use duramen_core::run::Status;

use crate::faults::Fault;
use crate::host::Host;
use crate::lab::Lab;
use crate::toy::{Job, join};

/// Steps in a row and side by side, timers and events.
fn journey(host: &mut Host) {
    host.program(|ctx| async move {
        let a = ctx.step("a").await?;
        ctx.sleep(50).await?;
        let x = ctx.event("x", None).await?;
        let steps = ["b", "c", "d"].map(|id| {
            let ctx = ctx.clone();
            Box::pin(async move {
                ctx.step(id).await?;
                ctx.step(&format!("{id}2")).await
            }) as Job
        });
        let done = join(steps.into()).await.len();
        ctx.sleep(20).await?;
        let e = ctx.step("e").await?;
        Ok(format!("{a} {x} {done} {e}"))
    });
}

/// Crashes at one call of a store's method; false if there are not so many.
fn crash_at(method: &'static str, number: usize, before: bool, warm: bool) -> bool {
    let lab = Lab::sim(u64::try_from(number).unwrap() + 1);
    let process = |owner: &str| {
        let mut host = lab.process_with(duramen_engine::Config {
            warm: usize::from(warm),
            ..crate::lab::config(owner)
        });
        journey(&mut host);
        host.engine.work(10, 20, 200);
        host
    };
    let mut first = process("first");
    first.store.set(move |call| {
        if call.method != method || call.number != number {
            Fault::None
        } else if before {
            Fault::CrashBefore
        } else {
            Fault::CrashAfter
        }
    });
    let token = first.token();
    first.engine.create(token, vec![crate::lab::new_run("r")]);
    lab.pass(10, &mut [&mut first]);
    first.send(lab.message("r", "x", "1"));
    lab.pass(6_000, &mut [&mut first]);
    let crashed = first.store.dead.load(std::sync::atomic::Ordering::Acquire);
    drop(first);
    if !crashed {
        assert_eq!(lab.status("r"), Some(Status::Completed));
        return false;
    }
    // Whoever called tries again: a run id and a message id make that safe.
    let mut second = process("second");
    let token = second.token();
    second.engine.create(token, vec![crate::lab::new_run("r")]);
    lab.pass(10, &mut [&mut second]);
    second.send(lab.message("r", "x", "1"));
    lab.until(10_000, &mut [&mut second], |_| lab.is_final("r"));
    assert_eq!(lab.output("r"), "a! 1 3 e!", "{method} {number} {before}");
    lab.check();
    for op in ["a", "b", "c2", "e"] {
        assert!(lab.facts.times("r", op) <= 2);
    }
    true
}

#[test]
fn every_call_of_the_store_may_be_the_last_of_a_process() {
    for (method, least) in [
        ("commit", 6),
        ("claim", 3),
        ("create", 1),
        ("deliver", 1),
        ("unread", 0),
    ] {
        for before in [true, false] {
            for warm in [true, false] {
                let mut number = 0;
                while crash_at(method, number, before, warm) {
                    number += 1;
                    assert!(number < 500);
                    if method == "claim" && number > 12 {
                        break;
                    }
                }
                assert!(number >= least, "{number} calls of {method}");
            }
        }
    }
}

#[test]
fn a_hundred_runs_survive_a_process_that_crashes_every_few_commits() {
    for seed in 1..6 {
        let lab = Lab::sim(seed);
        let ids: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
        lab.enqueue(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        for run_id in &ids {
            lab.send(run_id, "x", "1");
        }
        for life in 0..200 {
            let mut host = lab.process(&format!("life-{life}"));
            journey(&mut host);
            host.engine.work(40, 20, 200);
            let last = usize::try_from(lab.clock().random(12)).unwrap();
            let before = lab.clock().random(2) == 0;
            host.store.set(move |call| match call.method {
                "commit" if call.number < last => Fault::Late(1),
                "commit" if before => Fault::CrashBefore,
                "commit" => Fault::CrashAfter,
                _ => Fault::None,
            });
            lab.pass(4_000, &mut [&mut host]);
            if ids.iter().all(|run| lab.is_final(run)) {
                break;
            }
        }
        for run_id in &ids {
            assert_eq!(lab.status(run_id), Some(Status::Completed));
            assert_eq!(lab.output(run_id), "a! 1 3 e!");
        }
        lab.check();
    }
}
