//! A store in a directory of its own.

use std::path::{Path, PathBuf};

use duramen_store_sqlite::{SqliteOptions, SqliteStore};
use tempfile::TempDir;

pub(crate) use duramen_store_testing::{
    APPLIED, alive, beat, block_on, claim, claim_all, commit, commit_one, create, entry, event,
    heartbeat, lane, leased, new_run,
};

/// A directory with a store's file in it; gone at the end of the test.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("runs.db")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn open(&self) -> SqliteStore {
        self.open_with(SqliteOptions::default())
    }

    pub(crate) fn open_with(&self, options: SqliteOptions) -> SqliteStore {
        SqliteStore::open(&self.file(), options).unwrap()
    }

    /// A connection of the test's own, beside the store's.
    pub(crate) fn connection(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.file()).unwrap()
    }
}
