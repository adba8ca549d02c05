//! How SQLite means to run the hot statements: through the indexes made for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use duramen_core::lanes::Line;
use duramen_core::run::Status;
use duramen_core::store::{Cursor, Filter};
use rusqlite::{Connection, StatementStatus};

use crate::lists::{
    ALL, CANCELLED, FAILED, PAUSED, QUEUED, RUNNING, STUCK, Stream, TERMINATED, WAIT, WAITING, list,
};
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
        (sql::run::INSERT, 9),
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
fn a_stream_is_read_in_its_order_and_its_ends_are_found_by_one_descent_each() {
    searches(sql::stream::FENCE, &["runs USING PRIMARY KEY (run_id=?)"]);
    searches(
        sql::stream::PAGE,
        &[
            "r USING PRIMARY KEY (run_id=?)",
            "s USING PRIMARY KEY (run_id=? AND stream=? AND seq>?)",
        ],
    );
    for statement in [sql::stream::LAST, sql::stream::FIRST] {
        searches(statement, &["PRIMARY KEY (run_id=? AND stream=?)"]);
    }
    searches(
        sql::stream::PRUNE,
        &["USING PRIMARY KEY (run_id=? AND stream=? AND seq<?)"],
    );
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

/// Keys, and whether they have to be sorted.
#[track_caller]
fn reads(stream: &Stream, search: &str, sorts: bool) {
    for after in [None, Some(&cursor())] {
        let plan = plan(&stream.keys(50, after).0);
        assert!(plan.contains(search), "{search:?} is not in\n{plan}");
        assert_eq!(plan.contains("TEMP B-TREE"), sorts, "{plan}");
    }
    let size = plan(&stream.size(10).0);
    assert!(size.contains(search), "{search:?} is not in\n{size}");
}

#[test]
fn each_stream_of_a_list_reads_its_own_index_in_its_order() {
    let narrow = Filter {
        finished_before: Some(7),
        ..Filter::default()
    };
    for rest in [Filter::default(), narrow] {
        let of = |source| Stream::of(source, rest.clone());
        let all = of(&ALL).with("lane", "l");
        reads(&all, "INDEX runs_created (lane=?", false);
        for source in [&WAITING, &FAILED, &CANCELLED, &TERMINATED, &STUCK, &PAUSED] {
            let resting = of(source).with(WAIT, "").with("lane", "l");
            let search = "INDEX runs_resting (status=? AND <expr>=? AND lane=?";
            reads(&resting, search, false);
        }
        reads(&of(&QUEUED), "INDEX runs_due (status=?", true);
        reads(&of(&RUNNING), "INDEX runs_owned", true);
        let of_tag = Stream::of_tag("t", rest.clone());
        reads(&of_tag, "USING PRIMARY KEY (tag=?", false);
        let children = Stream::children("p", rest.clone());
        reads(&children, "INDEX runs_parent (parent=?", false);
        let family = Stream::family("r", rest.clone());
        reads(&family, "INDEX runs_root (root=?", false);
        let ended = Stream::ended_before(5, rest.clone());
        reads(&ended, "INDEX runs_finished (finished_at<?", true);
    }
    let prefix = Filter {
        id_prefix: Some("r".to_owned()),
        ..Filter::default()
    };
    let search = "USING PRIMARY KEY (run_id>? AND run_id<?";
    reads(&Stream::of_prefix(prefix), search, true);
}

#[test]
fn what_a_list_knows_of_an_index_comes_from_it_alone() {
    let whole = |source| Stream::of(source, Filter::default());
    for source in [&ALL, &QUEUED, &RUNNING, &WAITING, &FAILED, &STUCK] {
        let covering = format!("COVERING INDEX {}", source.index);
        let mut asked = vec![whole(source).count().0, whole(source).size(10).0];
        match source.index {
            "runs_created" => asked.push(whole(source).next("lane", "l").0),
            "runs_resting" => {
                asked.push(whole(source).next(WAIT, "w").0);
                asked.push(whole(source).with(WAIT, "w").next("lane", "l").0);
            }
            _ => {}
        }
        for one in asked {
            let plan = plan(&one);
            assert!(plan.contains(&covering), "{one}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{one}\n{plan}");
        }
        if source.index != "runs_created" {
            continue;
        }
        searches(
            &whole(source).next("lane", "l").0,
            &["INDEX runs_created (lane>?)"],
        );
    }
}

#[test]
fn a_census_reads_only_what_has_not_ended() {
    let plan = plan(&crate::census::statement());
    for index in ["runs_due (status=?)", "runs_resting (status=?)"] {
        let search = format!("USING INDEX {index}");
        let covering = format!("USING COVERING INDEX {index}");
        assert!(plan.contains(&search) || plan.contains(&covering), "{plan}");
    }
    assert!(plan.contains("COVERING INDEX runs_owned"), "{plan}");
    assert!(
        !plan.contains("SCAN runs USING INDEX runs_created"),
        "{plan}"
    );
    assert!(!plan.contains("SCAN runs\n"), "{plan}");
}

/// Many runs that ended or sleep, all tagged; of what is rare a few hundred, the oldest of all.
const MANY: &str = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 199999), \
     r AS (SELECT n, CASE WHEN n < 500 THEN 'rare' ELSE 'w' || (n % 5) END AS name FROM n) \
     INSERT INTO runs SELECT 'r' || n, CASE WHEN n < 400 OR (n > 100000 AND n % 2 = 0) THEN 2 WHEN n < 420 THEN 4 WHEN n < 430 THEN 7 ELSE 3 END, \
     0, NULL, zeroblob(16), 0, 0, 0, 0, NULL, 1, CASE WHEN n > 100000 AND n % 2 = 0 THEN n END, 0, 0, 0, 1, 5, 0, 0, NULL, \
     CASE WHEN n >= 430 AND (n <= 100000 OR n % 2 = 1) THEN n END, n, NULL, \
     'q' || char(31) || name || char(31) || '1' || char(31) || '1', 'q', name, '1', \
     CASE WHEN n < 400 THEN char(31) || 'event:rare' || char(31) WHEN n > 100000 AND n % 2 = 0 THEN char(31) || 'timer' || char(31) \
     ELSE '' END, '', NULL, NULL, NULL, NULL FROM r; \
     INSERT INTO run_tags SELECT workflow, created_at, run_id FROM runs";

fn rare_and_common() -> Vec<Filter> {
    let mut filters = vec![Filter::default()];
    for name in ["rare", "w3", "nobody's"] {
        let name = Some(name.to_owned());
        filters.push(Filter {
            workflow: name.clone(),
            ..Filter::default()
        });
        filters.push(Filter {
            tag: name.clone(),
            ..Filter::default()
        });
        for status in [Status::Waiting, Status::Failed] {
            filters.push(Filter {
                status: vec![status],
                workflow: name.clone(),
                ..Filter::default()
            });
        }
        filters.push(Filter {
            version: name.clone(),
            ..Filter::default()
        });
        filters.push(Filter {
            queue: name,
            ..Filter::default()
        });
    }
    for wait in ["event:rare", "timer", "event:nobody's"] {
        filters.push(Filter {
            waiting_for: Some(wait.to_owned()),
            ..Filter::default()
        });
    }
    for status in [
        &[Status::Waiting][..],
        &[Status::Completed],
        &[Status::Cancelled, Status::Terminated],
        &[Status::Failed, Status::Stuck],
    ] {
        filters.push(Filter {
            status: status.to_vec(),
            ..Filter::default()
        });
    }
    filters
}

#[test]
fn no_list_goes_through_what_it_does_not_show() {
    let mut connection = Connection::open_in_memory().unwrap();
    migrate::apply(&connection).unwrap();
    connection.execute_batch(MANY).unwrap();
    let counted = Arc::new(AtomicU64::new(0));
    let steps = counted.clone();
    let step = move || {
        steps.fetch_add(1, Ordering::Relaxed);
        false
    };
    connection.progress_handler(1, Some(step)).unwrap();
    for wanted in &rare_and_common() {
        let first = list(&connection, wanted, 50, None).unwrap();
        let first_steps = counted.swap(0, Ordering::Relaxed);
        list(&connection, wanted, 50, first.next.as_ref()).unwrap();
        let next_steps = counted.swap(0, Ordering::Relaxed);
        println!("{first_steps}, {next_steps}: {wanted:?}");
        let steps = first_steps.max(next_steps);
        assert!(steps < 20_000, "{steps} steps for {wanted:?}");
    }
}
