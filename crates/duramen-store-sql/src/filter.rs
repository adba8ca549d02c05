//! Filters as conditions, pages as one statement.

use std::borrow::Cow;
use std::collections::BTreeSet;

use duramen_core::ids::Millis;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Cursor, Filter, Page};

/// How a database says it. It gathers the values of one statement, each of which it gives a mark in the
/// text.
pub trait Dialect {
    /// What stands before each column of `runs`.
    const PREFIX: &'static str = "";

    /// A text as the database would have kept it.
    fn kept<'t>(&self, text: &'t str) -> Cow<'t, str> {
        Cow::Borrowed(text)
    }

    /// Takes a value and gives its mark.
    fn text(&mut self, value: &str) -> String;

    /// Takes a value and gives its mark.
    fn integer(&mut self, value: i64) -> String;

    /// The column has one of these numbers.
    fn one_of(&mut self, column: &str, codes: &[i64]) -> String {
        let marks: Vec<String> = codes.iter().map(|&code| self.integer(code)).collect();
        format!("{column} IN ({})", marks.join(", "))
    }

    /// The column is a list with this item.
    fn contains(&mut self, column: &str, item: &str) -> String;

    /// The row comes after the cursor's.
    fn after(&mut self, cursor: &Cursor) -> String {
        let at = self.integer(cursor.created_at);
        let run_id = self.text(&cursor.run_id);
        format!("(created_at, run_id) < ({at}, {run_id})")
    }
}

/// The statement of one page, newest first: one row more than asked for, so that the last page is known to
/// be the last (see [`page`]). Its text depends only on which fields of the filter are there, and on how
/// many statuses, so that a store's statements stay few. `first` are conditions with the marks that the dialect gave last.
pub fn list<D: Dialect>(
    dialect: &mut D,
    select: &str,
    mut first: Vec<String>,
    filter: &Filter,
    limit: u32,
    cursor: Option<&Cursor>,
) -> String {
    first.extend(terms(dialect, filter));
    first.extend(cursor.map(|cursor| dialect.after(cursor)));
    let text = conditioned(select, &first);
    newest(dialect, &text, D::PREFIX, limit)
}

/// A statement's newest rows, by what stands before the columns; one more than asked for.
pub fn newest<D: Dialect>(dialect: &mut D, text: &str, prefix: &str, limit: u32) -> String {
    let most = dialect.integer(i64::from(limit) + 1);
    format!("{text} ORDER BY {prefix}created_at DESC, {prefix}run_id DESC LIMIT {most}")
}

/// The statement over all that a filter and the `first` conditions let through.
pub fn all<D: Dialect>(
    dialect: &mut D,
    select: &str,
    mut first: Vec<String>,
    filter: &Filter,
) -> String {
    first.extend(terms(dialect, filter));
    conditioned(select, &first)
}

/// The statuses that a filter lets through (none named: any); none if there is no such status.
pub fn statuses(wanted: &Filter) -> Option<BTreeSet<Status>> {
    let statuses: BTreeSet<Status> = wanted.status.iter().copied().collect();
    if wanted.waiting_for.is_none() {
        return Some(statuses);
    }
    // No others have wait keys.
    let with_waits = BTreeSet::from([Status::Running, Status::Waiting, Status::Paused]);
    if statuses.is_empty() {
        return Some(with_waits);
    }
    Some(&statuses & &with_waits).filter(|both| !both.is_empty())
}

/// Milliseconds; each span is [`GROWTH`] times as long as the one before it. That many make a hundred years.
const FIRST_SPAN: Millis = 100;
const GROWTH: Millis = 8;
const MOST_SPANS: u32 = 12;

/// Spans of time back from an instant, each with its beginning and its end, for lists that are put together from
/// several streams: they grow, so that a stream that has nothing to show is not gone through to its end for a
/// page that another fills at once. The last one has no beginning.
pub fn spans(newest: Millis) -> impl Iterator<Item = (Millis, Millis)> {
    let mut until = newest;
    (0..MOST_SPANS).map(move |n| {
        let since = if n + 1 == MOST_SPANS {
            Millis::MIN
        } else {
            until.saturating_sub(FIRST_SPAN * GROWTH.pow(n))
        };
        (since, std::mem::replace(&mut until, since))
    })
}

/// Of what a filter lets through that which was created after one instant and not after another.
#[must_use]
pub fn within(wanted: &Filter, since: Millis, until: Millis) -> Filter {
    let mut part = wanted.clone();
    if since > Millis::MIN {
        part.created_after = part.created_after.max(Some(since));
    }
    if let Some(behind) = until.checked_add(1) {
        part.created_before = Some(part.created_before.map_or(behind, |at| at.min(behind)));
    }
    part
}

/// The page of what [`list`] found.
pub fn page(mut rows: Vec<RunRow>, limit: u32) -> Page {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|last| Cursor {
        created_at: last.created_at,
        run_id: last.run_id.clone(),
    });
    Page { rows, next }
}

fn conditioned(select: &str, terms: &[String]) -> String {
    if terms.is_empty() {
        return select.to_owned();
    }
    format!("{select} WHERE {}", terms.join(" AND "))
}

fn terms<D: Dialect>(dialect: &mut D, filter: &Filter) -> Vec<String> {
    let column = |name: &str| format!("{}{name}", D::PREFIX);
    let mut terms = Vec::new();
    let named = [
        ("workflow", filter.workflow.as_deref()),
        ("version", filter.version.as_deref()),
        ("queue", filter.queue.as_deref()),
        ("parent", filter.parent.as_deref()),
        ("root", filter.root.as_deref()),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            terms.push(compared(dialect, name, "=", value));
        }
    }
    if !filter.status.is_empty() {
        let codes: Vec<i64> = filter.status.iter().map(|status| status.code()).collect();
        terms.push(dialect.one_of(&column("status"), &codes));
    }
    for (name, item) in [("tags", &filter.tag), ("waits", &filter.waiting_for)] {
        if let Some(item) = item {
            terms.push(dialect.contains(&column(name), item));
        }
    }
    let times = [
        ("created_at", ">", filter.created_after),
        ("created_at", "<", filter.created_before),
        ("finished_at", "<", filter.finished_before),
    ];
    for (name, sign, at) in times {
        if let Some(at) = at {
            let mark = dialect.integer(at);
            terms.push(format!("{} {sign} {mark}", column(name)));
        }
    }
    if let Some(prefix) = filter.id_prefix.as_deref().filter(|one| !one.is_empty()) {
        let prefix = dialect.kept(prefix);
        terms.push(compared(dialect, "run_id", ">=", &prefix));
        if let Some(end) = after_prefix(&prefix) {
            terms.push(compared(dialect, "run_id", "<", &end));
        }
    }
    terms
}

fn compared<D: Dialect>(dialect: &mut D, name: &str, sign: &str, value: &str) -> String {
    let mark = dialect.text(value);
    format!("{}{name} {sign} {mark}", D::PREFIX)
}

/// The least text that is greater than every text with this prefix (stores compare the bytes of UTF-8,
/// whose order is that of the characters); none if there is no such text.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Surrogates are no characters: past the last one before them comes U+E000.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Plain(Vec<String>);

    impl Dialect for Plain {
        fn text(&mut self, value: &str) -> String {
            self.0.push(value.to_owned());
            format!(":{}", self.0.len())
        }

        fn integer(&mut self, value: i64) -> String {
            self.text(&value.to_string())
        }

        fn contains(&mut self, column: &str, item: &str) -> String {
            let mark = self.text(item);
            format!("{column} HAS {mark}")
        }
    }

    #[test]
    fn every_field_of_a_filter_becomes_a_condition_with_its_value() {
        let filter = Filter {
            workflow: Some("w".to_owned()),
            version: Some("1".to_owned()),
            queue: Some("q".to_owned()),
            parent: Some("p".into()),
            root: Some("r".into()),
            finished_before: Some(11),
            status: vec![Status::Queued, Status::Stuck],
            tag: Some("t".to_owned()),
            waiting_for: Some("event:x".to_owned()),
            created_after: Some(5),
            created_before: Some(9),
            id_prefix: Some("ab".to_owned()),
        };
        let mut plain = Plain::default();
        assert_eq!(
            all(&mut plain, "SELECT", vec!["first".to_owned()], &filter),
            "SELECT WHERE first AND workflow = :1 AND version = :2 AND queue = :3 AND parent = :4 \
             AND root = :5 AND status IN (:6, :7) AND tags HAS :8 AND waits HAS :9 AND created_at > :10 \
             AND created_at < :11 AND finished_at < :12 AND run_id >= :13 AND run_id < :14"
        );
        let values = [
            "w", "1", "q", "p", "r", "0", "7", "t", "event:x", "5", "9", "11", "ab", "ac",
        ];
        assert_eq!(plain.0, values);
    }

    #[test]
    fn a_page_begins_after_the_cursor_and_asks_for_one_row_more() {
        let cursor = Cursor {
            created_at: 5,
            run_id: "r".into(),
        };
        let mut plain = Plain::default();
        let everything = Filter {
            id_prefix: Some(String::new()),
            ..Filter::default()
        };
        assert_eq!(
            list(
                &mut plain,
                "SELECT",
                Vec::new(),
                &everything,
                10,
                Some(&cursor)
            ),
            "SELECT WHERE (created_at, run_id) < (:1, :2) \
             ORDER BY created_at DESC, run_id DESC LIMIT :3"
        );
        assert_eq!(plain.0, ["5", "r", "11"]);
        let first = list(
            &mut Plain::default(),
            "SELECT",
            Vec::new(),
            &everything,
            10,
            None,
        );
        assert!(!first.contains("WHERE"), "{first}");
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_text_of_its_length_or_less() {
        assert_eq!(after_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(after_prefix("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(after_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{10ffff}"), None);
    }
}
