//! Leases: claims and their renewal.

use std::collections::HashSet;

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::lines;
use duramen_core::run::Status;
use duramen_core::store::{Beat, Claim, Claimed, ClaimedRun, Heartbeat, Message};
use duramen_store_sql::{Columns, ENTRY_COLUMNS, entry, run_row, unreadable};
use rusqlite::{Statement, params};

use crate::clock::instant;
use crate::error::Fault;
use crate::inbox::messages;
use crate::row::Reader;
use crate::session::Session;
use crate::sql;

impl Session<'_> {
    pub(crate) fn claim(&mut self, claim: &Claim) -> Result<Claimed, Fault> {
        let now = instant(claim.now);
        let due = match &claim.run_id {
            Some(run_id) => self.due_alone(claim, run_id, now)?,
            None => self.due(claim, now)?,
        };
        let warm: HashSet<(&str, u64)> = claim.warm.iter().map(|(id, len)| (&**id, *len)).collect();
        let mut budget = Budget {
            most: claim.max_bytes,
            used: 0,
        };
        let mut runs = Vec::with_capacity(due.len().min(claim.limit as usize));
        let mut more = false;
        for run_id in due {
            if runs.len() >= claim.limit as usize {
                more = true;
                break;
            }
            match self.load_claimed(&run_id, &warm, runs.is_empty(), &mut budget) {
                Ok(Loaded::Run(mut run)) => {
                    self.take(&mut run, claim, now)?;
                    runs.push(*run);
                }
                Ok(Loaded::Gone) => {}
                Ok(Loaded::TooMuch) => {
                    more = true;
                    break;
                }
                Err(Fault::Damaged(what)) => self.park(&run_id, now, &what)?,
                Err(fault) => return Err(fault),
            }
        }
        Ok(Claimed { now, runs, more })
    }

    /// Due runs in the order in which they are to be taken; of each line one more than asked for, so
    /// that the claim knows whether any are left.
    fn due(&mut self, claim: &Claim, now: Millis) -> Result<Vec<RunId>, Fault> {
        let mut lines = Vec::new();
        for line in lines::in_turn(claim.due, &claim.workflows, claim.turn) {
            let key = line.workflow;
            let most = i64::from(claim.limit) + 1;
            let args = params![line.status.code(), key.name, key.version, now, most];
            let mut rows = self.due.query(args)?;
            let mut due = Vec::new();
            while let Some(found) = rows.next()? {
                due.push(Reader::at(found, 1).text("run_id")?.into());
            }
            lines.push(due);
        }
        Ok(lines::interleave(lines))
    }

    fn due_alone(
        &mut self,
        claim: &Claim,
        run_id: &RunId,
        now: Millis,
    ) -> Result<Vec<RunId>, Fault> {
        let mut rows = self.run.query([&**run_id])?;
        let Some(found) = rows
            .next()?
            .map(|row| run_row(&mut Reader::new(row)))
            .transpose()?
        else {
            return Ok(Vec::new());
        };
        let fits = claim.due.statuses().contains(&found.status)
            && claim
                .workflows
                .iter()
                .any(|key| key.name == found.workflow && key.version == found.version);
        Ok(found
            .ready_at
            .filter(|ready_at| fits && *ready_at <= now)
            .map(|_| found.run_id)
            .into_iter()
            .collect())
    }

    fn load_claimed(
        &mut self,
        run_id: &str,
        warm: &HashSet<(&str, u64)>,
        first: bool,
        budget: &mut Budget,
    ) -> Result<Loaded, Fault> {
        let mut rows = self.run.query([run_id])?;
        let Some(row) = rows
            .next()?
            .map(|row| run_row(&mut Reader::new(row)))
            .transpose()?
        else {
            return Ok(Loaded::Gone);
        };
        drop(rows);
        let journal = if warm.contains(&(run_id, row.journal_len)) {
            None
        } else {
            let most = budget.most.filter(|_| !first);
            let capacity = usize::try_from(row.journal_len).unwrap_or(0);
            match journal(&mut self.load, run_id, capacity, budget.used, most)? {
                Some((entries, used)) => {
                    budget.used = used;
                    Some(entries)
                }
                None => return Ok(Loaded::TooMuch),
            }
        };
        let inbox = self.inbox_of(run_id, row.inbox_len)?;
        Ok(Loaded::Run(Box::new(ClaimedRun {
            was: row.status,
            row,
            journal,
            inbox,
        })))
    }

    fn inbox_of(&mut self, run_id: &str, arrived: u64) -> Result<Vec<Message>, Fault> {
        if arrived == 0 {
            return Ok(Vec::new());
        }
        messages(&mut self.unread, run_id)
    }

    fn take(&mut self, run: &mut ClaimedRun, claim: &Claim, now: Millis) -> Result<(), Fault> {
        let row = &mut run.row;
        let until = now.saturating_add(claim.lease);
        let note = row.standing();
        let was = run.was.code();
        let args = params![&*row.run_id, claim.owner, now, until, was, note];
        if self.take.execute(args)? == 0 {
            // The row was read in this transaction, which nobody else can write in.
            return Err(Fault::Damaged(format!(
                "the run {:?} is in the index and not in the table",
                row.run_id
            )));
        }
        row.note = note;
        row.status = Status::Running;
        row.owner = Some(claim.owner.clone());
        row.epoch += 1;
        row.started_at.get_or_insert(now);
        row.updated_at = now;
        row.ready_at = Some(until);
        Ok(())
    }

    fn park(&mut self, run_id: &str, now: Millis, what: &str) -> Result<(), Fault> {
        self.connection
            .prepare_cached(sql::lease::PARK)?
            .execute(params![run_id, now, unreadable(what)])?;
        Ok(())
    }

    pub(crate) fn heartbeat(&mut self, beat: &Heartbeat) -> Result<Beat, Fault> {
        let now = instant(beat.now);
        let args = params![beat.owner, now.saturating_add(beat.lease)];
        let mut held: Vec<(RunId, i64)> = Vec::new();
        let mut rows = self.renew.query(args)?;
        while let Some(found) = rows.next()? {
            let mut found = Reader::new(found);
            held.push((found.text("run_id")?.into(), found.integer("epoch")?));
        }
        held.sort_unstable();
        Ok(Beat { now, held })
    }
}

/// A candidate, looked at closely.
enum Loaded {
    Run(Box<ClaimedRun>),
    Gone,
    /// Its journal does not fit into what is left of the budget.
    TooMuch,
}

/// How many payload bytes a claim may bring.
struct Budget {
    most: Option<u64>,
    used: u64,
}

/// A whole journal, and the bytes used with it; none as soon as these exceed `most`.
fn journal(
    load: &mut Statement<'_>,
    run_id: &str,
    capacity: usize,
    mut used: u64,
    most: Option<u64>,
) -> Result<Option<(Vec<Entry>, u64)>, Fault> {
    let mut rows = load.query(params![run_id, 0_i64, -1_i64])?;
    let mut entries = Vec::with_capacity(capacity.min(1 << 20));
    while let Some(found) = rows.next()? {
        used += Reader::at(found, ENTRY_COLUMNS - 1).bytes("payload")?.len() as u64;
        if most.is_some_and(|most| used > most) {
            return Ok(None);
        }
        entries.push(entry(&mut Reader::new(found))?);
    }
    Ok(Some((entries, used)))
}
