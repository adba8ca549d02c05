//! What the engine needs from the world: time, pauses, tasks. A simulator brings its own.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use duramen_core::ids::Millis;

/// A task or a pause.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// The world as the engine sees it.
pub trait Env: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Millis;

    /// The instant that store requests must use, when it is not the store's own clock.
    fn explicit_now(&self) -> Option<Millis>;

    /// Completes after that span of the clock above.
    fn sleep(&self, span: Duration) -> Task;

    /// Runs a task to its end, or until the engine is shut down.
    fn spawn(&self, task: Task);
}

/// The real world, on a tokio runtime.
#[derive(Debug, Clone)]
pub struct TokioEnv {
    handle: tokio::runtime::Handle,
}

impl TokioEnv {
    pub const fn new(handle: tokio::runtime::Handle) -> Self {
        Self { handle }
    }
}

impl Env for TokioEnv {
    fn now(&self) -> Millis {
        system_now()
    }

    fn explicit_now(&self) -> Option<Millis> {
        None
    }

    fn sleep(&self, span: Duration) -> Task {
        let handle = self.handle.clone();
        Box::pin(async move {
            // A timer can only be made inside the runtime, and the caller may be any thread.
            let sleep = {
                let _inside = handle.enter();
                tokio::time::sleep(span)
            };
            sleep.await;
        })
    }

    fn spawn(&self, task: Task) {
        self.handle.spawn(task);
    }
}

/// A pause of that length; none if it is negative.
pub(crate) fn span(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Milliseconds since the epoch by the host's clock.
pub fn system_now() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| {
            Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX)
        })
}
