//! What Postgres's errors mean for a caller, and what can be done about them.

use duramen_core::store::StoreError;
use duramen_store_sql::Damaged;
use tokio_postgres::error::{DbError, SqlState};

/// Why a statement failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Sql(tokio_postgres::Error),
    /// No answer in time; whether the statement took place is not known.
    Stalled(std::time::Duration),
    /// A value that no build wrote there.
    Damaged(String),
    /// Known already as what the caller gets.
    Known(StoreError),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Known(error)
    }
}

impl From<Damaged> for Fault {
    fn from(Damaged(what): Damaged) -> Self {
        Self::Damaged(what)
    }
}

impl Fault {
    fn state(&self) -> Option<&SqlState> {
        match self {
            // Citus copies rows to the part that they belong to, and has no code for what a key refuses there: it names
            // the key, which is called after its table in every language.
            Self::Sql(error) if error.code() == Some(&SqlState::INTERNAL_ERROR) => {
                let names_a_key = |said: &DbError| said.message().contains("_pkey");
                if error.as_db_error().is_some_and(names_a_key) {
                    Some(&SqlState::UNIQUE_VIOLATION)
                } else {
                    error.code()
                }
            }
            Self::Sql(error) => error.code(),
            _ => None,
        }
    }

    /// Nothing took place, and the same statement may well succeed: 40001 and 40P01.
    pub(crate) fn asks_for_repetition(&self) -> bool {
        self.state().is_some_and(|state| {
            *state == SqlState::T_R_SERIALIZATION_FAILURE
                || *state == SqlState::T_R_DEADLOCK_DETECTED
        })
    }

    /// Somebody else holds a row for longer than `lock_timeout`. Nothing took place.
    pub(crate) fn is_locked(&self) -> bool {
        self.state()
            .is_some_and(|state| *state == SqlState::LOCK_NOT_AVAILABLE)
    }

    /// The same, but it is a whole table that somebody holds (a schema change, vacuum that gives space back): the
    /// server names no row. What is to be said of one run cannot be told from it.
    pub(crate) fn is_of_a_table(&self) -> bool {
        match self {
            Self::Sql(error) => {
                self.is_locked()
                    && error
                        .as_db_error()
                        .is_some_and(|said| said.where_().is_none())
            }
            _ => false,
        }
    }

    /// The session is of no use any more.
    pub(crate) fn ends_session(&self) -> bool {
        match self {
            Self::Stalled(_) => true,
            Self::Sql(error) => match error.code() {
                None => true,
                Some(state) => {
                    class(state, "08")
                        || class(state, "57P")
                        // A server that became a standby: the next connection finds the primary.
                        || *state == SqlState::READ_ONLY_SQL_TRANSACTION
                        // Prepared statements that the server has forgotten, or whose table has changed.
                        || *state == SqlState::INVALID_SQL_STATEMENT_NAME
                        || *state == SqlState::FEATURE_NOT_SUPPORTED
                }
            },
            Self::Damaged(_) | Self::Known(_) => false,
        }
    }

    /// A row with that key is there already, in a version that the statement's snapshot did not show.
    pub(crate) fn is_of_a_key(&self) -> bool {
        self.state()
            .is_some_and(|state| *state == SqlState::UNIQUE_VIOLATION)
    }

    /// One element of a batch has spoilt the statement for all.
    pub(crate) fn is_of_one_element(&self) -> bool {
        self.is_of_the_request() || self.is_locked()
    }

    /// The server's words, or whatever there is.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Sql(error) => error
                .as_db_error()
                .map_or_else(|| error.to_string(), |said| said.message().to_owned()),
            other => format!("{other:?}"),
        }
    }

    /// The statement can never succeed with these values, whatever happens around it; its neighbours can.
    pub(crate) fn is_of_the_request(&self) -> bool {
        self.state()
            .is_some_and(|state| class(state, "22") || class(state, "23") || class(state, "54"))
    }

    /// A schema object is being made by somebody else at this moment.
    pub(crate) fn is_a_race_of_creators(&self) -> bool {
        self.state().is_some_and(|state| {
            [
                SqlState::UNIQUE_VIOLATION,
                SqlState::DUPLICATE_TABLE,
                SqlState::DUPLICATE_SCHEMA,
                SqlState::DUPLICATE_OBJECT,
            ]
            .contains(state)
        })
    }

    pub(crate) fn is_of_a_missing_table(&self) -> bool {
        self.state().is_some_and(|state| {
            *state == SqlState::UNDEFINED_TABLE || *state == SqlState::INVALID_SCHEMA_NAME
        })
    }
}

fn class(state: &SqlState, prefix: &str) -> bool {
    state.code().starts_with(prefix)
}

/// The typed error, with the place it comes from and a way out.
pub(crate) fn store_error(place: &str, fault: Fault, needed: u32) -> StoreError {
    if fault.is_of_a_missing_table() {
        return StoreError::Unmigrated { found: 0, needed };
    }
    let error = match fault {
        Fault::Sql(error) => error,
        Fault::Stalled(after) => {
            return StoreError::Unavailable {
                reason: format!(
                    "{place}: no answer within {} s; the connection was given up (raise `timeout` if the \
                     server is only slow)",
                    after.as_secs_f64()
                ),
            };
        }
        Fault::Damaged(what) => {
            return StoreError::Corrupt {
                reason: format!("{place}: {what}; restore the tables from a backup"),
            };
        }
        Fault::Known(error) => return error,
    };
    let text = describe(&error);
    let reason = |advice: &str| format!("{place}: {text}{advice}");
    let Some(state) = error.code() else {
        return StoreError::Unavailable {
            reason: reason("; check that the server is there and may be reached"),
        };
    };
    match state.code() {
        "25006" => StoreError::ReadOnly {
            reason: reason(
                "; this server takes no writes (a standby?): name the primary, or all servers and \
                 target_session_attrs=read-write",
            ),
        },
        "53100" => StoreError::Full {
            reason: reason("; free space on the server's disk"),
        },
        // It is the store that cannot be used, not the request that is wrong.
        "42501" => StoreError::Other {
            reason: reason("; grant this role what it needs (see the page on going to production)"),
        },
        // Prepared on one server connection, run on another.
        "26000" | "42P05" => StoreError::Invalid {
            reason: reason(
                "; is there a pooler that gives each transaction another connection? Then set \
                 statement_cache to \"off\"",
            ),
        },
        "3D000" => StoreError::Unavailable {
            reason: reason("; create the database first"),
        },
        "28P01" | "28000" => StoreError::Unavailable {
            reason: reason("; check the URL's user and password"),
        },
        "40001" | "40P01" | "23505" => StoreError::Unavailable {
            reason: reason("; others kept changing the same runs: try again"),
        },
        code if ["08", "53", "57", "55"].contains(&&code[..2]) => {
            StoreError::Unavailable { reason: reason("") }
        }
        "22P05" => StoreError::Invalid {
            reason: reason(
                "; the database's encoding has no such character: make a database with ENCODING 'UTF8'",
            ),
        },
        code if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => {
            StoreError::Invalid { reason: reason("") }
        }
        code if code.starts_with("XX00") && code != "XX000" => StoreError::Corrupt {
            reason: reason("; restore the database from a backup"),
        },
        _ => StoreError::Other { reason: reason("") },
    }
}

/// The server's words, or the chain of causes of an error that is not from the server.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}
