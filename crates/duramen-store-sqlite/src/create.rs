//! Creations: a row, journal entry 0, and a memo if there is one.

use duramen_core::ids::Millis;
use duramen_core::journal::{ENCODING, Kind};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Created, NewRun, Start};
use rusqlite::params;

use crate::clock::instant;
use crate::error::Fault;
use crate::row::{join, run_row};
use crate::session::Session;

impl Session<'_> {
    pub(crate) fn create(&mut self, batch: &[NewRun]) -> Result<Vec<Created>, Fault> {
        batch.iter().map(|new| self.create_one(new)).collect()
    }

    fn create_one(&mut self, new: &NewRun) -> Result<Created, Fault> {
        let row = first_row(new);
        let inserted = self.insert_run.execute(params![
            &*row.run_id,
            row.status.code(),
            row.epoch,
            row.ready_at,
            row.owner.as_deref(),
            row.created_at,
            row.started_at,
            row.deadline,
            row.workflow,
            row.version,
            join(&row.tags),
            &row.seed[..],
        ])?;
        if inserted == 0 {
            let mut rows = self.run.query([&*new.run_id])?;
            let row = rows.next()?.map(run_row).transpose()?.ok_or_else(|| {
                Fault::Damaged(format!("the run {:?} is there and is not", new.run_id))
            })?;
            return Ok(Created {
                created: false,
                row,
            });
        }
        self.insert_entry.execute(params![
            &*new.run_id,
            0_i64,
            ENCODING,
            Kind::RunCreated.code(),
            "",
            row.created_at,
            None::<&str>,
            &*new.input,
        ])?;
        if let Some(memo) = &new.memo {
            self.insert_memo.execute(params![&*new.run_id, &**memo])?;
        }
        Ok(Created { created: true, row })
    }
}

/// The row of a run that nobody has driven yet.
fn first_row(new: &NewRun) -> RunRow {
    let now = instant(new.now);
    let (status, owner, epoch, started_at, ready_at, origin): (_, _, _, _, Millis, Millis) =
        match &new.start {
            Start::Queued { at } => {
                let at = at.unwrap_or(now);
                (Status::Queued, None, 0, None, at, at)
            }
            Start::Leased { owner, lease } => (
                Status::Running,
                Some(owner.clone()),
                1,
                Some(now),
                now.saturating_add(*lease),
                now,
            ),
        };
    RunRow {
        run_id: new.run_id.clone(),
        workflow: new.workflow.clone(),
        version: new.version.clone(),
        status,
        created_at: now,
        started_at,
        updated_at: now,
        finished_at: None,
        ready_at: Some(ready_at),
        owner,
        epoch,
        journal_len: 1,
        inbox_len: 0,
        inbox_seen: 0,
        deadline: new.timeout.map(|timeout| origin.saturating_add(timeout)),
        waits: Vec::new(),
        tags: new.tags.clone(),
        seed: new.seed,
        note: None,
    }
}
