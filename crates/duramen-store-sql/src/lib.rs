//! What stores in SQL databases share: which columns they read and what these mean, how a filter becomes
//! conditions, how migrations are numbered, and what is said of a run that cannot be read.
//!
//! No driver of a database is known here, and no statement: each store has its own, which name the columns
//! by the macros of this crate.

mod census;
mod columns;
mod damage;
pub mod filter;
pub mod lists;
mod migrations;

pub use census::open_runs;
pub use columns::{
    Columns, ENTRY_COLUMNS, RUN_COLUMNS, entry, message, payload, run_row, schedule_row,
    stream_item,
};
pub use damage::{Damaged, unreadable, whole};
pub use migrations::{Found, Migration, Migrations};
