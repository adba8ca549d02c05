//! Taking part in a transaction of somebody else: the user's own, in the database that holds the store.

use super::{NewMessage, NewRun, RunCommit, StoreError, StoreFuture};
use crate::ids::Payload;

/// What a store offers whose database others may hold transactions in.
pub trait Transactions: Send + Sync + 'static {
    /// A change as statements of the store's dialect, for a transaction that the caller holds in the
    /// store's database. Nothing is done.
    fn script(&self, change: &Change) -> Result<Script, StoreError>;

    /// A text that tells the store's database and schema from others, as the statements of
    /// [`Change::Identify`] find it there. None where nobody has to tell.
    fn identity(&self) -> StoreFuture<Option<String>>;
}

/// A change to be carried out inside of a transaction that the caller holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Answers nothing: that it is refused shows in a statement that [must](Expect::Must) find a row.
    Commit(Box<RunCommit>),
    /// Answers `(created, workflow)`.
    Create(Box<NewRun>),
    /// Answers `(what became of it, fingerprint of the first)`.
    Deliver(Box<NewMessage>),
    /// No change: answers `(identity)`, to be compared with [`Transactions::identity`].
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
