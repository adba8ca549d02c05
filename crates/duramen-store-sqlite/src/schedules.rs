//! Schedules: rows that are changed by their version, and found by when somebody has to look at them.

use duramen_core::ids::Millis;
use duramen_core::store::{DueSchedules, ScheduleAsk, ScheduleChange, ScheduleRow};
use duramen_store_sql::schedule_row;
use rusqlite::{Connection, params};

use crate::clock::instant;
use crate::error::Fault;
use crate::row::Reader;
use crate::session::Session;
use crate::sql::schedule as sql;

impl Session<'_> {
    pub(crate) fn change_schedules(
        &mut self,
        batch: &[ScheduleChange],
    ) -> Result<Vec<bool>, Fault> {
        batch
            .iter()
            .map(|change| Ok(apply(self.connection, change)? > 0))
            .collect()
    }
}

fn apply(connection: &Connection, change: &ScheduleChange) -> Result<usize, Fault> {
    let id = &change.id;
    let statement = |text: &str| connection.prepare_cached(text);
    let changed = match (&change.row, change.expected) {
        (Some(row), expected) => {
            let (definition, state) = (&*row.definition, &*row.state);
            let (version, workflow, next_at) = (row.version, &row.workflow, row.next_at);
            match expected {
                None => statement(sql::INSERT)?
                    .execute(params![id, version, workflow, next_at, definition, state])?,
                Some(expected) => statement(sql::UPDATE)?.execute(params![
                    id, version, workflow, next_at, definition, state, expected
                ])?,
            }
        }
        (None, Some(expected)) => statement(sql::DELETE)?.execute(params![id, expected])?,
        // There is to be none, and there was to be none.
        (None, None) => usize::from(get_one(connection, id)?.is_none()),
    };
    Ok(changed)
}

fn get_one(connection: &Connection, id: &str) -> Result<Option<ScheduleRow>, Fault> {
    let mut statement = connection.prepare_cached(sql::GET)?;
    let mut rows = statement.query([id])?;
    rows.next()?
        .map(|row| schedule_row(&mut Reader::new(row)))
        .transpose()
}

pub(crate) fn get(
    connection: &Connection,
    ids: &[String],
) -> Result<Vec<Option<ScheduleRow>>, Fault> {
    ids.iter().map(|id| get_one(connection, id)).collect()
}

pub(crate) fn list(
    connection: &Connection,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ScheduleRow>, Fault> {
    let mut statement = connection.prepare_cached(sql::LIST)?;
    // No id is empty.
    let mut rows = statement.query(params![after.unwrap_or(""), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(schedule_row(&mut Reader::new(row))?);
    }
    Ok(found)
}

/// What is due is found from the index, one more than is wanted, and only then read.
pub(crate) fn due(connection: &Connection, ask: &ScheduleAsk) -> Result<DueSchedules, Fault> {
    let now = instant(ask.now);
    let (at, id) = match &ask.after {
        Some((at, id)) => (*at, id.as_str()),
        None => (Millis::MIN, ""),
    };
    let most = i64::from(ask.limit) + 1;
    let mut statement = connection.prepare_cached(sql::NEXT)?;
    let mut next: Vec<(Millis, String)> = Vec::new();
    for workflow in &ask.workflows {
        let mut rows = statement.query(params![workflow, at, id, most])?;
        while let Some(row) = rows.next()? {
            next.push((row.get(0)?, row.get(1)?));
        }
    }
    next.sort_unstable();
    next.dedup();
    let due = next.iter().take_while(|(at, _)| *at <= now);
    let taken = due.take(ask.limit as usize).count();
    let next_at = next.get(taken).map(|(at, _)| *at);
    let mut rows = Vec::with_capacity(taken);
    for (_, id) in &next[..taken] {
        // What has been changed or deleted since is somebody else's.
        rows.extend(get_one(connection, id)?);
    }
    Ok(DueSchedules { now, rows, next_at })
}
