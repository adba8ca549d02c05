//! The queue to the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use duramen_engine::{HostEvent, HostQueue};

#[test]
fn a_host_that_has_drained_is_never_taken_for_blocked() {
    // Each look at the clock takes a millisecond, so that any mark left behind shows.
    let clock = AtomicI64::new(1);
    let queue = Arc::new(HostQueue::with_clock(
        Box::new(std::thread::yield_now),
        move || clock.fetch_add(1, Ordering::Relaxed),
    ));
    let pusher = {
        let queue = queue.clone();
        std::thread::spawn(move || {
            for ticket in 0..50_000 {
                queue.push(HostEvent::Tick { ticket });
            }
        })
    };
    let mut drained = 0;
    while drained < 50_000 {
        drained += queue.drain().len();
    }
    // The last push may be between the queue and the end of its call.
    pusher.join().unwrap();
    assert_eq!(queue.blocked_for(), 0);
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
