//! The concrete stores, by scheme. Only this crate names them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use duramen_core::store::{Store, StoreError};
use duramen_store_memory::MemoryStore;
use duramen_store_postgres::{
    Flavour, Isolation, Names, PostgresOptions, PostgresStore, Statements, Verify,
};
use duramen_store_sqlite::{SqliteOptions, SqliteStore, Synchronous};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::world;

/// A store, and its counters where it has any.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) counts: Counts,
    /// Names of the migrations that opening applied.
    pub(crate) applied: Vec<String>,
    /// Others in this process may use it too: closing a runtime must not close it.
    pub(crate) shared: bool,
}

/// Where a store's own counters are.
#[derive(Debug, Clone)]
pub(crate) enum Counts {
    None,
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl Counts {
    /// Names and values of the counters.
    pub(crate) fn read(&self) -> Vec<(&'static str, u64)> {
        match self {
            Self::None => Vec::new(),
            Self::Sqlite(store) => vec![("transactions", store.stats().transactions)],
            Self::Postgres(store) => {
                let stats = store.stats();
                vec![
                    ("statements", stats.statements),
                    ("round_trips", stats.round_trips),
                    ("repeated", stats.repeated),
                    ("connects", stats.connects),
                ]
            }
        }
    }
}

type Named = Mutex<BTreeMap<String, Weak<MemoryStore>>>;
static NAMED: OnceLock<Named> = OnceLock::new();

/// Opens the store of a scheme; the inner error is the store's own.
pub(crate) fn open(
    py: Python<'_>,
    scheme: &str,
    location: &str,
    options: &Bound<'_, PyDict>,
) -> PyResult<Result<Opened, StoreError>> {
    match scheme {
        "memory" => Ok(Ok(Opened {
            store: memory(location),
            counts: Counts::None,
            applied: Vec::new(),
            shared: !location.is_empty(),
        })),
        "sqlite" => {
            let mut settings = SqliteOptions::default();
            if let Some(migrate) = options.get_item("migrate")? {
                settings.migrate = migrate.extract()?;
            }
            if let Some(synchronous) = options.get_item("synchronous")? {
                settings.synchronous = match synchronous.extract::<&str>()? {
                    "normal" => Synchronous::Normal,
                    _ => Synchronous::Full,
                };
            }
            if let Some(timeout) = options.get_item("busy_timeout")? {
                settings.busy_timeout = std::time::Duration::from_millis(timeout.extract()?);
            }
            if let Some(most) = options.get_item("max_pages")? {
                settings.max_pages = most.extract()?;
            }
            let opened = py.detach(|| SqliteStore::open(Path::new(location), settings));
            Ok(opened.map(|store| {
                let applied = store.applied_on_open().to_vec();
                let store = Arc::new(store);
                Opened {
                    store: Arc::clone(&store) as Arc<dyn Store>,
                    counts: Counts::Sqlite(store),
                    applied,
                    shared: false,
                }
            }))
        }
        "postgres" => {
            let settings = match postgres_options(options)? {
                Ok(settings) => settings,
                Err(error) => return Ok(Err(error)),
            };
            let handle = world::handle()?;
            let opened = py.detach(|| handle.block_on(PostgresStore::connect(location, settings)));
            Ok(opened.map(|store| {
                let applied = store.applied_on_open().to_vec();
                let store = Arc::new(store);
                Opened {
                    store: Arc::clone(&store) as Arc<dyn Store>,
                    counts: Counts::Postgres(store),
                    applied,
                    shared: false,
                }
            }))
        }
        other => Ok(Err(StoreError::Invalid {
            reason: format!("there is no store of the scheme {other:?}"),
        })),
    }
}

/// The options of a Postgres store; the inner error is about its names.
fn postgres_options(options: &Bound<'_, PyDict>) -> PyResult<Result<PostgresOptions, StoreError>> {
    let mut settings = PostgresOptions::default();
    if let Some(migrate) = options.get_item("migrate")? {
        settings.migrate = migrate.extract()?;
    }
    if let Some(size) = options.get_item("pool_size")? {
        settings.pool_size = size.extract()?;
    }
    if let Some(cache) = options.get_item("statement_cache")? {
        settings.statements = match cache.extract::<&str>()? {
            "off" => Statements::Unnamed,
            _ => Statements::Named,
        };
    }
    if let Some(isolation) = options.get_item("isolation")? {
        settings.isolation = match isolation.extract::<&str>()? {
            "serializable" => Isolation::Serializable,
            "repeatable_read" => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
    }
    if let Some(flavour) = options.get_item("flavour")? {
        settings.flavour = Some(match flavour.extract::<&str>()? {
            "routed" => Flavour::Routed,
            _ => Flavour::Plain,
        });
    }
    if let Some(timeout) = options.get_item("store_timeout")? {
        settings.timeout = std::time::Duration::from_millis(timeout.extract()?);
    }
    if let Some(notify) = options.get_item("notify")? {
        settings.notify = notify.extract()?;
    }
    if let Some(verify) = options.get_item("tls")? {
        settings.tls.verify = match verify.extract::<&str>()? {
            "host" => Verify::Host,
            _ => Verify::Authority,
        };
    }
    if let Some(path) = options.get_item("sslrootcert")? {
        settings.tls.root_cert = Some(path.extract()?);
        // As with libpq, a list of authorities is there to be used.
        if settings.tls.verify == Verify::Nothing {
            settings.tls.verify = Verify::Authority;
        }
    }
    let schema: Option<String> = match options.get_item("schema")? {
        Some(schema) => Some(schema.extract()?),
        None => None,
    };
    let tables: BTreeMap<String, String> = match options.get_item("tables")? {
        Some(tables) => tables.extract()?,
        None => BTreeMap::new(),
    };
    Ok(Names::new(schema.as_deref(), tables).map(|names| PostgresOptions { names, ..settings }))
}

/// A store of its own, or one that all runtimes of the process share under a name.
fn memory(name: &str) -> Arc<dyn Store> {
    if name.is_empty() {
        return Arc::new(MemoryStore::new());
    }
    let mut named = NAMED
        .get_or_init(Named::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = named.get(name).and_then(Weak::upgrade) {
        return store;
    }
    let store = Arc::new(MemoryStore::new());
    named.insert(name.to_owned(), Arc::downgrade(&store));
    store
}
