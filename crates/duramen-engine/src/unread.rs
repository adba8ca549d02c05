//! Messages for runs that are driven here: asked for at once when one is sent through this engine,
//! and from time to time, or when the store gives a hint, for those that other engines send.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use duramen_core::ids::Millis;
use duramen_core::store::{Hint, Message};

use crate::engine::{Engine, Signals};
use crate::env::span;
use crate::host::{HostEvent, Ticket};
use crate::inline::on_completion;

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

/// Looks as long as runs are active.
pub(crate) async fn poll(weak: Weak<Engine>, signals: Arc<Signals>) {
    let mut pause = SOONEST;
    let mut last = Millis::MIN;
    let mut next = Millis::MAX;
    while let Some(engine) = weak.upgrade().filter(|engine| !engine.is_closing()) {
        let hinted = engine.take_hinted(Hint::Unread);
        let sleep = (engine.active() > 0).then(|| {
            let now = engine.env.now();
            // Never further away than the pause: the clock may have been set back.
            next = next.min(now.saturating_add(pause));
            if hinted {
                next = next.min(last.saturating_add(HINTED));
            }
            if now >= next {
                engine.fetch_unread();
                last = now;
                pause = (pause * 5 / 4).min(LATEST);
                next = now.saturating_add(pause);
            }
            engine.env.sleep(span(next.saturating_sub(now)))
        });
        drop(engine);
        let Some(sleep) = sleep else {
            // A run that is claimed comes with its messages.
            signals.unread.notified().await;
            (pause, next) = (SOONEST, Millis::MAX);
            continue;
        };
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = signals.unread.notified() => pause = SOONEST,
        }
    }
}

impl Engine {
    /// Brings messages that arrived meanwhile to the runs that are driven here. One question is
    /// under way at a time; however many come in meanwhile, one more follows it.
    pub(crate) fn fetch_unread(self: &Arc<Self>) {
        let before = self
            .fetching
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                Some(if state == IDLE { ASKING } else { AGAIN })
            });
        if before != Ok(IDLE) {
            return;
        }
        let engine = Arc::clone(self);
        on_completion(
            self.store.unread(self.config.owner.clone()),
            move |result| {
                match result {
                    Ok(messages) => engine.hand_over(messages),
                    Err(error) => tracing::debug!(%error, "unread messages could not be read"),
                }
                if engine.fetching.swap(IDLE, Ordering::AcqRel) == AGAIN {
                    engine.fetch_unread();
                }
            },
        );
    }

    fn hand_over(&self, messages: Vec<Message>) {
        let mut by_ticket: BTreeMap<Ticket, Vec<Message>> = BTreeMap::new();
        {
            let mut registry = self.registry();
            for message in messages {
                if let Some(ticket) = registry.tell(&message) {
                    by_ticket.entry(ticket).or_default().push(message);
                }
            }
        }
        if !by_ticket.is_empty() {
            // Where one message came, the next is likely.
            self.signals.unread.notify_one();
        }
        self.host.push_all(
            by_ticket
                .into_iter()
                .map(|(ticket, messages)| HostEvent::Messages { ticket, messages }),
        );
    }
}
