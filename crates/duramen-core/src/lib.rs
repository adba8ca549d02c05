//! The core of Duramen: the journal, the replay machine and the [`store::Store`] contract.
//!
//! Nothing here does I/O or reads a clock; time and randomness are arguments.

pub mod ids;
pub mod journal;
pub mod run;
pub mod store;
