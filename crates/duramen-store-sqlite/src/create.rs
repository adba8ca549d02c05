//! Creations: a row, journal entry 0, and a memo if there is one.

use duramen_core::journal::{ENCODING, Kind};
use duramen_core::store::{Created, NewRun};
use duramen_store_sql::{lists, run_row};
use rusqlite::params;

use crate::clock::instant;
use crate::error::Fault;
use crate::row::Reader;
use crate::session::Session;

impl Session<'_> {
    pub(crate) fn create(&mut self, batch: &[NewRun]) -> Result<Vec<Created>, Fault> {
        batch.iter().map(|new| self.create_one(new)).collect()
    }

    fn create_one(&mut self, new: &NewRun) -> Result<Created, Fault> {
        let row = new.first_row(instant(new.now));
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
            lists::enclose(&row.tags),
            &row.seed[..],
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
            return Ok(Created {
                created: false,
                row,
            });
        }
        self.insert_entry.execute(params![
            &*new.run_id,
            0_i64,
            row.created_at,
            ENCODING,
            Kind::RunCreated.code(),
            "",
            None::<&str>,
            &*new.input,
        ])?;
        if let Some(memo) = &new.memo {
            self.insert_memo.execute(params![&*new.run_id, &**memo])?;
        }
        Ok(Created { created: true, row })
    }
}
