//! A run that is started here: created with this process's lease, and driven.
//!
//! A call that failed for the place may have taken place: it is sent again as the next try of the same
//! creation, by whose seed the run is known for its own. A run that was there before is gone on with here, as one that was
//! started here: to start an id again after a crash is how a program goes on.
//!
//! Budget of a run of one step, from its start to its end: two calls of the store (its creation, its last commit),
//! which share transactions with those of all other runs; no read. Two wake-ups of the host, shared as well: the
//! run with the reply to its start, and its end, which whoever waits for it learns from the host itself. The request
//! is copied once (to be sent again if its answer is lost), the row never: it goes from the store's answer to the host.

use std::sync::Arc;
use std::time::Duration;

use duramen_core::ids::RunId;
use duramen_core::run::{RunRow, Status, is_same_creation, next_try};
use duramen_core::store::{Created, NewRun, Start, StoreError};

use super::family::adopt_family;
use super::hands::Hands;
use super::intake::{Intake, Wish};
use crate::commits::{Releases, rows_as_they_stand};
use crate::common::Common;
use crate::env::Moment;
use crate::host::{HostEvent, Reply, Token};
use crate::inline::on_completion;
use crate::leases::Leases;
use crate::pending::UnderWay;

/// How long the answer to a claim may be under way at the most, before a run that nobody drives here is let
/// go for whoever asked for it.
const ANSWER: Duration = Duration::from_millis(25);

/// See the module's head.
pub(super) struct Creation {
    pub(super) common: Arc<Common>,
    pub(super) leases: Arc<Leases>,
    pub(super) releases: Arc<Releases>,
    pub(super) intake: Arc<Intake>,
    pub(super) hands: Arc<Hands>,
    pub(super) token: Token,
    pub(super) run: NewRun,
    pub(super) wish: Wish,
    pub(super) since: Moment,
    pub(super) failures: u32,
    pub(super) _under_way: UnderWay,
}

impl Creation {
    /// As soon as this process has a lease.
    pub(super) fn begin(self) {
        let leases = Arc::clone(&self.leases);
        leases.when_ready(move |ready| match ready {
            Ok(()) => self.send(),
            Err(error) => self.failed(error),
        });
    }

    fn send(mut self) {
        self.run.start = Start::Leased {
            owner: self.common.owner().to_string(),
        };
        self.run.now = self.common.clock.explicit_now();
        self.wish.asked = self.common.clock.asking();
        let create = self.common.store.create(vec![self.run.clone()]);
        on_completion(create, move |result| {
            match result.map(|created| created.into_iter().next()) {
                Ok(Some(Created::Created { row })) => self.created(row),
                // Before the first answer was lost, it cannot have been this creation.
                Ok(Some(Created::Exists { row }))
                    if self.failures > 0 && is_same_creation(&row.seed, &self.run.seed) =>
                {
                    self.created(row);
                }
                Ok(Some(Created::Exists { row })) => {
                    let ticket = self.hands.ticket_of(&row.run_id);
                    self.adopt(&row);
                    self.reply(Ok(Reply::Started {
                        new: false,
                        workflow: row.workflow,
                        status: row.status,
                        ticket,
                    }));
                }
                Ok(Some(Created::Blocked)) => self.failed(StoreError::Locked {
                    reason: "a transaction that is not Duramen's holds that id".to_owned(),
                }),
                Ok(None) => self.failed(StoreError::Other {
                    reason: "it answered nothing for a creation".to_owned(),
                }),
                Err(error) => self.failed(error),
            }
        });
    }

    /// It was created by this call or by one before it.
    fn created(self, row: RunRow) {
        let is_own = |owner: &str| self.common.incarnation.is_own(owner);
        let fresh = row.status == Status::Running
            && row.epoch == 1
            && row.journal_len == 1 + self.run.entries.len() as u64
            && row.owner.as_deref().is_some_and(is_own);
        let (workflow, status) = (row.workflow.clone(), row.status);
        let ticket = match self.hands.ticket_of_life(&row) {
            None if fresh => self.intake.drive_new(row, &self.run, self.wish),
            None => {
                // The lease had ended, or somebody has been at it since.
                self.adopt(&row);
                None
            }
            driven => driven,
        };
        self.reply(Ok(Reply::Started {
            new: true,
            workflow,
            status,
            ticket,
        }));
    }

    /// Goes on with a run that is there already, unless it has ended.
    fn adopt(&self, row: &RunRow) {
        // Who has driven it before may have died before all that left it was out.
        self.common.outbox.look_at(&row.run_id);
        if row.status.is_final() || self.intake.lets_go(self.wish) {
            return;
        }
        adopt_family(&self.common, &self.hands, &row.run_id);
        if row.status != Status::Running {
            return self.hands.adopt(&row.run_id, row.ready_at);
        }
        self.hands.adopt(&row.run_id, Some(self.common.clock.now()));
        let is_own = |owner: &str| self.common.incarnation.is_own(owner);
        if row.owner.as_deref().is_some_and(is_own) && !self.hands.is_held(&row.run_id) {
            let freeing = free(
                Arc::clone(&self.common),
                Arc::clone(&self.releases),
                Arc::clone(&self.hands),
                row.run_id.clone(),
                row.epoch,
            );
            self.common.env.spawn(Box::pin(freeing));
        }
    }

    fn failed(mut self, error: StoreError) {
        self.failures += 1;
        let Some(pause) = self.common.next_try(self.failures, self.since, &error) else {
            return self.reply(Err(error));
        };
        self.run.seed = next_try(self.run.seed);
        tracing::debug!(%error, ?pause, "a run could not be created; trying again");
        let env = Arc::clone(&self.common.env);
        let sleep = env.sleep(pause);
        env.spawn(Box::pin(async move {
            sleep.await;
            self.begin();
        }));
    }

    fn reply(&self, reply: Result<Reply, StoreError>) {
        let token = self.token;
        self.common.host.push(HostEvent::Reply { token, reply });
    }
}

/// Lets go of a run that this process holds by the store and does not drive, so that it can be taken up.
async fn free(
    common: Arc<Common>,
    releases: Arc<Releases>,
    hands: Arc<Hands>,
    run_id: RunId,
    epoch: i64,
) {
    common.env.sleep(ANSWER).await;
    if hands.is_held(&run_id) {
        return;
    }
    match rows_as_they_stand(&common, vec![run_id]).await {
        Ok(rows) => {
            let is_own = |owner: &str| common.incarnation.is_own(owner);
            let orphans: Vec<_> = rows
                .into_iter()
                .filter(|row| row.epoch == epoch && row.owner.as_deref().is_some_and(is_own))
                .filter(|row| hands.forgo(row))
                .collect();
            for row in &orphans {
                hands.released(&row.run_id, common.clock.now());
            }
            releases.let_go(orphans);
        }
        Err(error) => {
            tracing::debug!(%error, "a run that nobody drives could not be read; the audit lets it go");
        }
    }
}
