//! Who waits for answers to messages, and one look for all of them.
//!
//! Budget: however many wait, the store is asked at most ten times a second where up to [`BATCH`] of their
//! messages stand, and less often while none of them is answered. For whoever comes to wait, and for an answer
//! that is given here, it is asked at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::Status;
use duramen_core::store::{Receipt, StoreError};
use tokio::sync::Notify;

use crate::common::Common;
use crate::env::{Moment, span};
use crate::host::{Answer, HostEvent, Reply, Token};

/// How far two looks are apart, at first and when nothing has been answered for a while.
const SOONEST: Millis = 100;
const LATEST: Millis = 500;
/// The most messages in one look.
const BATCH: usize = 1_000;

#[derive(Debug, Default)]
struct Waiting {
    by_token: BTreeMap<Token, (RunId, String)>,
    closed: bool,
}

/// See the module's head.
pub(crate) struct Answers {
    common: Arc<Common>,
    waiting: Mutex<Waiting>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.common.answers.wake();
    }
}

impl Answers {
    pub(crate) fn new(common: Arc<Common>) -> Arc<Self> {
        let answers = Arc::new(Self {
            common,
            waiting: Mutex::default(),
        });
        let bell = answers.common.answers.bell();
        let looking = look(Arc::downgrade(&answers), bell);
        answers.common.env.spawn(Box::pin(looking));
        answers
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reply comes when the message has been answered or refused, or will not be. That may have been
    /// before: a message to a run that is driven here is often answered before its sender can ask.
    pub(crate) fn watch(&self, token: Token, run_id: RunId, message_id: String) {
        let mut waiting = self.waiting();
        if waiting.closed {
            drop(waiting);
            return self.reply([(token, Err(StoreError::Closed))]);
        }
        waiting.by_token.insert(token, (run_id, message_id));
        self.count(&waiting);
        drop(waiting);
        self.common.answers.ring();
    }

    /// Nobody waits for that reply any more; it does not come if it is not under way.
    pub(crate) fn forget(&self, token: Token) {
        let mut waiting = self.waiting();
        waiting.by_token.remove(&token);
        self.count(&waiting);
    }

    fn count(&self, waiting: &Waiting) {
        self.common.answers.wait(waiting.by_token.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting().by_token.len()
    }

    pub(crate) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let tokens = std::mem::take(&mut waiting.by_token).into_keys();
        self.count(&waiting);
        drop(waiting);
        self.reply(tokens.map(|token| (token, Err(StoreError::Closed))));
        self.common.answers.wake();
    }

    fn reply(&self, answers: impl IntoIterator<Item = (Token, Result<Answer, StoreError>)>) {
        let replies = answers.into_iter().map(|(token, answer)| HostEvent::Reply {
            token,
            reply: answer.map(Reply::Answer),
        });
        self.common.host.push_all(replies);
    }

    /// The next messages to ask for behind one, and where the next batch begins if there are more.
    fn batch(&self, behind: Option<Token>) -> (Vec<(Token, RunId, String)>, Option<Token>) {
        let behind = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = self.waiting();
        let batch: Vec<_> = waiting
            .by_token
            .range((behind, Bound::Unbounded))
            .take(BATCH)
            .map(|(token, (run_id, message_id))| (*token, run_id.clone(), message_id.clone()))
            .collect();
        let next = batch.last().filter(|_| batch.len() == BATCH);
        let next = next.map(|(token, ..)| *token);
        (batch, next)
    }

    /// Asks where they stand. True if one was answered.
    async fn ask(&self, batch: Vec<(Token, RunId, String)>) -> bool {
        let found = match self.stand(&batch).await {
            Ok(found) => found,
            Err(error) if error.is_of_the_place() => {
                tracing::debug!(%error, "answers could not be asked for; trying again");
                return false;
            }
            Err(error) => batch
                .iter()
                .map(|(token, ..)| (*token, Err(error.clone())))
                .collect(),
        };
        let mut waiting = self.waiting();
        let wanted: Vec<_> = found
            .into_iter()
            .filter(|(token, _)| waiting.by_token.remove(token).is_some())
            .collect();
        self.count(&waiting);
        drop(waiting);
        let changed = !wanted.is_empty();
        self.reply(wanted);
        changed
    }

    /// Of those whose fate is known.
    async fn stand(
        &self,
        batch: &[(Token, RunId, String)],
    ) -> Result<Vec<(Token, Result<Answer, StoreError>)>, StoreError> {
        let runs: BTreeSet<RunId> = batch.iter().map(|(_, run_id, _)| run_id.clone()).collect();
        let runs: Vec<RunId> = runs.into_iter().collect();
        // How the runs stand is asked first: an answer that is given with a run's end is there after it.
        let standings = self.common.store.standing(runs.clone()).await?;
        let statuses: BTreeMap<RunId, Option<Status>> = runs
            .into_iter()
            .zip(standings)
            .map(|(run_id, standing)| (run_id, standing.map(|standing| standing.status)))
            .collect();
        let messages = batch
            .iter()
            .map(|(_, run_id, message_id)| (run_id.clone(), message_id.clone()))
            .collect();
        let receipts = self.common.store.receipts(messages).await?;
        let mut found = Vec::new();
        for ((token, run_id, _), receipt) in batch.iter().zip(receipts) {
            let status = statuses.get(run_id).copied().flatten();
            let over = |status: Status| status.is_final() || status == Status::Stuck;
            let answer = match receipt {
                Some(Receipt::Unread) if status.is_none_or(over) => Answer::Unanswered { status },
                Some(Receipt::Unread) => continue,
                Some(read) => Answer::of(read),
                None => Answer::Unanswered { status: None },
            };
            found.push((*token, Ok(answer)));
        }
        Ok(found)
    }
}

async fn look(weak: Weak<Answers>, bell: Arc<Notify>) {
    let mut pause = SOONEST;
    let mut next = Moment::LONG_AGO;
    let mut behind = None;
    while let Some(answers) = weak
        .upgrade()
        .filter(|answers| !answers.common.is_closing())
    {
        let now = answers.common.clock.moment();
        let rung = answers.common.answers.has_rung();
        let sleep = if answers.len() == 0 {
            None
        } else if now < next && !rung {
            Some(answers.common.env.sleep(span(next.since(now))))
        } else {
            if rung {
                behind = None;
            }
            let (batch, more) = answers.batch(behind);
            let is_whole = behind.is_none() && more.is_none();
            behind = more;
            let changed = !batch.is_empty() && answers.ask(batch).await;
            pause = if rung || changed || !is_whole {
                SOONEST
            } else {
                (pause * 5 / 4).min(LATEST)
            };
            // From the answer on: a store that is slow is not asked the more for it.
            next = answers.common.clock.moment().after(pause);
            continue;
        };
        drop(answers);
        let Some(sleep) = sleep else {
            bell.notified().await;
            continue;
        };
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = bell.notified() => {}
        }
    }
}
