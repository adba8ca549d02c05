//! Group commit, and what happens when something in a group is bad.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use duramen_core::store::{Claims, CommitOutcome, Inboxes, Queries, Runs, Store, StoreError};
use duramen_store_sqlite::{Point, Probe, SqliteOptions};

use crate::support::{
    APPLIED, Home, alive, block_on, claim, commit, commit_one, create, entry, event, leased,
    new_run,
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
    alive(&store, "ann");
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
    assert!(block_on(held).unwrap()[0].is_new());
    for commit in commits {
        assert_eq!(block_on(commit).unwrap(), [APPLIED]);
    }
    // The held one and one for all 200.
    assert_eq!(store.stats().transactions - before, 2);
    assert_eq!(store.stats().retried, 0);
}

#[test]
fn an_append_writes_one_page_to_the_log_and_a_heartbeat_two() {
    let home = Home::new();
    let store = home.open();
    alive(&store, "ann");
    create(
        &store,
        (0..20).map(|n| leased(&format!("r{n}"), "ann")).collect(),
    );
    let log = || {
        let name = home.directory().join("runs.db-wal");
        std::fs::metadata(name).unwrap().len()
    };
    // A page and its head.
    let frame = 4_096 + 24;
    let before = log();
    for length in 1..6 {
        assert_eq!(commit_one(&store, commit("r7", "ann", length)), APPLIED);
    }
    assert_eq!((log() - before) / frame, 5);
    let before = log();
    alive(&store, "ann");
    assert_eq!((log() - before) / frame, 2);
    // A claim and a look of a claimer that finds nothing write nothing.
    let before = log();
    assert!(
        block_on(store.claim(claim("ann", 5)))
            .unwrap()
            .runs
            .is_empty()
    );
    assert_eq!(log(), before);
}

#[test]
fn a_call_takes_effect_although_its_future_is_dropped() {
    let home = Home::new();
    let store = home.open();
    drop(store.create(vec![new_run("a")]));
    assert!(!block_on(store.create(vec![new_run("a")])).unwrap()[0].is_new());
    drop(store.create(vec![new_run("b")]));
    drop(store);
    let store = home.open();
    // The dropped store finishes beside this one; its write may come before or after this creation.
    block_on(store.create(vec![new_run("b")])).unwrap();
    assert!(block_on(store.get(vec!["b".into()])).unwrap()[0].is_some());
}

/// A rule of the file's owner that no commit of this run can keep.
fn obstruct(home: &Home, run_id: &str) {
    home.connection()
        .execute_batch(&format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON journal WHEN NEW.run_id = '{run_id}' AND NEW.idx > 0 \
             BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        ))
        .unwrap();
}

#[test]
fn a_commit_that_cannot_be_kept_fails_alone() {
    let home = Home::new();
    let (store, gate) = gated(&home);
    let names = ["a", "bad", "c", "d"];
    alive(&store, "ann");
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
    assert!(
        matches!(&mixed[1], CommitOutcome::Rejected { reason } if reason.contains("not this one"))
    );
    assert_eq!(block_on(other).unwrap(), [APPLIED]);
    assert_eq!(block_on(sent).unwrap().len(), 1);
    let found = block_on(store.standing(names.map(Into::into).to_vec())).unwrap();
    let lengths: Vec<u64> = found
        .into_iter()
        .map(|standing| standing.unwrap().journal_len)
        .collect();
    assert_eq!(lengths, [2, 1, 2, 2]);
}

#[test]
fn a_full_disk_fails_the_whole_call_and_the_store_goes_on() {
    let home = Home::new();
    let store = home.open_with(SqliteOptions {
        max_pages: Some(64),
        ..SqliteOptions::default()
    });
    alive(&store, "ann");
    create(&store, vec![leased("a", "ann"), leased("large", "ann")]);
    let mut large = commit("large", "ann", 1);
    large.entries = vec![entry("s", &vec![1; 1 << 20])];
    // Nothing is said of a commit that may succeed later, alone or with others.
    for batch in [
        vec![large.clone()],
        vec![commit("a", "ann", 1), large.clone()],
        vec![large, commit("a", "ann", 1)],
    ] {
        let outcome = block_on(store.commit(batch));
        assert!(
            matches!(&outcome, Err(StoreError::Full { reason }) if reason.contains("runs.db")),
            "{outcome:?}"
        );
    }
    assert_eq!(commit_one(&store, commit("a", "ann", 1)), APPLIED);
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
    assert!(block_on(store.create(vec![new_run("a")])).unwrap()[0].is_new());
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
    assert!(block_on(second).unwrap()[0].is_new());
    assert_eq!(bomb.0.load(Ordering::SeqCst), 1);
    assert!(block_on(first).unwrap()[0].is_new());
}

#[test]
fn a_closed_store_finishes_what_was_asked_for_and_refuses_the_rest() {
    let home = Home::new();
    let store = home.open();
    let created = store.create(vec![new_run("a")]);
    let closed = store.close();
    assert!(block_on(created).unwrap()[0].is_new());
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
