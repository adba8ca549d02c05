//! How Postgres runs the hot statements on a large table: through the indexes made for them, reading no more
//! rows than the request is about. Each statement is prepared and executed in the store's own session, as it
//! is in earnest, and taken back.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, resume_unwind};

use duramen_core::run::Status;
use duramen_core::store::{Cursor, Filter};
use duramen_store_sql::filter;
use futures_util::FutureExt;
use serde_json::Value;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, NoTls};

use crate::error::Fault;
use crate::link::Link;
use crate::lists::{Values, Way, page_of, page_of_each, size};
use crate::sql::{Sql, list};
use crate::{Names, PostgresOptions, PostgresStore, Statements, Use};

mod hot;
mod routed;

use hot::Hot;

const RUNS: i64 = 200_000;
/// An instant after all that is due and before all that sleeps or is leased.
const NOW: i64 = 1_000_000;

/// Half of the runs sleep, most others have ended, one in a thousand with a failure, one is stuck; 8,000 are
/// driven by eight processes, some of them with a message that they have not seen, and one of the eight has
/// ended; 2,000 are due, all of one workflow and of two priorities, with a message each.
const FILL: &str = "
    INSERT INTO {runs} (epoch, journal_start, journal_len, updated_at, inbox_len, inbox_seen, unread, unread_bytes, generation,
        lost_at, created_at, ready_at, started_at, finished_at, lost, status, priority, format, run_id, lane, owner, queue,
        workflow, version, waits, seed, parent, root)
    SELECT 1, 0, 2, n, CASE WHEN live < 5 OR due OR n % 300 = 96 THEN 1 ELSE 0 END, CASE WHEN live < 5 THEN 1 ELSE 0 END,
        CASE WHEN due OR n % 300 = 96 THEN 1 ELSE 0 END, 0, 0, 0, n,
        CASE WHEN due THEN n WHEN status = 2 THEN 2000000 + n % 10000 END, n, CASE WHEN status BETWEEN 3 AND 6 THEN n END, 0,
        status, CASE (n / 200) % 2 WHEN 0 THEN 5 ELSE 8 END, 1, 'run-' || lpad(n::text, 8, '0'),
        'default' || chr(31) || 'workflow-' || n % 4 || chr(31) || '1' || chr(31) || '1',
        CASE status WHEN 1 THEN 'owner-' || n % 8 END, 'default', 'workflow-' || n % 4, '1',
        CASE WHEN n <= 200 AND status = 2 THEN ARRAY['event:rare'] WHEN status = 2 AND n % 10 = 5 THEN ARRAY['event:go', 'timer']
            WHEN status = 2 THEN ARRAY['event:go'] END, '\\x00000000000000000000000000000000',
        CASE WHEN n % 1000 = 62 THEN 'parent-' || n % 7 END, CASE WHEN n % 1000 = 62 THEN 'root-' || n % 7 END
    FROM (SELECT n, n % 100 AS live, n % 100 = 99 AS due, CASE WHEN n % 100 = 99 THEN CASE n % 200 WHEN 99 THEN 0 ELSE 2 END
        WHEN n % 100 < 50 THEN 2 WHEN n % 1000 = 60 THEN 4 WHEN n % 1000 = 61 THEN 7 WHEN n % 100 < 95 THEN 3 ELSE 1 END AS status
        FROM generate_series($from, $until) n) made;
    INSERT INTO {journal} (idx, at, encoding, kind, run_id, op, payload)
    SELECT idx, n, 1, idx, 'run-' || lpad(n::text, 8, '0'), 'step-1', '\\x7b226e223a317d'
    FROM generate_series($from, $until) n, generate_series(0, 1) idx;
    INSERT INTO {inbox} (seq, at, kind, encoding, state, run_id, message_id, name, payload)
    SELECT 1, n, 0, 1, CASE WHEN n % 100 < 5 THEN 1 ELSE 0 END, 'run-' || lpad(n::text, 8, '0'), 'm', 'go', ''
    FROM generate_series($from, $until) n WHERE n % 100 < 5 OR n % 100 = 99 OR n % 300 = 96;
    INSERT INTO {run_data} (run_id, state)
    SELECT 'run-' || lpad(n::text, 8, '0'), '\\x7b7d' FROM generate_series($from, $until, 10) n;
    INSERT INTO {run_tags} (created_at, tag, run_id)
    SELECT n, CASE WHEN n <= 50 THEN 'rare' ELSE 'tag-' || n % 3 END, 'run-' || lpad(n::text, 8, '0')
    FROM generate_series($from, $until) n;
    INSERT INTO {outgoing} (entry, at, number, kind, run_id, target, body)
    SELECT 1, n, 0, 1, 'run-' || lpad(n::text, 8, '0'), 'other', '' FROM generate_series($from, $until, 100) n;
    INSERT INTO {stream_items} (seq, idx, at, attempt, run_id, stream, writer, payload)
    SELECT seq, seq - 1, n, 1, 'run-' || lpad(n::text, 8, '0'), stream, 'step-1', '\\x31'
    FROM generate_series($from, $until, 100) n, generate_series(1, 20) seq, unnest(ARRAY['log', 'words']) stream;
    INSERT INTO {owners} (owner, format, started_at, seen_at, lease_until, ended_at)
    SELECT name, 1, 0, 0, 2000000, CASE name WHEN 'owner-7' THEN 1 END
    FROM (SELECT 'ann' AS name UNION ALL SELECT 'owner-' || n FROM generate_series(0, 7) n) named ON CONFLICT DO NOTHING";

/// So many owners there are.
const OWNERS: i64 = 9;

/// What the nodes of a plan did.
#[derive(Default)]
struct Read {
    rows: i64,
    sorted: i64,
    tables: BTreeMap<String, i64>,
    faults: Vec<String>,
    plan: String,
}

impl Read {
    fn walk(&mut self, node: &Value) {
        let text = |key| node[key].as_str().unwrap_or_default();
        let number = |key: &str| node[key].as_f64().unwrap_or_default();
        let kind = text("Node Type");
        let loops = number("Actual Loops");
        #[allow(clippy::cast_possible_truncation, reason = "counts of rows")]
        let times = |rows: f64| (rows * loops).round() as i64;
        let rows = times(number("Actual Rows"));
        match kind {
            "Seq Scan" | "Bitmap Heap Scan" | "Hash Join" | "Merge Join" => {
                self.faults
                    .push(format!("{kind} {}", text("Relation Name")));
            }
            "Index Scan" | "Index Only Scan" => {
                let passed = ["Rows Removed by Filter", "Rows Removed by Index Recheck"]
                    .map(number)
                    .iter()
                    .sum();
                let read = rows + times(passed);
                self.rows += read;
                *self
                    .tables
                    .entry(text("Index Name").to_owned())
                    .or_default() += read;
            }
            "Sort" | "Incremental Sort" | "WindowAgg" => self.sorted = self.sorted.max(rows),
            _ => {}
        }
        for child in node["Plans"].as_array().into_iter().flatten() {
            self.walk(child);
        }
    }
}

/// The plan's nodes, for whoever has to repair one.
fn outline(node: &Value, depth: usize, text: &mut String) {
    let words = [
        "Node Type",
        "Index Name",
        "CTE Name",
        "Index Cond",
        "Filter",
    ]
    .map(|key| node[key].as_str().unwrap_or_default());
    let numbers = ["Plan Rows", "Actual Rows", "Actual Loops"].map(|key| node[key].to_string());
    let (words, numbers) = (words.join(" "), numbers.join(" "));
    let _ = writeln!(text, "{}{words} [{numbers}]", "  ".repeat(depth));
    for child in node["Plans"].as_array().into_iter().flatten() {
        outline(child, depth + 1, text);
    }
}

/// A JSON column as text.
struct Json<'r>(&'r str);

impl<'r> FromSql<'r> for Json<'r> {
    fn from_sql(_: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(std::str::from_utf8(raw)?))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::JSON
    }
}

/// Executes a statement as the session does it, reads what it did, and takes it back.
async fn what_it_reads(link: &Link, hot: &Hot<'_>) -> Result<Read, Fault> {
    let plan = explained(link, hot, "ANALYZE, ", &[]).await?;
    let mut read = Read::default();
    read.walk(&plan);
    outline(&plan, 0, &mut read.plan);
    Ok(read)
}

/// The plan of a statement in a session with these settings besides its own.
async fn explained(
    link: &Link,
    hot: &Hot<'_>,
    how: &str,
    settings: &[(&str, &str)],
) -> Result<Value, Fault> {
    let transaction = link.begin().await?;
    for (name, value) in settings {
        transaction
            .batch(&format!("SET LOCAL {name} = {value}"))
            .await?;
    }
    let types: Vec<&str> = hot.sql.types.iter().map(Type::name).collect();
    let types = if types.is_empty() {
        String::new()
    } else {
        format!("({})", types.join(", "))
    };
    let prepare = format!("PREPARE hot{types} AS {}", hot.sql.text);
    transaction.batch(&prepare).await?;
    let explain = Sql {
        text: format!(
            "EXPLAIN ({how}FORMAT JSON) EXECUTE hot{}",
            if hot.arguments.is_empty() {
                String::new()
            } else {
                format!("({})", hot.arguments)
            }
        ),
        types: Cow::Borrowed(&[]),
        prepare: false,
    };
    let rows = transaction.run(&explain, &[]).await?;
    transaction.batch("DEALLOCATE hot").await?;
    let mut plan: Value = serde_json::from_str(rows[0].get::<_, Json<'_>>(0).0).unwrap();
    transaction.batch("ROLLBACK; BEGIN").await?;
    transaction.end(Ok(())).await?;
    Ok(plan[0]["Plan"].take())
}

async fn check(store: &PostgresStore, when: &str) {
    let inner = &store.inner;
    let pages = lists(&inner.names);
    let pages = pages.iter().map(|(name, sql, arguments, rows)| Hot {
        name,
        sql,
        arguments: arguments.clone(),
        rows: *rows,
    });
    let mut wrong = Vec::new();
    let all = [
        hot::of_given_runs(&inner.book),
        hot::that_find_runs(&inner.book),
        hot::of_owners(&inner.book),
    ];
    for hot in all.into_iter().flatten().chain(pages) {
        let read = what_it_reads(inner.link(Use::Read), &hot)
            .await
            .unwrap_or_else(|fault| panic!("{}: {fault:?}", hot.name));
        let most = hot.rows;
        println!(
            "{when}: {}: {} of {most} {:?}",
            hot.name, read.rows, read.tables
        );
        if !read.faults.is_empty() || read.rows > most || read.sorted > most {
            wrong.push(format!(
                "{when}: {} reads {} rows (at most {most}) {:?}, sorts {}, {:?}\n{}",
                hot.name, read.rows, read.tables, read.sorted, read.faults, read.plan
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a list asks, with a row more than a page and another that shows those of an instant to be complete. Of each
/// workflow there is one run of four, of each tag one of three, of what is rare a hundred; half of the runs wait, for an
/// event or for it and a timer.
#[allow(clippy::too_many_lines, reason = "it is a table")]
fn lists(names: &Names) -> Vec<(&'static str, Sql, String, i64)> {
    let cursor = Cursor {
        created_at: 100_000,
        run_id: "run-00100000".into(),
    };
    let plain = Filter::default;
    let of_status = |status| Filter {
        status: vec![status],
        ..plain()
    };
    let of_workflow = |name: &str| Filter {
        workflow: Some(name.to_owned()),
        ..plain()
    };
    let tag = |name: &str, rest| Way::Tag(name.to_owned(), rest);
    let rests = |status, wait: &str, rest| Way::Resting(status, wait.to_owned(), rest);
    let several = Filter {
        waiting_for: Some("event:go".to_owned()),
        ..plain()
    };
    let mut all = Vec::new();
    let mut add = |name, sql: (Values, String), arguments: &str, rows| {
        let (values, text) = sql;
        all.push((name, values.sql(names, &text), arguments.to_owned(), rows));
    };
    let page = |ways: &[Way], after: Option<&Cursor>| {
        let mut values = Values::default();
        let text = page_of(ways, &mut values, 50, after);
        (values, text)
    };
    let each = |rest: &Filter| {
        let mut values = Values::default();
        let workflows: Vec<String> = (0..4).map(|n| format!("workflow-{n}")).collect();
        let text = page_of_each(&workflows, rest, &mut values, 50, None);
        (values, text)
    };
    let few = |few: &Filter| {
        let mut values = Values::default();
        let text = size(&mut values, few, 1_000);
        (values, text)
    };
    let parent = Way::Plain(Filter {
        parent: Some("parent-1".into()),
        ..plain()
    });
    let family = Way::Plain(Filter {
        root: Some("root-1".into()),
        ..plain()
    });
    let ended = Filter {
        finished_before: Some(200),
        ..plain()
    };
    let prefix = Filter {
        id_prefix: Some("run-000001".to_owned()),
        ..plain()
    };
    let workflow = Way::Plain(of_workflow("workflow-1"));
    let workflows = list::WORKFLOWS.replace("{until}", "");
    let four = "ARRAY['workflow-0', 'workflow-1', 'workflow-2', 'workflow-3']";
    let completed = filter::within(&of_status(Status::Completed), 199_000, 200_000);
    let after = "'run-00100000'";
    add("workflows", (Values::default(), workflows), "", 14);
    add("all", each(&plain()), four, 52 * 4);
    add("completed of a span", each(&completed), four, 1_000);
    add(
        "workflow",
        page(std::slice::from_ref(&workflow), None),
        "'workflow-1'",
        52,
    );
    add(
        "next of a workflow",
        page(&[workflow], Some(&cursor)),
        &format!("'workflow-1', {after}"),
        53,
    );
    for (name, of, rows) in [
        ("tag", "tag-1", 52),
        ("rare tag", "rare", 100),
        ("no tag", "no", 0),
    ] {
        add(
            name,
            page(&[tag(of, plain())], None),
            &format!("'{of}'"),
            2 * rows,
        );
    }
    add(
        "next of a tag",
        page(&[tag("tag-1", plain())], Some(&cursor)),
        &format!("'tag-1', {after}"),
        106,
    );
    // A run is of each of four workflows in turn.
    add(
        "workflow of a tag",
        page(&[tag("tag-1", of_workflow("workflow-1"))], None),
        "'tag-1', 'workflow-1'",
        2 * 52 * 4,
    );
    add(
        "rare waits",
        page(&[rests(Status::Waiting, "event:rare", plain())], None),
        "'event:rare'",
        100,
    );
    add(
        "waits",
        page(&[rests(Status::Waiting, "event:go", plain())], None),
        "'event:go'",
        52,
    );
    add(
        "next of waits",
        page(
            &[rests(Status::Waiting, "event:go", plain())],
            Some(&cursor),
        ),
        &format!("'event:go', {after}"),
        53,
    );
    add(
        "waits for several",
        page(&[rests(Status::Waiting, "", several.clone())], None),
        "'', 'event:go'",
        52,
    );
    let driven = Way::Few(Box::new(of_status(Status::Running)), several);
    add("driven", page(&[driven], None), "'event:go'", 8_000);
    let bad = [Status::Failed, Status::Stuck].map(|status| rests(status, "", plain()));
    add("failed and stuck", page(&bad, None), "'', ''", 104);
    add("children", page(&[parent], None), "'parent-1'", 52);
    add("family", page(&[family], None), "'root-1'", 52);
    add(
        "long ago",
        page(&[Way::Few(Box::new(ended.clone()), plain())], None),
        "",
        200,
    );
    let begins = [Way::Few(Box::new(prefix.clone()), plain())];
    add(
        "prefix",
        page(&begins, None),
        "'run-000001', 'run-000002'",
        100,
    );
    add(
        "few of a prefix",
        few(&prefix),
        "'run-000001', 'run-000002'",
        100,
    );
    add(
        "few of a workflow",
        few(&of_workflow("workflow-1")),
        "'workflow-1'",
        1_001,
    );
    add("few ended", few(&ended), "", 200);
    for (name, status) in [
        ("few queued", Status::Queued),
        ("few running", Status::Running),
        ("few waiting", Status::Waiting),
    ] {
        add(name, few(&of_status(status)), "", 1_001);
    }
    add(
        "queued",
        page(
            &[Way::Few(Box::new(of_status(Status::Queued)), plain())],
            None,
        ),
        "",
        1_000,
    );
    all
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Whoever runs these tests at the same time has schemas of their own.
fn names(of: &str) -> Names {
    let schema = format!("{of}_{}", std::process::id());
    Names::new(Some(&schema), []).unwrap()
}

async fn open(url: &str, names: &Names, statements: Statements) -> PostgresStore {
    let options = PostgresOptions {
        names: names.clone(),
        migrate: true,
        notify: false,
        statements,
        ..PostgresOptions::default()
    };
    PostgresStore::connect(url, options).await.unwrap()
}

/// Runs these numbers.
async fn fill(client: &Client, names: &Names, from: i64, until: i64) {
    let text = FILL.replace("$from", &from.to_string());
    let text = names.fill(&text.replace("$until", &until.to_string()));
    client.batch_execute(&text).await.unwrap();
}

async fn check_all(client: &Client, url: &str, names: &Names) {
    let direct = open(url, names, Statements::Named).await;
    let pooled = open(url, names, Statements::Unnamed).await;
    let run = async |text: &str| {
        client.batch_execute(&names.fill(text)).await.unwrap();
    };
    let tables = [
        "runs",
        "journal",
        "inbox",
        "run_data",
        "run_tags",
        "outgoing",
        "stream_items",
        "owners",
    ];
    let each = async |command: &str| {
        for table in tables {
            run(&command.replace('?', &format!("{{{table}}}"))).await;
        }
    };
    // Nobody else counts meanwhile.
    each("ALTER TABLE ? SET (autovacuum_enabled = off)").await;
    fill(client, names, 1, 90).await;
    each("ANALYZE ?").await;
    fill(client, names, 91, RUNS).await;
    // The statistics say that there are ninety runs and no unread message.
    check(&direct, "stale").await;
    check(&pooled, "stale, pooled").await;
    each("ANALYZE ?").await;
    check(&direct, "analyzed").await;
    check(&pooled, "analyzed, pooled").await;
}

/// Does something with a schema that is gone afterwards.
fn in_a_schema(of: &str, work: impl AsyncFnOnce(&Client, &str, &Names)) {
    let url = std::env::var("DURAMEN_TEST_POSTGRES_URL").expect(
        "this test needs a Postgres server: run \
         `.venv/bin/python tools/with_postgres.py cargo test -p duramen-store-postgres`",
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (client, names) = (connect(&url).await, names(of));
        let checked = AssertUnwindSafe(work(&client, &url, &names))
            .catch_unwind()
            .await;
        let drop = names.fill("DROP SCHEMA :\"schema\" CASCADE");
        client.batch_execute(&drop).await.unwrap();
        if let Err(panic) = checked {
            resume_unwind(panic);
        }
    });
}

#[test]
fn hot_statements_read_no_more_than_they_are_about_whatever_the_statistics_say() {
    in_a_schema("plans", check_all);
}

/// The indexes that a plan goes through.
fn indexes<'p>(node: &'p Value, found: &mut BTreeSet<&'p str>) {
    found.extend(node["Index Name"].as_str());
    for child in node["Plans"].as_array().into_iter().flatten() {
        indexes(child, found);
    }
}

/// Plans are made once and kept, and may be made before there are any runs: then every index looks alike to the planner.
/// So what is about given runs has conditions for no index but those that begin with the id.
#[test]
fn a_plan_made_for_an_empty_table_finds_given_runs_by_their_ids() {
    in_a_schema("empty", async |_, url, names| {
        let store = open(url, names, Statements::Named).await;
        let link = store.inner.link(Use::Read);
        for hot in hot::of_given_runs(&store.inner.book) {
            let plan = explained(link, &hot, "", &[]).await.unwrap();
            let mut through = BTreeSet::new();
            indexes(&plan, &mut through);
            through.retain(|index| !index.ends_with("_pkey") && !index.starts_with("inbox_"));
            let mut text = String::new();
            outline(&plan, 0, &mut text);
            assert!(through.is_empty(), "{}: {through:?}\n{text}", hot.name);
        }
    });
}
