//! The schema: from nothing, more than once, by several at a time, and by the wrong build.

use duramen_core::journal::Kind;
use duramen_core::store::{Queries, Schema, Store, StoreError};
use duramen_store_sqlite::{SqliteOptions, SqliteStore};

use crate::support::{Home, block_on, create, new_run};

const MANUAL: SqliteOptions = SqliteOptions {
    migrate: false,
    synchronous: duramen_store_sqlite::Synchronous::Full,
    busy_timeout: std::time::Duration::from_secs(5),
    max_pages: None,
    probe: None,
};

const CURRENT: Schema = Schema {
    found: 1,
    needed: 1,
    applied: Vec::new(),
};

#[test]
fn an_empty_file_gets_every_migration_once() {
    let home = Home::new();
    let store = home.open();
    assert_eq!(store.applied_on_open(), ["0001_initial"]);
    assert_eq!(block_on(store.migrate()).unwrap(), CURRENT);
    assert_eq!(block_on(store.schema()).unwrap(), CURRENT);
    create(&store, vec![new_run("a")]);
    let again = home.open();
    assert!(again.applied_on_open().is_empty());
    assert!(block_on(again.get(vec!["a".into()])).unwrap()[0].is_some());
    let recorded: (u32, String, bool) = home
        .connection()
        .query_row(
            "SELECT number, name, applied_at > 1600000000000 FROM duramen_schema_migrations",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(recorded, (1, "initial".to_owned(), true));
}

#[test]
fn without_leave_to_migrate_a_missing_schema_is_refused_and_nothing_is_made() {
    let home = Home::new();
    let error = SqliteStore::open(&home.file(), MANUAL).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(!home.file().exists());
    rusqlite::Connection::open(home.file())
        .unwrap()
        .execute_batch("CREATE TABLE theirs (a)")
        .unwrap();
    let error = SqliteStore::open(&home.file(), MANUAL).unwrap_err();
    assert_eq!(
        error,
        StoreError::Unmigrated {
            found: 0,
            needed: 1
        }
    );
    drop(home.open());
    SqliteStore::open(&home.file(), MANUAL).unwrap();
}

#[test]
fn a_newer_schema_is_used_if_it_says_that_this_build_can() {
    let home = Home::new();
    drop(home.open());
    let later = |row: &str| {
        let text = format!("INSERT INTO duramen_schema_migrations VALUES {row}");
        home.connection().execute_batch(&text).unwrap();
    };
    later("(2, 'later', 1, 0)");
    for (run_id, options) in [("a", MANUAL), ("b", SqliteOptions::default())] {
        let store = home.open_with(options);
        assert!(store.applied_on_open().is_empty());
        create(&store, vec![new_run(run_id)]);
        let found = block_on(store.migrate()).unwrap();
        assert_eq!(
            found,
            Schema {
                found: 2,
                ..CURRENT
            }
        );
    }
    later("(3, 'later still', 2, 0)");
    for options in [MANUAL, SqliteOptions::default()] {
        let error = SqliteStore::open(&home.file(), options).unwrap_err();
        assert_eq!(
            error,
            StoreError::Newer {
                found: 3,
                needed: 1
            }
        );
    }
    // A later one that is harmless again does not take back what stands between.
    later("(4, 'harmless', 1, 0)");
    let error = SqliteStore::open(&home.file(), MANUAL).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 4, .. }));
}

#[test]
fn the_migration_file_works_by_hand() {
    let home = Home::new();
    home.connection()
        .execute_batch(include_str!(
            "../../../../migrations/sqlite/0001_initial.sql"
        ))
        .unwrap();
    let store = SqliteStore::open(&home.file(), MANUAL).unwrap();
    create(&store, vec![new_run("a")]);
}

#[test]
fn many_that_open_a_new_file_at_once_migrate_it_once() {
    for _ in 0..5 {
        let home = Home::new();
        let applied: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| home.open().applied_on_open().len()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(applied, 1);
    }
}

#[test]
fn the_view_for_people_names_every_kind_and_shows_payloads_as_text() {
    let home = Home::new();
    let store = home.open();
    create(&store, vec![new_run("a")]);
    let connection = home.connection();
    for kind in Kind::ALL.iter().skip(1) {
        let code = kind.code();
        connection
            .execute(
                "INSERT INTO journal (run_id, idx, encoding, kind, op, at, payload) \
                 VALUES ('a', ?1, 1, ?1, 'op', 0, x'7b7d')",
                [code],
            )
            .unwrap();
    }
    let mut select = connection
        .prepare("SELECT kind, payload, at FROM journal_json WHERE run_id = 'a' ORDER BY idx")
        .unwrap();
    let shown: Vec<(String, String, String)> = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let names: Vec<&str> = shown.iter().map(|(kind, ..)| &**kind).collect();
    assert_eq!(names, Kind::ALL.map(Kind::name));
    assert_eq!(shown[0].1, "{\"n\":1}");
    assert_eq!(shown[1].2, "1970-01-01T00:00:00.000Z");
}
