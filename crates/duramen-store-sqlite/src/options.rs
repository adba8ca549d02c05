//! How a file is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// When it is on the disk: it survives a power cut.
    #[default]
    Full,
    /// When the operating system has it. It survives a crash of the process; **a power cut or a crash
    /// of the machine may lose the last commits** (the file stays whole): steps that were recorded
    /// may run again.
    Normal,
}

/// Options of [`crate::SqliteStore::open`]; `..SqliteOptions::default()` for the rest.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Apply missing migrations on opening. Without it a file that lacks any is refused.
    pub migrate: bool,
    pub synchronous: Synchronous,
    /// How long to wait for another process's write lock before answering that the store is locked.
    pub busy_timeout: Duration,
    /// The most pages of 4 KiB that the file may grow to; then the store is full.
    pub max_pages: Option<u32>,
    /// Called by the writer at the edges of each transaction, for tests of crashes and of grouping.
    #[doc(hidden)]
    pub probe: Option<Probe>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            migrate: true,
            synchronous: Synchronous::default(),
            busy_timeout: Duration::from_secs(5),
            max_pages: None,
            probe: None,
        }
    }
}

/// An edge of a transaction.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    BeforeCommit,
    AfterCommit,
}

/// A function that a test hangs into the writer.
#[doc(hidden)]
#[derive(Clone)]
pub struct Probe(Arc<dyn Fn(Point) -> Option<i32> + Send + Sync>);

impl Probe {
    pub fn new(call: impl Fn(Point) + Send + Sync + 'static) -> Self {
        Self::failing(move |point| {
            call(point);
            None
        })
    }

    /// Before a commit it may give a result code of SQLite's, with which the transaction fails.
    pub fn failing(call: impl Fn(Point) -> Option<i32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(crate) fn call(&self, point: Point) -> Option<i32> {
        (self.0)(point)
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}
