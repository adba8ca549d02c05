//! Who waits for answers to messages.

use duramen_core::ids::Payload;
use duramen_core::run::Status;
use duramen_core::store::{MessageKind, NewMessage, StoreError};
use duramen_engine::{Answer, Reply, Token};

use crate::faults::{Fault, broken, unavailable};
use crate::host::Host;
use crate::lab::Lab;

fn update(lab: &Lab, run_id: &str, name: &str, id: &str) -> NewMessage {
    NewMessage {
        kind: MessageKind::Update,
        message_id: id.into(),
        payload: Payload::from(id.to_owned()),
        ..lab.message(run_id, name, id)
    }
}

fn watch(host: &mut Host, run_id: &str, id: &str) -> Token {
    let token = host.token();
    host.engine.watch_answer(token, run_id.into(), id.into());
    token
}

fn answer(host: &mut Host, token: Token) -> Answer {
    match host.replies.remove(&token).expect("it was replied") {
        Ok(Reply::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

fn answered(text: &str) -> Answer {
    Answer::Answered {
        reply: Some(Payload::from(text.to_owned())),
    }
}

/// Takes updates until it is told to stop.
fn taking(host: &mut Host) {
    host.program(|ctx| async move {
        ctx.take_updates("u");
        ctx.event("stop", None).await
    });
}

#[test]
fn an_answer_that_is_given_here_is_told_at_once() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        taking(&mut a);
        a.start("r");
        lab.until(2_000, &mut [&mut a], |hosts| !hosts[0].ended.is_empty());
        a.send(update(&lab, "r", "u", "m"));
        let told = loop {
            let token = watch(&mut a, "r", "m");
            // Far less than until the next look.
            lab.until(
                if lab.sim.is_some() { 40 } else { 2_000 },
                &mut [&mut a],
                |hosts| hosts[0].replies.contains_key(&token),
            );
            let told = answer(&mut a, token);
            // The question may have overtaken the message.
            if !format!("{told:?}").contains("status: None") {
                break told;
            }
        };
        assert_eq!(told, answered("+m!"));
    }
}

#[test]
fn two_hundred_who_wait_cost_a_bounded_number_of_looks_and_are_told_by_another_process() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    b.program(|ctx| async move {
        ctx.event("go", None).await?;
        ctx.take_updates("u");
        ctx.event("stop", None).await
    });
    b.start("r");
    lab.until(2_000, &mut [&mut b], |hosts| !hosts[0].ended.is_empty());
    let ids: Vec<String> = (0..200).map(|n| format!("m{n}")).collect();
    for id in &ids {
        a.send(update(&lab, "r", "u", id));
    }
    lab.pass(100, &mut [&mut a, &mut b]);
    let tokens: Vec<Token> = ids.iter().map(|id| watch(&mut a, "r", id)).collect();
    lab.pass(5_000, &mut [&mut a, &mut b]);
    let before = a.store.total();
    lab.pass(10_000, &mut [&mut a, &mut b]);
    let spent = a.store.total() - before;
    // How the run stands, and what became of the messages.
    assert!((36..=42).contains(&spent), "{spent} calls in 10 s");
    a.send(lab.message("r", "go", "1"));
    lab.until(3_000, &mut [&mut a, &mut b], |hosts| {
        tokens
            .iter()
            .all(|token| hosts[0].replies.contains_key(token))
    });
    for (token, id) in tokens.into_iter().zip(&ids) {
        assert_eq!(answer(&mut a, token), answered(&format!("+{id}!")));
    }
    lab.pass(1_000, &mut [&mut a, &mut b]);
    let spent = a.store.total();
    lab.pass(10_000, &mut [&mut a, &mut b]);
    assert_eq!(a.store.total(), spent, "nobody waits any more");
}

#[test]
fn who_gets_no_answer_is_told_how_the_run_stands() {
    let lab = Lab::sim(1);
    let (mut a, mut b) = (lab.process("a"), lab.process("b"));
    taking(&mut b);
    b.start("r");
    lab.until(2_000, &mut [&mut b], |hosts| !hosts[0].ended.is_empty());
    a.send(update(&lab, "r", "other", "m"));
    lab.pass(100, &mut [&mut a, &mut b]);
    let unread = watch(&mut a, "r", "m");
    let nobody = watch(&mut a, "nobody", "m");
    let unsent = watch(&mut a, "r", "x");
    lab.pass(1_000, &mut [&mut a, &mut b]);
    for token in [nobody, unsent] {
        assert_eq!(answer(&mut a, token), Answer::Unanswered { status: None });
    }
    assert!(!a.replies.contains_key(&unread));
    a.send(lab.message("r", "stop", "1"));
    lab.until(2_000, &mut [&mut a, &mut b], |hosts| {
        hosts[0].replies.contains_key(&unread)
    });
    let status = Some(Status::Completed);
    assert_eq!(answer(&mut a, unread), Answer::Unanswered { status });
    // A driver that ends its own run rings.
    taking(&mut b);
    b.start("s");
    lab.until(2_000, &mut [&mut b], |hosts| hosts[0].how("s").len() == 1);
    b.send(update(&lab, "s", "other", "m"));
    let unread = watch(&mut b, "s", "m");
    b.send(lab.message("s", "stop", "1"));
    lab.until(50, &mut [&mut b], |hosts| {
        hosts[0].replies.contains_key(&unread)
    });
    assert_eq!(answer(&mut b, unread), Answer::Unanswered { status });
}

#[test]
fn trouble_of_the_place_is_waited_out_other_trouble_and_the_end_are_told() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    a.store.set(|call| match call.number {
        ..5 => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    let token = watch(&mut a, "nobody", "m");
    let forgotten = watch(&mut a, "nobody", "m");
    a.engine.unwatch_answer(forgotten);
    lab.until(6_000, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    assert_eq!(answer(&mut a, token), Answer::Unanswered { status: None });
    a.store.set(|_| Fault::Refuse(broken()));
    let token = watch(&mut a, "nobody", "m");
    lab.until(1_000, &mut [&mut a], |hosts| {
        hosts[0].replies.contains_key(&token)
    });
    assert_eq!(a.replies[&token].as_ref().unwrap_err(), &broken());
    a.store.set(|_| Fault::Late(10_000));
    let token = watch(&mut a, "nobody", "m");
    let close = a.token();
    a.engine.close(close);
    let late = watch(&mut a, "nobody", "m");
    lab.pass(10, &mut [&mut a]);
    for token in [token, late] {
        assert_eq!(a.replies[&token].as_ref().unwrap_err(), &StoreError::Closed);
    }
    assert!(!a.replies.contains_key(&forgotten));
}
