//! The queue to the host: what it must do next, in bulk, with one wake-up per batch.

use std::sync::{Mutex, MutexGuard, PoisonError};

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    Appended, ClaimedRun, CommitOutcome, Created, Delivered, DueSchedules, Intervened, Message,
    OpenRuns, OwnerRow, Page, Receipt, RunDetail, ScheduleRow, Schema, Standing, StoreError,
    StreamPage,
};

use crate::env::{Moment, system_moment};

/// A place among the runs that are driven here; never used twice.
pub type Ticket = u64;

/// Ties a reply to the call that asked for it.
pub type Token = u64;

/// Something for the host to do.
#[derive(Debug)]
// Replies are moved once, from the store's thread into the queue; boxing each would cost more.
#[allow(clippy::large_enum_variant)]
pub enum HostEvent {
    /// Drive a claimed run from its journal.
    Drive {
        ticket: Ticket,
        run: Box<ClaimedRun>,
        clock: Option<Millis>,
    },
    /// Go on with a run that was paused here and kept warm.
    Resume {
        ticket: Ticket,
        row: Box<RunRow>,
        inbox: Vec<Message>,
        /// More messages are on their way than the page that came with the claim.
        inbox_more: bool,
        clock: Option<Millis>,
    },
    /// Drop a paused run that was kept warm.
    Evict { ticket: Ticket },
    /// The commit in flight has ended.
    Committed {
        ticket: Ticket,
        outcome: CommitOutcome,
    },
    /// The lease of that epoch is lost, or the store has failed for good: stop driving at once,
    /// write nothing. A run that has left the host's hands meanwhile is not meant.
    Lost {
        ticket: Ticket,
        epoch: i64,
        error: Option<StoreError>,
    },
    Messages {
        ticket: Ticket,
        messages: Vec<Message>,
    },
    /// The next page of the inbox that the claim left behind; without any `more`, its end. For
    /// [`Machine::deliver_page`](duramen_core::machine::Machine::deliver_page).
    Page {
        ticket: Ticket,
        messages: Vec<Message>,
        more: bool,
    },
    /// A deadline that the run is held for has come.
    Tick { ticket: Ticket },
    /// The budget is used up: start nothing fresh, release the run.
    Yield { ticket: Ticket },
    /// Runs of the workflows served here need a newer build, which reads a higher encoding than this one
    /// (`reads`): they are left to it. Said once.
    Newer { reads: u8 },
    Reply {
        token: Token,
        reply: Result<Reply, StoreError>,
    },
}

/// How driving a run ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    Completed,
    Failed,
    Cancelled,
    Stuck,
    /// Released, to be taken up again by anyone when it is due.
    Paused,
    /// Continued as new: the next generation is taken up by anyone when it is due.
    Continued,
    /// Another owner has it, or the store failed.
    Lost,
}

impl Driven {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Stuck => "stuck",
            Self::Paused => "paused",
            Self::Continued => "continued",
            Self::Lost => "lost",
        }
    }
}

/// What a sweep did, by class, in the order in which runs left its hands.
#[derive(Debug, Default, Clone)]
pub struct SweepReport {
    pub recovered: Vec<(RunId, &'static str)>,
    pub timers: Vec<(RunId, &'static str)>,
    pub queued: Vec<(RunId, &'static str)>,
    pub deadline_reached: bool,
    /// Whether more may be due.
    pub more: bool,
}

/// The outcome of a call.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // as above
pub enum Reply {
    Done,
    /// A run was created and is driven here under this ticket, or existed.
    Started {
        /// Whether this call created it.
        new: bool,
        /// Of the run that is there.
        workflow: String,
        status: Status,
        ticket: Option<Ticket>,
    },
    Created(Vec<Created>),
    Delivered(Vec<Delivered>),
    Appended(Vec<Appended>),
    Intervened(Vec<Intervened>),
    Details(Vec<Option<RunDetail>>),
    Entries(Vec<Entry>),
    /// None: there is no such run.
    Stream(Option<StreamPage>),
    Page(Page),
    Owners(Vec<OwnerRow>),
    Census(Vec<OpenRuns>),
    Standings(Vec<Option<Standing>>),
    /// Whether each schedule was changed.
    Changed(Vec<bool>),
    Schedules(Vec<Option<ScheduleRow>>),
    ScheduleList(Vec<ScheduleRow>),
    DueSchedules(DueSchedules),
    Count(u64),
    Schema(Schema),
    Identity(Option<String>),
    /// Runs that were taken up to be driven here.
    Taken(Vec<(RunId, Ticket)>),
    Swept(SweepReport),
    /// How a run that was waited for has ended: a final status or stuck; none if there is no such run.
    Ended(Option<Status>),
    /// What became of a message that was waited for.
    Answer(Answer),
    /// A copy of a run, to be read along; none if there is none.
    Read(Option<Box<ClaimedRun>>),
}

/// What became of a message that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was consumed, with what the run answered.
    Answered { reply: Option<Payload> },
    /// It was set aside.
    Refused { reason: String },
    /// It is unread, and the run has ended or is parked; none: there is no such run, or no such message.
    Unanswered { status: Option<Status> },
}

impl Answer {
    /// As far as the message itself tells.
    pub(crate) fn of(receipt: Receipt) -> Self {
        match receipt {
            Receipt::Unread => Self::Unanswered { status: None },
            Receipt::Consumed { reply } => Self::Answered { reply },
            Receipt::SetAside { reason } => Self::Refused { reason },
        }
    }
}

/// Called when the queue goes from empty to non-empty, from any thread. It may not call the engine.
pub type WakeHost = Box<dyn Fn() + Send + Sync>;

/// Events waiting for the host's loop.
pub struct HostQueue {
    line: Mutex<Line>,
    wake: WakeHost,
    clock: Box<dyn Fn() -> Moment + Send + Sync>,
}

#[derive(Default)]
struct Line {
    events: Vec<HostEvent>,
    /// Since when the host is expected to drain. Kept under the lock with the events: set beside it,
    /// it could be left behind by a drain that comes between, and an idle host would look blocked.
    expected_since: Option<Moment>,
}

impl std::fmt::Debug for HostQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostQueue").finish_non_exhaustive()
    }
}

impl HostQueue {
    pub fn new(wake: WakeHost) -> Self {
        Self::with_clock(wake, system_moment)
    }

    /// A queue that tells by another clock for how long its host has been blocked; for simulations.
    pub fn with_clock(wake: WakeHost, clock: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Self {
            line: Mutex::default(),
            wake,
            clock: Box::new(clock),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, event: HostEvent) {
        self.push_all(std::iter::once(event));
    }

    pub fn push_all(&self, new: impl IntoIterator<Item = HostEvent>) {
        let mut line = self.line();
        let was_empty = line.events.is_empty();
        line.events.extend(new);
        let wakes = was_empty && !line.events.is_empty();
        if wakes {
            line.expected_since.get_or_insert_with(|| (self.clock)());
        }
        drop(line);
        if wakes {
            (self.wake)();
        }
    }

    /// Wakes the host although no event waits: something else does.
    pub fn poke(&self) {
        (self.wake)();
    }

    /// Asks the host for a sign of life: a loop that is blocked would not be noticed as long as
    /// nothing is there for it to do.
    pub(crate) fn probe(&self) {
        self.line()
            .expected_since
            .get_or_insert_with(|| (self.clock)());
        (self.wake)();
    }

    /// Everything that waits, oldest first.
    pub fn drain(&self) -> Vec<HostEvent> {
        let mut line = self.line();
        line.expected_since = None;
        std::mem::take(&mut line.events)
    }

    /// For how long the host has left events waiting, whatever the time of day: a loop that is
    /// blocked, or a process that was stopped and goes on.
    pub fn blocked_for(&self) -> Millis {
        self.line()
            .expected_since
            .map_or(0, |since| (self.clock)().since(since))
    }
}
