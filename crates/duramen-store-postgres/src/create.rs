//! Creations: a row, the beginning of its journal, and a memo and tags if there are any.
//!
//! An id that somebody else's transaction is about to create is the one thing that has to be waited for on
//! the server: until that transaction ends nobody can say whether the id is free. The wait is short (`link.rs`);
//! then the batch is halved again and again until those that wait stand alone.

use std::collections::BTreeMap;

use duramen_core::ids::RunId;
use duramen_core::run::RunRow;
use duramen_core::store::{Created, NewRun, Start};
use duramen_store_sql::{lists, run_row};
use futures_util::future::join_all;
use tokio_postgres::types::ToSql;

use crate::around::{Errand, Locked};
use crate::error::Fault;
use crate::flavour::{Flavour, in_batches};
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column, signed};
use crate::sql::Book;

/// How often a statement that met the key of a run is sent again with a new snapshot, which shows that run.
const REPEATS: u32 = 8;

/// When a run was made, and with which status.
type Made = (i64, i16);

/// Creations on their way over a connection.
pub(crate) struct Creations<'s> {
    pub(crate) link: &'s Link,
    pub(crate) book: &'s Book,
    pub(crate) locked: &'s Locked,
}

impl Errand for Creations<'_> {
    type Element = NewRun;
    type Answer = Created;

    fn run_id(new: &NewRun) -> &RunId {
        &new.run_id
    }

    fn blocked() -> Created {
        Created::Blocked
    }

    async fn ask(&self, batch: &[NewRun], places: &[usize]) -> Result<Vec<Option<Created>>, Fault> {
        create(self.link, self.book, self.locked, batch, places).await
    }

    /// Every attempt has waited on the server.
    async fn ask_in_line(&self, _: &[NewRun], _: usize) -> Result<Option<Created>, Fault> {
        Ok(None)
    }
}

/// Creates runs, in the order of their ids: two batches with the same ids, in whatever order, never wait for
/// each other. None for those that others are about to create.
async fn create(
    link: &Link,
    book: &Book,
    locked: &Locked,
    batch: &[NewRun],
    places: &[usize],
) -> Result<Vec<Option<Created>>, Fault> {
    let asked: Vec<&NewRun> = places.iter().map(|place| &batch[*place]).collect();
    let mut first: BTreeMap<&RunId, usize> = BTreeMap::new();
    for (place, new) in asked.iter().enumerate() {
        // Of two with one id the first is created, the other is told so.
        first.entry(&new.run_id).or_insert(place);
    }
    let sent: Vec<&NewRun> = first.values().map(|place| asked[*place]).collect();
    let Inserted { made, busy } = match book.flavour {
        Flavour::Plain => insert_all(link, book, locked, sent).await?,
        Flavour::Routed => insert_each(link, book, sent).await?,
    };
    let wanted: Vec<&str> = first
        .keys()
        .filter(|run_id| !busy.contains(*run_id))
        .filter(|run_id| !made.contains_key(&****run_id) || asked.len() > first.len())
        .map(|run_id| &***run_id)
        .collect();
    let rows = existing(link, book, &wanted).await?;
    Ok(asked
        .iter()
        .enumerate()
        .map(|(place, new)| {
            if let Some((now, status)) = made.get(&*new.run_id)
                && first.get(&new.run_id) == Some(&place)
            {
                let row = match (&new.start, status) {
                    (Start::Leased { .. }, 0) => new.left_to_others().first_row(*now),
                    _ => new.first_row(*now),
                };
                return Some(Created::Created { row });
            }
            // None if it was there and has been deleted since: to be tried again.
            rows.get(&*new.run_id)
                .map(|row| Created::Exists { row: row.clone() })
        })
        .collect())
}

/// The entries of the journals that runs bring.
#[derive(Default)]
struct Brought<'n> {
    idx: Vec<i64>,
    at: Vec<i64>,
    encoding: Vec<i16>,
    kind: Vec<i16>,
    run_id: Vec<&'n str>,
    op: Vec<&'n str>,
    meta: Vec<Option<std::borrow::Cow<'n, str>>>,
    payload: Vec<&'n [u8]>,
}

impl<'n> Brought<'n> {
    fn of(sent: &[&'n NewRun]) -> Self {
        let mut all = Self::default();
        for new in sent {
            for (entry, idx) in new.entries.iter().zip(1_i64..) {
                all.idx.push(idx);
                all.at.push(entry.at);
                all.encoding.push(i16::from(entry.encoding));
                all.kind.push(i16::from(entry.kind.code()));
                all.run_id.push(&new.run_id);
                all.op.push(&entry.op);
                all.meta.push(entry.meta.as_deref().map(clean));
                all.payload.push(&entry.payload);
            }
        }
        all
    }
}

/// The runs of a batch that are new, and those that others are about to create.
#[derive(Default)]
struct Inserted<'n> {
    made: BTreeMap<String, Made>,
    busy: Vec<&'n RunId>,
}

/// One statement for many; those that others are about to create are found by halving.
async fn insert_all<'n>(
    link: &Link,
    book: &Book,
    locked: &Locked,
    sent: Vec<&'n NewRun>,
) -> Result<Inserted<'n>, Fault> {
    // What was waited for in vain before keeps nobody waiting now.
    let (known, free): (Vec<&NewRun>, Vec<&NewRun>) =
        sent.into_iter().partition(|new| locked.has(&new.run_id));
    let mut inserted = Inserted::default();
    let mut parts = vec![free];
    parts.extend(known.into_iter().map(|new| vec![new]));
    parts.reverse();
    while let Some(mut part) = parts.pop() {
        match insert(link, book, &part, None).await {
            Ok(rows) => inserted.made.extend(rows),
            Err(fault) if fault.is_locked() => {
                if part.len() <= 1 {
                    inserted
                        .busy
                        .extend(part.into_iter().map(|new| &new.run_id));
                } else {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(inserted)
}

/// One statement for each run. Whether the leases of their creators last is asked before: one that ends in between
/// leaves a run to be recovered, as one that ends just after does.
async fn insert_each<'n>(
    link: &Link,
    book: &Book,
    sent: Vec<&'n NewRun>,
) -> Result<Inserted<'n>, Fault> {
    let alive = alive(link, book, &sent).await?;
    let each = sent
        .iter()
        .zip(alive)
        .map(async |(new, alive)| insert(link, book, &[new], Some(alive)).await);
    let mut inserted = Inserted::default();
    let mut refused = Vec::new();
    for (new, answer) in sent.iter().zip(join_all(each).await) {
        match answer {
            Ok(rows) => inserted.made.extend(rows),
            Err(fault) if fault.is_locked() => inserted.busy.push(&new.run_id),
            Err(fault) if fault.is_of_the_request() => refused.push((&new.run_id, fault)),
            Err(fault) => return Err(fault),
        }
    }
    // The others have been created. What is refused comes again without them, and then it is all that is said.
    let only_refused = inserted.made.is_empty() && inserted.busy.is_empty();
    for (run_id, fault) in refused {
        if only_refused {
            return Err(fault);
        }
        inserted.busy.push(run_id);
    }
    Ok(inserted)
}

/// For each whether a living owner drives it from the beginning.
async fn alive(link: &Link, book: &Book, sent: &[&NewRun]) -> Result<Vec<bool>, Fault> {
    let mut alive = vec![false; sent.len()];
    let (mut places, mut owners, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for (place, new) in sent.iter().enumerate() {
        if let Start::Leased { owner } = &new.start {
            places.push(place);
            owners.push(clean(owner));
            given.push(new.now);
        }
    }
    if places.is_empty() {
        return Ok(alive);
    }
    for row in &link.read(&book.routed.alive, &[&owners, &given]).await? {
        let n: i64 = column(row, 0, "n")?;
        let place = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
        if let Some(place) = place.and_then(|place| places.get(place)) {
            alive[*place] = true;
        }
    }
    Ok(alive)
}

/// The ids that are new, with the time of their creation and their status. In the routed flavour it is one run, of
/// which `mine` says whether its creator drives it.
async fn insert(
    link: &Link,
    book: &Book,
    sent: &[&NewRun],
    mine: Option<bool>,
) -> Result<BTreeMap<String, Made>, Fault> {
    if sent.is_empty() {
        return Ok(BTreeMap::new());
    }
    let number = |value: fn(&NewRun) -> Option<i64>| -> Vec<Option<i64>> {
        sent.iter().map(|new| value(new)).collect()
    };
    let small = |value: fn(&NewRun) -> u8| -> Vec<i16> {
        sent.iter().map(|new| i16::from(value(new))).collect()
    };
    let creator: Vec<_> = sent
        .iter()
        .map(|new| match &new.start {
            Start::Leased { owner } => Some(clean(owner)),
            Start::Queued { .. } => None,
        })
        .collect();
    let run_id: Vec<&str> = sent.iter().map(|new| &*new.run_id).collect();
    let lane: Vec<String> = sent
        .iter()
        .map(|new| new.first_row(0).lane().key())
        .collect();
    let queue: Vec<&str> = sent.iter().map(|new| &*new.queue).collect();
    let workflow: Vec<&str> = sent.iter().map(|new| &*new.workflow).collect();
    let version: Vec<&str> = sent.iter().map(|new| &*new.version).collect();
    let priority = small(|new| new.priority);
    let format = small(NewRun::format);
    let tags: Vec<Option<String>> = sent.iter().map(|new| lists::join(&new.tags)).collect();
    let seed: Vec<&[u8]> = sent.iter().map(|new| &new.seed[..]).collect();
    let start_at = number(|new| match &new.start {
        Start::Queued { at } => *at,
        Start::Leased { .. } => None,
    });
    let started_at = number(|new| new.started_at);
    let timeout = number(|new| new.timeout);
    let given = number(|new| new.now);
    let length = number(|new| Some(signed(1 + new.entries.len() as u64)));
    let parent: Vec<_> = sent.iter().map(|new| new.parent.as_deref()).collect();
    let root: Vec<_> = sent.iter().map(|new| new.root.as_deref()).collect();
    let origin: Vec<_> = sent.iter().map(|new| new.origin.as_deref()).collect();
    let input: Vec<&[u8]> = sent.iter().map(|new| &*new.input).collect();
    let memo: Vec<Option<&[u8]>> = sent.iter().map(|new| new.memo.as_deref()).collect();
    let meta: Vec<_> = sent
        .iter()
        .map(|new| new.meta.as_deref().map(clean))
        .collect();
    let e = Brought::of(sent);
    let params: &Params<'_> = &[
        &run_id,
        &creator,
        &lane,
        &queue,
        &workflow,
        &version,
        &priority,
        &format,
        &tags,
        &seed,
        &start_at,
        &started_at,
        &timeout,
        &given,
        &length,
        &parent,
        &root,
        &origin,
        &input,
        &memo,
        &e.idx,
        &e.at,
        &e.encoding,
        &e.kind,
        &e.run_id,
        &e.op,
        &e.meta,
        &e.payload,
        &meta,
    ];
    let mine: Vec<&(dyn ToSql + Sync)> = mine.iter().map(|mine| mine as _).collect();
    let params = book.of_run(&[params, &mine].concat(), &run_id[0]);
    let create = if tags.iter().any(Option::is_some) {
        &book.create_tagged
    } else {
        &book.create
    };
    let mut repeats = 0;
    let rows = loop {
        match link.run_unless_locked(create, &params).await {
            // Others have created one of them since this statement began.
            Err(fault) if fault.is_of_a_key() && repeats < REPEATS => repeats += 1,
            other => break other?,
        }
    };
    rows.iter()
        .map(|row| {
            let made = (column(row, 1, "created_at")?, column(row, 2, "status")?);
            Ok((column(row, 0, "run_id")?, made))
        })
        .collect()
}

/// The rows of those that were there before.
async fn existing(
    link: &Link,
    book: &Book,
    wanted: &[&str],
) -> Result<BTreeMap<String, RunRow>, Fault> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = in_batches(book, wanted, async |ids| {
        link.read(&book.rows, &book.of_run(&[&ids], &ids[0])).await
    })
    .await?;
    rows.iter()
        .flatten()
        .map(|row| {
            let row = run_row(&mut Reader::new(row))?;
            Ok((row.run_id.to_string(), row))
        })
        .collect()
}
