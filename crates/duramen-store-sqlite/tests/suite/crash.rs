//! A process that dies at the edges of a commit: what was acknowledged is there, the rest is whole or
//! absent.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use duramen_core::store::{Inboxes, Queries, Runs, StoreFuture};
use duramen_store_sqlite::{Point, Probe, SqliteOptions, SqliteStore};

use crate::support::{APPLIED, Home, alive, block_on, commit, create, entry, event, leased};

const CHILD: &str = "DURAMEN_TEST_CRASH";

/// Dies at the given edge of the given transaction, as if the power button had been pressed on the
/// process: no destructor runs, nothing is flushed.
fn dying(point: Point, transaction: u64) -> Probe {
    let count = Arc::new(AtomicU64::new(0));
    Probe::new(move |reached| {
        if reached == Point::BeforeCommit {
            count.fetch_add(1, Ordering::SeqCst);
        }
        if reached == point && count.load(Ordering::SeqCst) == transaction {
            std::process::abort();
        }
    })
}

/// The child: commits one run's steps one after another and prints each length once it is
/// acknowledged.
fn drive(plan: &str) {
    let mut words = plan.splitn(3, ' ');
    let point = match words.next() {
        Some("before") => Point::BeforeCommit,
        _ => Point::AfterCommit,
    };
    let transaction = words.next().unwrap().parse().unwrap();
    let options = SqliteOptions {
        probe: Some(dying(point, transaction)),
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(Path::new(words.next().unwrap()), options).unwrap();
    alive(&store, "ann");
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    acknowledge(1);
    for length in 1..20_u64 {
        let mut both = ["a", "b"]
            .map(|run| commit(run, "ann", 2 * length - 1))
            .to_vec();
        for commit in &mut both {
            commit.entries = vec![entry("s", b"1"), entry("t", &[7; 5_000])];
        }
        let sent: StoreFuture<_> = store.deliver(vec![event("a", &format!("m{length}"), "go")]);
        assert_eq!(block_on(store.commit(both)).unwrap(), [APPLIED, APPLIED]);
        block_on(sent).unwrap();
        acknowledge(2 * length + 1);
    }
}

fn acknowledge(length: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "acknowledged {length}").unwrap();
    out.flush().unwrap();
}

fn die_and_look(point: &str, transaction: u64) {
    let home = Home::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::acknowledged_commits_survive_and_others_are_whole_or_absent",
        ])
        .arg("--nocapture")
        .env(
            CHILD,
            format!("{point} {transaction} {}", home.file().display()),
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let acknowledged = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .filter_map(|line| {
            // The test harness may have begun the line.
            let line = line.unwrap();
            let (_, length) = line.split_once("acknowledged ")?;
            length.parse::<u64>().ok()
        })
        .last()
        .unwrap_or(0);
    assert!(!child.wait().unwrap().success(), "the child was to die");

    if transaction >= 6 {
        assert!(acknowledged >= 3, "the child got as far as {acknowledged}");
    }
    let store = home.open();
    let found = block_on(store.standing(vec!["a".into(), "b".into()])).unwrap();
    let lengths: Vec<u64> = found
        .iter()
        .map(|standing| standing.as_ref().map_or(0, |standing| standing.journal_len))
        .collect();
    assert!(
        lengths[0] >= acknowledged,
        "{lengths:?} after {acknowledged}"
    );
    assert_eq!(lengths[0], lengths[1], "one call of one transaction");
    for (run, length) in ["a", "b"].iter().zip(&lengths) {
        let entries = block_on(store.load((*run).into(), 0, u32::MAX)).unwrap();
        assert_eq!(entries.len() as u64, *length);
        assert!(*length == 0 || length % 2 == 1, "half a commit");
        assert!(
            entries
                .iter()
                .skip(2)
                .step_by(2)
                .all(|entry| entry.payload.len() == 5_000)
        );
    }
    let check: String = home
        .connection()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    if point == "before" && transaction <= 2 {
        assert_eq!(lengths, [0, 0]);
    }
    if point == "after" && transaction == 2 {
        assert_eq!(lengths, [1, 1], "durable, though nobody was told");
    }
}

#[test]
fn acknowledged_commits_survive_and_others_are_whole_or_absent() {
    if let Ok(plan) = std::env::var(CHILD) {
        drive(&plan);
        return;
    }
    // The first is the heartbeat, the second creates the runs.
    for transaction in [1, 2, 3, 6, 12] {
        for point in ["before", "after"] {
            die_and_look(point, transaction);
        }
    }
}
