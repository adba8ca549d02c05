//! How long SQLite's log becomes: it is begun anew only where nobody reads from it. By themselves in a binary: readers are
//! waited for, and beside other tests a short query would become a long one.

// In a test a panic is the report.
#![allow(clippy::unwrap_used, clippy::doc_markdown)]

#[allow(dead_code, unused_imports, reason = "shared with the other tests")]
#[path = "suite/support.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use duramen_core::store::Runs;
use duramen_store_sqlite::SqliteStore;
use rusqlite::Connection;

use crate::support::{APPLIED, Home, alive, block_on, commit, create, entry, leased};

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const MIB: u64 = 1 << 20;
/// What the log is cut back to, and what one more transaction and the pages around it come to.
const BOUND: u64 = 64 * MIB + 8 * MIB;

/// How long a reader reads beside the other one.
const QUERY: Duration = Duration::from_millis(20);

fn log(home: &Home) -> u64 {
    let name = home.directory().join("runs.db-wal");
    std::fs::metadata(name).unwrap().len()
}

/// Commits entries of one MiB; gives the greatest length that the log had after one of them.
fn write(home: &Home, store: &SqliteStore, from: u64, entries: u64) -> u64 {
    (from..from + entries)
        .map(|length| {
            let mut one = commit("r", "ann", length);
            one.entries = vec![entry(&format!("step-{length}"), &[7; 1 << 20])];
            assert_eq!(block_on(store.commit(vec![one])).unwrap(), [APPLIED]);
            log(home)
        })
        .max()
        .unwrap()
}

fn begin(reader: &Connection) {
    reader.execute_batch("BEGIN").unwrap();
    reader
        .query_row("SELECT count(*) FROM runs", [], |_| Ok(()))
        .unwrap();
}

fn end(reader: &Connection) {
    reader.execute_batch("COMMIT").unwrap();
}

#[test]
fn readers_of_which_one_always_reads_do_not_keep_the_log_growing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let home = Home::new();
    let store = home.open();
    alive(&store, "ann");
    create(&store, vec![leased("r", "ann")]);
    let (left, right) = (home.connection(), home.connection());
    begin(&left);
    let done = AtomicBool::new(false);
    let longest = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            // Each ends after the other has begun, and lasts longer than a commit takes.
            while !done.load(Ordering::Relaxed) {
                begin(&right);
                thread::sleep(QUERY);
                end(&left);
                begin(&left);
                thread::sleep(QUERY);
                end(&right);
            }
            (left, right)
        });
        let longest = write(&home, &store, 1, 200);
        done.store(true, Ordering::Relaxed);
        reading.join().unwrap();
        longest
    });
    // Where the machine is busy a reader may last for longer than it is waited for: the next try is at twice the length.
    assert!(longest < 2 * BOUND, "{} MiB", longest / MIB);
}

#[test]
fn a_log_that_grew_behind_a_long_read_is_cut_back_when_that_ends() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let home = Home::new();
    let store = home.open();
    alive(&store, "ann");
    create(&store, vec![leased("r", "ann")]);
    let reader = home.connection();
    begin(&reader);
    // Commits go on, and are not kept waiting for it each time.
    let longest = write(&home, &store, 1, 140);
    assert!(longest > 140 * MIB);
    end(&reader);
    write(&home, &store, 141, 80);
    assert!(log(&home) < BOUND, "{} MiB", log(&home) / MIB);
}
