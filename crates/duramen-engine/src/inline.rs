//! Runs a store's future on whatever thread completes it.
//!
//! A store future ends with one wake from the store's own thread. Polling it right there, instead
//! of handing it to an executor, saves a thread hop each way: a commit costs one wake-up of the
//! writer and one of the host, and nothing between them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use duramen_core::store::{StoreError, StoreFuture};

type Done<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

struct Inline<T> {
    state: AtomicU8,
    work: Mutex<Option<(StoreFuture<T>, Done<T>)>>,
}

const IDLE: u8 = 0;
const POLLING: u8 = 1;
const WOKEN: u8 = 2;

/// Calls `done` with the outcome, on this thread if it is there already, else on the thread that
/// completes it. `done` must be short and must not block.
pub fn on_completion<T: Send + 'static>(
    future: StoreFuture<T>,
    done: impl FnOnce(Result<T, StoreError>) + Send + 'static,
) {
    Arc::new(Inline {
        state: AtomicU8::new(IDLE),
        work: Mutex::new(Some((future, Box::new(done)))),
    })
    .wake();
}

impl<T: Send + 'static> Wake for Inline<T> {
    fn wake(self: Arc<Self>) {
        // Whoever moves the state from idle polls; a wake during a poll asks that poller to go round again.
        loop {
            match self.state.load(Ordering::Acquire) {
                IDLE => {
                    if self
                        .state
                        .compare_exchange(IDLE, POLLING, Ordering::AcqRel, Ordering::Acquire)
                        .is_ok()
                    {
                        break;
                    }
                }
                POLLING => {
                    if self
                        .state
                        .compare_exchange(POLLING, WOKEN, Ordering::AcqRel, Ordering::Acquire)
                        .is_ok()
                    {
                        return;
                    }
                }
                _ => return,
            }
        }
        self.poll_until_pending();
    }
}

impl<T: Send + 'static> Inline<T> {
    fn poll_until_pending(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        loop {
            let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((future, _)) = work.as_mut() else {
                return;
            };
            // A store that panics must answer all the same: whoever waits would wait for ever.
            let polled = catch_unwind(AssertUnwindSafe(|| {
                Pin::as_mut(future).poll(&mut Context::from_waker(&waker))
            }))
            .unwrap_or_else(|_| {
                Poll::Ready(Err(StoreError::Other {
                    reason: "the store panicked; whether the call took effect is not known".into(),
                }))
            });
            if let Poll::Ready(outcome) = polled {
                let finished = work.take();
                drop(work);
                if let Some((_, done)) = finished {
                    done(outcome);
                }
                return;
            }
            drop(work);
            if self
                .state
                .compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                return;
            }
            self.state.store(POLLING, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_ready_future_is_done_at_once_and_a_pending_one_on_the_thread_that_wakes_it() {
        let (send, receive) = mpsc::channel();
        let sender = send.clone();
        on_completion(Box::pin(async { Ok(1) }), move |outcome| {
            sender.send((outcome, std::thread::current().id())).unwrap();
        });
        assert_eq!(
            receive.recv().unwrap(),
            (Ok(1), std::thread::current().id())
        );

        let (complete, completed) = tokio::sync::oneshot::channel();
        on_completion(
            Box::pin(async move { completed.await.map_err(|_| StoreError::Closed) }),
            move |outcome| send.send((outcome, std::thread::current().id())).unwrap(),
        );
        let other = std::thread::spawn(move || {
            complete.send(2).unwrap();
            std::thread::current().id()
        });
        assert_eq!(receive.recv().unwrap(), (Ok(2), other.join().unwrap()));
    }

    #[test]
    fn a_store_that_panics_answers_with_an_error() {
        let (send, receive) = mpsc::channel();
        on_completion::<()>(Box::pin(async { panic!("a defect") }), move |outcome| {
            send.send(outcome).unwrap();
        });
        assert!(matches!(
            receive.recv().unwrap(),
            Err(StoreError::Other { .. })
        ));
    }
}
