//! Run commits: one fenced statement for a batch. No read before the write.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use duramen_core::check;
use duramen_core::ids::RunId;
use duramen_core::store::{CommitOutcome, Next, RunCommit};
use duramen_store_sql::lists;

use crate::error::Fault;
use crate::link::{Link, Params};
use crate::row::{clean, column, signed};
use crate::sql::Book;

/// The most commits in one statement.
const MOST: usize = 256;
/// A statement is closed when it has this many payload bytes.
const HEAVY: usize = 8 << 20;

/// How often a statement is sent again without the runs that were locked.
const ATTEMPTS: u32 = 3;
/// So many runs are known as locked at most.
const MOST_LOCKED: usize = 1_024;

/// Runs that others held when a commit last came by. Their commits ask first, so that the connection does
/// not wait for the same lock again and again; in the normal case there are none, and nobody asks.
#[derive(Debug, Default)]
pub(crate) struct Locked(Mutex<BTreeSet<RunId>>);

impl Locked {
    fn known<'c>(&self, batch: &'c [RunCommit], chunk: &[usize]) -> Vec<&'c RunId> {
        let locked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if locked.is_empty() {
            return Vec::new();
        }
        let ids = chunk.iter().map(|place| &batch[*place].run_id);
        ids.filter(|run_id| locked.contains(*run_id)).collect()
    }

    fn note(&self, asked: &[&RunId], held: &BTreeSet<RunId>) {
        let mut locked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if locked.len() > MOST_LOCKED {
            locked.clear(); // drivers that never came back; the others are found out again
        }
        for run_id in asked {
            if held.contains(*run_id) {
                locked.insert(RunId::clone(run_id));
            } else {
                locked.remove(*run_id);
            }
        }
    }
}

/// Applies commits; answers in their order.
pub(crate) async fn commit(
    link: &Link,
    book: &Book,
    locked: &Locked,
    batch: &[RunCommit],
) -> Result<Vec<CommitOutcome>, Fault> {
    let mut outcomes: Vec<Option<CommitOutcome>> = batch
        .iter()
        .map(|commit| check::commit(commit).map(|reason| CommitOutcome::Rejected { reason }))
        .collect();
    let mut rest: Vec<usize> = (0..batch.len())
        .filter(|place| outcomes[*place].is_none())
        .collect();
    // In the order of the run ids (two commits of one run stay in theirs), so that batches of
    // different processes lock their rows in one order.
    rest.sort_by(|a, b| batch[*a].run_id.cmp(&batch[*b].run_id).then(a.cmp(b)));
    let mut blocked: BTreeSet<&RunId> = BTreeSet::new();
    while !rest.is_empty() {
        let mut chunk = next_chunk(batch, &mut rest);
        // What follows a blocked commit of the same run would come too early.
        chunk.retain(|place| !blocked.contains(&batch[*place].run_id));
        for (place, outcome) in around_locks(link, book, locked, batch, chunk).await? {
            if outcome == CommitOutcome::Blocked {
                blocked.insert(&batch[place].run_id);
            }
            outcomes[place] = Some(outcome);
        }
    }
    for (commit, outcome) in batch.iter().zip(&mut outcomes) {
        if outcome.is_none() && blocked.contains(&commit.run_id) {
            *outcome = Some(CommitOutcome::Blocked);
        }
    }
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or(CommitOutcome::Fenced))
        .collect())
}

/// Sends commits; those of runs that others have locked are answered as blocked instead of holding up the
/// rest, once the statement has waited for `lock_timeout`.
async fn around_locks(
    link: &Link,
    book: &Book,
    locked: &Locked,
    batch: &[RunCommit],
    mut chunk: Vec<usize>,
) -> Result<Vec<(usize, CommitOutcome)>, Fault> {
    let mut answered = Vec::with_capacity(chunk.len());
    let mut suspects = locked.known(batch, &chunk);
    for _ in 0..ATTEMPTS {
        if !suspects.is_empty() {
            let held = held_by_others(link, book, &suspects).await?;
            locked.note(&suspects, &held);
            chunk.retain(|place| {
                let free = !held.contains(&batch[*place].run_id);
                if !free {
                    answered.push((*place, CommitOutcome::Blocked));
                }
                free
            });
        }
        if chunk.is_empty() {
            break;
        }
        let sent = match send(link, book, batch, &chunk).await {
            Err(fault) if fault.is_of_the_request() => one_by_one(link, book, batch, &chunk).await,
            other => other,
        };
        match sent {
            Err(fault) if fault.is_locked() => {
                suspects = chunk.iter().map(|place| &batch[*place].run_id).collect();
            }
            sent => {
                answered.extend(chunk.drain(..).zip(sent?));
                break;
            }
        }
    }
    // Each time another was locked.
    answered.extend(
        chunk
            .into_iter()
            .map(|place| (place, CommitOutcome::Blocked)),
    );
    Ok(answered)
}

async fn held_by_others(
    link: &Link,
    book: &Book,
    run_ids: &[&RunId],
) -> Result<BTreeSet<RunId>, Fault> {
    let ids: Vec<&str> = run_ids.iter().map(|run_id| &***run_id).collect();
    let rows = link.run_unless_locked(&book.locked, &[&ids]).await?;
    rows.iter()
        .map(|row| Ok(column::<&str>(row, 0, "run_id")?.into()))
        .collect()
}

/// Takes the places of the next statement from `rest`: no run twice, not too many, not too heavy.
fn next_chunk(batch: &[RunCommit], rest: &mut Vec<usize>) -> Vec<usize> {
    let mut chunk = Vec::new();
    let mut later = Vec::new();
    let mut runs = BTreeSet::new();
    let mut bytes = 0;
    for place in rest.drain(..) {
        let commit = &batch[place];
        let full = chunk.len() == MOST || bytes > HEAVY;
        if full || !runs.insert(&commit.run_id) {
            later.push(place);
            continue;
        }
        bytes += payload_bytes(commit);
        chunk.push(place);
    }
    *rest = later;
    chunk
}

fn payload_bytes(commit: &RunCommit) -> usize {
    commit.entries.iter().map(|entry| entry.payload.len()).sum()
}

/// After a statement that the server refused because of one of its values: each by itself.
async fn one_by_one(
    link: &Link,
    book: &Book,
    batch: &[RunCommit],
    chunk: &[usize],
) -> Result<Vec<CommitOutcome>, Fault> {
    let mut outcomes = Vec::with_capacity(chunk.len());
    for place in chunk {
        match send(link, book, batch, std::slice::from_ref(place)).await {
            Ok(mut found) => outcomes.push(found.pop().unwrap_or(CommitOutcome::Fenced)),
            Err(fault) if fault.is_of_the_request() => {
                let reason = match &fault {
                    Fault::Sql(error) => error
                        .as_db_error()
                        .map_or_else(|| error.to_string(), |said| said.message().to_owned()),
                    other => format!("{other:?}"),
                };
                outcomes.push(CommitOutcome::Rejected { reason });
            }
            Err(fault) if fault.is_locked() => outcomes.push(CommitOutcome::Blocked),
            Err(fault) => return Err(fault),
        }
    }
    Ok(outcomes)
}

#[derive(Default)]
struct Rows<'c> {
    run_id: Vec<&'c str>,
    owner: Vec<Cow<'c, str>>,
    epoch: Vec<i64>,
    len: Vec<i64>,
    grown: Vec<i64>,
    bytes: Vec<i64>,
    seen: Vec<i64>,
    at: Vec<i64>,
    status: Vec<i16>,
    ready_at: Vec<Option<i64>>,
    waits: Vec<Option<String>>,
    note: Vec<Option<Cow<'c, str>>>,
}

#[derive(Default)]
struct Entries<'c> {
    n: Vec<i64>,
    idx: Vec<i64>,
    at: Vec<i64>,
    encoding: Vec<i16>,
    kind: Vec<i16>,
    run_id: Vec<&'c str>,
    op: Vec<&'c str>,
    meta: Vec<Option<Cow<'c, str>>>,
    payload: Vec<&'c [u8]>,
}

#[derive(Default)]
struct Reads<'c> {
    n: Vec<i64>,
    run_id: Vec<&'c str>,
    seq: Vec<i64>,
    note: Vec<Option<Cow<'c, str>>>,
}

#[derive(Default)]
struct States<'c> {
    n: Vec<i64>,
    run_id: Vec<&'c str>,
    state: Vec<&'c [u8]>,
}

/// The arrays of one statement.
#[derive(Default)]
struct Columns<'c> {
    rows: Rows<'c>,
    entries: Entries<'c>,
    reads: Reads<'c>,
    states: States<'c>,
}

impl<'c> Columns<'c> {
    /// Adds the commit that is number `n` (1 for the first) of the statement.
    fn add(&mut self, n: i64, commit: &'c RunCommit) {
        let rows = &mut self.rows;
        rows.run_id.push(&commit.run_id);
        rows.owner.push(clean(&commit.owner));
        rows.epoch.push(commit.epoch);
        rows.len.push(signed(commit.expected_len));
        rows.grown.push(signed(commit.entries.len() as u64));
        rows.bytes.push(signed(payload_bytes(commit) as u64));
        rows.seen.push(signed(commit.inbox_seen));
        rows.at.push(commit.at);
        let (status, ready_at, waits, note) = match &commit.next {
            Next::Running => (1, None, None, None),
            Next::Waiting { ready_at, waits } => (2, *ready_at, lists::join(waits), None),
            // `check::commit` has let final ones through only, which are 3 to 6.
            Next::Finished { status } => {
                (i16::try_from(status.code()).unwrap_or(0), None, None, None)
            }
            Next::Stuck { note } => (7, None, None, Some(clean(note))),
        };
        rows.status.push(status);
        rows.ready_at.push(ready_at);
        rows.waits.push(waits);
        rows.note.push(note);
        for (entry, idx) in commit.entries.iter().zip(signed(commit.expected_len)..) {
            let entries = &mut self.entries;
            entries.n.push(n);
            entries.idx.push(idx);
            entries.at.push(entry.at);
            entries.encoding.push(i16::from(entry.encoding));
            entries.kind.push(i16::from(entry.kind.code()));
            entries.run_id.push(&commit.run_id);
            entries.op.push(&entry.op);
            entries.meta.push(entry.meta.as_deref().map(clean));
            entries.payload.push(&entry.payload);
        }
        for read in &commit.read {
            self.reads.n.push(n);
            self.reads.run_id.push(&commit.run_id);
            self.reads.seq.push(signed(read.seq));
            self.reads.note.push(read.refused.as_deref().map(clean));
        }
        if let Some(state) = &commit.state {
            self.states.n.push(n);
            self.states.run_id.push(&commit.run_id);
            self.states.state.push(state);
        }
    }
}

#[allow(
    clippy::many_single_char_names,
    reason = "the letters are those of the statement"
)]
async fn send(
    link: &Link,
    book: &Book,
    batch: &[RunCommit],
    chunk: &[usize],
) -> Result<Vec<CommitOutcome>, Fault> {
    let mut columns = Columns::default();
    for (place, n) in chunk.iter().zip(1_i64..) {
        columns.add(n, &batch[*place]);
    }
    let Columns {
        rows: r,
        entries: e,
        reads: m,
        states: s,
    } = &columns;
    let all: &Params<'_> = &[
        &r.run_id,
        &r.owner,
        &r.epoch,
        &r.len,
        &r.grown,
        &r.bytes,
        &r.seen,
        &r.at,
        &r.status,
        &r.ready_at,
        &r.waits,
        &r.note,
        &e.n,
        &e.idx,
        &e.at,
        &e.encoding,
        &e.kind,
        &e.run_id,
        &e.op,
        &e.meta,
        &e.payload,
        &m.n,
        &m.run_id,
        &m.seq,
        &m.note,
        &s.n,
        &s.run_id,
        &s.state,
    ];
    let plain = m.n.is_empty() && s.n.is_empty();
    let found = if plain {
        link.run_unless_locked(&book.commit, &all[..book.commit.types.len()])
            .await?
    } else {
        link.run_unless_locked(&book.commit_and_read, all).await?
    };
    let mut outcomes = vec![CommitOutcome::Fenced; chunk.len()];
    for row in &found {
        let n: i64 = column(row, 0, "n")?;
        let place = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
        if let Some(outcome) = place.and_then(|place| outcomes.get_mut(place)) {
            *outcome = CommitOutcome::Applied {
                due: column(row, 1, "due")?,
            };
        }
    }
    Ok(outcomes)
}
