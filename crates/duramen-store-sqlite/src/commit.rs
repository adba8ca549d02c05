//! Run commits: one fenced update, then what belongs to it. No read before the write.

use duramen_core::check;
use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_core::store::{CommitOutcome, Next, RunCommit};
use duramen_store_sql::lists;
use rusqlite::{OptionalExtension, params};

use crate::error::Fault;
use crate::row::signed;
use crate::session::Session;

impl Session<'_> {
    pub(crate) fn commit(&mut self, batch: &[RunCommit]) -> Result<Vec<CommitOutcome>, Fault> {
        batch.iter().map(|commit| self.commit_one(commit)).collect()
    }

    fn commit_one(&mut self, commit: &RunCommit) -> Result<CommitOutcome, Fault> {
        if let Some(reason) = check::commit(commit) {
            return Ok(CommitOutcome::Rejected { reason });
        }
        let Some(due) = self.advance(commit)? else {
            return Ok(CommitOutcome::Fenced);
        };
        self.append(&commit.run_id, commit.expected_len, &commit.entries)?;
        for read in &commit.read {
            let seq = signed(read.seq)?;
            match &read.refused {
                None => self.consume.execute(params![&*commit.run_id, seq])?,
                Some(reason) => {
                    let args = params![&*commit.run_id, seq, reason];
                    self.set_aside.execute(args)?
                }
            };
        }
        if let Some(state) = &commit.state {
            self.put_state.execute(params![&*commit.run_id, &**state])?;
        }
        Ok(CommitOutcome::Applied { due })
    }

    /// The update of the row: none if the fence refuses it, else whether the run is due at once.
    fn advance(&mut self, commit: &RunCommit) -> Result<Option<bool>, Fault> {
        let run_id = &*commit.run_id;
        let before = signed(commit.expected_len)?;
        let after = signed(commit.expected_len + commit.entries.len() as u64)?;
        // A number that no inbox reaches means "all"; the statement bounds it by what has arrived.
        let seen = i64::try_from(commit.inbox_seen).unwrap_or(i64::MAX);
        let RunCommit {
            owner, epoch, at, ..
        } = commit;
        let mut end = |status: Status, finished_at: Option<Millis>, note: Option<&str>| {
            self.finish.execute(params![
                run_id,
                owner,
                epoch,
                before,
                after,
                seen,
                at,
                status.code(),
                finished_at,
                note,
            ])
        };
        let changed = match &commit.next {
            Next::Finished { status } => end(*status, Some(*at), None)?,
            Next::Stuck { note } => end(Status::Stuck, None, Some(note))?,
            Next::Running => self
                .keep
                .execute(params![run_id, owner, epoch, before, after, seen, at])?,
            Next::Waiting { ready_at, waits } => {
                let waits = lists::enclose(waits);
                let args = params![
                    run_id, owner, epoch, before, after, seen, at, ready_at, waits
                ];
                return Ok(self.wait.query_row(args, |row| row.get(0)).optional()?);
            }
        };
        Ok((changed > 0).then_some(false))
    }
}
