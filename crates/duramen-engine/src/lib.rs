//! The engine of Duramen: claims, leases, heartbeats, group commit, sweeps and workers, over any
//! [`duramen_core::store::Store`], for any host that can run handlers.

mod doubt;
mod driver;
mod engine;
mod env;
mod host;
mod inline;
mod keeper;
mod pending;
mod pipeline;
mod registry;
mod reopen;
mod suspects;
mod sweep;
mod tenure;
mod ticks;
mod unread;
mod worker;

pub use driver::{Driven, RunDriver};
pub use engine::{CLAIM_BYTES, Config, Counters, Engine};
pub use env::{Env, Task, TokioEnv, system_now};
pub use host::{HostEvent, HostQueue, Reply, Ticket, Token, WakeHost};
pub use inline::on_completion;
pub use pipeline::Pipeline;
pub use sweep::{Group, SweepOptions, SweepReport};
