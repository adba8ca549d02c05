//! Parts of a user's transaction: each is about one run and names it, so that a transaction may hold several.

use std::fmt::Write;

use duramen_core::store::{Change, NewRun, Queries, Statement, Store, Value};
use duramen_store_postgres::PostgresStore;
use duramen_store_testing::{alive, claim_all, commit, create, event, leased, new_run};

use crate::support::{Place, block_on, connection};

/// The statement with its values in it.
fn filled(statement: &Statement) -> String {
    let mut sql = statement.sql.clone();
    for (number, value) in (1..).zip(&statement.values) {
        let literal = match value {
            Value::Null => "NULL".to_owned(),
            Value::Integer(number) => format!("({number})"),
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Bytes(bytes) => {
                let mut hex = "'\\x".to_owned();
                for byte in bytes {
                    let _ = write!(hex, "{byte:02x}");
                }
                hex + "'"
            }
        };
        sql = sql.replace(&format!("${number}::"), &format!("{literal}::"));
    }
    sql
}

fn script(store: &PostgresStore, change: &Change) -> String {
    let script = store.transactions().unwrap().script(change).unwrap();
    let statements: Vec<String> = script.statements.iter().map(filled).collect();
    statements.join("; ")
}

#[test]
fn a_transaction_of_the_users_creates_sends_and_commits() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    create(&store, vec![leased("driven", "ann"), new_run("other")]);
    let new = NewRun {
        memo: Some("{}".into()),
        ..new_run("made")
    };
    let changes = [
        Change::Create(Box::new(new)),
        Change::Deliver(Box::new(event("other", "m", "go"))),
        Change::Commit(Box::new(commit("driven", "ann", 1))),
    ];
    let all: Vec<String> = changes
        .iter()
        .map(|change| script(&store, change))
        .collect();
    let client = connection();
    for end in ["ROLLBACK", "COMMIT"] {
        place.on(&client, &format!("BEGIN; {}; {end}", all.join("; ")));
        let expected = i64::from(end == "COMMIT");
        for (table, before) in [("runs", 2), ("journal", 2), ("inbox", 0), ("run_data", 0)] {
            let count = place.number(&format!("SELECT count(*) FROM {{s}}.{table}"));
            let added = if table == "journal" { 2 } else { 1 };
            assert_eq!(count, before + added * expected, "{end}: {table}");
        }
    }
    let standing = block_on(store.standing(vec!["driven".into()])).unwrap();
    assert_eq!(standing[0].as_ref().unwrap().journal_len, 2);
    let claimed = claim_all(&store, "ann").runs;
    assert_eq!(claimed.len(), 2);
    assert_eq!(claimed.iter().map(|run| run.inbox.len()).sum::<usize>(), 1);
}
