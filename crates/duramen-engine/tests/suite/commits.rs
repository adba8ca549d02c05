//! What a run costs: one commit an effect, shared by every run in flight.

use std::sync::{Arc, Mutex};

use duramen_core::derive::ValueKind;
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{Intervention, Next, RunCommit};
use duramen_engine::{Driven, Reply};

use crate::faults::Fault;
use crate::lab::Lab;
use crate::toy::{Job, join};

#[test]
fn n_sequential_steps_cost_n_commits_beside_the_creation() {
    for lab in Lab::all() {
        let mut host = lab.process("a");
        host.program(|ctx| async move {
            for n in 0..10 {
                ctx.step(&format!("s{n}")).await?;
            }
            Ok("done".into())
        });
        host.start("r");
        lab.until(5_000, &mut [&mut host], |hosts| {
            hosts[0].how("r") == [Driven::Completed]
        });
        assert_eq!(lab.output("r"), "done");
        // The last step's result and the run's end share a commit.
        assert_eq!(host.store.calls_of("commit"), 10);
        assert_eq!(host.store.calls_of("create"), 1);
        assert_eq!(host.engine.pipeline().commits(), 10);
        lab.check();
    }
}

#[test]
fn two_hundred_parallel_steps_cost_a_handful_of_commits() {
    for lab in Lab::all() {
        let mut host = lab.process("a");
        host.program(|ctx| async move {
            let steps = (0..200).map(|n| {
                let ctx = ctx.clone();
                Box::pin(async move { ctx.step(&format!("s{n}")).await }) as Job
            });
            let done = join(steps.collect()).await;
            Ok(done.len().to_string())
        });
        host.start("r");
        lab.until(5_000, &mut [&mut host], |hosts| {
            hosts[0].how("r") == [Driven::Completed]
        });
        assert_eq!(lab.output("r"), "200");
        assert!(
            host.store.calls_of("commit") <= 3,
            "{}",
            host.store.calls_of("commit")
        );
    }
}

#[test]
fn now_uuid_and_random_cost_no_commit() {
    let lab = Lab::sim(1);
    let mut host = lab.process("a");
    host.program(|ctx| async move {
        for kind in [ValueKind::Now, ValueKind::Uuid, ValueKind::Random] {
            ctx.value(kind).await?;
        }
        ctx.step("s").await?;
        ctx.value(ValueKind::Uuid).await
    });
    host.start("r");
    lab.until(5_000, &mut [&mut host], |hosts| {
        hosts[0].how("r") == [Driven::Completed]
    });
    assert_eq!(host.store.calls_of("commit"), 1);
}

#[test]
fn sixty_four_runs_in_flight_share_their_commits() {
    for lab in Lab::all() {
        let mut host = lab.process("a");
        host.program(|ctx| async move {
            for n in 0..5 {
                ctx.step(&format!("s{n}")).await?;
            }
            Ok("done".into())
        });
        // Answers take a while, as they do with a disk: what comes meanwhile gathers.
        host.store.set(|call| match call.method {
            "commit" => Fault::Late(2),
            _ => Fault::None,
        });
        for n in 0..64 {
            host.start(&format!("r{n}"));
        }
        lab.until(10_000, &mut [&mut host], |hosts| hosts[0].ended.len() == 64);
        assert_eq!(host.engine.pipeline().commits(), 320);
        let batches = host.engine.pipeline().batches();
        assert!(batches <= 64, "{batches} batches for 320 commits");
        if let Some(sqlite) = &lab.sqlite {
            let transactions = sqlite.stats().transactions;
            assert!(
                transactions <= 140,
                "{transactions} transactions with 64 creations"
            );
        }
        lab.check();
    }
}

#[test]
fn a_conflict_fails_its_own_run_alone() {
    for lab in Lab::all() {
        let mut host = lab.process("a");
        host.program(|ctx| async move {
            ctx.step("slow").await?;
            Ok("done".into())
        });
        for n in 0..8 {
            host.start(&format!("r{n}"));
        }
        lab.until(5_000, &mut [&mut host], |hosts| hosts[0].in_flight() == 8);
        let token = host.token();
        let entry = Entry::new(
            Kind::RunTerminated,
            "".into(),
            "stop".into(),
            host.engine.now(),
        );
        let run_id = "r3".into();
        let terminate = Intervention::Terminate {
            run_id,
            entry,
            outgoing: Vec::new(),
        };
        let under_way = host.engine.store().intervene(vec![terminate]);
        host.engine.call(token, under_way, Reply::Intervened);
        lab.until(5_000, &mut [&mut host], |hosts| {
            hosts[0].replies.contains_key(&token)
        });
        host.complete_all();
        lab.until(5_000, &mut [&mut host], |hosts| hosts[0].ended.len() == 8);
        assert_eq!(host.how("r3"), [Driven::Lost]);
        assert_eq!(lab.status("r3"), Some(Status::Terminated));
        for n in [0, 1, 2, 4, 5, 6, 7] {
            assert_eq!(host.how(&format!("r{n}")), [Driven::Completed]);
        }
        assert_eq!(host.engine.pipeline().refused(), 1);
    }
}

#[test]
fn a_step_starts_only_when_everything_before_it_is_durable() {
    let lab = Lab::sim(1);
    let mut host = lab.process("a");
    host.program(|ctx| async move {
        ctx.step("a").await?;
        ctx.step("b").await
    });
    host.store.set(|call| match call.method {
        "commit" => Fault::Delay(50),
        _ => Fault::None,
    });
    host.start("r");
    lab.pass(40, &mut [&mut host]);
    assert_eq!(
        (lab.facts.times("r", "a"), lab.facts.times("r", "b")),
        (1, 0)
    );
    lab.until(20, &mut [&mut host], |_| lab.facts.times("r", "b") == 1);
    let recorded = lab.facts.recorded.lock().unwrap();
    assert!(recorded.contains(&("r".into(), "a".into())));
}

#[test]
fn a_store_that_answers_at_once_does_not_use_up_the_stack() {
    let lab = Lab::sim(1);
    let mut host = lab.process("a");
    let depths = Arc::new(Mutex::new(Vec::new()));
    let seen = depths.clone();
    host.store.set(move |call| {
        let here = 0_u8;
        seen.lock()
            .unwrap()
            .push(std::ptr::from_ref(&here) as usize);
        // A long line gathers behind the first batch; then each is answered at once.
        if call.number == 0 {
            Fault::Late(10)
        } else {
            Fault::None
        }
    });
    for ticket in 0..20_000 {
        let commit = RunCommit {
            run_id: format!("r{ticket}").into(),
            seed: [7; 16],
            owner: "a".into(),
            epoch: 1,
            expected_len: 1,
            entries: Vec::new(),
            read: Vec::new(),
            inbox_seen: None,
            next: Next::Running,
            state: None,
            outgoing: Vec::new(),
            written: Vec::new(),
            format: None,
            at: 0,
        };
        host.engine.pipeline().submit(ticket, commit);
    }
    lab.until(1_000, &mut [&mut host], |hosts| {
        hosts[0].engine.pipeline().commits() == 20_000
    });
    let depths = &depths.lock().unwrap()[1..];
    assert!(depths.len() > 10);
    let spread = depths.iter().max().unwrap() - depths.iter().min().unwrap();
    assert!(
        spread < 256,
        "each batch stood on {spread} bytes of the one before"
    );
}
