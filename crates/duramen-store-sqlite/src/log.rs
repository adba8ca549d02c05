//! SQLite's write-ahead log, kept from growing for ever.
//!
//! A commit brings the log's pages into the file now and then, as far as no reader needs the older ones, and the log is begun
//! anew when all are there and nobody reads from it. Where readers overlap that moment never comes by itself: each of
//! them is short, one always reads, and the log grows as long as that goes on. So a log that has become too long is
//! waited for: with the write lock held nothing is added to it, whoever begins to read does so from the file, and it
//! is enough that those end who were reading.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

/// What a log is cut back to after it was long, in bytes. Past that it is worth waiting for readers.
pub(crate) const LONG: u64 = 64 << 20;

/// How long they are waited for: longer than a query of a store takes, far shorter than what waits for the write lock does.
const PATIENCE: Duration = Duration::from_millis(500);

/// The log of a connection's file.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// The length at which it is worth waiting.
    next: u64,
}

impl Log {
    pub(crate) fn of(connection: &Connection) -> Self {
        // By the name that SQLite has resolved: links are followed.
        let path = connection.path().unwrap_or_default();
        Self {
            path: format!("{path}-wal").into(),
            next: LONG,
        }
    }

    /// Begins a log that has become long anew, outside of a transaction.
    pub(crate) fn bound(&mut self, connection: &Connection) {
        let length = std::fs::metadata(&self.path).map_or(0, |found| found.len());
        if length <= LONG {
            // Others may have cut it back meanwhile.
            self.next = LONG;
        }
        if length <= self.next {
            return;
        }
        match empty(connection) {
            Ok(true) => self.next = LONG,
            // Somebody reads for long (a backup, a forgotten transaction). It costs all who write a pause each time the log
            // has doubled, and not more often.
            Ok(false) => self.next = length.saturating_mul(2),
            Err(error) => {
                tracing::warn!(log = %self.path.display(), %error, "a SQLite log could not be cut back");
                self.next = length.saturating_mul(2);
            }
        }
    }
}

/// True if nobody kept it from that.
fn empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(PATIENCE)?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    // The writer waits for the lock in its own way.
    connection.busy_timeout(Duration::ZERO)?;
    busy.map(|busy: i64| busy == 0)
}
