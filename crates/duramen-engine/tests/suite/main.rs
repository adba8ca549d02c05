//! The engine under test: a toy host drives it over real stores, in simulated and in real time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

mod faults;
mod host;
mod lab;
mod sim;
mod toy;
mod transactions;

mod answers;
mod audits;
mod children;
mod clocks;
mod commits;
mod crashes;
mod ends;
mod failures;
mod fairness;
mod hints;
mod inboxes;
mod lapses;
mod leases;
mod lost;
mod messages;
mod newer;
mod outgoing;
mod queue;
mod reopening;
mod suspects;
mod sweeps;
mod warmth;
mod workers;
