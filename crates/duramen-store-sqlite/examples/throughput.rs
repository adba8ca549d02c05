//! Figures of the store alone: `cargo run --release --example throughput [DIRECTORY] [ordered] [ASLEEP]`.
//!
//! Run ids are random, which is the worst case for locality; with `ordered` as a second argument they
//! begin with the time, as generated ids do. The bare limit is measured in the same run, with
//! the same SQLite, so that ratios can be compared on a noisy machine.

#![allow(clippy::print_stdout, clippy::doc_markdown)]

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE, Lane};
use duramen_core::run::Status;
use duramen_core::store::{
    Claim, Claims, CommitOutcome, Due, Heartbeat, Inboxes, MessageKind, NewMessage, NewRun, Next,
    Queries, RunCommit, Runs, Start, Store,
};
use duramen_store_sqlite::{SqliteOptions, SqliteStore};

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Numbers {
    state: u64,
    ordered: Option<u64>,
}

impl Numbers {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn run_id(&mut self) -> RunId {
        let first = match &mut self.ordered {
            Some(count) => {
                *count += 1;
                *count
            }
            None => self.next(),
        };
        format!("{first:016x}{:016x}", self.next()).into()
    }
}

const INPUT: &[u8] = br#"{"order_id":"order-123456","items":3}"#;
const RESULT: &[u8] = br#"{"ok":true,"reference":"0123456789"}"#;

fn new_run(run_id: RunId, start: Start) -> NewRun {
    NewRun {
        run_id,
        workflow: "fulfillment".to_owned(),
        version: "1".to_owned(),
        queue: DEFAULT_QUEUE.to_owned(),
        priority: DEFAULT_PRIORITY,
        input: Payload::from_static(INPUT),
        meta: None,
        entries: Vec::new(),
        started_at: None,
        parent: None,
        root: None,
        origin: None,
        start,
        tags: Vec::new(),
        memo: None,
        timeout: None,
        seed: [3; 16],
        now: None,
    }
}

fn leased() -> Start {
    Start::Leased {
        owner: "bench".to_owned(),
    }
}

fn commit(run_id: &RunId, length: u64, entries: usize, next: Next) -> RunCommit {
    let entry = Entry::new(
        Kind::StepCompleted,
        "charge-card".into(),
        Payload::from_static(RESULT),
        1,
    );
    RunCommit {
        run_id: run_id.clone(),
        seed: [3; 16],
        owner: "bench".to_owned(),
        epoch: 1,
        expected_len: length,
        entries: vec![entry; entries],
        read: Vec::new(),
        inbox_seen: None,
        next,
        state: None,
        outgoing: Vec::new(),
        written: Vec::new(),
        format: None,
        at: 2,
    }
}

const FINISHED: Next = Next::Finished {
    status: Status::Completed,
};

fn claim(due: Due, now: i64, limit: u32) -> Claim {
    Claim {
        owner: "bench".to_owned(),
        now: Some(now),
        due,
        limit,
        lanes: vec![
            Lane {
                queue: DEFAULT_QUEUE,
                workflow: "fulfillment",
                version: "1",
                format: 1,
            }
            .key(),
        ],
        run_id: None,
        warm: Vec::new(),
        turn: 0,
        max_bytes: None,
    }
}

#[allow(clippy::cast_precision_loss)] // a figure for people
fn rate(what: &str, count: usize, took: Duration) {
    println!("{what:<58} {:>12.0} /s", count as f64 / took.as_secs_f64());
}

#[allow(clippy::cast_precision_loss)]
fn latency(what: &str, mut samples: Vec<Duration>) {
    samples.sort();
    let at = |share: usize| samples[(samples.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{what:<58} {:>9.3} ms  (p99 {:.3})", at(50), at(99));
}

fn applied(outcomes: &[CommitOutcome]) {
    assert!(
        outcomes
            .iter()
            .all(|one| matches!(one, CommitOutcome::Applied { .. }))
    );
}

/// What the machine allows: one row of 200 bytes a commit, the log synced each time.
fn bare(directory: &Path) -> Outcome<()> {
    let connection = rusqlite::Connection::open(directory.join("bare.db"))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)",
    )?;
    let mut insert = connection.prepare("INSERT INTO t (b) VALUES (?1)")?;
    let row = [1_u8; 200];
    let mut samples = Vec::new();
    for _ in 0..2_000 {
        let started = Instant::now();
        insert.execute([&row[..]])?;
        samples.push(started.elapsed());
    }
    latency("bare SQLite commit of one row", samples);
    Ok(())
}

fn creations(
    store: &SqliteStore,
    numbers: &mut Numbers,
    batch: usize,
    count: usize,
) -> Outcome<()> {
    let batches: Vec<Vec<NewRun>> = (0..count / batch)
        .map(|_| {
            (0..batch)
                .map(|_| new_run(numbers.run_id(), Start::Queued { at: Some(0) }))
                .collect()
        })
        .collect();
    let started = Instant::now();
    for batch in batches {
        block_on(store.create(batch))?;
    }
    rate(
        &format!("creations in batches of {batch}"),
        count,
        started.elapsed(),
    );
    Ok(())
}

/// Runs that are driven: `rounds` commits of `entries` each, `batch` runs at a time.
fn commits(
    store: &SqliteStore,
    numbers: &mut Numbers,
    (batch, entries, rounds): (usize, usize, usize),
    pipelined: bool,
) -> Outcome<()> {
    let run_ids: Vec<RunId> = (0..12_800).map(|_| numbers.run_id()).collect();
    for chunk in run_ids.chunks(1_000) {
        let runs = chunk
            .iter()
            .map(|id| new_run(id.clone(), leased()))
            .collect();
        block_on(store.create(runs))?;
    }
    let mut waves = Vec::new();
    for chunk in run_ids.chunks(batch) {
        for round in 0..rounds {
            let length = 1 + (round * entries) as u64;
            let next = if round + 1 == rounds {
                FINISHED
            } else {
                Next::Running
            };
            waves.push(
                chunk
                    .iter()
                    .map(|id| commit(id, length, entries, next.clone()))
                    .collect::<Vec<_>>(),
            );
        }
    }
    let count = waves.iter().map(Vec::len).sum();
    let before = store.stats().transactions;
    let started = Instant::now();
    if pipelined {
        // The next wave is handed in while this one is made durable, as an engine does.
        let mut last = None;
        for wave in waves {
            let next = store.commit(wave);
            if let Some(last) = last.replace(next) {
                applied(&block_on(last)?);
            }
        }
        if let Some(last) = last {
            applied(&block_on(last)?);
        }
    } else {
        for wave in waves {
            applied(&block_on(store.commit(wave))?);
        }
    }
    let took = started.elapsed();
    let transactions = store.stats().transactions - before;
    let how = if pipelined { ", pipelined" } else { "" };
    rate(
        &format!("commits of {entries} entries, {batch} at a time{how} ({transactions} tx)"),
        count,
        took,
    );
    Ok(())
}

/// The owner of all runs here, by any clock.
fn alive(store: &SqliteStore) -> Outcome<()> {
    let beat = block_on(store.heartbeat(Heartbeat {
        owner: "bench".to_owned(),
        lease: i64::MAX / 2,
        label: None,
        serves: Vec::new(),
        format: 1,
        succeeds: None,
        now: Some(0),
    }))?;
    assert!(beat.alive);
    Ok(())
}

/// Bytes of the log that single commits of one entry cost, and those of one step of 64 runs at a time. A reader
/// keeps the log from being begun anew, so that its length is all that was written.
#[allow(clippy::cast_precision_loss)]
fn log_bytes(directory: &Path, numbers: &mut Numbers) -> Outcome<()> {
    let file = directory.join("log.db");
    let store = SqliteStore::open(&file, SqliteOptions::default())?;
    alive(&store)?;
    // Some data, so that the pages are those of a store in use.
    for _ in 0..20 {
        let runs = (0..1_000)
            .map(|_| new_run(numbers.run_id(), Start::Queued { at: Some(0) }))
            .collect();
        block_on(store.create(runs))?;
    }
    let run_ids: Vec<RunId> = (0..64).map(|_| numbers.run_id()).collect();
    let runs = run_ids
        .iter()
        .map(|id| new_run(id.clone(), leased()))
        .collect();
    block_on(store.create(runs))?;
    let reader = rusqlite::Connection::open(&file)?;
    reader.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); BEGIN")?;
    reader.query_row("SELECT count(*) FROM runs", [], |_| Ok(()))?;
    let log = || std::fs::metadata(directory.join("log.db-wal")).map(|found| found.len());
    let before = log()?;
    for id in &run_ids {
        for length in 1..11 {
            applied(&block_on(store.commit(vec![commit(
                id,
                length,
                1,
                Next::Running,
            )]))?);
        }
    }
    let single = (log()? - before) as f64 / (64.0 * 10.0);
    let before = log()?;
    for length in 11..31 {
        let wave = run_ids
            .iter()
            .map(|id| commit(id, length, 1, Next::Running))
            .collect();
        applied(&block_on(store.commit(wave))?);
    }
    let grouped = (log()? - before) as f64 / (64.0 * 20.0);
    println!(
        "{:<58} {single:>12.0} bytes",
        "log of a single commit of 1 entry, 10 a run"
    );
    println!(
        "{:<58} {grouped:>12.0} bytes",
        "log of a commit of 1 entry, 64 at a time"
    );
    drop(reader);
    block_on(store.close())?;
    Ok(())
}

fn single(store: &SqliteStore, numbers: &mut Numbers) -> Outcome<()> {
    let run_id = numbers.run_id();
    block_on(store.create(vec![new_run(run_id.clone(), leased())]))?;
    let mut samples = Vec::new();
    for length in 1..2_001 {
        let commit = vec![commit(&run_id, length, 1, Next::Running)];
        let started = Instant::now();
        applied(&block_on(store.commit(commit))?);
        samples.push(started.elapsed());
    }
    latency("single commit of 1 entry", samples);
    Ok(())
}

fn claims(store: &SqliteStore, numbers: &mut Numbers, asleep: usize) -> Outcome<()> {
    let later = 4_000_000_000_000;
    let run_ids: Vec<RunId> = (0..asleep).map(|_| numbers.run_id()).collect();
    for chunk in run_ids.chunks(1_000) {
        let runs = chunk
            .iter()
            .map(|id| new_run(id.clone(), leased()))
            .collect();
        block_on(store.create(runs))?;
        let sleeps = chunk
            .iter()
            .zip(0_i64..)
            .map(|(id, n)| {
                let ready_at = Some(later + n);
                let waits = vec!["timer".to_owned()];
                commit(id, 1, 1, Next::Waiting { ready_at, waits })
            })
            .collect();
        applied(&block_on(store.commit(sleeps))?);
    }
    // What the events before left due.
    block_on(store.claim(claim(Due::Any, 2_000_000_000_000, u32::MAX)))?;
    let mut samples = Vec::new();
    for _ in 0..500 {
        let started = Instant::now();
        let claimed = block_on(store.claim(claim(Due::Wake, 2_000_000_000_000, 25)))?;
        samples.push(started.elapsed());
        assert!(claimed.runs.is_empty());
    }
    latency(&format!("empty claim, {asleep} asleep"), samples);
    let mut samples = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        let claimed = block_on(store.claim(claim(Due::Wake, later + 2_000, 25)))?;
        samples.push(started.elapsed());
        assert_eq!(claimed.runs.len(), 25);
    }
    latency(&format!("claim of 25 due, {asleep} asleep"), samples);
    Ok(())
}

fn events(store: &SqliteStore, numbers: &mut Numbers) -> Outcome<()> {
    let run_ids: Vec<RunId> = (0..6_400).map(|_| numbers.run_id()).collect();
    for chunk in run_ids.chunks(800) {
        let runs = chunk
            .iter()
            .map(|id| new_run(id.clone(), leased()))
            .collect();
        block_on(store.create(runs))?;
        let waits = vec!["event:paid".to_owned()];
        let next = Next::Waiting {
            ready_at: None,
            waits,
        };
        applied(&block_on(
            store.commit(
                chunk
                    .iter()
                    .map(|id| commit(id, 1, 1, next.clone()))
                    .collect(),
            ),
        )?);
    }
    let started = Instant::now();
    for chunk in run_ids.chunks(64) {
        let messages = chunk
            .iter()
            .map(|run_id| NewMessage {
                run_id: run_id.clone(),
                message_id: "m-1".to_owned(),
                kind: MessageKind::Event,
                name: "paid".to_owned(),
                payload: Payload::from_static(RESULT),
                fingerprint: None,
                encoding: 1,
                now: None,
            })
            .collect();
        block_on(store.deliver(messages))?;
    }
    rate(
        "events to waiting runs, 64 at a time",
        run_ids.len(),
        started.elapsed(),
    );
    Ok(())
}

fn long_journal(store: &SqliteStore, numbers: &mut Numbers) -> Outcome<()> {
    let run_id = numbers.run_id();
    block_on(store.create(vec![new_run(run_id.clone(), leased())]))?;
    let mut length = 1;
    let started = Instant::now();
    for _ in 0..100 {
        applied(&block_on(store.commit(vec![commit(
            &run_id,
            length,
            1_000,
            Next::Running,
        )]))?);
        length += 1_000;
    }
    rate(
        "entries appended to one journal, 1000 a commit",
        100_000,
        started.elapsed(),
    );
    let started = Instant::now();
    let entries = block_on(store.load(run_id, 0, u32::MAX))?;
    rate(
        "entries loaded from a journal of 100,001",
        entries.len(),
        started.elapsed(),
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let place = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let directory = tempfile::tempdir_in(place)?;
    bare(directory.path())?;
    let store = SqliteStore::open(&directory.path().join("runs.db"), SqliteOptions::default())?;
    let ordered = std::env::args()
        .nth(2)
        .is_some_and(|word| word == "ordered");
    let mut numbers = Numbers {
        state: 1,
        ordered: ordered.then_some(0x0190_0000_0000),
    };
    alive(&store)?;
    log_bytes(directory.path(), &mut numbers)?;
    single(&store, &mut numbers)?;
    commits(&store, &mut numbers, (64, 2, 1), false)?;
    commits(&store, &mut numbers, (64, 2, 10), false)?;
    commits(&store, &mut numbers, (64, 2, 10), true)?;
    commits(&store, &mut numbers, (1_000, 2, 10), false)?;
    creations(&store, &mut numbers, 64, 64_000)?;
    creations(&store, &mut numbers, 1_000, 100_000)?;
    events(&store, &mut numbers)?;
    let asleep = std::env::args()
        .nth(3)
        .map_or(Ok(200_000), |count| count.parse())?;
    claims(&store, &mut numbers, asleep)?;
    commits(&store, &mut numbers, (64, 2, 10), true)?;
    long_journal(&store, &mut numbers)?;
    block_on(store.close())?;
    Ok(())
}
