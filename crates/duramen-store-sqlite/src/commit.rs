//! Run commits: a fence that is read, then what is written under it.
//!
//! The budget of a commit that only appends is one `SELECT` (the row by its key, and one descent to the end of
//! its journal) and one `INSERT` for each entry: the run's row and its indexes are left alone, so the
//! log gets the journal's page and no other. One that ends a run has an `UPDATE` with the fence in it instead of
//! the `SELECT`. Others add one `UPDATE` of the row, and for each message that was read one `SELECT` of its length
//! and one `UPDATE`. The transaction holds the write lock from its beginning, so that what the fence has read
//! holds until it ends.

use duramen_core::check;
use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_core::store::{CommitOutcome, Next, Outgoing, ReadMessage, RunCommit, Unsent};
use duramen_store_sql::{Columns, lists};
use rusqlite::params;

use crate::error::Fault;
use crate::row::{Reader, signed};
use crate::session::Session;
use crate::sql;

/// What the fence has read.
struct Passed {
    inbox_len: u64,
    inbox_seen: u64,
    timeout: Option<Millis>,
}

/// How many messages were taken out of an inbox, and how long they were.
#[derive(Default)]
struct Taken {
    count: i64,
    bytes: i64,
}

impl Session<'_> {
    pub(crate) fn commit(&mut self, batch: &[RunCommit]) -> Result<Vec<CommitOutcome>, Fault> {
        batch.iter().map(|commit| self.commit_one(commit)).collect()
    }

    fn commit_one(&mut self, commit: &RunCommit) -> Result<CommitOutcome, Fault> {
        if let Some(reason) = check::commit(commit) {
            return Ok(CommitOutcome::Rejected { reason });
        }
        let passed = match &commit.next {
            Next::Finished { .. } | Next::Stuck { .. } if commit.read.is_empty() => {
                if !self.finish(commit)? {
                    return Ok(CommitOutcome::Fenced);
                }
                None
            }
            _ => match self.pass(commit)? {
                None => return Ok(CommitOutcome::Fenced),
                passed => passed,
            },
        };
        let run_id = &*commit.run_id;
        self.append(run_id, commit.expected_len, &commit.entries)?;
        if let Some(state) = &commit.state {
            self.put_state.execute(params![run_id, &**state])?;
        }
        if !commit.outgoing.is_empty() {
            let (run_id, place) = (&commit.run_id, commit.expected_len);
            self.send(run_id, place, commit.at, &commit.outgoing)?;
        }
        if !commit.written.is_empty() {
            self.write_items(run_id, &commit.written)?;
        }
        if let Some(format) = commit.format {
            self.raise(run_id, format)?;
        }
        let due = match passed {
            Some(passed) if !commit.only_appends() => self.rewrite(commit, &passed)?,
            _ => false,
        };
        Ok(CommitOutcome::Applied { due })
    }

    /// Ends or parks the run, if the fence lets it.
    fn finish(&mut self, commit: &RunCommit) -> Result<bool, Fault> {
        let (status, finished_at, note) = match &commit.next {
            Next::Finished { status } => (*status, Some(commit.at), None),
            Next::Stuck { note } => (Status::Stuck, None, Some(note)),
            Next::Running | Next::Waiting { .. } | Next::Paused { .. } | Next::Continued { .. } => {
                return Ok(false);
            }
        };
        // No journal reaches a length that SQLite cannot count to.
        let lengths = [commit.expected_len, commit.length_after()].map(i64::try_from);
        let [Ok(expected), Ok(after)] = lengths else {
            return Ok(false);
        };
        let seen = commit.inbox_seen.unwrap_or(0);
        let args = params![
            &*commit.run_id,
            commit.owner,
            commit.epoch,
            &commit.seed[..],
            expected,
            after,
            commit.at,
            // A number that no inbox reaches means "all"; the statement bounds it by what has arrived.
            i64::try_from(seen).unwrap_or(i64::MAX),
            status.code(),
            finished_at,
            note,
        ];
        Ok(self.finish.execute(args)? > 0)
    }

    /// None if the fence refuses the commit.
    fn pass(&mut self, commit: &RunCommit) -> Result<Option<Passed>, Fault> {
        // No journal reaches a length that SQLite cannot count to.
        let Ok(expected) = i64::try_from(commit.expected_len) else {
            return Ok(None);
        };
        let RunCommit {
            run_id,
            owner,
            epoch,
            seed,
            ..
        } = commit;
        let args = params![&**run_id, owner, epoch, &seed[..], expected];
        let mut rows = self.fence.query(args)?;
        let Some(mut found) = rows.next()?.map(Reader::new) else {
            return Ok(None);
        };
        Ok(Some(Passed {
            inbox_len: found.count("inbox_len")?,
            inbox_seen: found.count("inbox_seen")?,
            timeout: found.integer_or_null("timeout")?,
        }))
    }

    /// Keeps what leaves a run with its entry `entry`.
    pub(crate) fn send(
        &mut self,
        run_id: &str,
        entry: u64,
        at: Millis,
        outgoing: &[Outgoing],
    ) -> Result<(), Fault> {
        let mut insert = self.connection.prepare_cached(sql::outgoing::INSERT)?;
        let entry = signed(entry)?;
        for (number, item) in (0_u32..).zip(outgoing) {
            insert.execute(params![
                run_id,
                entry,
                number,
                item.kind.code(),
                &*item.target,
                at,
                &*item.body,
            ])?;
        }
        Ok(())
    }

    /// Takes items out that were carried out.
    pub(crate) fn sent(&mut self, items: &[Unsent]) -> Result<(), Fault> {
        let mut delete = self.connection.prepare_cached(sql::outgoing::SENT)?;
        for item in items {
            // What was kept has a number that SQLite can count to.
            if let Ok(entry) = i64::try_from(item.entry) {
                delete.execute(params![&*item.run_id, entry, item.number, item.at])?;
            }
        }
        Ok(())
    }

    /// Writes the run's row; true if the run is due at once.
    fn rewrite(&mut self, commit: &RunCommit, passed: &Passed) -> Result<bool, Fault> {
        let run_id = &*commit.run_id;
        let taken = self.read(run_id, &commit.read)?;
        let after = signed(commit.length_after())?;
        let at = commit.at;
        // A driver cannot have seen what has not arrived, nor forget what it has seen.
        let seen = commit.inbox_seen.unwrap_or(0).min(passed.inbox_len);
        let seen = seen.max(passed.inbox_seen);
        let seen_kept = signed(seen)?;
        let mut let_go = |status: Status,
                          ready_at: Option<Millis>,
                          waits: &str,
                          finished_at: Option<Millis>,
                          note: Option<&str>| {
            self.release.execute(params![
                run_id,
                after,
                at,
                seen_kept,
                taken.count,
                taken.bytes,
                status.code(),
                ready_at,
                waits,
                finished_at,
                note,
            ])
        };
        match &commit.next {
            Next::Running => {
                let args = params![run_id, after, at, seen_kept, taken.count, taken.bytes];
                self.keep.execute(args)?;
            }
            Next::Waiting { ready_at, waits } => {
                // Messages that its driver has not seen make it due at once.
                let due = passed.inbox_len > seen;
                let ready_at = if due { Some(at) } else { *ready_at };
                let_go(
                    Status::Waiting,
                    ready_at,
                    &lists::enclose(waits),
                    None,
                    None,
                )?;
                return Ok(due);
            }
            Next::Paused {
                ready_at,
                waits,
                note,
            } => {
                // What its driver has not seen may be what frees it.
                let due = passed.inbox_len > seen;
                let (status, ready_at, note) = if due {
                    (Status::Waiting, Some(at), None)
                } else {
                    (Status::Paused, *ready_at, Some(note.as_str()))
                };
                let_go(status, ready_at, &lists::enclose(waits), None, note)?;
                return Ok(due);
            }
            Next::Finished { status } => {
                let_go(*status, None, "", Some(at), None)?;
            }
            Next::Stuck { note } => {
                let_go(Status::Stuck, None, "", None, Some(note))?;
            }
            Next::Continued { ready_at, version } => {
                let_go(Status::Queued, Some(*ready_at), "", None, None)?;
                let deadline = passed.timeout.map(|most| ready_at.saturating_add(most));
                let start = after - 1;
                self.connection
                    .prepare_cached(sql::commit::CONTINUE)?
                    .execute(params![run_id, start, deadline, version])?;
                self.connection
                    .prepare_cached(sql::journal::FORGET)?
                    .execute(params![run_id, start])?;
            }
        }
        Ok(false)
    }

    /// Takes messages out of the inbox; one that is read already, or not there, counts nothing.
    fn read(&mut self, run_id: &str, read: &[ReadMessage]) -> Result<Taken, Fault> {
        let mut taken = Taken::default();
        for ReadMessage {
            seq,
            refused,
            reply,
        } in read
        {
            let Ok(seq) = i64::try_from(*seq) else {
                continue;
            };
            let mut rows = self.weight.query(params![run_id, seq])?;
            let Some(found) = rows.next()? else {
                continue;
            };
            taken.count += 1;
            taken.bytes += Reader::new(found).integer("payload")?;
            drop(rows);
            match refused {
                None => self
                    .consume
                    .execute(params![run_id, seq, reply.as_deref()])?,
                Some(reason) => self.set_aside.execute(params![run_id, seq, reason])?,
            };
        }
        Ok(taken)
    }
}
