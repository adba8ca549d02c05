//! Every statement of the store, by topic. Lists of columns come from macros of `duramen_store_sql`, which
//! reads them.

/// The index after the last entry of a journal: one descent to its end. Behind the last index that SQLite counts
/// to (in a damaged file) there is none: the sum would be a REAL, which no column takes.
macro_rules! length {
    ($run_id:literal) => {
        concat!(
            "(SELECT coalesce(min(max(idx), 9223372036854775806) + 1, 0) FROM journal WHERE run_id = ",
            $run_id,
            ")"
        )
    };
}

/// The key of a run's lane, as `duramen_core::lanes` makes it, with another format, or another version as well.
macro_rules! lane {
    ($format:literal) => {
        lane!("version", $format)
    };
    ($version:literal, $format:literal) => {
        concat!(
            "queue || char(31) || workflow || char(31) || ",
            $version,
            " || char(31) || ",
            $format
        )
    };
}

/// The holder of this lease of this life of a run, at this length of its journal.
macro_rules! fence {
    () => {
        concat!(
            "WHERE run_id = ?1 AND status = 1 AND owner = ?2 AND epoch = ?3 AND seed = ?4 AND ",
            length!("?1"),
            " = ?5"
        )
    };
}

pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";
pub(crate) const COMMIT: &str = "COMMIT";
pub(crate) const ROLLBACK: &str = "ROLLBACK";
pub(crate) const SAVEPOINT: &str = "SAVEPOINT duramen";
pub(crate) const ROLLBACK_TO: &str = "ROLLBACK TO duramen";
pub(crate) const RELEASE: &str = "RELEASE duramen";

pub(crate) mod run {
    use duramen_store_sql::run_columns;

    pub(crate) const INSERT: &str = concat!(
        "INSERT INTO runs (",
        run_columns!(""),
        ", lane) VALUES (?2, ?3, ?4, ?5, 0, ?6, 0, 0, 0, 0, 0, ?7, ?8, ?9, NULL, ?8, ?10, ?11, 0, 0, ?1, \
         ?12, ?13, ?14, ?15, '', ?16, ?17, NULL, ?18, ?19, ?20, ?21) \
         ON CONFLICT (run_id) DO NOTHING"
    );
    pub(crate) const ROW: &str =
        concat!("SELECT ", run_columns!(""), " FROM runs WHERE run_id = ?1");
    pub(crate) const STANDING: &str = concat!(
        "SELECT status, seed, owner, epoch, ",
        length!("runs.run_id"),
        ", generation, ready_at FROM runs WHERE run_id = ?1"
    );
    /// Only builds that read a higher encoding can go on with it: it stands in another lane from now on.
    pub(crate) const RAISE: &str = concat!(
        "UPDATE runs SET format = ?2, lane = ",
        lane!("?2"),
        " WHERE run_id = ?1 AND format < ?2"
    );
    pub(crate) const INSERT_MEMO: &str = "INSERT INTO run_data (run_id, memo) VALUES (?1, ?2)";
    pub(crate) const INSERT_TAG: &str =
        "INSERT INTO run_tags (tag, created_at, run_id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
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
    pub(crate) const LENGTH: &str = concat!("SELECT ", length!("?1"));
    pub(crate) const LOAD: &str = concat!(
        "SELECT ",
        entry_columns!(""),
        " FROM journal WHERE run_id = ?1 AND idx >= ?2 ORDER BY idx LIMIT ?3"
    );
    /// So many places from there on. Were it so many entries, what stands behind a gap (in a damaged file) would
    /// be read again and again by whoever counts what he has. Nor does a page begin behind its place: what stood
    /// there was a former generation's.
    pub(crate) const PAGE: &str = concat!(
        "SELECT ",
        entry_columns!(""),
        " FROM journal WHERE run_id = ?1 AND idx >= ?2 AND idx - ?2 < ?3 \
         AND EXISTS (SELECT 1 FROM journal WHERE run_id = ?1 AND idx = ?2) ORDER BY idx"
    );
    /// The former generation's entries.
    pub(crate) const FORGET: &str = "DELETE FROM journal WHERE run_id = ?1 AND idx < ?2";
}

pub(crate) mod commit {
    /// With what a pause has to know.
    pub(crate) const FENCE: &str =
        concat!("SELECT inbox_len, inbox_seen, timeout FROM runs ", fence!());

    /// The run ends or is parked by a driver that has read nothing: fence and rewriting in one.
    pub(crate) const FINISH: &str = concat!(
        "UPDATE runs SET journal_len = ?6, updated_at = ?7, inbox_seen = max(inbox_seen, min(?8, inbox_len)), \
         status = ?9, owner = NULL, ready_at = NULL, waits = '', finished_at = ?10, note = ?11 ",
        fence!()
    );

    /// The run keeps its owner, and its driver has read something: no index that a claim uses is touched.
    pub(crate) const KEEP: &str = "UPDATE runs SET journal_len = ?2, updated_at = ?3, inbox_seen = ?4, \
         unread = unread - ?5, unread_bytes = unread_bytes - ?6 WHERE run_id = ?1";

    /// The run is let go: it pauses, ends, is parked or is continued.
    pub(crate) const RELEASE: &str = "UPDATE runs SET journal_len = ?2, updated_at = ?3, inbox_seen = ?4, \
         unread = unread - ?5, unread_bytes = unread_bytes - ?6, \
         status = ?7, owner = NULL, ready_at = ?8, waits = ?9, finished_at = ?10, note = ?11 WHERE run_id = ?1";

    /// What a new generation begins with.
    pub(crate) const CONTINUE: &str = concat!(
        "UPDATE runs SET journal_start = ?2, generation = generation + 1, deadline = ?3, lost = 0, lost_at = 0, \
         version = ?4, lane = ",
        lane!("?4", "format"),
        " WHERE run_id = ?1"
    );
}

pub(crate) mod owner {
    /// Whoever let its lease lapse has ended for good, whatever the clock says later.
    pub(crate) const END_THE_LAPSED: &str = "UPDATE owners INDEXED BY owners_live SET ended_at = ?1 \
         WHERE ended_at IS NULL AND lease_until <= ?1";

    pub(crate) const RENEW: &str = "UPDATE owners \
         SET label = ?2, serves = ?3, format = ?4, seen_at = ?5, lease_until = ?6 \
         WHERE owner = ?1 AND ended_at IS NULL AND lease_until > ?5";

    /// Finds it whether or not it had ended before.
    pub(crate) const END: &str =
        "UPDATE owners SET ended_at = coalesce(ended_at, ?2) WHERE owner = ?1";

    pub(crate) const REGISTER: &str = "INSERT INTO owners \
         (owner, label, serves, format, started_at, seen_at, lease_until, ended_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, NULL)";

    /// Those that ended long ago and hold nothing.
    pub(crate) const FORGET: &str = "DELETE FROM owners WHERE ended_at <= ?1 \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.owner = owners.owner)";

    pub(crate) const INHERIT: &str =
        "UPDATE runs SET owner = ?2 WHERE owner = ?1 RETURNING run_id, epoch";

    pub(crate) const ALL: &str = "SELECT owner, label, serves, format, started_at, seen_at, lease_until, \
         ended_at, (SELECT count(*) FROM runs WHERE runs.owner = owners.owner) FROM owners ORDER BY owner";

    pub(crate) const LEASE: &str =
        "SELECT lease_until FROM owners WHERE owner = ?1 AND ended_at IS NULL";

    /// The next owner that holds anything: with it the owners in hand are found by one descent each.
    pub(crate) const NEXT_HOLDER: &str = "SELECT min(owner) FROM runs WHERE owner > ?1";

    /// The next lane of which an owner holds anything.
    pub(crate) const NEXT_LANE: &str = "SELECT min(lane) FROM runs WHERE owner = ?1 AND lane > ?2";

    pub(crate) const HOLDS: &str = "SELECT 1 FROM runs WHERE owner = ?1 AND lane = ?2 LIMIT 1";

    pub(crate) const HELD: &str = "SELECT run_id, epoch FROM runs \
         WHERE owner = ?1 AND lane = ?2 AND run_id > ?3 ORDER BY run_id LIMIT ?4";
}

pub(crate) mod claim {
    /// The next priority of which a lane has runs: with it a line is read without walking over those of a
    /// higher priority that are not due.
    pub(crate) const NEXT_PRIORITY: &str = "SELECT min(priority) FROM runs \
         WHERE status = ?1 AND lane = ?2 AND priority > ?3 AND ready_at IS NOT NULL";

    /// Due runs of one line and priority, in the order of the index.
    pub(crate) const DUE: &str = "SELECT run_id FROM runs \
         WHERE status = ?1 AND lane = ?2 AND priority = ?3 AND ready_at <= ?4 \
         ORDER BY ready_at, run_id LIMIT ?5";

    /// When the next run of one line and priority is due.
    pub(crate) const NEXT: &str = "SELECT min(ready_at) FROM runs \
         WHERE status = ?1 AND lane = ?2 AND priority = ?3 AND ready_at IS NOT NULL";

    /// Runs of one lane in the hands of one owner.
    pub(crate) const OWNED: &str =
        "SELECT run_id FROM runs WHERE owner = ?1 AND lane = ?2 ORDER BY run_id LIMIT ?3";

    pub(crate) const TAKE: &str = "UPDATE runs SET status = 1, owner = ?2, epoch = ?3, \
         started_at = ?4, updated_at = ?5, ready_at = NULL, journal_len = ?6, lost = ?7, lost_at = ?8 \
         WHERE run_id = ?1 AND status = ?9 AND epoch = ?3 - 1";

    /// A run that this build cannot read is set aside, so that it does not block the others.
    pub(crate) const PARK: &str = concat!(
        "UPDATE runs SET status = 7, owner = NULL, epoch = epoch + 1, updated_at = ?2, ready_at = NULL, \
         waits = '', note = ?3, journal_len = ",
        length!("?1"),
        " WHERE run_id = ?1"
    );
}

pub(crate) mod inbox {
    use duramen_store_sql::message_columns;

    pub(crate) const TARGET: &str = "SELECT status, inbox_len, unread, unread_bytes, ready_at, format, owner, waits, started_at \
         FROM runs WHERE run_id = ?1";

    pub(crate) const INSERT: &str = "INSERT INTO inbox \
         (run_id, message_id, seq, kind, state, encoding, name, at, fingerprint, payload) \
         VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (run_id, message_id) DO NOTHING";

    pub(crate) const FIRST: &str =
        "SELECT fingerprint FROM inbox WHERE run_id = ?1 AND message_id = ?2";

    /// Nobody drives it: it is paused at once.
    pub(crate) const PAUSE: &str =
        "UPDATE runs SET status = 8, note = ?2, updated_at = ?3 WHERE run_id = ?1";

    pub(crate) const FREE: &str = "UPDATE runs SET status = CASE WHEN started_at IS NULL THEN 0 ELSE 2 END, \
         note = NULL, updated_at = ?2 WHERE run_id = ?1";

    pub(crate) const ARRIVED: &str = "UPDATE runs SET inbox_len = ?2, unread = unread + 1, \
         unread_bytes = unread_bytes + ?3 WHERE run_id = ?1";

    pub(crate) const ARRIVED_AND_DUE: &str = "UPDATE runs SET inbox_len = ?2, unread = unread + 1, \
         unread_bytes = unread_bytes + ?3, ready_at = ?4 WHERE run_id = ?1";

    /// INDEXED BY, here and below: without it SQLite walks through the run's whole inbox, read messages and all.
    pub(crate) const WEIGHT: &str = "SELECT length(payload) FROM inbox INDEXED BY inbox_unread \
         WHERE run_id = ?1 AND seq = ?2 AND state = 0";

    pub(crate) const CONSUME: &str = "UPDATE inbox INDEXED BY inbox_unread SET state = 1, payload = x'', reply = ?3 \
         WHERE run_id = ?1 AND seq = ?2 AND state = 0";

    pub(crate) const SET_ASIDE: &str = "UPDATE inbox INDEXED BY inbox_unread SET state = 2, note = ?3 \
         WHERE run_id = ?1 AND seq = ?2 AND state = 0";

    pub(crate) const PAGE: &str = concat!(
        "SELECT ",
        message_columns!(""),
        " FROM inbox WHERE run_id = ?1 AND state = 0 AND seq > ?2 ORDER BY seq LIMIT ?3"
    );

    /// Runs with something that their owner has not seen: few or none.
    pub(crate) const UNSEEN: &str = "SELECT run_id, inbox_seen, inbox_len FROM runs \
         WHERE owner = ?1 AND inbox_len > inbox_seen ORDER BY run_id";

    pub(crate) const REFUSED: &str = concat!(
        "SELECT ",
        message_columns!(""),
        ", note FROM inbox WHERE run_id = ?1 AND state = 2 ORDER BY seq"
    );

    pub(crate) const RECEIPT: &str =
        "SELECT state, note, reply FROM inbox WHERE run_id = ?1 AND message_id = ?2";
}

pub(crate) mod outgoing {
    pub(crate) const INSERT: &str = "INSERT INTO outgoing (run_id, entry, number, kind, target, at, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

    pub(crate) const UNSENT: &str = "SELECT run_id, entry, number, kind, target, at, body FROM outgoing \
         WHERE at <= ?1 ORDER BY at, run_id, entry, number LIMIT ?2";

    /// Sorted: what one run has left behind is little.
    pub(crate) const UNSENT_OF_ONE: &str = "SELECT run_id, entry, number, kind, target, at, body FROM outgoing \
         WHERE run_id = ?3 AND at <= ?1 ORDER BY at, entry, number LIMIT ?2";

    pub(crate) const SENT: &str =
        "DELETE FROM outgoing WHERE run_id = ?1 AND entry = ?2 AND number = ?3 AND at = ?4";
}

pub(crate) mod stream {
    use duramen_store_sql::item_columns;

    /// The driver of a run, whatever the length of its journal.
    pub(crate) const FENCE: &str = "SELECT 1 FROM runs \
         WHERE run_id = ?1 AND status = 1 AND owner = ?2 AND epoch = ?3 AND seed = ?4";

    pub(crate) const INSERT: &str = concat!(
        "INSERT INTO stream_items (run_id, stream, ",
        item_columns!(""),
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    );

    pub(crate) const LAST: &str =
        "SELECT max(seq) FROM stream_items WHERE run_id = ?1 AND stream = ?2";
    pub(crate) const FIRST: &str =
        "SELECT min(seq) FROM stream_items WHERE run_id = ?1 AND stream = ?2";

    pub(crate) const PRUNE: &str =
        "DELETE FROM stream_items WHERE run_id = ?1 AND stream = ?2 AND seq <= ?3";

    /// The run's row once for each item, and once if there is none.
    pub(crate) const PAGE: &str = concat!(
        "SELECT r.status, r.seed, ",
        item_columns!("s."),
        " FROM runs r LEFT JOIN stream_items s ON s.run_id = r.run_id AND s.stream = ?2 AND s.seq >= ?3 \
         WHERE r.run_id = ?1 ORDER BY s.seq LIMIT ?4"
    );
}

pub(crate) mod intervene {
    /// With the real length, which the row of a running run does not say.
    pub(crate) const STANDING: &str = concat!(
        "SELECT status, ",
        length!("runs.run_id"),
        " FROM runs WHERE run_id = ?1"
    );

    pub(crate) const TERMINATE: &str = "UPDATE runs SET status = 6, epoch = epoch + 1, journal_len = ?3, \
         owner = NULL, ready_at = NULL, waits = '', note = NULL, updated_at = ?2, finished_at = ?2 WHERE run_id = ?1";

    pub(crate) const REOPEN: &str = "UPDATE runs SET status = 0, epoch = epoch + 1, journal_len = ?3, \
         owner = NULL, ready_at = CASE WHEN status = 0 THEN ready_at ELSE ?2 END, waits = '', note = NULL, updated_at = ?2, finished_at = NULL, \
         lost = 0, lost_at = 0 WHERE run_id = ?1";

    /// It stands in another lane from now on.
    pub(crate) const MOVE: &str = "UPDATE runs SET version = ?2, \
         lane = queue || char(31) || workflow || char(31) || ?2 || char(31) || format WHERE run_id = ?1";

    /// What its tags are found by.
    pub(crate) const TAGS: &str = "SELECT tags, created_at FROM runs WHERE run_id = ?1";
    pub(crate) const DELETE_TAG: &str =
        "DELETE FROM run_tags WHERE tag = ?1 AND created_at = ?2 AND run_id = ?3";

    pub(crate) const DELETE: [&str; 6] = [
        "DELETE FROM journal WHERE run_id = ?1",
        "DELETE FROM stream_items WHERE run_id = ?1",
        "DELETE FROM inbox WHERE run_id = ?1",
        "DELETE FROM outgoing WHERE run_id = ?1",
        "DELETE FROM run_data WHERE run_id = ?1",
        "DELETE FROM runs WHERE run_id = ?1",
    ];
}

pub(crate) mod schedule {
    pub(crate) const INSERT: &str = "INSERT INTO schedules \
         (id, version, workflow, next_at, definition, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO NOTHING";
    pub(crate) const UPDATE: &str = "UPDATE schedules \
         SET version = ?2, workflow = ?3, next_at = ?4, definition = ?5, state = ?6 \
         WHERE id = ?1 AND version = ?7";
    pub(crate) const DELETE: &str = "DELETE FROM schedules WHERE id = ?1 AND version = ?2";

    pub(crate) const GET: &str = "SELECT id, version, workflow, next_at, definition, state \
         FROM schedules WHERE id = ?1";
    pub(crate) const LIST: &str = "SELECT id, version, workflow, next_at, definition, state \
         FROM schedules WHERE id > ?1 ORDER BY id LIMIT ?2";

    /// The next ones of a workflow, from the index alone.
    pub(crate) const NEXT: &str = "SELECT next_at, id FROM schedules INDEXED BY schedules_due \
         WHERE workflow = ?1 AND next_at IS NOT NULL AND (next_at, id) > (?2, ?3) \
         ORDER BY next_at, id LIMIT ?4";
}

pub(crate) mod schema {
    pub(crate) const EXISTS: &str = "SELECT 1 FROM sqlite_schema \
         WHERE type = 'table' AND name = 'duramen_schema_migrations'";
    pub(crate) const FOUND: &str = "SELECT coalesce(max(number), 0), coalesce(max(compatible_from), 0) \
         FROM duramen_schema_migrations";
}
