//! The tokio runtime: made on first use, bound to the process that made it.

use std::sync::{Mutex, PoisonError};

use pyo3::PyResult;
use tokio::runtime::{Builder, Handle, Runtime};

struct World {
    process: u32,
    runtime: Runtime,
}

/// Taken by Python threads only, and only while they hold the GIL: a fork never finds it locked.
static WORLD: Mutex<Option<World>> = Mutex::new(None);

/// The runtime of this process. A forked child makes its own: its parent's threads did not come
/// along. (What was opened before the fork stays unusable there, with a typed error.)
pub(crate) fn handle() -> PyResult<Handle> {
    let process = std::process::id();
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(world) = world.as_ref().filter(|world| world.process == process) {
        return Ok(world.runtime.handle().clone());
    }
    // Dropping the parent's runtime would wait for threads that do not exist here.
    std::mem::forget(world.take());
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("duramen-engine")
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    *world = Some(World { process, runtime });
    Ok(handle)
}
