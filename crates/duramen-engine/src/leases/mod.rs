//! This process's leases: what it holds, and until when for certain.
//!
//! The keeper renews them and finds out what was lost. Whoever drives the runs is told through
//! [`Listener`], and nothing here knows what driving is.

mod held;
mod keeper;
mod lease;

pub(crate) use held::{Leaving, Tenure};
pub(crate) use keeper::keep;
pub(crate) use lease::{Leases, Listener};
