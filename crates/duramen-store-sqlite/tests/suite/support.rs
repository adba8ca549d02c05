//! Small builders and an executor that parks its thread.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use duramen_core::ids::{Millis, Payload};
use duramen_core::journal::{Entry, Kind};
use duramen_core::store::{
    Claim, Claimed, CommitOutcome, Due, Heartbeat, MessageKind, NewMessage, NewRun, Next,
    RunCommit, Start, Store, WorkflowKey,
};
use duramen_store_sqlite::{SqliteOptions, SqliteStore};
use tempfile::TempDir;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
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

/// A directory with a store's file in it; gone at the end of the test.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("runs.db")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn open(&self) -> SqliteStore {
        self.open_with(SqliteOptions::default())
    }

    pub(crate) fn open_with(&self, options: SqliteOptions) -> SqliteStore {
        SqliteStore::open(&self.file(), options).unwrap()
    }

    /// A connection of the test's own, beside the store's.
    pub(crate) fn connection(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.file()).unwrap()
    }
}

pub(crate) fn workflow(name: &str) -> WorkflowKey {
    WorkflowKey {
        name: name.to_owned(),
        version: "1".to_owned(),
    }
}

pub(crate) fn new_run(run_id: &str) -> NewRun {
    NewRun {
        run_id: run_id.into(),
        workflow: "w".to_owned(),
        version: "1".to_owned(),
        input: Payload::from_static(b"{\"n\":1}"),
        start: Start::Queued { at: None },
        tags: Vec::new(),
        memo: None,
        timeout: None,
        seed: [7; 16],
        now: None,
    }
}

/// A run that its creator drives from the beginning.
pub(crate) fn leased(run_id: &str, owner: &str) -> NewRun {
    NewRun {
        start: Start::Leased {
            owner: owner.to_owned(),
            lease: 60_000,
        },
        ..new_run(run_id)
    }
}

pub(crate) fn entry(op: &str, payload: &[u8]) -> Entry {
    Entry::new(
        Kind::StepCompleted,
        op.into(),
        Payload::copy_from_slice(payload),
        5,
    )
}

/// The first commit of a run that was created leased to `owner`.
pub(crate) fn commit(run_id: &str, owner: &str, expected_len: u64) -> RunCommit {
    RunCommit {
        run_id: run_id.into(),
        owner: owner.to_owned(),
        epoch: 1,
        expected_len,
        entries: vec![entry("step-1", b"1")],
        read: Vec::new(),
        inbox_seen: 0,
        next: Next::Running,
        state: None,
        at: 10,
    }
}

pub(crate) fn claim(owner: &str, limit: u32) -> Claim {
    Claim {
        owner: owner.to_owned(),
        lease: 60_000,
        now: None,
        due: Due::Any,
        limit,
        workflows: vec![workflow("w")],
        run_id: None,
        warm: Vec::new(),
        turn: 0,
        max_bytes: None,
    }
}

pub(crate) fn event(run_id: &str, message_id: &str, name: &str) -> NewMessage {
    NewMessage {
        run_id: run_id.into(),
        message_id: message_id.to_owned(),
        kind: MessageKind::Event,
        name: name.to_owned(),
        payload: Payload::from_static(b"\"hello\""),
        fingerprint: None,
        now: None,
    }
}

pub(crate) fn heartbeat(owner: &str, lease: Millis, now: Option<Millis>) -> Heartbeat {
    Heartbeat {
        owner: owner.to_owned(),
        lease,
        now,
    }
}

pub(crate) fn create(store: &dyn Store, batch: Vec<NewRun>) {
    let created = block_on(store.create(batch)).unwrap();
    assert!(created.iter().all(|one| one.created));
}

pub(crate) fn commit_one(store: &dyn Store, commit: RunCommit) -> CommitOutcome {
    block_on(store.commit(vec![commit])).unwrap().remove(0)
}

pub(crate) fn claim_all(store: &dyn Store, owner: &str) -> Claimed {
    block_on(store.claim(claim(owner, 1_000))).unwrap()
}

pub(crate) const APPLIED: CommitOutcome = CommitOutcome::Applied { due: false };
