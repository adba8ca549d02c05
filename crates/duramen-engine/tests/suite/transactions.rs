//! Commits that somebody else carries out, in a transaction with data of their own.

use duramen_core::run::Status;
use duramen_core::store::CommitOutcome;
use duramen_engine::Driven;

use crate::host::Host;
use crate::lab::{Lab, now};

const LEASE: i64 = 3_000;

fn transaction(host: &mut Host) {
    host.program(|ctx| async move {
        ctx.step("before").await?;
        ctx.step("tx").await?;
        ctx.step("after").await
    });
}

#[test]
fn a_run_goes_on_when_the_transaction_has_taken_place() {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        transaction(&mut a);
        a.start("r");
        lab.until(1_000, &mut [&mut a], |hosts| !hosts[0].sealed.is_empty());
        assert_eq!(lab.facts.times("r", "after"), 0);
        let (ticket, commit) = a.sealed.remove(0);
        let outcome = now(lab.store.commit(vec![commit]));
        assert_eq!(outcome, [CommitOutcome::Applied { due: false }]);
        a.sealed(ticket, true);
        lab.until(1_000, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(a.how("r"), [Driven::Completed]);
        assert_eq!(lab.facts.times("r", "tx"), 1);
        lab.check();
    }
}

/// The connection died in the COMMIT. In a store that answers, the run goes on long before the
/// lease would end.
fn in_doubt(took_place: bool) {
    for lab in Lab::all() {
        let mut a = lab.process("a");
        transaction(&mut a);
        a.start("r");
        lab.until(1_000, &mut [&mut a], |hosts| !hosts[0].sealed.is_empty());
        let (ticket, commit) = a.sealed.remove(0);
        if took_place {
            now(lab.store.commit(vec![commit.clone()]));
        }
        a.sealed(ticket, false);
        if !took_place {
            lab.until(LEASE / 2, &mut [&mut a], |hosts| {
                !hosts[0].sealed.is_empty()
            });
            // What was in doubt can never take place any more.
            let late = now(lab.store.commit(vec![commit]));
            assert_eq!(late, [CommitOutcome::Fenced]);
            let (ticket, commit) = a.sealed.remove(0);
            now(lab.store.commit(vec![commit]));
            a.sealed(ticket, true);
        }
        lab.until(LEASE / 2, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(a.how("r"), [Driven::Lost, Driven::Completed]);
        assert_eq!(lab.status("r"), Some(Status::Completed));
        assert_eq!(lab.facts.times("r", "tx"), if took_place { 1 } else { 2 });
        assert_eq!(lab.facts.times("r", "before"), 1);
        assert_eq!((a.engine.active(), a.handlers()), (0, 0));
        lab.check();
    }
}

#[test]
fn after_a_transaction_in_doubt_that_took_place_its_function_does_not_run_again() {
    in_doubt(true);
}

#[test]
fn after_a_transaction_in_doubt_that_did_not_take_place_its_function_runs_again() {
    in_doubt(false);
}

#[test]
fn a_transaction_in_doubt_of_a_run_that_another_has_is_left_to_the_other() {
    let lab = Lab::sim(1);
    let mut a = lab.process("a");
    transaction(&mut a);
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| !hosts[0].sealed.is_empty());
    crate::leases::steal(&lab, "r", 10 * LEASE);
    let (ticket, commit) = a.sealed.remove(0);
    let refused = now(lab.store.commit(vec![commit]));
    assert_eq!(refused, [CommitOutcome::Fenced]);
    a.sealed(ticket, false);
    lab.until(100, &mut [&mut a], |hosts| !hosts[0].ended.is_empty());
    assert_eq!(a.how("r"), [Driven::Lost]);
    let row = now(lab.store.get(vec!["r".into()])).remove(0).unwrap().row;
    assert!(row.owner.is_some_and(|owner| owner.starts_with("thief")));
}
