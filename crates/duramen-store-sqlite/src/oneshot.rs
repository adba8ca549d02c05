//! One answer, handed from a store thread to whoever awaits it.
//!
//! The waker is called by the thread that answers, with no lock held: the engine drives its next
//! turn inside that call, and that turn may call the store again.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use duramen_core::store::StoreError;

/// The end that answers. Dropped without an answer (its thread died), it answers with an error, so
/// that nobody waits for ever.
#[derive(Debug)]
pub(crate) struct Reply<T>(Option<Arc<Cell<T>>>);

/// The end that waits.
#[derive(Debug)]
pub(crate) struct Answer<T>(Arc<Cell<T>>);

#[derive(Debug)]
struct Cell<T>(Mutex<Slot<T>>);

#[derive(Debug)]
enum Slot<T> {
    Empty(Option<Waker>),
    Full(Result<T, StoreError>),
    Taken,
}

/// A connected pair.
pub(crate) fn oneshot<T>() -> (Reply<T>, Answer<T>) {
    let cell = Arc::new(Cell(Mutex::new(Slot::Empty(None))));
    (Reply(Some(Arc::clone(&cell))), Answer(cell))
}

impl<T> Cell<T> {
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, answer: Result<T, StoreError>) {
        let before = std::mem::replace(&mut *self.lock(), Slot::Full(answer));
        if let Slot::Empty(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Reply<T> {
    pub(crate) fn send(mut self, answer: Result<T, StoreError>) {
        if let Some(cell) = self.0.take() {
            cell.fill(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            cell.fill(Err(StoreError::Other {
                reason: "the thread that served this call stopped before it answered; \
                         whether the call took effect is not known"
                    .to_owned(),
            }));
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Full(answer) => Poll::Ready(answer),
            Slot::Empty(before) => {
                let waker = before
                    .filter(|waker| waker.will_wake(context.waker()))
                    .unwrap_or_else(|| context.waker().clone());
                *slot = Slot::Empty(Some(waker));
                Poll::Pending
            }
            // Polled after it was ready: there is nothing to give, and nothing will come.
            Slot::Taken => Poll::Ready(Err(StoreError::Other {
                reason: "the answer was taken already".to_owned(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn an_answer_wakes_its_waiter_once_and_is_given_once() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let (reply, mut answer) = oneshot();
        assert!(Pin::new(&mut answer).poll(&mut context).is_pending());
        reply.send(Ok(7));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut answer).poll(&mut context), Poll::Ready(Ok(7)));
        assert!(matches!(
            Pin::new(&mut answer).poll(&mut context),
            Poll::Ready(Err(StoreError::Other { .. }))
        ));
    }

    #[test]
    fn a_reply_that_is_dropped_answers_with_an_error() {
        let mut context = Context::from_waker(Waker::noop());
        let (reply, mut answer) = oneshot::<()>();
        drop(reply);
        assert!(matches!(
            Pin::new(&mut answer).poll(&mut context),
            Poll::Ready(Err(StoreError::Other { .. }))
        ));
    }
}
