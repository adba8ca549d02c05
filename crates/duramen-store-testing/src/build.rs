//! Small builders of requests, and calls with one line.

use duramen_core::ids::{Millis, Payload};
use duramen_core::journal::{Entry, Kind};
use duramen_core::store::{
    Claim, Claimed, CommitOutcome, Due, Heartbeat, MessageKind, NewMessage, NewRun, Next,
    RunCommit, Start, Store, WorkflowKey,
};

use crate::block_on;

pub fn workflow(name: &str) -> WorkflowKey {
    WorkflowKey {
        name: name.to_owned(),
        version: "1".to_owned(),
    }
}

pub fn new_run(run_id: &str) -> NewRun {
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
pub fn leased(run_id: &str, owner: &str) -> NewRun {
    NewRun {
        start: Start::Leased {
            owner: owner.to_owned(),
            lease: 60_000,
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

pub fn claim(owner: &str, limit: u32) -> Claim {
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

pub fn event(run_id: &str, message_id: &str, name: &str) -> NewMessage {
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

pub fn heartbeat(owner: &str, lease: Millis, now: Option<Millis>) -> Heartbeat {
    Heartbeat {
        owner: owner.to_owned(),
        lease,
        now,
    }
}

pub fn create(store: &dyn Store, batch: Vec<NewRun>) {
    let created = block_on(store.create(batch)).unwrap();
    assert!(created.iter().all(|one| one.created));
}

pub fn commit_one(store: &dyn Store, commit: RunCommit) -> CommitOutcome {
    block_on(store.commit(vec![commit])).unwrap().remove(0)
}

pub fn claim_all(store: &dyn Store, owner: &str) -> Claimed {
    block_on(store.claim(claim(owner, 1_000))).unwrap()
}

pub const APPLIED: CommitOutcome = CommitOutcome::Applied { due: false };
