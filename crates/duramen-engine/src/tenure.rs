//! How a run comes into the host's hands and out of them again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Claim, Claimed, ClaimedRun, Due, Next, RunCommit};

use crate::driver::Driven;
use crate::engine::{Asked, CLAIM_BYTES, Engine};
use crate::host::{HostEvent, Reply, Ticket, Token};
use crate::inline::on_completion;
use crate::registry::{Active, Entered, Leaving};
use crate::sweep::Group;

/// Lets go of a run as it stands, due at once.
pub(crate) fn release(row: RunRow, now: Millis) -> RunCommit {
    RunCommit {
        run_id: row.run_id,
        owner: row.owner.unwrap_or_default(),
        epoch: row.epoch,
        expected_len: row.journal_len,
        entries: Vec::new(),
        read: Vec::new(),
        inbox_seen: row.inbox_seen,
        next: Next::Waiting {
            ready_at: Some(now),
            waits: row.waits,
        },
        state: None,
        at: now,
    }
}

impl Engine {
    /// A run that was created here goes straight to the host, if it is still wanted here.
    pub(crate) fn drive_new(
        self: &Arc<Self>,
        row: &RunRow,
        input: Payload,
        asked: Asked,
    ) -> Option<Ticket> {
        if self.lets_go(asked) {
            self.let_go([row.clone()]);
            return None;
        }
        let entry = Entry::new(Kind::RunCreated, "".into(), input, row.created_at);
        self.registry().own(&row.run_id);
        let run = ClaimedRun {
            row: row.clone(),
            was: Status::Queued,
            journal: Some(vec![entry]),
            inbox: Vec::new(),
        };
        self.hand_out(vec![run], None, None, asked)
            .first()
            .map(|(_, ticket)| *ticket)
    }

    /// A claim of due runs with everything an engine always says.
    pub(crate) fn claim_request(&self, due: Due, limit: usize) -> Claim {
        Claim {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            warm: self.registry().warm_runs(None),
            ..self.claim_nothing(due)
        }
    }

    /// A claim of one run.
    pub(crate) fn claim_one(&self, run_id: RunId) -> Claim {
        Claim {
            limit: 1,
            warm: self.registry().warm_runs(Some(&run_id)),
            run_id: Some(run_id),
            ..self.claim_nothing(Due::Any)
        }
    }

    fn claim_nothing(&self, due: Due) -> Claim {
        Claim {
            owner: self.config.owner.clone(),
            lease: self.config.lease,
            now: self.env.explicit_now(),
            due,
            limit: 0,
            workflows: self.workflows(),
            run_id: None,
            warm: Vec::new(),
            turn: 0,
            max_bytes: Some(CLAIM_BYTES),
        }
    }

    /// Claims one run if it is due, and drives it.
    pub fn take(self: &Arc<Self>, token: Token, run_id: RunId, now: Option<Millis>) {
        self.claim_and_drive(token, run_id, now, false);
    }

    /// The same, and goes on with the run whenever it is due, as with one that was started here.
    pub fn adopt(self: &Arc<Self>, token: Token, run_id: RunId) {
        self.claim_and_drive(token, run_id, None, true);
    }

    fn claim_and_drive(
        self: &Arc<Self>,
        token: Token,
        run_id: RunId,
        now: Option<Millis>,
        own: bool,
    ) {
        self.rest(false);
        let asked = self.asking();
        let mut claim = self.claim_one(run_id);
        claim.now = now.or(claim.now);
        let engine = Arc::clone(self);
        let under_way = self.pending.begin();
        self.call(token, self.store.claim(claim), move |claimed| {
            if own {
                // Before the host has it: a pause must find that it is followed.
                for run in &claimed.runs {
                    engine.registry().own(&run.row.run_id);
                }
            }
            let runs = engine.take_up(claimed, asked, None, now);
            drop(under_way);
            Reply::Taken(runs)
        });
    }

    /// Hands claimed runs to the host.
    pub(crate) fn take_up(
        self: &Arc<Self>,
        claimed: Claimed,
        asked: Asked,
        group: Option<&Arc<Group>>,
        clock: Option<Millis>,
    ) -> Vec<(RunId, Ticket)> {
        self.counters.claims.fetch_add(1, Ordering::Relaxed);
        self.counters
            .claimed
            .fetch_add(claimed.runs.len() as u64, Ordering::Relaxed);
        if clock.is_none() {
            self.learn_clock(asked, claimed.now);
        }
        if self.lets_go(asked) {
            self.let_go(claimed.runs.into_iter().map(|run| run.row));
            return Vec::new();
        }
        let runs = self.sift(claimed.runs, group, clock);
        self.hand_out(runs, group, clock, asked)
    }

    /// Whether what was asked for is not wanted any more: everybody was told to yield meanwhile, or
    /// the engine is closed. Nobody else should have to wait for the leases to end.
    fn lets_go(&self, asked: Asked) -> bool {
        self.is_closing() || self.yielded_since(asked)
    }

    fn hand_out(
        self: &Arc<Self>,
        runs: Vec<ClaimedRun>,
        group: Option<&Arc<Group>>,
        clock: Option<Millis>,
        asked: Asked,
    ) -> Vec<(RunId, Ticket)> {
        let leased_until = self.leased_from(asked);
        let (runs, entered): (Vec<ClaimedRun>, Vec<Entered>) = {
            let mut registry = self.registry();
            runs.into_iter()
                .filter(|run| !registry.is_overtaken(&run.row))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|run| {
                    let without_journal = run.journal.is_none();
                    let entered = registry.enter(&run.row, without_journal, leased_until, group);
                    (run, entered)
                })
                .unzip()
        };
        if entered.iter().any(|entered| entered.first) {
            self.signals.unread.notify_one();
        }
        let mut taken = Vec::with_capacity(runs.len());
        let mut events = Vec::with_capacity(runs.len());
        let mut incomplete = Vec::new();
        for (run, entered) in runs.into_iter().zip(entered) {
            let (run_id, ticket) = (run.row.run_id.clone(), entered.ticket);
            if let Some((former, active)) = entered.former {
                events.extend(self.succeeded(former, &active, run.was));
            }
            if let Some(ticket) = entered.stale {
                events.push(HostEvent::Evict { ticket });
            }
            if let Some(group) = group {
                group.took(ticket, run_id.clone());
            }
            if entered.warm {
                events.push(HostEvent::Resume {
                    ticket,
                    row: Box::new(run.row),
                    inbox: run.inbox,
                    clock,
                });
            } else if run.journal.is_some() {
                events.push(HostEvent::Drive {
                    ticket,
                    run: Box::new(run),
                    clock,
                });
            } else {
                incomplete.push((ticket, run));
            }
            taken.push((run_id, ticket));
        }
        let complete: Vec<Ticket> = events
            .iter()
            .filter_map(|event| match event {
                HostEvent::Drive { ticket, .. } | HostEvent::Resume { ticket, .. } => Some(*ticket),
                _ => None,
            })
            .collect();
        self.give(events, complete);
        for (ticket, run) in incomplete {
            self.load_and_drive(ticket, run, clock, asked, 0);
        }
        taken
    }

    /// Pushes runs to the host; from then on it may be told what concerns them.
    fn give(
        &self,
        events: impl IntoIterator<Item = HostEvent>,
        tickets: impl IntoIterator<Item = Ticket>,
    ) {
        self.host.push_all(events);
        self.registry().driven(tickets);
    }

    /// The run was claimed anew while it was still active here under a former ticket.
    fn succeeded(&self, former: Ticket, active: &Active, was: Status) -> Option<HostEvent> {
        if active.leaving.is_some() && was != Status::Running {
            // It was released properly, and the host will be told so: see `paused`.
            self.note_end(active, former, Driven::Paused, false);
            return None;
        }
        self.note_end(active, former, Driven::Lost, false);
        Some(HostEvent::Lost {
            ticket: former,
            epoch: active.epoch,
            error: None,
        })
    }

    /// The claim left the journal out because the run was warm, but it is not any more.
    fn load_and_drive(
        self: &Arc<Self>,
        ticket: Ticket,
        mut run: ClaimedRun,
        clock: Option<Millis>,
        asked: Asked,
        failures: u32,
    ) {
        let engine = Arc::clone(self);
        on_completion(
            self.store.load(run.row.run_id.clone(), 0, u32::MAX),
            move |result| match result {
                Ok(journal) => {
                    if engine.registry().get_mut(ticket).is_none() {
                        return; // lost meanwhile
                    }
                    if engine.lets_go(asked) {
                        engine.given_up(ticket);
                        return engine.let_go([run.row]);
                    }
                    run.journal = Some(journal);
                    let drive = HostEvent::Drive {
                        ticket,
                        run: Box::new(run),
                        clock,
                    };
                    engine.give([drive], [ticket]);
                }
                Err(error) if error.is_transient() && failures < 8 => {
                    tracing::warn!(%error, "a journal could not be read; trying again");
                    let sleep = engine.env.sleep(Duration::from_millis(25 << failures));
                    let env = Arc::clone(&engine.env);
                    env.spawn(Box::pin(async move {
                        sleep.await;
                        engine.load_and_drive(ticket, run, clock, asked, failures + 1);
                    }));
                }
                Err(error) => {
                    // The host has never heard of this ticket and cannot give it back.
                    tracing::error!(%error, run = %run.row.run_id, "a journal could not be read; the run is let go");
                    engine.ended(ticket, Driven::Lost);
                    engine.let_go([run.row]);
                }
            },
        );
    }

    /// Releases runs that are leased to this engine and that nobody drives here, as they are.
    pub(crate) fn let_go(&self, rows: impl IntoIterator<Item = RunRow>) {
        let now = self.now();
        let commits: Vec<RunCommit> = rows
            .into_iter()
            .map(|row| RunCommit {
                owner: self.config.owner.clone(),
                ..release(row, now)
            })
            .collect();
        if !commits.is_empty() {
            let under_way = self.pending.begin();
            on_completion(self.store.commit(commits), move |result| {
                if let Err(error) = result {
                    tracing::debug!(%error, "runs could not be released; their leases will end");
                }
                drop(under_way);
            });
        }
    }

    /// A commit that releases the run is under way.
    pub(crate) fn leaving(&self, ticket: Ticket, leaving: Leaving) {
        if let Some(active) = self.registry().get_mut(ticket) {
            active.leaving = Some(leaving);
        }
    }

    /// A commit that was to release the run did not.
    pub(crate) fn stays(&self, ticket: Ticket) {
        if let Some(active) = self.registry().get_mut(ticket) {
            active.leaving = None;
        }
    }

    /// A run was released by a pause.
    pub(crate) fn paused(&self, ticket: Ticket, journal_len: u64, due: bool) {
        let now = self.now();
        let mut registry = self.registry();
        let Some((active, room)) = registry.leave(ticket) else {
            drop(registry);
            // It was claimed anew before the host heard of its release: under another ticket, so
            // that this handler is of no use any more.
            self.host.push(HostEvent::Evict { ticket });
            return;
        };
        let due = due || active.woken;
        let ready_at = if due {
            Some(now)
        } else {
            active.leaving.and_then(|leaving| leaving.ready_at)
        };
        let yielded = active.leaving.is_some_and(|leaving| leaving.yields);
        // If it was to be let go of: taken up again right here, it would never leave.
        let first = if active.leaving.is_some_and(|leaving| leaving.leaves) {
            registry.forget(&active.run_id);
            false
        } else {
            registry.follow_if_own(&active.run_id, ready_at)
        };
        let evicted = registry.keep_warm(&active, ticket, journal_len);
        drop(registry);
        if let Some(ticket) = evicted {
            self.host.push(HostEvent::Evict { ticket });
        }
        self.note_end(&active, ticket, Driven::Paused, due || yielded);
        if due || room {
            self.nudge();
        } else if first {
            self.signals.work.notify_one();
        }
        if let Some(ready_at) = ready_at {
            self.due_at(ready_at);
        }
    }

    /// A run is out of the host's hands for good.
    pub(crate) fn ended(&self, ticket: Ticket, driven: Driven) {
        self.out_of_hands(ticket, driven, driven == Driven::Lost);
    }

    /// A run cannot be driven here.
    pub(crate) fn given_up(&self, ticket: Ticket) {
        self.out_of_hands(ticket, Driven::Lost, false);
    }

    fn out_of_hands(&self, ticket: Ticket, driven: Driven, follow: bool) {
        let mut registry = self.registry();
        let Some((active, room)) = registry.leave(ticket) else {
            return;
        };
        let first = if follow {
            // Whoever started it still wants it to end: if no one else drives it, this engine does
            // once the lease is over.
            registry.follow_if_own(&active.run_id, None)
        } else {
            registry.forget(&active.run_id);
            false
        };
        drop(registry);
        self.note_end(&active, ticket, driven, false);
        if room {
            self.nudge();
        } else if first {
            self.signals.work.notify_one();
        }
    }

    fn note_end(&self, active: &Active, ticket: Ticket, driven: Driven, due: bool) {
        match driven {
            Driven::Lost => self.counters.lost.fetch_add(1, Ordering::Relaxed),
            Driven::Paused => 0,
            _ => self.counters.ended.fetch_add(1, Ordering::Relaxed),
        };
        if let Some(group) = &active.group {
            group.ended(ticket, driven, due);
        }
    }

    /// Wakes the run's driver at an instant, unless the run is out of its hands by then.
    pub(crate) fn tick_at(&self, ticket: Ticket, until: Millis) {
        let sooner = self.registry().set_tick(ticket, until);
        if sooner {
            self.signals.ticks.notify_one();
        }
    }
}
