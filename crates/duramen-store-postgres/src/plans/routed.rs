//! The routed flavour over tables in parts: a statement about one run reads the part that has it, and no other.

use std::collections::BTreeSet;

use serde_json::Value;

use super::hot::{self, Hot};
use super::{explained, fill, in_a_schema, open, outline};
use crate::options::Names;
use crate::sql::Book;
use crate::{Flavour, Statements, Use};

const RUNS: i64 = 20_000;
/// What the store's sessions have, and what they come to when a plan was used some times.
const MODES: [&str; 2] = ["force_custom_plan", "force_generic_plan"];

/// Much more of one run than statistics make of any: what is asked for by its key is found by that.
const MUCH: &str = "
    INSERT INTO {inbox} (seq, at, kind, encoding, state, run_id, message_id, name, payload)
    SELECT 1 + n, 0, 0, 1, 1, run_id, 'old-' || n, 'go', ''
    FROM unnest(ARRAY['run-00000007', 'run-00000096']) run_id, generate_series(1, 500) n;
    INSERT INTO {outgoing} (entry, at, number, kind, run_id, target, body)
    SELECT 1, 101, n, 1, 'run-00000101', 'other', '' FROM generate_series(1, 500) n;
    INSERT INTO {stream_items} (seq, idx, at, attempt, run_id, stream, writer, payload)
    SELECT n, n, 0, 1, 'run-00000102', 'words', 'step-1', '' FROM generate_series(1, 500) n";

/// Statements of the routed flavour alone: about one run, and about all.
fn of_one(book: &Book) -> Vec<Hot<'_>> {
    let own = &book.routed;
    let hot = |name, sql, arguments: &str, rows| Hot {
        name,
        sql,
        arguments: arguments.to_owned(),
        rows,
    };
    let lane = "concat_ws(chr(31), 'default', 'workflow-3', '1', '1')";
    vec![
        hot("one", &own.one, "'run-00000099'", 1),
        hot("weight", &own.weight, "'run-00000099', 0", 2),
        // Row and row behind the lock.
        hot(
            "take",
            &own.take,
            &format!("'run-00000099', 0, {lane}, NULL, 'ann', 1000000"),
            2,
        ),
        // And the last entry.
        hot(
            "take of an ended owner",
            &own.take,
            &format!("'run-00000095', 1, {lane}, 'owner-7', 'ann', 1000000"),
            3,
        ),
        hot(
            "hand_over",
            &own.hand_over,
            "'run-00000095', 'owner-7', 'ann'",
            2,
        ),
    ]
}

/// No part is read further than this.
fn of_all(book: &Book) -> Vec<Hot<'_>> {
    let own = &book.routed;
    let hot = |name, sql, arguments: &str, rows| Hot {
        name,
        sql,
        arguments: arguments.to_owned(),
        rows,
    };
    let lane = "concat_ws(chr(31), 'default', 'workflow-3', '1', '1')";
    vec![
        hot(
            "line",
            &own.line,
            &format!("0, {lane}, 0, '-9223372036854775808', 26"),
            4 * 26,
        ),
        // Between two priorities are those of the first that are not due.
        hot(
            "line from a priority on",
            &own.line,
            &format!("2, {lane}, 6, 0, 1"),
            4,
        ),
        hot(
            "of_owner",
            &own.of_owner,
            &format!("'owner-7', {lane}, 26"),
            4 * 26,
        ),
        hot("holds", &own.holds, "'owner-7'", 4),
        hot("strangers", &own.strangers, "ARRAY['owner-1']", 800),
        hot("all_held", &own.all_held, "'owner-7'", 110),
        hot("counts", &own.counts, "", 800),
        hot("unread", &own.unread, "'owner-0'", 70),
    ]
}

/// What a plan reads: tables by name, ways that no statement may go, rows.
#[derive(Default)]
struct Seen<'p> {
    tables: BTreeSet<&'p str>,
    faults: Vec<String>,
    rows: f64,
}

impl<'p> Seen<'p> {
    fn walk(&mut self, node: &'p Value) {
        let text = |key: &str| node[key].as_str();
        let kind = text("Node Type").unwrap_or_default();
        if kind.contains("Scan") {
            self.tables.extend(text("Relation Name"));
        }
        let way = ["Seq Scan", "Bitmap Heap Scan", "Hash Join", "Merge Join"];
        if way.contains(&kind) {
            self.faults.push(kind.to_owned());
        }
        if kind.starts_with("Index") {
            let number = |key: &str| node[key].as_f64().unwrap_or_default();
            let passed = number("Rows Removed by Filter");
            self.rows += (number("Actual Rows") + passed) * number("Actual Loops");
        }
        for child in node["Plans"].as_array().into_iter().flatten() {
            self.walk(child);
        }
    }

    /// The numbers that the names of parts end with.
    fn parts(&self) -> BTreeSet<&str> {
        let number = |table: &&'p str| table.rsplit_once('_').map(|(_, number)| number);
        self.tables.iter().filter_map(number).collect()
    }
}

async fn check(store: &crate::PostgresStore, hot: &Hot<'_>, is_of_one: bool, when: &str) {
    let link = store.inner.link(Use::Read);
    for mode in MODES {
        let settings = [("plan_cache_mode", mode)];
        let plan = explained(link, hot, "ANALYZE, ", &settings)
            .await
            .unwrap_or_else(|fault| panic!("{}: {fault:?}", hot.name));
        let mut seen = Seen::default();
        seen.walk(&plan);
        let mut text = String::new();
        outline(&plan, 0, &mut text);
        let at = format!("{when}, {mode}: {}: {:?}", hot.name, seen.tables);
        println!("{at}: {} of {}", seen.rows, hot.rows);
        assert!(seen.faults.is_empty(), "{at}: {:?}\n{text}", seen.faults);
        #[allow(clippy::cast_precision_loss, reason = "a few rows")]
        let most = hot.rows as f64;
        assert!(seen.rows <= most, "{at}: {} rows\n{text}", seen.rows);
        if is_of_one {
            assert!(seen.parts().len() <= 1, "{at}\n{text}");
        }
    }
}

async fn check_all(client: &tokio_postgres::Client, url: &str, names: &Names) {
    drop(open(url, names, Statements::Named).await);
    let parts = include_str!("../../tests/suite/in_parts.sql");
    let put = format!(
        "SET search_path = {}; {parts}; RESET search_path",
        names.schema()
    );
    client.batch_execute(&put).await.unwrap();
    let store = open(url, names, Statements::Named).await;
    let book = &store.inner.book;
    assert_eq!(book.flavour, Flavour::Routed);
    let tables = [
        "runs",
        "journal",
        "inbox",
        "run_data",
        "run_tags",
        "outgoing",
        "stream_items",
    ];
    let check_each = async |when: &str| {
        for hot in hot::of_given_runs(book).iter().chain(&of_one(book)) {
            check(&store, hot, true, when).await;
        }
        for hot in &of_all(book) {
            check(&store, hot, false, when).await;
        }
    };
    fill(client, names, 1, 90).await;
    let analyze = async || {
        for table in tables {
            let text = names.fill(&format!("ANALYZE {{{table}}}"));
            client.batch_execute(&text).await.unwrap();
        }
    };
    analyze().await;
    fill(client, names, 91, RUNS).await;
    client.batch_execute(&names.fill(MUCH)).await.unwrap();
    check_each("stale").await;
    analyze().await;
    check_each("analyzed").await;
}

#[test]
fn a_routed_statement_reads_the_part_of_its_run_alone() {
    in_a_schema("parts", check_all);
}
