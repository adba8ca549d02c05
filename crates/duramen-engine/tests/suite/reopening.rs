//! `retry`: runs that have ended are taken up again.

use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{Intervened, Intervention};
use duramen_engine::Reply;

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::{Lab, now};

fn reopen(lab: &Lab, host: &mut Host, run_id: &str) -> Intervened {
    let token = host.token();
    host.engine.reopen(token, run_id.into(), None);
    lab.until(1_000, &mut [&mut *host], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    match host.replies.remove(&token) {
        Some(Ok(Reply::Intervened(done))) => done[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn runs_that_failed_were_cancelled_terminated_or_stuck_complete_after_reopening() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.step("first").await?;
            match &*ctx.input() {
                "failed" => ctx.step("bad").await,
                "completed" => Ok("done".into()),
                _ => ctx.event("x", None).await,
            }
        });
        let all = ["failed", "cancelled", "terminated", "stuck"];
        for run_id in all.iter().chain(&["completed"]) {
            a.start(run_id);
        }
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].ended.len() == 5);
        let cancel = lab.cancel("cancelled");
        a.send(cancel);
        lab.until(2_000, &mut [&mut a], |_| lab.is_final("cancelled"));
        let entry = Entry::new(
            Kind::RunTerminated,
            "".into(),
            "stop".into(),
            a.engine.now(),
        );
        let run_id = "terminated".into();
        now(lab.store.intervene(vec![Intervention::Terminate {
            run_id,
            entry,
            outgoing: Vec::new(),
        }]));
        drop(a);

        let mut b = lab.process("b");
        b.program(|ctx| async move { ctx.step("other").await });
        b.engine.work(10, 20, 100);
        lab.send("stuck", "x", "1");
        lab.until(2_000, &mut [&mut b], |_| {
            lab.status("stuck") == Some(Status::Stuck)
        });

        b.program(|ctx| async move {
            ctx.step("first").await?;
            if ctx.input() == "failed" {
                ctx.step("bad").await
            } else {
                ctx.event("x", None).await
            }
        });
        b.mended = true;
        for run_id in all {
            assert_eq!(reopen(&lab, &mut b, run_id), Intervened::Done, "{run_id}");
            lab.send(run_id, "x", "2");
            lab.until(2_000, &mut [&mut b], |_| {
                lab.status(run_id)
                    .is_some_and(|status| status == Status::Completed)
            });
        }
        assert_eq!(reopen(&lab, &mut b, "completed"), Intervened::NotAllowed);
        assert_eq!(reopen(&lab, &mut b, "nobody"), Intervened::NotFound);
        for run_id in all {
            assert_eq!(lab.facts.times(run_id, "first"), 1);
        }
        lab.check();
    }
}

#[test]
fn a_store_that_fails_is_reported() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.store.set(|_| Fault::Refuse(unavailable()));
    let token = a.token();
    a.engine.reopen(token, "r".into(), None);
    lab.pass(10, &mut [&mut a]);
    assert!(matches!(a.replies.get(&token), Some(Err(_))));
}
