//! The keeper: one task that renews leases, brings messages, wakes runs and claims work.
//!
//! Budget of an idle worker: one claim probe per `poll_max`; of a busy one: a claim when a quarter
//! of its places is free, one heartbeat per third of a lease, one probe for messages per poll.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::{Claim, Due, Heartbeat};

use crate::engine::Engine;
use crate::host::HostEvent;

/// How often messages for running runs are looked for.
const UNREAD_POLL: Millis = 100;
/// How often paused runs that were started here are looked at, for messages from other processes.
const FOLLOW_POLL: Millis = 100;
/// So many followed runs are looked at in one go.
const FOLLOW_BATCH: usize = 64;
/// The most runs in one claim.
const CLAIM_MOST: usize = 256;

struct Keeper {
    next_beat: Millis,
    next_unread: Millis,
    next_claim: Millis,
    next_follow: Millis,
    poll: Millis,
    follow_from: Option<RunId>,
}

/// Runs until the engine is closed or dropped.
pub(crate) async fn keep(engine: Weak<Engine>) {
    let mut keeper = Keeper {
        next_beat: 0,
        next_unread: 0,
        next_claim: 0,
        next_follow: 0,
        poll: 1,
        follow_from: None,
    };
    while let Some(engine) = engine.upgrade().filter(|engine| !engine.is_closing()) {
        let until = keeper.round(&engine).await;
        let span = Duration::from_millis(u64::try_from(until - engine.now()).unwrap_or(0));
        let sleep = engine.env.sleep(span.min(Duration::from_secs(5)));
        tokio::select! {
            () = sleep => {}
            () = engine.nudged.notified() => keeper.next_claim = 0,
        }
    }
}

impl Keeper {
    /// Does what is due and says when to look again.
    async fn round(&mut self, engine: &Arc<Engine>) -> Millis {
        let now = engine.now();
        let mut until = now + 5_000;
        if engine.active() > 0 {
            if now >= self.next_beat {
                beat(engine).await;
                self.next_beat = now + (engine.config.lease / 3).max(1);
            }
            if now >= self.next_unread {
                engine.fetch_unread();
                self.next_unread = now + UNREAD_POLL;
            }
            until = until.min(self.next_beat).min(self.next_unread);
        } else {
            // The first run that comes gets its heartbeat a third of a lease later.
            self.next_beat = now + engine.config.lease / 3;
        }
        if engine.working().is_some() {
            until.min(self.claim(engine).await)
        } else {
            until.min(self.follow(engine).await)
        }
    }

    /// Claims as many due runs as there are places, when there are enough of them to be worth it.
    async fn claim(&mut self, engine: &Arc<Engine>) -> Millis {
        let Some(working) = engine.working() else {
            return Millis::MAX;
        };
        let now = engine.now();
        if now < self.next_claim {
            return self.next_claim;
        }
        let free = working.concurrency.saturating_sub(engine.active());
        if free == 0 || free < working.concurrency.div_ceil(4) {
            // An ending run nudges the keeper.
            return now + working.poll_max;
        }
        let limit = free.min(CLAIM_MOST);
        match engine
            .store
            .claim(engine.claim_request(Due::Any, limit))
            .await
        {
            Ok(claimed) => {
                let found = claimed.runs.len();
                let more = claimed.more;
                engine.take_up(claimed, None, None);
                if found > 0 {
                    self.poll = working.poll_min;
                    self.next_claim = if more { 0 } else { now + self.poll };
                } else {
                    self.poll = (self.poll * 2).clamp(working.poll_min, working.poll_max);
                    self.next_claim = now + self.poll;
                    if self.poll == working.poll_max {
                        self.wait_for_deadline(engine).await;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "runs could not be claimed; trying again");
                self.poll = (self.poll * 2).clamp(working.poll_min, working.poll_max.max(1_000));
                self.next_claim = now + self.poll;
            }
        }
        self.next_claim.max(now + 1)
    }

    /// Nothing is due now: a deadline that comes before the next poll is met exactly.
    async fn wait_for_deadline(&mut self, engine: &Arc<Engine>) {
        if let Ok(next) = engine.store.next_due(engine.workflows()).await {
            engine.learn_clock(next.now);
            if let Some(ready_at) = next.ready_at
                && ready_at > next.now
            {
                self.next_claim = self.next_claim.min(ready_at);
            }
        }
    }

    /// Wakes paused runs that were started here.
    async fn follow(&mut self, engine: &Arc<Engine>) -> Millis {
        let now = engine.now();
        let (due, next, rest) = {
            let registry = engine.registry();
            let followed = registry.followed();
            if followed.is_empty() {
                return Millis::MAX;
            }
            let due: Vec<RunId> = followed
                .iter()
                .filter(|(_, ready_at)| ready_at.is_some_and(|at| at <= now))
                .map(|(run_id, _)| run_id.clone())
                .take(CLAIM_MOST)
                .collect();
            let next = followed
                .values()
                .filter_map(|ready_at| *ready_at)
                .filter(|at| *at > now)
                .min();
            let from = self.follow_from.take();
            let rest: Vec<RunId> = followed
                .keys()
                .skip_while(|run_id| from.as_ref().is_some_and(|from| *run_id <= from))
                .take(FOLLOW_BATCH)
                .cloned()
                .collect();
            (due, next, rest)
        };
        for run_id in due {
            self.claim_one(engine, run_id).await;
        }
        if now >= self.next_follow {
            self.next_follow = now + FOLLOW_POLL;
            self.look_at(engine, rest).await;
        }
        next.unwrap_or(Millis::MAX).min(self.next_follow)
    }

    async fn claim_one(&mut self, engine: &Arc<Engine>, run_id: RunId) {
        let claim = Claim {
            run_id: Some(run_id.clone()),
            ..engine.claim_request(Due::Any, 1)
        };
        match engine.store.claim(claim).await {
            Ok(claimed) if claimed.runs.is_empty() => {
                // Someone else has it, or it is due later than was thought: look at it again.
                self.look_at(engine, vec![run_id]).await;
            }
            Ok(claimed) => {
                engine.take_up(claimed, None, None);
            }
            Err(error) => tracing::warn!(%error, "a run could not be claimed; trying again"),
        }
    }

    /// Learns from the store when followed runs are due, and which have ended elsewhere.
    async fn look_at(&mut self, engine: &Arc<Engine>, run_ids: Vec<RunId>) {
        self.follow_from = (run_ids.len() == FOLLOW_BATCH)
            .then(|| run_ids.last().cloned())
            .flatten();
        let Ok(details) = engine.store.get(run_ids.clone()).await else {
            return;
        };
        let mut registry = engine.registry();
        for (run_id, detail) in run_ids.into_iter().zip(details) {
            match detail {
                Some(detail)
                    if !detail.row.status.is_final() && registry.ticket_of(&run_id).is_none() =>
                {
                    registry.refollow(&run_id, detail.row.ready_at);
                }
                Some(detail) if !detail.row.status.is_final() => {}
                _ => registry.forget(&run_id),
            }
        }
    }
}

/// Renews the leases and drops the runs that someone else has taken.
async fn beat(engine: &Arc<Engine>) {
    if engine.host.blocked_for() > engine.config.lease {
        // The host has not moved for a whole lease. Its runs are better off elsewhere.
        tracing::warn!(
            "the event loop has been blocked for longer than a lease; leases are not renewed"
        );
        return;
    }
    let believed = engine.registry().held();
    let beat = Heartbeat {
        owner: engine.config.owner.clone(),
        lease: engine.config.lease,
        now: engine.env.explicit_now(),
    };
    engine.counters.heartbeats.fetch_add(1, Ordering::Relaxed);
    match engine.store.heartbeat(beat).await {
        Ok(beat) => {
            engine.learn_clock(beat.now);
            let held: std::collections::BTreeSet<_> = beat.held.into_iter().collect();
            let lost: Vec<_> = believed
                .into_iter()
                .filter(|(_, run_id, epoch)| !held.contains(&(run_id.clone(), *epoch)))
                .map(|(ticket, _, epoch)| HostEvent::Lost {
                    ticket,
                    epoch,
                    error: None,
                })
                .collect();
            engine.host.push_all(lost);
        }
        Err(error) => tracing::warn!(%error, "leases could not be renewed; trying again"),
    }
}
