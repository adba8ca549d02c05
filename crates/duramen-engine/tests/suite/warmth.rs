//! Handlers that are kept while their runs sleep.

use duramen_core::run::Status;
use duramen_core::store::{Intervention, NewRun};
use duramen_engine::{Config, Driven};

use crate::faults::{Fault, broken, unavailable};
use crate::host::Host;
use crate::lab::{Lab, config, new_run, now};

fn naps(host: &mut Host) {
    host.program(|ctx| async move {
        ctx.step("before").await?;
        ctx.sleep(100).await?;
        ctx.step("after").await
    });
    host.engine.work(10, 20, 1_000);
}

fn keeping(lab: &Lab, warm: usize) -> Host {
    let mut host = lab.process_with(Config {
        warm,
        ..config("a")
    });
    naps(&mut host);
    host
}

#[test]
fn a_warm_run_goes_on_without_its_journal() {
    for lab in Lab::all() {
        let mut a = keeping(&lab, 4);
        a.start("r");
        lab.until(3_000, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!((a.driven, a.resumed), (1, 1));
        assert_eq!(a.store.calls_of("load"), 0);
        lab.until(100, &mut [&mut a], |hosts| hosts[0].handlers() == 0);
        lab.check();
    }
}

#[test]
fn without_room_for_warm_runs_each_is_replayed() {
    for lab in Lab::all() {
        let mut a = keeping(&lab, 0);
        a.start("r");
        lab.until(3_000, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!((a.driven, a.resumed, a.evicted.len()), (2, 0, 1));
        lab.check();
    }
}

#[test]
fn the_run_that_slept_longest_makes_room() {
    let lab = Lab::sim(1);
    let mut a = keeping(&lab, 2);
    for run_id in ["r1", "r2", "r3"] {
        a.start(run_id);
        lab.pass(5, &mut [&mut a]);
    }
    assert_eq!((a.evicted.clone(), a.handlers()), (vec![1], 2));
    lab.until(3_000, &mut [&mut a], |hosts| hosts[0].handlers() == 0);
    assert_eq!((a.driven, a.resumed), (4, 2));
    lab.check();
}

/// The claim says that the run is warm; before it is answered, another takes the room.
fn evicted_in_flight(load: impl Fn(usize) -> Fault + Send + 'static) -> (Lab, Host) {
    let lab = Lab::sim(1);
    let mut a = keeping(&lab, 1);
    a.start("r1");
    lab.until(50, &mut [&mut a], |hosts| {
        hosts[0].how("r1") == [Driven::Paused]
    });
    a.store.set(move |call| match call.method {
        "claim" => Fault::Late(50),
        "load" => load(call.number),
        _ => Fault::None,
    });
    lab.pass(110, &mut [&mut a]);
    a.start("r2");
    lab.until(20, &mut [&mut a], |hosts| {
        hosts[0].how("r2") == [Driven::Paused]
    });
    assert_eq!(a.evicted, [1]);
    (lab, a)
}

#[test]
fn a_run_that_is_evicted_while_its_claim_is_under_way_is_replayed() {
    let (lab, mut a) = evicted_in_flight(|_| Fault::None);
    lab.until(500, &mut [&mut a], |_| {
        lab.is_final("r1") && lab.is_final("r2")
    });
    assert_eq!(a.store.calls_of("load"), 1);
    assert_eq!(a.engine.active(), 0);
    lab.check();
}

#[test]
fn a_journal_that_cannot_be_read_at_once_is_asked_for_again() {
    let (lab, mut a) = evicted_in_flight(|number| {
        if number < 3 {
            Fault::Refuse(unavailable())
        } else {
            Fault::None
        }
    });
    lab.until(1_000, &mut [&mut a], |_| lab.is_final("r1"));
    assert_eq!(a.store.calls_of("load"), 4);
}

#[test]
fn a_run_whose_journal_cannot_be_read_keeps_no_place() {
    let (lab, mut a) = evicted_in_flight(|_| Fault::Refuse(broken()));
    lab.until(200, &mut [&mut a], |hosts| {
        hosts[0].store.calls_of("load") == 1
    });
    lab.until(500, &mut [&mut a], |hosts| hosts[0].engine.active() == 0);
    // It was let go, and comes back with its journal.
    lab.until(500, &mut [&mut a], |_| lab.is_final("r1"));
}

#[test]
fn a_run_that_is_claimed_before_the_host_hears_of_its_pause_leaves_no_handler_behind() {
    let lab = Lab::sim(1);
    let mut a = keeping(&lab, 4);
    lab.register(&mut a);
    a.start("r");
    a.round();
    assert_eq!(lab.status("r"), Some(Status::Waiting));
    // It sleeps in the store; the host, busy elsewhere, comes to it after the sleep is over.
    a.stopped = true;
    lab.pass(300, &mut [&mut a]);
    a.stopped = false;
    lab.until(500, &mut [&mut a], |_| lab.is_final("r"));
    lab.pass(10, &mut [&mut a]);
    assert_eq!(a.how("r"), [Driven::Paused, Driven::Completed]);
    assert_eq!((a.driven, a.resumed), (2, 0));
    assert_eq!((a.handlers(), a.engine.active()), (0, 0));
    assert_eq!(
        a.engine
            .counters()
            .lost
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
    lab.check();
}

#[test]
fn a_handler_that_was_kept_for_a_deleted_run_does_not_drive_a_new_one_of_the_same_id() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        ctx.event("x", None).await?;
        Ok(ctx.input())
    });
    a.start("r");
    lab.until(50, &mut [&mut a], |hosts| {
        hosts[0].how("r") == [Driven::Paused]
    });
    let mut b = lab.process("b");
    let delete = Intervention::Delete {
        run_id: "r".into(),
        force: true,
    };
    now(lab.store.intervene(vec![delete]));
    b.program(|ctx| async move { ctx.event("x", None).await });
    b.start_run(NewRun {
        input: "new".into(),
        seed: [8; 16],
        ..new_run("r")
    });
    lab.until(50, &mut [&mut b], |hosts| {
        hosts[0].how("r") == [Driven::Paused]
    });
    drop(b);
    a.engine.work(10, 20, 100);
    lab.send("r", "x", "1");
    lab.until(500, &mut [&mut a], |_| lab.is_final("r"));
    assert_eq!(lab.output("r"), "new");
    assert_eq!((a.resumed, a.evicted.clone()), (0, vec![1]));
}
