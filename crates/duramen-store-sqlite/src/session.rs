//! The write connection with its statements, prepared once for as long as the writer lives.

use duramen_core::journal::Entry;
use duramen_store_sql::Columns;
use rusqlite::{Connection, PrepFlags, Statement, params};

use crate::create::Bound;
use crate::error::Fault;
use crate::owners::Lease;
use crate::row::{Reader, signed};
use crate::sql;

macro_rules! session {
    ($($name:ident = $sql:expr;)*) => {
        /// One prepared statement for each thing that the writer does often. Looking a statement up
        /// by its text would cost more than running some of them.
        pub(crate) struct Session<'c> {
            pub(crate) connection: &'c Connection,
            /// The lease that was looked up last; see [`Session::is_live`].
            pub(crate) lease: Option<Lease>,
            /// What `insert_run` has bound.
            pub(crate) bound: Option<Bound>,
            $(pub(crate) $name: Statement<'c>,)*
        }

        impl<'c> Session<'c> {
            pub(crate) fn new(connection: &'c Connection) -> Result<Self, Fault> {
                Ok(Self {
                    connection,
                    lease: None,
                    bound: None,
                    $($name: prepare(connection, $sql)?,)*
                })
            }
        }
    };
}

/// `PERSISTENT`: what lives for long is kept out of the small memory that SQLite has for what lives for the length of a
/// statement, its cursors above all.
fn prepare<'c>(connection: &'c Connection, statement: &str) -> Result<Statement<'c>, Fault> {
    Ok(connection.prepare_with_flags(statement, PrepFlags::SQLITE_PREPARE_PERSISTENT)?)
}

session! {
    begin = sql::BEGIN;
    end = sql::COMMIT;
    insert_run = sql::run::INSERT;
    run = sql::run::ROW;
    insert_memo = sql::run::INSERT_MEMO;
    insert_tag = sql::run::INSERT_TAG;
    put_state = sql::run::PUT_STATE;
    insert_entry = sql::journal::INSERT;
    length = sql::journal::LENGTH;
    load = sql::journal::LOAD;
    fence = sql::commit::FENCE;
    finish = sql::commit::FINISH;
    keep = sql::commit::KEEP;
    release = sql::commit::RELEASE;
    lease_until = sql::owner::LEASE;
    end_the_lapsed = sql::owner::END_THE_LAPSED;
    next_holder = sql::owner::NEXT_HOLDER;
    next_priority = sql::claim::NEXT_PRIORITY;
    due = sql::claim::DUE;
    owned = sql::claim::OWNED;
    take = sql::claim::TAKE;
    target = sql::inbox::TARGET;
    insert_message = sql::inbox::INSERT;
    first = sql::inbox::FIRST;
    arrived = sql::inbox::ARRIVED;
    arrived_and_due = sql::inbox::ARRIVED_AND_DUE;
    weight = sql::inbox::WEIGHT;
    consume = sql::inbox::CONSUME;
    set_aside = sql::inbox::SET_ASIDE;
    page = sql::inbox::PAGE;
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session<'_> {
    /// Appends entries to a journal that has `from` of them.
    pub(crate) fn append(
        &mut self,
        run_id: &str,
        from: u64,
        entries: &[Entry],
    ) -> Result<(), Fault> {
        for (index, entry) in (signed(from)?..).zip(entries) {
            self.insert_entry.execute(params![
                run_id,
                index,
                entry.at,
                entry.encoding,
                entry.kind.code(),
                &*entry.op,
                entry.meta.as_deref(),
                &*entry.payload,
            ])?;
        }
        Ok(())
    }

    /// Only builds that read this encoding can go on with the run. (Rare: a statement of its own, so that
    /// no other one touches the lane, which stands in indexes.)
    pub(crate) fn raise(&mut self, run_id: &str, format: u8) -> Result<(), Fault> {
        let mut raise = self.connection.prepare_cached(sql::run::RAISE)?;
        raise.execute(params![run_id, format])?;
        Ok(())
    }

    /// The real length of a journal.
    pub(crate) fn length(&mut self, run_id: &str) -> Result<u64, Fault> {
        let mut rows = self.length.query([run_id])?;
        match rows.next()? {
            Some(found) => Reader::new(found).count("idx"),
            None => Ok(0),
        }
    }
}
