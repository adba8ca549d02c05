//! The extension module `duramen._native`: it converts values and wakes event loops, and decides nothing.

mod clock;
mod engine;
mod events;
mod logs;
mod outside;
mod pystore;
mod record;
mod reply;
mod rows;
mod run;
mod storeobj;
mod stores;
mod turns;
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
    use super::events::{Advance, Drive, Evict, Lost, Newer, Reply, Resume, StoreRequest};
    #[pymodule_export]
    use super::logs::{LogEvent, set_log_levels, take_logs, wake_logs};
    #[pymodule_export]
    use super::outside::{Change, SqlFailed, SqliteConnection};
    #[pymodule_export]
    use super::reply::{Answer, Created, Delivered, Schema, Started, Swept, SweptRun};
    #[pymodule_export]
    use super::rows::{
        Detail, DueSchedules, Entry, OpenRuns, OwnerRow, Page, Refused, Row, ScheduleRow,
        StreamItem, StreamPage,
    };
    #[pymodule_export]
    use super::run::{Halted, InvalidIdError, Run};
    #[pymodule_export]
    use super::storeobj::StoreObject;
    #[pymodule_export]
    use super::turns::{
        Apply, Cancel, ChildEnded, Completed, Deliver, Failed, Fired, Offer, Received, Seal, Start,
        TimeOut, TimedOut,
    };

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// The highest encoding of entries and messages that this build reads.
    #[pymodule_export]
    const ENCODING: u8 = duramen_core::journal::ENCODING;

    #[pymodule_init]
    #[allow(clippy::unnecessary_wraps)] // the form that PyO3 wants
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::logs::install();
        Ok(())
    }
}
