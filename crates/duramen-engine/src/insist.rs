//! Calls that change something for a caller, sent again as long as that may help.
//!
//! A call that failed for the place is sent again whole: each element says by an id of its own that it is
//! the same. Elements that somebody else's transaction holds up are sent again by themselves, with growing
//! pauses, and the others do not wait for them to take effect. After as long as a lease the caller gets what
//! there is: an error, or the elements that are blocked still as such.

use std::sync::Arc;

use duramen_core::store::{StoreError, StoreFuture};

use crate::common::Common;
use crate::env::Moment;
use crate::inline::on_completion;

/// What is asked for and what becomes of its answers.
pub(crate) trait Ask: Send + 'static {
    type Item: Clone + Send + 'static;
    type Answer: Send + 'static;

    fn send(&self, items: Vec<Self::Item>) -> StoreFuture<Vec<Self::Answer>>;

    fn is_blocked(answer: &Self::Answer) -> bool;

    fn blocked() -> Self::Answer;

    /// Whether a call that failed may be sent again: its elements know themselves again.
    const REPEATS: bool;

    /// An answer has come; `again` if an earlier one may have been lost.
    fn answered(&self, item: &Self::Item, answer: Self::Answer, again: bool) -> Self::Answer {
        let _ = (item, again);
        answer
    }

    /// The element for the next try, after one that may have taken place.
    fn renew(_item: &mut Self::Item) {}

    /// A call was answered, for these: whoever waits for them here is told at once.
    fn tell(&self, items: &[&Self::Item], answers: &[&Self::Answer]);

    fn done(self, result: Result<Vec<Self::Answer>, StoreError>);
}

/// Sends the items and calls [`Ask::done`] in the end.
pub(crate) fn insist<A: Ask>(common: &Arc<Common>, ask: A, items: Vec<A::Item>) {
    let insisting = Insisting {
        answers: items.iter().map(|_| None).collect(),
        open: (0..items.len()).collect(),
        since: common.clock.moment(),
        common: Arc::clone(common),
        items,
        failures: 0,
        again: false,
        heard: false,
        ask,
    };
    insisting.send();
}

struct Insisting<A: Ask> {
    common: Arc<Common>,
    ask: A,
    items: Vec<A::Item>,
    answers: Vec<Option<A::Answer>>,
    /// Places of the items without a final answer.
    open: Vec<usize>,
    since: Moment,
    failures: u32,
    again: bool,
    /// The store has answered each by itself.
    heard: bool,
}

impl<A: Ask> Insisting<A> {
    fn send(self) {
        let items = self.open.iter().map(|at| self.items[*at].clone());
        let call = self.ask.send(items.collect());
        on_completion(call, move |result| self.landed(result));
    }

    fn landed(mut self, result: Result<Vec<A::Answer>, StoreError>) {
        let result = result.and_then(|answers| {
            let (answered, asked) = (answers.len(), self.open.len());
            if answered == asked {
                return Ok(answers);
            }
            Err(StoreError::Other {
                reason: format!("it answered {answered} of {asked} elements"),
            })
        });
        let error = match result {
            Ok(answers) => {
                self.take_in(answers);
                if self.open.is_empty() {
                    return self.end();
                }
                StoreError::Locked {
                    reason: "a transaction that is not Duramen's holds a run".to_owned(),
                }
            }
            Err(error) if A::REPEATS && error.is_of_the_place() => {
                self.again = true;
                for at in &self.open {
                    A::renew(&mut self.items[*at]);
                }
                error
            }
            Err(error) => return self.fail(error),
        };
        self.failures += 1;
        let Some(pause) = self.common.next_try(self.failures, self.since, &error) else {
            return self.fail(error);
        };
        tracing::debug!(%error, ?pause, elements = self.open.len(), "a call of the application is sent again");
        let env = Arc::clone(&self.common.env);
        let sleep = env.sleep(pause);
        env.spawn(Box::pin(async move {
            sleep.await;
            self.send();
        }));
    }

    fn take_in(&mut self, answers: Vec<A::Answer>) {
        self.heard = true;
        let asked = std::mem::take(&mut self.open);
        for (at, answer) in asked.iter().zip(answers) {
            if A::is_blocked(&answer) {
                self.open.push(*at);
            } else {
                let answer = self.ask.answered(&self.items[*at], answer, self.again);
                self.answers[*at] = Some(answer);
            }
        }
        let (items, answers): (Vec<_>, Vec<_>) = asked
            .iter()
            .filter_map(|at| Some((&self.items[*at], self.answers[*at].as_ref()?)))
            .unzip();
        self.ask.tell(&items, &answers);
    }

    /// Once each was answered by itself, those without a final answer are as good as blocked, whatever
    /// the last call came to.
    fn fail(self, error: StoreError) {
        if self.heard {
            self.end();
        } else {
            self.ask.done(Err(error));
        }
    }

    fn end(self) {
        let answers = self.answers.into_iter();
        let answers = answers.map(|answer| answer.unwrap_or_else(A::blocked));
        self.ask.done(Ok(answers.collect()));
    }
}
