//! What a primitive may touch of a run, and nothing else.
//!
//! A primitive names an operation, looks whether the journal has its answer next, opens and closes it,
//! and gives entries their place. It sees neither whether the run is still driven nor what is on its way
//! to the store: the machine asks a primitive only when it may act, and what it records goes out by itself.

use super::arrivals::Arrived;
use super::facts::Facts;
use super::history::Placed;
use super::ledger::Weight;
use super::naming::Holder;
use super::op::{Op, OpKind, StepPhase};
use super::state::Progress;
use super::turn::{Outcome, StepOutcome, UpdateOutcome};
use std::sync::Arc;

use crate::ids::{InvalidId, Millis, OpId, Payload, check_op_id};
use crate::inbox::Slot;
use crate::journal::Entry;
use crate::run::Seed;
use crate::store::{Message, Outgoing, StreamWrite};

/// See the module's head.
pub(crate) struct Desk<'m> {
    run: &'m mut Progress,
}

impl<'m> Desk<'m> {
    pub(crate) const fn of(run: &'m mut Progress) -> Self {
        Self { run }
    }
}

/// Ids.
impl Desk<'_> {
    /// The id of an operation that the user named.
    pub(crate) fn named(&mut self, id: &str, holder: Holder) -> Result<OpId, InvalidId> {
        check_op_id(id)?;
        let history = &self.run.history;
        self.run
            .naming
            .explicit(id, holder, |op, fits| history.mentions(op, fits))
    }

    /// The id of an operation that the user did not name.
    pub(crate) fn numbered(&mut self, stem: &'static str, holder: Holder) -> OpId {
        self.run.naming.automatic(stem, holder)
    }

    /// The id of an operation that the user may have named.
    pub(crate) fn id(
        &mut self,
        id: Option<&str>,
        stem: &'static str,
        holder: Holder,
    ) -> Result<OpId, InvalidId> {
        match id {
            Some(id) => self.named(id, holder),
            None => Ok(self.numbered(stem, holder)),
        }
    }
}

/// What is recorded already.
impl Desk<'_> {
    /// The entry that the handler must be told of next.
    pub(crate) fn next_recorded(&mut self) -> Option<&Placed> {
        self.run.pass_notes();
        self.run.history.front()
    }

    /// A step's progress, for its next attempt.
    pub(crate) fn tell(&mut self, op: OpId, progress: Payload) {
        self.run.history.tell(op, progress);
    }

    /// Takes that entry.
    pub(crate) fn take_recorded(&mut self) -> Option<Placed> {
        self.run.history.pop()
    }

    /// Takes that entry, which ends an operation that needs not be opened for it.
    pub(crate) fn answer(&mut self, kind: &OpKind) -> Option<(Outcome, Millis)> {
        let placed = self.run.history.pop()?;
        self.run.last_op = placed.entry.op.clone();
        let at = self.run.clock.advance(placed.entry.at);
        Some((self.run.recorded_outcome(placed, kind), at))
    }

    /// Whether an operation requested now has a result that a reopening took back; it is served then.
    pub(crate) fn is_served(&mut self, slot: Slot) -> bool {
        let history = &self.run.history;
        history.is_empty() && history.has_memo() && self.run.recall(slot)
    }
}

/// Patches of the code.
impl Desk<'_> {
    /// Whether a patch is in force for this run, if that is settled.
    pub(crate) fn patch(&self, patch: &str) -> Option<bool> {
        self.run.patches.get(patch)
    }

    pub(crate) fn patched(&mut self, patch: OpId) {
        self.run.patches.marked(patch);
    }

    pub(crate) fn passed_without(&mut self, patch: OpId) {
        self.run.patches.passed_without(patch);
    }
}

/// Streams.
impl Desk<'_> {
    /// The place of the next item among all that the handler writes to the stream.
    pub(crate) fn next_in_stream(&mut self, stream: &str) -> u64 {
        self.run.streams.next(stream)
    }

    /// Records an entry and the item that goes out with it.
    pub(crate) fn write(&mut self, entry: Entry, item: StreamWrite) {
        self.run.ledger.append(entry, Weight::Hard);
        self.run.ledger.write(item);
    }

    /// The handler, or the step of that id, as the writer of items: another one in each generation.
    pub(crate) fn writer(&self, op: &str) -> String {
        match self.run.facts.generation {
            0 => op.to_owned(),
            // No operation's id has two of these in a row.
            generation => format!("{op}##{}", generation + 1),
        }
    }
}

/// Open operations.
impl Desk<'_> {
    pub(crate) fn open(&mut self, id: OpId, kind: OpKind, deadline: Option<Millis>) -> Slot {
        self.run.open(id, kind, deadline)
    }

    /// Opens a wait for messages of a key: in the table, in the order of deadlines and in the inbox.
    pub(crate) fn open_wait(&mut self, id: OpId, kind: OpKind, deadline: Option<Millis>) -> Slot {
        let key = kind.message_key().cloned();
        let slot = self.open(id, kind, deadline);
        if let Some(key) = key
            && !self.is_served(slot)
        {
            self.run.inbox.open(&key, slot);
        }
        slot
    }

    pub(crate) fn op(&self, slot: Slot) -> Option<&Op> {
        self.run.ops.get(slot)
    }

    pub(crate) fn op_mut(&mut self, slot: Slot) -> Option<&mut Op> {
        self.run.ops.get_mut(slot)
    }

    pub(crate) fn close(&mut self, slot: Slot) -> Option<Op> {
        self.run.close(slot)
    }
}

/// The record, and what it makes of the run.
impl Desk<'_> {
    /// Gives an entry its place in the journal.
    pub(crate) fn record(&mut self, entry: Entry, weight: Weight) -> u64 {
        self.run.ledger.append(entry, weight)
    }

    /// Gives an entry its place in the journal, with what leaves the run as soon as it is durable.
    pub(crate) fn record_sending(&mut self, entry: Entry, item: Outgoing) -> u64 {
        self.run.ledger.append_sending(entry, item)
    }

    /// How much of the journal is durable: an operation takes effect when its barrier is.
    pub(crate) const fn durable_len(&self) -> u64 {
        self.run.ledger.durable_len()
    }

    /// Whether a commit of the run's own is on its way.
    pub(crate) const fn is_committing(&self) -> bool {
        self.run.ledger.is_in_flight()
    }

    /// A failure that may end the run, and where it stands.
    pub(crate) fn failed(&mut self, op: OpId, index: u64) {
        self.run.ends.failed(op, index);
    }

    /// The cancellation that may end the run stands there.
    pub(crate) const fn cancelled(&mut self, index: u64) {
        self.run.ends.cancelled(index);
    }

    /// The time-out that may end the run stands there.
    pub(crate) const fn timed_out(&mut self, index: u64) {
        self.run.ends.timed_out(index);
    }

    /// The message that this wait would get leaves the inbox, taken or with a reason set aside.
    pub(crate) fn take_message(&mut self, slot: Slot, refused: Option<String>) -> Option<Message> {
        let key = self.run.ops.get(slot)?.kind.message_key()?;
        let seq = self.run.inbox.match_of(key, slot)?.seq;
        self.run.inbox.take(key, seq, refused)
    }

    /// The message that this wait would get.
    pub(crate) fn message(&self, slot: Slot) -> Option<&Message> {
        let key = self.run.ops.get(slot)?.kind.message_key()?;
        self.run.inbox.match_of(key, slot)
    }

    /// The oldest cancellation leaves the inbox.
    pub(crate) fn take_cancel(&mut self) -> Option<Message> {
        self.run.inbox.take_cancel()
    }
}

/// Time and chance.
impl Desk<'_> {
    pub(crate) const fn now(&self) -> Millis {
        self.run.clock.now()
    }

    /// When something is recorded that tells the handler nothing: its clock stays where it is.
    pub(crate) fn at(&self, wall: Millis) -> Millis {
        self.run.clock.at(wall)
    }

    /// The handler is told something now.
    pub(crate) fn advance(&mut self, wall: Millis) -> Millis {
        self.run.clock.advance(wall)
    }

    pub(crate) const fn seed(&self) -> &Seed {
        self.run.facts.drawn()
    }

    pub(crate) const fn facts(&self) -> &Facts {
        &self.run.facts
    }
}

/// Steps.
impl Desk<'_> {
    /// The step may start when its barrier is reached.
    pub(crate) fn startable(&mut self, slot: Slot) {
        self.run.steps.add(slot);
    }

    /// The step that starts next.
    pub(crate) fn next_step(&mut self) -> Option<Slot> {
        self.run.steps.next(&self.run.ops)
    }

    /// It starts, perhaps in a transaction of the user's own.
    pub(crate) fn start(&mut self, transacting: bool) {
        self.run.steps.start(transacting);
    }

    /// An attempt has ended; its outcome gets its place in the journal in a later turn.
    pub(crate) fn arrived(&mut self, slot: Slot, outcome: StepOutcome) {
        self.run.steps.stop(slot);
        self.run.arrivals.add(slot, Arrived::Step(outcome));
    }

    /// The step waits until then, and its next attempt for all that is recorded by now.
    pub(crate) fn back_off(&mut self, slot: Slot, until: Millis) {
        let barrier = self.run.ledger.barrier();
        if let Some(op) = self.run.ops.get_mut(slot) {
            op.barrier = barrier;
        }
        self.run
            .ops
            .set_phase(slot, StepPhase::Backoff, Some(until));
    }

    /// The step has no attempt left, and the run is to be paused for it.
    pub(crate) fn exhausted(&mut self, slot: Slot) {
        let barrier = self.run.ledger.barrier();
        if let Some(op) = self.run.ops.get_mut(slot) {
            op.barrier = barrier;
        }
        self.run.ops.set_phase(slot, StepPhase::Exhausted, None);
    }

    /// The pause between two attempts is over.
    pub(crate) fn backed_off(&mut self, slot: Slot) {
        self.run.ops.set_phase(slot, StepPhase::Requested, None);
        self.run.steps.add(slot);
    }
}

/// Updates.
impl Desk<'_> {
    /// The operation that takes the updates of a key.
    pub(crate) fn taker(&self, key: &str) -> Option<Slot> {
        self.run.updates.taker(key)
    }

    pub(crate) fn take_updates(&mut self, key: Arc<str>, slot: Slot) {
        self.run.updates.take(key, slot);
    }

    /// The offered message is to be answered later.
    pub(crate) fn take_on_offered(&mut self) -> Option<Message> {
        self.run.inbox.take_on_offered()
    }

    /// The message of that id, unread or still to come, is to be answered later.
    pub(crate) fn take_on(&mut self, message: &str) {
        self.run.inbox.take_on(message);
    }

    /// The first update that a reopening took back and that the handler takes, with who takes it.
    pub(crate) fn recall_update(&mut self) -> Option<(Slot, Entry)> {
        let Self { run } = self;
        let updates = &run.updates;
        let taker = |entry: &Entry| updates.taker(entry.meta().ok()?.wait.as_deref()?);
        run.history.recall_update(taker)
    }

    /// The function of an update has ended.
    pub(crate) fn update_ended(&mut self, slot: Slot, outcome: UpdateOutcome) {
        self.run.updates.ended(slot, outcome);
    }

    pub(crate) fn first_ended_update(&self) -> Option<Slot> {
        self.run.updates.first_ended()
    }

    pub(crate) fn next_ended_update(&mut self) -> Option<(Slot, UpdateOutcome)> {
        self.run.updates.next_ended()
    }

    /// Whether it is known which message an answer belongs to, or that there is none any more.
    pub(crate) fn can_answer(&self, message: &str) -> bool {
        self.run.inbox.can_answer(message)
    }

    /// The answer goes out with the next commit, if the message is there.
    pub(crate) fn answer_update(&mut self, message: &str, reply: Payload) {
        self.run.inbox.reply(message, reply);
    }
}
