//! The core of Duramen: the journal, the replay machine and the [`store::Store`] contract.
//!
//! Nothing here does I/O or reads a clock; time and randomness are arguments.

pub mod check;
pub mod derive;
pub mod family;
pub mod ids;
pub mod inbox;
pub mod journal;
pub mod lanes;
pub mod machine;
pub mod primitives;
mod progress;
pub mod retry;
pub mod run;
pub mod store;
pub mod suspect;
