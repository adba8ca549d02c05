//! What the parts of one engine share: the store, the world, the host, and what they were told once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use duramen_core::ids::Millis;
use duramen_core::journal::ENCODING;
use duramen_core::store::{Store, StoreError, StoreFuture};

use crate::answer_bell::AnswerBell;
use crate::clock::Clock;
use crate::env::{Env, Moment};
use crate::host::{HostEvent, HostQueue, Reply, Token};
use crate::incarnation::Incarnation;
use crate::inline::on_completion;
use crate::outbox::Outbox;
use crate::pending::Pending;

/// How long a caller is kept waiting while the place is in trouble, in milliseconds.
const CALLERS_PATIENCE: Millis = 2_000;

/// How often a call is sent again under a clock that stands still.
const TRIES_WITHOUT_TIME: u32 = 3;

/// What an engine is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Unique to this engine among all that live: exclusion rests on it. After a lapse of its lease the
    /// engine goes on under `OWNER~2`, `OWNER~3` and so on.
    pub owner: String,
    /// For people: host and process.
    pub label: Option<String>,
    /// For people: what it serves.
    pub serves: Vec<String>,
    pub lease: Millis,
    /// How near a deadline must be for the lease to be kept meanwhile.
    pub hold: Millis,
    /// How many paused runs are kept warm.
    pub warm: usize,
    /// Others use the store too: closing the engine leaves it open.
    pub shared_store: bool,
}

/// Counters, for tests and for people.
#[derive(Debug, Default)]
pub struct Counters {
    pub claims: AtomicU64,
    pub claimed: AtomicU64,
    /// Driven to their ends here, or parked.
    pub ended: AtomicU64,
    pub lost: AtomicU64,
    pub heartbeats: AtomicU64,
    /// Runs that were leased to this engine although nobody drove them here, and were let go.
    pub orphans: AtomicU64,
}

/// See the module's head.
pub(crate) struct Common {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) host: Arc<HostQueue>,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) pending: Arc<Pending>,
    pub(crate) incarnation: Incarnation,
    pub(crate) outbox: Outbox,
    pub(crate) answers: AnswerBell,
    closing: AtomicBool,
    /// Whoever runs this build was told that runs wait for a newer one.
    told_of_newer: AtomicBool,
}

impl Common {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        env: Arc<dyn Env>,
        host: Arc<HostQueue>,
        config: Config,
    ) -> Self {
        Self {
            store,
            clock: Clock::new(Arc::clone(&env)),
            env,
            host,
            incarnation: Incarnation::new(&config.owner),
            config,
            outbox: Outbox::default(),
            answers: AnswerBell::default(),
            counters: Counters::default(),
            pending: Arc::default(),
            closing: AtomicBool::new(false),
            told_of_newer: AtomicBool::new(false),
        }
    }

    /// The name under which this process holds runs now.
    pub(crate) fn owner(&self) -> Arc<str> {
        self.incarnation.present()
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.outbox.bell.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Tells the host, once, that runs are left to those who can read them.
    pub(crate) fn tell_of_newer(&self) {
        if !self.told_of_newer.swap(true, Ordering::AcqRel) {
            self.host.push(HostEvent::Newer { reads: ENCODING });
        }
    }

    pub(crate) fn has_told_of_newer(&self) -> bool {
        self.told_of_newer.load(Ordering::Acquire)
    }

    /// When a call that somebody waits for is sent again, after so many failures; none: no more. The first
    /// repetition comes at once: most answers are lost alone. A stranger's lock is waited for as long as
    /// a lease, trouble of the place only for moments: its caller knows better what to do meanwhile.
    pub(crate) fn next_try(
        &self,
        failures: u32,
        since: Moment,
        error: &StoreError,
    ) -> Option<Duration> {
        if self.is_closing() || !error.is_of_the_place() {
            return None;
        }
        if self.clock.explicit_now().is_some() {
            // Whoever would move that clock may be waiting for this call.
            return (failures <= TRIES_WITHOUT_TIME).then_some(Duration::ZERO);
        }
        let patience = match error {
            StoreError::Locked { .. } => self.config.lease,
            _ => CALLERS_PATIENCE.min(self.config.lease),
        };
        if self.clock.moment().since(since) >= patience {
            return None;
        }
        Some(match failures {
            0 | 1 => Duration::ZERO,
            more => Duration::from_millis(25 << more.min(6)),
        })
    }

    /// Sends a store's answer to the host as a reply.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        token: Token,
        future: StoreFuture<T>,
        into: impl FnOnce(T) -> Reply + Send + 'static,
    ) {
        let host = Arc::clone(&self.host);
        on_completion(future, move |result| {
            host.push(HostEvent::Reply {
                token,
                reply: result.map(into),
            });
        });
    }
}
