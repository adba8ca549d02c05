//! Locks that others hold for long: a user's transaction that has touched a run.

use std::thread::sleep;
use std::time::{Duration, Instant};

use duramen_core::store::{
    CommitOutcome, Delivery, Intervened, Intervention, RunCommit, Store, StoreError,
};
use duramen_store_postgres::{PostgresOptions, PostgresStore, Statements};
use duramen_store_testing::{
    APPLIED, claim, commit, commit_one, create, event, heartbeat, leased, new_run,
};

use crate::support::{Held, Place, block_on};

fn open(place: &Place, lock_timeout: u64, statements: Statements) -> PostgresStore {
    place.open_with(PostgresOptions {
        lock_timeout: Duration::from_millis(lock_timeout),
        statements,
        // All on one connection: who waits there is in everybody's way.
        pool_size: 1,
        ..place.options()
    })
}

fn a_held_run_does_not_hold_up_the_others(statements: Statements) {
    let place = Place::new();
    let store = open(&place, 1_000, statements);
    let ids: Vec<String> = (0..64).map(|n| format!("r{n}")).collect();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    let held = Held::new(&place, "r31");
    let commit_all = |round: u64| {
        let batch: Vec<RunCommit> = ids
            .iter()
            .map(|id| commit(id, "ann", if id == "r31" { 1 } else { round }))
            .collect();
        let since = Instant::now();
        let outcomes = block_on(store.commit(batch)).unwrap();
        for (place, outcome) in outcomes.iter().enumerate() {
            let expected = if place == 31 {
                CommitOutcome::Blocked
            } else {
                APPLIED
            };
            assert_eq!(*outcome, expected, "round {round}, element {place}");
        }
        since.elapsed()
    };
    let first = commit_all(1);
    assert!(first >= Duration::from_secs(1) && first < Duration::from_secs(5));
    // It is known now, and nobody waits for it any more.
    assert!(commit_all(2) < Duration::from_secs(1));
    let since = Instant::now();
    assert_eq!(
        commit_one(&store, commit("r31", "ann", 1)),
        CommitOutcome::Blocked
    );
    assert!(since.elapsed() < Duration::from_secs(1));
    held.let_go();
    assert_eq!(commit_one(&store, commit("r31", "ann", 1)), APPLIED);
    let before = store.stats().statements;
    assert_eq!(commit_one(&store, commit("r31", "ann", 2)), APPLIED);
    assert_eq!(store.stats().statements - before, 1, "nobody asks any more");
    assert_eq!(
        place.number("SELECT count(*) FROM {s}.runs r WHERE journal_len <> 3"),
        0
    );
}

#[test]
fn a_run_that_others_hold_does_not_hold_up_the_rest_of_its_batch() {
    a_held_run_does_not_hold_up_the_others(Statements::Named);
}

#[test]
fn nor_does_it_through_a_pooler() {
    a_held_run_does_not_hold_up_the_others(Statements::Unnamed);
}

#[test]
fn what_follows_a_blocked_commit_of_the_same_run_is_blocked_too() {
    let place = Place::new();
    let store = open(&place, 100, Statements::Named);
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    let held = Held::new(&place, "a");
    let batch = || {
        vec![
            commit("a", "ann", 1),
            commit("b", "ann", 1),
            commit("a", "ann", 2),
        ]
    };
    assert_eq!(
        block_on(store.commit(batch())).unwrap(),
        [CommitOutcome::Blocked, APPLIED, CommitOutcome::Blocked]
    );
    held.let_go();
    assert_eq!(
        block_on(store.commit(batch())).unwrap(),
        [APPLIED, CommitOutcome::Fenced, APPLIED]
    );
}

#[test]
fn requests_that_wait_for_a_lock_let_others_on_the_same_connection_go_first() {
    let place = Place::new();
    let store = open(&place, 50, Statements::Named);
    create(&store, vec![new_run("a"), leased("b", "ann")]);
    let held = Held::new(&place, "a");
    let sent = store.deliver(vec![event("a", "m", "go")]);
    held.until_waiting(1);
    for length in 1..20 {
        assert_eq!(commit_one(&store, commit("b", "ann", length)), APPLIED);
        block_on(store.heartbeat(heartbeat("ann", 60_000, None))).unwrap();
        sleep(Duration::from_millis(10));
    }
    held.let_go();
    assert_eq!(block_on(sent).unwrap()[0].result, Delivery::Buffered);
}

#[test]
fn a_claim_and_an_intervention_wait_for_as_long_as_it_takes() {
    let place = Place::new();
    let store = open(&place, 50, Statements::Named);
    create(&store, vec![new_run("a"), new_run("b")]);
    let held = Held::new(&place, "a");
    let claimed = store.claim(duramen_core::store::Claim {
        run_id: Some("a".into()),
        ..claim("ann", 1)
    });
    sleep(Duration::from_millis(300));
    held.let_go();
    assert_eq!(block_on(claimed).unwrap().runs.len(), 1);
    let held = Held::new(&place, "b");
    let deleted = store.intervene(vec![Intervention::Delete {
        run_id: "b".into(),
        force: true,
    }]);
    sleep(Duration::from_millis(300));
    held.let_go();
    assert_eq!(block_on(deleted).unwrap(), [Intervened::Done]);
}

#[test]
fn who_waits_for_a_lock_in_vain_is_told_so() {
    let place = Place::new();
    let store = place.open_with(PostgresOptions {
        lock_timeout: Duration::from_millis(50),
        timeout: Duration::from_millis(700),
        ..place.options()
    });
    create(&store, vec![new_run("a")]);
    let held = Held::new(&place, "a");
    let sent = block_on(store.deliver(vec![event("a", "m", "go")]));
    assert!(
        matches!(&sent, Err(StoreError::Unavailable { reason }) if reason.contains("lock timeout")),
        "{sent:?}"
    );
    held.let_go();
    let sent = block_on(store.deliver(vec![event("a", "m", "go")])).unwrap();
    assert_eq!(sent[0].result, Delivery::Buffered);
    // The connection was not given up for it: there is one for leases, with which a store opens, and this.
    assert_eq!(store.stats().connects, 2);
}
