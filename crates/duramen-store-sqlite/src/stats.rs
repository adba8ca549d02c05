//! What the writer has done since the store was opened.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Counts for tests, benchmarks and health pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Transactions that were committed.
    pub transactions: u64,
    /// Runs created, run commits, messages, claims, heartbeats and interventions that were asked for.
    pub elements: u64,
    /// Requests that had to be repeated alone, because something in their group failed.
    pub retried: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) transactions: AtomicU64,
    pub(crate) elements: AtomicU64,
    pub(crate) retried: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        Stats {
            transactions: self.transactions.load(Relaxed),
            elements: self.elements.load(Relaxed),
            retried: self.retried.load(Relaxed),
        }
    }
}
