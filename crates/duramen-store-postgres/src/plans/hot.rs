//! The statements with arguments, and what each may read.

use super::{NOW, OWNERS};
use std::fmt::Write;

use crate::Flavour;
use crate::sql::{Book, Sql};

/// A statement with arguments, and what it may read of the tables at most.
pub(super) struct Hot<'b> {
    pub(super) name: &'static str,
    pub(super) sql: &'b Sql,
    pub(super) arguments: String,
    pub(super) rows: i64,
}

fn array(of: &str, items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("ARRAY[{}]::{of}[]", items.join(","))
}

fn same(of: &str, item: &str, count: usize) -> String {
    array(of, std::iter::repeat_n(item.to_owned(), count))
}

/// Ids of running runs with a message.
fn running(count: usize) -> String {
    ids((0..count).map(|n| n * 300 + 96))
}

fn ids(numbers: impl Iterator<Item = usize>) -> String {
    array("text", numbers.map(|n| format!("'run-{n:08}'")))
}

/// Every line: three statuses of four workflows.
fn lines() -> String {
    let each =
        |of, item: fn(i64, i64) -> String| array(of, (0..12).map(|line| item(line / 4, line % 4)));
    format!(
        "{}, {}",
        each("smallint", |status, _| status.to_string()),
        each("text", |_, workflow| format!(
            "concat_ws(chr(31), 'default', 'workflow-{workflow}', '1', '1')"
        )),
    )
}

/// Everything, in every line and priority.
fn floors() -> String {
    same("bigint", "-9223372036854775808", 120)
}

const BATCH: usize = 64;

/// A batch in the plain flavour, one run in the routed one, which names it once more.
fn of_runs<'b>(
    book: &'b Book,
    name: &'static str,
    sql: &'b Sql,
    arguments: &str,
    rows: i64,
) -> Hot<'b> {
    let mut arguments = arguments.to_owned();
    if book.flavour == Flavour::Routed {
        let first = arguments.split('\'').nth(1).unwrap_or_default().to_owned();
        if name == "create" {
            arguments.push_str(", TRUE");
        }
        let _ = write!(arguments, ", '{first}'");
    }
    Hot {
        name,
        sql,
        arguments,
        rows,
    }
}

/// What is about given runs.
#[allow(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn of_given_runs(book: &Book) -> Vec<Hot<'_>> {
    let size = match book.flavour {
        Flavour::Plain => BATCH,
        Flavour::Routed => 1,
    };
    let n = |of, item| same(of, item, size);
    let numbers = |of| array(of, (1..=size).map(|n| n.to_string()));
    let own = |count: usize| {
        array(
            "text",
            (0..count).map(|n| format!("'owner-{}'", (n * 300 + 96) % 8)),
        )
    };
    let list = |parts: &[String]| parts.join(", ");
    let append = list(&[
        running(size),
        own(size),
        n("bigint", "1"),
        n("bytea", "'\\x00000000000000000000000000000000'"),
        n("bigint", "2"),
        numbers("bigint"),
        n("bigint", "2"),
        n("bigint", "7"),
        n("smallint", "1"),
        n("smallint", "1"),
        running(size),
        n("text", "'step-2'"),
        n("text", "NULL"),
        n("bytea", "'\\x31'"),
    ]);
    let rows = list(&[
        append.clone(),
        numbers("bigint"),
        running(size),
        n("bigint", "3"),
        n("bigint", "0"),
        n("bigint", "7"),
        n("smallint", "0"),
        n("smallint", "2"),
        n("bigint", "NULL"),
        n("text", "'event:go'"),
        n("text", "NULL"),
    ]);
    let continued = list(&[
        append.clone(),
        numbers("bigint"),
        running(size),
        n("bigint", "3"),
        n("bigint", "0"),
        n("bigint", "7"),
        n("smallint", "0"),
        n("smallint", "0"),
        n("bigint", "7"),
        n("text", "NULL"),
        n("text", "'2'"),
    ]);
    let reads = list(&[
        rows.clone(),
        numbers("bigint"),
        running(size),
        n("bigint", "1"),
        n("text", "NULL"),
        n("bytea", "NULL"),
        numbers("bigint"),
        running(size),
        n("bytea", "'\\x7b7d'"),
        numbers("bigint"),
        n("bigint", "2"),
        n("bigint", "7"),
        n("integer", "0"),
        n("smallint", "1"),
        running(size),
        n("text", "'other'"),
        n("bytea", "'\\x31'"),
    ]);
    let fresh = array("text", (0..size).map(|n| format!("'new-{n}'")));
    let create = list(&[
        fresh.clone(),
        n("text", "'owner-0'"),
        n("text", "'lane'"),
        n("text", "'default'"),
        n("text", "'workflow-0'"),
        n("text", "'1'"),
        n("smallint", "5"),
        n("smallint", "1"),
        n("text", "NULL"),
        n("bytea", "'\\x00000000000000000000000000000000'"),
        n("bigint", "NULL"),
        n("bigint", "NULL"),
        n("bigint", "NULL"),
        n("bigint", "1000000"),
        n("bigint", "2"),
        n("text", "NULL"),
        n("text", "NULL"),
        n("text", "NULL"),
        n("bytea", "'\\x31'"),
        n("bytea", "'\\x31'"),
        n("bigint", "1"),
        n("bigint", "1"),
        n("smallint", "1"),
        n("smallint", "1"),
        fresh,
        n("text", "''"),
        n("text", "NULL"),
        n("bytea", "'\\x31'"),
        n("text", "NULL"),
    ]);
    let sleeping = ids((0..size).map(|n| n * 100 + 7));
    let deliver = list(&[
        sleeping.clone(),
        n("text", "'new'"),
        n("smallint", "0"),
        n("text", "'go'"),
        n("bytea", "'\\x31'"),
        n("text", "NULL"),
        n("bigint", "NULL"),
        n("text", "'event:go'"),
        n("smallint", "1"),
        sleeping.clone(),
        "10000, 67108864".to_owned(),
    ]);
    let batch = i64::try_from(size).unwrap();
    let hot = |name, sql, arguments: &str, rows| of_runs(book, name, sql, arguments, rows);
    let alone = |name, sql, arguments: &str, rows| Hot {
        name,
        sql,
        arguments: arguments.to_owned(),
        rows,
    };
    vec![
        // Each asks once for its owner.
        hot("create", &book.create, &create, batch),
        hot("create", &book.create_tagged, &create, batch),
        hot("rows", &book.rows, &sleeping, batch),
        // First and last entry, run_data.
        hot("details", &book.details, &sleeping, 4 * batch),
        hot("standing", &book.standing, &sleeping, 2 * batch),
        // The last entry and the row.
        hot("append", &book.append, &append, 2 * batch),
        hot("commit", &book.commit, &rows, 3 * batch),
        // And the two entries of the former generation.
        hot("continue", &book.commit, &continued, 5 * batch),
        hot("commit_and_read", &book.commit_and_read, &reads, 5 * batch),
        hot("lock", &book.lock, &sleeping, 2 * batch),
        hot(
            "journals",
            &book.journals,
            &format!("{sleeping}, {}", n("bigint", "0")),
            2 * batch,
        ),
        // Rows twice, and a look for a message of that id.
        hot("deliver", &book.deliver, &deliver, 3 * batch),
        hot("refused", &book.refused, &sleeping, 0),
        hot(
            "receipts",
            &book.receipts,
            &format!("{sleeping}, {}", n("text", "'m'")),
            batch,
        ),
        hot(
            "sent",
            &book.sent,
            "ARRAY['run-00000101'], ARRAY[1::bigint], ARRAY[0], ARRAY[101::bigint]",
            2,
        ),
        // The first one twice: is it there at all?
        alone("load", &book.load, "'run-00000007', 0, 100", 3),
        alone("right", &book.right, "'run-00000096', 1, 3", 1),
        alone("park", &book.park, "'run-00000096', 1, 'n', 3", 1),
        alone("page", &book.page, "'run-00000099', 0", 1),
        alone(
            "unsent_of_run",
            &book.unsent_of_run,
            "1000000, 100, 'run-00000001'",
            1,
        ),
        alone("stand", &book.stand, "'run-00000099'", 2),
        alone("length", &book.length, "'run-00000099'", 1),
        alone("terminate", &book.terminate, "'run-00000099', 1, 1, 1", 1),
        alone("reopen", &book.reopen, "'run-00000099', 1, 1, 1, NULL", 1),
        alone(
            "extend",
            &book.extend,
            "'run-00000099', ARRAY[2::bigint], ARRAY[1::bigint], ARRAY[1::smallint], ARRAY[1::smallint], ARRAY[''], \
             ARRAY[NULL::text], ARRAY[''::bytea]",
            0,
        ),
        // No more than the run, as it has no tags.
        alone("delete", &book.delete[0], "'run-00000099'", 1),
        alone("delete", &book.delete[1], "'run-00000099'", 2),
        alone("delete", &book.delete[2], "'run-00000099'", 1),
        alone("delete", &book.delete[3], "'run-00000099'", 1),
        alone("delete", &book.delete[4], "'run-00000001'", 1),
        alone("delete", &book.delete[5], "'run-00000001'", 40),
        alone("delete", &book.delete[6], "'run-00000099'", 1),
        // The row twice.
        alone(
            "stream_fence",
            &book.stream_fence,
            "'run-00000095', 'owner-7', 1, '\\x00000000000000000000000000000000'",
            2,
        ),
        alone(
            "stream_write",
            &book.stream_write,
            "'run-00000001', 'words', ARRAY[0::bigint], ARRAY[1::bigint], ARRAY[1], ARRAY['w'], ARRAY['\\x31'::bytea]",
            1,
        ),
        // The first one twice, and the next.
        alone(
            "stream_prune",
            &book.stream_prune,
            "'run-00000001', 'words', 2, 10000",
            4,
        ),
        alone(
            "stream_page",
            &book.stream_page,
            "'run-00000001', 'words', 3, 5",
            6,
        ),
    ]
}

/// What finds runs, in the plain flavour.
pub(super) fn that_find_runs(book: &Book) -> Vec<Hot<'_>> {
    let claim = format!(
        "{NOW}, 'ann', {}, 25, ARRAY['run-00000099'], ARRAY[2::bigint], 1000000",
        lines()
    );
    let many = format!("{claim}, {}", floors());
    let hot = |name, sql, arguments: &str, rows| Hot {
        name,
        sql,
        arguments: arguments.to_owned(),
        rows,
    };
    // Candidates of the three lines that have any; of each candidate that is near enough its length or its
    // row, and the payloads' lengths; of each run that is taken its row four times, two entries and a message.
    let taken = 3 * 26 + 26 * 3 + 25 * 7;
    vec![
        // Owners: who asks, whose lease has lapsed, who has ended; the names in the runs, and whether they are known.
        hot(
            "claim",
            &book.claim,
            &format!("{many}, TRUE, ARRAY[]::text[], 26, TRUE"),
            taken + 8 * OWNERS,
        ),
        hot(
            "claim, not all",
            &book.claim,
            &format!("{many}, FALSE, ARRAY['owner-7'], 26, TRUE"),
            taken + 6 * OWNERS,
        ),
        hot(
            "claim_alone",
            &book.claim_alone,
            &format!("{claim}, 'run-00000299', 2"),
            16 + 4 * OWNERS,
        ),
        hot("forget", &book.forget, &format!("{NOW}, 1"), 3 * OWNERS),
        // Each that it holds twice, and once more to see that none is left.
        hot(
            "succeed",
            &book.succeed,
            &format!("'ann', 'owner-0', {NOW}"),
            3 * 1_100,
        ),
        hot("owners", &book.owners, "", 8_000 + 2 * OWNERS),
        // One of each line and priority that has any; names and owners.
        hot(
            "next",
            &book.next,
            &format!("{NOW}, {}, {}, TRUE, ARRAY[]::text[]", lines(), floors()),
            16 + 4 * OWNERS,
        ),
        hot(
            "unread_of_owner",
            &book.unread_of_owner,
            "'owner-0', ARRAY['run-00000096'], ARRAY[0::bigint]",
            700,
        ),
    ]
}

/// Those of both flavours that are about an owner, or about what left runs.
pub(super) fn of_owners(book: &Book) -> Vec<Hot<'_>> {
    let hot = |name, sql, arguments: &str, rows| Hot {
        name,
        sql,
        arguments: arguments.to_owned(),
        rows,
    };
    vec![
        hot(
            "beat",
            &book.beat,
            &format!("'owner-0', {NOW}, 60000, NULL, NULL, 1"),
            1,
        ),
        hot(
            "register",
            &book.register,
            &format!("'new', {NOW}, 60000, NULL, NULL, 1"),
            0,
        ),
        hot("lapse", &book.lapse, &format!("'owner-0', {NOW}"), 1),
        hot("retire", &book.retire, &format!("'owner-0', {NOW}"), 1),
        hot("held", &book.held, "'owner-0', '', 100", 1_100),
        hot("unsent", &book.unsent, "1000000, 100", 100),
    ]
}
