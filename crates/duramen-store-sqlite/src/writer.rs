//! The writer thread: everything that is queued becomes one transaction, and then its answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use duramen_core::store::{CommitOutcome, RunCommit, StoreError};
use rusqlite::Connection;

use crate::codes::Class;
use crate::error::Fault;
use crate::job::{CommitJob, Job};
use crate::log::Log;
use crate::open;
use crate::options::{Point, SqliteOptions};
use crate::place::Place;
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
    /// With which the connection is opened anew.
    pub(crate) options: SqliteOptions,
}

/// Why the writer stopped serving with its connection.
enum Stopped {
    /// The queue is closed and empty.
    Closed,
    /// The connection met trouble that it may not get over.
    Spoilt,
}

impl Writer {
    /// Serves the queue until it is closed and empty, then closes the connection, as the last one:
    /// SQLite brings the log into the file when the last connection closes, and two that close at
    /// the same moment may each take the other for the last.
    ///
    /// After trouble of the disk the connection is opened anew, when something is asked for; as long as that
    /// fails, all that is asked for fails with the reason.
    pub(crate) fn run(&self, connection: Connection, others_ended: &dyn Fn()) {
        let mut connection = Some(connection);
        let mut group = None;
        loop {
            let open = if let Some(open) = connection.take() {
                open
            } else {
                let Some(waiting) = self.next_group() else {
                    break;
                };
                match open::write_connection(&self.place, &self.options) {
                    Ok((open, _)) => {
                        group = Some(waiting);
                        open
                    }
                    Err(error) => {
                        fail(waiting, &error);
                        continue;
                    }
                }
            };
            match self.serve_caught(&open, group.take()) {
                Stopped::Closed => {
                    connection = Some(open);
                    break;
                }
                Stopped::Spoilt => self.close(open),
            }
        }
        others_ended();
        if let Some(connection) = connection {
            self.close(connection);
        }
    }

    fn close(&self, connection: Connection) {
        self.place.forget_beside();
        if let Err((_, error)) = connection.close() {
            tracing::warn!(file = %self.place.path().display(), %error, "closing failed");
        }
    }

    /// A panic costs the group it happened in; its replies answer with an error as they drop.
    fn serve_caught(
        &self,
        connection: &Connection,
        mut first: Option<Vec<Box<dyn Job>>>,
    ) -> Stopped {
        loop {
            let served = catch_unwind(AssertUnwindSafe(|| self.serve(connection, first.take())));
            if let Ok(stopped) = served {
                return stopped;
            }
            tracing::error!(file = %self.place.path().display(), "the SQLite writer panicked; it goes on");
            self.roll_back(connection);
        }
    }

    fn serve(&self, connection: &Connection, mut first: Option<Vec<Box<dyn Job>>>) -> Stopped {
        let mut session: Option<Session<'_>> = None;
        let mut log = Log::of(connection);
        while let Some(group) = first.take().or_else(|| self.next_group()) {
            if session.is_none() {
                match Session::new(connection) {
                    Ok(new) => session = Some(new),
                    Err(fault) => {
                        fail(group, &self.place.error(&fault));
                        if fault.spoils_the_connection() {
                            return Stopped::Spoilt;
                        }
                        continue;
                    }
                }
            }
            if let Some(session) = &mut session
                && self.settle(session, group)
            {
                tracing::warn!(file = %self.place.path().display(), "the SQLite writer met trouble; it opens anew");
                return Stopped::Spoilt;
            }
            log.bound(connection);
        }
        Stopped::Closed
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

    /// Runs a group and answers every job of it. True if the connection met trouble that it may not get
    /// over.
    fn settle(&self, session: &mut Session<'_>, mut group: Vec<Box<dyn Job>>) -> bool {
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
            Ok(()) => {
                for job in group {
                    answer(job, Ok(()));
                }
                false
            }
            // Alone each part would meet the same.
            Err(fault) if fault.class() == Class::Place && !fault.is_full() => {
                fail(group, &self.place.error(&fault));
                fault.spoils_the_connection()
            }
            Err(fault) => {
                tracing::debug!(
                    ?fault,
                    jobs = group.len(),
                    "a group failed; its jobs go one by one"
                );
                let mut spoilt = false;
                for job in group {
                    spoilt |= self.settle_alone(session, job);
                }
                spoilt
            }
        }
    }

    /// The slow path: one job in a transaction of its own, so that it fails alone.
    fn settle_alone(&self, session: &mut Session<'_>, mut job: Box<dyn Job>) -> bool {
        self.counters.retried.fetch_add(1, Relaxed);
        let outcome = self.transact(session, |session| job.run(session));
        let outcome = match outcome {
            Err(fault) if fault.class() != Class::Place => match job.commits() {
                Some(commits) => self.commit_apart(session, commits),
                None => Err(fault),
            },
            other => other,
        };
        let spoilt = outcome.as_ref().is_err_and(Fault::spoils_the_connection);
        answer(job, outcome.map_err(|fault| self.place.error(&fault)));
        spoilt
    }

    /// The slowest path: the run commits of one call, each in a transaction of its own.
    ///
    /// Trouble of the place fails the call as a whole, whatever was applied before: its caller looks where
    /// its runs stand and sends it again. A defect (a damaged page) is that of one run if others could be written,
    /// and that of the store if none could.
    fn commit_apart(&self, session: &mut Session<'_>, job: &mut CommitJob) -> Result<(), Fault> {
        let mut outcomes = Vec::with_capacity(job.batch().len());
        let mut applied = false;
        let mut defect: Option<Fault> = None;
        for commit in job.batch() {
            let outcome = match self.transact(session, |session| {
                session.commit(std::slice::from_ref::<RunCommit>(commit))
            }) {
                Ok(mut one) => one.pop().unwrap_or(CommitOutcome::Fenced),
                Err(fault) => {
                    let reason = self.place.error(&fault).to_string();
                    match fault.class() {
                        Class::Place => return Err(fault),
                        Class::Request => {}
                        Class::Defect => defect = Some(fault),
                    }
                    CommitOutcome::Rejected { reason }
                }
            };
            applied |= matches!(outcome, CommitOutcome::Applied { .. });
            outcomes.push(outcome);
        }
        match defect {
            Some(fault) if !applied => Err(fault),
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
        // A look at the names of the file and its log costs some microseconds; what is written to one that was
        // removed would be lost without a word.
        self.place.check()?;
        // What other processes write meanwhile is not known.
        session.lease = None;
        self.begin(session)?;
        let outcome = work(session).and_then(|value| {
            if let Some(code) = self.probe(Point::BeforeCommit) {
                return Err(Fault::of_code(code, "asked for by a test"));
            }
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
            if !fault.is_busy() || waited >= self.options.busy_timeout {
                return Err(fault);
            }
            std::thread::sleep(pause.min(self.options.busy_timeout.saturating_sub(waited)));
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

    fn probe(&self, point: Point) -> Option<i32> {
        self.options.probe.as_ref()?.call(point)
    }
}

/// Answers a whole group with one error.
fn fail(group: Vec<Box<dyn Job>>, error: &StoreError) {
    for job in group {
        answer(job, Err(error.clone()));
    }
}

/// Answers a job. Whoever waits runs inside the wake-up; a panic there must not cost the others
/// their answers.
fn answer(job: Box<dyn Job>, outcome: Result<(), StoreError>) {
    if catch_unwind(AssertUnwindSafe(|| job.finish(outcome))).is_err() {
        tracing::error!("a wake-up panicked on the SQLite writer thread");
    }
}
