//! Creations: a row, journal entry 0 and what the run brings of a journal, and a memo if there is one.

use duramen_core::ids::Millis;
use duramen_core::store::{Created, NewRun, Start};
use duramen_store_sql::{lists, run_row};
use rusqlite::params;

use crate::clock::instant;
use crate::error::Fault;
use crate::row::{Reader, signed};
use crate::session::Session;

impl Session<'_> {
    pub(crate) fn create(&mut self, batch: &[NewRun]) -> Result<Vec<Created>, Fault> {
        batch.iter().map(|new| self.create_one(new)).collect()
    }

    fn create_one(&mut self, new: &NewRun) -> Result<Created, Fault> {
        let now = instant(new.now);
        let row = match &new.start {
            Start::Leased { owner } if !self.is_live(owner, now)? => {
                new.left_to_others().first_row(now)
            }
            Start::Leased { .. } | Start::Queued { .. } => new.first_row(now),
        };
        let inserted = self.insert_run.execute(params![
            &*row.run_id,
            row.status.code(),
            row.epoch,
            row.format,
            row.priority,
            signed(row.journal_len)?,
            row.ready_at,
            row.created_at,
            row.started_at,
            row.timeout,
            row.deadline,
            row.owner.as_deref(),
            row.queue,
            row.workflow,
            row.version,
            lists::enclose(&row.tags),
            &row.seed[..],
            row.parent.as_deref(),
            row.root.as_deref(),
            row.origin.as_deref(),
            row.lane().key(),
        ])?;
        if inserted == 0 {
            let mut rows = self.run.query([&*new.run_id])?;
            let row = rows
                .next()?
                .map(|row| run_row(&mut Reader::new(row)))
                .transpose()?
                .ok_or_else(|| {
                    Fault::Damaged(format!("the run {:?} is there and is not", new.run_id))
                })?;
            return Ok(Created::Exists { row });
        }
        self.append(&new.run_id, 0, std::slice::from_ref(&new.first_entry(now)))?;
        self.append(&new.run_id, 1, &new.entries)?;
        if let Some(memo) = &new.memo {
            self.insert_memo.execute(params![&*new.run_id, &**memo])?;
        }
        Ok(Created::Created { row })
    }

    /// Whether an owner has a lease that lasts.
    pub(crate) fn is_live(&mut self, owner: &str, now: Millis) -> Result<bool, Fault> {
        Ok(self.is_live.exists(params![owner, now])?)
    }
}
