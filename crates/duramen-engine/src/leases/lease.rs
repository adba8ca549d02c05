//! The one lease of this process: whether it lasts for certain, and who waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duramen_core::ids::Millis;
use duramen_core::journal::ENCODING;
use duramen_core::store::{Heartbeat, StoreError};
use tokio::sync::{Notify, oneshot};

use super::held::Held;
use crate::clock::Until;
use crate::commits::Releases;
use crate::common::Common;
use crate::host::{HostEvent, Ticket};

/// What those who drive runs are told by the keeper and the audit.
pub(crate) trait Listener: Send + Sync {
    /// The run is not held any more: nobody drives it here.
    fn lost(&self, ticket: Ticket);
    /// Runs that nobody drove here although they were leased to this process are free again.
    fn freed(&self);
}

type Waiter = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

#[derive(Default)]
struct State {
    /// Until when the lease lasts for certain.
    until: Option<Until>,
    /// The store may have a row of this process.
    registered: bool,
    waiters: Vec<Waiter>,
    closed: bool,
}

/// See the module's head.
pub(crate) struct Leases {
    pub(super) common: Arc<Common>,
    pub(super) releases: Arc<Releases>,
    held: Held,
    state: Mutex<State>,
    /// Somebody waits for a lease, or the keeper is to close.
    pub(super) bell: Arc<Notify>,
    /// The lease was renewed, or the audit is to look at once, or to close.
    pub(super) renewed: Arc<Notify>,
    /// An answer was lost that may have given this process runs.
    doubt: AtomicBool,
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Leases {
    pub(crate) fn new(common: Arc<Common>, releases: Arc<Releases>) -> Arc<Self> {
        Arc::new(Self {
            held: Held::new(common.owner()),
            common,
            releases,
            state: Mutex::default(),
            bell: Arc::default(),
            renewed: Arc::default(),
            doubt: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        self.bell.notify_one();
        self.renewed.notify_one();
    }

    /// A claim has failed, and may have taken place: the audit looks now instead of at its time.
    pub(crate) fn doubt(&self, error: &StoreError) {
        if error.is_of_the_place() {
            self.doubt.store(true, Ordering::Release);
            self.renewed.notify_one();
        }
    }

    /// The look has failed as well: it is made up for with the next heartbeat that succeeds.
    pub(super) fn keep_doubt(&self) {
        self.doubt.store(true, Ordering::Release);
    }

    /// Whether there was such a failure since the last call.
    pub(super) fn takes_doubt(&self) -> bool {
        self.doubt.swap(false, Ordering::AcqRel)
    }

    /// Whoever waits is told that there is nothing to wait for any more.
    pub(crate) fn close(&self) {
        let waiters = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            waiter(Err(StoreError::Closed));
        }
        self.ring();
    }

    pub(crate) fn span(&self) -> Millis {
        self.common.config.lease
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Whether a run is this process's for certain: known here as such, and the lease has not ended since it
    /// was renewed. A process that was stopped for longer than that has work on its hands that others may
    /// have taken up, and does not know it yet.
    pub(crate) fn holds(&self, ticket: Ticket) -> bool {
        self.held.has(ticket) && self.lasts()
    }

    fn lasts(&self) -> bool {
        let until = self.state().until;
        until.is_some_and(|until| self.common.clock.lasts(until))
    }

    /// Calls back as soon as this process has a lease: at once if it has, else after the next heartbeat,
    /// which is not waited for.
    pub(crate) fn when_ready(&self, then: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        if self.lasts() {
            return then(Ok(()));
        }
        let mut state = self.state();
        if state.closed {
            drop(state);
            return then(Err(StoreError::Closed));
        }
        state.waiters.push(Box::new(then));
        drop(state);
        self.bell.notify_one();
    }

    /// The same for tasks.
    pub(crate) async fn ready(&self) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        self.when_ready(move |ready| {
            // Whoever asked may have been dropped.
            let _ = tell.send(ready);
        });
        told.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same for claims of an explicit instant: the lease must last then as well. Until the next
    /// heartbeat it lasts for longer than it should; such instants are for tests.
    pub(crate) async fn ready_at(&self, instant: Option<Millis>) -> Result<(), StoreError> {
        loop {
            self.ready().await?;
            let now = self.common.clock.now();
            let ahead = instant.map_or(0, |instant| instant.saturating_sub(now));
            if ahead <= 0 {
                return Ok(());
            }
            let owner = self.common.owner();
            let beat = Heartbeat {
                lease: self.span().saturating_add(ahead),
                ..self.heartbeat(&owner)
            };
            if self.common.store.heartbeat(beat).await?.alive {
                return Ok(());
            }
            self.lapsed(&owner);
        }
    }

    pub(super) fn heartbeat(&self, owner: &str) -> Heartbeat {
        Heartbeat {
            owner: owner.to_owned(),
            lease: self.span(),
            label: self.common.config.label.clone(),
            serves: self.common.config.serves.clone(),
            format: ENCODING,
            succeeds: None,
            now: self.common.clock.explicit_now(),
        }
    }

    /// The store says that the owner of that name has no lease. The keeper finds out why.
    pub(crate) fn lapsed(&self, owner: &str) {
        if *self.common.owner() == *owner {
            self.state().until = None;
            self.bell.notify_one();
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.state().waiters.is_empty()
    }

    pub(super) fn is_registered(&self) -> bool {
        self.state().registered
    }

    /// A heartbeat is about to be sent.
    pub(super) fn registers(&self) {
        self.state().registered = true;
    }

    /// The lease lasts until then.
    pub(super) fn renew(&self, until: Until) {
        self.state().until = Some(until);
        self.tell(&Ok(()));
        self.renewed.notify_one();
    }

    /// What this process had for its lease is none any more.
    pub(super) fn ends(&self) {
        self.state().until = None;
    }

    pub(super) fn tell(&self, ready: &Result<(), StoreError>) {
        let waiters = std::mem::take(&mut self.state().waiters);
        for waiter in waiters {
            waiter(ready.clone());
        }
    }

    /// The store says that these are not held any more. Their places are free at once; the host is
    /// told, and a host that does not know them cannot keep them here.
    pub(super) fn drop_lost(
        &self,
        listener: Option<&Arc<dyn Listener>>,
        lost: impl IntoIterator<Item = (Ticket, i64)>,
    ) {
        let mut events = Vec::new();
        for (ticket, epoch) in lost {
            if self.held.believes(ticket, epoch) {
                if let Some(listener) = listener {
                    listener.lost(ticket);
                }
                events.push(HostEvent::Lost {
                    ticket,
                    epoch,
                    error: None,
                });
            }
        }
        self.common.host.push_all(events);
    }

    /// Ends this owner, so that what it still holds is anybody's at once.
    pub(crate) async fn retire(&self) {
        if !self.is_registered() {
            return;
        }
        let (present, latest) = {
            let incarnation = &self.common.incarnation;
            (incarnation.present(), incarnation.latest())
        };
        let changing = (latest != present).then_some(latest);
        for owner in [Some(present), changing].into_iter().flatten() {
            let now = self.common.clock.explicit_now();
            let retired = self.common.store.retire(owner.to_string(), now).await;
            if let Err(error) = retired {
                tracing::debug!(%error, "the owner could not be retired; its lease will end");
            }
        }
    }
}
