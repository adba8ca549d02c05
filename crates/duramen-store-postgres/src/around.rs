//! Around the locks of others: elements of a batch whose runs somebody else has locked do not hold up the rest.
//!
//! A statement passes over what is locked and says so. What was passed over comes again after a pause, a bounded
//! time. Nothing waits on the server meanwhile, so that whatever else goes over the same connection goes on. But
//! whoever only looks in from time to time may always find a busy run in somebody's hands: so a last attempt waits
//! in line on the server, for a moment (`link.rs`), which is enough where all are as quick as this store. Then
//! it is answered as blocked.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use duramen_core::ids::RunId;
use tokio::time::{Instant, sleep};

use crate::error::Fault;

/// The first pause; it doubles. Those who hold a run for a statement are gone by then.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// So many elements wait in line at most: they do it one after the other.
const MOST_IN_LINE: usize = 4;

/// So many runs are known as locked at most.
const MOST_LOCKED: usize = 1_024;

/// Runs that others still held when they were last waited for: they are tried once, and not waited for again
/// until they are free. In the normal case there are none.
#[derive(Debug, Default)]
pub(crate) struct Locked(Mutex<BTreeSet<RunId>>);

impl Locked {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeSet<RunId>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn has(&self, run_id: &RunId) -> bool {
        self.with(|locked| locked.contains(run_id))
    }

    fn add(&self, run_id: &RunId) {
        self.with(|locked| {
            if locked.len() >= MOST_LOCKED {
                locked.clear(); // of requests that never came back; the others are found out again
            }
            locked.insert(RunId::clone(run_id));
        });
    }

    fn remove(&self, run_id: &RunId) {
        self.with(|locked| locked.remove(run_id));
    }
}

/// A kind of request whose elements are each about one run.
pub(crate) trait Errand: Sync {
    type Element: Sync;
    type Answer: Send;

    fn run_id(element: &Self::Element) -> &RunId;

    /// What is said of an element whose run is held by others for too long.
    fn blocked() -> Self::Answer;

    /// Asks for the elements at these places, and answers in their order; `None` for those whose run is locked.
    fn ask(
        &self,
        batch: &[Self::Element],
        places: &[usize],
    ) -> impl Future<Output = Result<Vec<Option<Self::Answer>>, Fault>> + Send;

    /// Asks for one element, and waits a moment for its run.
    fn ask_in_line(
        &self,
        batch: &[Self::Element],
        place: usize,
    ) -> impl Future<Output = Result<Option<Self::Answer>, Fault>> + Send;
}

/// Asks for elements until each has an answer, or has been blocked for `patience`.
pub(crate) async fn around_locks<E: Errand>(
    errand: &E,
    locked: &Locked,
    patience: Duration,
    batch: &[E::Element],
) -> Result<Vec<E::Answer>, Fault> {
    let mut answers: Vec<Option<E::Answer>> = batch.iter().map(|_| None).collect();
    let mut rest: Vec<usize> = (0..batch.len()).collect();
    let end = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    while !rest.is_empty() {
        let found = errand.ask(batch, &rest).await?;
        let mut waiting = Vec::new();
        for (place, answer) in rest.into_iter().zip(found) {
            let run_id = E::run_id(&batch[place]);
            if answer.is_some() {
                locked.remove(run_id);
                answers[place] = answer;
            } else if !locked.has(run_id) {
                waiting.push(place);
            }
        }
        rest = waiting;
        if !rest.is_empty() && Instant::now() + pause >= end {
            let mut busy: BTreeSet<&RunId> = BTreeSet::new();
            for (count, place) in rest.into_iter().enumerate() {
                let run_id = E::run_id(&batch[place]);
                if count < MOST_IN_LINE && !busy.contains(run_id) {
                    answers[place] = errand.ask_in_line(batch, place).await?;
                }
                // What follows an element of the same run that was not answered would come too early.
                if answers[place].is_none() {
                    busy.insert(run_id);
                    locked.add(run_id);
                }
            }
            break;
        }
        if !rest.is_empty() {
            sleep(pause).await;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(E::blocked))
        .collect())
}

/// Asks once. What is locked is answered with `None` if it may be worth waiting for, and as blocked if it
/// was waited for in vain before.
pub(crate) async fn once<E: Errand>(
    errand: &E,
    locked: &Locked,
    batch: &[E::Element],
) -> Result<Vec<Option<E::Answer>>, Fault> {
    let places: Vec<usize> = (0..batch.len()).collect();
    let mut answers = errand.ask(batch, &places).await?;
    for (element, answer) in batch.iter().zip(&mut answers) {
        let run_id = E::run_id(element);
        if answer.is_some() {
            locked.remove(run_id);
        } else if locked.has(run_id) {
            *answer = Some(E::blocked());
        }
    }
    Ok(answers)
}
