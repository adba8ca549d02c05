//! The extension module `duramen._native`: it converts values and wakes event loops, and decides nothing.

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
