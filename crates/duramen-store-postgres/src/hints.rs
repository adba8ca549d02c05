//! Hints by `LISTEN` and `NOTIFY`: "there may be something due".
//!
//! Nothing depends on them. They are sent outside the transactions that they are about (a `NOTIFY` inside
//! would make all commits queue for one lock), and at most once in [`TOGETHER`]: a hint says nothing
//! that a poll would not find.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use duramen_core::store::{Hint, Wake};
use tokio::time::sleep;

use crate::link::{Link, Target, connect};
use crate::options::Names;

/// What happens within this time is one hint.
const TOGETHER: Duration = Duration::from_millis(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The way out for hints.
pub(crate) struct Hints {
    link: Link,
    channel: String,
    /// What this store's own hints begin with, so that it does not listen to itself.
    me: String,
    /// The kinds that are about to go, as bits.
    gathered: AtomicU8,
}

const KINDS: [Hint; 2] = [Hint::Due, Hint::Unread];

fn bit(hint: Hint) -> u8 {
    match hint {
        Hint::Due => 1,
        Hint::Unread => 2,
    }
}

impl Hints {
    pub(crate) fn new(target: Arc<Target>, names: &Names) -> Self {
        let channel = format!("\"duramen_{}\"", names.schema());
        // An address is unique among the stores of a process, a process among those of a host; two stores
        // that are called the same by chance poll as if there were no hints.
        let me = format!("{}.{:p}", std::process::id(), Arc::as_ptr(&target));
        Self {
            link: Link::new(target),
            channel,
            me,
            gathered: AtomicU8::new(0),
        }
    }

    /// Sends a hint soon, together with others.
    pub(crate) fn send(self: &Arc<Self>, hint: Hint) {
        if self.gathered.fetch_or(bit(hint), Ordering::AcqRel) != 0 {
            return;
        }
        let hints = Arc::clone(self);
        tokio::spawn(async move {
            sleep(TOGETHER).await;
            let kinds = hints.gathered.swap(0, Ordering::AcqRel);
            // A channel of a checked identifier, and a payload of digits and points.
            let command = format!("NOTIFY {}, '{} {kinds}'", hints.channel, hints.me);
            if let Err(fault) = hints.link.command(&command).await {
                tracing::debug!(?fault, "a hint could not be sent");
            }
        });
    }

    pub(crate) async fn close(&self) {
        self.link.close().await;
    }

    /// Listens until the task is aborted. `wake` is called for each hint of others, and after each time in
    /// which hints may have been missed.
    pub(crate) async fn listen(self: Arc<Self>, target: Arc<Target>, wake: Wake) {
        let listen = format!("LISTEN {}", self.channel);
        let mut pause = FIRST_PAUSE;
        loop {
            let (me, heard) = (self.me.clone(), Arc::clone(&wake));
            let hear = move |payload: &str| {
                let (sender, kinds) = payload.split_once(' ').unwrap_or((payload, ""));
                let kinds: u8 = kinds.parse().unwrap_or(u8::MAX);
                for hint in KINDS {
                    if sender != me && kinds & bit(hint) != 0 {
                        heard(hint);
                    }
                }
            };
            if let Ok(session) = connect(&target, Some(Box::new(hear))).await
                && session.batch(&listen).await.is_ok()
            {
                pause = FIRST_PAUSE;
                for hint in KINDS {
                    wake(hint);
                }
                while !session.is_closed() {
                    // How soon a lost connection is noticed; hints do not wait for this.
                    sleep(Duration::from_secs(1)).await;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
