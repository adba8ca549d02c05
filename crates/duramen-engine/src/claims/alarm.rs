//! What wakes the worker besides time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duramen_core::ids::Millis;
use tokio::sync::Notify;

use crate::common::Common;
use crate::env::Moment;

/// What has happened since the worker looked.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    /// Something may be due: look now.
    pub(super) look: bool,
    /// The store has given a hint.
    pub(super) hinted: bool,
    /// The earliest instant at which something that was paused here is due.
    pub(super) due: Millis,
}

const NONE: News = News {
    look: false,
    hinted: false,
    due: Millis::MAX,
};

#[derive(Debug)]
struct State {
    news: News,
    /// Until when the worker sleeps.
    asleep_until: Moment,
}

/// See the module's head.
pub(crate) struct Alarm {
    common: Arc<Common>,
    state: Mutex<State>,
    /// Has one waiter, and a signal that comes before the wait is kept for it.
    pub(super) bell: Arc<Notify>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

impl Alarm {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            state: Mutex::new(State {
                news: NONE,
                asleep_until: Moment::LONG_AGO,
            }),
            bell: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may be due: look now.
    pub(crate) fn nudge(&self) {
        self.state().news.look = true;
        self.bell.notify_one();
    }

    /// Something else has changed than that something may be due.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// The store says that another process may have changed something. A hint is not a nudge: there
    /// may be thousands a second, and they are answered only so often.
    pub(super) fn hint(&self) {
        if !std::mem::replace(&mut self.state().news.hinted, true) {
            self.bell.notify_one();
        }
    }

    /// Something is due at that instant: a worker that means to sleep longer is told.
    pub(super) fn due_at(&self, at: Millis) {
        let moment = self.common.clock.moment_of(at);
        let mut state = self.state();
        state.news.due = state.news.due.min(at);
        let sooner = moment < state.asleep_until;
        drop(state);
        if sooner {
            self.bell.notify_one();
        }
    }

    /// From here on whatever happens is kept for the worker's sleep. Hints are kept for when it works.
    pub(super) fn awake(&self, working: bool) -> News {
        let mut state = self.state();
        state.asleep_until = Moment::NEVER;
        let news = std::mem::replace(&mut state.news, NONE);
        state.news.hinted = news.hinted && !working;
        news
    }

    pub(super) fn asleep(&self, until: Moment) {
        self.state().asleep_until = until;
    }
}
