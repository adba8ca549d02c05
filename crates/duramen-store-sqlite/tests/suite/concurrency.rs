//! Several threads and several stores on one file.

use std::collections::BTreeMap;
use std::sync::Mutex;

use duramen_core::ids::RunId;
use duramen_core::run::Status;
use duramen_core::store::{Claims, Due, Filter, Inboxes, Next, Queries, Runs};
use duramen_store_sqlite::{SqliteOptions, SqliteStore, Synchronous};

use crate::support::{
    APPLIED, Home, alive, block_on, claim, commit, commit_one, create, leased, new_run,
};

fn quick(home: &Home) -> SqliteStore {
    home.open_with(SqliteOptions {
        synchronous: Synchronous::Normal,
        ..SqliteOptions::default()
    })
}

/// Claims in small bites from many threads until nothing is left; says who got which run.
fn claim_everything(stores: &[&SqliteStore], threads: usize) -> BTreeMap<RunId, Vec<String>> {
    let taken: Mutex<BTreeMap<RunId, Vec<String>>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (store, taken) = (stores[thread % stores.len()], &taken);
            scope.spawn(move || {
                let owner = format!("owner-{thread}");
                alive(store, &owner);
                loop {
                    let claimed = block_on(store.claim(claim(&owner, 7))).unwrap();
                    if claimed.runs.is_empty() {
                        break;
                    }
                    let mut taken = taken.lock().unwrap();
                    for run in claimed.runs {
                        assert_eq!((run.was, run.row.epoch), (Status::Queued, 1));
                        assert_eq!(run.row.owner.as_deref(), Some(&*owner));
                        taken.entry(run.row.run_id).or_default().push(owner.clone());
                    }
                }
            });
        }
    });
    taken.into_inner().unwrap()
}

#[test]
fn each_run_is_claimed_once_whatever_the_number_of_threads() {
    let home = Home::new();
    let store = quick(&home);
    create(
        &store,
        (0..500).map(|n| new_run(&format!("r{n}"))).collect(),
    );
    let taken = claim_everything(&[&store], 8);
    assert_eq!(taken.len(), 500);
    assert!(taken.values().all(|owners| owners.len() == 1));
}

#[test]
fn two_stores_on_one_file_share_its_runs_without_claiming_one_twice() {
    let home = Home::new();
    let (one, two) = (quick(&home), quick(&home));
    create(&one, (0..250).map(|n| new_run(&format!("a{n}"))).collect());
    create(&two, (0..250).map(|n| new_run(&format!("b{n}"))).collect());
    let taken = claim_everything(&[&one, &two], 6);
    assert_eq!(taken.len(), 500);
    assert!(taken.values().all(|owners| owners.len() == 1));
    let running = Filter {
        status: vec![Status::Running],
        ..Filter::default()
    };
    assert_eq!(block_on(two.count(running)).unwrap(), 500);
}

#[test]
fn two_drivers_of_one_run_never_both_append() {
    let home = Home::new();
    let (one, two) = (quick(&home), quick(&home));
    alive(&one, "ann");
    create(&one, vec![leased("a", "ann")]);
    // Both believe that they hold the lease at the same length, as a driver and its clone would.
    let wins: usize = std::thread::scope(|scope| {
        let drive = |store| {
            move || {
                (1..200)
                    .filter(|length| commit_one(store, commit("a", "ann", *length)) == APPLIED)
                    .count()
            }
        };
        let threads = [scope.spawn(drive(&one)), scope.spawn(drive(&two))];
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    let standing = block_on(one.standing(vec!["a".into()]))
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(standing.journal_len, 1 + wins as u64);
    let entries = block_on(two.load("a".into(), 0, u32::MAX)).unwrap();
    assert_eq!(entries.len() as u64, standing.journal_len);
}

#[test]
fn a_message_between_a_drivers_last_look_and_its_pause_is_never_lost() {
    let home = Home::new();
    let store = quick(&home);
    let count = 100;
    alive(&store, "ann");
    alive(&store, "bob");
    create(
        &store,
        (0..count)
            .map(|n| leased(&format!("r{n}"), "ann"))
            .collect(),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..count {
                let message = crate::support::event(&format!("r{n}"), "m", "go");
                block_on(store.deliver(vec![message])).unwrap();
            }
        });
        scope.spawn(|| {
            for n in 0..count {
                let mut pause = commit(&format!("r{n}"), "ann", 1);
                pause.next = Next::Waiting {
                    ready_at: None,
                    waits: vec!["event:go".to_owned()],
                };
                block_on(store.commit(vec![pause])).unwrap();
            }
        });
    });
    let mut wake = claim("bob", 1_000);
    wake.due = Due::Wake;
    let claimed = block_on(store.claim(wake)).unwrap();
    assert_eq!(claimed.runs.len(), count);
    assert!(claimed.runs.iter().all(|run| run.inbox.len() == 1));
}
