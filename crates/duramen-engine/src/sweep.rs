//! One bounded pass: recoveries, due timers and messages, queued runs; then they are driven
//! together, within a count, a time and a memory budget.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::{Claim, Due, StoreError};
use tokio::sync::Notify;

use crate::driver::Driven;
use crate::engine::Engine;
use crate::env::span;
use crate::host::{HostEvent, Reply, Ticket, Token};

/// What a sweep may use.
#[derive(Debug, Clone, Copy)]
pub struct SweepOptions {
    /// The most runs in all.
    pub limit: usize,
    pub max_recovered: usize,
    pub max_timers: usize,
    pub max_queued: usize,
    /// When the pass must be over, by the engine's clock.
    pub deadline: Option<Millis>,
    /// With less than this left, nothing fresh is started.
    pub min_remaining: Millis,
    /// An explicit instant for every decision, given by a test.
    pub now: Option<Millis>,
    /// The most payload bytes of journals in one claim.
    pub max_bytes: Option<u64>,
}

/// What a sweep did, by class, in the order in which runs left its hands.
#[derive(Debug, Default, Clone)]
pub struct SweepReport {
    pub recovered: Vec<(RunId, &'static str)>,
    pub timers: Vec<(RunId, &'static str)>,
    pub queued: Vec<(RunId, &'static str)>,
    pub deadline_reached: bool,
    /// Whether more may be due.
    pub more: bool,
}

/// The runs that one sweep has taken up.
#[derive(Debug, Default)]
pub struct Group {
    state: Mutex<GroupState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct GroupState {
    class: usize,
    pending: BTreeMap<Ticket, (usize, RunId)>,
    done: [Vec<(RunId, &'static str)>; 3],
    /// A run left its hands and is due again.
    due: bool,
}

const CLASSES: [Due; 3] = [Due::Recovery, Due::Wake, Due::Queued];

impl Group {
    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn took(&self, ticket: Ticket, run_id: RunId) {
        let mut state = self.state();
        let class = state.class;
        state.pending.insert(ticket, (class, run_id));
    }

    /// It was claimed, and something else was decided than to drive it.
    pub(crate) fn settled(&self, run_id: RunId, driven: Driven) {
        let mut state = self.state();
        let class = state.class;
        state.done[class].push((run_id, driven.name()));
    }

    pub(crate) fn ended(&self, ticket: Ticket, driven: Driven, due: bool) {
        let mut state = self.state();
        state.due |= due;
        if let Some((class, run_id)) = state.pending.remove(&ticket) {
            state.done[class].push((run_id, driven.name()));
        }
        let empty = state.pending.is_empty();
        drop(state);
        if empty {
            self.changed.notify_one();
        }
    }
}

impl Engine {
    /// Runs a sweep in the background; the report comes as a reply.
    pub fn sweep(self: &Arc<Self>, token: Token, options: SweepOptions) {
        let engine = Arc::clone(self);
        self.env.spawn(Box::pin(async move {
            let reply = engine.sweep_once(options).await.map(Reply::Swept);
            engine.host.push(HostEvent::Reply { token, reply });
        }));
    }

    async fn sweep_once(
        self: &Arc<Self>,
        options: SweepOptions,
    ) -> Result<SweepReport, StoreError> {
        let group = Arc::new(Group::default());
        let mut report = SweepReport::default();
        let mut left = options.limit;
        let mut failed = None;
        for (class, most) in [
            options.max_recovered,
            options.max_timers,
            options.max_queued,
        ]
        .into_iter()
        .enumerate()
        {
            let limit = most.min(left);
            if limit == 0 {
                report.more = true;
                continue;
            }
            if self.time_left(options) <= options.min_remaining {
                report.deadline_reached = true;
                report.more = true;
                break;
            }
            group.state().class = class;
            let mut claim = self.claim_request(CLASSES[class], limit);
            claim = Claim {
                now: options.now.or(claim.now),
                // Sweeps come from processes that remember no turn: chance decides.
                turn: u64::try_from(self.now()).unwrap_or(0),
                max_bytes: options.max_bytes.or(claim.max_bytes),
                ..claim
            };
            let asked = self.asking();
            let under_way = self.pending.begin();
            let claimed = match self.store.claim(claim).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    // Those that were taken are driven to their rest all the same.
                    failed = Some(error);
                    break;
                }
            };
            report.more |= claimed.more;
            let found = claimed.runs.len();
            left = left.saturating_sub(found);
            let taken = self.take_up(claimed, asked, Some(&group), options.now);
            drop(under_way);
            report.more |= taken.len() < found;
        }
        self.wait_for(&group, options, &mut report).await;
        if let Some(error) = failed {
            return Err(error);
        }
        let mut state = group.state();
        report.more |= state.due;
        for (class, run_id) in std::mem::take(&mut state.pending).into_values() {
            state.done[class].push((run_id, "running"));
            report.more = true;
        }
        let [recovered, timers, queued] = std::mem::take(&mut state.done);
        drop(state);
        report.more |= recovered
            .iter()
            .chain(&timers)
            .chain(&queued)
            .any(|(_, kind)| *kind == Driven::Lost.name());
        report.recovered = recovered;
        report.timers = timers;
        report.queued = queued;
        Ok(report)
    }

    fn time_left(&self, options: SweepOptions) -> Millis {
        options
            .deadline
            .map_or(Millis::MAX, |deadline| deadline - self.now())
    }

    /// Waits until every run of the sweep has left its hands. When the budget runs short they are
    /// told to start nothing fresh; at the deadline the sweep ends with or without them.
    async fn wait_for(
        self: &Arc<Self>,
        group: &Arc<Group>,
        options: SweepOptions,
        report: &mut SweepReport,
    ) {
        let mut told = false;
        loop {
            let tickets: Vec<Ticket> = group.state().pending.keys().copied().collect();
            if tickets.is_empty() {
                return;
            }
            let left = self.time_left(options);
            if left <= 0 {
                report.deadline_reached = true;
                report.more = true;
                return;
            }
            if left <= options.min_remaining && !told {
                told = true;
                report.deadline_reached = true;
                // What they do not begin now is due for the next.
                report.more = true;
                self.host.push_all(
                    tickets
                        .into_iter()
                        .map(|ticket| HostEvent::Yield { ticket }),
                );
            }
            let pause = if told {
                left
            } else {
                left - options.min_remaining
            };
            tokio::select! {
                biased; // the order is not left to chance: a simulation must be able to repeat it
                () = group.changed.notified() => {}
                () = self.env.sleep(span(pause.clamp(1, 60_000))) => {}
            }
        }
    }
}
