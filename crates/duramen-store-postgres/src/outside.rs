//! Changes as statements for a transaction that the user holds, on a connection of the user's own.
//!
//! Nothing is known of that connection's settings: names are qualified, values have their types beside
//! them, and one run is reached by its key alone, so that no plan can go wrong. Each statement after a
//! lock has a snapshot of its own under READ COMMITTED. Under REPEATABLE READ and SERIALIZABLE a row that
//! has changed since the transaction began gives 40001, which is the user's to see.

use std::fmt::Write as _;

use duramen_core::check;
use duramen_core::journal::Entry;
use duramen_core::store::{
    Change, Expect, MOST_PRUNED, NewMessage, NewRun, Next, Outgoing, RunCommit, Script, Start,
    Statement, StoreError, Value,
};
use duramen_store_sql::lists;

use crate::options::Names;
use crate::row::{clean, signed};
use crate::sql::outside;

/// The most rows in one statement; each has seven values at the most.
const MOST: usize = 64;

/// The statements of a change.
pub(crate) fn script(names: &Names, change: &Change) -> Result<Script, StoreError> {
    let statements = match change {
        Change::Commit(commit) => commit_statements(names, commit)?,
        Change::Create(new) => create_statements(names, new)?,
        Change::Deliver(new) => deliver_statements(names, new)?,
        Change::Identify => vec![statement(
            names,
            outside::IDENTITY,
            Vec::new(),
            Expect::Answer,
        )],
    };
    Ok(Script { statements })
}

fn statement(names: &Names, template: &str, values: Vec<Value>, expect: Expect) -> Statement {
    Statement {
        sql: names.fill(template),
        values,
        expect,
    }
}

fn invalid(reason: &str) -> StoreError {
    StoreError::Invalid {
        reason: reason.to_owned(),
    }
}

fn text(text: &str) -> Value {
    Value::Text(clean(text).into_owned())
}

fn or_null<T>(value: Option<T>, into: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, into)
}

fn commit_statements(names: &Names, commit: &RunCommit) -> Result<Vec<Statement>, StoreError> {
    if let Some(reason) = check::commit(commit) {
        return Err(invalid(&reason));
    }
    if commit.next != Next::Running {
        return Err(invalid(
            "only a commit that keeps the lease can be carried out from outside",
        ));
    }
    if commit.entries.is_empty() {
        // Under the stricter levels of isolation the journal's key alone says that the length is right.
        return Err(invalid(
            "a commit that is carried out from outside needs an entry",
        ));
    }
    let run_id = || text(&commit.run_id);
    let length = Value::Integer(signed(commit.expected_len));
    let fence = vec![
        run_id(),
        text(&commit.owner),
        Value::Integer(commit.epoch),
        Value::Bytes(commit.seed.to_vec().into()),
    ];
    let mut statements = vec![
        statement(names, outside::FENCE, fence, Expect::Must),
        statement(names, outside::LENGTH, vec![run_id(), length], Expect::Must),
    ];
    if !commit.only_appends() {
        let values = vec![
            run_id(),
            Value::Integer(signed(commit.length_after())),
            Value::Integer(commit.at),
            Value::Integer(signed(commit.inbox_seen.unwrap_or(0))),
            Value::Integer(commit.format.unwrap_or(0).into()),
        ];
        statements.push(statement(names, outside::REWRITE, values, Expect::Nothing));
    }
    let mut index = signed(commit.expected_len);
    for entries in commit.entries.chunks(MOST) {
        statements.push(append(names, &commit.run_id, index, entries));
        index += signed(entries.len() as u64);
    }
    for read in &commit.read {
        let mut values = vec![run_id(), Value::Integer(signed(read.seq))];
        let template = match &read.refused {
            None => {
                values.push(or_null(read.reply.clone(), Value::Bytes));
                outside::CONSUME
            }
            Some(reason) => {
                values.push(text(reason));
                outside::SET_ASIDE
            }
        };
        statements.push(statement(names, template, values, Expect::Nothing));
    }
    if let Some(state) = &commit.state {
        let values = vec![run_id(), Value::Bytes(state.clone())];
        statements.push(statement(
            names,
            outside::PUT_STATE,
            values,
            Expect::Nothing,
        ));
    }
    for (part, items) in commit.outgoing.chunks(MOST).enumerate() {
        statements.push(leave(names, commit, part * MOST, items));
    }
    for item in &commit.written {
        let values = vec![
            run_id(),
            text(&item.stream),
            Value::Integer(signed(item.index)),
            Value::Integer(item.at),
            Value::Integer(item.attempt.into()),
            text(&item.writer),
            Value::Bytes(item.payload.clone()),
        ];
        statements.push(statement(names, outside::WRITE, values, Expect::Nothing));
        if let Some(keep) = item.keep {
            let values = vec![
                run_id(),
                text(&item.stream),
                Value::Integer(signed(keep.max(1))),
                Value::Integer(signed(MOST_PRUNED)),
            ];
            statements.push(statement(names, outside::PRUNE, values, Expect::Nothing));
        }
    }
    Ok(statements)
}

/// A statement that inserts rows of one run: its id, then values of these types.
fn insert(
    names: &Names,
    template: &str,
    run_id: &str,
    types: &[&str],
    rows: impl Iterator<Item = Vec<Value>>,
) -> Statement {
    let mut sql = String::from(template);
    let mut values = vec![text(run_id)];
    for row in rows {
        let comma = if values.len() == 1 { "" } else { ", " };
        // Only numbers of parameters are put in; writing to a string cannot fail.
        let _ = write!(sql, "{comma}($1::text");
        for (of, value) in types.iter().zip(row) {
            values.push(value);
            let _ = write!(sql, ", ${}::{of}", values.len());
        }
        sql.push(')');
    }
    statement(names, &sql, values, Expect::Nothing)
}

fn append(names: &Names, run_id: &str, from: i64, entries: &[Entry]) -> Statement {
    let types = [
        "bigint", "bigint", "smallint", "smallint", "text", "text", "bytea",
    ];
    let rows = (from..).zip(entries).map(|(index, entry)| {
        vec![
            Value::Integer(index),
            Value::Integer(entry.at),
            Value::Integer(i64::from(entry.encoding)),
            Value::Integer(i64::from(entry.kind.code())),
            text(&entry.op),
            or_null(entry.meta.as_deref(), text),
            Value::Bytes(entry.payload.clone()),
        ]
    });
    insert(names, outside::APPEND, run_id, &types, rows)
}

fn leave(names: &Names, commit: &RunCommit, from: usize, items: &[Outgoing]) -> Statement {
    let types = ["bigint", "integer", "smallint", "text", "bytea", "bigint"];
    let rows = (from..).zip(items).map(|(number, item)| {
        vec![
            Value::Integer(signed(commit.expected_len)),
            Value::Integer(signed(number as u64)),
            Value::Integer(item.kind.code()),
            text(&item.target),
            Value::Bytes(item.body.clone()),
            Value::Integer(commit.at),
        ]
    });
    insert(names, outside::LEAVE, &commit.run_id, &types, rows)
}

fn create_statements(names: &Names, new: &NewRun) -> Result<Vec<Statement>, StoreError> {
    check::new_run(new)?;
    let Start::Queued { at } = new.start else {
        return Err(invalid(
            "a run that is created from outside is driven by whoever claims it",
        ));
    };
    if !new.entries.is_empty() {
        return Err(invalid(
            "a run that brings a journal is created by the store itself",
        ));
    }
    let values = vec![
        text(&new.run_id),
        text(&new.workflow),
        text(&new.version),
        or_null(lists::join(&new.tags), Value::Text),
        or_null(at, Value::Integer),
        or_null(new.timeout, Value::Integer),
        Value::Bytes(new.seed.to_vec().into()),
        or_null(new.now, Value::Integer),
        Value::Bytes(new.input.clone()),
        or_null(new.memo.clone(), Value::Bytes),
        or_null(new.started_at, Value::Integer),
        Value::Integer(new.priority.into()),
        Value::Integer(new.format().into()),
        text(&new.first_row(0).lane().key()),
        text(&new.queue),
        or_null(new.parent.as_deref(), text),
        or_null(new.root.as_deref(), text),
        or_null(new.origin.as_deref(), text),
    ];
    Ok(vec![
        statement(names, outside::CREATE, values, Expect::Answer),
        statement(
            names,
            outside::EXISTING,
            vec![text(&new.run_id)],
            Expect::Answer,
        ),
    ])
}

fn deliver_statements(names: &Names, new: &NewMessage) -> Result<Vec<Statement>, StoreError> {
    check::new_message(new)?;
    let values = vec![
        text(&new.run_id),
        text(&new.message_id),
        Value::Integer(new.kind.code().into()),
        text(&new.name),
        Value::Bytes(new.payload.clone()),
        or_null(new.fingerprint.as_deref(), text),
        or_null(new.now, Value::Integer),
        or_null(new.kind.wait_key(&new.name), Value::Text),
        Value::Integer(new.encoding.into()),
    ];
    Ok(vec![
        statement(
            names,
            outside::LOCK,
            vec![text(&new.run_id)],
            Expect::Nothing,
        ),
        statement(names, outside::DELIVER, values, Expect::Answer),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_place_in_its_statement() {
        let names = Names::default();
        let entry = |op: &str| {
            Entry::new(
                duramen_core::journal::Kind::StepCompleted,
                op.into(),
                "1".into(),
                5,
            )
        };
        let item = Outgoing {
            kind: duramen_core::store::OutgoingKind::Message,
            target: "other".into(),
            body: "1".into(),
        };
        let commit = RunCommit {
            run_id: "r".into(),
            seed: [7; 16],
            owner: "me".to_owned(),
            epoch: 1,
            expected_len: 1,
            entries: (0..=MOST).map(|n| entry(&format!("s{n}"))).collect(),
            read: vec![
                duramen_core::store::ReadMessage {
                    seq: 1,
                    refused: None,
                    reply: None,
                },
                duramen_core::store::ReadMessage {
                    seq: 2,
                    refused: Some("no".to_owned()),
                    reply: None,
                },
            ],
            inbox_seen: Some(2),
            next: Next::Running,
            state: Some("{}".into()),
            outgoing: (0..=MOST).map(|_| item.clone()).collect(),
            written: vec![duramen_core::store::StreamWrite {
                stream: "s".to_owned(),
                writer: String::new(),
                index: 0,
                attempt: 0,
                keep: Some(5),
                payload: "1".into(),
                at: 5,
            }],
            format: None,
            at: 5,
        };
        let new = NewRun {
            run_id: "r".into(),
            workflow: "w".to_owned(),
            version: "1".to_owned(),
            queue: "default".to_owned(),
            priority: 5,
            input: "1".into(),
            meta: None,
            entries: Vec::new(),
            started_at: None,
            parent: None,
            root: None,
            origin: None,
            start: Start::Queued { at: None },
            tags: Vec::new(),
            memo: None,
            timeout: None,
            seed: [0; 16],
            now: None,
        };
        let message = NewMessage {
            run_id: "r".into(),
            message_id: "m".to_owned(),
            kind: duramen_core::store::MessageKind::Event,
            name: "x".to_owned(),
            payload: "1".into(),
            fingerprint: None,
            encoding: 1,
            now: None,
        };
        let changes = [
            Change::Commit(Box::new(commit)),
            Change::Create(Box::new(new)),
            Change::Deliver(Box::new(message)),
            Change::Identify,
        ];
        let mut count = 0;
        for change in &changes {
            for statement in script(&names, change).unwrap().statements {
                count += 1;
                let sql = &statement.sql;
                assert!(!sql.contains(['{', '}', '%', ';']), "{sql}");
                for number in 1..=statement.values.len() {
                    assert!(sql.contains(&format!("${number}::")), "{number} of {sql}");
                }
                let beyond = format!("${}::", statement.values.len() + 1);
                assert!(!sql.contains(&beyond), "{sql}");
            }
        }
        // Fence, length, row; entries twice; two messages; state; items twice; one written, and what it leaves over.
        assert_eq!(count, 3 + 2 + 2 + 1 + 2 + 2 + 2 + 2 + 1);
    }

    #[test]
    fn a_commit_that_lets_the_run_go_is_refused() {
        let commit = RunCommit {
            run_id: "r".into(),
            seed: [7; 16],
            owner: "me".to_owned(),
            epoch: 1,
            expected_len: 1,
            entries: Vec::new(),
            read: Vec::new(),
            inbox_seen: None,
            next: Next::Stuck {
                note: "n".to_owned(),
            },
            state: None,
            outgoing: Vec::new(),
            written: Vec::new(),
            format: None,
            at: 5,
        };
        let refused = script(&Names::default(), &Change::Commit(Box::new(commit)));
        assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    }
}
