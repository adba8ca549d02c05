//! What SQLite's result codes mean: one table over all of them.
//!
//! Each code is trouble of one [`Class`]. What a caller concludes hangs on it: a request that can never be kept
//! is answered as such (and its run parked), while trouble of the place says nothing about any request. So a code
//! that is not known here is never one of the request.

use rusqlite::ffi;

/// Whose trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// This element can never be kept, whatever happens around it.
    Request,
    /// Disk, memory, locks: the same call may succeed later.
    Place,
    /// The file is damaged, or this build uses SQLite wrongly.
    Defect,
}

/// What there is to say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A value that does not fit, a rule of the file's owner.
    Refused,
    /// Another connection holds the lock.
    Locked,
    /// No room: a smaller transaction may fit.
    Full,
    /// The file, its directory or its file system cannot be written, for now.
    ReadOnly,
    /// The file cannot be opened, or is not the one that was opened.
    Unopenable,
    /// Reading, writing, syncing or mapping failed.
    Disk,
    Memory,
    /// Somebody else changed the schema in the meantime, or stopped the statement.
    Disturbed,
    /// What is in the file is not what a store writes.
    Damaged,
    NotADatabase,
    /// A mistake of this build.
    Mistake,
}

impl Trouble {
    pub(crate) const fn class(self) -> Class {
        match self {
            Self::Refused => Class::Request,
            Self::Locked
            | Self::Full
            | Self::ReadOnly
            | Self::Unopenable
            | Self::Disk
            | Self::Memory
            | Self::Disturbed => Class::Place,
            Self::Damaged | Self::NotADatabase | Self::Mistake => Class::Defect,
        }
    }

    /// Whether the connection that met it should be opened anew: its cache, its map of the log and its file
    /// handles may be those of a disk that was away. (A lock or a full disk leaves nothing behind.)
    pub(crate) const fn spoils_the_connection(self) -> bool {
        !matches!(self, Self::Refused | Self::Locked | Self::Full)
    }
}

/// The table: by the extended code where it says more than its primary one.
pub(crate) const fn trouble(extended_code: i32) -> Trouble {
    match extended_code {
        // A checksum or a file system says that the bytes are not those that were written.
        ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_CORRUPTFS => return Trouble::Damaged,
        ffi::SQLITE_IOERR_NOMEM => return Trouble::Memory,
        ffi::SQLITE_IOERR_BLOCKED
        | ffi::SQLITE_IOERR_LOCK
        | ffi::SQLITE_IOERR_RDLOCK
        | ffi::SQLITE_IOERR_UNLOCK
        | ffi::SQLITE_IOERR_CHECKRESERVEDLOCK => return Trouble::Disk,
        // The file was moved or unlinked under the connection.
        ffi::SQLITE_READONLY_DBMOVED => return Trouble::Unopenable,
        _ => {}
    }
    match extended_code & 0xff {
        ffi::SQLITE_TOOBIG | ffi::SQLITE_CONSTRAINT | ffi::SQLITE_MISMATCH => Trouble::Refused,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => Trouble::Locked,
        ffi::SQLITE_FULL => Trouble::Full,
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM => Trouble::ReadOnly,
        ffi::SQLITE_CANTOPEN => Trouble::Unopenable,
        ffi::SQLITE_IOERR => Trouble::Disk,
        ffi::SQLITE_NOMEM => Trouble::Memory,
        ffi::SQLITE_SCHEMA | ffi::SQLITE_INTERRUPT => Trouble::Disturbed,
        // SQLITE_ERROR: the statements are fixed and fit the schema, so a table is missing or has other columns.
        ffi::SQLITE_CORRUPT | ffi::SQLITE_ERROR => Trouble::Damaged,
        ffi::SQLITE_NOTADB => Trouble::NotADatabase,
        _ => Trouble::Mistake,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every primary code with its number of extended ones, in SQLite 3.5x.
    const CODES: [(i32, i32, Class); 29] = [
        (ffi::SQLITE_ERROR, 6, Class::Defect),
        (ffi::SQLITE_INTERNAL, 0, Class::Defect),
        (ffi::SQLITE_PERM, 0, Class::Place),
        (ffi::SQLITE_ABORT, 2, Class::Defect),
        (ffi::SQLITE_BUSY, 3, Class::Place),
        (ffi::SQLITE_LOCKED, 2, Class::Place),
        (ffi::SQLITE_NOMEM, 0, Class::Place),
        (ffi::SQLITE_READONLY, 6, Class::Place),
        (ffi::SQLITE_INTERRUPT, 0, Class::Place),
        (ffi::SQLITE_IOERR, 36, Class::Place),
        (ffi::SQLITE_CORRUPT, 3, Class::Defect),
        (ffi::SQLITE_NOTFOUND, 0, Class::Defect),
        (ffi::SQLITE_FULL, 0, Class::Place),
        (ffi::SQLITE_CANTOPEN, 6, Class::Place),
        (ffi::SQLITE_PROTOCOL, 0, Class::Place),
        (ffi::SQLITE_EMPTY, 0, Class::Defect),
        (ffi::SQLITE_SCHEMA, 0, Class::Place),
        (ffi::SQLITE_TOOBIG, 0, Class::Request),
        (ffi::SQLITE_CONSTRAINT, 12, Class::Request),
        (ffi::SQLITE_MISMATCH, 0, Class::Request),
        (ffi::SQLITE_MISUSE, 0, Class::Defect),
        (ffi::SQLITE_NOLFS, 0, Class::Defect),
        (ffi::SQLITE_AUTH, 1, Class::Defect),
        (ffi::SQLITE_FORMAT, 0, Class::Defect),
        (ffi::SQLITE_RANGE, 0, Class::Defect),
        (ffi::SQLITE_NOTADB, 0, Class::Defect),
        (ffi::SQLITE_NOTICE, 3, Class::Defect),
        (ffi::SQLITE_WARNING, 1, Class::Defect),
        (ffi::SQLITE_ROW, 0, Class::Defect),
    ];

    /// Those that are not what their primary code is.
    const OTHERS: [(i32, Class); 2] = [
        (ffi::SQLITE_IOERR_DATA, Class::Defect),
        (ffi::SQLITE_IOERR_CORRUPTFS, Class::Defect),
    ];

    #[test]
    fn every_code_is_of_the_request_of_the_place_or_a_defect() {
        for (primary, extended, class) in CODES {
            for number in 0..=extended {
                let code = primary | number << 8;
                let expected = OTHERS
                    .iter()
                    .find_map(|(other, class)| (*other == code).then_some(*class));
                let found = trouble(code).class();
                assert_eq!(found, expected.unwrap_or(class), "code {code}");
            }
        }
    }

    #[test]
    fn a_code_that_is_not_known_is_never_one_of_the_request() {
        let known = [
            ffi::SQLITE_TOOBIG,
            ffi::SQLITE_CONSTRAINT,
            ffi::SQLITE_MISMATCH,
        ];
        for code in -1..0x1_0000 {
            let of_the_request = trouble(code).class() == Class::Request;
            assert_eq!(
                of_the_request,
                known.contains(&(code & 0xff)),
                "code {code}"
            );
        }
    }
}
