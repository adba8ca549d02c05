//! Creations: a row, journal entry 0 and what the run brings of a journal, and a memo and tags if there are any.
//!
//! The budget of one is two `INSERT`s; one that leases the run adds a look at its owner for each transaction. What
//! the runs of a batch have in common is bound once: a third of the work of that statement was binding.

use duramen_core::run::RunRow;
use duramen_core::store::{Created, NewRun, Start};
use duramen_store_sql::{lists, run_row};
use rusqlite::{Statement, params};

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
        if !self.insert(&row)? {
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
        for tag in &new.tags {
            let args = params![tag, row.created_at, &*new.run_id];
            self.insert_tag.execute(args)?;
        }
        Ok(Created::Created { row })
    }

    /// False if there is a run of that id.
    fn insert(&mut self, row: &RunRow) -> Result<bool, Fault> {
        // Until all is bound, nothing is known to be.
        let bound = match self.bound.take() {
            Some(bound) if bound.fits(row) => bound,
            _ => Bound::to(&mut self.insert_run, row)?,
        };
        let insert = &mut self.insert_run;
        insert.raw_bind_parameter(1, &*row.run_id)?;
        insert.raw_bind_parameter(6, signed(row.journal_len)?)?;
        insert.raw_bind_parameter(7, row.ready_at)?;
        insert.raw_bind_parameter(8, row.created_at)?;
        insert.raw_bind_parameter(9, row.started_at)?;
        insert.raw_bind_parameter(11, row.deadline)?;
        insert.raw_bind_parameter(17, &row.seed[..])?;
        let inserted = insert.raw_execute()?;
        self.bound = Some(bound);
        Ok(inserted > 0)
    }
}

/// The values of a row that the runs of a batch have in common.
#[derive(Debug)]
pub(crate) struct Bound(RunRow);

impl Bound {
    /// Binds them.
    fn to(insert: &mut Statement<'_>, row: &RunRow) -> Result<Self, Fault> {
        insert.raw_bind_parameter(2, row.status.code())?;
        insert.raw_bind_parameter(3, row.epoch)?;
        insert.raw_bind_parameter(4, row.format)?;
        insert.raw_bind_parameter(5, row.priority)?;
        insert.raw_bind_parameter(10, row.timeout)?;
        insert.raw_bind_parameter(12, row.owner.as_deref())?;
        insert.raw_bind_parameter(13, &row.queue)?;
        insert.raw_bind_parameter(14, &row.workflow)?;
        insert.raw_bind_parameter(15, &row.version)?;
        insert.raw_bind_parameter(16, lists::enclose(&row.tags))?;
        insert.raw_bind_parameter(18, row.parent.as_deref())?;
        insert.raw_bind_parameter(19, row.root.as_deref())?;
        insert.raw_bind_parameter(20, row.origin.as_deref())?;
        insert.raw_bind_parameter(21, row.lane().key())?;
        Ok(Self(row.clone()))
    }

    /// Whether another row has the same ones.
    fn fits(&self, row: &RunRow) -> bool {
        let Self(bound) = self;
        (bound.status, bound.epoch, bound.format, bound.priority)
            == (row.status, row.epoch, row.format, row.priority)
            && bound.timeout == row.timeout
            && bound.owner == row.owner
            && bound.queue == row.queue
            && bound.workflow == row.workflow
            && bound.version == row.version
            && bound.tags == row.tags
            && bound.parent == row.parent
            && bound.root == row.root
            && bound.origin == row.origin
    }
}

#[cfg(test)]
mod tests {
    use duramen_core::ids::Payload;
    use duramen_store_testing::{heartbeat, new_run};
    use rusqlite::Connection;

    use super::*;
    use crate::migrate;

    fn changes() -> [fn(&mut NewRun); 12] {
        [
            |_| {},
            |run| run.workflow = "x".to_owned(),
            |run| run.version = "2".to_owned(),
            |run| run.queue = "slow".to_owned(),
            |run| run.priority = 1,
            |run| run.timeout = Some(100),
            |run| run.tags = vec!["red".to_owned()],
            |run| run.parent = Some("p".into()),
            |run| run.root = Some("q".into()),
            |run| run.origin = Some("import".to_owned()),
            |run| {
                run.start = Start::Leased {
                    owner: "ann".to_owned(),
                }
            },
            |run| {
                run.start = Start::Leased {
                    owner: "bob".to_owned(),
                }
            },
        ]
    }

    #[test]
    fn each_run_of_a_batch_is_kept_with_its_own_values_whatever_the_others_have() {
        let connection = Connection::open_in_memory().unwrap();
        migrate::apply(&connection).unwrap();
        let mut session = Session::new(&connection).unwrap();
        for owner in ["ann", "bob"] {
            session
                .heartbeat(&heartbeat(owner, 1_000, Some(0)))
                .unwrap();
        }
        let mut batch = Vec::new();
        for (n, before) in changes().iter().enumerate() {
            for (m, change) in changes().iter().enumerate() {
                for (change, name) in [(before, "b"), (&changes()[0], "same"), (change, "c")] {
                    let mut run = new_run(&format!("{name}{n}-{m}"));
                    run.input = Payload::from(format!("{n}{m}"));
                    run.now = Some(i64::try_from(batch.len()).unwrap());
                    change(&mut run);
                    batch.push(run);
                }
            }
        }
        for (new, created) in batch.iter().zip(session.create(&batch).unwrap()) {
            let expected = new.first_row(new.now.unwrap());
            assert_eq!(created.row(), Some(&expected));
            let mut rows = session.run.query([&*new.run_id]).unwrap();
            let kept = run_row(&mut Reader::new(rows.next().unwrap().unwrap())).unwrap();
            assert_eq!(kept, expected);
            let lane = "SELECT lane FROM runs WHERE run_id = ?1";
            let lane: String = connection
                .query_row(lane, [&*new.run_id], |row| row.get(0))
                .unwrap();
            assert_eq!(lane, expected.lane().key());
        }
    }
}
