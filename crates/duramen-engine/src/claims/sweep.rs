//! One bounded pass: recoveries, due timers and messages, queued runs; then they are driven
//! together, within a count, a time and a memory budget.

use std::sync::Arc;

use duramen_core::ids::Millis;
use duramen_core::store::{Claim, Due, StoreError};

use super::group::Group;
use super::intake::Intake;
use crate::common::Common;
use crate::env::{Moment, span};
use crate::host::{HostEvent, SweepReport, Token};

/// What a sweep may use.
#[derive(Debug, Clone, Copy)]
pub struct SweepOptions {
    /// The most runs in all.
    pub limit: usize,
    pub max_recovered: usize,
    pub max_timers: usize,
    pub max_queued: usize,
    /// When the pass must be over, by the engine's clock as it stands now: a clock that is set later
    /// makes the pass neither longer nor shorter.
    pub deadline: Option<Millis>,
    /// With less than this left, nothing fresh is started.
    pub min_remaining: Millis,
    /// An explicit instant for every decision, given by a test.
    pub now: Option<Millis>,
    /// The most payload bytes of journals in one claim.
    pub max_bytes: Option<u64>,
}

const CLASSES: [Due; 3] = [Due::Recovery, Due::Wake, Due::Queued];

/// A pass under way.
pub(super) struct Sweep {
    common: Arc<Common>,
    intake: Arc<Intake>,
    group: Arc<Group>,
    options: SweepOptions,
    /// When it must be over.
    end: Moment,
    report: SweepReport,
}

impl Sweep {
    pub(super) fn new(
        common: Arc<Common>,
        intake: Arc<Intake>,
        token: Token,
        options: SweepOptions,
    ) -> Self {
        let end = options.deadline.map(|at| common.clock.moment_of(at));
        Self {
            common,
            intake,
            group: Arc::new(Group::new(token)),
            options,
            end: end.unwrap_or(Moment::NEVER),
            report: SweepReport::default(),
        }
    }

    pub(super) async fn run(mut self) -> Result<SweepReport, StoreError> {
        let claimed = self.claim().await;
        // If a claim failed, those that were taken are driven to their rest all the same.
        self.wait().await;
        claimed?;
        self.group.report(&mut self.report);
        Ok(self.report)
    }

    async fn claim(&mut self) -> Result<(), StoreError> {
        let options = self.options;
        let mut left = options.limit;
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
                self.report.more = true;
                continue;
            }
            if self.time_left() <= options.min_remaining {
                self.report.deadline_reached = true;
                self.report.more = true;
                break;
            }
            self.group.begins(class);
            let claim = || {
                let claim = self.intake.claim(CLASSES[class], limit);
                Claim {
                    now: options.now.or(claim.now),
                    // Sweeps come from processes that remember no turn: chance decides.
                    turn: u64::try_from(self.common.clock.now()).unwrap_or(0),
                    max_bytes: options.max_bytes.or(claim.max_bytes),
                    ..claim
                }
            };
            let wish = self.intake.wish();
            let under_way = self.common.pending.begin();
            let claimed = self.intake.ask(claim).await?;
            self.report.more |= claimed.more;
            let found = claimed.runs.len();
            left = left.saturating_sub(found);
            let taken = self
                .intake
                .take_up(claimed, wish, Some(&self.group), options.now);
            drop(under_way);
            self.report.more |= taken.len() < found;
        }
        Ok(())
    }

    fn time_left(&self) -> Millis {
        self.end.since(self.common.clock.moment())
    }

    /// Waits until every run of the sweep has left its hands. When the budget runs short they are
    /// told to start nothing fresh; at the deadline the sweep ends with or without them.
    async fn wait(&mut self) {
        let mut told = false;
        loop {
            let tickets = self.group.pending();
            if tickets.is_empty() {
                return;
            }
            let left = self.time_left();
            if left <= 0 {
                self.report.deadline_reached = true;
                self.report.more = true;
                return;
            }
            if left <= self.options.min_remaining && !told {
                told = true;
                self.report.deadline_reached = true;
                // What they do not begin now is due for the next.
                self.report.more = true;
                self.common.host.push_all(
                    tickets
                        .into_iter()
                        .map(|ticket| HostEvent::Yield { ticket }),
                );
            }
            let pause = if told {
                left
            } else {
                left - self.options.min_remaining
            };
            tokio::select! {
                biased; // the order is not left to chance: a simulation must be able to repeat it
                () = self.group.changed.notified() => {}
                () = self.common.env.sleep(span(pause.clamp(1, 60_000))) => {}
            }
        }
    }
}
