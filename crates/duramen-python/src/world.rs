//! The tokio runtime: made on first use, bound to the process that made it.

use std::sync::OnceLock;

use pyo3::PyResult;
use pyo3::exceptions::PyRuntimeError;
use tokio::runtime::{Builder, Handle, Runtime};

struct World {
    process: u32,
    runtime: Runtime,
}

static WORLD: OnceLock<World> = OnceLock::new();

/// The runtime of this process. A forked child has none: its parent's threads did not come along.
pub(crate) fn handle() -> PyResult<Handle> {
    if let Some(world) = WORLD.get() {
        return world.checked();
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("duramen-engine")
        .enable_time()
        .build()?;
    let world = WORLD.get_or_init(|| World {
        process: std::process::id(),
        runtime,
    });
    world.checked()
}

impl World {
    fn checked(&self) -> PyResult<Handle> {
        if self.process == std::process::id() {
            return Ok(self.runtime.handle().clone());
        }
        Err(PyRuntimeError::new_err(
            "forked: this process was forked from one that uses duramen; start workers with the \
             \"spawn\" or \"forkserver\" method, or open the Runtime after the fork in a process that \
             had none",
        ))
    }
}
