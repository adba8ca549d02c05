//! Items of streams. They are numbered behind the lock of their run's row, so that no number is given out before a lower one
//! is visible.

use std::collections::{BTreeMap, BTreeSet};

use duramen_core::check;
use duramen_core::ids::RunId;
use duramen_core::store::{
    Appended, MOST_PRUNED, StreamAppend, StreamAsk, StreamPage, StreamWrite,
};
use duramen_store_sql::{Columns, Damaged, stream_item};

use crate::around::Errand;
use crate::error::Fault;
use crate::link::{Link, REPEATS, Transaction};
use crate::row::{Reader, clean, column, signed};
use crate::sql::{Book, Sql};

/// What steps have written, on its way over a connection.
pub(crate) struct Appends<'s> {
    pub(crate) link: &'s Link,
    pub(crate) book: &'s Book,
}

impl Errand for Appends<'_> {
    type Element = StreamAppend;
    type Answer = Appended;

    fn run_id(one: &StreamAppend) -> &RunId {
        &one.run_id
    }

    fn blocked() -> Appended {
        Appended::Blocked
    }

    async fn ask(
        &self,
        batch: &[StreamAppend],
        places: &[usize],
    ) -> Result<Vec<Option<Appended>>, Fault> {
        let mut answers = Vec::with_capacity(places.len());
        let mut busy: BTreeSet<&RunId> = BTreeSet::new();
        for place in places {
            let one = &batch[*place];
            // The second of one run waits for its first.
            let answer = if busy.contains(&one.run_id) {
                None
            } else {
                append(self.link, self.book, &self.book.stream_fence, one).await?
            };
            if answer.is_none() {
                busy.insert(&one.run_id);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn ask_in_line(
        &self,
        batch: &[StreamAppend],
        place: usize,
    ) -> Result<Option<Appended>, Fault> {
        let fence = &self.book.stream_fence_in_line;
        append(self.link, self.book, fence, &batch[place]).await
    }
}

/// None if others have the run locked.
async fn append(
    link: &Link,
    book: &Book,
    fence: &Sql,
    one: &StreamAppend,
) -> Result<Option<Appended>, Fault> {
    if let Some(reason) = check::append(one) {
        return Ok(Some(Appended::Rejected { reason }));
    }
    let mut repeats = 0;
    loop {
        let transaction = link.begin_behind_locks().await?;
        let result = append_behind(&transaction, book, fence, one).await;
        match transaction.end(result).await {
            Err(fault) if fault.asks_for_repetition() && repeats < REPEATS => {
                repeats += 1;
                link.before_repeating(repeats).await;
            }
            Err(fault) if fault.is_locked() => return Ok(None),
            Err(fault) if fault.is_of_the_request() => {
                return Ok(Some(Appended::Rejected {
                    reason: fault.words(),
                }));
            }
            other => return other,
        }
    }
}

async fn append_behind(
    transaction: &Transaction,
    book: &Book,
    fence: &Sql,
    one: &StreamAppend,
) -> Result<Option<Appended>, Fault> {
    let run_id = clean(&one.run_id);
    let (owner, seed) = (clean(&one.owner), one.seed.as_slice());
    let found = transaction
        .run(fence, &[&run_id, &owner, &one.epoch, &seed])
        .await?;
    let Some(row) = found.first() else {
        return Ok(Some(Appended::Fenced));
    };
    Ok(match column::<Option<bool>>(row, 1, "fits")? {
        Some(true) => {
            write(transaction, book, &run_id, &one.items).await?;
            Some(Appended::Applied)
        }
        None if column::<bool>(row, 0, "there")? => None,
        Some(false) | None => Some(Appended::Fenced),
    })
}

/// Behind the lock of the run's row.
pub(crate) async fn write(
    transaction: &Transaction,
    book: &Book,
    run_id: &str,
    items: &[StreamWrite],
) -> Result<(), Fault> {
    let mut streams: BTreeMap<&str, Vec<&StreamWrite>> = BTreeMap::new();
    for item in items {
        streams.entry(&item.stream).or_default().push(item);
    }
    for (stream, items) in streams {
        let idx: Vec<i64> = items.iter().map(|item| signed(item.index)).collect();
        let at: Vec<i64> = items.iter().map(|item| item.at).collect();
        let attempt: Vec<i32> = items
            .iter()
            .map(|item| i32::try_from(item.attempt).unwrap_or(i32::MAX))
            .collect();
        let writer: Vec<_> = items.iter().map(|item| clean(&item.writer)).collect();
        let payload: Vec<&[u8]> = items.iter().map(|item| &*item.payload).collect();
        let rows = transaction
            .run(
                &book.stream_write,
                &[&run_id, &stream, &idx, &at, &attempt, &writer, &payload],
            )
            .await?;
        let last = rows
            .first()
            .map_or(Ok(0), |row| Reader::new(row).count("seq"))?;
        let kept = (last + 1..).zip(&items);
        let behind = kept.map(|(seq, item)| item.kept_behind(seq)).max();
        if let Some(behind) = behind.filter(|behind| *behind > 0) {
            let (behind, most) = (signed(behind), signed(MOST_PRUNED));
            transaction
                .run(&book.stream_prune, &[&run_id, &stream, &behind, &most])
                .await?;
        }
    }
    Ok(())
}

/// One statement, and so one moment: of a run that has ended then, no item is missing.
pub(crate) async fn page(
    link: &Link,
    book: &Book,
    ask: &StreamAsk,
) -> Result<Option<StreamPage>, Fault> {
    let (run_id, stream) = (clean(&ask.run_id), clean(&ask.stream));
    let (from, limit) = (signed(ask.start), i64::from(ask.limit));
    let rows = link
        .read(&book.stream_page, &[&run_id, &stream, &from, &limit])
        .await?;
    let mut page: Option<StreamPage> = None;
    for row in &rows {
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
        if column::<Option<i64>>(row, OF_RUN, "seq")?.is_some() {
            page.add(stream_item(&mut Reader::at(row, OF_RUN))?);
        }
    }
    Ok(page)
}

/// How many columns of the run stand before those of the item.
const OF_RUN: usize = 2;
