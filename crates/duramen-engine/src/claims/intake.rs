//! From a claim to the host: what is asked for, and what becomes of the answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duramen_core::ids::{Millis, RunId};
use duramen_core::lanes::{self, DEFAULT_QUEUE};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    Claim, Claimed, ClaimedRun, Due, DueAsk, NewRun, StoreError, WorkflowKey,
};

use super::group::Group;
use super::hands::Hands;
use super::pages::Pages;
use super::suspects::sift;
use super::unread::Given;
use crate::clock::Asked;
use crate::commits::Releases;
use crate::common::Common;
use crate::host::{Driven, HostEvent, Ticket};
use crate::inline::on_completion;
use crate::leases::Leases;

/// Journals of one claim may hold this many bytes together, unless the caller says otherwise.
pub const CLAIM_BYTES: u64 = 64 << 20;

/// So often in a row is a lease renewed that the store does not find then.
const MOST_LAPSES: usize = 3;

/// What was the case when a request was sent to the store that may bring runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) asked: Asked,
    yields: u64,
}

/// What may be claimed here.
struct Served {
    queues: Vec<String>,
    workflows: Vec<WorkflowKey>,
    /// What follows from the two.
    lanes: Arc<[String]>,
}

/// What a claim has left behind of a run's inbox.
enum Rest {
    /// Nothing; what the host has instead.
    None(Given),
    Pages {
        row: Box<RunRow>,
        /// The highest message that the host has.
        behind: u64,
    },
}

impl Rest {
    fn of(run: &ClaimedRun, seen: u64) -> Self {
        if !run.inbox_more {
            return Self::None(Given::new(0, &run.row, run.row.inbox_len));
        }
        let last = run.inbox.last().map_or(0, |message| message.seq);
        Self::Pages {
            row: Box::new(run.row.clone()),
            behind: last.max(seen),
        }
    }
}

/// See the module's head.
pub(super) struct Intake {
    common: Arc<Common>,
    leases: Arc<Leases>,
    releases: Arc<Releases>,
    hands: Arc<Hands>,
    served: Mutex<Served>,
    /// How often everybody was told to yield.
    yields: AtomicU64,
}

impl Intake {
    pub(super) fn new(
        common: Arc<Common>,
        leases: Arc<Leases>,
        releases: Arc<Releases>,
        hands: Arc<Hands>,
    ) -> Self {
        Self {
            common,
            leases,
            releases,
            hands,
            served: Mutex::new(Served {
                queues: vec![DEFAULT_QUEUE.to_owned()],
                workflows: Vec::new(),
                lanes: Arc::default(),
            }),
            yields: AtomicU64::new(0),
        }
    }

    /// The workflows whose runs may be claimed here.
    pub(super) fn register(&self, workflows: Vec<WorkflowKey>) {
        self.serve(|served| served.workflows = workflows);
    }

    /// The queues whose runs may be claimed here.
    pub(super) fn register_queues(&self, queues: Vec<String>) {
        self.serve(|served| served.queues = queues);
    }

    fn serve(&self, change: impl FnOnce(&mut Served)) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut served);
        served.lanes = lanes::served(&served.queues, &served.workflows).into();
    }

    pub(super) fn lanes(&self) -> Arc<[String]> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&served.lanes)
    }

    pub(super) fn due_ask(&self) -> DueAsk {
        DueAsk {
            lanes: self.lanes().to_vec(),
            now: self.common.clock.explicit_now(),
        }
    }

    /// Looks whether runs are due that only a newer build can read, and tells the host of it, once: whoever
    /// runs none has to know why they wait.
    pub(super) async fn look_ahead(&self) {
        if self.common.has_told_of_newer() {
            return;
        }
        let lanes = {
            let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            lanes::ahead(&served.queues, &served.workflows)
        };
        let now = self.common.clock.explicit_now();
        // A store that does not answer is noticed by whoever needs the answer.
        if let Ok(next) = self.common.store.next_due(DueAsk { lanes, now }).await
            && next
                .ready_at
                .is_some_and(|at| at <= now.unwrap_or(next.now))
        {
            self.common.tell_of_newer();
        }
    }

    /// To be noted before a request is sent.
    pub(super) fn wish(&self) -> Wish {
        Wish {
            asked: self.common.clock.asking(),
            yields: self.yields.load(Ordering::Acquire),
        }
    }

    /// Whatever is asked for now is not wanted any more.
    pub(super) fn yields(&self) {
        self.yields.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether what was asked for is not wanted any more: everybody was told to yield meanwhile, or
    /// the engine is closed. Nobody else should have to wait for the leases to end.
    pub(super) fn lets_go(&self, wish: Wish) -> bool {
        self.common.is_closing() || self.yields.load(Ordering::Acquire) != wish.yields
    }

    /// A claim of due runs with everything that is always said.
    pub(super) fn claim(&self, due: Due, limit: usize) -> Claim {
        Claim {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            warm: self.hands.warm_runs(None),
            ..self.claim_nothing(due)
        }
    }

    /// A claim of one run.
    pub(super) fn claim_one(&self, run_id: RunId) -> Claim {
        Claim {
            limit: 1,
            warm: self.hands.warm_runs(Some(&run_id)),
            run_id: Some(run_id),
            ..self.claim_nothing(Due::Any)
        }
    }

    fn claim_nothing(&self, due: Due) -> Claim {
        Claim {
            owner: self.common.owner().to_string(),
            now: self.common.clock.explicit_now(),
            due,
            limit: 0,
            lanes: self.lanes().to_vec(),
            run_id: None,
            warm: Vec::new(),
            turn: 0,
            max_bytes: Some(CLAIM_BYTES),
        }
    }

    /// Completes as soon as this process has a lease.
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        self.leases.ready().await
    }

    /// A claim has failed, and may have taken place.
    pub(super) fn doubt(&self, error: &StoreError) {
        self.leases.doubt(error);
    }

    /// A claim was answered that the owner of that name has no lease.
    pub(super) fn lapsed(&self, owner: &str) {
        self.leases.lapsed(owner);
    }

    /// Sends a claim once this process has a lease, and again if that has lapsed without its knowing.
    pub(super) async fn ask(&self, make: impl Fn() -> Claim) -> Result<Claimed, StoreError> {
        for _ in 0..MOST_LAPSES {
            let claim = make();
            self.leases.ready_at(claim.now).await?;
            let owner = self.common.owner();
            let claim = Claim {
                owner: owner.to_string(),
                ..claim
            };
            let claimed = self.common.store.claim(claim).await;
            let claimed = claimed.inspect_err(|error| self.leases.doubt(error))?;
            if !claimed.lapsed {
                return Ok(claimed);
            }
            self.leases.lapsed(&owner);
        }
        Err(StoreError::Other {
            reason: "the lease of this process ends as soon as it is renewed; is the store's clock being set?"
                .to_owned(),
        })
    }

    /// Hands claimed runs to the host.
    pub(super) fn take_up(
        self: &Arc<Self>,
        claimed: Claimed,
        wish: Wish,
        group: Option<&Arc<Group>>,
        clock: Option<Millis>,
    ) -> Vec<(RunId, Ticket)> {
        let counters = &self.common.counters;
        counters.claims.fetch_add(1, Ordering::Relaxed);
        counters
            .claimed
            .fetch_add(claimed.runs.len() as u64, Ordering::Relaxed);
        if clock.is_none() {
            self.common.clock.learn(wish.asked, claimed.now);
        }
        if self.lets_go(wish) {
            self.releases
                .let_go(claimed.runs.into_iter().map(|run| run.row));
            return Vec::new();
        }
        let now = clock.unwrap_or_else(|| self.common.clock.now());
        let sifted = sift(claimed.runs, &self.common, now);
        if let Some(group) = group {
            for (run_id, driven) in sifted.settled {
                group.settled(run_id, driven);
            }
        }
        if !sifted.commits.is_empty() {
            let hands = Arc::clone(&self.hands);
            self.releases
                .set_aside(sifted.commits, move |run_id, ready_at| {
                    hands.stands_aside(run_id, ready_at);
                });
        }
        self.hand_out(sifted.sound, group, clock, wish)
    }

    /// A run that was created here goes straight to the host, if it is still wanted here.
    pub(super) fn drive_new(
        self: &Arc<Self>,
        row: RunRow,
        new: &NewRun,
        wish: Wish,
    ) -> Option<Ticket> {
        // The lease is one of the store's clock, and it may be the first that is seen of it.
        self.common.clock.learn(wish.asked, row.created_at);
        if self.lets_go(wish) {
            self.releases.let_go([row]);
            return None;
        }
        let mut journal = Vec::with_capacity(1 + new.entries.len());
        journal.push(new.first_entry(row.created_at));
        journal.extend_from_slice(&new.entries);
        let run_id = row.run_id.clone();
        self.hands.own(&run_id, None);
        let run = ClaimedRun {
            was: Status::Queued,
            journal: Some(journal),
            inbox: Vec::new(),
            // Messages may have come before the answer did, if that was lost at first.
            inbox_more: row.inbox_len > 0,
            row,
        };
        let taken = self.hand_out(vec![run], None, None, wish);
        let ticket = taken.first().map(|(_, ticket)| *ticket);
        if ticket.is_none() {
            // The answer came too late: it was let go meanwhile.
            self.hands.adopt(&run_id, None);
        }
        ticket
    }

    fn hand_out(
        self: &Arc<Self>,
        runs: Vec<ClaimedRun>,
        group: Option<&Arc<Group>>,
        clock: Option<Millis>,
        wish: Wish,
    ) -> Vec<(RunId, Ticket)> {
        let entered = self.hands.enter(runs, group);
        let mut taken = Vec::with_capacity(entered.len());
        let mut events = Vec::with_capacity(entered.len());
        let mut complete = Vec::with_capacity(entered.len());
        let mut incomplete = Vec::new();
        for entered in entered {
            let (run, ticket) = (entered.run, entered.ticket);
            let run_id = run.row.run_id.clone();
            if let Some((ticket, epoch)) = entered.lost {
                events.push(HostEvent::Lost {
                    ticket,
                    epoch,
                    error: None,
                });
            }
            if let Some(ticket) = entered.stale {
                events.push(HostEvent::Evict { ticket });
            }
            if let Some(group) = group {
                group.took(ticket, run_id.clone());
            }
            if entered.warm {
                // A handler that is kept has what its pause said that it had seen.
                let rest = Rest::of(&run, run.row.inbox_seen);
                events.push(HostEvent::Resume {
                    ticket,
                    row: Box::new(run.row),
                    inbox: run.inbox,
                    inbox_more: run.inbox_more,
                    clock,
                });
                complete.push((ticket, rest));
            } else if run.journal.is_some() {
                let rest = Rest::of(&run, 0);
                events.push(HostEvent::Drive {
                    ticket,
                    run: Box::new(run),
                    clock,
                });
                complete.push((ticket, rest));
            } else {
                incomplete.push((ticket, run));
            }
            taken.push((run_id, ticket));
        }
        self.common.host.push_all(events);
        for (ticket, rest) in complete {
            self.given(ticket, rest);
        }
        for (ticket, run) in incomplete {
            self.load_and_drive(ticket, run, clock, wish, 0);
        }
        taken
    }

    /// The host has been given a run.
    fn given(&self, ticket: Ticket, rest: Rest) {
        match rest {
            Rest::None(given) => self.hands.given([Given { ticket, ..given }]),
            Rest::Pages { row, behind } => {
                let pages = Pages {
                    common: Arc::clone(&self.common),
                    leases: Arc::clone(&self.leases),
                    hands: Arc::clone(&self.hands),
                    ticket,
                    row: *row,
                    behind,
                };
                self.common.env.spawn(Box::pin(pages.read()));
            }
        }
    }

    /// The claim left the journal out because the run was warm, but it is not any more.
    fn load_and_drive(
        self: &Arc<Self>,
        ticket: Ticket,
        mut run: ClaimedRun,
        clock: Option<Millis>,
        wish: Wish,
        failures: u32,
    ) {
        let intake = Arc::clone(self);
        let load = self
            .common
            .store
            .load(run.row.run_id.clone(), run.row.journal_start, u32::MAX);
        on_completion(load, move |result| match result {
            Ok(journal) => {
                if !intake.leases.held().has(ticket) {
                    return; // lost meanwhile
                }
                if intake.lets_go(wish) {
                    intake.hands.given_up(ticket);
                    return intake.releases.let_go([run.row]);
                }
                run.journal = Some(journal);
                let rest = Rest::of(&run, 0);
                intake.common.host.push(HostEvent::Drive {
                    ticket,
                    run: Box::new(run),
                    clock,
                });
                intake.given(ticket, rest);
            }
            Err(error) if error.is_of_the_place() && failures < 8 => {
                tracing::debug!(%error, "a journal could not be read; trying again");
                let env = Arc::clone(&intake.common.env);
                let sleep = env.sleep(Duration::from_millis(25 << failures));
                env.spawn(Box::pin(async move {
                    sleep.await;
                    intake.load_and_drive(ticket, run, clock, wish, failures + 1);
                }));
            }
            Err(error) => {
                // The host has never heard of this ticket and cannot give it back.
                tracing::error!(%error, run = %run.row.run_id, "a journal could not be read; the run is let go");
                intake.hands.ended(ticket, Driven::Lost);
                intake.releases.let_go([run.row]);
            }
        });
    }
}
