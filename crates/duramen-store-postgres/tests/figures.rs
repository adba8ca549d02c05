//! What runs cost the server: bytes of its log, versions of rows. By themselves in a binary, because a server
//! counts what all do; the least of several rounds is judged, to which others have added nothing.

// In a test a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "suite/support.rs"]
mod support;

/// Each table is whole.
const IN_PARTS: bool = false;

use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use duramen_core::ids::Payload;
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{NewRun, Next, RunCommit, Runs, Store};
use duramen_store_postgres::PostgresStore;
use duramen_store_testing::{APPLIED, alive, beat, commit, create, leased};

use crate::support::{Place, block_on};

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const OWNER: &str = "worker-1:4242:0b5c7d";

/// Ids as the library makes them: UUIDs of version 7, which sort by the time they were made.
fn ids(from: u64, count: u64) -> Vec<String> {
    (from..from + count)
        .map(|n| {
            let (high, middle) = (0x01a1_fd90 + (n >> 16), n & 0xffff);
            let low = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (variant, rest) = (0x8000 | (low >> 50), low & 0xffff_ffff_ffff);
            format!("{high:08x}-{middle:04x}-7000-{variant:04x}-{rest:012x}")
        })
        .collect()
}

fn new_run(run_id: &str) -> NewRun {
    NewRun {
        workflow: "bench".to_owned(),
        input: Payload::from_static(b"null"),
        ..leased(run_id, OWNER)
    }
}

fn step(number: u64) -> Entry {
    let result = Payload::from_static(b"{\"i\":1}");
    Entry::new(
        Kind::StepCompleted,
        format!("step-{number}").into(),
        result,
        5,
    )
}

/// The commits of a run as the engine makes them: one for each step, the last one with the run's end.
fn commits(run_id: &str, steps: u64) -> Vec<RunCommit> {
    (1..=steps)
        .map(|number| {
            let last = number == steps;
            let mut entries = vec![step(number)];
            if last {
                let output = Payload::from_static(b"10");
                entries.push(Entry::new(Kind::RunFinished, "".into(), output, 6));
            }
            RunCommit {
                entries,
                next: if last {
                    Next::Finished {
                        status: Status::Completed,
                    }
                } else {
                    Next::Running
                },
                at: 1_700_000_000_000,
                ..commit(run_id, OWNER, number)
            }
        })
        .collect()
}

/// Runs so many at a time, from creation to end.
fn drive(store: &PostgresStore, ids: &[String], steps: u64) {
    create(store, ids.iter().map(|id| new_run(id)).collect());
    let mut runs: Vec<_> = ids
        .iter()
        .map(|id| commits(id, steps).into_iter())
        .collect();
    for _ in 0..steps {
        let batch: Vec<RunCommit> = runs.iter_mut().filter_map(Iterator::next).collect();
        let outcomes = block_on(store.commit(batch)).unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == APPLIED));
    }
}

fn wal(place: &Place) -> i64 {
    place.number("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
}

#[test]
fn a_run_writes_few_bytes_of_log() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let store = place.open();
    alive(&store, OWNER);
    let mut next = 0;
    // Grown tables: the first rows of a page bring the whole page into the log.
    drive(&store, &ids(next, 5_000), 1);
    next += 5_000;
    for (steps, together, most) in [
        (1, 1, 1_950),
        (1, 64, 1_980),
        (10, 1, 5_000),
        (10, 64, 5_000),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..31 {
            let ids = ids(next, together);
            next += together;
            let before = wal(&place);
            drive(&store, &ids, steps);
            rounds.push((wal(&place) - before) / i64::try_from(together).unwrap());
        }
        rounds.sort_unstable();
        let (least, usual) = (rounds[0], rounds[15]);
        println!(
            "{steps} step(s), {together} at a time: {usual} bytes of log a run ({least} at least)"
        );
        assert!(least <= most, "more than {most} bytes");
    }
}

/// What a table's updates were, once the store's sessions have reported what they did.
fn updates(place: &Place, table: &str, expected: i64) -> (i64, i64) {
    let counted = |what: &str| {
        place.number(&format!(
            "SELECT {what} FROM pg_stat_user_tables WHERE schemaname = '{{s}}' AND relname = '{table}'"
        ))
    };
    let since = Instant::now();
    while counted("n_tup_upd") < expected {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "nothing is reported"
        );
        sleep(Duration::from_millis(50));
    }
    (counted("n_tup_upd"), counted("n_tup_hot_upd"))
}

/// Runs that are created together stand side by side; each has a commit in each batch, and one of ten ends it.
#[test]
fn a_commit_that_appends_leaves_no_row_version_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let store = place.open();
    alive(&store, OWNER);
    let since = Instant::now();
    for batch in 0..20 {
        drive(&store, &ids(batch * 64, 64), 10);
    }
    let took = since.elapsed().as_secs_f64();
    println!("{:.0} steps a second, 64 together", 12_800.0 / took);
    block_on(store.close()).unwrap();
    let (all, _) = updates(&place, "runs", 20 * 64);
    assert_eq!(all, 1_280, "each run is rewritten once, at its end");
    let (pages, dead) = (
        place.number("SELECT pg_relation_size('{s}.runs') / 8192"),
        place.number(
            "SELECT n_dead_tup FROM pg_stat_user_tables WHERE schemaname = '{s}' AND relname = 'runs'",
        ),
    );
    println!("1280 runs, 12800 steps: {pages} pages, {dead} dead row versions");
    assert!(dead <= 1_280);
}

/// However many runs are driven.
#[test]
fn a_heartbeat_rewrites_one_row_and_no_index() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let store = place.open();
    alive(&store, OWNER);
    for batch in 0..20 {
        create(
            &store,
            ids(batch * 500, 500).iter().map(|id| new_run(id)).collect(),
        );
    }
    let mut rounds = Vec::new();
    for _ in 0..101 {
        let before = wal(&place);
        assert!(beat(&store, OWNER, 60_000, None).alive);
        rounds.push(wal(&place) - before);
    }
    rounds.sort_unstable();
    println!(
        "a heartbeat with 10000 runs in hand: {} bytes of log",
        rounds[50]
    );
    assert!(rounds[0] <= 300, "{}", rounds[0]);
    block_on(store.close()).unwrap();
    let (all, hot) = updates(&place, "owners", 101);
    assert_eq!((all, hot), (101, 101));
    let rewritten =
        "SELECT n_tup_upd FROM pg_stat_user_tables WHERE schemaname = '{s}' AND relname = 'runs'";
    assert_eq!(place.number(rewritten), 0);
}
