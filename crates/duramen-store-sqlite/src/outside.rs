//! A connection to the store's file for data of the user's own.
//!
//! It is a connection of the same SQLite library as the store's. Another copy of SQLite in the same
//! process must not open the file: its locks are POSIX advisory locks, which do not exclude two
//! holders of one process, and which all end when any of them closes the file
//! (<https://sqlite.org/howtocorrupt.html>, 2.2).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use duramen_core::store::{
    CommitOutcome, Created, Delivered, NewMessage, NewRun, RunCommit, StoreError,
};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, InterruptHandle, OpenFlags};

use crate::error::Fault;
use crate::open;
use crate::options::Synchronous;
use crate::place::Place;
use crate::session::Session;
use crate::sql;
use duramen_core::check;

/// What a statement brought.
#[derive(Debug, Default)]
pub struct Rows {
    /// Empty for a statement that gives no rows.
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
    /// Rows that the statement inserted, changed or deleted.
    pub changes: u64,
    pub last_id: i64,
}

/// The values of a statement's parameters.
#[derive(Debug)]
pub enum Values {
    InOrder(Vec<Value>),
    /// With or without the prefix (`:`, `@` or `$`) in their names.
    Named(BTreeMap<String, Value>),
}

/// Why a statement of the user's failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// SQLite's extended result code; none for an error in the use of the connection.
    pub code: Option<i32>,
    pub message: String,
}

impl SqlError {
    fn misuse(message: &str) -> Self {
        Self {
            code: None,
            message: message.to_owned(),
        }
    }

    /// Whether the statement is one that the connection does not let through.
    const fn is_denied(&self) -> bool {
        // The primary code 23 is SQLITE_AUTH.
        matches!(self.code, Some(code) if code & 0xff == 23)
    }

    /// Whether another connection holds the write lock.
    pub const fn is_busy(&self) -> bool {
        // The low byte is the primary code: 5 is SQLITE_BUSY.
        matches!(self.code, Some(code) if code & 0xff == 5)
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(failure, message) => Self {
                code: Some(failure.extended_code),
                message: message.unwrap_or_else(|| failure.to_string()),
            },
            rusqlite::Error::SqlInputError { error, msg, .. } => Self {
                code: Some(error.extended_code),
                message: msg,
            },
            other => Self {
                code: None,
                message: other.to_string(),
            },
        }
    }
}

struct Inner {
    connection: Connection,
    /// Somebody else begins and ends the transaction: the user's statements may not, and SQLite refuses
    /// them before they do anything.
    managed: Arc<AtomicBool>,
    /// Statements were prepared when it was not managed: the cache may have a COMMIT that was let through.
    lax: bool,
}

/// See the module's head.
pub struct OutsideConnection {
    inner: Mutex<Option<Inner>>,
    interrupt: InterruptHandle,
    /// The managed transaction was rolled back by [`Self::abort`].
    aborted: AtomicBool,
    place: Place,
    busy_timeout: Duration,
}

impl std::fmt::Debug for OutsideConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutsideConnection")
            .field("file", &self.place.path())
            .finish_non_exhaustive()
    }
}

const CLOSED: &str = "the connection is closed";
const NOT_OPEN: &str = "no transaction is open";
const NOT_YOURS: &str = "the function that runs in this transaction may not end it: leave COMMIT and \
                         ROLLBACK to its caller (savepoints are allowed)";
const UNDONE: &str = "SQLite has rolled the transaction back by itself (OR ROLLBACK, RAISE(ROLLBACK), or no \
                      room on the disk)";
const ABORTED: &str =
    "this transaction has held the file's only write lock for too long and was rolled back";

impl OutsideConnection {
    /// Opens a file that exists.
    pub fn open(
        path: &Path,
        synchronous: Synchronous,
        busy_timeout: Duration,
    ) -> Result<Self, StoreError> {
        Self::open_at(open::place(path)?, synchronous, busy_timeout)
    }

    /// Opens the file of a store that is open.
    pub(crate) fn open_at(
        place: Place,
        synchronous: Synchronous,
        busy_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let open = || -> Result<Connection, Fault> {
            place.check_again()?;
            let connection = Connection::open_with_flags(
                place.path(),
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            place.check()?;
            connection.busy_timeout(busy_timeout)?;
            let synchronous = match synchronous {
                Synchronous::Full => "FULL",
                Synchronous::Normal => "NORMAL",
            };
            connection.pragma_update(None, "synchronous", synchronous)?;
            connection.pragma_update(None, "mmap_size", 0)?;
            // The user's tables may refer to each other, and this cannot be turned on inside of a
            // transaction.
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.set_prepared_statement_cache_capacity(128);
            Ok(connection)
        };
        let mut connection = open().map_err(|fault| place.error(&fault))?;
        let managed = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&managed);
        let answer = move |context: AuthContext<'_>| match context.action {
            AuthAction::Transaction { .. } if asked.load(Ordering::Relaxed) => Authorization::Deny,
            _ => Authorization::Allow,
        };
        connection
            .authorizer(Some(answer))
            .map_err(|error| place.error(&error.into()))?;
        Ok(Self {
            interrupt: connection.get_interrupt_handle(),
            aborted: AtomicBool::new(false),
            inner: Mutex::new(Some(Inner {
                connection,
                managed,
                lax: false,
            })),
            place,
            busy_timeout,
        })
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Inner>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> Result<T, SqlError>) -> Result<T, SqlError> {
        match self.lock().as_mut() {
            Some(inner) => work(inner),
            None => Err(SqlError::misuse(CLOSED)),
        }
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.lock()
            .as_ref()
            .is_some_and(|inner| !inner.connection.is_autocommit())
    }

    pub fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    /// Begins a transaction that can write. Waits for the write lock up to the busy timeout, or not
    /// at all; false if it is another's. `managed`: only the caller of this may end it.
    pub fn begin(&self, wait: bool, managed: bool) -> Result<bool, SqlError> {
        let since = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            let begun = self.with(|inner| {
                if !inner.connection.is_autocommit() {
                    return Err(SqlError::misuse("a transaction is open already"));
                }
                inner.connection.busy_timeout(Duration::ZERO)?;
                let begun = inner.connection.execute_batch(sql::BEGIN);
                inner.connection.busy_timeout(self.busy_timeout)?;
                begun?;
                if managed && std::mem::take(&mut inner.lax) {
                    inner.connection.flush_prepared_statement_cache();
                }
                self.aborted.store(false, Ordering::Relaxed);
                inner.managed.store(managed, Ordering::Relaxed);
                Ok(())
            });
            match begun {
                Ok(()) => return Ok(true),
                Err(error) if !error.is_busy() => return Err(error),
                Err(_) if !wait => return Ok(false),
                Err(error) if since.elapsed() >= self.busy_timeout => return Err(error),
                // As the store's writer waits, not as SQLite does: see there.
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }

    /// Ends the transaction. False if a managed one was over already: by [`Self::abort`], or by SQLite's own
    /// decision (`INSERT OR ROLLBACK`, a full disk).
    pub fn end(&self, commit: bool, managed: bool) -> Result<bool, SqlError> {
        self.with(|inner| {
            if inner.is_managed() && !managed {
                return Err(SqlError::misuse(NOT_YOURS));
            }
            let over = inner.connection.is_autocommit();
            inner.managed.store(false, Ordering::Relaxed);
            let ended = if over {
                Ok(())
            } else {
                inner
                    .connection
                    .execute_batch(if commit { sql::COMMIT } else { sql::ROLLBACK })
            };
            inner.managed.store(
                managed && !inner.connection.is_autocommit(),
                Ordering::Relaxed,
            );
            ended?;
            Ok(!(managed && over))
        })
    }

    /// Rolls a managed transaction back from another thread, also while it executes a statement: the file
    /// has one write lock, and others need it now. What its function still asks of it is refused.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        loop {
            let lock = match self.inner.try_lock() {
                Ok(lock) => lock,
                Err(TryLockError::Poisoned(error)) => error.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    // Again and again: a statement that is about to begin is not interrupted.
                    self.interrupt.interrupt();
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
            };
            let open = |inner: &&Inner| inner.is_managed() && !inner.connection.is_autocommit();
            if let Some(inner) = lock.as_ref().filter(open) {
                inner.managed.store(false, Ordering::Relaxed);
                if let Err(error) = inner.connection.execute_batch(sql::ROLLBACK) {
                    tracing::warn!(file = %self.place.path().display(), %error, "rolling back failed");
                }
                inner.managed.store(true, Ordering::Relaxed);
            }
            return;
        }
    }

    /// Executes one statement.
    pub fn execute(&self, statement: &str, values: &Values) -> Result<Rows, SqlError> {
        self.asked(|inner| run(&inner.connection, statement, values))
    }

    /// Executes statements that are separated by semicolons.
    pub fn execute_script(&self, statements: &str) -> Result<(), SqlError> {
        self.asked(|inner| Ok(inner.connection.execute_batch(statements)?))
    }

    /// What the user asks for; of a managed transaction only while it is open.
    fn asked<T>(&self, work: impl FnOnce(&Inner) -> Result<T, SqlError>) -> Result<T, SqlError> {
        self.with(|inner| {
            self.check_managed(inner)?;
            inner.lax |= !inner.is_managed();
            match work(inner) {
                Ok(done) => self.check_managed(inner).map(|()| done),
                Err(error) if inner.is_managed() && error.is_denied() => {
                    Err(SqlError::misuse(NOT_YOURS))
                }
                Err(error) => Err(error),
            }
        })
    }

    fn check_managed(&self, inner: &Inner) -> Result<(), SqlError> {
        if inner.is_managed() && inner.connection.is_autocommit() {
            return Err(SqlError::misuse(self.why_over()));
        }
        Ok(())
    }

    /// Why a managed transaction is over.
    fn why_over(&self) -> &'static str {
        if self.aborted.load(Ordering::Relaxed) {
            ABORTED
        } else {
            UNDONE
        }
    }

    pub fn close(&self) {
        if let Some(inner) = self.lock().take()
            && let Err((_, error)) = inner.connection.close()
        {
            tracing::warn!(file = %self.place.path().display(), %error, "closing failed");
        }
    }

    /// Carries a run's commit out in the open transaction.
    pub fn commit_run(&self, commit: &RunCommit) -> Result<CommitOutcome, StoreError> {
        let mut outcomes =
            self.change(|session| session.commit(std::slice::from_ref::<RunCommit>(commit)))?;
        Ok(outcomes.pop().unwrap_or(CommitOutcome::Fenced))
    }

    /// Creates a run in the open transaction.
    pub fn create(&self, new: &NewRun) -> Result<Created, StoreError> {
        check::new_run(new)?;
        self.one(|session| session.create(std::slice::from_ref(new)))
    }

    /// Delivers a message in the open transaction.
    pub fn deliver(&self, new: &NewMessage) -> Result<Delivered, StoreError> {
        check::new_message(new)?;
        self.one(|session| session.deliver(std::slice::from_ref(new)))
    }

    fn one<T>(
        &self,
        work: impl FnOnce(&mut Session<'_>) -> Result<Vec<T>, Fault>,
    ) -> Result<T, StoreError> {
        self.change(work)?.pop().ok_or_else(|| StoreError::Other {
            reason: "a change gave no answer".to_owned(),
        })
    }

    /// Whole or not at all, whatever the user makes of a failure.
    fn change<T>(
        &self,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let invalid = |reason: &str| StoreError::Invalid {
            reason: reason.to_owned(),
        };
        let lock = self.lock();
        let inner = lock.as_ref().ok_or_else(|| invalid(CLOSED))?;
        if inner.connection.is_autocommit() {
            let over = inner.is_managed().then(|| self.why_over());
            return Err(invalid(over.unwrap_or(NOT_OPEN)));
        }
        let connection = &inner.connection;
        // The store's own statements may be any.
        let managed = inner.managed.swap(false, Ordering::Relaxed);
        let attempt = || -> Result<T, Fault> {
            connection.execute_batch(sql::SAVEPOINT)?;
            let done = Session::new(connection).and_then(|mut session| work(&mut session));
            // After some errors SQLite has rolled back everything by itself.
            if !connection.is_autocommit() {
                if done.is_err() {
                    connection.execute_batch(sql::ROLLBACK_TO)?;
                }
                connection.execute_batch(sql::RELEASE)?;
            }
            done
        };
        let done = attempt();
        inner.managed.store(managed, Ordering::Relaxed);
        done.map_err(|fault| self.place.error(&fault))
    }
}

impl Inner {
    fn is_managed(&self) -> bool {
        self.managed.load(Ordering::Relaxed)
    }
}

fn run(connection: &Connection, statement: &str, values: &Values) -> Result<Rows, SqlError> {
    let mut prepared = connection.prepare_cached(statement)?;
    let expected = prepared.parameter_count();
    match values {
        Values::InOrder(values) => {
            if values.len() != expected {
                return Err(SqlError::misuse(&format!(
                    "the statement has {expected} parameters, and {} values were given",
                    values.len()
                )));
            }
            for (index, value) in (1..).zip(values) {
                prepared.raw_bind_parameter(index, value)?;
            }
        }
        Values::Named(values) => {
            for index in 1..=expected {
                let name = prepared.parameter_name(index).unwrap_or_default();
                let bare = name.trim_start_matches([':', '@', '$']);
                let Some(value) = values.get(bare).or_else(|| values.get(name)) else {
                    return Err(SqlError::misuse(&format!(
                        "no value was given for {name:?}"
                    )));
                };
                prepared.raw_bind_parameter(index, value)?;
            }
        }
    }
    let columns: Vec<String> = prepared.column_names().map(str::to_owned).collect();
    let mut found = Vec::new();
    if columns.is_empty() {
        prepared.raw_execute()?;
    } else {
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next()? {
            let values = (0..columns.len()).map(|column| value(row.get_ref(column)?));
            found.push(values.collect::<Result<_, SqlError>>()?);
        }
    }
    Ok(Rows {
        columns,
        rows: found,
        changes: connection.changes(),
        last_id: connection.last_insert_rowid(),
    })
}

fn value(found: ValueRef<'_>) -> Result<Value, SqlError> {
    Ok(match found {
        ValueRef::Text(text) => Value::Text(
            std::str::from_utf8(text)
                .map_err(|_| SqlError::misuse("a text is not UTF-8"))?
                .to_owned(),
        ),
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SqliteOptions, SqliteStore};

    fn file() -> (tempfile::TempDir, SqliteStore, OutsideConnection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let wait = Duration::from_millis(50);
        let outside = OutsideConnection::open(&path, Synchronous::Full, wait).unwrap();
        (dir, store, outside)
    }

    fn execute(outside: &OutsideConnection, statement: &str) -> Result<Rows, SqlError> {
        outside.execute(statement, &Values::InOrder(Vec::new()))
    }

    #[test]
    fn values_come_back_as_they_went_in() {
        let (_dir, _store, outside) = file();
        execute(&outside, "CREATE TABLE t (a, b, c, d, e)").unwrap();
        let values = vec![
            Value::Null,
            Value::Integer(i64::MAX),
            Value::Real(1.5),
            Value::Text("ü\0".to_owned()),
            Value::Blob(vec![0, 255]),
        ];
        let insert = "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)";
        let done = outside
            .execute(insert, &Values::InOrder(values.clone()))
            .unwrap();
        assert_eq!((done.changes, done.last_id), (1, 1));
        let found = execute(&outside, "SELECT * FROM t").unwrap();
        assert_eq!(found.columns, ["a", "b", "c", "d", "e"]);
        assert_eq!(found.rows, [values]);
        let named = BTreeMap::from([("x".to_owned(), Value::Real(1.5))]);
        let found = outside.execute("SELECT 1 FROM t WHERE c = :x", &Values::Named(named));
        assert_eq!(found.unwrap().rows.len(), 1);
    }

    #[test]
    fn wrong_parameters_and_wrong_sql_are_errors() {
        let (_dir, _store, outside) = file();
        assert!(execute(&outside, "SELECT ?1").unwrap_err().code.is_none());
        let none = Values::Named(BTreeMap::new());
        assert!(outside.execute("SELECT :x", &none).is_err());
        assert_eq!(execute(&outside, "SELEC").unwrap_err().code, Some(1));
        execute(&outside, "CREATE TABLE t (a UNIQUE)").unwrap();
        execute(&outside, "INSERT INTO t VALUES (1)").unwrap();
        let twice = execute(&outside, "INSERT INTO t VALUES (1)").unwrap_err();
        assert_eq!(twice.code, Some(2067)); // SQLITE_CONSTRAINT_UNIQUE
        outside.close();
        assert_eq!(execute(&outside, "SELECT 1").unwrap_err().message, CLOSED);
    }

    #[test]
    fn two_writers_of_one_process_exclude_each_other() {
        let (dir, _store, outside) = file();
        let wait = Duration::from_millis(50);
        let path = dir.path().join("app.db");
        let other = OutsideConnection::open(&path, Synchronous::Full, wait).unwrap();
        assert_eq!(outside.begin(true, false), Ok(true));
        assert_eq!(other.begin(false, false), Ok(false));
        assert!(other.begin(true, false).unwrap_err().is_busy());
        outside.end(true, false).unwrap();
        assert_eq!(other.begin(false, false), Ok(true));
        assert!(other.begin(false, false).unwrap_err().code.is_none());
    }

    #[test]
    fn a_managed_transaction_is_ended_by_no_statement_of_the_user_s() {
        let (_dir, _store, outside) = file();
        execute(&outside, "CREATE TABLE t (a UNIQUE)").unwrap();
        // Statements that were prepared before are refused as well.
        execute(&outside, "BEGIN").unwrap();
        execute(&outside, "COMMIT").unwrap();
        outside.begin(true, true).unwrap();
        assert_eq!(outside.end(true, false).unwrap_err().message, NOT_YOURS);
        execute(&outside, "INSERT INTO t VALUES (1)").unwrap();
        for ends in [
            "COMMIT",
            "END",
            "ROLLBACK",
            "BEGIN",
            "/**/ commit",
            "ROLLBACK TRANSACTION",
        ] {
            assert_eq!(execute(&outside, ends).unwrap_err().message, NOT_YOURS);
            let script = format!("INSERT INTO t VALUES (2); {ends}");
            assert_eq!(
                outside.execute_script(&script).unwrap_err().message,
                NOT_YOURS
            );
            assert_eq!(
                execute(&outside, "DELETE FROM t WHERE a = 2")
                    .unwrap()
                    .changes,
                1
            );
        }
        outside
            .execute_script("SAVEPOINT s; INSERT INTO t VALUES (3); ROLLBACK TO s; RELEASE s")
            .unwrap();
        assert_eq!(outside.end(true, true), Ok(true));
        let left = execute(&outside, "SELECT a FROM t").unwrap().rows;
        assert_eq!(left, [[Value::Integer(1)]]);
        execute(&outside, "BEGIN").unwrap();
        execute(&outside, "ROLLBACK").unwrap();
    }

    #[test]
    fn a_managed_transaction_that_sqlite_itself_rolled_back_is_not_committed() {
        let (_dir, _store, outside) = file();
        outside
            .execute_script("CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1)")
            .unwrap();
        outside.begin(true, true).unwrap();
        execute(&outside, "INSERT INTO t VALUES (2)").unwrap();
        let undone = execute(&outside, "INSERT OR ROLLBACK INTO t VALUES (1)");
        assert_eq!(undone.unwrap_err().code, Some(2067)); // SQLITE_CONSTRAINT_UNIQUE
        for again in ["INSERT INTO t VALUES (3)", "BEGIN"] {
            assert_eq!(execute(&outside, again).unwrap_err().message, UNDONE);
        }
        assert_eq!(outside.end(true, true), Ok(false));
        assert_eq!(execute(&outside, "SELECT a FROM t").unwrap().rows.len(), 1);
    }

    #[test]
    fn an_aborted_transaction_gives_the_write_lock_back_in_the_middle_of_a_statement() {
        let (dir, _store, outside) = file();
        execute(&outside, "CREATE TABLE t (a)").unwrap();
        outside.begin(true, true).unwrap();
        execute(&outside, "INSERT INTO t VALUES (1)").unwrap();
        let endless =
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| execute(&outside, endless));
            outside.abort();
            let error = busy.join().unwrap().unwrap_err();
            // 9 is SQLITE_INTERRUPT; without a code it had not begun.
            assert!(error.code == Some(9) || error.message == ABORTED);
        });
        assert_eq!(execute(&outside, "SELECT 1").unwrap_err().message, ABORTED);
        let other = OutsideConnection::open(
            &dir.path().join("app.db"),
            Synchronous::Full,
            Duration::from_millis(50),
        );
        assert_eq!(other.unwrap().begin(false, false), Ok(true));
        assert_eq!(outside.end(true, true), Ok(false));
        assert!(
            execute(&outside, "SELECT a FROM t")
                .unwrap()
                .rows
                .is_empty()
        );
        outside.abort();
        assert_eq!(outside.begin(true, true), Ok(true));
        assert_eq!(execute(&outside, "SELECT 1").unwrap().rows.len(), 1);
        assert_eq!(outside.end(true, true), Ok(true));
    }

    #[test]
    fn a_change_needs_an_open_transaction() {
        let (_dir, _store, outside) = file();
        let message = NewMessage {
            run_id: "r".into(),
            message_id: "m".to_owned(),
            kind: duramen_core::store::MessageKind::Event,
            name: "x".to_owned(),
            payload: bytes::Bytes::new(),
            fingerprint: None,
            encoding: 1,
            now: None,
        };
        let refused = outside.deliver(&message).unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { reason } if reason == NOT_OPEN));
        outside.begin(true, false).unwrap();
        let answer = outside.deliver(&message).unwrap();
        assert_eq!(answer.result, duramen_core::store::Delivery::NotFound);
    }

    #[test]
    fn a_commit_is_whole_with_what_the_user_wrote_beside_it() {
        let (_dir, _store, outside) = file();
        execute(&outside, "CREATE TABLE ledger (a)").unwrap();
        let begin = || assert_eq!(outside.begin(true, true), Ok(true));
        begin();
        let owner =
            "INSERT INTO owners VALUES ('ann', NULL, '', 1, 0, 0, 9223372036854775807, NULL)";
        execute(&outside, owner).unwrap();
        let created = outside
            .create(&duramen_store_testing::leased("a", "ann"))
            .unwrap();
        assert_eq!(created.row().unwrap().owner.as_deref(), Some("ann"));
        assert_eq!(outside.end(true, true), Ok(true));
        let commit = |length| {
            execute(&outside, "INSERT INTO ledger VALUES (1)").unwrap();
            let commit = duramen_store_testing::commit("a", "ann", length);
            outside.commit_run(&commit).unwrap()
        };
        let found = || {
            let text = "SELECT (SELECT count(*) FROM ledger), (SELECT count(*) FROM journal)";
            execute(&outside, text).unwrap().rows.remove(0)
        };
        let numbers = |ledger, journal| vec![Value::Integer(ledger), Value::Integer(journal)];
        begin();
        assert_eq!(commit(1), CommitOutcome::Applied { due: false });
        outside.end(false, true).unwrap();
        assert_eq!(found(), numbers(0, 1));
        begin();
        assert_eq!(commit(1), CommitOutcome::Applied { due: false });
        outside.end(true, true).unwrap();
        assert_eq!(found(), numbers(1, 2));
        // By somebody who is behind: the user's part is rolled back with it.
        begin();
        assert_eq!(commit(1), CommitOutcome::Fenced);
        outside.end(false, true).unwrap();
        assert_eq!(found(), numbers(1, 2));
    }
}
