//! The parts of the contract, each method by the module that knows how.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use duramen_core::check;
use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::store::{
    Appended, Beat, Change, Claim, Claimed, Claims, CommitOutcome, Created, Cursor, Delivered,
    DueAsk, DueSchedules, Filter, Heartbeat, Hint, InboxPage, Inboxes, Intervened, Intervention,
    Message, NewMessage, NewRun, NextDue, OpenRuns, OwnerRow, Page, Queries, Receipt, RunCommit,
    RunDetail, Runs, ScheduleAsk, ScheduleChange, ScheduleRow, Schedules, Schema, Script, Standing,
    Store, StoreError, StoreFuture, StreamAppend, StreamAsk, StreamPage, Streams, Transactions,
    Unsent, UnsentAsk, Wake,
};

use crate::lists::Lists;
use crate::migrate::MIGRATIONS;
use crate::{
    PostgresStore, Use, claim, commit, inbox, intervene, migrate, outside, owners, query, refused,
    row, schedules, streams,
};

impl Runs for PostgresStore {
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        if let Err(error) = batch.iter().try_for_each(check::new_run) {
            return refused(error);
        }
        let answer = self.creations.send(batch);
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        self.ask(async move |inner| {
            let errand = commit::Commits {
                link: inner.link(Use::Commit),
                book: &inner.book,
            };
            inner.patiently(&errand, &batch).await
        })
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        if let Err(error) = batch.iter().try_for_each(check::intervention) {
            return refused(error);
        }
        self.ask(async move |inner| {
            let errand = intervene::Interventions {
                link: inner.link(Use::Write),
                book: &inner.book,
            };
            let answers = inner.patiently(&errand, &batch).await;
            inner.hint(Hint::Due);
            answers
        })
    }

    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>> {
        self.ask(async move |inner| query::unsent(inner.link(Use::Read), &inner.book, &ask).await)
    }

    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()> {
        self.ask(async move |inner| query::sent(inner.link(Use::Write), &inner.book, &items).await)
    }
}

impl Claims for PostgresStore {
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        if let Err(error) = check::owner(&beat.owner) {
            return refused(error);
        }
        self.ask(async move |inner| {
            owners::heartbeat(inner.link(Use::Lease), &inner.book, &beat).await
        })
    }

    fn retire(&self, owner: String, now: Option<Millis>) -> StoreFuture<()> {
        self.ask(async move |inner| {
            let retired = owners::retire(inner.link(Use::Lease), &inner.book, &owner, now).await;
            // What it held is anybody's.
            inner.hint(Hint::Due);
            retired
        })
    }

    fn owners(&self) -> StoreFuture<Vec<OwnerRow>> {
        self.ask(async |inner| owners::owners(inner.link(Use::Read), &inner.book).await)
    }

    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>> {
        self.ask(async move |inner| {
            let link = inner.link(Use::Read);
            owners::held(link, &inner.book, &owner, after.as_ref(), limit).await
        })
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.ask(async move |inner| {
            claim::claim(inner.link(Use::Lease), &inner.book, &inner.floors, &claim).await
        })
    }

    fn next_due(&self, ask: DueAsk) -> StoreFuture<NextDue> {
        self.ask(async move |inner| {
            claim::next_due(inner.link(Use::Read), &inner.book, &inner.floors, &ask).await
        })
    }
}

impl Inboxes for PostgresStore {
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        if let Err(error) = batch.iter().try_for_each(check::new_message) {
            return refused(error);
        }
        let answer = self.messages.send(batch);
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }

    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>> {
        self.ask(async move |inner| {
            inbox::unread(inner.link(Use::Read), &inner.book, &owner, &told).await
        })
    }

    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage> {
        self.ask(async move |inner| {
            inbox::page(inner.link(Use::Read), &inner.book, &run_id, behind).await
        })
    }

    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>> {
        self.ask(async move |inner| {
            inbox::receipts(inner.link(Use::Read), &inner.book, &messages).await
        })
    }
}

impl Streams for PostgresStore {
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>> {
        self.ask(async move |inner| {
            let errand = streams::Appends {
                link: inner.link(Use::Write),
                book: &inner.book,
            };
            inner.patiently(&errand, &batch).await
        })
    }

    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>> {
        self.ask(async move |inner| streams::page(inner.link(Use::Read), &inner.book, &ask).await)
    }
}

impl Queries for PostgresStore {
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        self.ask(async move |inner| query::get(inner.link(Use::Read), &inner.book, &run_ids).await)
    }

    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>> {
        self.ask(async move |inner| {
            query::standing(inner.link(Use::Read), &inner.book, &run_ids).await
        })
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        self.ask(async move |inner| {
            query::load(inner.link(Use::Read), &inner.book, &run_id, from, limit).await
        })
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        self.ask(async move |inner| {
            Lists::of(&inner)
                .page(&filter, limit, cursor.as_ref())
                .await
        })
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        self.ask(async move |inner| Lists::of(&inner).count(&filter).await)
    }

    fn census(&self) -> StoreFuture<Vec<OpenRuns>> {
        self.ask(async |inner| Lists::of(&inner).census().await)
    }
}

impl Schedules for PostgresStore {
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>> {
        if let Err(error) = batch.iter().try_for_each(check::schedule) {
            return refused(error);
        }
        self.ask(async move |inner| {
            schedules::change(inner.link(Use::Write), &inner.book, &batch).await
        })
    }

    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>> {
        self.ask(async move |inner| schedules::get(inner.link(Use::Read), &inner.book, &ids).await)
    }

    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>> {
        self.ask(async move |inner| {
            schedules::list(inner.link(Use::Read), &inner.book, after.as_deref(), limit).await
        })
    }

    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules> {
        self.ask(async move |inner| schedules::due(inner.link(Use::Read), &inner.book, &ask).await)
    }
}

impl Transactions for PostgresStore {
    fn script(&self, change: &Change) -> Result<Script, StoreError> {
        outside::script(&self.inner.names, change)
    }

    fn identity(&self) -> StoreFuture<Option<String>> {
        self.ask(async |inner| {
            let rows = inner
                .link(Use::Read)
                .read(&inner.book.identity, &[])
                .await?;
            rows.first()
                .map(|row| row::column(row, 0, "identity"))
                .transpose()
        })
    }
}

impl Store for PostgresStore {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.ask(async |inner| migrate::migrate(inner.link(Use::Lease), &inner.names).await)
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.ask(async |inner| {
            Ok(migrate::found(inner.link(Use::Read), &inner.names)
                .await?
                .schema(MIGRATIONS))
        })
    }

    fn transactions(&self) -> Option<&dyn Transactions> {
        Some(self)
    }

    fn watch(&self, wake: Wake) {
        let Some(hints) = &self.inner.hints else {
            return;
        };
        let listening = Arc::clone(hints).listen(Arc::clone(&self.inner.target), wake);
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self.handle.spawn(listening));
    }

    fn close(&self) -> StoreFuture<()> {
        self.creations.close();
        self.messages.close();
        let tasks = self.background();
        let inner = Arc::clone(&self.inner);
        inner.closed.store(true, Relaxed);
        let closing = self.handle.spawn(async move {
            for task in tasks {
                task.abort();
            }
            for link in &inner.links {
                link.close().await;
            }
            if let Some(hints) = &inner.hints {
                hints.close().await;
            }
        });
        Box::pin(async move {
            let _ = closing.await;
            Ok(())
        })
    }
}
