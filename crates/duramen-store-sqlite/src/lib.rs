//! A Duramen store in a SQLite file.
//!
//! One writer thread owns the write connection. What is asked for while a transaction is being made
//! durable is gathered and becomes the next one: no artificial delay, one sync for all of it.
//! Queries run beside it on a few reader threads. Several stores, also of several processes, may
//! work on one file.

// "SQLite" is a name here, not a piece of code.
#![allow(clippy::doc_markdown)]

mod census;
mod claim;
mod clock;
mod codes;
mod commit;
mod create;
mod error;
mod inbox;
mod intervene;
mod job;
mod lists;
mod log;
mod migrate;
mod oneshot;
mod open;
mod options;
mod outside;
mod owners;
mod place;
#[cfg(test)]
mod plans;
mod query;
mod queue;
mod reader;
mod row;
mod schedules;
mod session;
mod sql;
mod stats;
mod streams;
mod threads;
mod writer;

use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use duramen_core::check;
use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::store::{
    Appended, Beat, Claim, Claimed, Claims, CommitOutcome, Created, Cursor, Delivered, DueAsk,
    DueSchedules, Filter, Heartbeat, InboxPage, Inboxes, Intervened, Intervention, Message,
    NewMessage, NewRun, NextDue, OpenRuns, OwnerRow, Page, Queries, Receipt, RunCommit, RunDetail,
    Runs, ScheduleAsk, ScheduleChange, ScheduleRow, Schedules, Schema, Standing, Store, StoreError,
    StoreFuture, StreamAppend, StreamAsk, StreamPage, Streams, Unsent, UnsentAsk,
};
use rusqlite::Connection;

use error::Fault;
use job::{Ask, Job, Migrate, Request, Retire};
use oneshot::oneshot;
use place::Place;
use queue::{Queue, Sent};
use stats::Counters;
use threads::{Pace, Threads};
use writer::Writer;

#[doc(hidden)]
pub use options::{Point, Probe};
pub use options::{SqliteOptions, Synchronous};
pub use outside::{OutsideConnection, Rows, SqlError, Values};
pub use rusqlite::types::Value;
pub use stats::Stats;

/// Runs in a SQLite file. Dropped without [`Store::close`], it still finishes what was asked for.
#[derive(Debug)]
pub struct SqliteStore {
    writes: Arc<Queue<Box<dyn Job>>>,
    threads: Arc<Threads>,
    counters: Arc<Counters>,
    applied: Vec<String>,
    place: Place,
}

impl SqliteStore {
    /// Opens a file, creating it if it is not there, and brings its schema up to date if the
    /// options allow it. The file stays open until [`Store::close`], or until the store is dropped
    /// and has finished its work.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let place = open::place(path)?;
        let (connection, schema) = open::write_connection(&place, &options)?;
        let queue = Arc::new(Queue::default());
        let counters = Arc::new(Counters::default());
        let writer = Writer {
            queue: Arc::clone(&queue),
            place: place.clone(),
            counters: Arc::clone(&counters),
            options: SqliteOptions {
                // What is opened anew after trouble is there and has its schema.
                migrate: false,
                ..options
            },
        };
        let threads = Arc::new(Threads::new(place.clone(), writer.options.busy_timeout));
        threads.start_last("duramen-sqlite-writer", move |others_ended| {
            writer.run(connection, others_ended);
        })?;
        Ok(Self {
            writes: queue,
            threads,
            counters,
            applied: schema.applied,
            place,
        })
    }

    /// What the writer has done since the store was opened.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// The file by the name that was resolved when it was opened: a change of the working directory does not
    /// change it.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Opens a connection to the same file for data of the user's own; fails if another file has taken its name.
    pub fn outside(
        &self,
        synchronous: Synchronous,
        busy_timeout: std::time::Duration,
    ) -> Result<OutsideConnection, StoreError> {
        OutsideConnection::open_at(self.place.clone(), synchronous, busy_timeout)
    }

    /// Names of the migrations that opening the file applied.
    pub fn applied_on_open(&self) -> &[String] {
        &self.applied
    }

    fn write<Q: Ask>(&self, ask: Q, elements: usize) -> StoreFuture<Q::Answer> {
        let (reply, answer) = oneshot();
        self.counters.elements.fetch_add(elements as u64, Relaxed);
        match self.writes.send(Box::new(Request::new(ask, reply))) {
            Sent::Queued { .. } => Box::pin(answer),
            Sent::Closed => Box::pin(ready(Err(StoreError::Closed))),
        }
    }

    fn read<T: Send + 'static>(
        &self,
        pace: Pace,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> StoreFuture<T> {
        let (reply, answer) = oneshot();
        match self.threads.read(pace, reader::query(ask, reply)) {
            Ok(()) => Box::pin(answer),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The threads finish what is queued and end by themselves. They are not joined: the store
        // may be dropped by a wake-up on one of them.
        self.writes.close();
        self.threads.close();
    }
}

fn refused<T: Send + 'static>(error: StoreError) -> StoreFuture<T> {
    Box::pin(ready(Err(error)))
}

impl Runs for SqliteStore {
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        if let Err(error) = batch.iter().try_for_each(check::new_run) {
            return refused(error);
        }
        let elements = batch.len();
        self.write(batch, elements)
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        let elements = batch.len();
        self.write(batch, elements)
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        if let Err(error) = batch.iter().try_for_each(check::intervention) {
            return refused(error);
        }
        let elements = batch.len();
        self.write(batch, elements)
    }

    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>> {
        self.read(Pace::Brief, move |connection| {
            query::unsent(connection, &ask)
        })
    }

    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()> {
        let elements = items.len();
        self.write(items, elements)
    }
}

impl Claims for SqliteStore {
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        if let Err(error) = check::owner(&beat.owner) {
            return refused(error);
        }
        self.write(beat, 1)
    }

    fn retire(&self, owner: String, now: Option<Millis>) -> StoreFuture<()> {
        self.write(Retire { owner, now }, 1)
    }

    fn owners(&self) -> StoreFuture<Vec<OwnerRow>> {
        self.read(Pace::Long, owners::owners)
    }

    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>> {
        self.read(Pace::Brief, move |connection| {
            owners::held(connection, &owner, after.as_ref(), limit)
        })
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.write(claim, 1)
    }

    fn next_due(&self, ask: DueAsk) -> StoreFuture<NextDue> {
        self.read(Pace::Brief, move |connection| {
            query::next_due(connection, &ask)
        })
    }
}

impl Inboxes for SqliteStore {
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        if let Err(error) = batch.iter().try_for_each(check::new_message) {
            return refused(error);
        }
        let elements = batch.len();
        self.write(batch, elements)
    }

    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>> {
        self.read(Pace::Brief, move |connection| {
            query::unread(connection, &owner, &told)
        })
    }

    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage> {
        self.read(Pace::Brief, move |connection| {
            query::inbox(connection, &run_id, behind)
        })
    }

    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>> {
        self.read(Pace::Brief, move |connection| {
            query::receipts(connection, &messages)
        })
    }
}

impl Streams for SqliteStore {
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>> {
        let elements = batch.len();
        self.write(batch, elements)
    }

    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>> {
        self.read(Pace::Brief, move |connection| {
            streams::stream(connection, &ask)
        })
    }
}

impl Queries for SqliteStore {
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        self.read(Pace::Brief, move |connection| {
            query::get(connection, &run_ids)
        })
    }

    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>> {
        self.read(Pace::Brief, move |connection| {
            query::standing(connection, &run_ids)
        })
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        self.read(Pace::Brief, move |connection| {
            query::load(connection, &run_id, from, limit)
        })
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        self.read(Pace::Long, move |connection| {
            lists::list(connection, &filter, limit, cursor.as_ref())
        })
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        self.read(Pace::Long, move |connection| {
            lists::count(connection, &filter)
        })
    }

    fn census(&self) -> StoreFuture<Vec<OpenRuns>> {
        self.read(Pace::Long, census::census)
    }
}

impl Schedules for SqliteStore {
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>> {
        if let Err(error) = batch.iter().try_for_each(check::schedule) {
            return refused(error);
        }
        let elements = batch.len();
        self.write(batch, elements)
    }

    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>> {
        self.read(Pace::Brief, move |connection| {
            schedules::get(connection, &ids)
        })
    }

    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>> {
        self.read(Pace::Long, move |connection| {
            schedules::list(connection, after.as_deref(), limit)
        })
    }

    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules> {
        self.read(Pace::Brief, move |connection| {
            schedules::due(connection, &ask)
        })
    }
}

impl Store for SqliteStore {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.write(Migrate, 1)
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.read(Pace::Brief, migrate::schema)
    }

    fn close(&self) -> StoreFuture<()> {
        let (reply, answer) = oneshot();
        self.writes.close();
        self.threads.close();
        self.threads.when_ended(reply);
        Box::pin(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    struct Told(mpsc::Sender<()>);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            // Whoever waits may have gone.
            let _ = self.0.send(());
        }
    }

    fn wait<T>(mut future: StoreFuture<T>) -> Result<T, StoreError> {
        let (told, tell) = mpsc::channel();
        let waker = Waker::from(Arc::new(Told(told)));
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => tell.recv().unwrap(),
            }
        }
    }

    #[test]
    fn however_many_lists_are_under_way_a_driver_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let goes_on = Arc::new(std::sync::Mutex::new(goes_on));
        let lists: Vec<_> = (0..5)
            .map(|_| {
                let (begun, goes_on) = (begun.clone(), Arc::clone(&goes_on));
                store.read(Pace::Long, move |_| {
                    begun.send(()).unwrap();
                    goes_on.lock().unwrap().recv().unwrap();
                    Ok(())
                })
            })
            .collect();
        // Both threads for lists are taken, three more lists wait for them.
        begins.recv().unwrap();
        begins.recv().unwrap();
        assert_eq!(wait(store.standing(vec!["a".into()])), Ok(vec![None]));
        assert_eq!(wait(store.get(vec!["a".into()])), Ok(vec![None]));
        let ask = DueAsk {
            lanes: vec!["lane".to_owned()],
            now: Some(5),
        };
        assert_eq!(wait(store.next_due(ask)).unwrap().ready_at, None);
        assert!(
            wait(store.unread("o".to_owned(), Vec::new()))
                .unwrap()
                .is_empty()
        );
        for _ in &lists {
            go_on.send(()).unwrap();
        }
        for list in lists {
            wait(list).unwrap();
        }
    }
}
