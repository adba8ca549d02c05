//! Group commit, and what happens when something in a group is bad.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use duramen_core::store::{CommitOutcome, Store, StoreError};
use duramen_store_sqlite::{Point, Probe, SqliteOptions};

use crate::support::{
    APPLIED, Home, block_on, claim, commit, commit_one, create, entry, event, leased, new_run,
};

/// Holds the writer before its next COMMIT until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn probe(self: &Arc<Self>) -> Probe {
        let gate = Arc::clone(self);
        Probe::new(move |point| {
            let mut state = gate.state.lock().unwrap();
            if point == Point::BeforeCommit && state.0 {
                state.1 = true;
                gate.changed.notify_all();
                drop(gate.changed.wait_while(state, |state| state.0).unwrap());
            }
        })
    }

    fn close(&self) {
        *self.state.lock().unwrap() = (true, false);
    }

    fn wait_until_held(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !state.1).unwrap());
    }

    fn open(&self) {
        *self.state.lock().unwrap() = (false, false);
        self.changed.notify_all();
    }
}

fn gated(home: &Home) -> (duramen_store_sqlite::SqliteStore, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let store = home.open_with(SqliteOptions {
        probe: Some(gate.probe()),
        ..SqliteOptions::default()
    });
    (store, gate)
}

#[test]
fn what_is_asked_for_during_a_transaction_shares_the_next_one() {
    let home = Home::new();
    let (store, gate) = gated(&home);
    create(
        &store,
        (0..200).map(|n| leased(&format!("r{n}"), "ann")).collect(),
    );
    gate.close();
    let held = store.create(vec![new_run("held")]);
    gate.wait_until_held();
    let before = store.stats().transactions;
    let commits: Vec<_> = (0..200)
        .map(|n| store.commit(vec![commit(&format!("r{n}"), "ann", 1)]))
        .collect();
    gate.open();
    assert!(block_on(held).unwrap()[0].created);
    for commit in commits {
        assert_eq!(block_on(commit).unwrap(), [APPLIED]);
    }
    // The held one and one for all 200.
    assert_eq!(store.stats().transactions - before, 2);
    assert_eq!(store.stats().retried, 0);
}

#[test]
fn a_call_takes_effect_although_its_future_is_dropped() {
    let home = Home::new();
    let store = home.open();
    drop(store.create(vec![new_run("a")]));
    assert!(!block_on(store.create(vec![new_run("a")])).unwrap()[0].created);
    drop(store.create(vec![new_run("b")]));
    drop(store);
    let store = home.open();
    // The dropped store finishes beside this one; its write may come before or after this creation.
    block_on(store.create(vec![new_run("b")])).unwrap();
    assert!(block_on(store.get(vec!["b".into()])).unwrap()[0].is_some());
}

/// A journal row where the run's next commit must go: no request makes one, so the commit that hits
/// it fails by the primary key.
fn obstruct(home: &Home, run_id: &str) {
    home.connection()
        .execute(
            "INSERT INTO journal (run_id, idx, encoding, kind, op, at, payload) \
             VALUES (?1, 1, 1, 1, '', 0, x'')",
            [run_id],
        )
        .unwrap();
}

#[test]
fn a_commit_that_cannot_be_kept_fails_alone() {
    let home = Home::new();
    let (store, gate) = gated(&home);
    let names = ["a", "bad", "c", "d"];
    create(
        &store,
        names.iter().map(|name| leased(name, "ann")).collect(),
    );
    obstruct(&home, "bad");
    gate.close();
    let held = store.create(vec![new_run("held")]);
    gate.wait_until_held();
    // Neighbours in the same call, and neighbours in the same transaction.
    let mixed = store.commit(
        ["a", "bad", "c"]
            .map(|name| commit(name, "ann", 1))
            .to_vec(),
    );
    let other = store.commit(vec![commit("d", "ann", 1)]);
    let sent = store.deliver(vec![event("d", "m", "go")]);
    gate.open();
    block_on(held).unwrap();
    let mixed = block_on(mixed).unwrap();
    assert_eq!((&mixed[0], &mixed[2]), (&APPLIED, &APPLIED));
    assert!(matches!(&mixed[1], CommitOutcome::Rejected { reason } if reason.contains("UNIQUE")));
    assert_eq!(block_on(other).unwrap(), [APPLIED]);
    assert_eq!(block_on(sent).unwrap().len(), 1);
    let rows = block_on(store.get(names.map(Into::into).to_vec())).unwrap();
    let lengths: Vec<u64> = rows
        .into_iter()
        .map(|detail| detail.unwrap().row.journal_len)
        .collect();
    assert_eq!(lengths, [2, 1, 2, 2]);
}

#[test]
fn a_commit_that_does_not_fit_on_the_disk_fails_alone_and_the_store_goes_on() {
    let home = Home::new();
    let store = home.open_with(SqliteOptions {
        max_pages: Some(64),
        ..SqliteOptions::default()
    });
    create(&store, vec![leased("a", "ann"), leased("large", "ann")]);
    let mut large = commit("large", "ann", 1);
    large.entries = vec![entry("s", &vec![1; 1 << 20])];
    // Alone it is an error of the store: nothing was applied, the same call may succeed later.
    let alone = block_on(store.commit(vec![large.clone()]));
    assert!(matches!(alone, Err(StoreError::Full { reason }) if reason.contains("runs.db")));
    let outcomes = block_on(store.commit(vec![commit("a", "ann", 1), large])).unwrap();
    assert_eq!(outcomes[0], APPLIED);
    assert!(matches!(&outcomes[1], CommitOutcome::Rejected { reason } if reason.contains("full")));
    assert_eq!(commit_one(&store, commit("a", "ann", 2)), APPLIED);
    assert!(matches!(
        block_on(store.create(vec![duramen_core::store::NewRun {
            input: vec![1; 1 << 20].into(),
            ..new_run("too-large")
        }])),
        Err(StoreError::Full { .. })
    ));
    assert_eq!(
        block_on(store.get(vec!["too-large".into()])).unwrap(),
        [None]
    );
}

#[test]
fn a_panic_in_the_writer_answers_its_callers_and_the_store_goes_on() {
    let home = Home::new();
    let armed = Arc::new(AtomicBool::new(false));
    let trigger = Arc::clone(&armed);
    let store = home.open_with(SqliteOptions {
        probe: Some(Probe::new(move |point| {
            if point == Point::BeforeCommit && trigger.swap(false, Ordering::SeqCst) {
                std::panic::resume_unwind(Box::new("armed"));
            }
        })),
        ..SqliteOptions::default()
    });
    armed.store(true, Ordering::SeqCst);
    let outcome = block_on(store.create(vec![new_run("a")]));
    assert!(matches!(outcome, Err(StoreError::Other { .. })));
    // Nothing of it remains, and the next call is served.
    assert!(block_on(store.create(vec![new_run("a")])).unwrap()[0].created);
    block_on(store.close()).unwrap();
}

#[test]
fn a_panic_in_a_wake_up_costs_no_one_else_an_answer() {
    struct Bomb(AtomicUsize);
    impl std::task::Wake for Bomb {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("woken"));
        }
    }
    let home = Home::new();
    let (store, gate) = gated(&home);
    gate.close();
    let mut first = store.create(vec![new_run("a")]);
    gate.wait_until_held();
    let bomb = Arc::new(Bomb(AtomicUsize::new(0)));
    let waker = std::task::Waker::from(Arc::clone(&bomb));
    let mut context = std::task::Context::from_waker(&waker);
    assert!(first.as_mut().poll(&mut context).is_pending());
    let second = store.create(vec![new_run("b")]);
    gate.open();
    assert!(block_on(second).unwrap()[0].created);
    assert_eq!(bomb.0.load(Ordering::SeqCst), 1);
    assert!(block_on(first).unwrap()[0].created);
}

#[test]
fn a_closed_store_finishes_what_was_asked_for_and_refuses_the_rest() {
    let home = Home::new();
    let store = home.open();
    let created = store.create(vec![new_run("a")]);
    let closed = store.close();
    assert!(block_on(created).unwrap()[0].created);
    block_on(closed).unwrap();
    assert_eq!(
        block_on(store.create(vec![new_run("b")])),
        Err(StoreError::Closed)
    );
    assert_eq!(
        block_on(store.claim(claim("ann", 1))),
        Err(StoreError::Closed)
    );
    assert_eq!(block_on(store.get(Vec::new())), Err(StoreError::Closed));
    assert_eq!(block_on(store.close()), Ok(()));
    // The last connection has taken the log with it.
    let mut files: Vec<_> = std::fs::read_dir(home.directory())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["runs.db"]);
}
