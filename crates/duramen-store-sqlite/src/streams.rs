//! Items of streams: numbered under the write lock, read page by page.

use duramen_core::check;
use duramen_core::store::{
    Appended, MOST_PRUNED, StreamAppend, StreamAsk, StreamPage, StreamWrite,
};
use duramen_store_sql::{Columns, Damaged, stream_item};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use crate::error::Fault;
use crate::row::{Reader, signed};
use crate::session::Session;
use crate::sql;

impl Session<'_> {
    pub(crate) fn append_items(&mut self, batch: &[StreamAppend]) -> Result<Vec<Appended>, Fault> {
        batch.iter().map(|append| self.append_one(append)).collect()
    }

    fn append_one(&mut self, append: &StreamAppend) -> Result<Appended, Fault> {
        if let Some(reason) = check::append(append) {
            return Ok(Appended::Rejected { reason });
        }
        let StreamAppend {
            run_id,
            seed,
            owner,
            epoch,
            items,
        } = append;
        let mut fence = self.connection.prepare_cached(sql::stream::FENCE)?;
        if !fence.exists(params![&**run_id, owner, epoch, &seed[..]])? {
            return Ok(Appended::Fenced);
        }
        drop(fence);
        self.write_items(run_id, items)?;
        Ok(Appended::Applied)
    }

    /// Under the fence that was passed.
    pub(crate) fn write_items(&mut self, run_id: &str, items: &[StreamWrite]) -> Result<(), Fault> {
        let mut last = self.connection.prepare_cached(sql::stream::LAST)?;
        let mut insert = self.connection.prepare_cached(sql::stream::INSERT)?;
        for of_one in items.chunk_by(|one, next| one.stream == next.stream) {
            let Some(StreamWrite { stream, .. }) = of_one.first() else {
                continue;
            };
            let kept: Option<i64> = last.query_row(params![run_id, stream], |row| row.get(0))?;
            let mut seq = kept.unwrap_or(0);
            let mut behind = 0;
            for item in of_one {
                seq += 1;
                insert.execute(params![
                    run_id,
                    stream,
                    seq,
                    signed(item.index)?,
                    item.attempt,
                    item.at,
                    item.writer,
                    &*item.payload,
                ])?;
                behind = behind.max(item.kept_behind(seq.unsigned_abs()));
            }
            if behind > 0 {
                self.prune(run_id, stream, signed(behind)?)?;
            }
        }
        Ok(())
    }

    fn prune(&self, run_id: &str, stream: &str, behind: i64) -> Result<(), Fault> {
        let mut first = self.connection.prepare_cached(sql::stream::FIRST)?;
        let first: Option<i64> = first.query_row(params![run_id, stream], |row| row.get(0))?;
        let Some(first) = first.filter(|first| *first <= behind) else {
            return Ok(());
        };
        let upto = behind.min(first.saturating_add(MOST_PRUNED.cast_signed()) - 1);
        let mut prune = self.connection.prepare_cached(sql::stream::PRUNE)?;
        prune.execute(params![run_id, stream, upto])?;
        Ok(())
    }
}

/// One statement, and so one moment: of a run that has ended then, no item is missing.
pub(crate) fn stream(
    connection: &Connection,
    ask: &StreamAsk,
) -> Result<Option<StreamPage>, Fault> {
    // No stream reaches a number that SQLite cannot count to.
    let from = i64::try_from(ask.start).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql::stream::PAGE)?;
    let mut rows = statement.query(params![&*ask.run_id, ask.stream, from, ask.limit])?;
    let mut page: Option<StreamPage> = None;
    while let Some(row) = rows.next()? {
        let mut found = Reader::new(row);
        let page = match &mut page {
            Some(page) => page,
            None => page.insert(StreamPage {
                status: found.status()?,
                seed: found
                    .bytes("seed")?
                    .try_into()
                    .map_err(|_| Damaged::column("seed"))?,
                items: Vec::new(),
            }),
        };
        let is_item = row.get_ref(OF_RUN)? != ValueRef::Null;
        if !is_item || !page.add(stream_item(&mut Reader::at(row, OF_RUN))?) {
            break;
        }
    }
    Ok(page)
}

/// How many columns of the run stand before those of the item.
const OF_RUN: usize = 2;
