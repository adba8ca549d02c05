//! Schedules: rows that are changed by their version, and found by when somebody has to look at them.

use std::collections::{BTreeMap, BTreeSet};

use duramen_core::ids::Millis;
use duramen_core::store::{DueSchedules, ScheduleAsk, ScheduleChange, ScheduleRow};
use duramen_store_sql::schedule_row;

use crate::error::Fault;
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column};
use crate::sql::Book;

/// One statement for what is to be new, one for the rest. Of two changes of one id in a batch each sees what the one
/// before it has done.
pub(crate) async fn change(
    link: &Link,
    book: &Book,
    batch: &[ScheduleChange],
) -> Result<Vec<bool>, Fault> {
    let mut done = Vec::with_capacity(batch.len());
    let mut rest = batch;
    while !rest.is_empty() {
        let mut ids = BTreeSet::new();
        let alone = rest.iter().take_while(|change| ids.insert(&change.id));
        let (part, others) = rest.split_at(alone.count());
        done.append(&mut change_each(link, book, part).await?);
        rest = others;
    }
    Ok(done)
}

async fn change_each(
    link: &Link,
    book: &Book,
    part: &[ScheduleChange],
) -> Result<Vec<bool>, Fault> {
    let mut done: BTreeSet<String> = BTreeSet::new();
    let new: Vec<(&ScheduleChange, &ScheduleRow)> = part
        .iter()
        .filter(|change| change.expected.is_none())
        .filter_map(|change| Some((change, change.row.as_ref()?)))
        .collect();
    if !new.is_empty() {
        let id: Vec<&str> = new.iter().map(|(change, _)| &*change.id).collect();
        let version: Vec<i64> = new.iter().map(|(_, row)| row.version).collect();
        let workflow: Vec<&str> = new.iter().map(|(_, row)| &*row.workflow).collect();
        let next_at: Vec<Option<Millis>> = new.iter().map(|(_, row)| row.next_at).collect();
        let definition: Vec<&[u8]> = new.iter().map(|(_, row)| &*row.definition).collect();
        let state: Vec<&[u8]> = new.iter().map(|(_, row)| &*row.state).collect();
        let params: &Params<'_> = &[&id, &version, &workflow, &next_at, &definition, &state];
        for row in &link.run(&book.schedules.insert, params).await? {
            done.insert(column(row, 0, "id")?);
        }
    }
    let old: Vec<(&ScheduleChange, i64)> = part
        .iter()
        .filter_map(|change| Some((change, change.expected?)))
        .collect();
    if !old.is_empty() {
        let row = |change: &ScheduleChange| change.row.clone();
        let rows: Vec<Option<ScheduleRow>> = old.iter().map(|(change, _)| row(change)).collect();
        let rows = || rows.iter().map(Option::as_ref);
        let id: Vec<&str> = old.iter().map(|(change, _)| &*change.id).collect();
        let expected: Vec<i64> = old.iter().map(|(_, expected)| *expected).collect();
        let version: Vec<Option<i64>> = rows().map(|row| Some(row?.version)).collect();
        let workflow: Vec<Option<&str>> = rows().map(|row| Some(&*row?.workflow)).collect();
        let next_at: Vec<Option<Millis>> = rows().map(|row| row?.next_at).collect();
        let definition: Vec<Option<&[u8]>> = rows().map(|row| Some(&*row?.definition)).collect();
        let state: Vec<Option<&[u8]>> = rows().map(|row| Some(&*row?.state)).collect();
        let gone: Vec<bool> = rows().map(|row| row.is_none()).collect();
        let params: &Params<'_> = &[
            &id,
            &expected,
            &version,
            &workflow,
            &next_at,
            &definition,
            &state,
            &gone,
        ];
        for row in &link.run(&book.schedules.change, params).await? {
            done.insert(column(row, 0, "id")?);
        }
    }
    // There is to be none, and there was to be none.
    let absent: Vec<String> = part
        .iter()
        .filter(|change| change.expected.is_none() && change.row.is_none())
        .map(|change| change.id.clone())
        .collect();
    if !absent.is_empty() {
        let found = get(link, book, &absent).await?;
        let free = absent.into_iter().zip(found);
        done.extend(free.filter_map(|(id, row)| row.is_none().then_some(id)));
    }
    Ok(part
        .iter()
        .map(|change| done.contains(&change.id))
        .collect())
}

pub(crate) async fn get(
    link: &Link,
    book: &Book,
    ids: &[String],
) -> Result<Vec<Option<ScheduleRow>>, Fault> {
    let asked: Vec<_> = ids.iter().map(|id| clean(id)).collect();
    let rows = link.read(&book.schedules.get, &[&asked]).await?;
    let mut found: BTreeMap<String, ScheduleRow> = BTreeMap::new();
    for row in &rows {
        let row = schedule_row(&mut Reader::new(row))?;
        found.insert(row.id.clone(), row);
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub(crate) async fn list(
    link: &Link,
    book: &Book,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ScheduleRow>, Fault> {
    // No id is empty.
    let after = clean(after.unwrap_or(""));
    let rows = link
        .read(&book.schedules.list, &[&after, &i64::from(limit)])
        .await?;
    rows.iter()
        .map(|row| schedule_row(&mut Reader::new(row)))
        .collect()
}

/// What is due is found from the index, one more than is wanted, and only then read.
pub(crate) async fn due(
    link: &Link,
    book: &Book,
    ask: &ScheduleAsk,
) -> Result<DueSchedules, Fault> {
    let (at, id) = match &ask.after {
        Some((at, id)) => (*at, clean(id)),
        None => (Millis::MIN, clean("")),
    };
    let mut workflows: Vec<_> = ask.workflows.iter().map(|name| clean(name)).collect();
    workflows.sort_unstable();
    workflows.dedup();
    let most = i64::from(ask.limit) + 1;
    let rows = link
        .read(
            &book.schedules.next,
            &[&ask.now, &workflows, &at, &id, &most],
        )
        .await?;
    let mut now = 0;
    let mut next: Vec<(Millis, String)> = Vec::new();
    for row in &rows {
        now = column(row, 0, "now")?;
        if let Some(at) = column::<Option<Millis>>(row, 1, "next_at")? {
            next.push((at, column(row, 2, "id")?));
        }
    }
    let due = next.iter().take_while(|(at, _)| *at <= now);
    let taken = due.take(ask.limit as usize).count();
    let next_at = next.get(taken).map(|(at, _)| *at);
    let ids: Vec<String> = next.into_iter().take(taken).map(|(_, id)| id).collect();
    // What has been changed or deleted since is somebody else's.
    let rows = if ids.is_empty() {
        Vec::new()
    } else {
        get(link, book, &ids).await?.into_iter().flatten().collect()
    };
    Ok(DueSchedules { now, rows, next_at })
}
