//! How SQLite means to run the hot statements: through the indexes made for them.

use duramen_core::store::{Cursor, Filter};
use duramen_store_sql::filter;
use rusqlite::Connection;

use crate::query::Values;
use crate::{migrate, sql};

fn plan(statement: &str) -> String {
    let connection = Connection::open_in_memory().unwrap();
    migrate::apply(&connection).unwrap();
    let mut explain = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {statement}"))
        .unwrap();
    let count = explain.parameter_count();
    let lines: Vec<String> = explain
        .query_map(rusqlite::params_from_iter(vec![1_i64; count]), |row| {
            row.get(3)
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    lines.join("\n")
}

#[track_caller]
fn searches(statement: &str, how: &[&str]) {
    let plan = plan(statement);
    for how in how {
        assert!(plan.contains(how), "{how:?} is not in\n{plan}");
    }
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    assert!(!plan.contains("SCAN"), "{plan}");
}

#[test]
fn due_runs_come_from_their_index_in_its_order() {
    let due =
        "USING COVERING INDEX runs_due (status=? AND workflow=? AND version=? AND ready_at<?)";
    searches(sql::lease::DUE, &[due]);
    searches(
        sql::lease::NEXT,
        &["USING COVERING INDEX runs_due (status=? AND workflow=? AND version=?"],
    );
    searches(sql::lease::RENEW, &["USING INDEX runs_due (status=?)"]);
    searches(sql::lease::TAKE, &["USING PRIMARY KEY (run_id=?)"]);
}

#[test]
fn a_commit_finds_its_rows_by_their_keys() {
    for statement in [sql::commit::KEEP, sql::commit::WAIT, sql::commit::END] {
        searches(statement, &["USING PRIMARY KEY (run_id=?)"]);
    }
    for statement in [sql::inbox::CONSUME, sql::inbox::SET_ASIDE] {
        searches(
            statement,
            &["USING INDEX inbox_unread (run_id=? AND seq=?)"],
        );
    }
    for statement in [sql::inbox::TARGET, sql::inbox::ARRIVED, sql::run::ROW] {
        searches(statement, &["USING PRIMARY KEY (run_id=?)"]);
    }
    searches(
        sql::inbox::FIRST,
        &["USING PRIMARY KEY (run_id=? AND message_id=?)"],
    );
}

#[test]
fn journals_and_inboxes_are_read_in_order_without_sorting() {
    searches(
        sql::journal::LOAD,
        &["USING PRIMARY KEY (run_id=? AND idx>?)"],
    );
    searches(sql::inbox::UNREAD, &["INDEX inbox_unread (run_id=?)"]);
    searches(sql::inbox::REFUSED, &["INDEX inbox_set_aside (run_id=?)"]);
    searches(
        sql::inbox::UNREAD_OF_OWNER,
        &[
            "INDEX runs_unread (owner=?)",
            "INDEX inbox_unread (run_id=? AND seq>?)",
        ],
    );
}

#[test]
fn a_deletion_touches_only_its_run() {
    for statement in sql::intervene::DELETE {
        searches(statement, &["USING PRIMARY KEY (run_id=?)"]);
    }
}

#[test]
fn a_page_of_the_list_is_read_from_the_index_in_its_order() {
    let list = |filter: &Filter, cursor: Option<&Cursor>| {
        filter::list(&mut Values::default(), sql::query::LIST, filter, 50, cursor)
    };
    let after = Some(&Cursor {
        created_at: 1,
        run_id: "r".into(),
    });
    let search = "USING INDEX runs_created ((created_at,run_id)<(?,?))";
    searches(&list(&Filter::default(), after), &[search]);
    let filter = Filter {
        workflow: Some("w".to_owned()),
        status: vec![duramen_core::run::Status::Stuck],
        tag: Some("t".to_owned()),
        ..Filter::default()
    };
    searches(&list(&filter, after), &[search]);
    // The first page begins at the index's end: a "scan" that stops after the page.
    let first = plan(&list(&Filter::default(), None));
    assert_eq!(first, "SCAN runs USING INDEX runs_created");
}
