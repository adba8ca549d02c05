//! Changes that are carried out inside of a transaction of somebody else: the user's own, in the
//! database that holds the store.

use crate::ids::Payload;
use crate::store::{NewMessage, NewRun, RunCommit};

/// A change to be carried out inside of a transaction that the caller holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Answers nothing: that it is refused shows in a statement that [must](Expect::Must) find a row.
    Commit(Box<RunCommit>),
    /// Answers `(created, workflow)`.
    Create(Box<NewRun>),
    /// Answers `(what became of it, fingerprint of the first)`.
    Deliver(Box<NewMessage>),
    /// No change: answers `(identity)`, to be compared with [`crate::store::Store::identity`].
    Identify,
}

/// Statements to be executed in order, on one connection, inside of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub statements: Vec<Statement>,
}

/// One statement with `$1`, `$2` … for its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    pub values: Vec<Value>,
    pub expect: Expect,
}

/// What a statement's rows mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: go on.
    Nothing,
    /// Without a row the change is refused: execute nothing more and roll back.
    Must,
    /// The first row is the answer: execute nothing more. Without one go on.
    Answer,
}

/// A value of a statement; its type is that of its place in the SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Payload),
}
