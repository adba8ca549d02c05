//! Waking the host's event loop: the one place of the product with `unsafe` code.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use duramen_engine::WakeHost;
use pyo3::prelude::*;

/// Wakes by writing 8 bytes to an eventfd or a pipe that the loop watches.
pub(crate) fn by_descriptor(fd: RawFd) -> PyResult<WakeHost> {
    // SAFETY: the caller passes a descriptor that it holds open for the length of this call; it is
    // duplicated right here, so its later closing cannot make us write to somebody else's file.
    let owned: OwnedFd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    let file = File::from(owned);
    Ok(Box::new(move || {
        // A full pipe means that a wake-up is pending already.
        let _ = (&file).write(&1_u64.to_ne_bytes());
    }))
}

/// Wakes by a callable, such as a coalesced `call_soon_threadsafe`, where a loop cannot watch descriptors.
pub(crate) fn by_callable(callable: Py<PyAny>) -> WakeHost {
    Box::new(move || {
        Python::attach(|py| {
            if let Err(error) = callable.call0(py) {
                // The loop is closed: nobody is left to be woken.
                drop(error);
            }
        });
    })
}
