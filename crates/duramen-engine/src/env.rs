//! What the engine needs from the world: time, pauses, tasks. A simulator brings its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duramen_core::ids::Millis;

/// A task or a pause.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// A moment of the clock that nobody can set. Whatever is a pause, a poll, patience or the length of
/// a lease is measured by it; the time of day only says what is due and what is written. A type of
/// its own, so that the two cannot be mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Millis);

impl Moment {
    pub const LONG_AGO: Self = Self(Millis::MIN);
    pub const NEVER: Self = Self(Millis::MAX);

    /// So many milliseconds after the clock began.
    pub const fn at(millis: Millis) -> Self {
        Self(millis)
    }

    /// So many milliseconds later; never stays never.
    #[must_use]
    pub const fn after(self, span: Millis) -> Self {
        match self {
            Self::NEVER => self,
            Self(millis) => Self(millis.saturating_add(span)),
        }
    }

    /// How many milliseconds have passed since an earlier moment.
    pub const fn since(self, earlier: Self) -> Millis {
        self.0.saturating_sub(earlier.0)
    }
}

/// The world as the engine sees it.
pub trait Env: Send + Sync + 'static {
    /// The time of day, which may be set while the engine runs.
    fn now(&self) -> Millis;

    /// The clock that only goes forward, as fast as pauses pass.
    fn moment(&self) -> Moment;

    /// The instant that store requests must use, when it is not the store's own clock.
    fn explicit_now(&self) -> Option<Millis>;

    /// Completes after that span, however the time of day is set meanwhile.
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

    fn moment(&self) -> Moment {
        system_moment()
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

/// Milliseconds since the epoch by this machine's clock.
pub fn system_now() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| {
            Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX)
        })
}

/// How long this process has been running, from the first look at this clock.
pub fn system_moment() -> Moment {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    let passed = BEGINNING.get_or_init(Instant::now).elapsed();
    Moment(Millis::try_from(passed.as_millis()).unwrap_or(Millis::MAX))
}
