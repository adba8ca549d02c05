//! Small builders of requests, and calls with one line.

use duramen_core::ids::{Millis, Payload};
use duramen_core::journal::{Entry, Kind};
use duramen_core::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE, Lane};
use duramen_core::store::{
    Beat, Claim, Claimed, CommitOutcome, Created, Due, Heartbeat, MessageKind, NewMessage, NewRun,
    Next, RunCommit, Start, Store,
};

use crate::block_on;

/// The lane of version 1 of a workflow in the default queue.
pub fn lane(workflow: &str) -> String {
    Lane {
        queue: DEFAULT_QUEUE,
        workflow,
        version: "1",
        format: 1,
    }
    .key()
}

/// The seed of the runs made here.
pub const SEED: [u8; 16] = [7; 16];

pub fn new_run(run_id: &str) -> NewRun {
    NewRun {
        run_id: run_id.into(),
        workflow: "w".to_owned(),
        version: "1".to_owned(),
        queue: DEFAULT_QUEUE.to_owned(),
        priority: DEFAULT_PRIORITY,
        input: Payload::from_static(b"{\"n\":1}"),
        meta: None,
        entries: Vec::new(),
        started_at: None,
        start: Start::Queued { at: None },
        tags: Vec::new(),
        memo: None,
        timeout: None,
        seed: SEED,
        parent: None,
        root: None,
        origin: None,
        now: None,
    }
}

/// A run that its creator drives from the beginning, if it is live ([`alive`]).
pub fn leased(run_id: &str, owner: &str) -> NewRun {
    NewRun {
        start: Start::Leased {
            owner: owner.to_owned(),
        },
        ..new_run(run_id)
    }
}

pub fn entry(op: &str, payload: &[u8]) -> Entry {
    Entry::new(
        Kind::StepCompleted,
        op.into(),
        Payload::copy_from_slice(payload),
        5,
    )
}

/// The first commit of a run that was created leased to `owner`.
pub fn commit(run_id: &str, owner: &str, expected_len: u64) -> RunCommit {
    RunCommit {
        run_id: run_id.into(),
        seed: SEED,
        owner: owner.to_owned(),
        epoch: 1,
        expected_len,
        entries: vec![entry("step-1", b"1")],
        read: Vec::new(),
        inbox_seen: None,
        next: Next::Running,
        state: None,
        outgoing: Vec::new(),
        written: Vec::new(),
        format: None,
        at: 10,
    }
}

pub fn claim(owner: &str, limit: u32) -> Claim {
    Claim {
        owner: owner.to_owned(),
        now: None,
        due: Due::Any,
        limit,
        lanes: vec![lane("w")],
        run_id: None,
        warm: Vec::new(),
        turn: 0,
        max_bytes: None,
    }
}

pub fn event(run_id: &str, message_id: &str, name: &str) -> NewMessage {
    NewMessage {
        run_id: run_id.into(),
        message_id: message_id.to_owned(),
        kind: MessageKind::Event,
        name: name.to_owned(),
        payload: Payload::from_static(b"\"hello\""),
        fingerprint: None,
        encoding: 1,
        now: None,
    }
}

pub fn heartbeat(owner: &str, lease: Millis, now: Option<Millis>) -> Heartbeat {
    Heartbeat {
        owner: owner.to_owned(),
        lease,
        label: None,
        serves: Vec::new(),
        format: 1,
        succeeds: None,
        now,
    }
}

/// Gives an owner a lease of an hour from now on, by the store's own clock.
pub fn alive(store: &dyn Store, owner: &str) {
    assert!(beat(store, owner, 3_600_000, None).alive);
}

/// A heartbeat, answered.
pub fn beat(store: &dyn Store, owner: &str, lease: Millis, now: Option<Millis>) -> Beat {
    block_on(store.heartbeat(heartbeat(owner, lease, now))).unwrap()
}

pub fn create(store: &dyn Store, batch: Vec<NewRun>) {
    let created = block_on(store.create(batch)).unwrap();
    assert!(created.iter().all(Created::is_new));
}

pub fn commit_one(store: &dyn Store, commit: RunCommit) -> CommitOutcome {
    block_on(store.commit(vec![commit])).unwrap().remove(0)
}

pub fn claim_all(store: &dyn Store, owner: &str) -> Claimed {
    block_on(store.claim(claim(owner, 1_000))).unwrap()
}

pub const APPLIED: CommitOutcome = CommitOutcome::Applied { due: false };
