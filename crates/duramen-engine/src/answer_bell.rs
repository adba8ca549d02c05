//! Rings when an answer was given here, if anybody waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use duramen_core::store::{Next, RunCommit};
use tokio::sync::Notify;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct AnswerBell {
    waiting: AtomicUsize,
    rung: AtomicBool,
    bell: Arc<Notify>,
}

impl AnswerBell {
    /// That commit took place.
    pub(crate) fn committed(&self, commit: &RunCommit) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        let answers = commit
            .read
            .iter()
            .any(|read| read.reply.is_some() || read.refused.is_some());
        if answers || matches!(commit.next, Next::Finished { .. } | Next::Stuck { .. }) {
            self.ring();
        }
    }

    /// There is a reason to look.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether it has rung since this was asked last.
    pub(crate) fn has_rung(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn wake(&self) {
        self.bell.notify_one();
    }

    /// So many wait.
    pub(crate) fn wait(&self, count: usize) {
        self.waiting.store(count, Ordering::Release);
    }

    /// Has one waiter, and a signal that comes before the wait is kept for it.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }
}
