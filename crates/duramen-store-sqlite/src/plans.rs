//! How SQLite means to run the hot statements: through the indexes made for them.

use duramen_core::lanes::Line;
use duramen_core::run::Status;
use duramen_core::store::{Cursor, Filter};
use rusqlite::{Connection, StatementStatus};

use crate::lists::{Part, Source, few, sources_of};
use crate::session::Session;
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
    let line = "USING COVERING INDEX runs_due (status=? AND lane=? AND priority";
    searches(sql::claim::DUE, &[&format!("{line}=? AND ready_at<?)")]);
    searches(sql::claim::NEXT_PRIORITY, &[&format!("{line}>?)")]);
    searches(sql::claim::NEXT, &[&format!("{line}=?")]);
    searches(sql::claim::TAKE, &["USING PRIMARY KEY (run_id=?)"]);
}

#[test]
fn what_an_owner_holds_comes_from_its_index_in_its_order() {
    let owned = "INDEX runs_owned (owner";
    searches(sql::owner::NEXT_HOLDER, &[&format!("COVERING {owned}>?)")]);
    searches(
        sql::owner::NEXT_LANE,
        &[&format!("COVERING {owned}=? AND lane>?)")],
    );
    searches(
        sql::owner::HOLDS,
        &[&format!("COVERING {owned}=? AND lane=?)")],
    );
    searches(
        sql::claim::OWNED,
        &[&format!("COVERING {owned}=? AND lane=?)")],
    );
    searches(
        sql::owner::HELD,
        &[&format!("USING {owned}=? AND lane=? AND run_id>?)")],
    );
    searches(sql::owner::INHERIT, &[&format!("USING {owned}=?)")]);
    searches(
        sql::owner::END_THE_LAPSED,
        &["USING INDEX owners_live (lease_until<?)"],
    );
    for statement in [sql::owner::RENEW, sql::owner::END, sql::owner::LEASE] {
        searches(statement, &["USING PRIMARY KEY (owner=?)"]);
    }
}

#[test]
fn a_commit_finds_its_rows_by_their_keys() {
    for statement in [sql::commit::FENCE, sql::commit::FINISH] {
        searches(
            statement,
            &[
                "runs USING PRIMARY KEY (run_id=?)",
                "journal USING PRIMARY KEY (run_id=?)",
            ],
        );
    }
    for statement in [
        sql::commit::KEEP,
        sql::commit::RELEASE,
        sql::commit::CONTINUE,
        sql::run::RAISE,
    ] {
        searches(statement, &["USING PRIMARY KEY (run_id=?)"]);
    }
    for statement in [
        sql::inbox::WEIGHT,
        sql::inbox::CONSUME,
        sql::inbox::SET_ASIDE,
    ] {
        searches(
            statement,
            &["USING INDEX inbox_unread (run_id=? AND seq=?)"],
        );
    }
    for statement in [
        sql::inbox::TARGET,
        sql::inbox::ARRIVED,
        sql::inbox::ARRIVED_AND_DUE,
        sql::run::ROW,
        sql::run::STANDING,
    ] {
        searches(statement, &["USING PRIMARY KEY (run_id=?)"]);
    }
    for statement in [sql::inbox::FIRST, sql::inbox::RECEIPT] {
        searches(
            statement,
            &["USING PRIMARY KEY (run_id=? AND message_id=?)"],
        );
    }
}

/// How many instructions of a statement's program begin with one of these names.
fn instructions(statement: &str, names: &[&str]) -> usize {
    let connection = Connection::open_in_memory().unwrap();
    migrate::apply(&connection).unwrap();
    let mut explain = connection.prepare(&format!("EXPLAIN {statement}")).unwrap();
    let count = explain.parameter_count();
    let mut rows = explain
        .query(rusqlite::params_from_iter(vec![1_i64; count]))
        .unwrap();
    let mut found = 0;
    while let Some(row) = rows.next().unwrap() {
        let name: String = row.get(1).unwrap();
        found += usize::from(names.contains(&name.as_str()));
    }
    found
}

/// A statement opens every tree that it might write before it knows whether it does, and one made for the
/// length of a statement costs more than all else in it.
#[test]
fn what_each_run_costs_opens_few_trees_and_makes_none() {
    for (statement, most) in [
        (sql::run::INSERT, 8),
        (sql::journal::INSERT, 1),
        (sql::owner::LEASE, 1),
        (sql::commit::FENCE, 2),
        (sql::commit::FINISH, 7),
        (sql::commit::RELEASE, 6),
        (sql::commit::KEEP, 2),
        (sql::claim::NEXT_PRIORITY, 1),
        (sql::claim::DUE, 1),
        (sql::claim::TAKE, 5),
        (sql::inbox::INSERT, 3),
        (sql::inbox::ARRIVED_AND_DUE, 4),
    ] {
        let opened = instructions(statement, &["OpenRead", "OpenWrite"]);
        assert!(opened <= most, "{opened} trees: {statement}");
        let made = ["OpenEphemeral", "OpenAutoindex", "SorterOpen"];
        assert_eq!(instructions(statement, &made), 0, "{statement}");
    }
}

#[test]
fn a_journals_length_is_found_at_its_end_and_not_counted() {
    let connection = Connection::open_in_memory().unwrap();
    migrate::apply(&connection).unwrap();
    let mut insert = connection
        .prepare("INSERT INTO journal VALUES ('r', ?1, 1, 1, '', 0, NULL, x'')")
        .unwrap();
    for index in 0..10_000 {
        insert.execute([index]).unwrap();
    }
    let mut length = connection.prepare(sql::journal::LENGTH).unwrap();
    let found: i64 = length.query_row(["r"], |row| row.get(0)).unwrap();
    assert_eq!(found, 10_000);
    let steps = length.get_status(StatementStatus::VmStep);
    assert!(steps < 50, "{steps} steps");
}

#[test]
fn a_claim_walks_over_no_run_that_is_not_due() {
    let connection = Connection::open_in_memory().unwrap();
    migrate::apply(&connection).unwrap();
    let mut insert = connection
        .prepare(
            "INSERT INTO runs VALUES ('r' || ?1, 2, 0, NULL, x'', 0, 0, 0, 0, NULL, 1, ?3, 0, 0, 0, 1, ?2, 0, 0, \
             0, NULL, 0, NULL, 'lane', '', '', '', '', '', NULL, NULL, NULL, NULL)",
        )
        .unwrap();
    let mut number = 0;
    for (priority, ready_at) in [(0, 1_000), (3, 1_000), (5, 1_000), (9, 0)] {
        for _ in 0..(if ready_at == 0 { 10 } else { 3_000 }) {
            insert.execute([number, priority, ready_at]).unwrap();
            number += 1;
        }
    }
    let mut session = Session::new(&connection).unwrap();
    let line = Line {
        status: Status::Waiting,
        lane: "lane",
    };
    assert_eq!(session.ready(line, 500, 100).unwrap().len(), 10);
    // Nine thousand that are not due stand before these ten.
    let steps = session.next_priority.get_status(StatementStatus::VmStep)
        + session.due.get_status(StatementStatus::VmStep);
    assert!(steps < 500, "{steps} steps");
}

#[test]
fn journals_and_inboxes_are_read_in_order_without_sorting() {
    searches(
        sql::journal::LOAD,
        &["USING PRIMARY KEY (run_id=? AND idx>?)"],
    );
    searches(
        sql::journal::PAGE,
        &["USING PRIMARY KEY (run_id=? AND idx>?)"],
    );
    searches(
        sql::inbox::PAGE,
        &["INDEX inbox_unread (run_id=? AND seq>?)"],
    );
    searches(sql::inbox::REFUSED, &["INDEX inbox_set_aside (run_id=?)"]);
    searches(sql::inbox::UNSEEN, &["INDEX runs_unread (owner=?)"]);
}

#[test]
fn what_is_still_to_be_carried_out_comes_oldest_first() {
    searches(sql::outgoing::UNSENT, &["INDEX outgoing_at (at<?)"]);
    searches(
        sql::outgoing::SENT,
        &["USING PRIMARY KEY (run_id=? AND entry=? AND number=?)"],
    );
    let one = plan(sql::outgoing::UNSENT_OF_ONE);
    assert!(one.contains("USING PRIMARY KEY (run_id=?)"), "{one}");
}

#[test]
fn a_deletion_touches_only_its_run() {
    for statement in sql::intervene::DELETE {
        searches(statement, &["USING PRIMARY KEY (run_id=?)"]);
    }
}

fn cursor() -> Cursor {
    Cursor {
        created_at: 1,
        run_id: "r".into(),
    }
}

#[test]
fn a_page_of_the_list_is_read_from_the_index_in_its_order() {
    let list =
        |filter: &Filter, cursor: Option<&Cursor>| Part::default().list(filter, 50, cursor).0;
    let after = Some(&cursor());
    let search = "USING INDEX runs_created ((created_at,run_id)<(?,?))";
    searches(&list(&Filter::default(), after), &[search]);
    let filter = Filter {
        workflow: Some("w".to_owned()),
        status: vec![Status::Completed],
        tag: Some("t".to_owned()),
        ..Filter::default()
    };
    searches(&list(&filter, after), &[search]);
    // The first page begins at the index's end: a "scan" that stops after the page.
    let first = plan(&list(&Filter::default(), None));
    assert_eq!(first, "SCAN runs USING INDEX runs_created");
    let children = Filter {
        parent: Some("p".into()),
        ..Filter::default()
    };
    searches(
        &list(&children, None),
        &["USING INDEX runs_parent (parent=?)"],
    );
    searches(
        &list(&children, after),
        &["USING INDEX runs_parent (parent=?"],
    );
}

#[test]
fn each_source_of_a_list_reads_its_own_index_and_counts_in_it() {
    let narrow = Filter {
        workflow: Some("w".to_owned()),
        ..Filter::default()
    };
    let all = (0..8).filter_map(Status::from_code).flat_map(sources_of);
    for source in all {
        let part = Part::of(source);
        let index = format!("INDEX {}", source.index);
        for after in [None, Some(&cursor())] {
            for filter in [&Filter::default(), &narrow] {
                let plan = plan(&part.list(filter, 50, after).0);
                assert!(plan.contains(&index), "{plan}");
                // What is not in the order of lists is sorted: it is little.
                assert_eq!(plan.contains("TEMP B-TREE"), !source.ordered, "{plan}");
            }
        }
        let covering = format!("COVERING {index}");
        for count in [part.count(&Filter::default()).0, few(source, 10)] {
            let plan = plan(&count);
            assert!(plan.contains(&covering), "{plan}");
        }
    }
    let old = Filter {
        finished_before: Some(5),
        ..Filter::default()
    };
    let finished = Source {
        index: "runs_finished",
        condition: "finished_at < ?1",
        ordered: false,
    };
    let few = plan(&few(&finished, 10));
    assert!(
        few.contains("COVERING INDEX runs_finished (finished_at<?)"),
        "{few}"
    );
    let part = Part::of(&finished).list(&old, 50, None).0;
    assert!(plan(&part).contains("INDEX runs_finished (finished_at<?)"));
}
