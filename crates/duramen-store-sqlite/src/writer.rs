//! The writer thread: everything that is queued becomes one transaction, and then its answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use duramen_core::store::{CommitOutcome, RunCommit, StoreError};
use rusqlite::Connection;

use crate::error::{Fault, Place};
use crate::job::{CommitJob, Job};
use crate::options::{Point, Probe};
use crate::queue::Queue;
use crate::session::Session;
use crate::sql;
use crate::stats::Counters;

/// The most elements of one transaction: past some thousands the commit's fixed cost is spread thin
/// enough, and the first in line should not wait for the last.
const MOST_ELEMENTS: usize = 4_096;

/// The most payload bytes of one transaction, for the same reason. One larger job goes alone.
const MOST_BYTES: usize = 32 << 20;

/// A transaction that took so long is worth a line in the log.
const SLOW: Duration = Duration::from_millis(250);

/// What the writer thread owns and shares.
pub(crate) struct Writer {
    pub(crate) queue: Arc<Queue<Box<dyn Job>>>,
    pub(crate) place: Place,
    pub(crate) counters: Arc<Counters>,
    pub(crate) busy_timeout: Duration,
    pub(crate) probe: Option<Probe>,
}

impl Writer {
    /// Serves the queue until it is closed and empty, then closes the connection, as the last one:
    /// SQLite brings the log into the file when the last connection closes, and two that close at
    /// the same moment may each take the other for the last.
    pub(crate) fn run(&self, connection: Connection, others_ended: &dyn Fn()) {
        // A panic costs the group it happened in; its replies answer with an error as they drop.
        while catch_unwind(AssertUnwindSafe(|| self.serve(&connection))).is_err() {
            tracing::error!(file = %self.place.path().display(), "the SQLite writer panicked; it goes on");
            self.roll_back(&connection);
        }
        others_ended();
        if let Err((_, error)) = connection.close() {
            tracing::warn!(file = %self.place.path().display(), %error, "closing failed");
        }
    }

    fn serve(&self, connection: &Connection) {
        let mut session: Option<Session<'_>> = None;
        while let Some(group) = self.next_group() {
            if session.is_none() {
                match Session::new(connection) {
                    Ok(new) => session = Some(new),
                    Err(fault) => {
                        let error = self.place.error(&fault);
                        for job in group {
                            answer(job, Err(error.clone()));
                        }
                        continue;
                    }
                }
            }
            if let Some(session) = &mut session {
                self.settle(session, group);
            }
        }
    }

    fn next_group(&self) -> Option<Vec<Box<dyn Job>>> {
        let mut elements = 0;
        let mut bytes = 0;
        self.queue.take(|job| {
            let (more_elements, more_bytes) = job.size();
            elements += more_elements;
            bytes += more_bytes;
            elements > MOST_ELEMENTS || bytes > MOST_BYTES
        })
    }

    /// Runs a group and answers every job of it.
    fn settle(&self, session: &mut Session<'_>, mut group: Vec<Box<dyn Job>>) {
        let started = Instant::now();
        let outcome = self.transact(session, |session| {
            group.iter_mut().try_for_each(|job| job.run(session))
        });
        let took = started.elapsed();
        if took > SLOW {
            tracing::debug!(
                file = %self.place.path().display(),
                jobs = group.len(),
                milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "slow SQLite transaction"
            );
        }
        match outcome {
            Ok(()) => group.into_iter().for_each(|job| answer(job, Ok(()))),
            Err(fault) if fault.is_of_the_place() => {
                let error = self.place.error(&fault);
                for job in group {
                    answer(job, Err(error.clone()));
                }
            }
            Err(fault) => {
                tracing::debug!(
                    ?fault,
                    jobs = group.len(),
                    "a group failed; its jobs go one by one"
                );
                for job in group {
                    self.settle_alone(session, job);
                }
            }
        }
    }

    /// The slow path: one job in a transaction of its own, so that it fails alone.
    fn settle_alone(&self, session: &mut Session<'_>, mut job: Box<dyn Job>) {
        self.counters.retried.fetch_add(1, Relaxed);
        let outcome = self.transact(session, |session| job.run(session));
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(fault) => match job.commits() {
                Some(commits) if !fault.is_of_the_place() => self.commit_apart(session, commits),
                _ => Err(self.place.error(&fault)),
            },
        };
        answer(job, outcome);
    }

    /// The slowest path: the run commits of one call, each in a transaction of its own.
    ///
    /// If nothing could be applied and the cause is not in the commits (a full disk), the call
    /// fails as a whole and may be repeated. Otherwise each commit gets its own answer.
    fn commit_apart(
        &self,
        session: &mut Session<'_>,
        job: &mut CommitJob,
    ) -> Result<(), StoreError> {
        let mut outcomes = Vec::with_capacity(job.batch().len());
        let mut applied = false;
        let mut outside: Option<StoreError> = None;
        for commit in job.batch() {
            let outcome = match self.transact(session, |session| {
                session.commit(std::slice::from_ref::<RunCommit>(commit))
            }) {
                Ok(mut one) => one.pop().unwrap_or(CommitOutcome::Fenced),
                Err(fault) => {
                    let error = self.place.error(&fault);
                    let reason = error.to_string();
                    if !fault.is_of_the_request() {
                        outside = Some(error);
                    }
                    CommitOutcome::Rejected { reason }
                }
            };
            applied |= matches!(outcome, CommitOutcome::Applied { .. });
            outcomes.push(outcome);
        }
        match outside {
            Some(error) if !applied => Err(error),
            _ => {
                job.answer(outcomes);
                Ok(())
            }
        }
    }

    /// `BEGIN IMMEDIATE`, the work, `COMMIT`; whatever fails, nothing of it remains.
    fn transact<T>(
        &self,
        session: &mut Session<'_>,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.begin(session)?;
        let outcome = work(session).and_then(|value| {
            self.probe(Point::BeforeCommit);
            session.end.execute([])?;
            Ok(value)
        });
        if outcome.is_err() {
            self.roll_back(session.connection);
        } else {
            self.counters.transactions.fetch_add(1, Relaxed);
            self.probe(Point::AfterCommit);
        }
        outcome
    }

    /// Takes the write lock. SQLite's own busy handler begins by sleeping a millisecond and more,
    /// which is many transactions long here; this one asks again after a fraction of one.
    fn begin(&self, session: &mut Session<'_>) -> Result<(), Fault> {
        let mut pause = Duration::from_micros(50);
        let mut since: Option<Instant> = None;
        loop {
            let fault = match session.begin.execute([]) {
                Ok(_) => return Ok(()),
                Err(error) => Fault::from(error),
            };
            if !session.connection.is_autocommit() {
                // Left open by work that failed in a way that could not be rolled back then.
                self.roll_back(session.connection);
            }
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            if !fault.is_busy() || waited >= self.busy_timeout {
                return Err(fault);
            }
            std::thread::sleep(pause.min(self.busy_timeout.saturating_sub(waited)));
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }

    fn roll_back(&self, connection: &Connection) {
        // Some errors make SQLite roll back by itself; then there is nothing to undo.
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch(sql::ROLLBACK)
        {
            tracing::warn!(file = %self.place.path().display(), %error, "rolling back failed");
        }
    }

    fn probe(&self, point: Point) {
        if let Some(probe) = &self.probe {
            probe.call(point);
        }
    }
}

/// Answers a job. Whoever waits runs inside the wake-up; a panic there must not cost the others
/// their answers.
fn answer(job: Box<dyn Job>, outcome: Result<(), StoreError>) {
    if catch_unwind(AssertUnwindSafe(|| job.finish(outcome))).is_err() {
        tracing::error!("a wake-up panicked on the SQLite writer thread");
    }
}
