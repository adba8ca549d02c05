//! Goes on with the runs that were started here, where no worker does, and forgets those that have ended.

use std::sync::Arc;

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::Status;
use duramen_core::store::{Claim, StoreError};

use super::hands::Hands;
use super::intake::Intake;
use crate::common::Common;
use crate::env::Moment;

/// How often paused runs that were started here are looked at, for messages from other engines:
/// at first, and when nothing has changed for a while.
const SOONEST: Millis = 100;
const LATEST: Millis = 500;
/// A worker claims whatever is due: it only has to find out which of these have ended elsewhere.
const WORKING: Millis = 5_000;
/// How soon it is tried again whether an owner has ended, at the soonest.
const HELD: Millis = 500;
/// So many of them are looked at in one go.
const BATCH: usize = 256;
/// The most runs that are claimed in one go.
const CLAIM_MOST: usize = 256;

/// What it works with. The task that has it between two rounds must keep none of them alive.
#[derive(Clone, Copy)]
pub(super) struct Tools<'a> {
    pub(super) common: &'a Common,
    pub(super) intake: &'a Arc<Intake>,
    pub(super) hands: &'a Hands,
}

/// Where it is with them.
pub(super) struct Follower {
    next: Moment,
    poll: Millis,
    from: Option<RunId>,
}

impl Follower {
    pub(super) const fn new() -> Self {
        Self {
            next: Moment::LONG_AGO,
            poll: 0,
            from: None,
        }
    }

    /// Something has changed: look soon.
    pub(super) fn look(&mut self) {
        self.poll = SOONEST;
    }

    /// Does what is due and says when to look again.
    pub(super) async fn round(&mut self, tools: Tools<'_>, working: bool) -> Moment {
        let followed = tools.hands.followed();
        if followed == 0 {
            return Moment::NEVER;
        }
        let now = tools.common.clock.moment();
        let mut next = None;
        if !working {
            if now >= self.next && tools.common.clock.was_set() {
                tools.ask_the_time().await;
            }
            let (due, later) = tools.hands.followed_due(CLAIM_MOST);
            next = later;
            if !due.is_empty() {
                tools.claim(due).await;
                next = Some(now);
            }
        }
        if now >= self.next {
            let changed = self.look_around(tools).await;
            self.poll = if working {
                WORKING
            } else if changed || followed > BATCH {
                SOONEST
            } else {
                (self.poll * 5 / 4).clamp(SOONEST, LATEST)
            };
            self.next = now.after(self.poll);
            if changed {
                next = Some(now);
            }
        }
        // A look brings the next poll nearer.
        self.next = self.next.min(now.after(self.poll.max(SOONEST)));
        next.unwrap_or(Moment::NEVER).min(self.next)
    }

    /// Looks at the next batch. True if one of them is due earlier than was known.
    async fn look_around(&mut self, tools: Tools<'_>) -> bool {
        let batch = tools.hands.followed_after(self.from.as_ref(), BATCH);
        self.from = batch.last().filter(|_| batch.len() == BATCH).cloned();
        !batch.is_empty() && tools.look_at(&batch, false).await
    }
}

impl Tools<'_> {
    /// Who claims nothing and drives nothing hears nothing of the store's clock.
    async fn ask_the_time(&self) {
        let asked = self.common.clock.asking();
        match self.common.store.next_due(self.intake.due_ask()).await {
            Ok(next) => self.common.clock.learn(asked, next.now),
            Err(error) => {
                tracing::debug!(%error, "the store could not be asked for the time; trying again");
            }
        }
    }

    /// Claims them all at once, so that the store can make one transaction of it.
    async fn claim(&self, due: Vec<RunId>) {
        let wish = self.intake.wish();
        let _under_way = self.common.pending.begin();
        let (held, due): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|run_id| self.hands.is_held(run_id));
        // A host that is held up has not yet let go of what was lost meanwhile.
        self.hands.rest(&held, self.later());
        if let Err(error) = self.intake.ready().await {
            return self.failed(&due, &error);
        }
        let owner = self.common.owner();
        let claims: Vec<_> = due
            .into_iter()
            .map(|run_id| {
                let claim = Claim {
                    owner: owner.to_string(),
                    ..self.intake.claim_one(run_id.clone())
                };
                (run_id, self.common.store.claim(claim))
            })
            .collect();
        let mut missed = Vec::new();
        for (run_id, claim) in claims {
            match claim.await {
                Ok(claimed) if claimed.lapsed => {
                    self.intake.lapsed(&owner);
                    self.hands.rest([&run_id], self.later());
                }
                // Someone else has it, or it is due later than was thought.
                Ok(claimed) if claimed.runs.is_empty() => missed.push(run_id),
                Ok(claimed) => {
                    self.intake.take_up(claimed, wish, None, None);
                }
                Err(error) => {
                    self.intake.doubt(&error);
                    self.failed(&[run_id], &error);
                }
            }
        }
        if !missed.is_empty() {
            self.look_at(&missed, true).await;
            self.hands.tried_in_vain(&missed);
        }
    }

    fn failed(&self, run_ids: &[RunId], error: &StoreError) {
        tracing::debug!(%error, "runs could not be claimed; trying again");
        self.hands.rest(run_ids, self.later());
    }

    fn later(&self) -> Moment {
        self.common.clock.moment().after(SOONEST)
    }

    /// Learns from the store when they are due, and which have ended. True if one of them is due at
    /// another time than was known.
    async fn look_at(&self, run_ids: &[RunId], tried: bool) -> bool {
        let standings = match self.common.store.standing(run_ids.to_vec()).await {
            Ok(standings) => standings,
            Err(error) => {
                tracing::debug!(%error, "runs could not be looked at; trying again");
                return false;
            }
        };
        let mut changed = false;
        let mut held = Vec::new();
        for (run_id, standing) in run_ids.iter().zip(standings) {
            match standing.filter(|standing| !standing.status.is_final()) {
                Some(standing) if standing.status == Status::Running => held.push(run_id),
                // Whatever it waits for: nobody may take it before it is resumed.
                Some(standing) if standing.status == Status::Paused => {
                    changed |= self.hands.found_due(run_id, None);
                }
                Some(standing) => changed |= self.hands.found_due(run_id, standing.ready_at),
                None => self.hands.found_over(run_id),
            }
        }
        if !held.is_empty() {
            let at = self.owners_end().await;
            for run_id in held {
                self.hands.found_held(run_id, at, tried);
            }
        }
        changed
    }

    /// When one of those who drive runs of the lanes served here may have ended.
    async fn owners_end(&self) -> Millis {
        let now = self.common.clock.now();
        let latest = now.saturating_add(self.common.config.lease / 3);
        let soonest = now.saturating_add(HELD).min(latest);
        let next = self.common.store.next_due(self.intake.due_ask()).await;
        let end = next.ok().and_then(|next| next.ready_at);
        end.map_or(latest, |end| end.clamp(soonest, latest))
    }
}
