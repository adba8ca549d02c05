//! Lists and counts of runs.
//!
//! Newest first is the order of one index, `runs_created`. Whoever asks for few among many would walk all of it, so a
//! filter is split into sources, each with the index that has the fewest rows for it, and their pages are merged:
//!
//! - failed runs, stuck runs and waits without a deadline have an index in the order of lists;
//! - queued, running and other waiting runs stand in the indexes of claims and owners. They are read whole
//!   and sorted as long as they are few ([`FEW`]): a million that ended cost nothing then. If they are more, the
//!   newest runs are likely among them, and walking finds a page soon;
//! - runs that ended before an instant likewise ([`FEW_FINISHED`]; walking passes over all that ended later, so it
//!   is worth less);
//! - only waiting and running runs have wait keys, so a filter by one looks at no others.
//!
//! All else (tags, workflows, names of completed runs) walks.

use std::collections::BTreeSet;

use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Cursor, Filter, Page};
use duramen_store_sql::filter::{self, Dialect};
use duramen_store_sql::{lists, run_columns, run_row};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::error::Fault;
use crate::row::Reader;

/// So many rows are looked up and sorted in some 30 ms.
const FEW: u32 = 20_000;

/// See the module's head.
const FEW_FINISHED: u32 = 100_000;

/// Rows that one index has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) index: &'static str,
    /// With literals (running runs, and only these, have an owner): a bound value does not tell SQLite that a partial index has the row.
    pub(crate) condition: &'static str,
    /// Whether its index has them in the order of lists, so that it need not be small.
    pub(crate) ordered: bool,
}

const fn source(index: &'static str, condition: &'static str, ordered: bool) -> Source {
    Source {
        index,
        condition,
        ordered,
    }
}

const QUEUED: [Source; 1] = [source(
    "runs_due",
    "status = 0 AND ready_at IS NOT NULL",
    false,
)];
const RUNNING: [Source; 1] = [source("runs_owned", "owner IS NOT NULL", false)];
const WAITING: [Source; 2] = [
    source("runs_due", "status = 2 AND ready_at IS NOT NULL", false),
    source("runs_resting", "status = 2 AND ready_at IS NULL", true),
];
const FAILED: [Source; 1] = [source(
    "runs_resting",
    "status = 4 AND ready_at IS NULL",
    true,
)];
const STUCK: [Source; 1] = [source(
    "runs_resting",
    "status = 7 AND ready_at IS NULL",
    true,
)];

/// The sources that have all runs of a status, if there are any.
pub(crate) const fn sources_of(status: Status) -> &'static [Source] {
    match status {
        Status::Queued => &QUEUED,
        Status::Running => &RUNNING,
        Status::Waiting => &WAITING,
        Status::Failed => &FAILED,
        Status::Stuck => &STUCK,
        Status::Completed | Status::Cancelled | Status::Terminated => &[],
    }
}

/// One statement of a list or a count.
#[derive(Debug, Default)]
pub(crate) struct Part {
    index: Option<&'static str>,
    condition: Option<&'static str>,
    /// If it has no condition.
    status: Vec<Status>,
}

impl Part {
    pub(crate) fn of(source: &Source) -> Self {
        Self {
            index: Some(source.index),
            condition: Some(source.condition),
            status: Vec::new(),
        }
    }

    fn from(&self, what: &str) -> String {
        match self.index {
            Some(index) => format!("SELECT {what} FROM runs INDEXED BY {index}"),
            None => format!("SELECT {what} FROM runs"),
        }
    }

    /// Its own part of a filter, and the values that stand for it.
    fn filter(&self, wanted: &Filter) -> (Filter, Values) {
        // What statuses there are is in the condition; any one makes the dialect say it.
        let status = match self.condition {
            Some(_) => vec![Status::Queued],
            None => self.status.clone(),
        };
        let values = Values {
            values: Vec::new(),
            condition: self.condition,
        };
        (
            Filter {
                status,
                ..wanted.clone()
            },
            values,
        )
    }

    pub(crate) fn list(
        &self,
        wanted: &Filter,
        limit: u32,
        cursor: Option<&Cursor>,
    ) -> (String, Vec<Value>) {
        let (filter, mut values) = self.filter(wanted);
        let select = self.from(run_columns!(""));
        let text = filter::list(&mut values, &select, &filter, limit, cursor);
        (text, values.values)
    }

    pub(crate) fn count(&self, wanted: &Filter) -> (String, Vec<Value>) {
        let (filter, mut values) = self.filter(wanted);
        let text = filter::count(&mut values, &self.from("count(*)"), &filter);
        (text, values.values)
    }
}

pub(crate) fn list(
    connection: &Connection,
    wanted: &Filter,
    limit: u32,
    cursor: Option<&Cursor>,
) -> Result<Page, Fault> {
    list_of(
        connection,
        &parts(connection, wanted, Few::default())?,
        wanted,
        limit,
        cursor,
    )
}

fn list_of(
    connection: &Connection,
    parts: &[Part],
    wanted: &Filter,
    limit: u32,
    cursor: Option<&Cursor>,
) -> Result<Page, Fault> {
    let mut rows: Vec<RunRow> = Vec::new();
    for part in parts {
        let (text, values) = part.list(wanted, limit, cursor);
        let mut statement = connection.prepare_cached(&text)?;
        let mut found = statement.query(params_from_iter(values))?;
        while let Some(one) = found.next()? {
            rows.push(run_row(&mut Reader::new(one))?);
        }
    }
    if parts.len() > 1 {
        rows.sort_unstable_by(|a, b| (b.created_at, &b.run_id).cmp(&(a.created_at, &a.run_id)));
    }
    Ok(filter::page(rows, limit))
}

pub(crate) fn count(connection: &Connection, wanted: &Filter) -> Result<u64, Fault> {
    let statuses_alone = *wanted
        == Filter {
            status: wanted.status.clone(),
            ..Filter::default()
        };
    let few = Few {
        live: if statuses_alone { u32::MAX } else { FEW },
        ..Few::default()
    };
    count_of(connection, &parts(connection, wanted, few)?, wanted)
}

fn count_of(connection: &Connection, parts: &[Part], wanted: &Filter) -> Result<u64, Fault> {
    let mut sum = 0;
    for part in parts {
        let (text, values) = part.count(wanted);
        let mut statement = connection.prepare_cached(&text)?;
        let count: i64 = statement.query_row(params_from_iter(values), |found| found.get(0))?;
        sum += u64::try_from(count).unwrap_or(0);
    }
    Ok(sum)
}

/// How many rows of a source that is not in the order of lists are few.
#[derive(Debug, Clone, Copy)]
struct Few {
    live: u32,
    finished: u32,
}

impl Default for Few {
    fn default() -> Self {
        Self {
            live: FEW,
            finished: FEW_FINISHED,
        }
    }
}

/// The statements that together give what a filter lets through, each row once.
fn parts(connection: &Connection, wanted: &Filter, few: Few) -> Result<Vec<Part>, Fault> {
    let items = [&wanted.tag, &wanted.waiting_for];
    if items
        .into_iter()
        .flatten()
        .any(|item| lists::sought(item).is_none())
    {
        // No list has such an item. (And SQLite refuses an index for a condition that nothing meets.)
        return Ok(Vec::new());
    }
    let mut wanted_statuses: BTreeSet<Status> = wanted.status.iter().copied().collect();
    if wanted.waiting_for.is_some() {
        let with_waits = BTreeSet::from([Status::Running, Status::Waiting]);
        wanted_statuses = if wanted_statuses.is_empty() {
            with_waits
        } else {
            &wanted_statuses & &with_waits
        };
        if wanted_statuses.is_empty() {
            return Ok(Vec::new());
        }
    }
    if wanted_statuses.is_empty() || wanted.parent.is_some() {
        // A parent has an index of its own, in the order of lists.
        return Ok(vec![walk(connection, wanted, wanted_statuses, few)?]);
    }
    let mut parts = Vec::new();
    let mut walked = BTreeSet::new();
    for status in wanted_statuses {
        let sources = sources_of(status);
        let mut small = !sources.is_empty();
        for source in sources {
            small = small && (source.ordered || is_few(connection, source, few.live, None)?);
        }
        if small {
            parts.extend(sources.iter().map(Part::of));
        } else {
            walked.insert(status);
        }
    }
    if !walked.is_empty() {
        parts.push(walk(connection, wanted, walked, few)?);
    }
    Ok(parts)
}

fn walk(
    connection: &Connection,
    wanted: &Filter,
    statuses: BTreeSet<Status>,
    few: Few,
) -> Result<Part, Fault> {
    let finished = source("runs_finished", "finished_at < ?1", false);
    let few = match wanted.finished_before {
        Some(at) if wanted.parent.is_none() => {
            is_few(connection, &finished, few.finished, Some(at))?
        }
        _ => false,
    };
    Ok(Part {
        index: few.then_some(finished.index),
        condition: None,
        status: statuses.into_iter().collect(),
    })
}

/// Whether a source has no more than so many rows: counts no further than that, in the index alone.
fn is_few(
    connection: &Connection,
    source: &Source,
    most: u32,
    value: Option<i64>,
) -> Result<bool, Fault> {
    if most == u32::MAX {
        return Ok(true);
    }
    let mut statement = connection.prepare_cached(&few(source, most))?;
    let count: u32 = statement.query_row(params_from_iter(value), |found| found.get(0))?;
    Ok(count <= most)
}

pub(crate) fn few(source: &Source, most: u32) -> String {
    let Source {
        index, condition, ..
    } = source;
    let stop = u64::from(most) + 1;
    format!(
        "SELECT count(*) FROM (SELECT 1 FROM runs INDEXED BY {index} WHERE {condition} LIMIT {stop})"
    )
}

/// The values of a statement, in the order of its question marks.
#[derive(Default)]
pub(crate) struct Values {
    values: Vec<Value>,
    /// What is said instead of statuses.
    condition: Option<&'static str>,
}

impl Values {
    fn mark(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        "?".to_owned()
    }
}

impl Dialect for Values {
    fn text(&mut self, value: &str) -> String {
        self.mark(value.to_owned())
    }

    fn integer(&mut self, value: i64) -> String {
        self.mark(value)
    }

    fn one_of(&mut self, column: &str, codes: &[i64]) -> String {
        if let Some(condition) = self.condition {
            return condition.to_owned();
        }
        let codes: Vec<String> = codes.iter().map(i64::to_string).collect();
        format!("{column} IN ({})", codes.join(", "))
    }

    fn contains(&mut self, column: &str, item: &str) -> String {
        match lists::sought(item) {
            Some(sought) => format!("instr({column}, {}) > 0", self.mark(sought)),
            None => "0".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate;

    /// Runs of every status, some with waits, some with a deadline; no order of theirs is another's.
    fn some() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        migrate::apply(&connection).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 799), \
                 r AS (SELECT n, n % 8 AS status, n * 37 % 211 AS created FROM n) \
                 INSERT INTO runs SELECT 'r' || n, status, 0, CASE status WHEN 1 THEN 'o' END, zeroblob(16), \
                 0, 0, 0, 0, NULL, 1, \
                 CASE WHEN status = 0 OR (status = 2 AND n % 3 > 0) THEN n * 11 % 97 END, 0, 0, 0, 1, n % 5, 0, 0, \
                 NULL, CASE WHEN status BETWEEN 3 AND 6 THEN n * 13 % 101 END, created, NULL, \
                 'lane' || n % 3, 'q', 'w' || n % 3, '1', \
                 CASE WHEN status IN (1, 2) AND n % 5 > 1 THEN char(31) || 'timer' || char(31) ELSE '' END, \
                 CASE WHEN n % 7 = 0 THEN char(31) || 'red' || char(31) ELSE '' END, NULL, \
                 CASE WHEN n % 11 = 0 THEN 'p' END, NULL, NULL FROM r",
            )
            .unwrap();
        connection
    }

    fn filters() -> Vec<Filter> {
        let statuses: Vec<Vec<Status>> = (0..256_u32)
            .step_by(5)
            .map(|set| {
                let code = (0..8).filter(|code| set >> code & 1 == 1);
                code.filter_map(Status::from_code).collect()
            })
            .collect();
        let mut filters = Vec::new();
        for (n, status) in statuses.into_iter().enumerate() {
            let some = |nth: usize, text: &str| (n % nth == 0).then(|| text.to_owned());
            filters.push(Filter {
                status,
                workflow: some(3, "w1"),
                tag: some(4, "red"),
                waiting_for: some(5, "timer"),
                parent: some(7, "p").map(Into::into),
                finished_before: (n % 6 == 0).then_some(60),
                ..Filter::default()
            });
        }
        filters
    }

    #[test]
    fn whether_few_or_many_the_answer_is_the_same() {
        let connection = some();
        let many = Few {
            live: 0,
            finished: 0,
        };
        let mut split = 0;
        for wanted in filters() {
            let by = |few| parts(&connection, &wanted, few).unwrap();
            let (few, many) = (by(Few::default()), by(many));
            split += usize::from(few.len() > many.len());
            let count = |parts: &[Part]| count_of(&connection, parts, &wanted).unwrap();
            assert_eq!(count(&few), count(&many), "{wanted:?}");
            assert_eq!(count(&few), super::count(&connection, &wanted).unwrap());
            let mut cursor = None;
            let mut seen = 0;
            loop {
                let page = |parts: &[Part]| {
                    list_of(&connection, parts, &wanted, 30, cursor.as_ref()).unwrap()
                };
                let found = page(&few);
                assert_eq!(found, page(&many), "{wanted:?}");
                seen += found.rows.len() as u64;
                let Some(next) = found.next else { break };
                cursor = Some(next);
            }
            assert_eq!(seen, count(&few), "{wanted:?}");
        }
        assert!(split > 10, "{split}");
    }
}
