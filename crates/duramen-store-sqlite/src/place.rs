//! The file of a store: its name, and which file that was when it was opened first.
//!
//! All connections of a store must be to one file. A name is resolved once, so that a change of the working
//! directory changes nothing; each later connection, and each transaction, finds the same file under it, or fails.
//! Else a file that was removed, or replaced by a backup, would take what is acknowledged with it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use duramen_core::store::StoreError;

use crate::error::Fault;

/// See the module's head.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    first: OnceLock<Identity>,
}

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    number: u64,
}

impl Place {
    /// Nothing is looked at yet.
    pub(crate) fn new(path: &Path) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(|error| StoreError::Unavailable {
            reason: format!("{}: {error}", path.display()),
        })?;
        Ok(Self(Arc::new(Inner {
            path,
            first: OnceLock::new(),
        })))
    }

    /// As it was resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Before it is opened again: nothing is opened under the name that is not that file.
    pub(crate) fn check_again(&self) -> Result<(), Fault> {
        if self.0.first.get().is_some() {
            self.check()?;
        }
        Ok(())
    }

    /// Whether the name still stands for the file that was there when this was asked first, and the file has no
    /// other name: SQLite names a file's log after it, so two names are two logs, and one is lost.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let Some((identity, links)) = look(self.path())? else {
            return Ok(());
        };
        if links > 1 {
            return Err(Fault::Lost(format!(
                "the file has {links} names (hard links), each of which would have a log of its own; remove all \
                 but one"
            )));
        }
        if *self.0.first.get_or_init(|| identity) != identity {
            return Err(Fault::Lost(
                "another file has been put in the place of the one that is open; restart the process to go \
                 on with it"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(unix)]
fn look(path: &Path) -> Result<Option<(Identity, u64)>, Fault> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(found) => {
            let identity = Identity {
                device: found.dev(),
                number: found.ino(),
            };
            Ok(Some((identity, found.nlink())))
        }
        Err(error) => Err(Fault::Lost(format!(
            "the file is not there any more ({error}); put it back, or restart the process to begin a new one"
        ))),
    }
}

/// No such numbers in Rust's library; an open file cannot be removed there anyway.
#[cfg(not(unix))]
fn look(_path: &Path) -> Result<Option<(Identity, u64)>, Fault> {
    Ok(None)
}
