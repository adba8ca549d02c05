//! Under which name this process holds runs.
//!
//! A name that let its lease lapse has ended for good. The process goes on under the next one, `NAME~2`,
//! `NAME~3` and so on, and takes over what nobody else has taken. While it changes its name it is not known
//! under which of the two the store has its runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Names {
    present: Arc<str>,
    /// The one that is being taken.
    next: Option<Arc<str>>,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Incarnation {
    base: String,
    /// Of the last name that was tried.
    number: AtomicU32,
    /// How often the present name has changed: drivers ask with each turn.
    changes: AtomicU32,
    names: Mutex<Names>,
}

impl Incarnation {
    pub(crate) fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            number: AtomicU32::new(1),
            changes: AtomicU32::new(0),
            names: Mutex::new(Names {
                present: base.into(),
                next: None,
            }),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn present(&self) -> Arc<str> {
        Arc::clone(&self.names().present)
    }

    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// The one that is being taken, or that is had.
    pub(crate) fn latest(&self) -> Arc<str> {
        let names = self.names();
        Arc::clone(names.next.as_ref().unwrap_or(&names.present))
    }

    pub(crate) fn is_changing(&self) -> bool {
        self.names().next.is_some()
    }

    /// Whether a commit that was sent under that name and found another owner may be this process's all
    /// the same.
    pub(crate) fn has_changed_since(&self, sent_as: &str) -> bool {
        let names = self.names();
        names.next.is_some() || *names.present != *sent_as
    }

    /// Whether it is a name of this process as it is now.
    pub(crate) fn is_own(&self, owner: &str) -> bool {
        let names = self.names();
        *names.present == *owner || names.next.as_deref() == Some(owner)
    }

    /// The latest name has ended: the next one is to be taken.
    pub(crate) fn change(&self) {
        let number = self.number.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.names().next = Some(format!("{}~{number}", self.base).into());
    }

    /// The next name is registered, and has what is left.
    pub(crate) fn settle(&self) {
        let mut names = self.names();
        if let Some(next) = names.next.take() {
            names.present = next;
            drop(names);
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}
