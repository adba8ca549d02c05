//! Hints of the store: what they make quicker, what they cost, and that nothing depends on them.

use duramen_core::store::Hint;

use crate::faults::Fault;
use crate::lab::Lab;

#[test]
fn a_hint_makes_an_idle_worker_claim_at_once() {
    for seed in 1..20 {
        let lab = Lab::sim(seed);
        let mut a = lab.process("a");
        a.engine.work(10, 20, 60_000);
        lab.pass(70_000, &mut [&mut a]);
        lab.enqueue(&["r"]);
        a.store.hint(Hint::Due);
        lab.until(5, &mut [&mut a], |_| lab.is_final("r"));
    }
}

#[test]
fn a_hint_that_comes_while_the_store_is_asked_is_kept() {
    for seed in 1..60 {
        let lab = Lab::sim(seed);
        let mut a = lab.process("a");
        a.engine.work(10, 20, 60_000);
        a.store.set(move |call| match call.method {
            "claim" | "next_due" if seed % 2 == 0 => Fault::Late(3),
            "claim" | "next_due" => Fault::Delay(3),
            _ => Fault::None,
        });
        lab.pass(70_000 + i64::try_from(seed % 10).unwrap(), &mut [&mut a]);
        a.store.hint(Hint::Due);
        lab.pass(i64::try_from(seed % 7).unwrap(), &mut [&mut a]);
        lab.enqueue(&["r"]);
        a.store.hint(Hint::Due);
        lab.until(60, &mut [&mut a], |_| lab.is_final("r"));
    }
}

#[test]
fn a_hint_makes_a_paused_run_go_on_that_got_a_message_elsewhere() {
    for seed in 1..20 {
        let lab = Lab::sim(seed);
        let mut a = lab.process("a");
        a.engine.work(10, 20, 60_000);
        a.program(|ctx| async move {
            ctx.event("x", None).await?;
            ctx.step("heard").await
        });
        lab.enqueue(&["r"]);
        lab.pass(70_000, &mut [&mut a]);
        lab.send("r", "x", "1");
        a.store.hint(Hint::Due);
        lab.until(5, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(lab.facts.times("r", "heard"), 1);
    }
}

#[test]
fn an_unread_hint_shortens_the_wait_for_a_message() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.engine.work(10, 20, 1_000);
    a.program(|ctx| async move { ctx.step("slow").await });
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    lab.pass(10_000, &mut [&mut a]);
    for n in 0..50 {
        lab.send("r", "later", &n.to_string());
        a.store.hint(Hint::Unread);
        lab.until(21, &mut [&mut a], |hosts| hosts[0].told == n + 1);
        lab.pass(137, &mut [&mut a]);
    }
}

#[test]
fn a_storm_of_hints_costs_no_more_than_one_look_a_poll() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.engine.work(10, 20, 1_000);
    a.program(|ctx| async move { ctx.step("slow").await });
    a.start("busy");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    lab.pass(5_000, &mut [&mut a]);
    let before = (a.store.calls_of("claim"), a.store.calls_of("unread"));
    for _ in 0..2_000 {
        a.store.hint(Hint::Due);
        a.store.hint(Hint::Unread);
        lab.pass(1, &mut [&mut a]);
    }
    let claims = a.store.calls_of("claim") - before.0;
    let unread = a.store.calls_of("unread") - before.1;
    assert!((90..=101).contains(&claims), "{claims} claims in 2 seconds");
    assert!(
        (90..=101).contains(&unread),
        "{unread} looks for messages in 2 seconds"
    );
}

#[test]
fn without_hints_everything_still_ends() {
    for seed in 1..20 {
        let lab = Lab::sim(seed);
        let (mut a, mut b) = (lab.process("a"), lab.process("b"));
        for host in [&mut a, &mut b] {
            host.program(|ctx| async move {
                ctx.event("x", None).await?;
                ctx.sleep(500).await?;
                ctx.step("done").await
            });
            host.engine.work(4, 20, 1_000);
        }
        lab.pass(10_000, &mut [&mut a, &mut b]);
        // By other processes, whose hints are all lost.
        let ids: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();
        lab.enqueue(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        lab.pass(3_000, &mut [&mut a, &mut b]);
        for run_id in &ids {
            lab.send(run_id, "x", "1");
        }
        lab.until(4_000, &mut [&mut a, &mut b], |_| {
            ids.iter().all(|run| lab.is_final(run))
        });
        lab.check();
    }
}

#[test]
fn an_engine_that_never_works_asks_for_no_hints() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.start("r");
    lab.until(100, &mut [&mut a], |_| lab.is_final("r"));
    assert!(a.store.watchers.lock().unwrap().is_empty());
    a.engine.work(10, 20, 1_000);
    a.engine.stop_work();
    a.engine.work(10, 20, 1_000);
    assert_eq!(a.store.watchers.lock().unwrap().len(), 1);
}

#[test]
fn hints_hold_no_engine_and_do_no_harm_when_it_is_gone() {
    let lab = Lab::memory();
    let a = lab.process("a");
    a.engine.work(10, 20, 1_000);
    let store = std::sync::Arc::clone(&a.store);
    let engine = std::sync::Arc::downgrade(&a.engine);
    drop(a);
    let begun = std::time::Instant::now();
    while engine.upgrade().is_some() {
        assert!(begun.elapsed().as_secs() < 5, "a hint holds the engine");
        std::thread::yield_now();
    }
    store.hint(Hint::Due);
    store.hint(Hint::Unread);
}
