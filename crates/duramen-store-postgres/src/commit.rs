//! Run commits: one fenced statement for a batch. No read before the write.

use std::borrow::Cow;
use std::collections::BTreeSet;

use duramen_core::check;
use duramen_core::ids::{Payload, RunId};
use duramen_core::store::{CommitOutcome, Next, RunCommit};
use duramen_store_sql::lists;
use futures_util::future::try_join_all;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::around::Errand;
use crate::error::Fault;
use crate::flavour::Flavour;
use crate::link::{Link, Params};
use crate::row::{clean, column, signed};
use crate::sql::{Book, Sql};
use crate::streams;

/// The most commits in one statement.
const MOST: usize = 256;
/// A statement is closed when it has this many payload bytes.
const HEAVY: usize = 8 << 20;
/// How often a statement that met the journal's key is sent again with a new snapshot.
const REPEATS: u32 = 3;

/// How a statement meets runs that others have locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    PassingOver,
    InLine,
}

/// Commits on their way over a connection.
pub(crate) struct Commits<'s> {
    pub(crate) link: &'s Link,
    pub(crate) book: &'s Book,
}

impl Errand for Commits<'_> {
    type Element = RunCommit;
    type Answer = CommitOutcome;

    fn run_id(commit: &RunCommit) -> &RunId {
        &commit.run_id
    }

    fn blocked() -> CommitOutcome {
        CommitOutcome::Blocked
    }

    async fn ask(
        &self,
        batch: &[RunCommit],
        places: &[usize],
    ) -> Result<Vec<Option<CommitOutcome>>, Fault> {
        pass(self.link, self.book, batch, places).await
    }

    async fn ask_in_line(
        &self,
        batch: &[RunCommit],
        place: usize,
    ) -> Result<Option<CommitOutcome>, Fault> {
        let mut found = send(self.link, self.book, &[&batch[place]], Manner::InLine).await?;
        Ok(found.pop().flatten())
    }
}

/// Sends commits, each once; none of the answers is of one whose run is locked.
async fn pass(
    link: &Link,
    book: &Book,
    batch: &[RunCommit],
    places: &[usize],
) -> Result<Vec<Option<CommitOutcome>>, Fault> {
    let mut outcomes: Vec<Option<CommitOutcome>> = vec![None; places.len()];
    let commits: Vec<&RunCommit> = places.iter().map(|place| &batch[*place]).collect();
    let mut rest = Vec::with_capacity(commits.len());
    for (place, commit) in commits.iter().enumerate() {
        match check::commit(commit) {
            Some(reason) => outcomes[place] = Some(CommitOutcome::Rejected { reason }),
            None => rest.push(place),
        }
    }
    let mut busy: BTreeSet<&RunId> = BTreeSet::new();
    while !rest.is_empty() {
        let mut chunk = next_chunk(&commits, &mut rest);
        // What follows a commit of the same run that has to come again would come too early.
        chunk.retain(|place| !busy.contains(&commits[*place].run_id));
        let sent: Vec<&RunCommit> = chunk.iter().map(|place| commits[*place]).collect();
        if sent.is_empty() {
            continue;
        }
        for (place, outcome) in chunk
            .into_iter()
            .zip(send(link, book, &sent, Manner::PassingOver).await?)
        {
            if outcome.is_none() {
                busy.insert(&commits[place].run_id);
            }
            outcomes[place] = outcome;
        }
    }
    Ok(outcomes)
}

/// Whether what it depends on must be as new as the lock of its run's row: the length of a journal whose key it does not
/// meet, and the numbers of items.
const fn goes_behind_locks(commit: &RunCommit) -> bool {
    commit.entries.is_empty() || !commit.written.is_empty()
}

/// Takes the places of the next statement from `rest`: no run twice, not too many, not too heavy, and those
/// that are carried out behind locks apart from those that are not.
fn next_chunk(commits: &[&RunCommit], rest: &mut Vec<usize>) -> Vec<usize> {
    let mut chunk = Vec::new();
    let mut later = Vec::new();
    let mut runs = BTreeSet::new();
    let mut bytes = 0;
    let mut bare = None;
    for place in rest.drain(..) {
        let commit = commits[place];
        let full = chunk.len() == MOST || bytes > HEAVY;
        let kind = *bare.get_or_insert(goes_behind_locks(commit));
        // A run whose first commit has to wait for the next statement waits with the others, too.
        if !runs.insert(&commit.run_id) || full || kind != goes_behind_locks(commit) {
            later.push(place);
            continue;
        }
        bytes += weight(commit);
        chunk.push(place);
    }
    *rest = later;
    chunk
}

fn weight(commit: &RunCommit) -> usize {
    let entries = commit.entries.iter().map(|entry| entry.payload.len());
    let items = commit.outgoing.iter().map(|item| item.body.len());
    let replies = commit.read.iter().filter_map(|read| read.reply.as_ref());
    let written = commit.written.iter().map(|item| item.payload.len());
    entries.chain(items).chain(written).sum::<usize>() + replies.map(Payload::len).sum::<usize>()
}

/// One statement for all, or one for each. What a statement spoils for all its commits is found out one by one.
async fn send(
    link: &Link,
    book: &Book,
    commits: &[&RunCommit],
    manner: Manner,
) -> Result<Vec<Option<CommitOutcome>>, Fault> {
    if book.flavour == Flavour::Plain {
        match send_together(link, book, commits, manner).await {
            Err(fault) if fault.is_of_one_element() => {}
            other => return other,
        }
    }
    try_join_all(
        commits
            .iter()
            .map(|commit| send_alone(link, book, commit, manner)),
    )
    .await
}

async fn send_alone(
    link: &Link,
    book: &Book,
    commit: &RunCommit,
    manner: Manner,
) -> Result<Option<CommitOutcome>, Fault> {
    match send_together(link, book, &[commit], manner).await {
        Ok(mut found) => Ok(found.pop().flatten()),
        Err(fault) if fault.is_locked() => Ok(None),
        // The key says that the journal is longer than the commit thinks.
        Err(fault) if fault.is_of_a_key() => Ok(Some(CommitOutcome::Fenced)),
        Err(fault) if fault.is_of_the_request() => Ok(Some(CommitOutcome::Rejected {
            reason: fault.words(),
        })),
        Err(fault) => Err(fault),
    }
}

async fn send_together(
    link: &Link,
    book: &Book,
    commits: &[&RunCommit],
    manner: Manner,
) -> Result<Vec<Option<CommitOutcome>>, Fault> {
    let behind = commits.iter().all(|commit| goes_behind_locks(commit));
    let mut repeats = 0;
    loop {
        let sent = if behind {
            behind_locks(link, book, commits, manner).await
        } else {
            let columns = Columns::of(commits);
            let (sql, params) = columns.statement(book, manner);
            link.run_unless_locked(sql, &params)
                .await
                .and_then(|rows| outcomes(&rows, commits.len()))
        };
        match sent {
            // One of them had been sent before and was still under way: it is fenced in a newer snapshot.
            Err(fault) if fault.is_of_a_key() && repeats < REPEATS => repeats += 1,
            other => return other,
        }
    }
}

/// Commits that need a snapshot which is newer than the lock; see [`goes_behind_locks`].
async fn behind_locks(
    link: &Link,
    book: &Book,
    commits: &[&RunCommit],
    manner: Manner,
) -> Result<Vec<Option<CommitOutcome>>, Fault> {
    let mut repeats = 0;
    loop {
        let transaction = link.begin_behind_locks().await?;
        let work = async {
            let run_ids: Vec<&str> = commits.iter().map(|commit| &*commit.run_id).collect();
            let mut answers: Vec<Option<CommitOutcome>> = vec![None; commits.len()];
            let (mut free, mut there) = (BTreeSet::new(), BTreeSet::new());
            let lock = match manner {
                Manner::PassingOver => &book.lock,
                Manner::InLine => &book.lock_in_line,
            };
            for row in &transaction
                .run(lock, &book.of_run(&[&run_ids], &run_ids[0]))
                .await?
            {
                let run_id: &str = column(row, 0, "run_id")?;
                if column(row, 1, "free")? {
                    free.insert(run_id.to_owned());
                } else if column(row, 2, "there")? {
                    there.insert(run_id.to_owned());
                }
            }
            let places: Vec<usize> = (0..commits.len())
                .filter(|place| free.contains(&*commits[*place].run_id))
                .collect();
            for (place, commit) in commits.iter().enumerate() {
                let run_id = &*commit.run_id;
                if !free.contains(run_id) && !there.contains(run_id) {
                    answers[place] = Some(CommitOutcome::Fenced);
                }
            }
            if !places.is_empty() {
                let sent: Vec<&RunCommit> = places.iter().map(|place| commits[*place]).collect();
                let columns = Columns::of(&sent);
                let (sql, params) = columns.statement(book, manner);
                let rows = transaction.run(sql, &params).await?;
                for (place, outcome) in places.into_iter().zip(outcomes(&rows, sent.len())?) {
                    if matches!(outcome, Some(CommitOutcome::Applied { .. })) {
                        let commit = commits[place];
                        let run_id = clean(&commit.run_id);
                        streams::write(&transaction, book, &run_id, &commit.written).await?;
                    }
                    answers[place] = outcome;
                }
            }
            Ok(answers)
        };
        let result = work.await;
        match transaction.end(result).await {
            Err(fault) if fault.asks_for_repetition() && repeats < crate::link::REPEATS => {
                repeats += 1;
                link.before_repeating(repeats).await;
            }
            other => return other,
        }
    }
}

fn outcomes(rows: &[Row], count: usize) -> Result<Vec<Option<CommitOutcome>>, Fault> {
    let mut outcomes = vec![Some(CommitOutcome::Fenced); count];
    for row in rows {
        let n: i64 = column(row, 0, "n")?;
        let place = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
        let Some(outcome) = place.and_then(|place| outcomes.get_mut(place)) else {
            continue;
        };
        match column::<i16>(row, 1, "outcome")? {
            0 if *outcome == Some(CommitOutcome::Fenced) => {
                *outcome = Some(CommitOutcome::Applied { due: false });
            }
            0 => {}
            1 => *outcome = Some(CommitOutcome::Applied { due: true }),
            _ => *outcome = None,
        }
    }
    Ok(outcomes)
}

#[derive(Default)]
struct Fences<'c> {
    run_id: Vec<&'c str>,
    owner: Vec<Cow<'c, str>>,
    epoch: Vec<i64>,
    seed: Vec<&'c [u8]>,
    len: Vec<i64>,
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
struct Rows<'c> {
    n: Vec<i64>,
    run_id: Vec<&'c str>,
    after: Vec<i64>,
    seen: Vec<i64>,
    at: Vec<i64>,
    format: Vec<i16>,
    status: Vec<i16>,
    ready_at: Vec<Option<i64>>,
    waits: Vec<Option<String>>,
    word: Vec<Option<Cow<'c, str>>>,
}

#[derive(Default)]
struct Reads<'c> {
    n: Vec<i64>,
    run_id: Vec<&'c str>,
    seq: Vec<i64>,
    note: Vec<Option<Cow<'c, str>>>,
    reply: Vec<Option<&'c [u8]>>,
}

#[derive(Default)]
struct States<'c> {
    n: Vec<i64>,
    run_id: Vec<&'c str>,
    state: Vec<&'c [u8]>,
}

#[derive(Default)]
struct Items<'c> {
    n: Vec<i64>,
    entry: Vec<i64>,
    at: Vec<i64>,
    number: Vec<i32>,
    kind: Vec<i16>,
    run_id: Vec<&'c str>,
    target: Vec<&'c str>,
    body: Vec<&'c [u8]>,
}

/// The arrays of one statement.
#[derive(Default)]
struct Columns<'c> {
    fences: Fences<'c>,
    entries: Entries<'c>,
    rows: Rows<'c>,
    reads: Reads<'c>,
    states: States<'c>,
    items: Items<'c>,
}

impl<'c> Columns<'c> {
    fn of(commits: &[&'c RunCommit]) -> Self {
        let mut columns = Self::default();
        for (commit, n) in commits.iter().zip(1_i64..) {
            columns.add(n, commit);
        }
        columns
    }

    /// Adds the commit that is number `n` (1 for the first) of the statement.
    fn add(&mut self, n: i64, commit: &'c RunCommit) {
        let fences = &mut self.fences;
        fences.run_id.push(&commit.run_id);
        fences.owner.push(clean(&commit.owner));
        fences.epoch.push(commit.epoch);
        fences.seed.push(&commit.seed);
        fences.len.push(signed(commit.expected_len));
        // What the former generation did last would go as soon as it is there.
        let past = match &commit.next {
            Next::Continued { .. } => commit.entries.len().saturating_sub(1),
            _ => 0,
        };
        let placed = commit.entries.iter().zip(signed(commit.expected_len)..);
        for (entry, idx) in placed.skip(past) {
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
        if !commit.only_appends() {
            self.add_row(n, commit);
        }
        for read in &commit.read {
            self.reads.n.push(n);
            self.reads.run_id.push(&commit.run_id);
            self.reads.seq.push(signed(read.seq));
            self.reads.note.push(read.refused.as_deref().map(clean));
            self.reads.reply.push(read.reply.as_deref());
        }
        if let Some(state) = &commit.state {
            self.states.n.push(n);
            self.states.run_id.push(&commit.run_id);
            self.states.state.push(state);
        }
        for (item, number) in commit.outgoing.iter().zip(0_i32..) {
            let items = &mut self.items;
            items.n.push(n);
            items.entry.push(signed(commit.expected_len));
            items.at.push(commit.at);
            items.number.push(number);
            items
                .kind
                .push(i16::try_from(item.kind.code()).unwrap_or(-1));
            items.run_id.push(&commit.run_id);
            items.target.push(&item.target);
            items.body.push(&item.body);
        }
    }

    fn add_row(&mut self, n: i64, commit: &'c RunCommit) {
        let rows = &mut self.rows;
        rows.n.push(n);
        rows.run_id.push(&commit.run_id);
        rows.after.push(signed(commit.length_after()));
        rows.seen.push(signed(commit.inbox_seen.unwrap_or(0)));
        rows.at.push(commit.at);
        rows.format.push(i16::from(commit.format.unwrap_or(0)));
        let (status, ready_at, waits, word) = match &commit.next {
            Next::Running => (1, None, None, None),
            Next::Waiting { ready_at, waits } => (2, *ready_at, lists::join(waits), None),
            // `check::commit` has let final ones through only, which are 3 to 6.
            Next::Finished { status } => {
                (i16::try_from(status.code()).unwrap_or(3), None, None, None)
            }
            Next::Stuck { note } => (7, None, None, Some(clean(note))),
            Next::Paused {
                ready_at,
                waits,
                note,
            } => (8, *ready_at, lists::join(waits), Some(clean(note))),
            Next::Continued { ready_at, version } => {
                (0, Some(*ready_at), None, Some(clean(version)))
            }
        };
        rows.status.push(status);
        rows.ready_at.push(ready_at);
        rows.waits.push(waits);
        rows.word.push(word);
    }

    /// The shortest statement that does all of it.
    fn statement<'b>(&self, book: &'b Book, manner: Manner) -> (&'b Sql, Vec<&(dyn ToSql + Sync)>) {
        let Self {
            fences,
            entries,
            rows,
            reads,
            states,
            items,
        } = self;
        let mut all: Vec<&(dyn ToSql + Sync)> = vec![
            &fences.run_id,
            &fences.owner,
            &fences.epoch,
            &fences.seed,
            &fences.len,
        ];
        let of_entries: &Params<'_> = &[
            &entries.n,
            &entries.idx,
            &entries.at,
            &entries.encoding,
            &entries.kind,
            &entries.run_id,
            &entries.op,
            &entries.meta,
            &entries.payload,
        ];
        let of_rows: &Params<'_> = &[
            &rows.n,
            &rows.run_id,
            &rows.after,
            &rows.seen,
            &rows.at,
            &rows.format,
            &rows.status,
            &rows.ready_at,
            &rows.waits,
            &rows.word,
        ];
        let of_others: &Params<'_> = &[
            &reads.n,
            &reads.run_id,
            &reads.seq,
            &reads.note,
            &reads.reply,
            &states.n,
            &states.run_id,
            &states.state,
            &items.n,
            &items.entry,
            &items.at,
            &items.number,
            &items.kind,
            &items.run_id,
            &items.target,
            &items.body,
        ];
        all.extend(of_entries);
        let others = !(reads.n.is_empty() && states.n.is_empty() && items.n.is_empty());
        if others || !rows.n.is_empty() {
            all.extend(of_rows);
        }
        if others {
            all.extend(of_others);
        }
        let in_line = manner == Manner::InLine;
        let sql = match (others, rows.n.is_empty()) {
            (true, _) if in_line => &book.commit_and_read_in_line,
            (true, _) => &book.commit_and_read,
            (false, true) if in_line => &book.append_in_line,
            (false, true) => &book.append,
            (false, false) if in_line => &book.commit_in_line,
            (false, false) => &book.commit,
        };
        (sql, book.of_run(&all, &fences.run_id[0]))
    }
}
