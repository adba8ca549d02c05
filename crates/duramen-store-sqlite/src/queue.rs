//! The line of requests before a store thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// First in, first out; many senders, a few takers. Closing it lets the takers finish what is in it.
pub(crate) struct Queue<T> {
    line: Mutex<Line<T>>,
    arrived: Condvar,
}

struct Line<T> {
    items: VecDeque<T>,
    /// How many takers sleep: a sender wakes one only if there is one, which saves a system call.
    asleep: usize,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            line: Mutex::new(Line {
                items: VecDeque::new(),
                asleep: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.lock();
        f.debug_struct("Queue")
            .field("length", &line.items.len())
            .field("closed", &line.closed)
            .finish_non_exhaustive()
    }
}

/// What a sender learns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// A taker has been woken for it, or one that is at work will come to it.
    Queued {
        /// Whether a sleeping taker was there.
        woke: bool,
    },
    Closed,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn send(&self, item: T) -> Sent {
        let mut line = self.lock();
        if line.closed {
            // The item, which may hold a reply, is dropped after the lock.
            drop(line);
            drop(item);
            return Sent::Closed;
        }
        line.items.push_back(item);
        // One that was woken for an item before this one may not have got up yet: it is still counted as asleep,
        // and is none for this item.
        let woke = line.asleep >= line.items.len();
        drop(line);
        if woke {
            self.arrived.notify_one();
        }
        Sent::Queued { woke }
    }

    /// Takes all that is in line, up to the first item for which `full` says that it has no room
    /// any more; waits while there is nothing. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, mut full: impl FnMut(&T) -> bool) -> Option<Vec<T>> {
        let mut line = self.lock();
        while line.items.is_empty() {
            if line.closed {
                return None;
            }
            line.asleep += 1;
            line = self
                .arrived
                .wait(line)
                .unwrap_or_else(PoisonError::into_inner);
            line.asleep -= 1;
        }
        let mut count = 0;
        for item in &line.items {
            if full(item) && count > 0 {
                break;
            }
            count += 1;
        }
        Some(line.items.drain(..count).collect())
    }

    /// Refuses new items; what is in line is still served.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taker_gets_all_that_is_in_line_up_to_the_cap_and_at_least_one() {
        let queue = Queue::default();
        for item in [5, 1, 1, 9] {
            assert_eq!(queue.send(item), Sent::Queued { woke: false });
        }
        let up_to = |most: i32| {
            let mut sum = 0;
            queue.take(move |item| {
                sum += item;
                sum > most
            })
        };
        assert_eq!(up_to(7), Some(vec![5, 1, 1]));
        assert_eq!(up_to(7), Some(vec![9]));
    }

    #[test]
    fn a_taker_that_sleeps_is_there_for_one_item() {
        let queue = Queue::default();
        // As if it had been woken and had not got up.
        queue.lock().asleep = 1;
        assert_eq!(queue.send(1), Sent::Queued { woke: true });
        assert_eq!(queue.send(2), Sent::Queued { woke: false });
    }

    #[test]
    fn a_closed_queue_gives_what_is_in_it_and_takes_nothing_more() {
        let queue = Queue::default();
        queue.send(1);
        queue.close();
        assert_eq!(queue.send(2), Sent::Closed);
        assert_eq!(queue.take(|_| false), Some(vec![1]));
        assert_eq!(queue.take(|_| false), None);
    }
}
