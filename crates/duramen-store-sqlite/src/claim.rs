//! Claims: who drives a run.
//!
//! The budget of a claim that finds nothing: two statements about owners, one descent for each owner that holds
//! runs (there are as many as processes), and two descents for each line and priority in use, one for an
//! empty line. Nothing is written, so nothing is synced. Each run that is taken adds its row, its journal,
//! a page of its inbox if it has any, and one `UPDATE`. No statement walks over runs that are not due.

use std::collections::HashSet;

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::lanes::{self, Line};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Claim, Claimed, ClaimedRun, INBOX_PAGE_BYTES, InboxPage};
use duramen_store_sql::{Columns, ENTRY_COLUMNS, entry, run_row, unreadable, whole};
use rusqlite::{Statement, params};

use crate::clock::instant;
use crate::error::Fault;
use crate::inbox::page;
use crate::owners::holders;
use crate::row::{Reader, signed};
use crate::session::Session;
use crate::sql;

impl Session<'_> {
    pub(crate) fn claim(&mut self, claim: &Claim) -> Result<Claimed, Fault> {
        let now = instant(claim.now);
        let mut claimed = Claimed {
            now,
            runs: Vec::new(),
            more: false,
            lapsed: false,
        };
        if !self.is_live(&claim.owner, now)? {
            claimed.lapsed = true;
            return Ok(claimed);
        }
        if self.end_the_lapsed.execute([now])? > 0 {
            self.lease = None;
        }
        let due = match &claim.run_id {
            Some(run_id) => self.due_alone(claim, run_id, now)?,
            None => self.due(claim, now)?,
        };
        let warm: HashSet<(&str, u64)> = claim.warm.iter().map(|(id, len)| (&**id, *len)).collect();
        let mut budget = Budget {
            most: claim.max_bytes,
            used: 0,
        };
        for run_id in due {
            if claimed.runs.len() >= claim.limit as usize {
                claimed.more = true;
                break;
            }
            match self.load_claimed(&run_id, &warm, claimed.runs.is_empty(), &mut budget) {
                Ok(Loaded::Run(mut run)) => {
                    self.take(&mut run, claim, now)?;
                    claimed.runs.push(*run);
                }
                Ok(Loaded::Gone) => {}
                Ok(Loaded::TooMuch) => {
                    claimed.more = true;
                    break;
                }
                Err(Fault::Damaged(what)) => self.park(&run_id, now, &what)?,
                Err(fault) => return Err(fault),
            }
        }
        Ok(claimed)
    }

    /// Due runs in the order in which they are to be taken; of each line one more than asked for, so
    /// that the claim knows whether any are left.
    fn due(&mut self, claim: &Claim, now: Millis) -> Result<Vec<RunId>, Fault> {
        let ended = if claim.due.statuses().contains(&Status::Running) {
            self.ended_holders(now)?
        } else {
            Vec::new()
        };
        let most = claim.limit as usize + 1;
        let lines = lanes::in_turn(claim.due, &claim.lanes, claim.turn)
            .into_iter()
            .map(|line| match line.status {
                Status::Running => self.lost(line, &ended, most),
                _ => self.ready(line, now, most),
            })
            .collect::<Result<_, Fault>>()?;
        Ok(lanes::interleave(lines))
    }

    /// Owners that hold runs and have ended, or stand in no row.
    fn ended_holders(&mut self, now: Millis) -> Result<Vec<String>, Fault> {
        let mut ended = Vec::new();
        for holder in holders(&mut self.next_holder)? {
            if !self.is_live(&holder, now)? {
                ended.push(holder);
            }
        }
        Ok(ended)
    }

    /// Runs of a lane whose owners have ended, by their ids.
    fn lost(&mut self, line: Line<'_>, ended: &[String], most: usize) -> Result<Vec<RunId>, Fault> {
        let mut lost = Vec::new();
        for owner in ended {
            let mut rows = self.owned.query(params![owner, line.lane, count(most)])?;
            while let Some(found) = rows.next()? {
                lost.push(Reader::new(found).text("run_id")?.into());
            }
        }
        lost.sort_unstable();
        lost.truncate(most);
        Ok(lost)
    }

    /// Due runs of a line, the lower priority first: from each priority that the line has to the next.
    pub(crate) fn ready(
        &mut self,
        line: Line<'_>,
        now: Millis,
        most: usize,
    ) -> Result<Vec<RunId>, Fault> {
        let status = line.status.code();
        let mut ready: Vec<RunId> = Vec::new();
        let mut priority = -1_i64;
        while ready.len() < most {
            let args = params![status, line.lane, priority];
            let Some(next) = self.next_priority.query_row(args, |row| row.get(0))? else {
                break;
            };
            priority = next;
            let left = count(most - ready.len());
            let args = params![status, line.lane, priority, now, left];
            let mut rows = self.due.query(args)?;
            while let Some(found) = rows.next()? {
                ready.push(Reader::new(found).text("run_id")?.into());
            }
        }
        Ok(ready)
    }

    fn due_alone(
        &mut self,
        claim: &Claim,
        run_id: &RunId,
        now: Millis,
    ) -> Result<Vec<RunId>, Fault> {
        let Some(row) = self.row(run_id)? else {
            return Ok(Vec::new());
        };
        let served =
            claim.due.statuses().contains(&row.status) && claim.lanes.contains(&row.lane().key());
        let due = match &row.owner {
            Some(owner) => served && !self.is_live(owner, now)?,
            None => served && row.ready_at.is_some_and(|ready_at| ready_at <= now),
        };
        Ok(due.then_some(row.run_id).into_iter().collect())
    }

    fn row(&mut self, run_id: &str) -> Result<Option<RunRow>, Fault> {
        let mut rows = self.run.query([run_id])?;
        rows.next()?
            .map(|row| run_row(&mut Reader::new(row)))
            .transpose()
    }

    fn load_claimed(
        &mut self,
        run_id: &str,
        warm: &HashSet<(&str, u64)>,
        first: bool,
        budget: &mut Budget,
    ) -> Result<Loaded, Fault> {
        let Some(mut row) = self.row(run_id)? else {
            return Ok(Loaded::Gone);
        };
        if row.status == Status::Running {
            // Commits that only appended have left the row as it was.
            row.journal_len = self.length(run_id)?;
        }
        let most = budget.most.filter(|_| !first);
        budget.used += row.unread_bytes.min(INBOX_PAGE_BYTES as u64);
        if most.is_some_and(|most| budget.used > most) {
            return Ok(Loaded::TooMuch);
        }
        let journal = if warm.contains(&(run_id, row.journal_len)) {
            None
        } else {
            match journal(&mut self.load, &row, budget.used, most)? {
                Some((entries, used)) => {
                    budget.used = used;
                    Some(entries)
                }
                None => return Ok(Loaded::TooMuch),
            }
        };
        let inbox = if row.unread == 0 {
            InboxPage {
                messages: Vec::new(),
                more: false,
            }
        } else {
            page(&mut self.page, run_id, 0)?
        };
        Ok(Loaded::Run(Box::new(ClaimedRun {
            was: row.status,
            row,
            journal,
            inbox: inbox.messages,
            inbox_more: inbox.more,
        })))
    }

    fn take(&mut self, run: &mut ClaimedRun, claim: &Claim, now: Millis) -> Result<(), Fault> {
        let row = &mut run.row;
        if run.was == Status::Running {
            row.lose_driver(row.journal_len);
        }
        row.status = Status::Running;
        row.owner = Some(claim.owner.clone());
        row.epoch += 1;
        row.started_at.get_or_insert(now);
        row.updated_at = now;
        row.ready_at = None;
        let args = params![
            &*row.run_id,
            claim.owner,
            row.epoch,
            row.started_at,
            now,
            signed(row.journal_len)?,
            row.lost,
            signed(row.lost_at)?,
            run.was.code(),
        ];
        if self.take.execute(args)? == 0 {
            // The row was read in this transaction, which nobody else can write in.
            return Err(Fault::Damaged(format!(
                "the run {:?} is in the index and not in the table",
                row.run_id
            )));
        }
        Ok(())
    }

    fn park(&mut self, run_id: &str, now: Millis, what: &str) -> Result<(), Fault> {
        self.connection
            .prepare_cached(sql::claim::PARK)?
            .execute(params![run_id, now, unreadable(what)])?;
        Ok(())
    }
}

/// A candidate, looked at closely.
enum Loaded {
    Run(Box<ClaimedRun>),
    Gone,
    /// What comes with it does not fit into what is left of the budget.
    TooMuch,
}

/// How many payload bytes a claim may bring.
struct Budget {
    most: Option<u64>,
    used: u64,
}

/// A limit as SQLite takes it.
fn count(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// The journal of the present generation, and the bytes used with it; none as soon as these exceed `most`.
fn journal(
    load: &mut Statement<'_>,
    row: &RunRow,
    mut used: u64,
    most: Option<u64>,
) -> Result<Option<(Vec<Entry>, u64)>, Fault> {
    let mut rows = load.query(params![&*row.run_id, signed(row.journal_start)?, -1_i64])?;
    let expected = row.journal_len.saturating_sub(row.journal_start);
    let capacity = usize::try_from(expected).unwrap_or(0).min(1 << 20);
    let mut entries = Vec::with_capacity(capacity);
    while let Some(found) = rows.next()? {
        used += Reader::at(found, ENTRY_COLUMNS - 1).bytes("payload")?.len() as u64;
        if most.is_some_and(|most| used > most) {
            return Ok(None);
        }
        entries.push(entry(&mut Reader::new(found))?);
    }
    whole(row, &entries)?;
    Ok(Some((entries, used)))
}
