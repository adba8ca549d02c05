//! Every statement of the store, by topic.
//!
//! A table stands as `{runs}`; its schema and name are put in once, when the store is opened. Where an element `b` of a
//! batch has its run's id stands `{run b}`: in the routed flavour (`crate::flavour`) a statement has one run only, and
//! the id is its last parameter. No subquery is without columns there (`EXISTS (SELECT 1 …)`): Citus keeps what they
//! find, and cannot keep rows without.
//!
//! Budget of the plain flavour: one statement, and so one round trip and one commit, for a batch of creations, commits or
//! messages and for a claim with its journals and inboxes.
//!
//! Five rules keep the plans what they are meant to be whatever the tables' statistics say:
//! - batches come as arrays, and sessions have hash and merge joins and sequential scans off
//!   ([`settings`]): a batch is a nested loop that goes down the primary key once for each element. (Left
//!   to its choice, the planner hashes the whole table for a batch of 64.)
//! - `(x IN (SELECT …)) IS TRUE` is a hashed subplan, which cannot become a join;
//! - `CROSS JOIN LATERAL (… OFFSET 0)` is looked up once for each row before it. (A join with unread messages
//!   may start from all of them: the statistics nearly always say that there are none.)
//! - plans are generic: made once for a prepared statement, not for each array (in the routed flavour that is left to the
//!   server: Citus has to see the id);
//! - where a run is found by its id, no other condition may be one for an index (`(r.owner = …) IS TRUE`): a plan
//!   made while the table is empty would not know which is the better one.
//!
//! Nothing waits for a lock: a statement locks each run that it changes by itself, with `SKIP LOCKED`, and says of
//! which elements the run was locked by others; they come again (`around.rs`), and at last wait their turn for a
//! moment. An id that somebody else's transaction is about to create has to be waited for as well (`create.rs`).
//!
//! One statement sees one snapshot. A row that changed after the snapshot was taken is locked in its
//! newest version, but what the statement reads of other tables is as old as the snapshot. Where that
//! matters it is said, and checked (`commit`, `lease`).

use std::borrow::Cow;

use tokio_postgres::types::{ToSql, Type};

use crate::flavour::Flavour;
use crate::link::Params;
use crate::options::Names;

/// The database's clock in milliseconds: the same for a whole statement.
macro_rules! clock {
    () => {
        "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
    };
}

/// An instant and a span after it, without overflow.
macro_rules! later {
    ($at:literal, $span:literal) => {
        concat!(
            "CASE WHEN ",
            $span,
            " > 9223372036854775807 - ",
            $at,
            " THEN 9223372036854775807 ELSE ",
            $at,
            " + ",
            $span,
            " END"
        )
    };
}

/// The key of a run's lane with a format: what `duramen_core::lanes::Lane::key` makes.
macro_rules! lane {
    ($prefix:literal, $format:literal) => {
        concat!(
            $prefix,
            "queue || chr(31) || ",
            $prefix,
            "workflow || chr(31) || ",
            $prefix,
            "version || chr(31) || (",
            $format,
            ")::text"
        )
    };
    ($prefix:literal, $version:literal, $format:literal) => {
        concat!(
            $prefix,
            "queue || chr(31) || ",
            $prefix,
            "workflow || chr(31) || ",
            $version,
            " || chr(31) || (",
            $format,
            ")::text"
        )
    };
}

pub(crate) mod commit;
pub(crate) mod inbox;
pub(crate) mod intervene;
pub(crate) mod lease;
pub(crate) mod outside;
pub(crate) mod routed;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod stream;

/// A statement with its parameters' types, so that no round trip asks for them.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) types: Cow<'static, [Type]>,
    /// Worth keeping on the server: its text is one of this file's, not made for one question.
    pub(crate) prepare: bool,
}

impl Sql {
    fn new(text: String, types: Cow<'static, [Type]>) -> Self {
        Self {
            text,
            types,
            prepare: true,
        }
    }

    /// A question without parameters that is asked once.
    pub(crate) fn once(names: &Names, template: &str) -> Self {
        Self {
            text: names.fill(template),
            types: Cow::Borrowed(&[]),
            prepare: false,
        }
    }
}

/// The statements with one store's names in them.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) flavour: Flavour,
    pub(crate) create: Sql,
    pub(crate) create_tagged: Sql,
    pub(crate) rows: Sql,
    pub(crate) details: Sql,
    pub(crate) standing: Sql,
    pub(crate) load: Sql,
    pub(crate) unsent: Sql,
    pub(crate) unsent_of_run: Sql,
    pub(crate) sent: Sql,
    pub(crate) append: Sql,
    pub(crate) append_in_line: Sql,
    pub(crate) commit: Sql,
    pub(crate) commit_in_line: Sql,
    pub(crate) commit_and_read: Sql,
    pub(crate) commit_and_read_in_line: Sql,
    pub(crate) lock: Sql,
    pub(crate) lock_in_line: Sql,
    pub(crate) claim: Sql,
    pub(crate) claim_alone: Sql,
    pub(crate) journals: Sql,
    pub(crate) right: Sql,
    pub(crate) park: Sql,
    pub(crate) beat: Sql,
    pub(crate) register: Sql,
    pub(crate) lapse: Sql,
    pub(crate) retire: Sql,
    pub(crate) forget: Sql,
    pub(crate) succeed: Sql,
    pub(crate) owners: Sql,
    pub(crate) held: Sql,
    pub(crate) next: Sql,
    pub(crate) deliver: Sql,
    pub(crate) deliver_in_line: Sql,
    pub(crate) page: Sql,
    pub(crate) unread_of_owner: Sql,
    pub(crate) refused: Sql,
    pub(crate) receipts: Sql,
    pub(crate) stand: Sql,
    pub(crate) stand_in_line: Sql,
    pub(crate) length: Sql,
    pub(crate) terminate: Sql,
    pub(crate) reopen: Sql,
    pub(crate) extend: Sql,
    pub(crate) leave: Sql,
    pub(crate) identity: Sql,
    pub(crate) schedules: schedule::Statements,
    pub(crate) delete: [Sql; 7],
    pub(crate) stream_fence: Sql,
    pub(crate) stream_fence_in_line: Sql,
    pub(crate) stream_write: Sql,
    pub(crate) stream_prune: Sql,
    pub(crate) stream_page: Sql,
    pub(crate) routed: routed::Statements,
}

impl Book {
    pub(crate) fn new(names: &Names, flavour: Flavour) -> Self {
        // The last parameter of a routed statement is the id of its run.
        let sql = |template: &str, types: &'static [Type]| {
            let text = names.fill(&flavour.name_runs(template, types.len() + 1));
            let types = match flavour {
                Flavour::Routed if template.contains("{run ") => {
                    Cow::Owned([types, &[Type::TEXT]].concat())
                }
                _ => Cow::Borrowed(types),
            };
            Sql::new(text, types)
        };
        // Those that wait their turn for the run, a moment.
        let in_line = |template: &str, types| sql(&template.replace(" SKIP LOCKED", ""), types);
        let append = [commit::FENCE, commit::ANSWER].concat();
        let forget = match flavour {
            Flavour::Plain => commit::FORGET_OF_RUNS,
            Flavour::Routed => commit::FORGET_OF_ONE,
        };
        let rewrite = |reads: &str| {
            let parts = [
                commit::FENCE,
                reads,
                commit::REWRITE,
                forget,
                commit::ANSWER,
                commit::ANSWER_DUE,
            ];
            parts.concat()
        };
        let reads = match flavour {
            Flavour::Plain => commit::READ_BY_RUNS,
            Flavour::Routed => commit::READ_BY_KEY,
        };
        let reads = [commit::READ, reads, commit::READ_TOGETHER].concat();
        let (committed, read) = (rewrite(commit::NOTHING_READ), rewrite(&reads));
        let [claim, claim_alone] = lease::claims();
        let create = |tagged| {
            let text = run::CREATE.replace("{tagged}", tagged);
            match flavour {
                Flavour::Plain => sql(&text.replace("{mine}", run::MINE), run::CREATE_MANY_TYPES),
                Flavour::Routed => {
                    sql(&text.replace("{mine}", run::MINE_BEFORE), run::CREATE_TYPES)
                }
            }
        };
        Self {
            flavour,
            create: create(""),
            create_tagged: create(run::TAGGED),
            rows: sql(run::ROWS, run::BY_IDS),
            details: sql(run::DETAILS, run::BY_IDS),
            standing: sql(run::STANDING, run::BY_IDS),
            load: sql(run::LOAD, run::LOAD_TYPES),
            unsent: sql(run::UNSENT, run::UNSENT_TYPES),
            unsent_of_run: sql(run::UNSENT_OF_RUN, run::UNSENT_OF_RUN_TYPES),
            sent: sql(run::SENT, run::SENT_TYPES),
            append: sql(&append, commit::APPEND_TYPES),
            append_in_line: in_line(&append, commit::APPEND_TYPES),
            commit: sql(&committed, commit::ROW_TYPES),
            commit_in_line: in_line(&committed, commit::ROW_TYPES),
            commit_and_read: sql(&read, commit::TYPES),
            commit_and_read_in_line: in_line(&read, commit::TYPES),
            lock: sql(commit::LOCK, run::BY_IDS),
            lock_in_line: in_line(commit::LOCK, run::BY_IDS),
            claim: sql(&claim, lease::CLAIM_TYPES),
            claim_alone: sql(&claim_alone, lease::CLAIM_ALONE_TYPES),
            journals: sql(lease::JOURNALS, lease::JOURNALS_TYPES),
            right: sql(lease::RIGHT, lease::RIGHT_TYPES),
            park: sql(lease::PARK, lease::PARK_TYPES),
            beat: sql(lease::BEAT, lease::BEAT_TYPES),
            register: sql(lease::REGISTER, lease::BEAT_TYPES),
            lapse: sql(lease::LAPSE, lease::OWNER_TYPES),
            retire: sql(lease::RETIRE, lease::OWNER_TYPES),
            forget: sql(lease::FORGET, lease::FORGET_TYPES),
            succeed: sql(lease::SUCCEED, lease::SUCCEED_TYPES),
            owners: sql(lease::OWNERS, &[]),
            held: sql(lease::HELD, lease::HELD_TYPES),
            next: sql(lease::NEXT, lease::NEXT_TYPES),
            deliver: sql(inbox::DELIVER, inbox::DELIVER_TYPES),
            deliver_in_line: in_line(inbox::DELIVER, inbox::DELIVER_TYPES),
            page: sql(inbox::PAGE, inbox::PAGE_TYPES),
            unread_of_owner: sql(inbox::UNREAD_OF_OWNER, inbox::UNREAD_OF_OWNER_TYPES),
            refused: sql(inbox::REFUSED, run::BY_IDS),
            receipts: sql(inbox::RECEIPTS, inbox::RECEIPTS_TYPES),
            stand: sql(intervene::STANDING, run::BY_ID),
            stand_in_line: in_line(intervene::STANDING, run::BY_ID),
            length: sql(intervene::LENGTH, run::BY_ID),
            terminate: sql(intervene::TERMINATE, intervene::CHANGE_TYPES),
            reopen: sql(intervene::REOPEN, intervene::REOPEN_TYPES),
            extend: sql(intervene::APPEND, intervene::APPEND_TYPES),
            leave: sql(intervene::LEAVE, intervene::LEAVE_TYPES),
            identity: sql(outside::IDENTITY, &[]),
            schedules: schedule::Statements::new(names),
            delete: intervene::DELETE.map(|template| sql(template, run::BY_ID)),
            stream_fence: sql(stream::FENCE, stream::FENCE_TYPES),
            stream_fence_in_line: in_line(stream::FENCE, stream::FENCE_TYPES),
            stream_write: sql(stream::WRITE, stream::WRITE_TYPES),
            stream_prune: sql(stream::PRUNE, stream::PRUNE_TYPES),
            stream_page: sql(stream::PAGE, stream::PAGE_TYPES),
            routed: routed::Statements::new(names),
        }
    }
}

impl Book {
    /// The parameters of a statement of a batch, with the id of its run if it is routed by that.
    pub(crate) fn of_run<'p>(
        &self,
        params: &Params<'p>,
        run_id: &'p (dyn ToSql + Sync),
    ) -> Vec<&'p (dyn ToSql + Sync)> {
        let mut params = params.to_vec();
        if self.flavour == Flavour::Routed {
            params.push(run_id);
        }
        params
    }
}

/// What a session is told first.
pub(crate) fn settings(
    flavour: Flavour,
) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    // An engine that routes has to see the run's id when it plans.
    let generic = [("plan_cache_mode", "force_generic_plan")].as_slice();
    let plans = match flavour {
        Flavour::Plain => generic,
        Flavour::Routed => &[],
    };
    plans.iter().chain(SETTINGS)
}

const SETTINGS: &[(&str, &str)] = &[
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    // A bitmap loses the order of an index, and with it the early end of a claim.
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
    // To start a worker takes longer than a page of a list.
    ("max_parallel_workers_per_gather", "0"),
];

pub(crate) mod list {
    use duramen_store_sql::run_columns;

    pub(crate) const ROWS: &str = concat!("SELECT ", run_columns!("r."), " FROM {runs} r");
    pub(crate) const COUNT: &str = "SELECT count(*) FROM {runs} r";
    pub(crate) const ANY: &str = "SELECT 1 FROM {runs} r";

    /// What a run waits for, as `runs_resting` has it.
    pub(crate) const WAIT: &str = "(CASE WHEN cardinality(r.waits) = 1 AND octet_length(r.waits[1]) <= 1100 \
         THEN r.waits[1] ELSE '' END)";
    /// The longest that is told apart there.
    pub(crate) const LONGEST_WAIT: usize = 1100;

    /// The rows of a tag. Joined by the id alone, of which its key is no use: so that nobody begins with the runs.
    pub(crate) const TAGGED: &str = concat!(
        "SELECT ",
        run_columns!("r."),
        " FROM {run_tags} t JOIN {runs} r ON r.run_id = t.run_id"
    );
    pub(crate) const COUNT_TAG: &str = "SELECT count(*) FROM {run_tags} t";
    pub(crate) const COUNT_TAGGED: &str =
        "SELECT count(*) FROM {run_tags} t JOIN {runs} r ON r.run_id = t.run_id";

    /// Few rows that are all read, whatever the planner thinks of others.
    pub(crate) const FEW: &str = concat!("SELECT ", run_columns!("r."), " FROM ({few} OFFSET 0) r");
    pub(crate) const COUNT_FEW: &str = "SELECT count(*) FROM ({few} OFFSET 0) r";
    pub(crate) const WHOLE: &str = "SELECT r.* FROM {runs} r";

    /// Rows of these workflows, each of which gives a page.
    pub(crate) const OF_EACH: &str = concat!(
        "SELECT ",
        run_columns!("r."),
        " FROM unnest({workflows}) AS w(workflow) CROSS JOIN LATERAL ({each}) r"
    );

    /// The runs of a status by lane, and of each the one with the least instant and id. `{status}` is the condition of the
    /// index that has them: what has ended is not read.
    pub(crate) const CENSUS: &str = "SELECT r.status, r.lane, count(*), min(lpad(r.created_at::text, 19, '0') || r.run_id) \
         FROM {runs} r WHERE {status} GROUP BY r.status, r.lane";

    /// Every workflow, with one descent each, and when its newest run was created. `{until}` is a condition.
    pub(crate) const WORKFLOWS: &str = "WITH RECURSIVE w(workflow) AS (\
         (SELECT r.workflow FROM {runs} r ORDER BY r.workflow LIMIT 1) UNION ALL \
         SELECT (SELECT r.workflow FROM {runs} r WHERE r.workflow > w.workflow ORDER BY r.workflow LIMIT 1) \
         FROM w WHERE w.workflow IS NOT NULL) \
         SELECT w.workflow, n.created_at FROM w CROSS JOIN LATERAL (SELECT r.created_at FROM {runs} r \
         WHERE r.workflow = w.workflow{until} ORDER BY r.created_at DESC LIMIT 1) n";
    /// The same, one at a time.
    pub(crate) const NEXT_WORKFLOW: &str =
        "SELECT r.workflow FROM {runs} r WHERE r.workflow > $1 ORDER BY r.workflow LIMIT 1";
    pub(crate) const NEWEST: &str = "SELECT r.created_at FROM {runs} r WHERE r.workflow = $1{until} \
         ORDER BY r.created_at DESC LIMIT 1";
}

pub(crate) mod schema {
    pub(crate) const FOUND: &str =
        "SELECT coalesce(max(number), 0), coalesce(max(compatible_from), 0) FROM {migrations}";
    pub(crate) const IS_PARTITIONED: &str =
        "SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = '{runs}'::regclass";
    pub(crate) const HAS_CITUS: &str =
        "SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL";
    pub(crate) const IS_DISTRIBUTED: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_dist_partition p \
         WHERE p.logicalrelid = '{runs}'::regclass AND p.partmethod = 'h')";
    pub(crate) const EXISTS: &str = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
    pub(crate) const LOCK: &str = "LOCK TABLE {migrations} IN EXCLUSIVE MODE";
    pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS {migrations} (number integer NOT NULL PRIMARY KEY, \
         name text NOT NULL, compatible_from integer NOT NULL, applied_at bigint NOT NULL)";
}
