//! The concrete stores, by scheme. Only this crate names them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use duramen_core::store::{Store, StoreError};
use duramen_store_memory::MemoryStore;
use duramen_store_sqlite::{SqliteOptions, SqliteStore, Synchronous};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A store, and its counters where it has any.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sqlite: Option<Arc<SqliteStore>>,
    /// Names of the migrations that opening applied.
    pub(crate) applied: Vec<String>,
    /// Others in this process may use it too: closing a runtime must not close it.
    pub(crate) shared: bool,
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
            sqlite: None,
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
                    sqlite: Some(store),
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
