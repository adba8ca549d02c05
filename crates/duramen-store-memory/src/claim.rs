//! Leases: who drives a run, and until when.

use duramen_core::ids::{Millis, RunId};
use duramen_core::lines::{self, Line};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    Beat, Claim, Claimed, ClaimedRun, Heartbeat, Message, NextDue, WorkflowKey,
};

use crate::state::{Fate, Run, State, instant};

impl State {
    pub(crate) fn claim(&mut self, claim: &Claim) -> Claimed {
        let now = instant(claim.now);
        // Within a line the earliest due first; runs due at the same instant by their ids.
        let due = lines::in_turn(claim.due, &claim.workflows, claim.turn)
            .into_iter()
            .map(|line| {
                let mut due: Vec<(Millis, RunId)> = self
                    .runs
                    .values()
                    .filter(|run| stands_in(line, &run.row))
                    .filter(|run| claim.run_id.as_ref().is_none_or(|id| *id == run.row.run_id))
                    .filter_map(|run| {
                        let at = run.row.ready_at.filter(|ready_at| *ready_at <= now)?;
                        Some((at, run.row.run_id.clone()))
                    })
                    .collect();
                due.sort();
                due
            })
            .collect();
        let due = lines::interleave(due);

        let mut runs = Vec::new();
        let mut more = false;
        let mut bytes = 0_u64;
        for (_, run_id) in due {
            if runs.len() >= claim.limit as usize {
                more = true;
                break;
            }
            let Some(run) = self.runs.get_mut(&run_id) else {
                continue;
            };
            let warm = claim
                .warm
                .iter()
                .any(|(id, len)| *id == run_id && *len == run.row.journal_len);
            if !warm {
                bytes += run.journal_bytes();
                if !runs.is_empty() && claim.max_bytes.is_some_and(|most| bytes > most) {
                    more = true;
                    break;
                }
            }
            runs.push(run.lease(claim, now, warm));
        }
        Claimed { now, runs, more }
    }

    pub(crate) fn heartbeat(&mut self, beat: &Heartbeat) -> Beat {
        let now = instant(beat.now);
        let mut held = Vec::new();
        for run in self.runs.values_mut() {
            if run.row.owner.as_deref() == Some(&*beat.owner) {
                run.row.ready_at = Some(now.saturating_add(beat.lease));
                held.push((run.row.run_id.clone(), run.row.epoch));
            }
        }
        Beat { now, held }
    }

    pub(crate) fn unread(&self, owner: &str) -> Vec<Message> {
        self.runs
            .values()
            .filter(|run| run.row.owner.as_deref() == Some(owner))
            .flat_map(|run| {
                run.unread()
                    .filter(|message| message.seq > run.row.inbox_seen)
            })
            .cloned()
            .collect()
    }

    pub(crate) fn next_due(&self, workflows: &[WorkflowKey]) -> NextDue {
        let ready_at = self
            .runs
            .values()
            .filter(|run| is_one_of(workflows, &run.row))
            .filter_map(|run| run.row.ready_at)
            .min();
        NextDue {
            now: instant(None),
            ready_at,
        }
    }
}

impl Run {
    fn lease(&mut self, claim: &Claim, now: Millis, warm: bool) -> ClaimedRun {
        let was = self.row.status;
        self.row.note = self.row.standing();
        self.row.status = Status::Running;
        self.row.owner = Some(claim.owner.clone());
        self.row.epoch += 1;
        self.row.started_at.get_or_insert(now);
        self.row.updated_at = now;
        self.row.ready_at = Some(now.saturating_add(claim.lease));
        ClaimedRun {
            row: self.row.clone(),
            was,
            journal: (!warm).then(|| self.journal.clone()),
            inbox: self.unread().cloned().collect(),
        }
    }

    fn unread(&self) -> impl Iterator<Item = &Message> {
        self.inbox
            .iter()
            .filter(|letter| letter.fate == Fate::Unread)
            .map(|letter| &letter.message)
    }

    fn journal_bytes(&self) -> u64 {
        self.journal
            .iter()
            .map(|entry| entry.payload.len() as u64)
            .sum()
    }
}

fn stands_in(line: Line<'_>, row: &RunRow) -> bool {
    row.status == line.status && is_one_of(std::slice::from_ref(line.workflow), row)
}

fn is_one_of(workflows: &[WorkflowKey], row: &RunRow) -> bool {
    workflows
        .iter()
        .any(|key| key.name == row.workflow && key.version == row.version)
}
