//! Runs that kill the process that drives them.

use duramen_core::run::Status;
use duramen_core::store::{NewRun, Start};
use duramen_core::suspect::MOST;
use duramen_engine::{Driven, Reply, SweepOptions};

use crate::host::Host;
use crate::lab::{Lab, new_run, now};

/// The handler of a poison run kills; the others have a step that takes its time.
fn worker(lab: &Lab, name: &str) -> Host {
    let mut host = lab.process(name);
    host.program(|ctx| async move {
        if ctx.input().starts_with("poison") {
            return ctx.step("slow-kill").await;
        }
        ctx.step("slow").await
    });
    host
}

/// Workers one after the other, each replaced when it is killed; gives how many were.
fn fleet(lab: &Lab, limit: usize, step: i64, done: impl Fn() -> bool) -> usize {
    for killed in 0..=limit {
        let mut host = worker(lab, &format!("p{killed}"));
        host.engine.work(100, 20, 1_000);
        let mut passed = 0;
        while !host.is_in_flight("slow-kill") {
            if done() {
                return killed;
            }
            lab.pass(10, &mut [&mut host]);
            passed += 10;
            assert!(passed < 600_000, "it is not taken up, and not parked");
            if passed % step == 0 {
                while host.is_in_flight("slow") {
                    host.complete("slow");
                }
            }
        }
        host.store.die();
    }
    panic!("more than {limit} processes were killed");
}

#[test]
fn a_run_that_kills_each_process_is_parked_with_the_reason() {
    let lab = Lab::sim(1);
    lab.enqueue(&["poison"]);
    let stuck = || lab.status("poison") == Some(Status::Stuck);
    let killed = fleet(&lab, 20, 50, stuck);
    assert_eq!(killed, MOST as usize);
    let row = lab.detail("poison").unwrap().row;
    let note = row.note.unwrap();
    assert!(note.contains("8 drivers in a row were lost"), "{note}");
    assert_eq!((row.owner, row.ready_at), (None, None));
}

#[test]
fn whoever_is_lost_with_it_by_chance_goes_on_and_ends() {
    for seed in 1..6 {
        let lab = Lab::sim(seed);
        let runs = (0..30_u8).map(|n| NewRun {
            start: Start::Queued { at: None },
            seed: [n; 16],
            now: lab.env.explicit_now(),
            ..new_run(&format!("innocent{n}"))
        });
        now(lab.store.create(runs.collect()));
        let poison = NewRun {
            seed: [u8::try_from(100 + seed).unwrap(); 16],
            now: lab.env.explicit_now(),
            ..new_run("poison")
        };
        now(lab.store.create(vec![poison]));
        // Their steps take longer than the poison needs to kill at first: all are lost together.
        let all = || {
            lab.status("poison") == Some(Status::Stuck)
                && (0..30).all(|n| lab.is_final(&format!("innocent{n}")))
        };
        let killed = fleet(&lab, 20, 700, all);
        assert_eq!(killed, MOST as usize);
    }
}

#[test]
fn a_sweep_says_that_a_run_was_set_back_or_parked() {
    let lab = Lab::sim(1);
    lab.enqueue(&["poison"]);
    let mut kinds = Vec::new();
    for n in 0..40 {
        let mut host = worker(&lab, &format!("p{n}"));
        let token = host.token();
        host.engine.sweep(token, options());
        lab.pass(50, &mut [&mut host]);
        match host.replies.get(&token) {
            None => host.store.die(), // it drives, and is killed
            Some(Ok(Reply::Swept(report))) => {
                let all = report.recovered.iter().chain(&report.timers);
                kinds.extend(all.map(|(_, kind)| *kind));
            }
            other => panic!("{other:?}"),
        }
        if lab.status("poison") == Some(Status::Stuck) {
            break;
        }
        lab.pass(30_000, &mut []);
    }
    let set_back = kinds.iter().filter(|kind| **kind == "paused").count() as u64;
    assert_eq!(set_back, u64::from(MOST) - 2);
    assert_eq!(kinds.last(), Some(&"stuck"));
}

fn options() -> SweepOptions {
    SweepOptions {
        limit: 10,
        max_recovered: 10,
        max_timers: 10,
        max_queued: 10,
        deadline: None,
        min_remaining: 0,
        now: None,
        max_bytes: None,
    }
}

#[test]
fn a_run_that_was_set_back_is_gone_on_with_where_it_was_started() {
    let lab = Lab::sim(1);
    let mut a = worker(&lab, "a");
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    // Others take it and are lost, one after the other.
    for _ in 0..3 {
        crate::leases::steal(&lab, "r", 1);
    }
    lab.until(120_000, &mut [&mut a], |hosts| {
        hosts[0].complete_all();
        lab.is_final("r")
    });
    assert!(a.how("r").ends_with(&[Driven::Completed]));
    lab.check();
}
