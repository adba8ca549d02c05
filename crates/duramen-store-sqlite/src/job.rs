//! What the writer is asked to do: a request, its answer once it is known, and who waits for it.

use duramen_core::ids::{Millis, Payload};
use duramen_core::store::{
    Appended, Beat, Claim, Claimed, CommitOutcome, Created, Delivered, Heartbeat, Intervened,
    Intervention, NewMessage, NewRun, RunCommit, ScheduleChange, Schema, StoreError, StreamAppend,
    Unsent,
};

use crate::error::Fault;
use crate::migrate;
use crate::oneshot::Reply;
use crate::session::Session;

/// A request of any kind. It may be run more than once: each run replaces the answer of the last.
pub(crate) trait Job: Send {
    /// Elements and payload bytes, for the cap of a transaction.
    fn size(&self) -> (usize, usize);

    /// Does the work inside a transaction and keeps the answer.
    fn run(&mut self, session: &mut Session<'_>) -> Result<(), Fault>;

    /// Its run commits, if these are what it is made of: they can be answered one by one.
    fn commits(&mut self) -> Option<&mut CommitJob> {
        None
    }

    /// Gives the answer to whoever waits: after the transaction is durable, or has failed.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// A request with its answer.
pub(crate) struct Request<Q: Ask> {
    ask: Q,
    answer: Option<Q::Answer>,
    reply: Reply<Q::Answer>,
}

/// Run commits of one call.
pub(crate) type CommitJob = Request<Vec<RunCommit>>;

/// How one kind of request is measured and done.
pub(crate) trait Ask: Send + Sized + 'static {
    type Answer: Send + 'static;

    fn size(&self) -> (usize, usize);

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault>;

    fn commits(_request: &mut Request<Self>) -> Option<&mut CommitJob> {
        None
    }
}

impl<Q: Ask> Request<Q> {
    pub(crate) fn new(ask: Q, reply: Reply<Q::Answer>) -> Self {
        Self {
            ask,
            answer: None,
            reply,
        }
    }
}

impl CommitJob {
    pub(crate) fn batch(&self) -> &[RunCommit] {
        &self.ask
    }

    pub(crate) fn answer(&mut self, outcomes: Vec<CommitOutcome>) {
        self.answer = Some(outcomes);
    }
}

impl<Q: Ask> Job for Request<Q> {
    fn size(&self) -> (usize, usize) {
        self.ask.size()
    }

    fn run(&mut self, session: &mut Session<'_>) -> Result<(), Fault> {
        self.answer = Some(self.ask.run(session)?);
        Ok(())
    }

    fn commits(&mut self) -> Option<&mut CommitJob> {
        Q::commits(self)
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { answer, reply, .. } = *self;
        match (outcome, answer) {
            (Ok(()), Some(answer)) => reply.send(Ok(answer)),
            (Err(error), _) => reply.send(Err(error)),
            // Dropping the reply answers with an error.
            (Ok(()), None) => drop(reply),
        }
    }
}

impl Ask for Vec<NewRun> {
    type Answer = Vec<Created>;

    fn size(&self) -> (usize, usize) {
        let bytes = |new: &NewRun| -> usize {
            let brought = new.entries.iter().map(|entry| entry.payload.len());
            brought.sum::<usize>() + new.input.len()
        };
        (self.len(), self.iter().map(bytes).sum())
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        session.create(self)
    }
}

impl Ask for Vec<RunCommit> {
    type Answer = Vec<CommitOutcome>;

    fn size(&self) -> (usize, usize) {
        let bytes = |commit: &RunCommit| -> usize {
            let entries = commit.entries.iter().map(|entry| entry.payload.len());
            let items = commit.outgoing.iter().map(|item| item.body.len());
            let state = commit.state.as_ref().map(Payload::len);
            let written = commit.written.iter().map(|item| item.payload.len());
            entries.chain(items).chain(written).chain(state).sum()
        };
        (self.len(), self.iter().map(bytes).sum())
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        session.commit(self)
    }

    fn commits(request: &mut Request<Self>) -> Option<&mut CommitJob> {
        Some(request)
    }
}

/// What steps have written to streams.
impl Ask for Vec<StreamAppend> {
    type Answer = Vec<Appended>;

    fn size(&self) -> (usize, usize) {
        let items = || self.iter().flat_map(|append| &append.items);
        let bytes = items().map(|item| item.payload.len());
        (items().count(), bytes.sum())
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        session.append_items(self)
    }
}

impl Ask for Vec<NewMessage> {
    type Answer = Vec<Delivered>;

    fn size(&self) -> (usize, usize) {
        (self.len(), self.iter().map(|new| new.payload.len()).sum())
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        session.deliver(self)
    }
}

impl Ask for Vec<Intervention> {
    type Answer = Vec<Intervened>;

    fn size(&self) -> (usize, usize) {
        (self.len(), 0)
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        session.intervene(self)
    }
}

impl Ask for Claim {
    type Answer = Claimed;

    fn size(&self) -> (usize, usize) {
        (self.limit as usize, 0)
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        session.claim(self)
    }
}

impl Ask for Heartbeat {
    type Answer = Beat;

    fn size(&self) -> (usize, usize) {
        (1, 0)
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        session.heartbeat(self)
    }
}

/// The end of an owner.
pub(crate) struct Retire {
    pub(crate) owner: String,
    pub(crate) now: Option<Millis>,
}

impl Ask for Retire {
    type Answer = ();

    fn size(&self) -> (usize, usize) {
        (1, 0)
    }

    fn run(&self, session: &mut Session<'_>) -> Result<(), Fault> {
        session.retire(&self.owner, self.now)
    }
}

/// What was carried out.
impl Ask for Vec<Unsent> {
    type Answer = ();

    fn size(&self) -> (usize, usize) {
        (self.len(), 0)
    }

    fn run(&self, session: &mut Session<'_>) -> Result<(), Fault> {
        session.sent(self)
    }
}

impl Ask for Vec<ScheduleChange> {
    type Answer = Vec<bool>;

    fn size(&self) -> (usize, usize) {
        let rows = self.iter().filter_map(|change| change.row.as_ref());
        let bytes = rows.map(|row| row.definition.len() + row.state.len());
        (self.len(), bytes.sum())
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        session.change_schedules(self)
    }
}

/// The request to apply missing migrations.
pub(crate) struct Migrate;

impl Ask for Migrate {
    type Answer = Schema;

    fn size(&self) -> (usize, usize) {
        (1, 0)
    }

    fn run(&self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        migrate::apply(session.connection)
    }
}
