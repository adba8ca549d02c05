//! Who waits for the ends of runs, and one look for all of them.
//!
//! Budget: however many wait, for however many runs, the store is asked at most ten times a second where
//! up to [`BATCH`] of these runs stand, and less often while none of them ends. Runs that are driven here
//! are not asked for at all: their ends are told when they happen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::Status;
use duramen_core::store::StoreError;
use tokio::sync::Notify;

use crate::common::Common;
use crate::env::{Moment, span};
use crate::host::{HostEvent, Reply, Token};
use crate::leases::Leases;

/// How far two looks are apart, at first and when none has ended for a while.
const SOONEST: Millis = 100;
const LATEST: Millis = 500;
/// The most runs in one look.
const BATCH: usize = 1_000;

#[derive(Debug, Default)]
struct Waiting {
    by_run: BTreeMap<RunId, BTreeSet<Token>>,
    by_token: BTreeMap<Token, RunId>,
    closed: bool,
}

impl Waiting {
    fn take(&mut self, run_id: &RunId) -> BTreeSet<Token> {
        let tokens = self.by_run.remove(run_id).unwrap_or_default();
        for token in &tokens {
            self.by_token.remove(token);
        }
        tokens
    }
}

/// See the module's head.
pub(crate) struct Ends {
    common: Arc<Common>,
    leases: Arc<Leases>,
    waiting: Mutex<Waiting>,
    bell: Arc<Notify>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

impl Ends {
    pub(crate) fn new(common: Arc<Common>, leases: Arc<Leases>) -> Arc<Self> {
        let ends = Arc::new(Self {
            common,
            leases,
            waiting: Mutex::default(),
            bell: Arc::default(),
        });
        let looking = look(Arc::downgrade(&ends), Arc::clone(&ends.bell));
        ends.common.env.spawn(Box::pin(looking));
        ends
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reply comes when the run has ended, is parked, or is not there.
    pub(crate) fn watch(&self, token: Token, run_id: RunId) {
        let mut waiting = self.waiting();
        if waiting.closed {
            drop(waiting);
            return self.reply([token], &Err(StoreError::Closed));
        }
        waiting.by_token.insert(token, run_id.clone());
        waiting.by_run.entry(run_id).or_default().insert(token);
        drop(waiting);
        self.bell.notify_one();
    }

    /// Nobody waits for that reply any more; it does not come if it is not under way.
    pub(crate) fn forget(&self, token: Token) {
        let mut waiting = self.waiting();
        let Some(run_id) = waiting.by_token.remove(&token) else {
            return;
        };
        if let Some(tokens) = waiting.by_run.get_mut(&run_id) {
            tokens.remove(&token);
            if tokens.is_empty() {
                waiting.by_run.remove(&run_id);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting().by_token.len()
    }

    /// A run has ended, or is not there.
    pub(crate) fn ended(&self, run_id: &RunId, status: Option<Status>) {
        let tokens = self.waiting().take(run_id);
        self.reply(tokens, &Ok(status));
    }

    pub(crate) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let tokens = std::mem::take(&mut waiting.by_token).into_keys();
        waiting.by_run.clear();
        drop(waiting);
        self.reply(tokens, &Err(StoreError::Closed));
        self.bell.notify_one();
    }

    fn reply(
        &self,
        tokens: impl IntoIterator<Item = Token>,
        answer: &Result<Option<Status>, StoreError>,
    ) {
        let replies = tokens.into_iter().map(|token| HostEvent::Reply {
            token,
            reply: answer.clone().map(Reply::Ended),
        });
        self.common.host.push_all(replies);
    }

    /// The next runs to ask for behind one, and where the next batch begins if there are more.
    fn batch(&self, behind: Option<&RunId>) -> (Vec<RunId>, Option<RunId>) {
        let behind = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = self.waiting();
        let batch: Vec<RunId> = waiting
            .by_run
            .range::<RunId, _>((behind, Bound::Unbounded))
            .map(|(run_id, _)| run_id)
            .filter(|run_id| self.leases.held().ticket_of(run_id).is_none())
            .take(BATCH)
            .cloned()
            .collect();
        let next = batch.last().filter(|_| batch.len() == BATCH).cloned();
        (batch, next)
    }

    /// Asks where they stand. True if one has ended.
    async fn ask(&self, batch: Vec<RunId>) -> bool {
        let standings = match self.common.store.standing(batch.clone()).await {
            Ok(standings) => standings,
            Err(error) if error.is_of_the_place() => {
                tracing::debug!(%error, "whether runs have ended could not be asked; trying again");
                return false;
            }
            Err(error) => {
                for run_id in &batch {
                    let tokens = self.waiting().take(run_id);
                    self.reply(tokens, &Err(error.clone()));
                }
                return false;
            }
        };
        let mut changed = false;
        for (run_id, standing) in batch.iter().zip(standings) {
            let status = standing.map(|standing| standing.status);
            if status.is_none_or(|status| status.is_final() || status == Status::Stuck) {
                changed = true;
                self.ended(run_id, status);
            }
        }
        changed
    }
}

async fn look(weak: Weak<Ends>, bell: Arc<Notify>) {
    let mut pause = SOONEST;
    let mut next = Moment::LONG_AGO;
    let mut behind = None;
    while let Some(ends) = weak.upgrade().filter(|ends| !ends.common.is_closing()) {
        let now = ends.common.clock.moment();
        let sleep = if ends.len() == 0 {
            None
        } else if now < next {
            Some(ends.common.env.sleep(span(next.since(now))))
        } else {
            let (batch, more) = ends.batch(behind.as_ref());
            let is_whole = behind.is_none() && more.is_none();
            behind = more;
            let changed = !batch.is_empty() && ends.ask(batch).await;
            pause = if changed || !is_whole {
                SOONEST
            } else {
                (pause * 5 / 4).min(LATEST)
            };
            // From the answer on: a store that is slow is not asked the more for it.
            next = ends.common.clock.moment().after(pause);
            continue;
        };
        let soonest = next.after(SOONEST - pause);
        drop(ends);
        let Some(sleep) = sleep else {
            bell.notified().await;
            continue;
        };
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            // Somebody new waits: what has ended already is to be known soon.
            () = bell.notified() => (pause, next) = (SOONEST, soonest),
        }
    }
}
