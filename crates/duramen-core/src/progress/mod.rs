//! How far one run has come: what the machine and the primitives share, and what stands below both.
//!
//! Each file has a state of its own and few methods; [`state::Progress`] holds them together for the
//! machine, and [`desk::Desk`] is the part of it that a primitive is given.

pub(crate) mod arrivals;
pub(crate) mod clock;
pub(crate) mod desk;
pub mod divergence;
pub(crate) mod ends;
pub(crate) mod facts;
pub mod history;
pub mod ledger;
pub(crate) mod looks;
pub mod naming;
pub mod op;
pub(crate) mod patches;
pub(crate) mod state;
pub(crate) mod steps;
pub(crate) mod streams;
pub(crate) mod turn;
pub(crate) mod updates;
