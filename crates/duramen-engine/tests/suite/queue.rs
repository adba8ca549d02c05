//! The queue to the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use duramen_engine::{HostEvent, HostQueue, Moment};

const ROUNDS: i64 = 2_000;

#[test]
fn a_host_that_has_drained_is_never_taken_for_blocked() {
    // Each look at the clock takes a millisecond, so that any mark left behind shows.
    let clock = AtomicI64::new(1);
    let queue = Arc::new(HostQueue::with_clock(
        Box::new(std::thread::yield_now),
        move || Moment::at(clock.fetch_add(1, Ordering::Relaxed)),
    ));
    let turn = Arc::new(AtomicI64::new(0));
    let pusher = {
        let (queue, turn) = (queue.clone(), turn.clone());
        std::thread::spawn(move || {
            for round in 0..ROUNDS {
                while turn.load(Ordering::Acquire) != 2 * round {
                    std::thread::yield_now();
                }
                queue.push(HostEvent::Tick { ticket: 1 });
                turn.store(2 * round + 1, Ordering::Release);
            }
        })
    };
    for round in 0..ROUNDS {
        while queue.drain().is_empty() {
            std::thread::yield_now();
        }
        // The push may still be between the queue and its end.
        while turn.load(Ordering::Acquire) != 2 * round + 1 {
            std::thread::yield_now();
        }
        assert_eq!(queue.blocked_for(), 0, "after {round} rounds");
        turn.store(2 * round + 2, Ordering::Release);
    }
    pusher.join().unwrap();
}

#[test]
fn the_host_is_woken_once_for_all_that_waits() {
    let wakes = Arc::new(AtomicI64::new(0));
    let count = wakes.clone();
    let queue = HostQueue::new(Box::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    for ticket in 0..10 {
        queue.push(HostEvent::Tick { ticket });
    }
    assert_eq!(
        (queue.drain().len(), wakes.load(Ordering::Relaxed)),
        (10, 1)
    );
    queue.push_all([]);
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
}
