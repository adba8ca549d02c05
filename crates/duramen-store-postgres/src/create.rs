//! Creations: a row, journal entry 0, and a memo if there is one.

use std::collections::BTreeMap;

use duramen_core::ids::RunId;
use duramen_core::run::RunRow;
use duramen_core::store::{Created, NewRun, Start};
use duramen_store_sql::{Damaged, lists, run_row};

use crate::error::Fault;
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column};
use crate::sql::Book;

/// Creates runs with one statement, in the order of their ids: two batches with the same ids, in
/// whatever order, never wait for each other.
pub(crate) async fn create(
    link: &Link,
    book: &Book,
    batch: &[NewRun],
) -> Result<Vec<Created>, Fault> {
    let mut first: BTreeMap<&RunId, usize> = BTreeMap::new();
    for (place, new) in batch.iter().enumerate() {
        // Of two with one id the first is created, the other is told so.
        first.entry(&new.run_id).or_insert(place);
    }
    let sent: Vec<&NewRun> = first.values().map(|place| &batch[*place]).collect();
    let created = insert(link, book, &sent).await?;
    let rows = existing(link, book, batch, &first, &created).await?;
    batch
        .iter()
        .enumerate()
        .map(|(place, new)| {
            let now = created.get(&*new.run_id);
            if let Some(now) = now.filter(|_| first.get(&new.run_id) == Some(&place)) {
                return Ok(Created {
                    created: true,
                    row: new.first_row(*now),
                });
            }
            rows.get(&*new.run_id)
                .map(|row| Created {
                    created: false,
                    row: row.clone(),
                })
                // It was there and has been deleted since.
                .ok_or_else(|| Damaged::column("run_id").into())
        })
        .collect()
}

/// The ids that are new, with the time of their creation.
async fn insert(
    link: &Link,
    book: &Book,
    sent: &[&NewRun],
) -> Result<BTreeMap<String, i64>, Fault> {
    let leased = |new: &NewRun| matches!(new.start, Start::Leased { .. });
    let each = |value: fn(&NewRun) -> Option<i64>| -> Vec<Option<i64>> {
        sent.iter().map(|new| value(new)).collect()
    };
    let run_ids: Vec<&str> = sent.iter().map(|new| &*new.run_id).collect();
    let status: Vec<i16> = sent.iter().map(|new| i16::from(leased(new))).collect();
    let epoch: Vec<i64> = sent.iter().map(|new| i64::from(leased(new))).collect();
    let owner: Vec<_> = sent
        .iter()
        .map(|new| match &new.start {
            Start::Leased { owner, .. } => Some(clean(owner)),
            Start::Queued { .. } => None,
        })
        .collect();
    let workflow: Vec<&str> = sent.iter().map(|new| &*new.workflow).collect();
    let version: Vec<&str> = sent.iter().map(|new| &*new.version).collect();
    let tags: Vec<Option<String>> = sent.iter().map(|new| lists::join(&new.tags)).collect();
    let seed: Vec<&[u8]> = sent.iter().map(|new| &new.seed[..]).collect();
    let start_at = each(|new| match &new.start {
        Start::Queued { at } => *at,
        Start::Leased { .. } => None,
    });
    let lease = each(|new| match &new.start {
        Start::Leased { lease, .. } => Some(*lease),
        Start::Queued { .. } => None,
    });
    let timeout = each(|new| new.timeout);
    let given = each(|new| new.now);
    let input: Vec<&[u8]> = sent.iter().map(|new| &*new.input).collect();
    let memo: Vec<Option<&[u8]>> = sent.iter().map(|new| new.memo.as_deref()).collect();
    let params: &Params<'_> = &[
        &run_ids, &status, &epoch, &owner, &workflow, &version, &tags, &seed, &start_at, &lease,
        &timeout, &given, &input, &memo,
    ];
    let rows = match link.run(&book.create, params).await {
        // Others have created one of them since this statement began.
        Err(fault) if fault.is_a_race_of_creators() => {
            link.run(&book.create_contested, params).await?
        }
        other => other?,
    };
    rows.iter()
        .map(|row| Ok((column(row, 0, "run_id")?, column(row, 1, "created_at")?)))
        .collect()
}

/// The rows of those that were there before.
async fn existing(
    link: &Link,
    book: &Book,
    batch: &[NewRun],
    first: &BTreeMap<&RunId, usize>,
    created: &BTreeMap<String, i64>,
) -> Result<BTreeMap<String, RunRow>, Fault> {
    let wanted: Vec<&str> = if first.len() == batch.len() {
        first
            .keys()
            .map(|run_id| &***run_id)
            .filter(|run_id| !created.contains_key(*run_id))
            .collect()
    } else {
        first.keys().map(|run_id| &***run_id).collect()
    };
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = link.read(&book.rows, &[&wanted]).await?;
    rows.iter()
        .map(|row| {
            let row = run_row(&mut Reader::new(row))?;
            Ok((row.run_id.to_string(), row))
        })
        .collect()
}
