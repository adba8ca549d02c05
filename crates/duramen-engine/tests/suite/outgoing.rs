//! What leaves a run with a commit is carried out after it, by whoever made the commit or finds it.

use duramen_core::ids::{Millis, Payload};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{
    Created, NewRun, Next, Outgoing, OutgoingKind, RunCommit, Start, Unsent, UnsentAsk,
};

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::{Lab, new_run, now};

const LEASE: Millis = 3_000;

fn unsent(lab: &Lab) -> Vec<Unsent> {
    now(lab.store.unsent(UnsentAsk {
        before: Millis::MAX,
        run_id: None,
        limit: 1_000,
    }))
}

/// A process that holds a run, which nobody drives.
fn holder(lab: &Lab, name: &str, run_id: &str) -> Host {
    let mut a = lab.process(name);
    a.program(|ctx| async move {
        if ctx.input().starts_with("child") {
            return ctx.event("x", None).await;
        }
        ctx.event("never", None).await
    });
    lab.register(&mut a);
    let run = NewRun {
        start: Start::Leased { owner: name.into() },
        now: lab.instant(),
        ..new_run(run_id)
    };
    assert!(matches!(
        now(lab.store.create(vec![run]))[0],
        Created::Created { .. }
    ));
    a
}

/// A commit of that run with what leaves it.
fn submit(lab: &Lab, host: &Host, run_id: &str, outgoing: Vec<Outgoing>) {
    let row = lab.detail(run_id).unwrap().row;
    let length = now(lab.store.standing(vec![run_id.into()]))[0]
        .as_ref()
        .unwrap()
        .journal_len;
    let entry = Entry::new(
        Kind::StepCompleted,
        "s".into(),
        Payload::new(),
        lab.env.now(),
    );
    let commit = RunCommit {
        run_id: run_id.into(),
        seed: row.seed,
        owner: row.owner.unwrap(),
        epoch: row.epoch,
        expected_len: length,
        entries: vec![entry],
        read: Vec::new(),
        inbox_seen: None,
        next: Next::Running,
        state: None,
        outgoing,
        written: Vec::new(),
        format: None,
        at: lab.env.now(),
    };
    host.engine.pipeline().submit(999, commit);
    host.engine.pipeline().flush();
}

fn child(name: &str) -> Outgoing {
    Outgoing::start(&NewRun {
        parent: Some("parent".into()),
        ..new_run(name)
    })
}

fn hello(lab: &Lab, name: &str) -> Outgoing {
    Outgoing::message(&lab.message(name, "x", "hello"))
}

#[test]
fn a_child_is_created_and_then_told_in_the_order_in_which_it_left() {
    let lab = Lab::sim(1);
    let mut a = holder(&lab, "a", "parent");
    a.engine.work(10, 20, 1_000);
    submit(
        &lab,
        &a,
        "parent",
        vec![child("child"), hello(&lab, "child")],
    );
    submit(
        &lab,
        &a,
        "parent",
        vec![
            child("child2"),
            hello(&lab, "child2"),
            hello(&lab, "nobody"),
        ],
    );
    lab.until(100, &mut [&mut a], |_| {
        lab.is_final("child") && lab.is_final("child2")
    });
    assert_eq!(lab.output("child"), "hello");
    assert_eq!(
        lab.detail("child").unwrap().row.parent.as_deref(),
        Some("parent")
    );
    lab.pass(10, &mut [&mut a]);
    assert_eq!(unsent(&lab), []);
}

#[test]
fn two_hundred_children_of_one_run_and_of_many_are_all_carried_out() {
    let lab = Lab::sim(1);
    let mut a = holder(&lab, "a", "parent");
    let names: Vec<String> = (0..200).map(|n| format!("child{n}")).collect();
    submit(
        &lab,
        &a,
        "parent",
        names.iter().map(|name| child(name)).collect(),
    );
    lab.until(100, &mut [&mut a], |_| unsent(&lab).is_empty());
    assert!(
        names
            .iter()
            .all(|name| lab.status(name) == Some(Status::Queued))
    );
}

#[test]
fn whatever_answer_is_lost_each_item_takes_place_once() {
    for method in ["commit", "create", "deliver", "sent"] {
        for kind in [true, false] {
            let lab = Lab::sim(1);
            let mut a = holder(&lab, "a", "parent");
            let before = a.store.calls_of(method);
            a.store.set(move |call| {
                if call.method != method || call.number > before + 2 {
                    Fault::None
                } else if kind {
                    Fault::Lose(unavailable())
                } else {
                    Fault::Refuse(unavailable())
                }
            });
            submit(
                &lab,
                &a,
                "parent",
                vec![child("child"), hello(&lab, "child")],
            );
            lab.until(LEASE, &mut [&mut a], |_| {
                lab.detail("child").is_some_and(|it| it.row.inbox_len > 0)
                    && unsent(&lab).is_empty()
            });
            let row = lab.detail("child").unwrap().row;
            assert_eq!((row.inbox_len, row.status), (1, Status::Queued));
        }
    }
}

#[test]
fn what_a_process_that_died_has_left_behind_is_carried_out_by_another() {
    let lab = Lab::sim(1);
    let mut a = holder(&lab, "a", "parent");
    let mut b = holder(&lab, "b", "other");
    a.store.set(|call| match call.method {
        "commit" => Fault::CrashAfter,
        _ => Fault::None,
    });
    submit(
        &lab,
        &a,
        "parent",
        vec![child("child"), hello(&lab, "child")],
    );
    lab.pass(LEASE / 2, &mut [&mut a, &mut b]);
    assert_eq!((lab.status("child"), unsent(&lab).len()), (None, 2));
    lab.until(3 * LEASE, &mut [&mut b], |_| unsent(&lab).is_empty());
    assert_eq!(lab.detail("child").unwrap().row.inbox_len, 1);
}

#[test]
fn an_item_for_a_run_that_others_hold_holds_up_its_own_run_alone() {
    let lab = Lab::sim(1);
    let mut a = holder(&lab, "a", "parent");
    let second = NewRun {
        start: Start::Leased { owner: "a".into() },
        now: lab.instant(),
        ..new_run("second")
    };
    now(lab.store.create(vec![second]));
    lab.enqueue(&["held", "free"]);
    *a.store.held.lock().unwrap() = Some("held".into());
    let waits = vec![hello(&lab, "held"), hello(&lab, "free"), child("behind")];
    submit(&lab, &a, "parent", waits);
    submit(
        &lab,
        &a,
        "second",
        vec![child("child"), hello(&lab, "child")],
    );
    lab.until(100, &mut [&mut a], |_| unsent(&lab).len() == 2);
    assert_eq!(lab.detail("child").unwrap().row.inbox_len, 1);
    // What went in one call with it is out; what is of another kind waits for its turn.
    assert_eq!(lab.detail("free").unwrap().row.inbox_len, 1);
    lab.pass(LEASE, &mut [&mut a]);
    assert_eq!(lab.status("behind"), None);
    *a.store.held.lock().unwrap() = None;
    lab.until(2 * LEASE, &mut [&mut a], |_| unsent(&lab).is_empty());
    assert_eq!(lab.detail("held").unwrap().row.inbox_len, 1);
    assert_eq!(lab.detail("free").unwrap().row.inbox_len, 1);
    assert!(lab.status("behind").is_some());
}

#[test]
fn what_cannot_be_carried_out_here_is_passed_over_and_keeps_nobody_busy() {
    let lab = Lab::sim(1);
    let mut a = holder(&lab, "a", "parent");
    let item = |kind| Outgoing {
        kind,
        target: "x".into(),
        body: Payload::from_static(b"nothing"),
    };
    let mut never = lab.message("free", "x", "1");
    never.message_id = String::new();
    lab.enqueue(&["free"]);
    let items = vec![
        item(OutgoingKind::Start),
        item(OutgoingKind::Message),
        Outgoing::message(&never),
        hello(&lab, "free"),
    ];
    submit(&lab, &a, "parent", items);
    lab.until(100, &mut [&mut a], |_| unsent(&lab).len() == 3);
    assert_eq!(lab.detail("free").unwrap().row.inbox_len, 1);
    let calls = |a: &Host| a.store.calls_of("deliver") + a.store.calls_of("sent");
    let before = calls(&a);
    lab.pass(10 * LEASE, &mut [&mut a]);
    assert_eq!(calls(&a), before);
}
