//! Who waits for the ends of runs.

use duramen_core::run::Status;
use duramen_core::store::{Intervention, StoreError};
use duramen_engine::{Reply, Token};

use crate::faults::{Fault, broken, unavailable};
use crate::host::Host;
use crate::lab::{Lab, now};

fn ended(host: &mut Host, token: Token) -> Option<Status> {
    match host
        .replies
        .remove(&token)
        .expect("it was replied")
        .unwrap()
    {
        Reply::Ended(status) => status,
        other => panic!("{other:?}"),
    }
}

fn watch(host: &mut Host, run_id: &str) -> Token {
    let token = host.token();
    host.engine.watch_end(token, run_id.into());
    token
}

fn slow(host: &mut Host) {
    host.program(|ctx| async move {
        if ctx.input().starts_with("bad") {
            ctx.step("slow-bad").await?;
            return ctx.step("bad").await;
        }
        ctx.step("slow").await
    });
}

#[test]
fn two_hundred_who_wait_cost_a_bounded_number_of_looks() {
    for spread in [1, 200, 3_000] {
        let lab = Lab::sim(1);
        let (mut a, mut b) = (lab.process("a"), lab.process("b"));
        slow(&mut b);
        let ids: Vec<String> = (0..spread).map(|n| format!("r{n:04}")).collect();
        for run_id in &ids {
            b.start(run_id);
        }
        lab.until(1_000, &mut [&mut b], |hosts| hosts[0].in_flight() == spread);
        let waits = spread.max(200);
        let tokens: Vec<Token> = (0..waits)
            .map(|n| watch(&mut a, &ids[n % spread]))
            .collect();
        assert_eq!(a.engine.watching(), waits);
        lab.pass(5_000, &mut [&mut a, &mut b]);
        let before = a.store.total();
        lab.pass(10_000, &mut [&mut a, &mut b]);
        let spent = a.store.total() - before;
        let (least, most) = if spread > 1_000 { (70, 100) } else { (18, 21) };
        assert!(
            (least..=most).contains(&spent),
            "{spent} calls in 10 s for {spread} runs"
        );
        assert!(a.replies.is_empty());
        b.complete_all();
        // A round of looks, however many there are.
        lab.until(800, &mut [&mut a, &mut b], |hosts| {
            hosts[0].replies.len() == waits
        });
        for token in tokens {
            assert_eq!(ended(&mut a, token), Some(Status::Completed));
        }
        assert_eq!(a.engine.watching(), 0);
        let spent = a.store.total();
        lab.pass(10_000, &mut [&mut a, &mut b]);
        assert_eq!(a.store.total(), spent, "nobody waits any more");
    }
}

#[test]
fn the_end_of_a_run_that_is_driven_here_is_told_at_once_and_without_a_look() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        slow(&mut a);
        for run_id in ["r", "bad"] {
            a.start(run_id);
        }
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].in_flight() == 2);
        let before = a.store.calls_of("standing");
        let failed = watch(&mut a, "bad");
        let tokens: Vec<Token> = (0..200).map(|_| watch(&mut a, "r")).collect();
        lab.pass(300, &mut [&mut a]);
        assert_eq!(a.store.calls_of("standing"), before);
        a.complete_all();
        lab.until(1_000, &mut [&mut a], |hosts| hosts[0].ended.len() == 2);
        lab.pass(5, &mut [&mut a]);
        assert_eq!(ended(&mut a, failed), Some(Status::Failed));
        for token in tokens {
            assert_eq!(ended(&mut a, token), Some(Status::Completed));
        }
        assert_eq!(a.store.calls_of("standing"), before);
    }
}

#[test]
fn what_has_ended_is_parked_or_was_never_there_is_told_soon() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    b.program(|ctx| async move {
        if ctx.input() == "stuck" {
            return std::future::pending().await;
        }
        ctx.step("one").await
    });
    for run_id in ["done", "stuck"] {
        b.start(run_id);
    }
    lab.until(100, &mut [&mut b], |hosts| hosts[0].ended.len() == 2);
    let tokens = ["done", "stuck", "nobody"].map(|run_id| watch(&mut a, run_id));
    lab.until(5, &mut [&mut a], |hosts| hosts[0].replies.len() == 3);
    let ends = tokens.map(|token| ended(&mut a, token));
    assert_eq!(ends, [Some(Status::Completed), Some(Status::Stuck), None]);
    assert!(a.store.calls_of("standing") <= 2);
}

#[test]
fn a_run_that_others_delete_under_its_driver_is_told_of_within_about_a_lease() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    slow(&mut a);
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    let token = watch(&mut a, "r");
    let delete = Intervention::Delete {
        run_id: "r".into(),
        force: true,
    };
    now(lab.store.intervene(vec![delete]));
    lab.until(4_000, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    assert_eq!(ended(&mut a, token), None);
    assert_eq!(a.in_flight(), 0);
}

#[test]
fn who_waits_no_more_is_forgotten() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    slow(&mut b);
    b.start("r");
    lab.until(100, &mut [&mut b], |hosts| hosts[0].in_flight() == 1);
    let (first, second) = (watch(&mut a, "r"), watch(&mut a, "r"));
    lab.pass(1_000, &mut [&mut a, &mut b]);
    a.engine.unwatch_end(first);
    a.engine.unwatch_end(999);
    b.complete("slow");
    lab.until(600, &mut [&mut a, &mut b], |hosts| {
        !hosts[0].replies.is_empty()
    });
    assert_eq!(ended(&mut a, second), Some(Status::Completed));
    lab.pass(1_000, &mut [&mut a, &mut b]);
    assert!(a.replies.is_empty());
}

#[test]
fn trouble_of_the_place_is_waited_out_and_other_trouble_is_told() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.store.set(|call| match call.number {
        ..5 => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    let token = watch(&mut a, "nobody");
    lab.until(2_000, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    assert_eq!(ended(&mut a, token), None);
    a.store.set(|_| Fault::Refuse(broken()));
    let token = watch(&mut a, "nobody");
    lab.until(1_000, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    assert_eq!(a.replies[&token].as_ref().unwrap_err(), &broken());
    a.store.set(|_| Fault::Late(10_000));
    let token = watch(&mut a, "nobody");
    let close = a.token();
    a.engine.close(close);
    let late = watch(&mut a, "nobody");
    lab.pass(10, &mut [&mut a]);
    for token in [token, late] {
        assert_eq!(a.replies[&token].as_ref().unwrap_err(), &StoreError::Closed);
    }
}
