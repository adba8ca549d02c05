//! Claims: who drives a run.

use duramen_core::ids::{Millis, RunId};
use duramen_core::lanes::{self, Line};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    Claim, Claimed, ClaimedRun, DueAsk, INBOX_PAGE, INBOX_PAGE_BYTES, InboxPage, Message, NextDue,
};

use crate::state::{Fate, Run, State, instant};

/// Where a run stands in its line.
type Place = (u8, Millis, RunId);

impl State {
    pub(crate) fn claim(&mut self, claim: &Claim) -> Claimed {
        let now = instant(claim.now);
        if !self.is_live(&claim.owner, now) {
            return Claimed {
                now,
                runs: Vec::new(),
                more: false,
                lapsed: true,
            };
        }
        self.end_the_lapsed(now);
        let due = lanes::in_turn(claim.due, &claim.lanes, claim.turn)
            .into_iter()
            .map(|line| {
                let mut due: Vec<Place> = self
                    .runs
                    .values()
                    .filter(|run| stands_in(line, &run.row))
                    .filter(|run| claim.run_id.as_ref().is_none_or(|id| *id == run.row.run_id))
                    .filter_map(|run| self.place(&run.row, now))
                    .collect();
                due.sort();
                due
            })
            .collect();
        let due = lanes::interleave(due);

        let mut runs = Vec::new();
        let mut more = false;
        let mut bytes = 0_u64;
        for (_, _, run_id) in due {
            if runs.len() >= claim.limit as usize {
                more = true;
                break;
            }
            let Some(run) = self.runs.get_mut(&run_id) else {
                continue;
            };
            let length = run.length();
            let warm = claim
                .warm
                .iter()
                .any(|(id, len)| *id == run_id && *len == length);
            bytes += run.row.unread_bytes.min(INBOX_PAGE_BYTES as u64);
            if !warm {
                bytes += run.journal_bytes();
            }
            if !runs.is_empty() && claim.max_bytes.is_some_and(|most| bytes > most) {
                more = true;
                break;
            }
            runs.push(run.lease(claim, now, warm));
        }
        Claimed {
            now,
            runs,
            more,
            lapsed: false,
        }
    }

    /// The place of a run that is due.
    fn place(&self, row: &RunRow, now: Millis) -> Option<Place> {
        let run_id = row.run_id.clone();
        if row.status == Status::Running {
            let ended = self.ends_at(row.owner.as_deref()?, now) <= now;
            return ended.then_some((0, 0, run_id));
        }
        let at = row.ready_at.filter(|ready_at| *ready_at <= now)?;
        Some((row.priority, at, run_id))
    }

    pub(crate) fn unread(&self, owner: &str, told: &[(RunId, u64)]) -> Vec<Message> {
        self.runs
            .values()
            .filter(|run| run.row.owner.as_deref() == Some(owner))
            .filter(|run| run.row.inbox_len > run.row.inbox_seen)
            .flat_map(|run| {
                let told = told.iter().find(|(run_id, _)| *run_id == run.row.run_id);
                let behind = told.map_or(0, |(_, seq)| *seq).max(run.row.inbox_seen);
                run.page(behind).messages
            })
            .collect()
    }

    pub(crate) fn inbox(&self, run_id: &RunId, behind: u64) -> InboxPage {
        self.runs.get(run_id).map_or_else(
            || InboxPage {
                messages: Vec::new(),
                more: false,
            },
            |run| run.page(behind),
        )
    }

    pub(crate) fn next_due(&self, ask: &DueAsk) -> NextDue {
        let now = instant(ask.now);
        let ready_at = self
            .runs
            .values()
            .filter(|run| run.row.status.is_live() && ask.lanes.contains(&run.row.lane().key()))
            .filter_map(|run| match &run.row.owner {
                Some(owner) => Some(self.ends_at(owner, now)),
                None => run.row.ready_at,
            })
            .min();
        NextDue { now, ready_at }
    }
}

impl Run {
    fn lease(&mut self, claim: &Claim, now: Millis, warm: bool) -> ClaimedRun {
        let was = self.row.status;
        self.row.journal_len = self.length();
        if was == Status::Running {
            self.row.lose_driver(self.row.journal_len);
        }
        self.row.status = Status::Running;
        self.row.owner = Some(claim.owner.clone());
        self.row.epoch += 1;
        self.row.started_at.get_or_insert(now);
        self.row.updated_at = now;
        self.row.ready_at = None;
        let page = self.page(0);
        ClaimedRun {
            row: self.row.clone(),
            was,
            journal: (!warm).then(|| self.journal.clone()),
            inbox: page.messages,
            inbox_more: page.more,
        }
    }

    /// Unread messages behind a number, as many as a page has.
    fn page(&self, behind: u64) -> InboxPage {
        let mut messages = Vec::new();
        let mut bytes = 0;
        for letter in &self.inbox {
            if letter.fate != Fate::Unread || letter.message.seq <= behind {
                continue;
            }
            bytes += letter.message.payload.len();
            if messages.len() == INBOX_PAGE || (bytes > INBOX_PAGE_BYTES && !messages.is_empty()) {
                return InboxPage {
                    messages,
                    more: true,
                };
            }
            messages.push(letter.message.clone());
        }
        InboxPage {
            messages,
            more: false,
        }
    }

    fn journal_bytes(&self) -> u64 {
        self.journal
            .iter()
            .map(|entry| entry.payload.len() as u64)
            .sum()
    }
}

fn stands_in(line: Line<'_>, row: &RunRow) -> bool {
    row.status == line.status && row.lane().key() == line.lane
}
