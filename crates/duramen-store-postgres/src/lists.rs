//! Lists and counts of runs.
//!
//! A page costs some fifty rows, however many runs there are: what a filter lets through is read through the index that has
//! it newest first, or through one that has few of it. Which of them that is, is found out here and not left to the planner,
//! who does not know the values of a statement and whose statistics may be old:
//!
//! - a parent, a family, a tag, a workflow have their own;
//! - waiting, failed, cancelled, terminated, stuck and paused runs stand in one by what they wait for (`runs_resting`). Runs that
//!   wait for several things stand together there; a filter by one of these goes through them;
//! - what is few of a workflow, of a status, of an id's beginning or of those that ended long ago is read whole ([`FEW`]);
//! - all else is read from all workflows side by side, in spans of time that grow ([`filter::spans`]): one workflow that has
//!   nothing to show is not gone through to its end for a page that another fills at once.
//!
//! Of two fields of a filter the one with few runs decides; where each lets many through and both together few, all of
//! one are gone through.

use std::borrow::Cow;

use duramen_core::ids::Millis;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Cursor, Filter, OpenRuns, Page};
use duramen_store_sql::filter::{self, Dialect};
use duramen_store_sql::{open_runs, run_row};
use futures_util::future::try_join_all;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::error::Fault;
use crate::flavour::Flavour;
use crate::link::Link;
use crate::options::Names;
use crate::row::{Reader, clean, column};
use crate::sql::{Sql, list};
use crate::{Inner, Use};

/// So many rows are read and sorted in some ten milliseconds.
const FEW: u32 = 5_000;

/// So many runs of a workflow are read in some two.
const NARROW: u32 = 1_000;

/// What is read for a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Way {
    /// As the planner sees fit: one index has them in order, or there is nothing else.
    Plain(Filter),
    Tag(String, Filter),
    /// Runs of a status that rest, newest first of each wait key.
    Resting(Status, String, Filter),
    /// Few runs, of which these are shown.
    Few(Box<Filter>, Filter),
    /// All workflows.
    Each(Filter),
}

impl Way {
    /// The statement of a page.
    pub(crate) fn page(&self, values: &mut Values, limit: u32, cursor: Option<&Cursor>) -> String {
        let first = self.first(values, cursor);
        match self {
            Self::Plain(rest) | Self::Resting(_, _, rest) | Self::Each(rest) => {
                filter::list(values, list::ROWS, first, rest, limit, cursor)
            }
            Self::Tag(_, rest) => {
                let text = filter::all(values, list::TAGGED, first, rest);
                filter::newest(values, &text, "t.", limit)
            }
            Self::Few(few, rest) => {
                let select = few_of(values, list::FEW, few);
                filter::list(values, &select, first, rest, limit, cursor)
            }
        }
    }

    pub(crate) fn count(&self, values: &mut Values) -> String {
        let first = self.first(values, None);
        let (select, rest) = match self {
            Self::Plain(rest) | Self::Resting(_, _, rest) | Self::Each(rest) => {
                (list::COUNT.to_owned(), rest)
            }
            // The rows of runs say no more.
            Self::Tag(_, rest) if *rest == Filter::default() => (list::COUNT_TAG.to_owned(), rest),
            Self::Tag(_, rest) => (list::COUNT_TAGGED.to_owned(), rest),
            Self::Few(few, rest) => (few_of(values, list::COUNT_FEW, few), rest),
        };
        filter::all(values, &select, first, rest)
    }

    /// What the filter does not say.
    fn first(&self, values: &mut Values, cursor: Option<&Cursor>) -> Vec<String> {
        match self {
            Self::Tag(tag, rest) => {
                let mut first = vec![format!("t.tag = {}", values.text(tag))];
                // Of the row: what is said of the run alone begins at the tag's newest.
                if let Some(cursor) = cursor {
                    let at = values.integer(cursor.created_at);
                    let run_id = values.text(&cursor.run_id);
                    first.push(format!("(t.created_at, t.run_id) < ({at}, {run_id})"));
                }
                for (sign, at) in [(">", rest.created_after), ("<", rest.created_before)] {
                    if let Some(at) = at {
                        first.push(format!("t.created_at {sign} {}", values.integer(at)));
                    }
                }
                first
            }
            Self::Resting(status, wait, _) => {
                vec![
                    format!("r.status = {}", status.code()),
                    format!("{} = {}", list::WAIT, values.text(wait)),
                ]
            }
            Self::Plain(_) | Self::Few(..) | Self::Each(_) => Vec::new(),
        }
    }
}

fn few_of(values: &mut Values, select: &str, few: &Filter) -> String {
    let text = filter::all(values, list::WHOLE, Vec::new(), few);
    select.replace("{few}", &text)
}

/// Whether there are no more than so many.
pub(crate) fn size(values: &mut Values, few: &Filter, most: u32) -> String {
    let text = filter::all(values, list::ANY, Vec::new(), few);
    let stop = u64::from(most) + 1;
    format!("SELECT count(*) FROM ({text} LIMIT {stop}) few")
}

/// The statement of the page of several ways, all from one snapshot.
pub(crate) fn page_of(
    ways: &[Way],
    values: &mut Values,
    limit: u32,
    cursor: Option<&Cursor>,
) -> String {
    let pages: Vec<String> = ways
        .iter()
        .map(|way| way.page(values, limit, cursor))
        .collect();
    if let [one] = &pages[..] {
        return one.clone();
    }
    let most = values.integer(i64::from(limit) + 1);
    format!(
        "SELECT * FROM (({})) r ORDER BY r.created_at DESC, r.run_id DESC LIMIT {most}",
        pages.join(") UNION ALL (")
    )
}

/// The statement of a page of each of these workflows.
pub(crate) fn page_of_each(
    workflows: &[String],
    rest: &Filter,
    values: &mut Values,
    limit: u32,
    cursor: Option<&Cursor>,
) -> String {
    let workflows = values.mark(Type::TEXT_ARRAY, workflows.to_vec());
    let own = vec!["r.workflow = w.workflow".to_owned()];
    let each = filter::list(values, list::WHOLE, own, rest, limit, cursor);
    let select = list::OF_EACH
        .replace("{workflows}", &workflows)
        .replace("{each}", &each);
    filter::list(values, &select, Vec::new(), &Filter::default(), limit, None)
}

/// Asks for lists and counts.
pub(crate) struct Lists<'s> {
    link: &'s Link,
    names: &'s Names,
    flavour: Flavour,
}

impl<'s> Lists<'s> {
    pub(crate) fn of(inner: &'s Inner) -> Self {
        Self {
            link: inner.link(Use::Read),
            names: &inner.names,
            flavour: inner.book.flavour,
        }
    }

    pub(crate) async fn page(
        &self,
        wanted: &Filter,
        limit: u32,
        cursor: Option<&Cursor>,
    ) -> Result<Page, Fault> {
        let ways = self.ways(wanted).await?;
        let mut rows = match &ways[..] {
            [] => Vec::new(),
            [Way::Each(rest)] => self.of_all(rest, limit, cursor).await?,
            ways => {
                let mut values = Values::default();
                let text = page_of(ways, &mut values, limit, cursor);
                self.rows(values, &text).await?
            }
        };
        rows.sort_by(newest_first);
        Ok(filter::page(rows, limit))
    }

    pub(crate) async fn count(&self, wanted: &Filter) -> Result<u64, Fault> {
        let ways = self.ways(wanted).await?;
        if ways.is_empty() {
            return Ok(0);
        }
        let mut values = Values::default();
        let counts: Vec<String> = ways.iter().map(|way| way.count(&mut values)).collect();
        let text = format!("SELECT ({})", counts.join(") + ("));
        self.number(values, &text).await
    }

    /// How many runs have not ended, by lane and status; all from one snapshot.
    pub(crate) async fn census(&self) -> Result<Vec<OpenRuns>, Fault> {
        let mut values = Values::default();
        let parts: Vec<String> = (0..)
            .map_while(Status::from_code)
            .filter(|status| !status.is_final())
            .map(|status| values.one_of("r.status", &[status.code()]))
            .map(|condition| list::CENSUS.replace("{status}", &condition))
            .collect();
        let rows = self.ask(values, &parts.join(" UNION ALL ")).await?;
        let read = rows.iter().map(|row| open_runs(&mut Reader::new(row)));
        let mut found = read.collect::<Result<Vec<_>, _>>()?;
        found.sort();
        Ok(found)
    }

    /// What together has all that a filter lets through, each run once.
    async fn ways(&self, wanted: &Filter) -> Result<Vec<Way>, Fault> {
        let Some(statuses) = filter::statuses(wanted) else {
            return Ok(Vec::new());
        };
        let wanted = Filter {
            status: statuses.into_iter().collect(),
            ..wanted.clone()
        };
        if wanted.parent.is_some() || wanted.root.is_some() {
            return Ok(vec![Way::Plain(wanted)]);
        }
        if let Some(tag) = wanted.tag.clone() {
            let rest = Filter {
                tag: None,
                ..wanted
            };
            return Ok(vec![Way::Tag(tag, rest)]);
        }
        for narrow in narrow(&wanted) {
            if self.are_few(&narrow, NARROW).await? {
                return Ok(vec![Way::Few(Box::new(narrow), wanted)]);
            }
        }
        if let Some(ways) = self.of_statuses(&wanted).await? {
            return Ok(ways);
        }
        if wanted.workflow.is_some() {
            return Ok(vec![Way::Plain(wanted)]);
        }
        if let Some(ended) = wanted.finished_before {
            let ended = Filter {
                finished_before: Some(ended),
                ..Filter::default()
            };
            if self.are_few(&ended, FEW).await? {
                return Ok(vec![Way::Few(Box::new(ended), wanted)]);
            }
        }
        Ok(vec![Way::Each(wanted)])
    }

    /// Those of statuses; none if all runs are to be gone through for one of them.
    async fn of_statuses(&self, wanted: &Filter) -> Result<Option<Vec<Way>>, Fault> {
        let mut ways = Vec::new();
        for status in &wanted.status {
            let rest = |waiting_for: &Option<String>| Filter {
                status: Vec::new(),
                waiting_for: waiting_for.clone(),
                ..wanted.clone()
            };
            let all = Filter {
                status: vec![*status],
                ..Filter::default()
            };
            let several = Way::Resting(*status, String::new(), rest(&wanted.waiting_for));
            match (status, &wanted.waiting_for) {
                (Status::Failed | Status::Cancelled | Status::Terminated | Status::Stuck, _) => {
                    ways.push(several);
                }
                (Status::Waiting | Status::Paused, Some(wait)) => {
                    if wait.len() <= list::LONGEST_WAIT && !wait.is_empty() {
                        ways.push(Way::Resting(*status, wait.clone(), rest(&None)));
                    }
                    ways.push(several);
                }
                // As many as are driven at a time.
                (Status::Running, Some(_)) => ways.push(Way::Few(Box::new(all), wanted.clone())),
                (Status::Queued | Status::Running | Status::Waiting | Status::Paused, _)
                    if self.are_few(&all, FEW).await? =>
                {
                    ways.push(Way::Few(Box::new(all), wanted.clone()));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(ways).filter(|ways| !ways.is_empty()))
    }

    async fn are_few(&self, few: &Filter, most: u32) -> Result<bool, Fault> {
        let mut values = Values::default();
        let text = size(&mut values, few, most);
        Ok(self.number(values, &text).await? <= u64::from(most))
    }

    /// Through the runs of all workflows, newest first.
    async fn of_all(
        &self,
        rest: &Filter,
        limit: u32,
        cursor: Option<&Cursor>,
    ) -> Result<Vec<RunRow>, Fault> {
        let (workflows, newest) = self.workflows(rest, cursor).await?;
        let Some(newest) = newest else {
            return Ok(Vec::new());
        };
        let plain = Filter {
            created_after: rest.created_after,
            created_before: rest.created_before,
            ..Filter::default()
        };
        if *rest == plain {
            return self.of_each(&workflows, rest, limit, cursor).await;
        }
        let mut rows = Vec::new();
        for (since, until) in filter::spans(newest) {
            let part = filter::within(rest, since, until);
            rows.extend(self.of_each(&workflows, &part, limit, cursor).await?);
            // What is left was created before all of these.
            if rows.len() > limit as usize {
                break;
            }
        }
        Ok(rows)
    }

    /// The workflows that may have runs on a page, and when the newest of these was created.
    async fn workflows(
        &self,
        rest: &Filter,
        cursor: Option<&Cursor>,
    ) -> Result<(Vec<String>, Option<Millis>), Fault> {
        let until = [rest.created_before, cursor.map(|cursor| cursor.created_at)];
        let until = until.into_iter().flatten().min();
        let mut found = Vec::new();
        let with_until = |values: &mut Values, text: &str| {
            let until = until.map(|at| format!(" AND r.created_at <= {}", values.integer(at)));
            text.replace("{until}", &until.unwrap_or_default())
        };
        match self.flavour {
            Flavour::Plain => {
                let mut values = Values::default();
                let text = with_until(&mut values, list::WORKFLOWS);
                for row in self.ask(values, &text).await? {
                    let name: String = column(&row, 0, "workflow")?;
                    let at: Millis = column(&row, 1, "created_at")?;
                    found.push((name, at));
                }
            }
            Flavour::Routed => {
                let mut last = String::new();
                loop {
                    let mut values = Values::default();
                    values.text(&last);
                    let rows = self.ask(values, list::NEXT_WORKFLOW).await?;
                    let Some(row) = rows.first() else { break };
                    last = column(row, 0, "workflow")?;
                    let mut values = Values::default();
                    values.text(&last);
                    let text = with_until(&mut values, list::NEWEST);
                    if let Some(row) = self.ask(values, &text).await?.first() {
                        found.push((last.clone(), column(row, 0, "created_at")?));
                    }
                }
            }
        }
        let newest = found.iter().map(|(_, at)| *at).max();
        Ok((found.into_iter().map(|(name, _)| name).collect(), newest))
    }

    /// A page of each workflow.
    async fn of_each(
        &self,
        workflows: &[String],
        rest: &Filter,
        limit: u32,
        cursor: Option<&Cursor>,
    ) -> Result<Vec<RunRow>, Fault> {
        if self.flavour == Flavour::Plain {
            let mut values = Values::default();
            let text = page_of_each(workflows, rest, &mut values, limit, cursor);
            return self.rows(values, &text).await;
        }
        let each = workflows.iter().map(async |workflow| {
            let one = Way::Plain(Filter {
                workflow: Some(workflow.clone()),
                ..rest.clone()
            });
            let mut values = Values::default();
            let text = one.page(&mut values, limit, cursor);
            self.rows(values, &text).await
        });
        Ok(try_join_all(each).await?.into_iter().flatten().collect())
    }

    async fn rows(&self, values: Values, text: &str) -> Result<Vec<RunRow>, Fault> {
        let rows = self.ask(values, text).await?;
        rows.iter()
            .map(|row| run_row(&mut Reader::new(row)))
            .collect()
    }

    async fn number(&self, values: Values, text: &str) -> Result<u64, Fault> {
        let rows = self.ask(values, text).await?;
        let number: i64 = rows.first().map_or(Ok(0), |row| column(row, 0, "count"))?;
        Ok(u64::try_from(number).unwrap_or(0))
    }

    async fn ask(&self, values: Values, text: &str) -> Result<Vec<Row>, Fault> {
        let sql = values.sql(self.names, text);
        let values: Vec<&(dyn ToSql + Sync)> = values
            .values
            .iter()
            .map(|value| &**value as &(dyn ToSql + Sync))
            .collect();
        self.link.read(&sql, &values).await
    }
}

fn newest_first(a: &RunRow, b: &RunRow) -> std::cmp::Ordering {
    (b.created_at, &b.run_id).cmp(&(a.created_at, &a.run_id))
}

/// Fields of a filter that may let few runs through.
fn narrow(wanted: &Filter) -> Vec<Filter> {
    let prefix = wanted.id_prefix.clone().filter(|prefix| !prefix.is_empty());
    let of_workflow = wanted.workflow.clone().map(|workflow| Filter {
        workflow: Some(workflow),
        ..Filter::default()
    });
    let of_prefix = prefix.map(|prefix| Filter {
        id_prefix: Some(prefix),
        ..Filter::default()
    });
    of_workflow.into_iter().chain(of_prefix).collect()
}

/// The parameters of a statement.
#[derive(Default)]
pub(crate) struct Values {
    types: Vec<Type>,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Dialect for Values {
    const PREFIX: &'static str = "r.";

    fn kept<'t>(&self, text: &'t str) -> Cow<'t, str> {
        clean(text)
    }

    fn text(&mut self, value: &str) -> String {
        self.mark(Type::TEXT, clean(value).into_owned())
    }

    /// Numbers stand in the text, so that the planner knows whether few or many rows are before or after an instant.
    fn integer(&mut self, value: i64) -> String {
        format!("'{value}'::bigint")
    }

    /// Only so does the planner know that a partial index has them all. One status
    /// alone says in the words of the index what else holds for its runs.
    fn one_of(&mut self, column: &str, codes: &[i64]) -> String {
        let queued = Status::Queued.code();
        let running = Status::Running.code();
        match codes {
            [one] if *one == queued => format!("{column} = {one} AND r.ready_at IS NOT NULL"),
            [one] if *one == running => format!("{column} = {one} AND r.owner IS NOT NULL"),
            [one] => format!("{column} = {one}"),
            codes => {
                let codes: Vec<String> = codes.iter().map(i64::to_string).collect();
                format!("{column} IN ({})", codes.join(", "))
            }
        }
    }

    fn contains(&mut self, column: &str, item: &str) -> String {
        format!("{} = ANY({column})", self.text(item))
    }

    fn after(&mut self, cursor: &Cursor) -> String {
        // The index has the time alone; the row comparison sorts out those of the same instant.
        let at = self.integer(cursor.created_at);
        let run_id = self.text(&cursor.run_id);
        format!("r.created_at <= {at} AND (r.created_at, r.run_id) < ({at}, {run_id})")
    }
}

impl Values {
    /// Takes a value and gives its place in the text.
    fn mark(&mut self, of: Type, value: impl ToSql + Sync + Send + 'static) -> String {
        self.types.push(of);
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    pub(crate) fn sql(&self, names: &Names, text: &str) -> Sql {
        Sql {
            text: names.fill(text),
            types: Cow::Owned(self.types.clone()),
            prepare: false,
        }
    }
}
