//! Requests under way that may give this engine a lease, or give one back: the store stays open until
//! they are answered, or the runs would wait for the ends of their leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many there are.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    count: AtomicUsize,
    /// There is none any more. Only a closing engine waits for it.
    none: Notify,
}

/// One of them; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Pending>);

impl Pending {
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.count.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(self))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Completes when there is none.
    pub(crate) async fn over(&self) {
        while !self.is_empty() {
            self.none.notified().await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Kept for a waiter that has looked and does not wait yet.
            self.0.none.notify_one();
        }
    }
}
