//! Events of the engine and the stores on their way to Python's `logging`.
//!
//! They happen on threads that have nothing to do with Python and must never wait for the interpreter: an
//! event is put into a bounded queue, and one byte wakes the Python thread (`duramen/_runtime/logs.py`) that takes it
//! out again. What a logger does not want is not even put into words: each has the level that Python
//! said last. Since `logging` tells nobody when a level changes, an unwanted event is let through now and
//! then, for Python to look again.

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duramen_engine::WakeHost;
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::subscriber::set_global_default;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::record::record;
use crate::wake;

/// So many events wait to be told; those that come on top are counted.
const MOST: usize = 1000;

/// How long a level holds that was found too low, until an event is let through to look again.
const DOUBT: Duration = Duration::from_secs(1);

/// The pauses between two equal warnings that are not about one run.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Beginnings of targets, and the loggers for them; the first that fits.
const LOGGERS: [(&str, &str); 4] = [
    ("duramen_engine", "duramen.engine"),
    ("duramen_store_sqlite", "duramen.store.sqlite"),
    ("duramen_store_postgres", "duramen.store.postgres"),
    ("duramen_store", "duramen.store"),
];

/// Where stores are told to be in trouble, and well again.
const HEALTH: usize = 3;

/// The numbers of Python's levels.
const DEBUG: u8 = 10;
const INFO: u8 = 20;
const WARNING: u8 = 30;
const ERROR: u8 = 40;

/// What is told from, until Python has said it: what nobody has set up is told from here on, too.
static LEVELS: [AtomicU8; LOGGERS.len()] = [const { AtomicU8::new(WARNING) }; LOGGERS.len()];

record! {
    /// Something for `logging`. `fields` are names with values, as texts.
    LogEvent {
        logger: &'static str,
        level: u8,
        message: String,
        /// Seconds since the epoch.
        at: f64,
        fields: Vec<(&'static str, String)>,
    }
}

/// The events of one process. A child that is forked while a thread of its parent holds the lock must not
/// wait for it, so it has a queue of its own, found by its process id and linked to its parent's.
struct Queue {
    process: u32,
    line: Mutex<Line>,
    child: OnceLock<Box<Queue>>,
}

#[derive(Default)]
struct Line {
    events: VecDeque<LogEvent>,
    lost: u64,
    wake: Option<WakeHost>,
    /// By the place of the event in the source.
    paces: HashMap<Place, Pace>,
    looked: [Option<Instant>; LOGGERS.len()],
}

type Place = (&'static str, Option<u32>);

/// How often an equal warning is told.
struct Pace {
    told: Instant,
    pause: Duration,
    left_out: u64,
}

static FIRST: OnceLock<Queue> = OnceLock::new();

impl Queue {
    fn new(process: u32) -> Self {
        Self {
            process,
            line: Mutex::default(),
            child: OnceLock::new(),
        }
    }

    fn here() -> &'static Self {
        let process = std::process::id();
        let mut queue = FIRST.get_or_init(|| Self::new(process));
        while queue.process != process {
            queue = queue.child.get_or_init(|| Box::new(Self::new(process)));
        }
        queue
    }

    /// Nobody waits for anything while holding it, least of all for the interpreter.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Whether Python is to look again at a level that was too low for an event.
    fn doubts(&mut self, logger: usize, now: Instant) -> bool {
        let looked = &mut self.looked[logger];
        let doubts = looked.is_none_or(|at| now.duration_since(at) >= DOUBT);
        if doubts {
            *looked = Some(now);
        }
        doubts
    }

    /// How many equal ones were left out before, if this one is to be told.
    fn left_out(&mut self, source: Place, now: Instant) -> Option<u64> {
        let Some(pace) = self.paces.get_mut(&source) else {
            let pace = Pace {
                told: now,
                pause: FIRST_PAUSE,
                left_out: 0,
            };
            self.paces.insert(source, pace);
            return Some(0);
        };
        let passed = now.duration_since(pace.told);
        if passed < pace.pause {
            pace.left_out += 1;
            return None;
        }
        pace.told = now;
        pace.pause = if passed < 2 * pace.pause {
            (2 * pace.pause).min(LONGEST_PAUSE)
        } else {
            FIRST_PAUSE
        };
        Some(std::mem::take(&mut pace.left_out))
    }

    fn push(&mut self, event: LogEvent) {
        if self.events.len() >= MOST {
            self.lost += 1;
            return;
        }
        self.events.push_back(event);
        if self.events.len() == 1
            && let Some(wake) = &self.wake
        {
            wake();
        }
    }
}

/// Gets every event of this module's crates.
struct Bridge;

impl Subscriber for Bridge {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && logger_of(metadata.target()).is_some()
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let Some(logger) = logger_of(metadata.target()) else {
            return;
        };
        let level = number(*metadata.level());
        let now = Instant::now();
        let wanted = level >= LEVELS[logger].load(Ordering::Relaxed);
        let queue = Queue::here();
        if !wanted && !queue.line().doubts(logger, now) {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let mut line = queue.line();
        let mut left_out = 0;
        // What is about one run is told for each, and details are for those who want all of them. The health of
        // a store has a pace of its own, for each store.
        if level >= WARNING && !words.of_a_run() && logger != HEALTH {
            let Some(count) = line.left_out((metadata.target(), metadata.line()), now) else {
                return;
            };
            left_out = count;
        }
        let event = LogEvent {
            logger: LOGGERS[logger].1,
            level,
            message: words.message(left_out),
            at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |span| span.as_secs_f64()),
            fields: words.fields,
        };
        line.push(event);
    }

    // Nothing here has spans.
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _span: &Id, _values: &SpanRecord<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

fn logger_of(target: &str) -> Option<usize> {
    LOGGERS
        .iter()
        .position(|(beginning, _)| target.starts_with(beginning))
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => WARNING,
        Level::INFO => INFO,
        _ => DEBUG,
    }
}

/// An event in words.
#[derive(Default)]
struct Words {
    text: String,
    fields: Vec<(&'static str, String)>,
}

impl Words {
    fn of_a_run(&self) -> bool {
        self.fields.iter().any(|(name, _)| *name == "run")
    }

    /// The text, the error, the other facts, and what was left out.
    fn message(&self, left_out: u64) -> String {
        let mut message = self.text.clone();
        let mut facts = Vec::new();
        for (name, value) in &self.fields {
            if *name == "error" {
                message.push_str(": ");
                message.push_str(value);
            } else {
                facts.push(format!("{name} {value}"));
            }
        }
        if left_out > 0 {
            facts.push(format!("{left_out} like it since the last one"));
        }
        if !facts.is_empty() {
            let _ = write!(message, " ({})", facts.join(", "));
        }
        message
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" && self.text.is_empty() {
            self.text = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

/// Sends what happens from now on to the queue.
pub(crate) fn install() {
    // It fails only if it was done before.
    let _ = set_global_default(Bridge);
}

/// Wakes by that descriptor when there is something to take, from now on.
#[pyfunction]
pub(crate) fn wake_logs(fd: i32) -> PyResult<()> {
    let wake = wake::by_descriptor(fd)?;
    let mut line = Queue::here().line();
    if !line.events.is_empty() {
        wake();
    }
    line.wake = Some(wake);
    Ok(())
}

/// What is to be told, oldest first, and how many were lost because nobody took them.
#[pyfunction]
pub(crate) fn take_logs() -> (Vec<LogEvent>, u64) {
    let mut line = Queue::here().line();
    let events = std::mem::take(&mut line.events);
    (events.into(), std::mem::take(&mut line.lost))
}

/// The least level that each of these loggers tells.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // converted from a dict: nobody keeps it
pub(crate) fn set_log_levels(levels: HashMap<String, u8>) {
    for (at, (_, logger)) in LOGGERS.iter().enumerate() {
        if let Some(level) = levels.get(*logger) {
            LEVELS[at].store(*level, Ordering::Relaxed);
        }
    }
}
