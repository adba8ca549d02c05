//! What SQLite's errors mean for a caller, and what can be done about them.

use std::path::Path;

use duramen_core::store::StoreError;
use duramen_store_sql::Damaged;

use crate::codes::{Class, Trouble, trouble};
use crate::place::Place;

/// Why a piece of work inside a transaction failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Sql(rusqlite::Error),
    /// The file holds a value that no build wrote there.
    Damaged(String),
    /// The request itself can never be kept.
    Invalid(String),
    /// The file is not the one that was opened first, or not one that a store can rely on.
    Lost(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Damaged> for Fault {
    fn from(Damaged(what): Damaged) -> Self {
        Self::Damaged(what)
    }
}

impl Fault {
    /// A result code as if SQLite had given it.
    pub(crate) fn of_code(code: i32, message: &str) -> Self {
        Self::Sql(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(code),
            Some(message.to_owned()),
        ))
    }

    fn trouble(&self) -> Trouble {
        match self {
            Self::Sql(error) => match error {
                rusqlite::Error::SqliteFailure(failure, _) => trouble(failure.extended_code),
                rusqlite::Error::SqlInputError { error, .. } => trouble(error.extended_code),
                rusqlite::Error::ToSqlConversionFailure(_) => Trouble::Refused,
                // A column of another type than a store writes.
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::QueryReturnedNoRows => Trouble::Damaged,
                _ => Trouble::Mistake,
            },
            Self::Damaged(_) => Trouble::Damaged,
            Self::Invalid(_) => Trouble::Refused,
            Self::Lost(_) => Trouble::Unopenable,
        }
    }

    pub(crate) fn class(&self) -> Class {
        self.trouble().class()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.trouble() == Trouble::Locked
    }

    /// Whether a smaller part of what was tried may still fit.
    pub(crate) fn is_full(&self) -> bool {
        self.trouble() == Trouble::Full
    }

    /// Whether the connection that met it should be opened anew.
    pub(crate) fn spoils_the_connection(&self) -> bool {
        // A value in one row says nothing about the connection, and what was committed through it may be nowhere but in
        // the files that it has open.
        !matches!(self, Self::Damaged(_) | Self::Lost(_)) && self.trouble().spoils_the_connection()
    }
}

impl Place {
    /// The typed error with the file's name and a way out.
    pub(crate) fn error(&self, fault: &Fault) -> StoreError {
        let file = self.path().display();
        let error = match fault {
            Fault::Invalid(reason) => {
                return StoreError::Invalid {
                    reason: reason.clone(),
                };
            }
            Fault::Lost(what) => {
                return StoreError::Unavailable {
                    reason: format!("{file}: {what}"),
                };
            }
            Fault::Damaged(what) => {
                return StoreError::Corrupt {
                    reason: format!("{file}: {what}; {RESTORE}"),
                };
            }
            Fault::Sql(error) => error,
        };
        let with = |what: &str| format!("{file}: {error}; {what}");
        match fault.trouble() {
            Trouble::Locked => StoreError::Locked {
                reason: with(
                    "another connection holds the write lock. End the transaction that it left open, or \
                     raise busy_timeout",
                ),
            },
            Trouble::Full => StoreError::Full {
                reason: with("free space on its disk or raise its page limit"),
            },
            Trouble::ReadOnly => StoreError::ReadOnly {
                reason: with("this user needs write access to the file and its directory"),
            },
            Trouble::Damaged => StoreError::Corrupt {
                reason: with(RESTORE),
            },
            Trouble::NotADatabase => StoreError::Corrupt {
                reason: with("it is not a SQLite file (or is encrypted): name another file"),
            },
            Trouble::Unopenable => StoreError::Unavailable {
                reason: with(&why_unopenable(self.path())),
            },
            Trouble::Disk => StoreError::Unavailable {
                reason: with("check the disk and the system's log"),
            },
            Trouble::Memory => StoreError::Unavailable {
                reason: with("the machine has no memory left for it"),
            },
            Trouble::Disturbed => StoreError::Unavailable {
                reason: with("somebody else changed the file at the same time"),
            },
            Trouble::Refused => StoreError::Invalid {
                reason: format!("{file}: {error}"),
            },
            Trouble::Mistake => StoreError::Other {
                reason: format!("{file}: {error}"),
            },
        }
    }
}

fn why_unopenable(file: &Path) -> String {
    let parent = file.parent().unwrap_or_else(|| Path::new("."));
    if !parent.as_os_str().is_empty() && !parent.is_dir() {
        return format!(
            "the directory {} does not exist; create it",
            parent.display()
        );
    }
    if file.is_dir() {
        return "it is a directory; name a file in it".to_owned();
    }
    "this user needs read and write access to the file and its directory".to_owned()
}

const RESTORE: &str = "stop all processes that use the file and restore it from a backup, or save \
                       what can be saved with `sqlite3 FILE .recover`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_code_is_of_the_place_when_the_code_is() {
        let place = Place::new(Path::new("runs.db")).unwrap();
        for code in 1..0x4000 {
            let fault = Fault::of_code(code, "told");
            let error = place.error(&fault);
            match fault.class() {
                Class::Place => assert!(error.is_of_the_place(), "code {code}: {error}"),
                Class::Request => {
                    assert!(matches!(error, StoreError::Invalid { .. }), "code {code}");
                }
                Class::Defect => assert!(
                    matches!(error, StoreError::Corrupt { .. } | StoreError::Other { .. }),
                    "code {code}: {error}"
                ),
            }
        }
    }
}
