//! Every statement of the store, by topic. Lists of columns come from macros of `duramen_store_sql`, which
//! reads them.

/// The fence of a commit: the holder of this lease, at this length of the journal.
macro_rules! fence {
    () => {
        "WHERE run_id = ?1 AND status = 1 AND owner = ?2 AND epoch = ?3 AND journal_len = ?4"
    };
}

/// What every commit sets. A driver cannot have seen what has not arrived, nor forget what it saw.
macro_rules! progress {
    () => {
        "UPDATE runs SET journal_len = ?5, \
         inbox_seen = max(inbox_seen, min(?6, inbox_len)), updated_at = ?7"
    };
}

pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";
pub(crate) const COMMIT: &str = "COMMIT";
pub(crate) const ROLLBACK: &str = "ROLLBACK";
/// Shows later whether the transaction that it was made in is still the one that is open.
pub(crate) const MARK: &str = "SAVEPOINT duramen_transaction";
pub(crate) const UNMARK: &str = "RELEASE duramen_transaction";
pub(crate) const SAVEPOINT: &str = "SAVEPOINT duramen";
pub(crate) const ROLLBACK_TO: &str = "ROLLBACK TO duramen";
pub(crate) const RELEASE: &str = "RELEASE duramen";

pub(crate) mod run {
    use duramen_store_sql::run_columns;

    pub(crate) const INSERT: &str = concat!(
        "INSERT INTO runs (",
        run_columns!(""),
        ") VALUES (?2, ?3, 1, 0, 0, ?4, ?6, ?7, NULL, ?6, ?8, ?1, ?5, ?9, ?10, '', ?11, ?12, NULL) \
         ON CONFLICT (run_id) DO NOTHING"
    );
    pub(crate) const ROW: &str =
        concat!("SELECT ", run_columns!(""), " FROM runs WHERE run_id = ?1");
    pub(crate) const INSERT_MEMO: &str = "INSERT INTO run_data (run_id, memo) VALUES (?1, ?2)";
    pub(crate) const PUT_STATE: &str = "INSERT INTO run_data (run_id, state) VALUES (?1, ?2) \
         ON CONFLICT (run_id) DO UPDATE SET state = excluded.state";
    pub(crate) const DATA: &str = "SELECT state, memo FROM run_data WHERE run_id = ?1";
}

pub(crate) mod journal {
    use duramen_store_sql::entry_columns;

    pub(crate) const INSERT: &str = concat!(
        "INSERT INTO journal (run_id, idx, ",
        entry_columns!(""),
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    );
    pub(crate) const LOAD: &str = concat!(
        "SELECT ",
        entry_columns!(""),
        " FROM journal WHERE run_id = ?1 AND idx >= ?2 ORDER BY idx LIMIT ?3"
    );
}

pub(crate) mod commit {
    /// The lease is kept: no index that a claim uses is touched.
    pub(crate) const KEEP: &str = concat!(progress!(), " ", fence!());

    /// The run pauses. Messages that its driver has not seen make it due at once (`?7` is now).
    pub(crate) const WAIT: &str = concat!(
        progress!(),
        ", status = 2, owner = NULL, note = NULL, waits = ?9, \
         ready_at = CASE WHEN inbox_len > max(inbox_seen, ?6) THEN ?7 ELSE ?8 END ",
        fence!(),
        " RETURNING inbox_len > inbox_seen"
    );

    /// The run ends or is parked.
    pub(crate) const END: &str = concat!(
        progress!(),
        ", status = ?8, owner = NULL, ready_at = NULL, waits = '', finished_at = ?9, note = ?10 ",
        fence!()
    );
}

pub(crate) mod lease {
    /// Due runs of one status and workflow, in the order of the index.
    pub(crate) const DUE: &str = "SELECT ready_at, run_id FROM runs \
         WHERE status = ?1 AND workflow = ?2 AND version = ?3 AND ready_at <= ?4 \
         ORDER BY ready_at, run_id LIMIT ?5";

    pub(crate) const TAKE: &str = "UPDATE runs SET status = 1, owner = ?2, epoch = epoch + 1, \
         started_at = coalesce(started_at, ?3), updated_at = ?3, ready_at = ?4, note = ?6 \
         WHERE run_id = ?1 AND status = ?5 AND ready_at <= ?3";

    /// A run whose journal this build cannot read is set aside, so that it does not block the others.
    pub(crate) const PARK: &str = "UPDATE runs SET status = 7, owner = NULL, epoch = epoch + 1, \
         updated_at = ?2, ready_at = NULL, waits = '', note = ?3 WHERE run_id = ?1";

    pub(crate) const RENEW: &str = "UPDATE runs SET ready_at = ?2 \
         WHERE status = 1 AND owner = ?1 AND ready_at IS NOT NULL RETURNING run_id, epoch";

    pub(crate) const NEXT: &str = "SELECT min(ready_at) FROM runs \
         WHERE status = ?1 AND workflow = ?2 AND version = ?3 AND ready_at IS NOT NULL";
}

pub(crate) mod inbox {
    use duramen_store_sql::message_columns;

    pub(crate) const TARGET: &str =
        "SELECT status, inbox_len, ready_at, owner, waits FROM runs WHERE run_id = ?1";

    pub(crate) const INSERT: &str = "INSERT INTO inbox \
         (run_id, message_id, seq, kind, state, name, at, fingerprint, note, payload) \
         VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, NULL, ?8) ON CONFLICT (run_id, message_id) DO NOTHING";

    pub(crate) const FIRST: &str =
        "SELECT fingerprint FROM inbox WHERE run_id = ?1 AND message_id = ?2";

    pub(crate) const ARRIVED: &str = "UPDATE runs SET inbox_len = ?2 WHERE run_id = ?1";

    pub(crate) const ARRIVED_AND_DUE: &str =
        "UPDATE runs SET inbox_len = ?2, ready_at = ?3 WHERE run_id = ?1";

    /// INDEXED BY: without it SQLite walks through the run's whole inbox, read messages and all.
    pub(crate) const CONSUME: &str = "UPDATE inbox INDEXED BY inbox_unread SET state = 1, payload = x'' \
         WHERE run_id = ?1 AND seq = ?2 AND state = 0";

    pub(crate) const SET_ASIDE: &str = "UPDATE inbox INDEXED BY inbox_unread SET state = 2, note = ?3 \
         WHERE run_id = ?1 AND seq = ?2 AND state = 0";

    pub(crate) const UNREAD: &str = concat!(
        "SELECT ",
        message_columns!("i."),
        " FROM inbox i WHERE i.run_id = ?1 AND i.state = 0 ORDER BY i.seq"
    );

    /// CROSS JOIN fixes the order: runs with something unread first, which are few or none. The reader
    /// sorts what comes, since SQLite would not see that it is in order.
    pub(crate) const UNREAD_OF_OWNER: &str = concat!(
        "SELECT ",
        message_columns!("i."),
        " FROM runs r CROSS JOIN inbox i ON i.run_id = r.run_id \
         WHERE r.owner = ?1 AND r.inbox_len > r.inbox_seen AND i.state = 0 AND i.seq > r.inbox_seen"
    );

    pub(crate) const REFUSED: &str = concat!(
        "SELECT ",
        message_columns!("i."),
        ", i.note FROM inbox i WHERE i.run_id = ?1 AND i.state = 2 ORDER BY i.seq"
    );
}

pub(crate) mod intervene {
    pub(crate) const STANDING: &str = "SELECT status, journal_len FROM runs WHERE run_id = ?1";

    pub(crate) const TERMINATE: &str = "UPDATE runs SET status = 6, epoch = epoch + 1, \
         journal_len = journal_len + 1, owner = NULL, ready_at = NULL, waits = '', note = NULL, \
         updated_at = ?2, finished_at = ?2 WHERE run_id = ?1";

    pub(crate) const REOPEN: &str = "UPDATE runs SET status = 0, epoch = epoch + 1, \
         journal_len = ?3, owner = NULL, ready_at = ?2, waits = '', note = NULL, updated_at = ?2, \
         finished_at = NULL WHERE run_id = ?1";

    pub(crate) const DELETE: [&str; 4] = [
        "DELETE FROM journal WHERE run_id = ?1",
        "DELETE FROM inbox WHERE run_id = ?1",
        "DELETE FROM run_data WHERE run_id = ?1",
        "DELETE FROM runs WHERE run_id = ?1",
    ];
}

pub(crate) mod query {
    use duramen_store_sql::run_columns;

    pub(crate) const LIST: &str = concat!("SELECT ", run_columns!(""), " FROM runs");
    pub(crate) const COUNT: &str = "SELECT count(*) FROM runs";
}

pub(crate) mod schema {
    pub(crate) const EXISTS: &str = "SELECT 1 FROM sqlite_schema \
         WHERE type = 'table' AND name = 'duramen_schema_migrations'";
    pub(crate) const FOUND: &str = "SELECT coalesce(max(number), 0), coalesce(max(compatible_from), 0) \
         FROM duramen_schema_migrations";
}
