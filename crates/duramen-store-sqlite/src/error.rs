//! What SQLite's errors mean for a caller, and what can be done about them.

use std::path::{Path, PathBuf};

use duramen_core::store::StoreError;
use duramen_store_sql::Damaged;
use rusqlite::ffi::ErrorCode;

/// Why a piece of work inside a transaction failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Sql(rusqlite::Error),
    /// The file holds a value that no build wrote there.
    Damaged(String),
    /// The request itself can never be kept.
    Invalid(String),
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
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sql(error) => error.sqlite_error_code(),
            Self::Damaged(_) | Self::Invalid(_) => None,
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }

    /// Whether the cause is the file or the machine, so that trying the parts of a group one by one
    /// would only repeat it. (A full disk is not: a smaller part may fit.)
    pub(crate) fn is_of_the_place(&self) -> bool {
        matches!(
            self.code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::ReadOnly
                    | ErrorCode::PermissionDenied
                    | ErrorCode::CannotOpen
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::NotADatabase
            )
        )
    }

    /// Whether the part that failed can never be kept, whatever happens around it.
    pub(crate) fn is_of_the_request(&self) -> bool {
        match self {
            Self::Sql(rusqlite::Error::ToSqlConversionFailure(_)) | Self::Invalid(_) => true,
            Self::Sql(_) => matches!(
                self.code(),
                Some(
                    ErrorCode::TooBig
                        | ErrorCode::ConstraintViolation
                        | ErrorCode::TypeMismatch
                        | ErrorCode::ParameterOutOfRange
                )
            ),
            Self::Damaged(_) => false,
        }
    }
}

/// The file, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The typed error with the file's name and a way out.
    pub(crate) fn error(&self, fault: &Fault) -> StoreError {
        let file = self.0.display();
        let error = match fault {
            Fault::Sql(error) => error,
            Fault::Damaged(what) => {
                return StoreError::Corrupt {
                    reason: format!("{file}: {what}; {RESTORE}"),
                };
            }
            Fault::Invalid(reason) => {
                return StoreError::Invalid {
                    reason: reason.clone(),
                };
            }
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked {
                reason: format!(
                    "{file}: {error}; another connection holds the write lock. End the \
                     transaction that it left open, or raise busy_timeout"
                ),
            },
            Some(ErrorCode::DiskFull) => StoreError::Full {
                reason: format!("{file}: {error}; free space on its disk or raise its page limit"),
            },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::ReadOnly {
                reason: format!(
                    "{file}: {error}; this user needs write access to the file and its directory"
                ),
            },
            Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt {
                reason: format!("{file}: {error}; {RESTORE}"),
            },
            Some(ErrorCode::NotADatabase) => StoreError::Corrupt {
                reason: format!(
                    "{file}: {error}; it is not a SQLite file (or is encrypted): name another file"
                ),
            },
            Some(ErrorCode::CannotOpen) => StoreError::Unavailable {
                reason: format!("{file}: {error}; {}", self.why_unopenable()),
            },
            Some(ErrorCode::SystemIoFailure) => StoreError::Unavailable {
                reason: format!("{file}: {error}; check the disk and the system's log"),
            },
            Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
                StoreError::Invalid {
                    reason: format!("{file}: {error}"),
                }
            }
            _ => StoreError::Other {
                reason: format!("{file}: {error}"),
            },
        }
    }

    fn why_unopenable(&self) -> String {
        let parent = self.0.parent().unwrap_or_else(|| Path::new("."));
        if !parent.as_os_str().is_empty() && !parent.is_dir() {
            return format!(
                "the directory {} does not exist; create it",
                parent.display()
            );
        }
        if self.0.is_dir() {
            return "it is a directory; name a file in it".to_owned();
        }
        "this user needs read and write access to the file and its directory".to_owned()
    }
}

const RESTORE: &str = "stop all processes that use the file and restore it from a backup, or save \
                       what can be saved with `sqlite3 FILE .recover`";
