//! The file of a store: its name, and which file that was when it was opened first.
//!
//! All connections of a store must be to one file. A name is resolved once, so that a change of the working
//! directory changes nothing; each later connection, and each transaction, finds the same file under it, or fails.
//! Else a file that was removed, or replaced by a backup, would take what is acknowledged with it.
//!
//! The same holds of the log and its index, which SQLite keeps beside the file for as long as it is open: they are
//! part of it. Once they are gone nothing is opened any more; the connections that still have them write the log into
//! the file when they are closed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use duramen_core::store::StoreError;
use rusqlite::Connection;

use crate::error::Fault;

/// See the module's head.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    first: OnceLock<Identity>,
    /// What is beside the file, while the write connection is open.
    beside: Mutex<Vec<(PathBuf, Identity)>>,
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
            beside: Mutex::default(),
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

    /// Whether the name still stands for the file that was there when this was asked first, the file has no
    /// other name (SQLite names a file's log after it, so two names are two logs, and one is lost), and its log is
    /// there.
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
        self.check_beside()
    }

    fn check_beside(&self) -> Result<(), Fault> {
        for (path, identity) in self.beside().iter() {
            if !matches!(look(path), Ok(Some((found, _))) if found == *identity) {
                return Err(Fault::Lost(format!(
                    "{} has been removed or replaced while the store is open, and it is a part of the store; end \
                     in order all processes that have it open, which writes what was committed into the file",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// The write connection is open, and has read: the log and its index are there.
    pub(crate) fn remember_beside(&self, connection: &Connection) {
        // By its own name for the file, from which symbolic links have been followed.
        let Some(file) = connection.path() else {
            return;
        };
        let found = ["-wal", "-shm"].into_iter().filter_map(|end| {
            let mut path = OsString::from(file);
            path.push(end);
            let path = PathBuf::from(path);
            let (identity, _) = look(&path).ok()??;
            Some((path, identity))
        });
        *self.beside() = found.collect();
    }

    /// The write connection is about to be closed, maybe as the last one, which removes the log. One that is lost
    /// stays so: what other connections have of it does not fit a new one.
    pub(crate) fn forget_beside(&self) {
        if self.check_beside().is_ok() {
            self.beside().clear();
        }
    }

    fn beside(&self) -> std::sync::MutexGuard<'_, Vec<(PathBuf, Identity)>> {
        self.0.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a file that was mounted by itself, as containers allow: its log would be in the folder where it is
    /// mounted, out of sight of whoever opens the file elsewhere, and gone with the container.
    #[cfg(target_os = "linux")]
    pub(crate) fn check_mount(&self) -> Result<(), Fault> {
        use std::os::unix::ffi::OsStrExt;
        let Ok(real) = self.path().canonicalize() else {
            return Ok(()); // it is not there yet, or opening it says why
        };
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let mounted = mounts.split(|byte| *byte == b'\n').any(|line| {
            line.split(|byte| *byte == b' ')
                .nth(4)
                .is_some_and(|point| unescaped(point) == real.as_os_str().as_bytes())
        });
        if mounted {
            return Err(Fault::Lost(
                "the file is mounted by itself, so that its log would not be beside it; mount its folder".to_owned(),
            ));
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the other one needs them"
    )]
    pub(crate) fn check_mount(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A field of the table of mounts, in which blanks and the like are written as three octal digits.
#[cfg(target_os = "linux")]
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let code = after.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match code {
            Some(code) if *first == b'\\' => {
                text.push(code);
                rest = &after[3..];
            }
            _ => {
                text.push(*first);
                rest = after;
            }
        }
    }
    text
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
