//! How a store is opened, and the names of its tables.

use std::time::Duration;

use duramen_core::store::StoreError;

use crate::flavour::Flavour;

/// Options of a Postgres store; the defaults are those of [`crate::PostgresStore::connect`]'s callers.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    pub names: Names,
    /// Apply missing migrations when opening. Off: an unmigrated schema is an error.
    pub migrate: bool,
    /// The most connections (the one that listens for hints comes on top).
    pub pool_size: usize,
    pub statements: Statements,
    pub isolation: Isolation,
    /// None: the one that fits the tables as they stand when the store is opened.
    pub flavour: Option<Flavour>,
    pub tls: Tls,
    /// How long a request comes back for a run that others have locked before it is answered as blocked. Its
    /// neighbours do not wait for it.
    pub lock_timeout: Duration,
    /// How long one request may take before its connection is given up.
    pub timeout: Duration,
    /// Send and take wake-up hints by `NOTIFY` and `LISTEN`.
    pub notify: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            names: Names::default(),
            migrate: false,
            pool_size: 4,
            statements: Statements::Named,
            isolation: Isolation::ReadCommitted,
            flavour: None,
            tls: Tls::default(),
            lock_timeout: Duration::from_millis(50),
            timeout: Duration::from_secs(15),
            notify: true,
        }
    }
}

/// Whether the server, or a pooler before it, keeps state for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statements {
    /// Settings and prepared statements belong to the connection: parsed and planned once.
    Named,
    /// For poolers that give each transaction another server connection: nothing outlives a
    /// transaction, each statement is sent whole, and hints are neither sent nor taken.
    Unnamed,
}

/// The isolation level of the store's transactions. Every statement is right under each of them;
/// the stricter ones make the server refuse some that the store then tries once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// What of the server's certificate is checked, as libpq's `sslmode` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    pub verify: Verify,
    /// A PEM file of the authorities to trust instead of the system's (`sslrootcert`).
    pub root_cert: Option<std::path::PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verify {
    /// Encrypts (if the URL's `sslmode` says so) without asking who the server is.
    #[default]
    Nothing,
    /// The certificate comes from a trusted authority (`sslmode=verify-ca`).
    Authority,
    /// … and names this host (`sslmode=verify-full`).
    Host,
}

/// The schema and the tables. Made by [`Names::new`], which lets no odd name through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    schema: String,
    tables: [String; TABLES.len()],
}

/// The tables and views, by the names that statements use for them.
pub const TABLES: [&str; 11] = [
    "runs",
    "journal",
    "inbox",
    "run_data",
    "run_tags",
    "outgoing",
    "stream_items",
    "owners",
    "schedules",
    "journal_json",
    "migrations",
];

/// What names of indexes end with.
const SUFFIXES: [&str; 10] = [
    "_due",
    "_owned",
    "_created",
    "_unread",
    "_resting",
    "_finished",
    "_parent",
    "_root",
    "_set_aside",
    "_at",
];

const DEFAULT_SCHEMA: &str = "duramen";
const MIGRATIONS: &str = "duramen_schema_migrations";
/// Postgres cuts longer names off in silence; index names are made from table names.
const LONGEST: usize = 63 - "_set_aside".len();

impl Default for Names {
    fn default() -> Self {
        let tables = TABLES.map(|table| match table {
            "migrations" => MIGRATIONS.to_owned(),
            other => other.to_owned(),
        });
        Self {
            schema: DEFAULT_SCHEMA.to_owned(),
            tables,
        }
    }
}

impl Names {
    /// The default names with some replaced: `schema`, and tables by their default names.
    pub fn new(
        schema: Option<&str>,
        tables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        let mut names = Self::default();
        if let Some(schema) = schema {
            names.schema = identifier("schema", schema)?;
        }
        for (table, name) in tables {
            let known = if table == MIGRATIONS {
                "migrations"
            } else {
                &table
            };
            let Some(place) = TABLES.iter().position(|one| *one == known) else {
                return Err(StoreError::Invalid {
                    reason: format!(
                        "there is no table {table:?} to rename; there are {}",
                        TABLES.join(", ")
                    ),
                });
            };
            names.tables[place] = identifier("table name", &name)?;
        }
        for (place, name) in names.tables.iter().enumerate() {
            if names.tables[..place].contains(name) {
                return Err(StoreError::Invalid {
                    reason: format!("two tables cannot both be called {name:?}"),
                });
            }
        }
        Ok(names)
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Puts the names in place of psql's variables: `:"runs"` becomes `"app_runs"`, `:runs` becomes
    /// `"app"."app_runs"`.
    pub(crate) fn fill(&self, template: &str) -> String {
        let mut text = template.replace(":\"schema\"", &quoted(&self.schema));
        for (table, name) in TABLES.iter().zip(&self.tables) {
            text = text.replace(&format!(":\"{table}\""), &quoted(name));
            // The indexes of a table are called after it.
            for suffix in SUFFIXES {
                text = text.replace(
                    &format!(":\"{table}{suffix}\""),
                    &quoted(&format!("{name}{suffix}")),
                );
            }
            let whole = format!("{}.{}", quoted(&self.schema), quoted(name));
            text = text.replace(&format!("{{{table}}}"), &whole);
        }
        text
    }
}

fn quoted(name: &str) -> String {
    // `identifier` has let no quotation mark through.
    format!("\"{name}\"")
}

fn identifier(what: &str, name: &str) -> Result<String, StoreError> {
    let mut characters = name.chars();
    let first = characters.next();
    let fits = first.is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|one| one.is_ascii_alphanumeric() || one == '_')
        && name.len() <= LONGEST;
    if fits {
        return Ok(name.to_owned());
    }
    Err(StoreError::Invalid {
        reason: format!(
            "the {what} {name:?} is not allowed: use 1 to {LONGEST} ASCII letters, digits and underscores, \
             not beginning with a digit"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_into_statements_quoted_and_with_their_schema() {
        let names = Names::new(Some("app"), [("runs".to_owned(), "app_runs".to_owned())]).unwrap();
        assert_eq!(
            names.fill("SELECT 1 FROM {runs} JOIN {journal} USING (run_id)"),
            "SELECT 1 FROM \"app\".\"app_runs\" JOIN \"app\".\"journal\" USING (run_id)"
        );
        assert_eq!(
            names.fill("CREATE INDEX :\"runs_due\" ON :\"schema\".:\"runs\""),
            "CREATE INDEX \"app_runs_due\" ON \"app\".\"app_runs\""
        );
    }

    #[test]
    fn odd_names_are_refused() {
        for name in ["", "1runs", "a b", "a\"b", "runs;", "ü", &"a".repeat(64)] {
            assert!(Names::new(Some(name), []).is_err(), "{name:?}");
            assert!(
                Names::new(None, [("runs".to_owned(), name.to_owned())]).is_err(),
                "{name:?}"
            );
        }
        assert!(Names::new(None, [("run".to_owned(), "x".to_owned())]).is_err());
        assert!(Names::new(None, [("runs".to_owned(), "journal".to_owned())]).is_err());
    }
}
