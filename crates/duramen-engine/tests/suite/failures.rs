//! Stores that fail.

use std::sync::atomic::Ordering;

use duramen_core::store::StoreError;
use duramen_engine::{Config, Driven, Reply};

use crate::faults::{Fault, broken, unavailable};
use crate::host::Host;
use crate::lab::{Lab, config};

fn steps(host: &mut Host) {
    host.program(|ctx| async move {
        for n in 0..4 {
            ctx.step(&format!("s{n}")).await?;
        }
        Ok("done".into())
    });
}

/// The same behind a step that takes its time.
fn slow_steps(host: &mut Host) {
    host.program(|ctx| async move {
        ctx.step("slow").await?;
        for n in 0..4 {
            ctx.step(&format!("s{n}")).await?;
        }
        Ok("done".into())
    });
}

#[test]
fn commits_that_fail_for_a_while_are_repeated() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        steps(&mut a);
        a.store.set(|call| match (call.method, call.number) {
            ("commit", 1..=3) => Fault::Refuse(unavailable()),
            _ => Fault::None,
        });
        for n in 0..5 {
            a.start(&format!("r{n}"));
        }
        lab.until(3_000, &mut [&mut a], |hosts| hosts[0].ended.len() == 5);
        for n in 0..5 {
            assert_eq!(a.how(&format!("r{n}")), [Driven::Completed]);
            assert_eq!(lab.facts.times(&format!("r{n}"), "s1"), 1);
        }
        lab.check();
    }
}

#[test]
fn a_run_that_others_hold_holds_up_no_other() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        slow_steps(&mut a);
        for n in 0..5 {
            a.start(&format!("r{n}"));
        }
        lab.until(1_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 5);
        *a.store.held.lock().unwrap() = Some("r2".into());
        a.complete_all();
        lab.until(3_000, &mut [&mut a], |hosts| hosts[0].ended.len() == 4);
        assert_eq!(a.how("r2"), []);
        *a.store.held.lock().unwrap() = None;
        lab.until(5_000, &mut [&mut a], |hosts| hosts[0].ended.len() == 5);
        for n in 0..5 {
            assert_eq!(a.how(&format!("r{n}")), [Driven::Completed]);
            assert_eq!(lab.facts.times(&format!("r{n}"), "s1"), 1);
        }
        assert_eq!(a.engine.pipeline().refused(), 0);
        lab.check();
    }
}

#[test]
fn a_run_that_others_hold_for_longer_than_a_lease_is_given_up() {
    for lab in Lab::all() {
        let mut a = lab.process_with(Config {
            lease: 300,
            ..config("a")
        });
        slow_steps(&mut a);
        a.start("r");
        lab.until(1_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        *a.store.held.lock().unwrap() = Some("r".into());
        a.complete_all();
        lab.until(5_000, &mut [&mut a], |hosts| {
            hosts[0].how("r") == [Driven::Lost]
        });
        assert!(matches!(
            a.lost_errors[..],
            [Some(StoreError::Locked { .. })]
        ));
        *a.store.held.lock().unwrap() = None;
        // It is let go, and goes on.
        lab.until(5_000, &mut [&mut a], |hosts| {
            hosts[0].complete_all();
            lab.is_final("r")
        });
        lab.check();
    }
}

#[test]
fn a_store_that_fails_for_good_loses_the_run_with_the_reason() {
    for lab in Lab::all() {
        let mut a = lab.process_with(Config {
            lease: 300,
            ..config("a")
        });
        steps(&mut a);
        a.store.set(|call| match (call.method, call.number) {
            ("commit", 1) => Fault::Refuse(broken()),
            _ => Fault::None,
        });
        a.start("r");
        lab.until(2_000, &mut [&mut a], |hosts| {
            hosts[0].how("r") == [Driven::Lost]
        });
        assert_eq!(a.lost_errors, [Some(broken())]);
        assert_eq!((a.engine.active(), a.handlers()), (0, 0));
        // It is let go, and goes on.
        lab.until(5_000, &mut [&mut a], |_| lab.is_final("r"));
        lab.check();
    }
}

#[test]
fn a_store_that_is_out_for_longer_than_a_lease_loses_the_run() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    steps(&mut a);
    a.store.set(|call| match (call.method, call.number) {
        ("commit", 1..) => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    a.start("r");
    lab.until(6_000, &mut [&mut a], |hosts| {
        hosts[0].how("r") == [Driven::Lost]
    });
    assert_eq!(a.lost_errors, [Some(unavailable())]);
    let tries = a.store.calls_of("commit");
    assert!(tries < 20, "{tries} tries");
}

#[test]
fn closing_while_commits_are_under_way_ends_cleanly() {
    for lab in Lab::all() {
        let mut a = lab.process_with(Config {
            shared_store: false,
            ..config("a")
        });
        steps(&mut a);
        a.store.set(|call| match call.method {
            "commit" => Fault::Late(20),
            _ => Fault::None,
        });
        for n in 0..10 {
            a.start(&format!("r{n}"));
        }
        lab.until(1_000, &mut [&mut a], |hosts| {
            hosts[0].store.calls_of("commit") == 2
        });
        let token = a.token();
        a.engine.close(token);
        lab.until(1_000, &mut [&mut a], |hosts| {
            hosts[0].replies.contains_key(&token) && hosts[0].ended.len() == 10
        });
        assert!(matches!(a.replies.get(&token), Some(Ok(Reply::Done))));
        assert!(a.ended.iter().all(|(_, driven)| *driven == Driven::Lost));
        assert!(
            a.lost_errors
                .iter()
                .all(|error| *error == Some(StoreError::Closed))
        );
        assert_eq!(a.engine.counters().lost.load(Ordering::Relaxed), 10);
        assert_eq!(a.engine.active(), 0);
    }
}

#[test]
fn trouble_of_the_place_parks_no_run_and_all_go_on_when_it_is_over() {
    let troubles = [
        StoreError::ReadOnly {
            reason: "remounted".into(),
        },
        StoreError::Full {
            reason: "no space".into(),
        },
        StoreError::Other {
            reason: "an I/O error".into(),
        },
        unavailable(),
    ];
    for trouble in troubles {
        for span in [1_000, 2_900, 10_000] {
            let lab = Lab::clocks(1);
            let mut a = lab.process("a");
            slow_steps(&mut a);
            a.engine.work(50, 20, 1_000);
            for n in 0..20 {
                a.start(&format!("r{n}"));
            }
            lab.until(1_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 20);
            let error = trouble.clone();
            a.store.set(move |_| Fault::Refuse(error.clone()));
            let token = a.start("meanwhile");
            a.complete_all();
            lab.pass(span, &mut [&mut a]);
            a.store.set(|_| Fault::None);
            // Those that were given up are let go by the audit.
            lab.until(3 * 3_000, &mut [&mut a], |hosts| {
                hosts[0].complete_all();
                (0..20).all(|n| lab.is_final(&format!("r{n}")))
            });
            for n in 0..20 {
                let run_id = format!("r{n}");
                assert_eq!(lab.output(&run_id), "done");
                let lost = a.how(&run_id).len() > 1;
                assert_eq!(lost, span > 3_000, "{trouble:?} for {span} ms");
            }
            let started = a.replies[&token].is_ok();
            // A caller is told after two seconds or with the next try, sooner than a run is given up.
            assert!(started || span > 2_000);
            assert!(!started || span < 3_500);
            assert_eq!(lab.status("meanwhile").is_some(), started);
            lab.enqueue(&["after"]);
            lab.until(1_100, &mut [&mut a], |hosts| {
                hosts[0].complete_all();
                lab.is_final("after")
            });
            lab.check();
        }
    }
}
