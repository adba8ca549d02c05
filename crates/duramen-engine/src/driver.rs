//! One run in the hands of the host: the core's machine, tied to the commit pipeline.

use std::sync::Arc;

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::ENCODING;
use duramen_core::machine::{AfterCommit, Decision, Machine, Turn};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    ClaimedRun, CommitOutcome, Message, Next, OutgoingKind, RunCommit, StreamAppend, StreamWrite,
};

use crate::claims::Hands;
use crate::commits::settle_doubt;
use crate::engine::Engine;
use crate::host::{Driven, HostEvent, Reply, Ticket, Token};
use crate::leases::Leaving;

/// How long to wait for a heartbeat that is overdue before looking again.
const DOUBT: Millis = 10;

fn started_by(commit: &RunCommit) -> Vec<RunId> {
    let starts = commit.outgoing.iter();
    let starts = starts.filter(|item| item.kind == OutgoingKind::Start);
    starts.map(|item| item.target.clone()).collect()
}

/// Drives one run. All calls come from the host's thread.
#[derive(Debug)]
pub struct RunDriver {
    pub machine: Machine,
    /// How often this process had changed its name when the machine was told of it.
    changes: u32,
    engine: Arc<Engine>,
    ticket: Ticket,
    /// A fixed instant given by a test or a sweep, instead of the clock.
    clock: Option<Millis>,
    /// What the commit in flight makes of the run.
    ending: Option<Driven>,
    held_until: Option<Millis>,
    /// What the commit in flight, or the sealed one, says of the inbox.
    telling: Option<u64>,
    /// The runs that the commit in flight, or the sealed one, starts.
    starting: Vec<RunId>,
    /// The sealed commit, if something leaves the run with it.
    sealed: Option<Box<RunCommit>>,
    /// The store's time when it leased the run.
    claimed_at: Millis,
    /// A step that must not start before it is certain that the run is still this engine's.
    withheld: Option<Turn>,
    /// It was told to go elsewhere, not only to let others have their turn.
    told_to_leave: bool,
    /// Whether the sealed commit took place is not known.
    in_doubt: bool,
    place: Place,
}

/// Where the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    /// Out of these hands for good.
    Gone,
    /// With somebody else, or nobody. This is a copy, whose handler only goes through what is recorded.
    Elsewhere,
}

impl RunDriver {
    pub fn new(
        engine: Arc<Engine>,
        ticket: Ticket,
        run: ClaimedRun,
        clock: Option<Millis>,
    ) -> Self {
        let claimed_at = run.row.updated_at;
        let changes = engine.common.incarnation.changes();
        let machine = Machine::new(run, &engine.owner());
        Self {
            machine,
            changes,
            engine,
            ticket,
            clock,
            ending: None,
            held_until: None,
            telling: None,
            starting: Vec::new(),
            sealed: None,
            claimed_at,
            withheld: None,
            told_to_leave: false,
            in_doubt: false,
            place: Place::Here,
        }
    }

    /// A copy of a run that is not held here: its turns end with its journal, and nothing is written.
    pub fn reading(engine: Arc<Engine>, run: ClaimedRun) -> Self {
        let driver = Self::new(engine, 0, run, None);
        Self {
            place: Place::Elsewhere,
            ..driver
        }
    }

    /// Whether the handler goes through what is recorded.
    pub fn is_replaying(&self) -> bool {
        self.place == Place::Elsewhere || self.machine.is_replaying()
    }

    fn hands(&self) -> &Arc<Hands> {
        self.engine.claims.hands()
    }

    /// The call of the sweep that took the run up, whose budget it must keep to; none if something else
    /// did. Asked for anew with each claim of the run.
    pub fn sweep(&self) -> Option<Token> {
        self.hands().sweep_of(self.ticket)
    }

    /// Goes on after a new claim of a run that was kept warm.
    pub fn resume(
        &mut self,
        row: &RunRow,
        inbox: Vec<Message>,
        inbox_more: bool,
        clock: Option<Millis>,
    ) {
        self.clock = clock;
        self.ending = None;
        self.held_until = None;
        self.claimed_at = row.updated_at;
        self.withheld = None;
        self.told_to_leave = false;
        self.machine.resume(row, inbox, inbox_more);
        self.name();
    }

    /// The instant that decisions use. What was due for the store when it leased the run is due here,
    /// even if this machine's clock is a little behind: the run would be let go and claimed again until
    /// both agree.
    pub fn wall(&self) -> Millis {
        self.clock
            .unwrap_or_else(|| self.engine.now().max(self.claimed_at))
    }

    /// The next thing to do; when there is none, what must be durable goes on its way.
    pub fn turn(&mut self) -> Turn {
        if self.place == Place::Elsewhere {
            return self.machine.replay();
        }
        self.sign();
        if let Some(start) = self.withheld.take() {
            return self.certain(start);
        }
        let mut turn = self.machine.turn(self.wall());
        if turn == Turn::Idle && self.settle() {
            turn = self.machine.turn(self.wall());
            if turn == Turn::Idle && self.settle() {
                // Another round, but not at once: whatever keeps it busy, others come first.
                self.engine.host().push(HostEvent::Tick {
                    ticket: self.ticket,
                });
            }
        }
        match turn {
            Turn::Start { .. } => self.certain(turn),
            Turn::Seal { ref commit, .. } => {
                self.telling = commit.inbox_seen;
                self.starting = started_by(commit);
                self.sealed = Some(commit)
                    .filter(|commit| !commit.outgoing.is_empty())
                    .cloned();
                turn
            }
            turn => turn,
        }
    }

    /// What goes out is signed with the name that this process has now.
    fn sign(&mut self) {
        if self.changes != self.engine.common.incarnation.changes() {
            self.name();
        }
    }

    fn name(&mut self) {
        self.changes = self.engine.common.incarnation.changes();
        self.machine.set_owner(&self.engine.owner());
    }

    /// Lets a step start only while the lease lasts. The store fences late writes off; it cannot
    /// take back an effect.
    fn certain(&mut self, start: Turn) -> Turn {
        if self.holds_lease() {
            return start;
        }
        // The next heartbeat says whether the run is still here, and comes soon: look again then.
        self.withheld = Some(start);
        self.hands().call_after(self.ticket, DOUBT);
        Turn::Idle
    }

    /// Whether the lease lasts, as far as is known here. For a host that starts effects later than
    /// it was told to: one that waits for a free thread must ask once more.
    pub fn holds_lease(&self) -> bool {
        self.clock.is_some() || self.engine.leases.holds(self.ticket)
    }

    /// The budget is used up, or the engine is about to close: start nothing fresh, let the run go.
    pub fn leave(&mut self) {
        self.told_to_leave = true;
        self.machine.yield_now();
    }

    /// Sends what a step has written to streams, in the run's name and with its fence. It is sent once: whoever has
    /// it decides what to do if that fails.
    pub fn append(&self, token: Token, items: Vec<StreamWrite>) {
        let facts = self.machine.facts();
        let append = StreamAppend {
            run_id: facts.run_id.clone(),
            seed: facts.seed,
            owner: facts.owner.clone(),
            epoch: facts.epoch,
            items,
        };
        let sent = self.engine.store().append(vec![append]);
        self.engine.call(token, sent, Reply::Appended);
    }

    /// Messages came in. With one of a newer build the run goes elsewhere: to one that can read it.
    pub fn deliver(&mut self, messages: Vec<Message>) {
        self.leave_if_newer(&messages);
        self.machine.deliver(messages);
    }

    /// The same for a page of a long inbox.
    pub fn deliver_page(&mut self, messages: Vec<Message>, more: bool) {
        self.leave_if_newer(&messages);
        self.machine.deliver_page(messages, more);
    }

    fn leave_if_newer(&mut self, messages: &[Message]) {
        if messages.iter().any(|message| message.encoding > ENCODING) {
            self.told_to_leave = true;
            self.engine.common.tell_of_newer();
        }
    }

    /// Accepts the message that the last turn offered.
    pub fn accept(&mut self) -> Turn {
        self.machine.accept(self.wall())
    }

    /// Hands over what must be durable. True if something is due right now.
    fn settle(&mut self) -> bool {
        let hold = if self.clock.is_some() {
            0
        } else {
            self.engine.hold()
        };
        let wall = self.wall();
        match self.machine.next_commit(wall, hold) {
            Decision::Wait => {}
            Decision::Hold { until } if until <= wall => return self.machine.is_driving(),
            // For a fixed clock that instant never comes.
            Decision::Hold { .. } if self.clock.is_some() => {}
            Decision::Hold { until } => {
                if self.held_until != Some(until) {
                    self.held_until = Some(until);
                    self.hands().call_at(self.ticket, until);
                }
            }
            Decision::Commit(commit) => {
                self.telling = commit.inbox_seen;
                self.starting = started_by(&commit);
                let (ending, ready_at) = match &commit.next {
                    Next::Running => (None, None),
                    Next::Waiting { ready_at, .. } => (Some(Driven::Paused), *ready_at),
                    Next::Paused { .. } => (Some(Driven::Paused), None),
                    Next::Stuck { .. } => (Some(Driven::Stuck), None),
                    Next::Continued { ready_at, .. } => (Some(Driven::Continued), Some(*ready_at)),
                    Next::Finished { status } => {
                        let driven = match status {
                            Status::Completed => Driven::Completed,
                            Status::Cancelled => Driven::Cancelled,
                            _ => Driven::Failed,
                        };
                        (Some(driven), None)
                    }
                };
                self.ending = ending;
                if ending.is_some() {
                    // Whatever else is due at once is done, not released.
                    let yields = ready_at.is_some_and(|at| at <= wall);
                    let leaves = yields && self.told_to_leave;
                    self.engine.leases.held().set_leaving(
                        self.ticket,
                        Some(Leaving {
                            ready_at,
                            yields,
                            leaves,
                        }),
                    );
                }
                self.engine.pipeline().submit(self.ticket, *commit);
            }
        }
        false
    }

    /// The transaction that carried the sealed commit out has ended: the run goes on as if the
    /// pipeline had answered. Without a certain success nothing is assumed: the run is dropped here
    /// and taken up again from its journal, which knows.
    pub fn sealed(&mut self, applied: bool) {
        self.in_doubt = !applied;
        if let Some(commit) = self.sealed.take().filter(|_| applied) {
            self.engine.common.outbox.committed(&commit);
        }
        let outcome = if applied {
            CommitOutcome::Applied { due: false }
        } else {
            CommitOutcome::Fenced
        };
        self.engine.host().push(HostEvent::Committed {
            ticket: self.ticket,
            outcome,
        });
    }

    /// Takes in a commit's outcome. `Some` says that the run is out of these hands.
    pub fn committed(&mut self, outcome: &CommitOutcome) -> Option<Driven> {
        if let Some(seen) = self.telling.take()
            && matches!(outcome, CommitOutcome::Applied { .. })
        {
            self.hands().store_knows(self.ticket, seen);
        }
        let starting = std::mem::take(&mut self.starting);
        if matches!(outcome, CommitOutcome::Applied { .. }) {
            let parent = self.machine.facts().run_id.clone();
            self.hands().starts(&parent, starting);
        }
        let driven = match self.machine.committed(outcome) {
            AfterCommit::Driving => {
                if self.ending.take().is_some() {
                    // The store would not keep the commit that was to be the last.
                    self.engine.leases.held().set_leaving(self.ticket, None);
                }
                // The handler has ended or was parked while this commit was under way: its last
                // commit is due now, and the host has no reason left to call again.
                if !self.machine.is_driving() {
                    self.settle();
                }
                return None;
            }
            AfterCommit::Paused { due } => {
                self.hands()
                    .paused(self.ticket, self.machine.journal_len(), due);
                return Some(Driven::Paused);
            }
            AfterCommit::Ended => self.ending.take().unwrap_or(Driven::Stuck),
            AfterCommit::Lost => Driven::Lost,
        };
        self.place = Place::Gone;
        self.hands().ended(self.ticket, driven);
        if self.in_doubt {
            let facts = self.machine.facts();
            let hands = Arc::clone(self.hands());
            let released = move |run_id: &RunId, at| hands.released(run_id, at);
            settle_doubt(
                &self.engine.commits.releases,
                facts.run_id.clone(),
                facts.epoch,
                released,
            );
        }
        Some(driven)
    }

    /// The lease of that epoch is lost: nothing of this run may be written any more. False if the
    /// run has left these hands already.
    pub fn lost(&mut self, epoch: i64) -> bool {
        if self.machine.facts().epoch != epoch
            || self.machine.is_paused()
            || self.place != Place::Here
        {
            return false;
        }
        self.place = Place::Gone;
        self.machine.abandon();
        self.hands().ended(self.ticket, Driven::Lost);
        true
    }

    /// Gives the run up because it cannot be driven here: nothing of it is written any more. It is
    /// let go some heartbeats later, or when its lease ends; a handler that is kept is evicted.
    pub fn abandon(&mut self) {
        self.machine.abandon();
        if self.place == Place::Here {
            self.place = Place::Gone;
            self.hands().given_up(self.ticket);
            self.engine.host().push(HostEvent::Evict {
                ticket: self.ticket,
            });
        }
    }

    /// An instant that was waited for has come.
    pub fn ticked(&mut self) {
        self.held_until = None;
    }
}
