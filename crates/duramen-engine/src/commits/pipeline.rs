//! Group commit: while one batch is being made durable, the next gathers.
//!
//! Budget: a run's commit costs one push into this queue and one completion event; the store sees
//! one call per batch. There is no artificial delay: a batch leaves when the host has gone through
//! what it was woken for ([`Pipeline::flush`]), or when enough has gathered to keep the store busy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duramen_core::store::{CommitOutcome, RunCommit, Standing, StoreError};

use super::lost::{Found, found};
use crate::common::Common;
use crate::env::Moment;
use crate::host::{HostEvent, Ticket};
use crate::inline::on_completion;

/// So many gathered commits leave without waiting for a flush.
const EAGER: usize = 32;
/// The most commits in one call of the store.
const MOST: usize = 1_024;

#[derive(Default)]
struct Gathering {
    waiting: Vec<(Ticket, RunCommit)>,
    /// A batch is under way.
    busy: bool,
    /// Someone is in [`Pipeline::flush`] and will see what has changed meanwhile.
    pumping: bool,
}

/// The way of all run commits of one engine.
pub struct Pipeline {
    common: Arc<Common>,
    gathering: Mutex<Gathering>,
    commits: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

struct Batch {
    tickets: Vec<Ticket>,
    commits: Vec<RunCommit>,
    since: Moment,
    failures: u32,
    /// A call that failed may have taken place: what is fenced now may be what it has done.
    unsure: bool,
    /// Runs that were blocked, or whose owner was changing its name: they wait by themselves, and the others
    /// do not wait for them.
    aside: bool,
    /// The name that it was sent under.
    owner: Arc<str>,
}

impl Pipeline {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            gathering: Mutex::default(),
            commits: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Run commits that were answered so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Calls of the store that were answered so far.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Late commits of a former owner: fenced off by the store, nothing written.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes a commit; its outcome comes as [`HostEvent::Committed`] (or `Lost`).
    pub fn submit(self: &Arc<Self>, ticket: Ticket, commit: RunCommit) {
        let eager = {
            let mut gathering = self.lock();
            gathering.waiting.push((ticket, commit));
            gathering.waiting.len() >= EAGER
        };
        if eager {
            self.flush();
        }
    }

    /// Sends what has gathered on its way, unless a batch is under way already.
    ///
    /// A store may answer at once, so this is a loop: a batch that has landed before its launch
    /// returns is followed by the next from here, not from inside its answer, which would take more
    /// of the stack with each batch.
    pub fn flush(self: &Arc<Self>) {
        if std::mem::replace(&mut self.lock().pumping, true) {
            return;
        }
        while let Some(batch) = self.next_batch() {
            self.launch(batch);
        }
    }

    /// What is to be launched now. None ends the caller's pumping, under the same lock that showed
    /// that there is nothing to do.
    fn next_batch(&self) -> Option<Batch> {
        let mut gathering = self.lock();
        if gathering.busy || gathering.waiting.is_empty() {
            gathering.pumping = false;
            return None;
        }
        gathering.busy = true;
        let most = gathering.waiting.len().min(MOST);
        let rest = gathering.waiting.split_off(most);
        let now = std::mem::replace(&mut gathering.waiting, rest);
        drop(gathering);
        let (tickets, commits) = now.into_iter().unzip();
        Some(Batch {
            tickets,
            commits,
            since: self.common.clock.moment(),
            failures: 0,
            unsure: false,
            aside: false,
            owner: "".into(),
        })
    }

    /// Whatever name the process had when they were made: they are sent under the one it has now.
    fn launch(self: &Arc<Self>, mut batch: Batch) {
        batch.owner = self.common.owner();
        for commit in &mut batch.commits {
            if *commit.owner != *batch.owner {
                commit.owner = batch.owner.to_string();
            }
        }
        let pipeline = Arc::clone(self);
        on_completion(
            self.common.store.commit(batch.commits.clone()),
            move |result| {
                pipeline.landed(batch, result);
            },
        );
    }

    fn landed(self: &Arc<Self>, batch: Batch, result: Result<Vec<CommitOutcome>, StoreError>) {
        let (asked, aside) = (batch.tickets.len(), batch.aside);
        let result = result.and_then(|outcomes| match outcomes.len() {
            answered if answered == asked => Ok(outcomes),
            answered => Err(StoreError::Other {
                reason: format!("it answered {answered} of {asked} commits"),
            }),
        });
        match result {
            Ok(outcomes) => self.answered(batch, outcomes),
            Err(error) if error.is_of_the_place() && self.has_patience(batch.since) => {
                let batch = Batch {
                    unsure: true,
                    ..batch
                };
                return self.try_again(batch, &error);
            }
            Err(error) => self.give_up(batch, &error),
        }
        if !aside {
            self.lock().busy = false;
            self.flush();
        }
    }

    fn give_up(&self, batch: Batch, error: &StoreError) {
        tracing::error!(%error, runs = batch.tickets.len(), "the store failed to commit; these runs are given up here");
        let commits = batch.tickets.into_iter().zip(&batch.commits);
        let lost = commits.map(|(ticket, commit)| HostEvent::Lost {
            ticket,
            epoch: commit.epoch,
            error: Some(error.clone()),
        });
        self.common.host.push_all(lost);
    }

    fn answered(self: &Arc<Self>, batch: Batch, outcomes: Vec<CommitOutcome>) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        let waits = self.has_patience(batch.since);
        let renamed = waits && self.common.incarnation.has_changed_since(&batch.owner);
        let blocked = StoreError::Locked {
            reason: "a transaction that is not Duramen's holds the run".to_owned(),
        };
        let mut events = Vec::with_capacity(outcomes.len());
        let mut doubted: Vec<(Ticket, RunCommit)> = Vec::new();
        let commits = batch.tickets.into_iter().zip(batch.commits);
        for ((ticket, commit), outcome) in commits.zip(outcomes) {
            // A run has one commit on its way at a time, so none can overtake one that is put aside.
            let aside = |commit| Batch {
                tickets: vec![ticket],
                commits: vec![commit],
                since: batch.since,
                failures: batch.failures,
                unsure: batch.unsure,
                aside: true,
                owner: Arc::clone(&batch.owner),
            };
            match outcome {
                CommitOutcome::Fenced if renamed => {
                    // It may be another name of this process that has the run.
                    let error = StoreError::Other {
                        reason: "the owner has another name now".to_owned(),
                    };
                    self.try_again(aside(commit), &error);
                }
                CommitOutcome::Fenced if batch.unsure => doubted.push((ticket, commit)),
                CommitOutcome::Blocked if waits => self.try_again(aside(commit), &blocked),
                CommitOutcome::Blocked => {
                    tracing::error!(run = %commit.run_id, "the run has been held by others for as long as a lease; it is given up here");
                    events.push(HostEvent::Lost {
                        ticket,
                        epoch: commit.epoch,
                        error: Some(blocked.clone()),
                    });
                }
                outcome => events.push(self.outcome(ticket, &commit, outcome)),
            }
        }
        self.common.host.push_all(events);
        if !doubted.is_empty() {
            let (tickets, commits) = doubted.into_iter().unzip();
            self.look(Batch {
                tickets,
                commits,
                since: batch.since,
                failures: batch.failures,
                unsure: true,
                aside: true,
                owner: batch.owner,
            });
        }
    }

    fn outcome(&self, ticket: Ticket, commit: &RunCommit, outcome: CommitOutcome) -> HostEvent {
        self.commits.fetch_add(1, Ordering::Relaxed);
        match outcome {
            CommitOutcome::Fenced => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            CommitOutcome::Applied { .. } => {
                self.common.outbox.committed(commit);
                self.common.answers.committed(commit);
            }
            CommitOutcome::Blocked | CommitOutcome::Rejected { .. } => {}
        }
        HostEvent::Committed { ticket, outcome }
    }

    /// How the runs stand tells whether these commits took place when their answers were lost.
    fn look(self: &Arc<Self>, batch: Batch) {
        let pipeline = Arc::clone(self);
        let run_ids = batch.commits.iter().map(|commit| commit.run_id.clone());
        let look = self.common.store.standing(run_ids.collect());
        on_completion(look, move |result| match result {
            Ok(standings) => pipeline.looked(batch, &standings),
            Err(error) if error.is_of_the_place() && pipeline.has_patience(batch.since) => {
                // Sent again, they are fenced again if they took place.
                pipeline.try_again(batch, &error);
            }
            Err(error) => pipeline.give_up(batch, &error),
        });
    }

    fn looked(self: &Arc<Self>, batch: Batch, standings: &[Option<Standing>]) {
        let now = self.common.clock.now();
        let is_own = |owner: &str| self.common.incarnation.is_own(owner);
        let mut events = Vec::with_capacity(standings.len());
        let mut again = Vec::new();
        let commits = batch.tickets.into_iter().zip(batch.commits);
        for ((ticket, commit), standing) in commits.zip(standings) {
            match found(&commit, standing.as_ref(), is_own, now) {
                Found::Outcome(outcome) => events.push(self.outcome(ticket, &commit, outcome)),
                Found::Again if self.has_patience(batch.since) => again.push((ticket, commit)),
                Found::Again => events.push(self.outcome(ticket, &commit, CommitOutcome::Fenced)),
            }
        }
        self.common.host.push_all(events);
        if !again.is_empty() {
            let (tickets, commits) = again.into_iter().unzip();
            let batch = Batch {
                tickets,
                commits,
                since: batch.since,
                failures: batch.failures,
                unsure: true,
                aside: true,
                owner: batch.owner,
            };
            let error = StoreError::Other {
                reason: "the runs were under another name".to_owned(),
            };
            self.try_again(batch, &error);
        }
    }

    /// If the failed call took place after all, the repetition is fenced off by the journal length: see
    /// [`Pipeline::look`].
    fn try_again(self: &Arc<Self>, mut batch: Batch, error: &StoreError) {
        batch.failures += 1;
        let pause = Duration::from_millis(25 << batch.failures.min(6));
        tracing::debug!(%error, ?pause, "the store failed to commit; trying again");
        let pipeline = Arc::clone(self);
        let env = &self.common.env;
        let sleep = env.sleep(pause);
        env.spawn(Box::pin(async move {
            sleep.await;
            pipeline.launch(batch);
        }));
    }

    fn has_patience(&self, since: Moment) -> bool {
        // For no longer than a lease lasts.
        self.common.clock.moment().since(since) < self.common.config.lease
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Gathering> {
        self.gathering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
