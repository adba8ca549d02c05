//! Who drives a run: leases, heartbeats, fencing, and runs that nobody drives.

use std::sync::atomic::{AtomicUsize, Ordering};

use duramen_core::ids::Millis;
use duramen_core::journal::ENCODING;
use duramen_core::run::Status;
use duramen_core::store::{Claim, Due, Heartbeat};
use duramen_engine::{Config, Driven, HostEvent};

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::{Lab, config, now};

const LEASE: Millis = 3_000;

/// Whoever drives the run is taken for dead, and somebody else takes it.
pub fn steal(lab: &Lab, run_id: &str, lease: Millis) {
    static THIEVES: AtomicUsize = AtomicUsize::new(0);
    let thief = format!("thief-{}", THIEVES.fetch_add(1, Ordering::Relaxed));
    let row = lab.detail(run_id).unwrap().row;
    now(lab.store.retire(row.owner.clone().unwrap(), lab.instant()));
    now(lab.store.heartbeat(beat(lab, &thief, lease)));
    let claim = Claim {
        owner: thief,
        now: lab.instant(),
        due: Due::Any,
        limit: 1,
        lanes: vec![row.lane().key()],
        run_id: Some(run_id.into()),
        warm: Vec::new(),
        turn: 0,
        max_bytes: None,
    };
    assert_eq!(now(lab.store.claim(claim)).runs.len(), 1);
}

pub fn beat(lab: &Lab, owner: &str, lease: Millis) -> Heartbeat {
    Heartbeat {
        owner: owner.into(),
        lease,
        label: None,
        serves: Vec::new(),
        format: ENCODING,
        succeeds: None,
        now: lab.instant(),
    }
}

fn slow(host: &mut Host) {
    host.program(|ctx| async move {
        ctx.step("before").await?;
        ctx.step("slow").await?;
        ctx.step("after").await
    });
}

#[test]
fn a_zombie_is_fenced_off_and_its_run_completes_elsewhere_exactly_once() {
    for seed in 1..5 {
        let lab = Lab::sim(seed);
        let (mut a, mut b) = (lab.process("a"), lab.process("b"));
        slow(&mut a);
        slow(&mut b);
        b.engine.work(10, 20, 1_000);
        a.start("r");
        lab.until(100, &mut [&mut a, &mut b], |hosts| {
            hosts[0].is_in_flight("slow")
        });
        // Its loop is blocked while nothing waits there. It stops to renew, and b takes the run.
        a.stopped = true;
        lab.until(4 * LEASE, &mut [&mut a, &mut b], |hosts| {
            hosts[1].is_in_flight("slow")
        });
        b.complete("slow");
        lab.until(100, &mut [&mut a, &mut b], |_| lab.is_final("r"));
        a.stopped = false;
        a.complete("slow");
        lab.until(100, &mut [&mut a, &mut b], |hosts| {
            !hosts[0].ended.is_empty()
        });
        assert_eq!(a.how("r"), [Driven::Lost]);
        assert_eq!(a.engine.pipeline().refused(), 1);
        assert_eq!(b.how("r"), [Driven::Completed]);
        assert_eq!(lab.status("r"), Some(Status::Completed));
        assert_eq!(lab.facts.times("r", "before"), 1);
        assert_eq!(lab.facts.times("r", "after"), 1);
        assert_eq!((a.engine.active(), a.handlers()), (0, 0));
        lab.check();
    }
}

#[test]
fn a_step_that_was_about_to_start_does_not_once_the_lease_has_ended() {
    for seed in 1..5 {
        let lab = Lab::sim(seed);
        let (mut a, mut b) = (lab.process("a"), lab.process("b"));
        slow(&mut a);
        slow(&mut b);
        b.engine.work(10, 20, 1_000);
        a.start("r");
        lab.until(100, &mut [&mut a, &mut b], |hosts| {
            hosts[0].is_in_flight("slow")
        });
        // The commit that frees "after" lands while the process is stopped; b takes the run.
        a.complete("slow");
        a.stopped = true;
        lab.until(4 * LEASE, &mut [&mut a, &mut b], |_| lab.is_final("r"));
        a.stopped = false;
        lab.until(2 * LEASE, &mut [&mut a, &mut b], |hosts| {
            !hosts[0].ended.is_empty()
        });
        assert_eq!(a.how("r"), [Driven::Lost]);
        assert_eq!(lab.facts.times("r", "after"), 1);
        lab.check();
    }
}

#[test]
fn heartbeats_keep_the_lease_of_a_run_that_takes_long() {
    for lease in [100, LEASE] {
        let lab = Lab::sim(1);
        let config = |owner| Config {
            lease,
            ..config(owner)
        };
        let (mut a, mut b) = (lab.process_with(config("a")), lab.process_with(config("b")));
        slow(&mut a);
        b.engine.work(10, 20, 50);
        // The first run after a long rest has its first heartbeat in time too.
        lab.pass(7_777, &mut [&mut a, &mut b]);
        a.start("r");
        lab.pass(10 * lease, &mut [&mut a, &mut b]);
        assert_eq!(b.driven, 0);
        let beats = a.store.calls_of("heartbeat");
        assert!((28..=32).contains(&beats), "{beats} in ten leases");
    }
}

#[test]
fn an_idle_engine_sends_no_heartbeats() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    lab.pass(10 * LEASE, &mut [&mut a]);
    assert_eq!(a.store.total(), 0);
}

#[test]
fn a_heartbeat_finds_out_that_a_lease_is_lost() {
    for lab in Lab::all() {
        let mut a = lab.process_with(Config {
            lease: 300,
            ..config("a")
        });
        slow(&mut a);
        a.start("r");
        lab.until(2_000, &mut [&mut a], |hosts| hosts[0].is_in_flight("slow"));
        steal(&lab, "r", 1_000_000);
        lab.until(2_000, &mut [&mut a], |hosts| {
            hosts[0].how("r") == [Driven::Lost]
        });
        assert_eq!(a.lost_errors, [None]);
        assert_eq!((a.engine.active(), a.in_flight()), (0, 0));
        assert_eq!(lab.status("r"), Some(Status::Running));
    }
}

#[test]
fn heartbeats_that_fail_are_repeated_long_before_the_lease_ends() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    slow(&mut a);
    b.engine.work(10, 20, 50);
    a.store.set(|call| match call.method {
        "heartbeat" if call.number % 4 != 3 => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    a.start("r");
    lab.pass(5 * LEASE, &mut [&mut a, &mut b]);
    assert_eq!(b.driven, 0);
}

#[test]
fn a_claim_that_hangs_holds_up_no_heartbeat() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    slow(&mut a);
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].is_in_flight("slow"));
    a.store.set(|call| match call.method {
        "claim" | "next_due" | "unread" | "get" => Fault::Delay(60_000),
        _ => Fault::None,
    });
    a.engine.work(10, 20, 50);
    b.engine.work(10, 20, 50);
    lab.pass(5 * LEASE, &mut [&mut a, &mut b]);
    assert_eq!(b.driven, 0);
}

#[test]
fn a_stale_lost_never_hits_a_later_tenure() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.engine.work(10, 20, 1_000);
    a.program(|ctx| async move {
        ctx.step("slow-1").await?;
        ctx.sleep(30).await?;
        ctx.step("slow-2").await
    });
    // What is held is asked for while the run is driven, and is read while it sleeps.
    a.store.set(|call| match call.method {
        "held" => Fault::Delay(20),
        _ => Fault::None,
    });
    a.start("r");
    lab.until(2 * LEASE, &mut [&mut a], |hosts| {
        hosts[0].store.calls_of("held") == 1
    });
    a.complete("slow-1");
    lab.until(200, &mut [&mut a], |hosts| hosts[0].is_in_flight("slow-2"));
    assert_eq!((a.resumed, a.how("r")), (1, vec![Driven::Paused]));
    // The same run under the same ticket, but an earlier tenure is meant.
    for epoch in [1, 0, 3] {
        a.handle(HostEvent::Lost {
            ticket: 1,
            epoch,
            error: None,
        });
    }
    a.complete("slow-2");
    lab.until(100, &mut [&mut a], |_| lab.is_final("r"));
    assert_eq!(a.how("r"), [Driven::Paused, Driven::Completed]);
    lab.check();
}

/// A run that was leased to `a` in a call whose answer was lost, while another keeps `a` beating.
fn orphaned(method: &'static str, begin: impl Fn(&Lab, &mut Host)) {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        if ctx.input() == "busy" {
            return ctx.step("slow").await;
        }
        ctx.step("one").await?;
        ctx.step("two").await
    });
    a.start("busy");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    let before = a.store.calls_of(method);
    a.store.set(move |call| {
        if call.method == method && call.number == before {
            Fault::Lose(unavailable())
        } else {
            Fault::None
        }
    });
    begin(&lab, &mut a);
    a.engine.work(10, 20, 1_000);
    lab.until(3 * LEASE, &mut [&mut a], |_| lab.is_final("r"));
    assert_eq!(lab.status("busy"), Some(Status::Running));
    assert_eq!(lab.output("r"), "two!");
    lab.check();
}

#[test]
fn a_run_whose_claim_was_answered_to_nobody_is_driven_all_the_same() {
    orphaned("claim", |lab, _| lab.enqueue(&["r"]));
}

#[test]
fn a_run_whose_creation_was_answered_to_nobody_is_driven_all_the_same() {
    orphaned("create", |_, a| {
        a.start("r");
    });
}

#[test]
fn a_run_whose_commit_was_answered_to_nobody_is_driven_all_the_same() {
    orphaned("commit", |_, a| {
        a.start("r");
    });
}

#[test]
fn a_run_that_cannot_be_driven_here_is_let_go() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    slow(&mut a);
    slow(&mut b);
    b.engine.work(10, 20, 1_000);
    a.start("busy");
    a.start("r");
    lab.until(100, &mut [&mut a, &mut b], |hosts| {
        hosts[0].in_flight() == 2
    });
    a.abandon("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].handlers() == 1);
    assert_eq!(a.engine.active(), 1);
    lab.until(2 * LEASE, &mut [&mut a, &mut b], |hosts| {
        hosts[1].is_in_flight("slow")
    });
    assert_eq!(a.engine.active(), 1);
}

#[test]
fn a_run_that_was_started_here_and_lost_is_taken_up_again_when_nobody_else_drives_it() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    slow(&mut a);
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    steal(&lab, "r", 5_000);
    lab.until(2 * LEASE, &mut [&mut a], |hosts| {
        hosts[0].how("r") == [Driven::Lost]
    });
    lab.until(2 * LEASE, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    a.complete("slow");
    lab.until(100, &mut [&mut a], |_| lab.is_final("r"));
    assert_eq!(a.engine.followed(), 0);
    lab.check();
}

#[test]
fn a_blocked_host_gets_no_more_work() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    slow(&mut a);
    a.engine.work(10, 20, 100);
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    a.stopped = true;
    lab.pass(3 * LEASE, &mut [&mut a]);
    lab.enqueue(&["more"]);
    lab.pass(LEASE, &mut [&mut a]);
    assert_eq!(lab.status("more"), Some(Status::Queued));
    a.stopped = false;
    lab.until(LEASE, &mut [&mut a], |hosts| hosts[0].driven >= 2);
}

#[test]
fn an_instant_that_a_run_is_held_for_is_forgotten_with_the_run() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    slow(&mut a);
    for n in 0..100 {
        let mut run = crate::lab::new_run(&format!("r{n}"));
        run.timeout = Some(86_400_000);
        a.start_run(run);
    }
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 100);
    assert_eq!(a.engine.ticks(), 100);
    a.complete_all();
    lab.until(100, &mut [&mut a], |hosts| hosts[0].ended.len() == 100);
    assert_eq!(a.engine.ticks(), 0);
}
