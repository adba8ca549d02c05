//! Lists and counts of runs.
//!
//! What a filter lets through is read from *streams*: stretches of an index in which the runs come newest first. A stream is
//! read no further than to the first run that is older than a whole page from the streams before it; so a page costs some
//! fifty keys and a descent for each stream, however many runs there are. Which streams:
//!
//! - of a tag, of a parent, of a family: one each;
//! - of a workflow, a queue, a version, or of all runs: one for each lane (`runs_created`);
//! - of waiting, failed, cancelled, terminated and stuck runs: one for each lane and wait key (`runs_resting`), as long as
//!   there are not too many ([`MOST_STREAMS`]). Runs that wait for several things at once stand together; a filter by one of these goes through them;
//! - queued and running runs stand in the indexes of claims and owners, in no order of lists. They are read whole as long
//!   as they are few ([`FEW`]). If they are more, the newest runs are likely among them, and those of all lanes that
//!   are of the status make a page soon. So it is with runs that ended before an instant ([`FEW_FINISHED`]; lanes pass over
//!   all that ended later, so that they are worth less), and with those whose ids have a prefix.
//!
//! Where the runs of lanes are filtered further, a lane may have none that fit, and would be gone through to its end for a
//! page that another lane fills at once. So lanes are read side by side, in spans of time that grow ([`filter::spans`]).
//!
//! Of two fields of a filter the one with few runs decides; where each lets many through and both together few, all of
//! one are gone through.

use std::collections::BTreeSet;

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::Status;
use duramen_core::store::{Cursor, Filter, Page};
use duramen_store_sql::filter::{self, Dialect};
use duramen_store_sql::{lists, run_row};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::error::Fault;
use crate::row::Reader;
use crate::sql;

/// So many rows are looked up in some 20 ms.
const FEW: u32 = 20_000;

/// See the module's head.
const FEW_FINISHED: u32 = 100_000;

/// So many runs of a tag or of lanes are gone through before anything else is thought of: in some 2 ms.
const NARROW: u32 = 1_000;

/// So many streams are begun in some 2 ms.
const MOST_STREAMS: usize = 500;

/// What a run waits for, as `runs_resting` has it.
pub(crate) const WAIT: &str =
    "(CASE WHEN instr(substr(waits, 2), char(31)) = length(waits) - 1 THEN waits ELSE '' END)";
const LANE: &str = "lane";

/// Runs that one index has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) index: &'static str,
    /// With literals (running runs, and only these, have an owner): a bound value does not tell SQLite that a partial
    /// index has the row.
    pub(crate) condition: &'static str,
    /// What stands in the index between these and the time. If there is nothing, it is in no order of lists.
    split: &'static [&'static str],
}

pub(crate) const ALL: Source = source("runs_created", "", &[LANE]);
pub(crate) const QUEUED: Source = source("runs_due", "status = 0 AND ready_at IS NOT NULL", &[]);
pub(crate) const RUNNING: Source = source("runs_owned", "owner IS NOT NULL", &[]);
pub(crate) const WAITING: Source = source("runs_resting", "status = 2", &[WAIT, LANE]);
pub(crate) const FAILED: Source = source("runs_resting", "status = 4", &[WAIT, LANE]);
pub(crate) const CANCELLED: Source = source("runs_resting", "status = 5", &[WAIT, LANE]);
pub(crate) const TERMINATED: Source = source("runs_resting", "status = 6", &[WAIT, LANE]);
pub(crate) const STUCK: Source = source("runs_resting", "status = 7", &[WAIT, LANE]);
pub(crate) const PAUSED: Source = source("runs_resting", "status = 8", &[WAIT, LANE]);

const fn source(
    index: &'static str,
    condition: &'static str,
    split: &'static [&'static str],
) -> Source {
    Source {
        index,
        condition,
        split,
    }
}

/// The source that has all runs of a status, if there is one.
pub(crate) const fn source_of(status: Status) -> Option<&'static Source> {
    match status {
        Status::Queued => Some(&QUEUED),
        Status::Running => Some(&RUNNING),
        Status::Waiting => Some(&WAITING),
        Status::Failed => Some(&FAILED),
        Status::Stuck => Some(&STUCK),
        Status::Paused => Some(&PAUSED),
        Status::Cancelled => Some(&CANCELLED),
        Status::Terminated => Some(&TERMINATED),
        Status::Completed => None,
    }
}

/// A condition, and the value of its question mark.
type Term = (String, Option<Value>);

/// Where some runs stand, newest first or in another order (a short one, which is sorted), and what is still asked of them.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    from: String,
    terms: Vec<Term>,
    rest: Filter,
    /// See the module's head.
    in_spans: bool,
}

impl Stream {
    pub(crate) fn of(source: &Source, rest: Filter) -> Self {
        let mut terms = Vec::new();
        if !source.condition.is_empty() {
            terms.push((source.condition.to_owned(), None));
        }
        Self {
            from: format!("runs INDEXED BY {}", source.index),
            terms,
            rest,
            in_spans: false,
        }
    }

    /// One tag's runs. Their rows are looked up if more is asked of them than a tag's row says.
    pub(crate) fn of_tag(tag: &str, rest: Filter) -> Self {
        let said = Filter {
            created_after: rest.created_after,
            created_before: rest.created_before,
            id_prefix: rest.id_prefix.clone(),
            ..Filter::default()
        };
        let from = if rest == said {
            "run_tags"
        } else {
            "(SELECT t.tag, t.created_at, t.run_id, r.workflow, r.version, r.queue, r.parent, r.root, r.status, r.tags, r.waits, \
             r.finished_at FROM run_tags t CROSS JOIN runs r ON r.run_id = t.run_id)"
        };
        Self {
            from: from.to_owned(),
            terms: vec![("tag = ?".to_owned(), Some(tag.to_owned().into()))],
            rest,
            in_spans: false,
        }
    }

    pub(crate) fn children(parent: &str, rest: Filter) -> Self {
        Self {
            from: "runs INDEXED BY runs_parent".to_owned(),
            terms: vec![("parent = ?".to_owned(), Some(parent.to_owned().into()))],
            rest,
            in_spans: false,
        }
    }

    pub(crate) fn family(root: &str, rest: Filter) -> Self {
        Self {
            from: "runs INDEXED BY runs_root".to_owned(),
            terms: vec![("root = ?".to_owned(), Some(root.to_owned().into()))],
            rest,
            in_spans: false,
        }
    }

    pub(crate) fn ended_before(at: Millis, rest: Filter) -> Self {
        Self {
            from: "runs INDEXED BY runs_finished".to_owned(),
            terms: vec![("finished_at < ?".to_owned(), Some(at.into()))],
            rest,
            in_spans: false,
        }
    }

    /// By the key of the table, which has the ids in order.
    pub(crate) fn of_prefix(rest: Filter) -> Self {
        Self {
            from: "runs NOT INDEXED".to_owned(),
            terms: Vec::new(),
            rest,
            in_spans: false,
        }
    }

    pub(crate) fn with(mut self, column: &str, value: &str) -> Self {
        self.terms
            .push((format!("{column} = ?"), Some(value.to_owned().into())));
        self
    }

    fn within(&self, since: Millis, until: Millis) -> Self {
        Self {
            rest: filter::within(&self.rest, since, until),
            ..self.clone()
        }
    }

    fn begin(&self) -> (Values, Vec<String>) {
        let (mut values, mut first) = (Values::default(), Vec::new());
        for (text, value) in &self.terms {
            first.push(text.clone());
            values.values.extend(value.clone());
        }
        (values, first)
    }

    /// Keys, newest first.
    pub(crate) fn keys(&self, limit: u32, cursor: Option<&Cursor>) -> (String, Vec<Value>) {
        let (mut values, first) = self.begin();
        let select = format!("SELECT created_at, run_id FROM {}", self.from);
        let text = filter::list(&mut values, &select, first, &self.rest, limit, cursor);
        (text, values.values)
    }

    pub(crate) fn count(&self) -> (String, Vec<Value>) {
        let (mut values, first) = self.begin();
        let select = format!("SELECT count(*) FROM {}", self.from);
        let text = filter::all(&mut values, &select, first, &self.rest);
        (text, values.values)
    }

    /// How many there are in its index, whatever is asked of them; counted no further than `most` and one more.
    pub(crate) fn size(&self, most: u32) -> (String, Vec<Value>) {
        let asked = Filter {
            id_prefix: self
                .rest
                .id_prefix
                .clone()
                .filter(|_| self.terms.is_empty()),
            ..Filter::default()
        };
        let (mut values, first) = self.begin();
        let select = format!("SELECT 1 FROM {}", self.from);
        let text = filter::all(&mut values, &select, first, &asked);
        let stop = u64::from(most) + 1;
        (
            format!("SELECT count(*) FROM ({text} LIMIT {stop})"),
            values.values,
        )
    }

    /// The next value of a column of its index behind another.
    pub(crate) fn next(&self, column: &str, behind: &str) -> (String, Vec<Value>) {
        let (mut values, mut first) = self.begin();
        first.push(format!("{column} > ?"));
        values.values.push(behind.to_owned().into());
        let select = format!("SELECT {column} FROM {}", self.from);
        let text = filter::all(&mut values, &select, first, &Filter::default());
        (format!("{text} ORDER BY {column} LIMIT 1"), values.values)
    }
}

/// Looks into one state of the file.
struct Look<'c> {
    connection: &'c Connection,
    few: Few,
}

/// How many rows of a source that is not in the order of lists are few, and so on (see the constants).
#[derive(Debug, Clone, Copy)]
struct Few {
    live: u32,
    finished: u32,
    narrow: u32,
    streams: usize,
}

impl Default for Few {
    fn default() -> Self {
        Self {
            live: FEW,
            finished: FEW_FINISHED,
            narrow: NARROW,
            streams: MOST_STREAMS,
        }
    }
}

pub(crate) fn list(
    connection: &Connection,
    wanted: &Filter,
    limit: u32,
    cursor: Option<&Cursor>,
) -> Result<Page, Fault> {
    let look = Look {
        connection,
        few: Few::default(),
    };
    look.page(&look.streams(wanted)?, limit, cursor)
}

pub(crate) fn count(connection: &Connection, wanted: &Filter) -> Result<u64, Fault> {
    let of_statuses = Filter {
        status: wanted.status.clone(),
        ..Filter::default()
    };
    let mut few = Few::default();
    if *wanted == of_statuses {
        // Counted in the index alone.
        few.live = u32::MAX;
    }
    let look = Look { connection, few };
    look.count(&look.streams(wanted)?)
}

/// The newest keys of all that were offered.
struct Newest {
    keys: BTreeSet<(Millis, RunId)>,
    most: usize,
}

impl Newest {
    /// False if it is older than all that are wanted.
    fn take(&mut self, key: (Millis, RunId)) -> bool {
        if self.keys.len() < self.most {
            return self.keys.insert(key);
        }
        if self.keys.first().is_none_or(|oldest| key < *oldest) {
            return false;
        }
        self.keys.pop_first();
        self.keys.insert(key)
    }

    /// Whether no run that was created at an instant or before can be among them.
    fn is_complete_since(&self, at: Millis) -> bool {
        let oldest = self.keys.first().map(|(created_at, _)| *created_at);
        self.keys.len() >= self.most && oldest.is_none_or(|oldest| oldest > at)
    }
}

impl Look<'_> {
    fn page(&self, streams: &[Stream], limit: u32, cursor: Option<&Cursor>) -> Result<Page, Fault> {
        let mut newest = Newest {
            keys: BTreeSet::new(),
            most: (limit as usize).saturating_add(1),
        };
        let (in_spans, at_once): (Vec<_>, Vec<_>) =
            streams.iter().partition(|stream| stream.in_spans);
        for stream in at_once {
            self.offer(stream, limit, cursor, &mut newest)?;
        }
        self.offer_in_spans(&in_spans, limit, cursor, &mut newest)?;
        let mut row = self.connection.prepare_cached(sql::run::ROW)?;
        let mut rows = Vec::with_capacity(newest.keys.len());
        for (_, run_id) in newest.keys.iter().rev() {
            if let Some(found) = row.query([&**run_id])?.next()? {
                rows.push(run_row(&mut Reader::new(found))?);
            }
        }
        Ok(filter::page(rows, limit))
    }

    fn offer(
        &self,
        stream: &Stream,
        limit: u32,
        cursor: Option<&Cursor>,
        newest: &mut Newest,
    ) -> Result<(), Fault> {
        let (text, values) = stream.keys(limit, cursor);
        let mut statement = self.connection.prepare_cached(&text)?;
        let mut found = statement.query(params_from_iter(values))?;
        while let Some(key) = found.next()? {
            let run_id: String = key.get(1)?;
            if !newest.take((key.get(0)?, run_id.into())) {
                break;
            }
        }
        Ok(())
    }

    fn offer_in_spans(
        &self,
        streams: &[&Stream],
        limit: u32,
        cursor: Option<&Cursor>,
        newest: &mut Newest,
    ) -> Result<(), Fault> {
        let mut last = None;
        for stream in streams {
            last = last.max(self.newest_of(stream, cursor)?);
        }
        let Some(last) = last else {
            return Ok(());
        };
        for (since, until) in filter::spans(last) {
            for stream in streams {
                let stream = stream.within(since, until);
                self.offer(&stream, limit, cursor, newest)?;
            }
            if newest.is_complete_since(since) {
                break;
            }
        }
        Ok(())
    }

    /// When the newest run of a lane was created that the page may show.
    fn newest_of(&self, stream: &Stream, cursor: Option<&Cursor>) -> Result<Option<Millis>, Fault> {
        let whole = Stream {
            rest: Filter {
                created_before: stream.rest.created_before,
                ..Filter::default()
            },
            ..stream.clone()
        };
        let (text, values) = whole.keys(0, cursor);
        let mut statement = self.connection.prepare_cached(&text)?;
        let mut rows = statement.query(params_from_iter(values))?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    }

    fn count(&self, streams: &[Stream]) -> Result<u64, Fault> {
        let mut sum = 0;
        for stream in streams {
            let (text, values) = stream.count();
            sum += self.number(&text, values)?;
        }
        Ok(sum)
    }

    fn number(&self, text: &str, values: Vec<Value>) -> Result<u64, Fault> {
        let mut statement = self.connection.prepare_cached(text)?;
        let number: i64 = statement.query_row(params_from_iter(values), |found| found.get(0))?;
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// Whether streams have no more than so many runs together.
    fn are_few(&self, streams: &[Stream], most: u32) -> Result<bool, Fault> {
        if most == u32::MAX {
            return Ok(true);
        }
        let mut left = most;
        for stream in streams {
            let (text, values) = stream.size(left);
            let size = u32::try_from(self.number(&text, values)?).unwrap_or(u32::MAX);
            let Some(less) = left.checked_sub(size) else {
                return Ok(false);
            };
            left = less;
        }
        Ok(true)
    }

    /// The streams that together have what a filter lets through, each run once.
    fn streams(&self, wanted: &Filter) -> Result<Vec<Stream>, Fault> {
        let items = [&wanted.tag, &wanted.waiting_for];
        let no_list_has = |item: &String| lists::sought(item).is_none();
        if items.into_iter().flatten().any(no_list_has) {
            return Ok(Vec::new());
        }
        let Some(statuses) = filter::statuses(wanted) else {
            return Ok(Vec::new());
        };
        let wanted = &Filter {
            status: statuses.iter().copied().collect(),
            ..wanted.clone()
        };
        if let Some(parent) = &wanted.parent {
            let rest = Filter {
                parent: None,
                ..wanted.clone()
            };
            return Ok(vec![Stream::children(parent, rest)]);
        }
        if let Some(root) = &wanted.root {
            let rest = Filter {
                root: None,
                ..wanted.clone()
            };
            return Ok(vec![Stream::family(root, rest)]);
        }
        let of_tag = wanted.tag.as_ref().map(|tag| {
            let rest = Filter {
                tag: None,
                ..wanted.clone()
            };
            vec![Stream::of_tag(tag, rest)]
        });
        let of_prefix = wanted
            .id_prefix
            .as_ref()
            .filter(|prefix| !prefix.is_empty());
        let of_prefix = of_prefix.map(|_| vec![Stream::of_prefix(wanted.clone())]);
        let of_lanes = if is_of_lanes(wanted) {
            Some(self.walk(wanted)?)
        } else {
            None
        };
        for narrow in [&of_tag, &of_prefix, &of_lanes].into_iter().flatten() {
            if self.are_few(narrow, self.few.narrow)? {
                return Ok(narrow.clone());
            }
        }
        if let Some(of_statuses) = self.of_statuses(wanted, statuses, of_tag.is_some())? {
            return Ok(of_statuses);
        }
        if let Some(of_tag) = of_tag {
            return Ok(of_tag);
        }
        self.walk_or_ended(wanted)
    }

    /// Those of statuses, each in the way that is best for it; none if all runs are to be gone through, or if a tag has
    /// less.
    fn of_statuses(
        &self,
        wanted: &Filter,
        statuses: BTreeSet<Status>,
        has_tag: bool,
    ) -> Result<Option<Vec<Stream>>, Fault> {
        let (mut found, mut walked) = (Vec::new(), Vec::new());
        for status in statuses {
            let streams = match source_of(status) {
                Some(source) => self.of_status(source, status, wanted, has_tag)?,
                None => None,
            };
            match streams {
                Some(streams) => found.extend(streams),
                None => walked.push(status),
            }
        }
        if found.is_empty() && !walked.is_empty() || wanted.status.is_empty() {
            return Ok(None);
        }
        if !walked.is_empty() {
            if has_tag {
                return Ok(None);
            }
            let rest = Filter {
                status: walked,
                ..wanted.clone()
            };
            found.extend(self.walk_or_ended(&rest)?);
        }
        Ok(Some(found))
    }

    fn of_status(
        &self,
        source: &Source,
        status: Status,
        wanted: &Filter,
        has_tag: bool,
    ) -> Result<Option<Vec<Stream>>, Fault> {
        let rest = Filter {
            status: Vec::new(),
            ..wanted.clone()
        };
        let whole = vec![Stream::of(source, rest.clone())];
        if !source.split.is_empty()
            && !has_tag
            && let Some(split) = self.split(source, status, &rest)?
        {
            return Ok(Some(split));
        }
        if self.are_few(&whole, self.few.live)? {
            let unordered = |stream: Stream| Stream { ..stream };
            return Ok(Some(whole.into_iter().map(unordered).collect()));
        }
        Ok(None)
    }

    /// One stream for each wait key and lane; none if these are too many.
    fn split(
        &self,
        source: &Source,
        status: Status,
        rest: &Filter,
    ) -> Result<Option<Vec<Stream>>, Fault> {
        let whole = Stream::of(source, rest.clone());
        // With any key those that have several come under none.
        let mut keys = vec![String::new()];
        match &rest.waiting_for {
            Some(wait) => keys.extend(lists::sought(wait)),
            // Others wait for nothing.
            None if matches!(status, Status::Waiting | Status::Paused) => {
                while let Some(next) = self.next(&whole, WAIT, keys.last())? {
                    keys.push(next);
                    if keys.len() > self.few.streams {
                        return Ok(None);
                    }
                }
            }
            None => {}
        }
        let mut streams = Vec::new();
        for key in keys {
            let mut of_key = whole.clone().with(WAIT, &key);
            if !key.is_empty() {
                of_key.rest.waiting_for = None;
            }
            streams.extend(self.by_lane(&of_key)?);
            if streams.len() > self.few.streams {
                return Ok(None);
            }
        }
        Ok(Some(streams))
    }

    fn next(
        &self,
        stream: &Stream,
        column: &str,
        behind: Option<&String>,
    ) -> Result<Option<String>, Fault> {
        let (text, values) = stream.next(column, behind.map_or("", |behind| behind));
        let mut statement = self.connection.prepare_cached(&text)?;
        let mut rows = statement.query(params_from_iter(values))?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    }

    /// A stream for each lane that the filter lets through.
    fn by_lane(&self, stream: &Stream) -> Result<Vec<Stream>, Fault> {
        let (mut streams, mut last) = (Vec::new(), None);
        while let Some(lane) = self.next(stream, LANE, last.as_ref())? {
            if fits(&lane, &stream.rest) {
                let mut of_lane = stream.clone().with(LANE, &lane);
                of_lane.rest.queue = None;
                of_lane.rest.workflow = None;
                of_lane.rest.version = None;
                streams.push(of_lane);
            }
            last = Some(lane);
        }
        Ok(streams)
    }

    /// Through all runs of the lanes that the filter lets through.
    fn walk(&self, wanted: &Filter) -> Result<Vec<Stream>, Fault> {
        let mut lanes = self.by_lane(&Stream::of(&ALL, wanted.clone()))?;
        for lane in &mut lanes {
            let plain = Filter {
                created_after: lane.rest.created_after,
                created_before: lane.rest.created_before,
                ..Filter::default()
            };
            lane.in_spans = lane.rest != plain;
        }
        Ok(lanes)
    }

    fn walk_or_ended(&self, wanted: &Filter) -> Result<Vec<Stream>, Fault> {
        if let Some(at) = wanted.finished_before {
            let rest = Filter {
                finished_before: None,
                ..wanted.clone()
            };
            let ended = vec![Stream::ended_before(at, rest)];
            if self.are_few(&ended, self.few.finished)? {
                return Ok(ended);
            }
        }
        self.walk(wanted)
    }
}

fn is_of_lanes(wanted: &Filter) -> bool {
    wanted.queue.is_some() || wanted.workflow.is_some() || wanted.version.is_some()
}

/// Whether a lane's runs are of the queue, the workflow and the version that a filter names.
fn fits(lane: &str, wanted: &Filter) -> bool {
    let asked = [&wanted.queue, &wanted.workflow, &wanted.version];
    let mut parts = lane.split(lists::SEPARATOR);
    asked.into_iter().all(|asked| {
        let part = parts.next();
        asked.as_deref().is_none_or(|asked| part == Some(asked))
    })
}

/// The values of a statement, in the order of its question marks.
#[derive(Default)]
struct Values {
    values: Vec<Value>,
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
mod tests;
