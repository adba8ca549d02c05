//! Messages for runs that are driven here: asked for at once when one is sent through this engine,
//! and from time to time, or when the store gives a hint, for those that other engines send.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::RunRow;
use duramen_core::store::Message;
use tokio::sync::Notify;

use crate::common::Common;
use crate::env::{Moment, span};
use crate::host::{HostEvent, Ticket};
use crate::inline::on_completion;
use crate::leases::Leases;

/// How often messages are looked for, at first and when none have come for a while.
const SOONEST: Millis = 100;
const LATEST: Millis = 500;
/// The shortest pause, however many hints come.
const HINTED: Millis = 20;

/// Nobody is asking.
const IDLE: u8 = 0;
const ASKING: u8 = 1;
/// The question under way may have been answered before a message came that is known of.
const AGAIN: u8 = 2;

/// A run that the host has been given, with its messages up to one.
pub(super) struct Given {
    pub(super) ticket: Ticket,
    pub(super) run_id: RunId,
    pub(super) told: u64,
    /// What the store knows of that.
    pub(super) known: u64,
}

impl Given {
    pub(super) fn new(ticket: Ticket, row: &RunRow, told: u64) -> Self {
        Self {
            ticket,
            run_id: row.run_id.clone(),
            told,
            known: row.inbox_seen,
        }
    }
}

#[derive(Debug)]
struct Told {
    run_id: RunId,
    /// The highest message that the host has been given.
    last: u64,
    /// What the store knows of that.
    known: u64,
}

/// See the module's head.
pub(crate) struct Unread {
    common: Arc<Common>,
    leases: Arc<Leases>,
    /// What the host has been given, of each run that it drives.
    told: Mutex<BTreeMap<Ticket, Told>>,
    asking: AtomicU8,
    hinted: AtomicBool,
    bell: Arc<Notify>,
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

impl Unread {
    /// Looks as long as runs are held.
    pub(super) fn new(common: Arc<Common>, leases: Arc<Leases>) -> Arc<Self> {
        let unread = Arc::new(Self {
            common,
            leases,
            told: Mutex::default(),
            asking: AtomicU8::new(IDLE),
            hinted: AtomicBool::new(false),
            bell: Arc::default(),
        });
        let polling = poll(Arc::downgrade(&unread), Arc::clone(&unread.bell));
        unread.common.env.spawn(Box::pin(polling));
        unread
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<Ticket, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host has been given the run, with the messages up to one.
    pub(super) fn begin(&self, given: Given) {
        let Given {
            ticket,
            run_id,
            told: last,
            known,
        } = given;
        let told = Told {
            run_id,
            last,
            known,
        };
        self.told().insert(ticket, told);
    }

    /// The store knows that messages up to that one were seen.
    pub(super) fn known(&self, ticket: Ticket, seen: u64) {
        if let Some(told) = self.told().get_mut(&ticket) {
            told.known = told.known.max(seen);
        }
    }

    /// What the host was told that the store does not know of: it need not come again.
    fn ahead(&self) -> Vec<(RunId, u64)> {
        self.told()
            .values()
            .filter(|told| told.last > told.known)
            .map(|told| (told.run_id.clone(), told.last))
            .collect()
    }

    pub(super) fn end(&self, ticket: Ticket) {
        self.told().remove(&ticket);
    }

    /// There are runs to look for, or an end to be noticed.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) fn hint(&self) {
        if !self.hinted.swap(true, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// Brings messages that arrived meanwhile to the runs that are driven here. One question is
    /// under way at a time; however many come in meanwhile, one more follows it.
    pub(super) fn fetch(self: &Arc<Self>) {
        let before = self
            .asking
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                Some(if state == IDLE { ASKING } else { AGAIN })
            });
        if before != Ok(IDLE) {
            return;
        }
        let unread = Arc::clone(self);
        let owner = self.common.owner().to_string();
        // A run that is taken up while the answer is on its way may be another life of an id, whose messages these
        // are not: it has come with its own.
        let newest = self.told().keys().next_back().copied();
        on_completion(
            self.common.store.unread(owner, self.ahead()),
            move |result| {
                match result {
                    Ok(messages) => unread.hand_over(messages, newest),
                    Err(error) => tracing::debug!(%error, "unread messages could not be read"),
                }
                if unread.asking.swap(IDLE, Ordering::AcqRel) == AGAIN {
                    unread.fetch();
                }
            },
        );
    }

    /// Gives messages to the runs that were driven here when they were asked for.
    fn hand_over(&self, messages: Vec<Message>, newest: Option<Ticket>) {
        let mut by_ticket: BTreeMap<Ticket, Vec<Message>> = BTreeMap::new();
        {
            let mut told = self.told();
            for message in messages {
                if let Some(ticket) = self.leases.held().ticket_of(&message.run_id)
                    && newest.is_some_and(|newest| ticket <= newest)
                    && let Some(told) = told.get_mut(&ticket)
                    && told.last < message.seq
                {
                    told.last = message.seq;
                    by_ticket.entry(ticket).or_default().push(message);
                }
            }
        }
        if !by_ticket.is_empty() {
            // Where one message came, the next is likely.
            self.bell.notify_one();
        }
        self.common.host.push_all(
            by_ticket
                .into_iter()
                .map(|(ticket, messages)| HostEvent::Messages { ticket, messages }),
        );
    }
}

async fn poll(weak: Weak<Unread>, bell: Arc<Notify>) {
    let mut pause = SOONEST;
    let mut last = Moment::LONG_AGO;
    let mut next = Moment::NEVER;
    while let Some(unread) = weak.upgrade().filter(|unread| !unread.common.is_closing()) {
        let hinted = unread.hinted.swap(false, Ordering::AcqRel);
        let sleep = (unread.leases.held().len() > 0).then(|| {
            let now = unread.common.clock.moment();
            next = next.min(now.after(pause));
            if hinted {
                next = next.min(last.after(HINTED));
            }
            if now >= next {
                unread.fetch();
                last = now;
                pause = (pause * 5 / 4).min(LATEST);
                next = now.after(pause);
            }
            unread.common.env.sleep(span(next.since(now)))
        });
        drop(unread);
        let Some(sleep) = sleep else {
            // A run that is claimed comes with its messages.
            bell.notified().await;
            (pause, next) = (SOONEST, Moment::NEVER);
            continue;
        };
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = bell.notified() => pause = SOONEST,
        }
    }
}
