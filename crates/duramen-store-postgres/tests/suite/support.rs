//! A schema of one test's own, and connections beside the store's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duramen_core::store::{Store, StoreError};
use duramen_store_postgres::{Flavour, Names, PostgresOptions, PostgresStore};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

pub(crate) use duramen_store_testing::block_on;

/// What stores and connections of these tests run on.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

pub(crate) fn url() -> String {
    std::env::var("DURAMEN_TEST_POSTGRES_URL").expect(
        "these tests need a Postgres server: run \
         `.venv/bin/python tools/with_postgres.py cargo test -p duramen-store-postgres`",
    )
}

/// A connection of the test's own.
pub(crate) fn connection() -> Client {
    runtime().block_on(async {
        let (client, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    })
}

/// A schema that is gone at the end of the test.
pub(crate) struct Place {
    schema: String,
    tables: Vec<(String, String)>,
    client: Client,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with_tables(&[])
    }

    pub(crate) fn with_tables(tables: &[(&str, &str)]) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let schema = format!(
            "t{}_{}_{}",
            now.as_micros(),
            std::process::id(),
            MADE.fetch_add(1, Ordering::Relaxed)
        );
        let place = Self {
            schema,
            tables: tables
                .iter()
                .map(|(table, name)| ((*table).to_owned(), (*name).to_owned()))
                .collect(),
            client: connection(),
        };
        if crate::IN_PARTS {
            place.put_in_parts();
        }
        place
    }

    /// Makes the tables, and of those of runs parts.
    fn put_in_parts(&self) {
        let whole = self.open_with(PostgresOptions {
            flavour: Some(Flavour::Plain),
            ..self.options()
        });
        block_on(whole.close()).unwrap();
        if self.number("SELECT count(*) FROM pg_extension WHERE extname = 'citus'") == 0 {
            let parts = include_str!("in_parts.sql");
            self.run(&format!(
                "SET search_path = {{s}}; {parts}; RESET search_path"
            ));
            return;
        }
        self.run("SELECT create_distributed_table('{s}.runs', 'run_id', shard_count => 4)");
        for table in [
            "journal",
            "inbox",
            "run_data",
            "run_tags",
            "outgoing",
            "stream_items",
        ] {
            self.run(&format!(
                "SELECT create_distributed_table('{{s}}.{table}', 'run_id', colocate_with => '{{s}}.runs')"
            ));
        }
    }

    pub(crate) fn names(&self) -> Names {
        Names::new(Some(&self.schema), self.tables.clone()).unwrap()
    }

    /// Options with this schema, which is made on opening; no hints, whose statements would be counted.
    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions {
            names: self.names(),
            migrate: true,
            notify: false,
            // Tests that hold locks say by themselves how long that may take.
            lock_timeout: Duration::from_secs(5),
            ..PostgresOptions::default()
        }
    }

    pub(crate) fn open(&self) -> PostgresStore {
        self.open_with(self.options())
    }

    pub(crate) fn open_with(&self, options: PostgresOptions) -> PostgresStore {
        Self::try_open(PostgresOptions {
            names: self.names(),
            ..options
        })
        .unwrap()
    }

    pub(crate) fn try_open(options: PostgresOptions) -> Result<PostgresStore, StoreError> {
        runtime().block_on(PostgresStore::connect(&url(), options))
    }

    /// Runs commands on the test's connection; `{s}` is the schema.
    pub(crate) fn run(&self, text: &str) {
        self.on(&self.client, text);
    }

    /// The same on another connection.
    pub(crate) fn on(&self, client: &Client, text: &str) {
        let text = self.fill(text);
        if let Err(error) = runtime().block_on(client.batch_execute(&text)) {
            panic!("{text}: {:?}", error.as_db_error());
        }
    }

    /// One number that a question answers.
    pub(crate) fn number(&self, text: &str) -> i64 {
        let text = self.fill(text);
        runtime()
            .block_on(self.client.query_one(&text, &[]))
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .get(0)
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{s}", &self.schema)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema);
        // A panicking test has said more already.
        let _ = runtime().block_on(self.client.batch_execute(&drop));
    }
}

/// A transaction of somebody else's that holds something.
pub(crate) struct Held<'p> {
    place: &'p Place,
    client: Client,
}

impl<'p> Held<'p> {
    /// The row of a run.
    pub(crate) fn new(place: &'p Place, run_id: &str) -> Self {
        Self::by(
            place,
            &format!("SELECT FROM {{s}}.runs WHERE run_id = '{run_id}' FOR UPDATE"),
        )
    }

    /// What a command holds.
    pub(crate) fn by(place: &'p Place, command: &str) -> Self {
        let client = connection();
        place.on(&client, &format!("BEGIN; {command}"));
        Self { place, client }
    }

    pub(crate) fn let_go(self) {
        self.place.on(&self.client, "ROLLBACK");
    }
}

/// A gate in the way of statements that write certain rows: they stand before it, with their snapshots and
/// locks, until it is opened.
pub(crate) struct Gate<'p> {
    place: &'p Place,
    client: Client,
}

impl<'p> Gate<'p> {
    /// Before a row is written, as a trigger has it: `INSERT`, `UPDATE`, on a table, when a condition holds.
    pub(crate) fn before(place: &'p Place, what: &str, table: &str, when: &str) -> Self {
        let client = connection();
        place.on(&client, "SELECT pg_advisory_lock(hashtext('{s}'))");
        place.run(
            "CREATE OR REPLACE FUNCTION {s}.gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             WHILE NOT pg_try_advisory_xact_lock_shared(hashtext('{s}')) LOOP PERFORM pg_sleep(0.002); END LOOP; \
             RETURN NEW; END $$",
        );
        place.run(&format!(
            "CREATE TRIGGER gate BEFORE {what} ON {{s}}.{table} FOR EACH ROW WHEN ({when}) \
             EXECUTE FUNCTION {{s}}.gate()"
        ));
        Self { place, client }
    }

    /// Waits until a statement stands before it.
    #[track_caller]
    pub(crate) fn until_reached(&self) {
        let since = Instant::now();
        let question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
             AND query LIKE '%{s}%' AND pid <> pg_backend_pid()";
        while self.place.number(question) == 0 {
            assert!(since.elapsed() < Duration::from_secs(10), "nobody came");
            sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn open(self) {
        self.place
            .on(&self.client, "SELECT pg_advisory_unlock(hashtext('{s}'))");
    }
}
