//! A simulator of Duramen: the real core and engine over the real memory store, in a world where
//! one seed decides everything that chance decides elsewhere.
//!
//! - `plan.rs` draws from the seed what happens: workers, runs, messages, crashes, faults.
//! - `program.rs` generates workflows, `handler.rs` runs them, `desk.rs` ties them to the machine.
//! - `world.rs` is clock and scheduler, `net.rs` the way to the store, `host.rs` one process.
//! - `letters.rs` lets commits send messages, `newer.rs` makes a process one of a newer build, `watch.rs` is for answers that were lost.
//! - `judge.rs` stands before the store and feeds `facts.rs` and `owners.rs`, which `oracles.rs` judges;
//!   `model.rs` is an independent reading of a journal, `replay.rs` compares its prefixes.
//! - `sim.rs` plays a plan, `story.rs` makes a failing one small and tells it.

// "SQLite" is a name here, not a piece of code.
#![allow(clippy::doc_markdown)]

pub mod counts;
pub mod desk;
pub mod disk;
pub mod facts;
pub mod handler;
pub mod host;
pub mod judge;
pub mod letters;
pub mod model;
pub mod net;
pub mod newer;
pub mod oracles;
pub mod owners;
pub mod plan;
pub mod program;
pub mod replay;
pub mod rng;
pub mod sim;
pub mod story;
pub mod watch;
pub mod world;

pub use sim::{Verdict, play};
pub use story::{Story, tell};
