//! Children: created, driven and told of from process to process.

use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{Intervened, UnsentAsk};
use duramen_engine::Reply;

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::{Lab, now};
use crate::toy::{Ctx, Job, join};

/// What runs do by their input: a parent has the ids of its children in it, a child says how it ends.
async fn program(ctx: Ctx) -> Result<String, String> {
    let input = ctx.input();
    match input.split_once(' ') {
        Some(("parent", count)) => {
            let children = (0..count.parse::<usize>().unwrap()).map(|n| {
                let ctx = ctx.clone();
                let child = async move { ctx.child(None, &format!("done {n}")).await };
                Box::pin(child) as Job
            });
            let ends: Result<Vec<_>, _> = join(children.collect()).await.into_iter().collect();
            Ok(ends?.len().to_string())
        }
        Some(("of", child)) => ctx.child(Some("child"), child).await,
        Some(("above", child)) => ctx.child(Some("middle"), &format!("of {child}")).await,
        Some(("leaves", child)) => {
            ctx.start(Some("left"), child).unwrap();
            Ok("gone".into())
        }
        _ if input == "waits" => ctx.event("x", None).await,
        _ if input == "bad" => ctx.step("bad").await,
        _ => Ok(input),
    }
}

fn process(lab: &Lab, name: &str) -> Host {
    let mut a = lab.process(name);
    a.program(program);
    a
}

fn start(lab: &Lab, host: &mut Host, run_id: &str, input: &str) {
    host.start_run(duramen_core::store::NewRun {
        input: input.to_owned().into(),
        now: lab.instant(),
        ..crate::lab::new_run(run_id)
    });
}

fn unsent(lab: &Lab) -> usize {
    let ask = UnsentAsk {
        before: i64::MAX,
        run_id: None,
        limit: 1_000,
    };
    now(lab.store.unsent(ask)).len()
}

fn answer(lab: &Lab, host: &mut Host, token: u64) -> Intervened {
    lab.until(2_000, &mut [&mut *host], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    match host.replies.remove(&token) {
        Some(Ok(Reply::Intervened(done))) => done[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_goes_on_with_a_parent_goes_on_with_its_children_also_when_it_has_ended() {
    for lab in Lab::all() {
        let mut a = process(&lab, "a");
        start(&lab, &mut a, "p", "above done 1");
        start(&lab, &mut a, "q", "leaves waits");
        lab.until(4_000, &mut [&mut a], |_| {
            lab.is_final("p") && lab.is_final("q") && lab.status("left") == Some(Status::Waiting)
        });
        assert_eq!(lab.output("p"), "done 1");
        assert_eq!(lab.detail("middle").unwrap().row.root.as_deref(), Some("p"));
        lab.until(4_000, &mut [&mut a], |_| unsent(&lab) == 0);
    }
}

#[test]
fn a_thousand_children_cost_a_handful_of_commits_and_calls() {
    let lab = Lab::sim(1);
    let mut a = process(&lab, "a");
    lab.register(&mut a);
    let mut b = process(&lab, "b");
    lab.register(&mut b);
    b.engine.work(200, 20, 1_000);
    start(&lab, &mut a, "p", "parent 1000");
    lab.until(20_000, &mut [&mut a], |_| {
        lab.status("p/child-1000").is_some()
    });
    let (commits, creations) = (a.store.calls_of("commit"), a.store.calls_of("create"));
    assert!(commits <= 4, "{commits} commits");
    assert!(creations <= 4, "{creations} creations");
    assert!(a.store.calls_of("sent") <= 4);
    lab.until(60_000, &mut [&mut a, &mut b], |_| lab.is_final("p"));
    assert_eq!(lab.output("p"), "1000");
}

#[test]
fn a_child_that_is_terminated_or_deleted_tells_its_parent() {
    for lab in Lab::all() {
        for (deleted, ended) in [
            (false, "terminated: enough"),
            (true, "deleted: \"it was deleted\""),
        ] {
            let parent = format!("p{deleted}");
            let mut a = process(&lab, &parent);
            start(&lab, &mut a, &parent, "of waits");
            lab.until(4_000, &mut [&mut a], |_| {
                lab.status(&parent) == Some(Status::Waiting)
                    && lab.status("child") == Some(Status::Waiting)
            });
            let token = a.token();
            if deleted {
                a.engine.delete(token, "child".into(), true);
            } else {
                let kind = Kind::RunTerminated;
                let entry = Entry::new(kind, "".into(), "enough".into(), a.engine.now());
                a.engine.terminate(token, "child".into(), entry);
            }
            assert_eq!(answer(&lab, &mut a, token), Intervened::Done);
            lab.until(4_000, &mut [&mut a], |_| lab.is_final(&parent));
            assert_eq!(lab.output(&parent), ended);
            assert_eq!(unsent(&lab), 0);
            let token = a.token();
            a.engine.delete(token, "child".into(), true);
            answer(&lab, &mut a, token);
        }
    }
}

#[test]
fn an_id_that_is_taken_is_told_to_the_parent_and_its_run_left_alone() {
    for lab in Lab::all() {
        let mut a = process(&lab, "a");
        start(&lab, &mut a, "child", "somebody else's");
        lab.until(4_000, &mut [&mut a], |_| lab.is_final("child"));
        start(&lab, &mut a, "p", "of done");
        lab.until(4_000, &mut [&mut a], |_| lab.is_final("p"));
        assert_eq!(lab.output("p"), "conflict: ");
        assert_eq!(lab.output("child"), "somebody else's");
    }
}

#[test]
fn whatever_answer_is_lost_a_parent_hears_once_of_each_child() {
    for method in ["commit", "create", "deliver", "sent"] {
        for kind in [true, false] {
            let lab = Lab::sim(1);
            let mut a = process(&lab, "a");
            start(&lab, &mut a, "p", "parent 3");
            a.store.set(move |call| {
                if call.method != method || call.number % 3 == 0 {
                    Fault::None
                } else if kind {
                    Fault::Lose(unavailable())
                } else {
                    Fault::Refuse(unavailable())
                }
            });
            lab.until(60_000, &mut [&mut a], |_| {
                lab.is_final("p") && unsent(&lab) == 0
            });
            assert_eq!(lab.output("p"), "3", "{method}");
            assert_eq!(lab.detail("p").unwrap().row.inbox_len, 3);
        }
    }
}

#[test]
fn a_retried_parent_retries_the_child_that_failed_and_asks_what_became_of_the_others() {
    for lab in Lab::all() {
        let mut a = process(&lab, "a");
        start(&lab, &mut a, "p", "above bad");
        lab.until(4_000, &mut [&mut a], |_| lab.is_final("p"));
        assert_eq!(lab.status("p"), Some(Status::Failed));
        assert_eq!(lab.status("child"), Some(Status::Failed));
        let mut b = lab.process("b");
        // The code is mended.
        b.program(|ctx| async move {
            if ctx.input() == "bad" {
                return ctx.step("good").await;
            }
            program(ctx).await
        });
        drop(a);
        let token = b.token();
        lab.register(&mut b);
        b.engine.work(10, 20, 1_000);
        b.engine.reopen(token, "p".into(), None);
        assert_eq!(answer(&lab, &mut b, token), Intervened::Done);
        lab.until(8_000, &mut [&mut b], |_| {
            lab.status("p") == Some(Status::Completed)
        });
        assert_eq!(lab.status("middle"), Some(Status::Completed));
    }
}

#[test]
fn a_parent_that_was_terminated_and_retried_learns_what_its_child_did_meanwhile() {
    for lab in Lab::all() {
        let mut a = process(&lab, "a");
        lab.register(&mut a);
        a.engine.work(10, 20, 1_000);
        start(&lab, &mut a, "p", "of waits");
        lab.until(4_000, &mut [&mut a], |_| {
            lab.status("p") == Some(Status::Waiting) && lab.status("child") == Some(Status::Waiting)
        });
        let entry = Entry::new(Kind::RunTerminated, "".into(), "".into(), a.engine.now());
        let token = a.token();
        a.engine.terminate(token, "p".into(), entry);
        answer(&lab, &mut a, token);
        lab.send("child", "x", "late");
        lab.until(4_000, &mut [&mut a], |_| {
            lab.is_final("child") && unsent(&lab) == 0
        });
        let token = a.token();
        a.engine.reopen(token, "p".into(), None);
        answer(&lab, &mut a, token);
        lab.until(4_000, &mut [&mut a], |_| {
            lab.status("p") == Some(Status::Completed)
        });
        assert_eq!(lab.output("p"), "late");
    }
}
