//! Answers that were lost: what they were about goes on soon after, without waiting for a lease.

use duramen_core::ids::Millis;
use duramen_core::run::Status;

use super::Sim;
use crate::host::Host;
use crate::net::LOSS;
use crate::oracles;
use crate::owners::base;
use crate::plan::Deed;
use crate::watch::{Lost, Watch};
use crate::world::{Event, Life};

/// The pause before a call is sent again, rounds of the host, and what else a call may have to wait for.
const SLACK: Millis = 250;

impl Sim {
    /// Answers that were lost just now are looked after when their runs should have gone on.
    pub(super) fn follow_up(&mut self) {
        for watch in self.judge.take_watches() {
            let Some(within) = self.patience(&watch) else {
                continue;
            };
            let number = self.watches.len();
            let at = watch.since + within;
            self.watches.push(watch);
            self.world.at(at, Event::Deed(Deed::Watch(number)));
        }
    }

    /// Within which time all should be well again, where that is much less than what would pass otherwise.
    fn patience(&self, watch: &Watch) -> Option<Millis> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.host == Some(watch.process))?;
        let plan = &slot.plan;
        // What was asked for in an idle time, an outage or under a stranger's lock may have lost its patience
        // over that, or pauses for longer between its tries.
        let well_since = self.world.well_since(watch.process).max(self.held_until);
        if well_since + plan.lease > watch.since {
            return None;
        }
        // There and back; a second time, where all is fenced; and the look that explains it.
        let ways = LOSS + 6 * plan.latency + 3 * plan.lag + SLACK;
        match &watch.lost {
            Lost::Nothing => None,
            Lost::Commits(_) => (ways < plan.lease).then_some(ways),
            // Where the ways are long, the caller may have been told already that it failed.
            Lost::Creation { .. } => (ways < plan.lease && plan.latency < 100).then_some(ways),
            // A pass of the audit and a second look.
            Lost::Claim => (6 * plan.latency < plan.lease).then_some(ways + 2 * plan.lease),
        }
    }

    pub(super) fn look_after(&mut self, number: usize) {
        let Some(watch) = self.watches.get(number).cloned() else {
            return;
        };
        let Some(host) = self.hosts.get(&watch.process) else {
            return;
        };
        let undisturbed = self.world.life(watch.process) == Life::Running
            && self.world.troubles(watch.process) == watch.troubles
            && host.blocked_until <= watch.since
            && self.held_until <= watch.since;
        if !undisturbed {
            return;
        }
        let found = match &watch.lost {
            Lost::Nothing => Ok(()),
            Lost::Commits(runs) => runs
                .iter()
                .filter(|(life, epoch)| host.drives(life) == Some(*epoch))
                .find(|(life, _)| host.heard_of(life).is_none_or(|heard| heard < watch.since))
                .map_or(Ok(()), |((run_id, _), _)| {
                    Err(format!(
                        "{run_id} waits still for the outcome of its commit"
                    ))
                }),
            Lost::Creation { .. } | Lost::Claim => self.nobodys(host, &watch),
        };
        let mut facts = self.judge.facts();
        facts.counts.watched += 1;
        let found = found.map_err(|what| {
            let after = self.world.now() - watch.since;
            format!(
                "{after} ms after an answer to p{} was lost {what}",
                watch.process
            )
        });
        facts.judge(oracles::PROMPT, found);
    }

    /// No run that the process has got by then is held and driven by nobody.
    fn nobodys(&self, host: &Host, watch: &Watch) -> Result<(), String> {
        let name = host.engine.owner();
        let runs: Vec<_> = {
            let facts = self.judge.facts();
            let present = facts.present.iter();
            present
                .map(|(run_id, seed)| (run_id.clone(), *seed))
                .collect()
        };
        for life in runs {
            if let Lost::Creation { run_id, seed } = &watch.lost
                && (*run_id != life.0 || *seed != life.1)
            {
                continue;
            }
            let Ok(Some(standing)) = self.judge.standing_of(&life.0) else {
                continue;
            };
            let mut facts = self.judge.facts();
            let run = facts.run(&life.0);
            if run.reopened {
                // Perhaps deleted, and created by the very call whose answer was lost: its epochs begin anew,
                // and what was let go in the former ones is left to the audit.
                continue;
            }
            let tenures = &run.tenures;
            let since = tenures.get(&standing.epoch).map(|tenure| tenure.since);
            let owned = standing.status == Status::Running
                && standing
                    .owner
                    .as_deref()
                    .is_some_and(|it| base(it) == base(&name))
                && since.is_some_and(|since| since <= watch.since + LOSS);
            if owned && host.drives(&life) != Some(standing.epoch) {
                return Err(format!("{} is held there and driven by nobody", life.0));
            }
        }
        Ok(())
    }
}
