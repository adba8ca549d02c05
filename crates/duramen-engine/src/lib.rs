//! The engine of Duramen: claims, leases, heartbeats, group commit, sweeps and workers, over any
//! [`duramen_core::store::Store`], for any host that can run handlers.
//!
//! Three parts have their own state: `leases` (what is held, and until when), `claims` (what is taken up,
//! and when) and `commits` (what is written). [`Engine`] ties them together for a host, and [`RunDriver`]
//! ties one run's machine to them.

mod answer_bell;
mod answers;
mod calls;
mod carrier;
mod claims;
mod clock;
mod commits;
mod common;
mod driver;
mod ends;
mod engine;
mod env;
mod host;
mod incarnation;
mod inline;
mod insist;
mod leases;
mod outbox;
mod pending;
mod reading;
mod removal;
mod reopen;
mod ticks;
mod watched;

pub use claims::{CLAIM_BYTES, SweepOptions};
pub use commits::Pipeline;
pub use common::{Config, Counters};
pub use driver::RunDriver;
pub use engine::Engine;
pub use env::{Env, Moment, Task, TokioEnv, system_moment, system_now};
pub use host::{Answer, Driven, HostEvent, HostQueue, Reply, SweepReport, Ticket, Token, WakeHost};
pub use inline::on_completion;
