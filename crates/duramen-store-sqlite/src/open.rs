//! Opening a file: connections, their settings, and the schema.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use duramen_core::store::{Schema, StoreError};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::Fault;
use crate::log::LONG;
use crate::migrate;
use crate::options::{SqliteOptions, Synchronous};
use crate::place::Place;

/// Links that lead to links, as many as systems follow.
#[cfg(unix)]
const LONGEST_CHAIN: usize = 40;

/// The place of a store's file, if it is one.
pub(crate) fn place(path: &Path) -> Result<Place, StoreError> {
    if path == Path::new("") || path == Path::new(":memory:") {
        return Err(StoreError::Invalid {
            reason: "a SQLite store needs a file; use the memory store for runs that nobody keeps"
                .to_owned(),
        });
    }
    Place::new(path)
}

/// Opens the write connection, makes the file a WAL file, and brings its schema up to date.
pub(crate) fn write_connection(
    place: &Place,
    options: &SqliteOptions,
) -> Result<(Connection, Schema), StoreError> {
    let name = place.path();
    let open = || -> Result<(Connection, Schema), Fault> {
        let flags = if options.migrate {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        } else {
            // Without leave to make a schema, a file that is not there is not made either.
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        place.check_again()?;
        place.check_mount()?;
        if options.migrate {
            make_private(name);
        }
        let mut connection =
            Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        place.check()?;
        connection.busy_timeout(options.busy_timeout)?;
        if !options.migrate {
            // A look: what is no store of ours, or not of this build, is left as it is, and refused below.
            let found = migrate::found(&connection)?;
            if found.check(migrate::MIGRATIONS).is_err() {
                return Ok((connection, found.schema(migrate::MIGRATIONS)));
            }
        }
        set_up(&connection, options)?;
        let schema = schema(&mut connection, options)?;
        place.remember_beside(&connection);
        // From here on the writer waits for the lock in its own way; see `Writer::begin`.
        connection.busy_timeout(Duration::ZERO)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok((connection, schema))
    };
    // Two processes that open a new file at once can get "busy" from each other where SQLite does not
    // wait by itself, such as the change to WAL.
    let since = Instant::now();
    let (connection, schema) = loop {
        match open() {
            Err(fault) if fault.is_busy() && since.elapsed() < options.busy_timeout => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => break other,
        }
    }
    .map_err(|fault| place.error(&fault))?;
    let found = migrate::found(&connection).map_err(|fault| place.error(&fault))?;
    found.check(migrate::MIGRATIONS)?;
    Ok((connection, schema))
}

/// Makes the file if there is none, for its owner's eyes: all payloads are in it. SQLite gives the log and its index
/// the mode of the file. A umask that takes more away does, and a file that is there is left alone.
#[cfg(unix)]
fn make_private(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    /// Closing any descriptor of a file takes this process's locks from it, those of another store that opened the
    /// new file in between too: one makes its file at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut path = path.to_owned();
    for _ in 0..LONGEST_CHAIN {
        match std::fs::read_link(&path) {
            Ok(next) => path = path.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => break,
        }
    }
    // Where it cannot be made SQLite says why.
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
}

#[cfg(not(unix))]
fn make_private(_path: &Path) {}

fn set_up(connection: &Connection, options: &SqliteOptions) -> Result<(), Fault> {
    if connection.is_readonly("main")? {
        // SQLite falls back to reading silently; a store that cannot write is of no use.
        return Err(Fault::of_code(
            rusqlite::ffi::SQLITE_READONLY,
            "the file cannot be opened for writing",
        ));
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Fault::Invalid(format!(
            "the file system cannot keep a SQLite write-ahead log (journal mode {mode:?}); \
             put the file on a local disk"
        )));
    }
    let synchronous = match options.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // No table refers to another; checking would only cost.
    connection.pragma_update(None, "foreign_keys", false)?;
    // 32 MiB of pages: the inner pages of every index of some millions of runs stay in memory, so
    // that a commit reads leaf pages only. Memory is taken as it is used.
    connection.pragma_update(None, "cache_size", -32_768)?;
    // The default, on purpose: a commit that makes the log longer takes a third to a half longer than
    // one that writes over it (measured), so the log should be short enough to be reused soon.
    connection.pragma_update(None, "wal_autocheckpoint", 1_000)?;
    // A log that once grew (during a long read) is cut back to this after a checkpoint.
    connection.pragma_update(
        None,
        "journal_size_limit",
        i64::try_from(LONG).unwrap_or(i64::MAX),
    )?;
    // No mmap: an I/O error in mapped pages would kill the process instead of failing a call.
    connection.pragma_update(None, "mmap_size", 0)?;
    if let Some(most) = options.max_pages {
        connection.pragma_update(None, "max_page_count", most)?;
    }
    Ok(())
}

fn schema(connection: &mut Connection, options: &SqliteOptions) -> Result<Schema, Fault> {
    let found = migrate::found(connection)?;
    if !found.lacks(migrate::MIGRATIONS) || !options.migrate {
        return Ok(found.schema(migrate::MIGRATIONS));
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let schema = migrate::apply(&transaction)?;
    transaction.commit()?;
    Ok(schema)
}

/// Opens a connection that only reads.
pub(crate) fn read_connection(place: &Place, busy_timeout: Duration) -> Result<Connection, Fault> {
    place.check_again()?;
    let connection = Connection::open_with_flags(
        place.path(),
        // Not SQLITE_OPEN_READ_ONLY: a reader takes part in the log's shared memory.
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    place.check()?;
    connection.busy_timeout(busy_timeout)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
