//! A list is the same whichever way it is read.

use super::*;
use crate::migrate;

/// Runs of every status, some with several waits and tags, some with a deadline; no order of theirs is another's.
fn some() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    migrate::apply(&connection).unwrap();
    connection
        .execute_batch(
            "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 799), \
             r AS (SELECT n, n % 8 AS status, n * 37 % 211 AS created FROM n) \
             INSERT INTO runs SELECT CASE WHEN n % 50 = 0 THEN 's' ELSE 'r' END || n, status, 0, \
             CASE status WHEN 1 THEN 'o' END, zeroblob(16), \
             0, 0, 0, 0, NULL, 1, \
             CASE WHEN status = 0 OR (status = 2 AND n % 3 > 0) THEN n * 11 % 97 END, 0, 0, 0, 1, n % 5, 0, 0, \
             NULL, CASE WHEN status BETWEEN 3 AND 6 THEN n * 13 % 101 END, created, NULL, \
             'q' || char(31) || 'w' || (n % 3) || char(31) || (n % 2) || char(31) || '1', 'q', 'w' || (n % 3), n % 2, \
             CASE WHEN status IN (1, 2) THEN CASE n / 8 % 5 WHEN 0 THEN char(31) || 'timer' || char(31) \
             WHEN 1 THEN char(31) || 'event:a' || char(31) || 'timer' || char(31) \
             WHEN 2 THEN char(31) || 'event:a' || char(31) ELSE '' END ELSE '' END, \
             CASE WHEN n % 7 = 0 THEN char(31) || 'red' || char(31) \
             WHEN n % 7 = 1 THEN char(31) || 'blue' || char(31) || 'red' || char(31) ELSE '' END, NULL, \
             CASE WHEN n % 11 = 0 THEN 'p' END, NULL, NULL FROM r; \
             INSERT INTO run_tags SELECT tag, created_at, run_id FROM runs, (SELECT 'red' AS tag UNION SELECT 'blue') \
             WHERE instr(tags, char(31) || tag || char(31))",
        )
        .unwrap();
    connection
}

/// Every field with each of some others, now and then a third and more.
fn filters() -> Vec<Filter> {
    let mut filters = Vec::new();
    for set in 0..512_u32 {
        let some = |bit: u32, text: &str| (set >> bit & 1 == 1).then(|| text.to_owned());
        let status = (0..8).filter(|code| (set * 37) >> code & 1 == 1);
        filters.push(Filter {
            status: if set & 1 == 1 {
                status.filter_map(Status::from_code).collect()
            } else {
                Vec::new()
            },
            workflow: some(1, if set % 9 == 0 { "w7" } else { "w1" }),
            version: some(2, "1"),
            queue: (set % 17 == 0).then(|| "q".to_owned()),
            tag: some(3, if set % 5 == 0 { "blue" } else { "red" }),
            waiting_for: some(4, if set % 3 == 0 { "event:a" } else { "timer" }),
            parent: some(5, "p").map(Into::into),
            root: (set % 23 == 0).then(|| "g".into()),
            finished_before: some(6, "").map(|_| 60),
            id_prefix: some(7, if set % 7 == 0 { "r" } else { "s" }),
            created_before: some(8, "").map(|_| 150),
            created_after: (set % 13 == 0).then_some(20),
        });
    }
    filters
}

/// By looking at every run.
fn by_looking(connection: &Connection, wanted: &Filter) -> Vec<RunId> {
    let mut values = Values::default();
    let select = "SELECT run_id FROM (SELECT * FROM runs LIMIT -1)";
    let text = filter::list(&mut values, select, Vec::new(), wanted, 10_000, None);
    let mut statement = connection.prepare(&text).unwrap();
    let found = statement.query_map(params_from_iter(values.values), |row| {
        row.get::<_, String>(0).map(RunId::from)
    });
    found.unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn whatever_is_few_the_answer_is_the_same() {
    let connection = some();
    let each = [
        Few::default(),
        Few {
            live: 0,
            finished: 0,
            narrow: 0,
            streams: 0,
        },
        Few {
            narrow: 0,
            ..Few::default()
        },
        Few {
            live: 90,
            finished: 200,
            narrow: 90,
            streams: 12,
        },
    ];
    let mut ways = BTreeSet::new();
    for wanted in filters() {
        let expected = by_looking(&connection, &wanted);
        for few in each {
            let look = Look {
                connection: &connection,
                few,
            };
            let streams = look.streams(&wanted).unwrap();
            ways.extend(streams.iter().map(|stream| stream.from.clone()));
            let count = look.count(&streams).unwrap();
            assert_eq!(count, expected.len() as u64, "{wanted:?} {streams:?}");
            let (mut cursor, mut found) = (None, Vec::new());
            loop {
                let page = look.page(&streams, 30, cursor.as_ref()).unwrap();
                found.extend(page.rows.into_iter().map(|row| row.run_id));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{wanted:?} {streams:?}");
        }
        assert_eq!(
            super::count(&connection, &wanted).unwrap(),
            expected.len() as u64
        );
    }
    // All indexes, tags with and without their rows, the table by its key.
    assert_eq!(ways.len(), 10, "{ways:?}");
}
