//! Long inboxes: what a claim leaves behind comes in pages, and what was told is not told again.

use std::sync::atomic::Ordering;

use duramen_core::run::Status;
use duramen_core::store::INBOX_PAGE;
use duramen_engine::{Config, Driven};

use crate::faults::{Fault, broken, unavailable};
use crate::host::Host;
use crate::lab::{Lab, config};

const LEASE: i64 = 3_000;

/// A run that waits for the last of many messages, most of which nobody asks for.
fn long(lab: &Lab, count: usize) {
    lab.enqueue(&["r"]);
    for n in 0..count {
        lab.send("r", "later", &n.to_string());
    }
    lab.send("r", "last", "here");
}

fn waits(host: &mut Host) {
    host.program(|ctx| async move {
        let got = ctx.event("last", None).await?;
        ctx.step("heard").await?;
        Ok(got)
    });
}

#[test]
fn a_run_knows_all_of_its_inbox_before_it_pauses() {
    for lab in Lab::all() {
        long(&lab, 2 * INBOX_PAGE + 500);
        let mut a = lab.process("a");
        waits(&mut a);
        a.engine.work(10, 20, 500);
        lab.until(5_000, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(lab.output("r"), "here");
        assert_eq!(a.how("r"), [Driven::Completed]);
        assert_eq!(a.pages, 2);
    }
}

#[test]
fn an_inbox_of_which_some_was_read_is_whole_and_its_run_pauses() {
    for warm in [0, 16] {
        let lab = Lab::sim(1);
        lab.enqueue(&["r"]);
        for n in 0..2 * INBOX_PAGE {
            // What is read first leaves a gap in the second page.
            let name = if n == INBOX_PAGE + 500 {
                "first"
            } else {
                "later"
            };
            lab.send("r", name, &n.to_string());
        }
        let mut a = lab.process_with(Config {
            warm,
            ..config("a")
        });
        a.program(|ctx| async move {
            ctx.event("first", None).await?;
            ctx.event("second", None).await?;
            ctx.event("third", None).await
        });
        a.engine.work(10, 20, 500);
        for name in ["second", "third"] {
            lab.until(1_000, &mut [&mut a], |_| {
                lab.status("r") == Some(Status::Waiting)
            });
            lab.pass(1_000, &mut [&mut a]);
            lab.send("r", name, "1");
            lab.pass(1_000, &mut [&mut a]);
        }
        lab.until(1_000, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(a.how("r").len(), 3);
    }
}

#[test]
fn what_arrives_while_pages_are_read_is_told_once() {
    for seed in 1..10 {
        let lab = Lab::sim(seed);
        long(&lab, 2 * INBOX_PAGE + 500);
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.step("slow").await?;
            let mut got = Vec::new();
            for _ in 0..3 {
                got.push(ctx.event("fresh", None).await?);
            }
            Ok(got.join(" "))
        });
        a.store.set(|call| match call.method {
            "inbox" => Fault::Late(120),
            _ => Fault::None,
        });
        a.engine.work(10, 20, 500);
        lab.until(500, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        for n in 0..3 {
            lab.send("r", "fresh", &n.to_string());
            lab.pass(i64::try_from(seed * 20).unwrap(), &mut [&mut a]);
        }
        lab.pass(1_000, &mut [&mut a]);
        a.complete("slow");
        lab.until(500, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(lab.output("r"), "0 1 2");
    }
}

#[test]
fn a_page_that_cannot_be_read_is_read_again_and_one_that_never_can_loses_the_run() {
    for forever in [false, true] {
        let lab = Lab::sim(1);
        long(&lab, INBOX_PAGE + 500);
        let mut a = lab.process("a");
        waits(&mut a);
        a.store.set(move |call| match (call.method, call.number) {
            ("inbox", _) if forever => Fault::Refuse(broken()),
            ("inbox", ..4) => Fault::Refuse(unavailable()),
            _ => Fault::None,
        });
        a.engine.work(10, 20, 500);
        if forever {
            lab.until(500, &mut [&mut a], |hosts| {
                hosts[0].how("r") == [Driven::Lost]
            });
            assert_eq!((a.engine.active(), a.handlers()), (0, 0));
            a.store.set(|_| Fault::None);
        }
        lab.until(2 * LEASE, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(lab.output("r"), "here");
    }
}

#[test]
fn messages_that_were_told_do_not_come_with_each_look() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        ctx.step("slow-1").await?;
        ctx.step("slow-2").await
    });
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    for n in 0..300 {
        lab.send("r", "later", &n.to_string());
    }
    let read = |a: &Host| a.store.read.load(Ordering::Relaxed);
    lab.pass(10_000, &mut [&mut a]);
    assert_eq!((a.told, read(&a)), (1, 300));
    // Once a commit has told the store, it knows by itself.
    a.complete("slow-1");
    lab.pass(10_000, &mut [&mut a]);
    lab.send("r", "later", "more");
    lab.pass(10_000, &mut [&mut a]);
    assert_eq!((a.told, read(&a)), (2, 301));
}
