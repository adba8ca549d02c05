//! What a journal may say: an independent reading of it, entry by entry.
//!
//! It shares nothing with the replay machine but the handler itself: operations get their numbers
//! by order of request, outcomes are handed over in the journal's order, and each entry must be
//! one that could have been written at that point.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use duramen_core::derive::ValueKind;
use duramen_core::family::{End, Ended};
use duramen_core::ids::Millis;
use duramen_core::inbox::Slot;
use duramen_core::journal::{Entry, Kind, Meta};
use duramen_core::primitives::timer::{RUN_TIMEOUT_OP, TimerStem};
use duramen_core::run::{RunRow, Status};

use crate::desk::LISTENER;
use crate::handler::{Ask, Fault, Flow, Handler, Port, Told};
use crate::newer;
use crate::oracles;
use crate::program::{Program, Step};

/// What the world knows of a run, besides its journal.
pub trait World {
    /// Whether an attempt of that step has brought that result or failure.
    fn came_out(&self, op: &str, attempt: u32, payload: &str) -> bool;
    /// Whether a message with that id, for that wait (none: a cancellation), was sent.
    fn was_sent(&self, message: &str, wait: Option<&str>, payload: &str) -> bool;
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Open {
    Step { failed: u32 },
    Timer,
    Wait { key: String },
    Child { key: String },
}

#[derive(Debug)]
struct Operation {
    id: String,
    what: Open,
    deadline: Option<Millis>,
}

/// What the handler asks for, answered from the journal alone.
#[derive(Debug, Default)]
struct Reading {
    run_id: String,
    now: Millis,
    names: BTreeMap<String, u32>,
    automatic: BTreeMap<&'static str, u32>,
    open: BTreeMap<Slot, Operation>,
    answers: BTreeMap<Slot, Told>,
    /// Whose marks were read.
    patches: BTreeSet<String>,
    slots: Slot,
    /// When the run was reopened last.
    reopened_at: Option<Millis>,
    /// Entries still to come, the next one first.
    ahead: Vec<Entry>,
    wrong: Option<String>,
}

impl Reading {
    fn name(&mut self, id: &str) -> String {
        let times = self.names.entry(id.to_owned()).or_insert(0);
        *times += 1;
        if *times == 1 {
            id.to_owned()
        } else {
            format!("{id}#{times}")
        }
    }

    fn numbered(&mut self, stem: &'static str) -> String {
        let n = self.automatic.entry(stem).or_insert(0);
        *n += 1;
        let id = format!("{stem}-{n}");
        self.name(&id)
    }

    fn open(&mut self, id: String, what: Open, span: Option<Millis>) -> Ask {
        let slot = self.slots;
        self.slots += 1;
        let deadline = span.map(|span| self.now + span);
        self.open.insert(slot, Operation { id, what, deadline });
        Ask::Pending(slot)
    }

    /// Open steps get fresh attempts.
    fn reopen(&mut self, at: Millis) {
        self.reopened_at = Some(at);
        for operation in self.open.values_mut() {
            if let Open::Step { failed } = &mut operation.what {
                *failed = 0;
            }
        }
    }

    /// Whether nothing of the handler's is recorded behind this place. A reopening tells it nothing.
    fn is_at_the_end(&mut self) -> bool {
        while let Some(next) = self.ahead.first()
            && next.kind == Kind::RunReopened
        {
            let at = next.at;
            self.ahead.remove(0);
            self.reopen(at);
        }
        let next = self.ahead.first();
        next.is_none_or(|next| next.kind == Kind::RunTerminated)
    }

    /// The next entry must say that this left for that run. An answer if the handler cannot go on.
    fn sent(&mut self, kind: Kind, id: &str, to: &str, wait: Option<&str>) -> Option<Ask> {
        if self.is_at_the_end() {
            return Some(Ask::Halted); // not recorded yet
        }
        let entry = self.ahead.remove(0);
        let meta = oracles::meta(&entry).unwrap_or_default();
        if entry.kind != kind
            || *entry.op != *id
            || meta.run.as_deref() != Some(to)
            || meta.wait.as_deref() != wait
        {
            let (kind, op) = (entry.kind.name(), &entry.op);
            self.wrong = Some(format!("{kind} {op:?} where {id} was sent to {to}"));
            return Some(Ask::Halted);
        }
        None
    }

    fn slot_of(&self, id: &str) -> Option<Slot> {
        let mut open = self.open.iter();
        open.find(|(_, operation)| operation.id == id)
            .map(|(slot, _)| *slot)
    }
}

impl Port for Reading {
    fn step(&mut self, step: &Step, _: bool) -> Ask {
        let id = self.name(&step.id);
        self.open(id, Open::Step { failed: 0 }, None)
    }

    fn timer(&mut self, stem: TimerStem, span: Millis) -> Ask {
        let id = self.numbered(match stem {
            TimerStem::Sleep => "sleep",
            TimerStem::Timer => "timer",
        });
        self.open(id, Open::Timer, Some(span))
    }

    fn event(&mut self, name: &str, timeout: Option<Millis>) -> Ask {
        let id = self.numbered("event");
        let key = format!("event:{name}");
        self.open(id, Open::Wait { key }, timeout)
    }

    fn approval(&mut self, timeout: Option<Millis>) -> Ask {
        let id = self.numbered("approval");
        let key = format!("approval:{id}");
        self.open(id, Open::Wait { key }, timeout)
    }

    fn value(&mut self, kind: ValueKind) -> Ask {
        let id = self.numbered(kind.name());
        if self.is_at_the_end() {
            return Ask::Halted; // not recorded yet
        }
        let entry = self.ahead.remove(0);
        if entry.kind != Kind::ValueRecorded || *entry.op != *id {
            let (kind, op) = (entry.kind.name(), &entry.op);
            self.wrong = Some(format!("{kind} {op:?} where {id} was asked for"));
            return Ask::Halted;
        }
        Ask::Ready(Told::Value(text(&entry)))
    }

    fn patched(&mut self, id: &str) -> Ask {
        if self.patches.contains(id) {
            return Ask::Ready(Told::Value("true".to_owned()));
        }
        if self.is_at_the_end() {
            return Ask::Halted; // not recorded yet
        }
        let entry = self.ahead.remove(0);
        if entry.kind != Kind::PatchMarked || *entry.op != *id {
            let (kind, op) = (entry.kind.name(), &entry.op);
            self.wrong = Some(format!("{kind} {op:?} where patch {id} was asked for"));
            return Ask::Halted;
        }
        self.patches.insert(id.to_owned());
        Ask::Ready(Told::Value("true".to_owned()))
    }

    fn write(&mut self, stream: &str) -> Ask {
        let id = self.numbered("stream");
        if self.is_at_the_end() {
            return Ask::Halted; // not recorded yet
        }
        let entry = self.ahead.remove(0);
        let to = oracles::meta(&entry).and_then(|meta| meta.stream);
        if entry.kind != Kind::StreamWritten || *entry.op != *id || to.as_deref() != Some(stream) {
            let (kind, op) = (entry.kind.name(), &entry.op);
            self.wrong = Some(format!(
                "{kind} {op:?} to {to:?} where {id} to {stream} was asked for"
            ));
            return Ask::Halted;
        }
        Ask::Ready(Told::Fired)
    }

    fn child(&mut self) -> Ask {
        let id = self.numbered("child");
        let run_id = format!("{}/{id}", self.run_id);
        let found = self.sent(Kind::ChildStarted, &id, &run_id, None);
        found.unwrap_or_else(|| {
            let key = format!("child:{run_id}");
            self.open(id, Open::Child { key }, None)
        })
    }

    fn tell(&mut self, name: &str) -> Ask {
        let id = self.numbered("signal");
        let wait = format!("event:{name}");
        let found = self.sent(Kind::MessageSent, &id, LISTENER, Some(&wait));
        found.unwrap_or_else(|| Ask::Ready(Told::Value("told".to_owned())))
    }

    fn take(&mut self, slot: Slot) -> Option<Told> {
        self.answers.remove(&slot)
    }

    fn give_up(&mut self, slot: Slot) {
        self.open.remove(&slot);
    }
}

fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.payload).into_owned()
}

/// The output of a handler as its run records it.
pub fn output(digest: u64) -> String {
    format!("{digest:016x}")
}

/// Checks a run's whole journal against its program and its row. The error says what is illegal.
pub fn check(
    program: &Rc<Program>,
    row: &RunRow,
    journal: &[Entry],
    world: &dyn World,
) -> Result<(), String> {
    let [first, rest @ ..] = journal else {
        return Err("the journal is empty".into());
    };
    if first.kind != Kind::RunCreated {
        return Err(format!("entry 0 is {}", first.kind.name()));
    }
    let (stands, taken_back) = what_stands(rest);
    let rest = &stands[..];
    let reading = Rc::new(RefCell::new(Reading {
        run_id: row.run_id.to_string(),
        now: row.started_at.unwrap_or(row.created_at),
        ahead: rest.to_vec(),
        ..Reading::default()
    }));
    let mut reader = Reader {
        handler: Handler::new(program, Rc::clone(&reading) as Rc<RefCell<dyn Port>>),
        reading,
        world,
        ended: None,
        cancelled: false,
        timed_out: false,
        read: BTreeSet::new(),
        deadline: row.deadline,
        timeout: row.timeout,
        taken_back,
    };
    reader.drain()?;
    let mut index = 0;
    while let Some(entry) = reader.next() {
        index = rest.len() - reader.reading.borrow().ahead.len();
        reader.entry(&entry).map_err(|error| {
            format!(
                "entry {index} ({} {:?}): {error}",
                entry.kind.name(),
                entry.op
            )
        })?;
    }
    reader
        .status(row.status, journal)
        .map_err(|error| format!("after entry {index}: {error}"))
}

struct Reader<'a> {
    handler: Handler,
    reading: Rc<RefCell<Reading>>,
    world: &'a dyn World,
    ended: Option<Flow>,
    cancelled: bool,
    timed_out: bool,
    /// Ids of messages that were consumed.
    read: BTreeSet<String>,
    deadline: Option<Millis>,
    timeout: Option<Millis>,
    taken_back: BTreeSet<Attempt>,
}

/// A step, an attempt, and what came out.
type Attempt = (String, u32, String);

/// What stands of a journal behind its first entry: a reopening takes back everything from its cause on,
/// the end of the run in any case. All that was taken back may be recorded again.
fn what_stands(rest: &[Entry]) -> (Vec<Entry>, BTreeSet<Attempt>) {
    let mut taken_back = BTreeSet::new();
    let mut stands: Vec<(usize, Entry)> = Vec::new();
    for (place, entry) in (1..).zip(rest) {
        let mut entry = entry.clone();
        newer::known(&mut entry);
        if entry.kind == Kind::RunReopened {
            let cause = oracles::meta(&entry).and_then(|meta| meta.cause);
            let cause = cause.and_then(|at| usize::try_from(at).ok());
            let cause = cause.unwrap_or(place);
            for (_, entry) in stands.iter().filter(|(at, _)| *at >= cause) {
                if entry.kind == Kind::StepCompleted {
                    let attempt = oracles::meta(entry).and_then(|meta| meta.attempt);
                    taken_back.insert((entry.op.to_string(), attempt.unwrap_or(1), text(entry)));
                }
            }
            stands.retain(|(at, _)| *at < cause);
            while let Some((_, last)) = stands.last()
                && is_end(last.kind)
            {
                stands.pop();
            }
        }
        stands.push((place, entry));
    }
    let stands = stands.into_iter().map(|(_, entry)| entry);
    (stands.collect(), taken_back)
}

const fn is_end(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::RunFinished | Kind::RunFailed | Kind::RunCancelled | Kind::RunTerminated
    )
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Entry> {
        let mut reading = self.reading.borrow_mut();
        (!reading.ahead.is_empty()).then(|| reading.ahead.remove(0))
    }

    fn drain(&mut self) -> Result<(), String> {
        if self.ended.is_none() {
            self.ended = self.handler.drain();
        }
        self.reading.borrow_mut().wrong.take().map_or(Ok(()), Err)
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), String> {
        if self.ended.is_some() {
            return if is_end(entry.kind) || entry.kind == Kind::RunReopened {
                Ok(()) // what it says is compared with the row's status
            } else {
                Err("the handler has ended".into())
            };
        }
        let meta = entry.meta().map_err(|error| error.to_string())?;
        match entry.kind {
            Kind::StepCompleted | Kind::StepFailed => self.step_ended(entry, &meta),
            Kind::StepAttemptFailed => self.attempt_failed(entry, &meta),
            Kind::TimerFired if &*entry.op == RUN_TIMEOUT_OP => {
                let deadline = self.limit().ok_or("the run has no deadline")?;
                if entry.at < deadline || std::mem::replace(&mut self.timed_out, true) {
                    return Err(format!("the run's deadline is {deadline}"));
                }
                self.cancel(entry)
            }
            Kind::TimerFired => self.fired(entry),
            Kind::WaitOpened | Kind::ApprovalRequested => self.opened(entry, &meta),
            Kind::EventReceived | Kind::ApprovalResolved => self.received(entry, &meta),
            Kind::ChildFinished => self.child_ended(entry, &meta),
            Kind::CancelRequested => {
                let message = meta.message.ok_or("no message is named")?;
                self.consume(&message, None, entry)?;
                self.cancelled = true;
                self.cancel(entry)
            }
            // For the next attempt alone: the handler is not told.
            Kind::RunTerminated | Kind::StepProgress => Ok(()),
            Kind::RunReopened => {
                self.reading.borrow_mut().reopen(entry.at);
                Ok(())
            }
            _ => Err("nobody asked for it".into()),
        }
    }

    /// When the run's time is over. One that was reopened after that gets it again.
    fn limit(&self) -> Option<Millis> {
        let reopened_at = self.reading.borrow().reopened_at;
        match (reopened_at, self.deadline, self.timeout) {
            (Some(at), Some(deadline), Some(timeout)) if at >= deadline => {
                Some(at.saturating_add(timeout))
            }
            (_, deadline, _) => deadline,
        }
    }

    fn cancel(&mut self, entry: &Entry) -> Result<(), String> {
        self.advance(entry)?;
        self.handler.cancel();
        self.drain()
    }

    /// The logical clock moves with what is delivered, and never back.
    fn advance(&self, entry: &Entry) -> Result<(), String> {
        let mut reading = self.reading.borrow_mut();
        if entry.at < reading.now {
            return Err(format!("its time {} is before {}", entry.at, reading.now));
        }
        reading.now = entry.at;
        Ok(())
    }

    fn tell(&mut self, entry: &Entry, slot: Slot, told: Told) -> Result<(), String> {
        self.advance(entry)?;
        {
            let mut reading = self.reading.borrow_mut();
            reading.open.remove(&slot);
            reading.answers.insert(slot, told);
        }
        self.drain()
    }

    fn find<T>(
        &self,
        entry: &Entry,
        with: impl FnOnce(&mut Operation) -> Result<T, String>,
    ) -> Result<(Slot, T), String> {
        let mut reading = self.reading.borrow_mut();
        let slot = reading.slot_of(&entry.op).ok_or("nobody waits for it")?;
        let operation = reading.open.get_mut(&slot).ok_or("it is not open")?;
        Ok((slot, with(operation)?))
    }

    fn step_ended(&mut self, entry: &Entry, meta: &Meta) -> Result<(), String> {
        let attempt = meta.attempt.unwrap_or(1);
        let again = entry.kind == Kind::StepCompleted
            && self
                .taken_back
                .contains(&(entry.op.to_string(), attempt, text(entry)));
        let (slot, ()) = self.find(entry, |operation| match operation.what {
            Open::Step { failed } if failed + 1 == attempt => Ok(()),
            // A result that was taken back is recorded again as it was.
            Open::Step { .. } if again => Ok(()),
            ref other => Err(format!("attempt {attempt} of {other:?}")),
        })?;
        let payload = text(entry);
        if !self.world.came_out(&entry.op, attempt, &payload) {
            return Err(format!("no attempt {attempt} came out as {payload:?}"));
        }
        let told = if entry.kind == Kind::StepCompleted {
            Told::Value(payload)
        } else {
            Told::Failed(payload)
        };
        self.tell(entry, slot, told)
    }

    fn attempt_failed(&mut self, entry: &Entry, meta: &Meta) -> Result<(), String> {
        let attempt = meta.attempt.ok_or("no attempt is named")?;
        let payload = text(entry);
        if !self.world.came_out(&entry.op, attempt, &payload) {
            return Err(format!("no attempt {attempt} came out as {payload:?}"));
        }
        if meta.retry_at.is_none_or(|at| at < entry.at) {
            return Err("the next attempt is due before this one failed".into());
        }
        self.find(entry, |operation| match &mut operation.what {
            Open::Step { failed } if *failed + 1 == attempt => {
                *failed = attempt;
                Ok(())
            }
            other => Err(format!("attempt {attempt} of {other:?}")),
        })?;
        Ok(())
    }

    fn fired(&mut self, entry: &Entry) -> Result<(), String> {
        let (slot, told) = self.find(entry, |operation| {
            let deadline = operation.deadline.ok_or("it has no deadline")?;
            if entry.at < deadline {
                return Err(format!("at {}, before its deadline {deadline}", entry.at));
            }
            match operation.what {
                Open::Timer => Ok(Told::Fired),
                Open::Wait { .. } => Ok(Told::TimedOut),
                Open::Step { .. } | Open::Child { .. } => Err("it has no timer".into()),
            }
        })?;
        self.tell(entry, slot, told)
    }

    fn opened(&mut self, entry: &Entry, meta: &Meta) -> Result<(), String> {
        self.find(entry, |operation| {
            let key = match &operation.what {
                Open::Timer => "timer",
                Open::Wait { key } | Open::Child { key } => key,
                Open::Step { .. } => return Err("a step is no wait".into()),
            };
            if meta.wait.as_deref() != Some(key) || meta.deadline != operation.deadline {
                let (wait, deadline) = (&meta.wait, meta.deadline);
                return Err(format!(
                    "{wait:?} until {deadline:?}; expected {key:?} until {:?}",
                    operation.deadline
                ));
            }
            Ok(())
        })?;
        Ok(())
    }

    fn received(&mut self, entry: &Entry, meta: &Meta) -> Result<(), String> {
        let (slot, key) = self.find(entry, |operation| match &operation.what {
            Open::Wait { key } => Ok(key.clone()),
            other => Err(format!("{other:?} takes no message")),
        })?;
        let message = meta.message.as_deref().ok_or("no message is named")?;
        self.consume(message, Some(&key), entry)?;
        self.tell(entry, slot, Told::Value(text(entry)))
    }

    /// What a child told is recorded with how it ended before it.
    fn child_ended(&mut self, entry: &Entry, meta: &Meta) -> Result<(), String> {
        let (slot, key) = self.find(entry, |operation| match &operation.what {
            Open::Child { key } => Ok(key.clone()),
            other => Err(format!("{other:?} is no child")),
        })?;
        let message = meta.message.as_deref().ok_or("no message is named")?;
        let end = End {
            ended: meta.ended.unwrap_or(Ended::Completed),
            payload: entry.payload.clone(),
        };
        let told = String::from_utf8_lossy(&end.to_payload()).into_owned();
        if !self.world.was_sent(message, Some(&key), &told) {
            return Err(format!("nobody told {key} by {message:?}"));
        }
        if !self.read.insert(message.to_owned()) {
            return Err(format!("message {message:?} was consumed before"));
        }
        let told = match end.ended {
            Ended::Completed => Told::Value(text(entry)),
            _ => Told::Failed(text(entry)),
        };
        self.tell(entry, slot, told)
    }

    fn consume(&mut self, message: &str, wait: Option<&str>, entry: &Entry) -> Result<(), String> {
        if !self.world.was_sent(message, wait, &text(entry)) {
            return Err(format!("nobody sent message {message:?} for {wait:?}"));
        }
        if !self.read.insert(message.to_owned()) {
            return Err(format!("message {message:?} was consumed before"));
        }
        Ok(())
    }

    /// Whether the run may stand where it does, after all its entries.
    fn status(&self, status: Status, journal: &[Entry]) -> Result<(), String> {
        let end = journal.last().map(|entry| (entry.kind, text(entry)));
        if status == Status::Terminated {
            return match end {
                Some((Kind::RunTerminated, _)) => Ok(()),
                _ => Err("terminated without an entry that says so".into()),
            };
        }
        let expected = match &self.ended {
            None => {
                return match status {
                    Status::Queued | Status::Running | Status::Waiting => Ok(()),
                    _ => Err(format!("{} before its handler has ended", status.name())),
                };
            }
            // The end may not have been recorded yet.
            Some(_) if matches!(status, Status::Queued | Status::Running | Status::Waiting) => {
                return Ok(());
            }
            Some(Ok(digest)) => (Kind::RunFinished, Status::Completed, Some(output(*digest))),
            Some(Err(Fault::Cancelled)) if self.cancelled => {
                (Kind::RunCancelled, Status::Cancelled, None)
            }
            Some(Err(fault)) => (Kind::RunFailed, Status::Failed, Some(failure(fault).0)),
        };
        let (kind, legal, payload) = expected;
        let said = end.as_ref().is_some_and(|(found, told)| {
            *found == kind && payload.as_ref().is_none_or(|payload| payload == told)
        });
        if status != legal || !said {
            return Err(format!(
                "{} with {end:?}; its journal makes it {} with {payload:?}",
                status.name(),
                legal.name()
            ));
        }
        Ok(())
    }
}

/// A fault as its run records it, with the operation that failed if it was one.
pub fn failure(fault: &Fault) -> (String, Option<String>) {
    match fault {
        Fault::Failed(text) => {
            let op = text.split('/').next().map(str::to_owned);
            (text.clone(), op)
        }
        Fault::TimedOut => ("timed out".into(), None),
        Fault::Cancelled => ("cancelled".into(), None),
    }
}
