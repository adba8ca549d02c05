//! Calls drivers back at the instants that they hold their runs for.
//!
//! One task and one ordered set for all runs, one instant a run: a task for each instant would
//! outlive its run by as long as its deadline is away.

use std::sync::{Arc, Weak};

use crate::engine::{Engine, Signals};
use crate::env::span;
use crate::host::HostEvent;

/// The longest sleep; the clock may be set in the meantime.
const LONGEST: i64 = 60_000;

pub(crate) async fn tick(engine: Weak<Engine>, signals: Arc<Signals>) {
    while let Some(engine) = engine.upgrade().filter(|engine| !engine.is_closing()) {
        let now = engine.now();
        let (due, next) = engine.registry().due_ticks(now);
        engine
            .host
            .push_all(due.into_iter().map(|ticket| HostEvent::Tick { ticket }));
        let pause = next.map_or(LONGEST, |at| at.saturating_sub(now).min(LONGEST));
        let sleep = engine.env.sleep(span(pause));
        drop(engine);
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = signals.ticks.notified() => {}
        }
    }
}
