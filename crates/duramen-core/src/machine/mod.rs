//! The replay machine of one run: a synchronous state machine that decides everything and does nothing.
//!
//! [`Machine`] is the contract between a handler, the host that runs it, and a store; its methods stand
//! here in the order in which a driver (a host with an event loop, or a simulator) needs them. It takes
//! up a run by [`Machine::new`] and goes round in a circle:
//!
//! 1. lets the handler run until nothing is runnable; the handler *requests* operations meanwhile
//!    ([`Machine::request_step`] and its neighbours; [`Requested`] or [`Halt`] is the answer) and at last
//!    ends ([`Machine::finish`] with an [`Ending`]);
//! 2. calls [`Machine::turn`] again and again, does what each [`Turn`] says, and lets the handler
//!    run until nothing is runnable after each delivery;
//! 3. when the turn is [`Turn::Idle`], asks [`Machine::next_commit`] and does what the [`Decision`] says:
//!    hands a commit to the store, or waits;
//! 4. reports what comes in: step outcomes ([`Machine::step_done`]), messages ([`Machine::deliver`]), commit
//!    outcomes ([`Machine::committed`], which answers with an [`AfterCommit`]), time.
//!
//! **Log-order delivery.** The handler learns outcomes in exactly the order in which they stand in
//! the journal, one at a time. While recorded entries remain, [`Machine::turn`] delivers those;
//! after that each outcome is given its place in the journal at the moment it is delivered.
//!
//! **Who may touch what.** What is known of the run is one `Progress`; the primitives get a `Desk`, the
//! part of it that they may touch, and return what they found. Whether the run is still driven
//! (`Standing`), what is sealed (`Sealing`) and what is on its way (`Commits`), they never see.
//! `replay.rs`, `live.rs` and `ending.rs` work on the progress alone and keep nothing. All of it is
//! called from here, and nothing calls back.

mod commits;
#[cfg(test)]
mod cost;
mod ending;
#[cfg(test)]
mod fuzz;
mod hooks;
mod live;
mod pause;
#[cfg(test)]
mod pausing;
#[cfg(test)]
mod properties;
mod replay;
mod seal;
mod standing;
#[cfg(test)]
pub(crate) mod testing;

use crate::derive::ValueKind;
use crate::ids::{Millis, OpId, Payload, RunId};
use crate::inbox::Slot;
use crate::journal::{BadEntry, ENCODING, Entry, Kind, Tick};
use crate::primitives::child::NewChild;
use crate::primitives::message::{NotSent, Sent};
use crate::primitives::timer::TimerStem;
use crate::primitives::{
    approval, child, event, message, patch, poll, step, stream, timer, update, value,
};
use crate::progress::desk::Desk;
use crate::progress::state::Progress;
use crate::retry::RetryPolicy;
use crate::run::RunRow;
use crate::store::{ClaimedRun, CommitOutcome, Message};

use commits::Commits;
use divergence::{Divergence, Handler, Recorded};
use history::History;
use op::{Checkpoint, OpKind, StepPhase};
use seal::Sealing;
use standing::{Phase, Standing};

pub use crate::progress::facts::Facts;
pub use crate::progress::looks::PollRule;
pub use crate::progress::turn::{Halt, Outcome, Requested, StepOutcome, Turn, UpdateOutcome};
pub use crate::progress::{divergence, history, ledger, naming, op};
pub use commits::AfterCommit;
pub use ending::Ending;
pub use hooks::{Hook, On};
pub use pause::Decision;

/// See the module's head.
#[derive(Debug)]
pub struct Machine {
    input: Payload,
    tick: Option<Tick>,
    run: Progress,
    standing: Standing,
    sealing: Sealing,
    commits: Commits,
}

/// Taking up a run.
impl Machine {
    /// Takes up a claimed run. A journal that cannot be read gives a machine that parks the run; so
    /// does one that is missing, so a run that was claimed as warm must be given to
    /// [`Machine::resume`] or have its journal loaded first.
    pub fn new(run: ClaimedRun, owner: &str) -> Self {
        let ClaimedRun {
            row,
            journal,
            inbox,
            inbox_more,
            was: _,
        } = run;
        let length = row.journal_len.saturating_sub(row.journal_start);
        let mut machine = Self {
            input: Payload::new(),
            tick: None,
            run: Progress::new(Facts::of(&row, owner), length),
            standing: Standing::driving(),
            sealing: Sealing::default(),
            commits: Commits::default(),
        };
        machine.add_messages(inbox, inbox_more, &row);
        machine.read_journal(journal.unwrap_or_default(), length, row.waits);
        machine
    }

    fn read_journal(&mut self, journal: Vec<Entry>, expected: u64, waits: Vec<String>) {
        let unread = |index, recorded| Divergence {
            index,
            recorded,
            handler: Handler::Waiting { open: Vec::new() },
        };
        let found = journal.len() as u64;
        if found != expected {
            let recorded = Recorded::Length { found, expected };
            return self.park(unread(found.min(expected), recorded));
        }
        match History::new(journal) {
            Ok(history) => self.run.history = history,
            Err((_, BadEntry::Newer { found })) => {
                self.standing.phase = Phase::Leaving {
                    format: found,
                    waits,
                };
                return;
            }
            Err((index, error)) => {
                return self.park(unread(index, Recorded::Unreadable(error)));
            }
        }
        match self.run.history.begin() {
            Some(first) if first.entry.kind == Kind::RunCreated => {
                if self.run.facts.generation > 0 {
                    // Each generation's time begins with itself.
                    self.run.clock.advance(first.entry.at);
                }
                match first.entry.meta() {
                    Ok(meta) => (self.input, self.tick) = (first.entry.payload, meta.tick),
                    Err(error) => self.park(unread(0, Recorded::Unreadable(error))),
                }
            }
            Some(first) => self.park(unread(0, first.recorded())),
            None => self.park(unread(0, Recorded::End)),
        }
    }

    /// Goes on with a run that was paused here, after a new claim found its journal unchanged.
    pub fn resume(&mut self, row: &RunRow, inbox: Vec<Message>, inbox_more: bool) {
        if self.standing.phase == Phase::Paused {
            self.standing.phase = Phase::Driving;
            self.commits.yielding = false;
            self.run.facts.claimed_again(row);
            self.add_messages(inbox, inbox_more, row);
        }
    }

    /// Takes in unread messages that came with a claim.
    fn add_messages(&mut self, messages: Vec<Message>, more: bool, row: &RunRow) {
        let last = messages.last().map_or(0, |message| message.seq);
        self.run.inbox.store_knows(row.inbox_seen);
        self.deliver(messages);
        if more {
            // Those behind it come later, and the run may not pause before it knows them.
            self.run.inbox.expect(last, row.inbox_len);
        } else {
            self.run.inbox.saw(row.inbox_len);
        }
    }

    pub const fn facts(&self) -> &Facts {
        &self.run.facts
    }

    pub const fn input(&self) -> &Payload {
        &self.input
    }

    /// The fire time of a schedule for which the run was started.
    pub const fn tick(&self) -> Option<&Tick> {
        self.tick.as_ref()
    }
}

/// What the handler asks for, while its loop runs.
impl Machine {
    /// The handler asks for a step. With `alone` (nothing else is runnable in its loop) a result
    /// that is the next entry is answered at once: it is what a turn would deliver next anyway.
    pub fn request_step(
        &mut self,
        id: &str,
        retry: RetryPolicy,
        checkpoint: Checkpoint,
        alone: bool,
    ) -> Result<Requested, Halt> {
        Ok(step::request(self.ask()?, id, retry, checkpoint, alone)?)
    }

    /// The handler asks for a step that is repeated until its function finds what it looks for; see [`poll`].
    pub fn request_poll(
        &mut self,
        id: &str,
        retry: RetryPolicy,
        rule: PollRule,
        alone: bool,
    ) -> Result<Requested, Halt> {
        Ok(poll::request(self.ask()?, id, retry, rule, alone)?)
    }

    /// The handler asks to be woken at an instant of the logical clock.
    pub fn request_timer(&mut self, stem: TimerStem, deadline: Millis) -> Result<Slot, Halt> {
        Ok(timer::request(self.ask()?, stem, deadline))
    }

    /// The handler asks for the next event of a name.
    pub fn request_event(
        &mut self,
        name: &str,
        id: Option<&str>,
        deadline: Option<Millis>,
    ) -> Result<Slot, Halt> {
        Ok(event::request(self.ask()?, name, id, deadline)?)
    }

    /// The handler asks for what completes a token, and for the token's id.
    pub fn request_token(
        &mut self,
        id: Option<&str>,
        deadline: Option<Millis>,
    ) -> Result<(Slot, OpId), Halt> {
        Ok(event::request_token(self.ask()?, id, deadline)?)
    }

    /// The handler asks for a decision. The approval's id is that of the operation; from the second generation
    /// on it has the generation's number.
    pub fn request_approval(
        &mut self,
        id: Option<&str>,
        request: Payload,
        deadline: Option<Millis>,
    ) -> Result<(Slot, OpId), Halt> {
        Ok(approval::request(self.ask()?, id, request, deadline)?)
    }

    /// The handler asks for a value. It never suspends, so on replay the entry must be the next one.
    pub fn request_value(&mut self, kind: ValueKind) -> Result<Payload, Halt> {
        value::request(self.ask()?, kind).map_err(|divergence| {
            self.park(divergence.clone());
            Halt::Diverged(divergence)
        })
    }

    /// The handler writes an item of a stream; see [`stream`]. It never suspends.
    pub fn request_write(
        &mut self,
        stream: &str,
        keep: Option<u64>,
        item: Payload,
    ) -> Result<(), Halt> {
        stream::request(self.ask()?, stream, keep, item).map_err(|divergence| {
            self.park(divergence.clone());
            Halt::Diverged(divergence)
        })
    }

    /// The name under which the step of that id writes to streams in this generation of the run.
    pub fn writer(&mut self, op: &str) -> String {
        Desk::of(&mut self.run).writer(op)
    }

    /// The handler asks whether the run follows its patched code; see [`patch`]. It never suspends.
    pub fn request_patch(&mut self, id: &str) -> Result<bool, Halt> {
        Ok(patch::request(self.ask()?, id)?)
    }

    /// The handler starts a child, or sends something to another run. It never suspends, so on replay the entry
    /// must be the next one.
    pub fn request_child(
        &mut self,
        id: Option<&str>,
        child: NewChild,
    ) -> Result<(OpId, RunId), Halt> {
        let started = child::start(self.ask()?, id, child);
        self.sent(started)
    }

    /// See [`Machine::request_child`].
    pub fn request_message(&mut self, message: Sent) -> Result<(), Halt> {
        let sent = message::send(self.ask()?, message);
        self.sent(sent)
    }

    /// The handler waits for the end of a child that it started with the operation `op`.
    pub fn request_child_end(&mut self, op: &OpId, run_id: &RunId) -> Result<Slot, Halt> {
        Ok(child::wait(self.ask()?, op, run_id))
    }

    fn sent<T>(&mut self, sent: Result<T, NotSent>) -> Result<T, Halt> {
        sent.map_err(|error| match error {
            NotSent::InvalidId(error) => Halt::InvalidId(error),
            NotSent::Diverged(divergence) => {
                self.park(divergence.clone());
                Halt::Diverged(divergence)
            }
        })
    }

    /// The handler takes the updates of a name from now on; see [`update`]. It never suspends.
    pub fn request_updates(&mut self, name: &str) -> Result<Slot, Halt> {
        Ok(update::request(self.ask()?, name)?)
    }

    /// What a primitive may touch, if the handler may still ask.
    fn ask(&mut self) -> Result<Desk<'_>, Halt> {
        self.standing.check()?;
        Ok(Desk::of(&mut self.run))
    }

    /// The id that the last request got: what [`Ending::Failed`] names when its failure ends the run.
    pub const fn last_op(&self) -> &OpId {
        &self.run.last_op
    }

    /// The handler no longer waits for an operation. True if it is a step in flight, to be stopped.
    pub fn cancel_op(&mut self, slot: Slot) -> bool {
        self.run.close(slot).is_some_and(|op| {
            matches!(
                op.kind,
                OpKind::Step {
                    phase: StepPhase::Running,
                    ..
                }
            )
        })
    }

    /// The handler cannot make use of the recorded payload that it was just given: its types have
    /// changed under the run.
    pub fn cannot_read(&mut self, op: &str, why: String) {
        if self.is_driving() {
            self.park(replay::cannot_read(&self.run, op, why));
        }
    }

    /// The run's state object changed; it goes out with the next commit.
    pub fn set_state(&mut self, state: Payload) {
        self.commits.state = Some(state);
    }

    /// The handler is about to end, and has undone what it had done: its end says so.
    pub const fn undone(&mut self) {
        self.run.ends.undone = true;
    }

    /// What is to be started if the run ends so, or is parked, next; in place of what was said of that before.
    pub fn set_hook(&mut self, hook: Hook) {
        let hooks = &mut self.commits.hooks;
        hooks.retain(|other| other.on != hook.on);
        hooks.push(hook);
    }

    /// The handler has returned or raised. Its end is recorded; on replay of a finished run it is checked
    /// against the journal instead.
    pub fn finish(&mut self, ending: Ending, wall: Millis) -> Result<(), Halt> {
        self.standing.check()?;
        match ending::finish(&mut self.run, ending, self.tick.as_ref(), wall) {
            Ok(Some(next)) => self.standing.phase = Phase::Ended(next),
            Ok(None) => self.standing.phase = Phase::Gone,
            Err(divergence) => {
                self.park(divergence);
                return self.standing.check();
            }
        }
        Ok(())
    }
}

/// Turns, when nothing is runnable in the handler's loop.
impl Machine {
    /// What to do next. Call it only when nothing is runnable in the handler's loop.
    pub fn turn(&mut self, wall: Millis) -> Turn {
        while self.is_driving() {
            if self.run.history.is_empty() {
                // A deadline that the logical clock has passed is over, whatever this host's clock says.
                let wall = self.run.clock.at(wall);
                return self.live_turn(wall).unwrap_or(Turn::Idle);
            }
            match replay::turn(&mut self.run) {
                Ok(Some(turn)) => return turn,
                Ok(None) => {}
                Err(divergence) => self.park(divergence),
            }
        }
        Turn::Idle
    }

    /// The next thing that the journal has for the handler, and nothing behind its end: for whoever only
    /// reads along, and drives nothing.
    pub fn replay(&mut self) -> Turn {
        while self.is_driving() && self.is_replaying() {
            match replay::turn(&mut self.run) {
                Ok(Some(turn)) => return turn,
                Ok(None) => {}
                Err(divergence) => self.park(divergence),
            }
        }
        Turn::Idle
    }

    /// One live outcome gets its place in the journal, or one step starts.
    fn live_turn(&mut self, wall: Millis) -> Option<Turn> {
        if self.is_sealed() {
            return None;
        }
        let run = &mut self.run;
        if let Some(turn) = live::arrived(run, wall) {
            return Some(turn);
        }
        if let Some(turn) = self.sealing.next(run, &mut self.commits.state, wall) {
            return Some(turn);
        }
        if self.commits.yielding || run.is_pausing() {
            return None;
        }
        live::due(run, wall).or_else(|| step::next_start(Desk::of(run)))
    }

    /// The offered message ([`Turn::Offer`]) is what the operation expects: it is consumed.
    pub fn accept(&mut self, wall: Millis) -> Turn {
        if self.is_driving()
            && let Some(slot) = self.run.inbox.offered_to()
            && let Some(OpKind::Updates { .. }) = self.run.ops.get(slot).map(|op| &op.kind)
        {
            return update::accepted(Desk::of(&mut self.run), slot, wall);
        }
        self.answer(None).map_or(Turn::Idle, |(slot, message)| {
            event::received(Desk::of(&mut self.run), slot, message, wall)
        })
    }

    /// The offered message does not fit: it is set aside with the reason, and the run goes on waiting.
    pub fn refuse(&mut self, reason: String) {
        self.answer(Some(reason));
    }

    /// Takes the offered message out of the inbox. None if the offer is off: the wait has ended, or
    /// the run is not driven any more; then the message stays.
    fn answer(&mut self, refused: Option<String>) -> Option<(Slot, Message)> {
        if self.is_driving() {
            return self.run.inbox.answer(refused);
        }
        self.run.inbox.withdraw();
        None
    }

    /// The code and the journal do not fit together.
    fn park(&mut self, divergence: Divergence) {
        self.standing.park(divergence, &self.run.facts.version);
    }
}

/// Commits, when a turn was idle.
impl Machine {
    /// Decides what the store must be told now. `hold` is how near a deadline must be for the
    /// lease to be kept instead of released.
    pub fn next_commit(&mut self, wall: Millis, hold: Millis) -> Decision {
        if self.is_sealed() {
            // Whatever is due waits for the outcome, so a deadline is no reason to come back.
            return Decision::Wait;
        }
        self.commits
            .next(&mut self.run, &mut self.standing, wall, hold)
    }

    /// Takes in the outcome of the commit in flight. After [`AfterCommit::Driving`] the driver goes
    /// on with [`Machine::turn`] and [`Machine::next_commit`] even if the handler may not be run
    /// any more ([`Machine::is_driving`]): its end, or the reason it is parked for, is still to be
    /// written.
    pub fn committed(&mut self, outcome: &CommitOutcome) -> AfterCommit {
        self.commits.committed(
            outcome,
            &mut self.sealing,
            &mut self.run,
            &mut self.standing,
        )
    }
}

/// What comes in from outside.
impl Machine {
    /// The driver reports how an attempt ended. A report for a step that the handler has given up
    /// meanwhile is dropped: the journal never shows it.
    pub fn step_done(&mut self, slot: Slot, outcome: StepOutcome) {
        if let Some(state) = self.sealing.undo(slot) {
            // A newer one may have been set meanwhile.
            self.commits.state.get_or_insert(state);
        }
        step::done(Desk::of(&mut self.run), slot, outcome);
    }

    /// An attempt tells of its progress, which the next one may ask for by [`Machine::progress_of`], also in
    /// another process. False if it is not recorded: nobody waits for the step any more, or the place of the
    /// next entry is taken by a result that is sealed; then it may be told again.
    pub fn step_progress(&mut self, slot: Slot, progress: Payload, wall: Millis) -> bool {
        self.is_driving()
            && !self.is_sealed()
            && step::told(Desk::of(&mut self.run), slot, progress, wall)
    }

    /// The last that the step in `slot` told of its progress, in whichever attempt.
    pub fn progress_of(&self, slot: Slot) -> Option<Payload> {
        let op = self.run.ops.get(slot)?;
        self.run.history.told(&op.id).cloned()
    }

    /// The driver reports how the function of an update ended.
    pub fn update_done(&mut self, slot: Slot, outcome: UpdateOutcome) {
        update::done(Desk::of(&mut self.run), slot, outcome);
    }

    /// In how many milliseconds a step is tried again if the attempt that is under way fails; none: not.
    pub fn pause_after_failure(&mut self, slot: Slot) -> Option<Millis> {
        step::pause_after_failure(&Desk::of(&mut self.run), slot)
    }

    /// The step in `slot` has a result that is to be sealed. False if nobody waits for it any more:
    /// the transaction must be rolled back.
    pub fn seal(&mut self, slot: Slot, result: Payload) -> bool {
        self.is_driving() && self.sealing.add(&self.run, slot, result)
    }

    /// Takes in messages that arrived while the run is driven.
    pub fn deliver(&mut self, messages: Vec<Message>) {
        for message in messages {
            if message.encoding > ENCODING {
                // For a newer build: what is here is brought to an end, and the run left to one.
                self.commits.yielding = true;
                self.run.inbox.leave(message.seq);
            } else {
                self.run.inbox.add(message);
            }
        }
    }

    /// Takes in the next page of the unread messages that were left behind by a claim, or the last of them
    /// if there are no more. Numbers that are missing in it were read long ago.
    pub fn deliver_page(&mut self, messages: Vec<Message>, more: bool) {
        let last = messages.last().map_or(0, |message| message.seq);
        self.deliver(messages);
        self.run.inbox.saw_page(last, more);
    }

    /// The process that drives it has taken a new name, and what it held has been moved to that.
    pub fn set_owner(&mut self, owner: &str) {
        owner.clone_into(&mut self.run.facts.owner);
    }

    /// Starts no fresh work any more: what is in flight is recorded, then the run is released, due at once.
    pub const fn yield_now(&mut self) {
        self.commits.yielding = true;
    }

    /// Gives the run up because the lease was lost: nothing of it may be written any more.
    pub fn abandon(&mut self) {
        self.standing.phase = Phase::Gone;
    }
}

/// What can be asked at any time.
impl Machine {
    /// Whether the handler may still be run.
    pub const fn is_driving(&self) -> bool {
        self.standing.is_driving()
    }

    /// Whether recorded entries remain to be delivered.
    pub fn is_replaying(&self) -> bool {
        !self.run.history.is_empty()
    }

    /// Whether a commit is in the hands of whoever holds the transaction.
    pub const fn is_sealed(&self) -> bool {
        self.sealing.is_sealed()
    }

    /// Whether it was released by a pause and can be resumed.
    pub const fn is_paused(&self) -> bool {
        matches!(self.standing.phase, Phase::Paused)
    }

    /// Why the run is being parked, if it is because of a divergence.
    pub const fn divergence(&self) -> Option<&Divergence> {
        self.standing.divergence()
    }

    /// Whether a cancellation was delivered to the handler.
    pub const fn was_cancelled(&self) -> bool {
        self.run.ends.was_cancelled()
    }

    /// Whether the run's own time-out was delivered to the handler.
    pub const fn was_timed_out(&self) -> bool {
        self.run.ends.was_timed_out()
    }

    /// The logical clock: when the last delivered entry was recorded.
    pub const fn now(&self) -> Millis {
        self.run.clock.now()
    }

    /// Steps in flight.
    pub const fn steps_running(&self) -> u32 {
        self.run.steps.running()
    }

    /// How many recorded entries were gone through so far.
    pub const fn replayed(&self) -> u64 {
        self.run.history.replayed()
    }

    /// Length of the journal as stores count it, staged entries included.
    pub const fn journal_len(&self) -> u64 {
        self.run.facts.journal_start + self.run.ledger.journal_len()
    }

    /// How far the journal is durable, as stores count it.
    pub const fn durable_len(&self) -> u64 {
        self.run.facts.journal_start + self.run.ledger.durable_len()
    }

    #[cfg(test)]
    pub(crate) const fn progress(&self) -> &Progress {
        &self.run
    }
}
