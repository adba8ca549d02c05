//! Plans with less in them, for stories.

use super::{Plan, SlotPlan, Via, What};

impl Plan {
    /// Plans with less in them, the most daring first.
    pub fn smaller(&self) -> Vec<Self> {
        let mut out = Vec::new();
        for run in (0..self.runs.len()).filter(|_| self.runs.len() > 1) {
            out.push(self.without_run(run));
        }
        for slot in (0..self.slots.len()).filter(|_| self.slots.len() > 1) {
            out.push(self.without_slot(slot));
        }
        for at in 0..self.actions.len() {
            let is_creation = matches!(self.actions[at].what, What::Create { .. });
            if !is_creation {
                let mut plan = self.clone();
                plan.actions.remove(at);
                out.push(plan);
            }
        }
        for slot in 0..self.slots.len() {
            for at in 0..self.slots[slot].faults.len() {
                let mut plan = self.clone();
                plan.slots[slot].faults.remove(at);
                out.push(plan);
            }
        }
        for at in 0..self.disk.as_ref().map_or(0, Vec::len) {
            let mut plan = self.clone();
            if let Some(faults) = &mut plan.disk {
                faults.remove(at);
            }
            out.push(plan);
        }
        if !self.outages.is_empty() {
            out.push(Self {
                outages: Vec::new(),
                ..self.clone()
            });
        }
        if self.family {
            out.push(Self {
                family: false,
                ..self.clone()
            });
        }
        for slot in 0..self.slots.len() {
            for simpler in simpler_slot(&self.slots[slot]) {
                let mut plan = self.clone();
                plan.slots[slot] = simpler;
                out.push(plan);
            }
        }
        for run in 0..self.runs.len() {
            for program in self.runs[run].program.smaller() {
                let mut plan = self.clone();
                plan.runs[run].program = program;
                out.push(plan);
            }
            if self.runs[run].timeout.is_some() {
                let mut plan = self.clone();
                plan.runs[run].timeout = None;
                out.push(plan);
            }
        }
        out
    }

    fn without_run(&self, gone: usize) -> Self {
        let mut plan = self.clone();
        plan.runs.remove(gone);
        plan.actions.retain_mut(|action| {
            if let Some(run) = action.what.run_mut() {
                let mine = *run == gone;
                *run -= usize::from(*run > gone);
                return !mine;
            }
            true
        });
        plan
    }

    fn without_slot(&self, gone: usize) -> Self {
        let mut plan = self.clone();
        plan.slots.remove(gone);
        plan.actions.retain_mut(|action| match &mut action.what {
            What::Create { via, .. }
            | What::Send { via, .. }
            | What::Terminate { via, .. }
            | What::Delete { via, .. } => {
                if let Via::Slot(slot) = via {
                    if *slot == gone {
                        *via = Via::Slot(0);
                    } else {
                        *slot -= usize::from(*slot > gone);
                    }
                }
                true
            }
            What::Hold { .. } | What::SetStore { .. } => true,
            What::Retry { slot, .. }
            | What::SetClock { slot, .. }
            | What::Crash { slot, .. }
            | What::Stop { slot, .. }
            | What::Block { slot, .. }
            | What::Yield { slot }
            | What::Leave { slot, .. } => {
                let mine = *slot == gone;
                *slot -= usize::from(*slot > gone);
                !mine
            }
        });
        plan
    }
}

impl What {
    /// The run that it is about.
    const fn run_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::Create { run, .. }
            | Self::Send { run, .. }
            | Self::Terminate { run, .. }
            | Self::Retry { run, .. }
            | Self::Delete { run, .. }
            | Self::Hold { run, .. } => Some(run),
            _ => None,
        }
    }
}

fn simpler_slot(slot: &SlotPlan) -> Vec<SlotPlan> {
    let mut out = Vec::new();
    for (is, simple) in [
        (
            slot.skew != 0,
            SlotPlan {
                skew: 0,
                ..slot.clone()
            },
        ),
        (
            slot.newer,
            SlotPlan {
                newer: false,
                ..slot.clone()
            },
        ),
        (
            slot.named,
            SlotPlan {
                named: false,
                ..slot.clone()
            },
        ),
        (
            slot.lag != 0,
            SlotPlan {
                lag: 0,
                ..slot.clone()
            },
        ),
        (
            slot.latency != 0,
            SlotPlan {
                latency: 0,
                ..slot.clone()
            },
        ),
        (
            slot.warm != 0,
            SlotPlan {
                warm: 0,
                ..slot.clone()
            },
        ),
        (
            slot.hold != 0,
            SlotPlan {
                hold: 0,
                ..slot.clone()
            },
        ),
    ] {
        if is {
            out.push(simple);
        }
    }
    out
}
