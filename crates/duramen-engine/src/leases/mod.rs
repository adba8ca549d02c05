//! This process's lease: under which name it holds runs, which, and until when for certain.
//!
//! One lease covers all that a process holds. The keeper renews it, and takes a new name when it has lapsed;
//! the audit compares what the store says that the process holds with what is in hand. Whoever drives the
//! runs is told through [`Listener`], and nothing here knows what driving is.

mod audit;
mod held;
mod keeper;
mod lease;

use std::sync::{Arc, Weak};

pub(crate) use held::{Leaving, Tenure};
pub(crate) use lease::{Leases, Listener};

/// Renews the lease from its first request on, and audits what is held, until it is closed or dropped.
pub(crate) fn keep(leases: &Arc<Leases>, listener: &Weak<dyn Listener>) {
    keeper::keep(leases, Weak::clone(listener));
    audit::audit(leases, Weak::clone(listener));
}
