//! The threads of a store: how many there are, and when the last has ended.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duramen_core::store::StoreError;

use crate::oneshot::Reply;
use crate::place::Place;
use crate::queue::{Queue, Sent};
use crate::reader::{Query, Reader};

/// The most reader threads of each kind. Two: one long question does not hold up the next.
const MOST_READERS: usize = 2;

/// How long a question may take. Each kind has its threads: whatever people list or count, what a driver asks
/// is answered beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Found by keys, and bounded.
    Brief,
    /// May look at every run.
    Long,
}

/// Counts the threads, starts readers when they are needed, and tells when all have ended.
#[derive(Debug)]
pub(crate) struct Threads {
    brief: Arc<Queue<Query>>,
    long: Arc<Queue<Query>>,
    place: Place,
    busy_timeout: Duration,
    life: Arc<Life>,
}

#[derive(Debug, Default)]
struct Life {
    count: Mutex<Count>,
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct Count {
    alive: usize,
    /// Of each kind, in its order.
    readers: [usize; 2],
    closing: Vec<Reply<()>>,
}

impl Life {
    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts its thread out, also when it panics.
struct Alive(Arc<Life>);

impl Drop for Alive {
    fn drop(&mut self) {
        let mut count = self.0.lock();
        count.alive -= 1;
        let closing = if count.alive == 0 {
            std::mem::take(&mut count.closing)
        } else {
            Vec::new()
        };
        drop(count);
        self.0.fewer.notify_all();
        for reply in closing {
            reply.send(Ok(()));
        }
    }
}

impl Threads {
    pub(crate) fn new(place: Place, busy_timeout: Duration) -> Self {
        Self {
            brief: Arc::new(Queue::default()),
            long: Arc::new(Queue::default()),
            place,
            busy_timeout,
            life: Arc::new(Life::default()),
        }
    }

    pub(crate) fn start(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        self.life.lock().alive += 1;
        let alive = Alive(Arc::clone(&self.life));
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                body();
                drop(alive);
            })
            .map(drop)
            .map_err(|error| StoreError::Unavailable {
                reason: format!("a thread could not be started: {error}"),
            })
    }

    /// Starts a thread that has a last word after all the others have ended.
    pub(crate) fn start_last(
        &self,
        name: &str,
        body: impl FnOnce(&dyn Fn()) + Send + 'static,
    ) -> Result<(), StoreError> {
        let life = Arc::clone(&self.life);
        self.start(name, move || {
            body(&|| {
                let mut count = life.lock();
                while count.alive > 1 {
                    count = life
                        .fewer
                        .wait(count)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            });
        })
    }

    const fn queue(&self, pace: Pace) -> &Arc<Queue<Query>> {
        match pace {
            Pace::Brief => &self.brief,
            Pace::Long => &self.long,
        }
    }

    /// Queues a query, and starts a reader of its kind if none is free and fewer than two are there.
    pub(crate) fn read(&self, pace: Pace, query: Query) -> Result<(), StoreError> {
        let readers = self.life.lock().readers[pace as usize];
        if readers == 0 {
            // Nothing may be queued that nobody will serve.
            self.start_reader(pace)?;
        }
        match self.queue(pace).send(query) {
            Sent::Closed => Err(StoreError::Closed),
            Sent::Queued { woke: false } if (1..MOST_READERS).contains(&readers) => {
                // The others are busy and will come to it if this one cannot be started.
                self.start_reader(pace).or(Ok(()))
            }
            Sent::Queued { .. } => Ok(()),
        }
    }

    fn start_reader(&self, pace: Pace) -> Result<(), StoreError> {
        let mut count = self.life.lock();
        if count.readers[pace as usize] >= MOST_READERS {
            return Ok(());
        }
        count.readers[pace as usize] += 1;
        drop(count);
        let reader = Reader {
            queue: Arc::clone(self.queue(pace)),
            place: self.place.clone(),
            busy_timeout: self.busy_timeout,
        };
        let started = self.start("duramen-sqlite-reader", move || reader.run());
        if started.is_err() {
            self.life.lock().readers[pace as usize] -= 1;
        }
        started
    }

    pub(crate) fn close(&self) {
        self.brief.close();
        self.long.close();
    }

    /// Answers once no thread is left.
    pub(crate) fn when_ended(&self, reply: Reply<()>) {
        let mut count = self.life.lock();
        if count.alive > 0 {
            count.closing.push(reply);
            return;
        }
        drop(count);
        reply.send(Ok(()));
    }
}
