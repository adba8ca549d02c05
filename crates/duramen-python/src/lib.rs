//! The extension module `duramen._native`: it converts values and wakes event loops, and decides nothing.

mod clock;
mod codes;
mod engine;
mod outside;
mod pystore;
mod reply;
mod run;
mod storeobj;
mod stores;
mod wake;
mod world;

use pyo3::prelude::pymodule;

#[pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::clock::Clock;
    #[pymodule_export]
    use super::engine::{Engine, StoreFailed};
    #[pymodule_export]
    use super::outside::{Change, SqlFailed, SqliteConnection};
    #[pymodule_export]
    use super::run::{Halted, InvalidIdError, Run};
    #[pymodule_export]
    use super::storeobj::StoreObject;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// The codes, under their own names.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        for (name, code) in super::codes::ALL {
            module.add(*name, *code)?;
        }
        Ok(())
    }
}
