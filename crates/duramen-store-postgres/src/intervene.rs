//! Changes from outside the driver: each a transaction of its own that locks the run's row first, so that
//! what it reads after that is as new as the row.

use std::collections::BTreeSet;

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::Status;
use duramen_core::store::{Intervened, Intervention, Outgoing};
use duramen_store_sql::Columns;

use crate::around::Errand;
use crate::error::Fault;
use crate::link::{Link, REPEATS, Transaction};
use crate::row::{Reader, clean, column, signed};
use crate::sql::{Book, Sql};

/// Interventions on their way over a connection.
pub(crate) struct Interventions<'s> {
    pub(crate) link: &'s Link,
    pub(crate) book: &'s Book,
}

impl Errand for Interventions<'_> {
    type Element = Intervention;
    type Answer = Intervened;

    fn run_id(one: &Intervention) -> &RunId {
        one.run_id()
    }

    fn blocked() -> Intervened {
        Intervened::Blocked
    }

    async fn ask(
        &self,
        batch: &[Intervention],
        places: &[usize],
    ) -> Result<Vec<Option<Intervened>>, Fault> {
        let mut answers = Vec::with_capacity(places.len());
        let mut busy: BTreeSet<&RunId> = BTreeSet::new();
        for place in places {
            let one = &batch[*place];
            // The second of one run waits for its first.
            let answer = if busy.contains(one.run_id()) {
                None
            } else {
                step_in(self.link, self.book, &self.book.stand, one).await?
            };
            if answer.is_none() {
                busy.insert(one.run_id());
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn ask_in_line(
        &self,
        batch: &[Intervention],
        place: usize,
    ) -> Result<Option<Intervened>, Fault> {
        step_in(
            self.link,
            self.book,
            &self.book.stand_in_line,
            &batch[place],
        )
        .await
    }
}

/// None if others have the run locked.
async fn step_in(
    link: &Link,
    book: &Book,
    stand: &Sql,
    one: &Intervention,
) -> Result<Option<Intervened>, Fault> {
    let mut repeats = 0;
    loop {
        let transaction = link.begin_behind_locks().await?;
        let result = change(&transaction, book, stand, one).await;
        match transaction.end(result).await {
            Err(fault) if fault.asks_for_repetition() && repeats < REPEATS => {
                repeats += 1;
                link.before_repeating(repeats).await;
            }
            Err(fault) if fault.is_locked() => return Ok(None),
            other => return other,
        }
    }
}

async fn change(
    transaction: &Transaction,
    book: &Book,
    stand: &Sql,
    intervention: &Intervention,
) -> Result<Option<Intervened>, Fault> {
    let run_id = clean(intervention.run_id());
    let found = transaction.run(stand, &[&run_id]).await?;
    let Some(row) = found.first() else {
        return Ok(Some(Intervened::NotFound));
    };
    if !column::<bool>(row, 0, "there")? {
        return Ok(Some(Intervened::NotFound));
    }
    if column::<Option<i16>>(row, 1, "status")?.is_none() {
        return Ok(None);
    }
    let mut row = Reader::at(row, 1);
    let standing = row.status()?;
    let mut length = row.count("journal_len")?;
    if !intervention.is_allowed(standing, length) {
        return Ok(Some(Intervened::NotAllowed));
    }
    match intervention {
        Intervention::Terminate {
            entry, outgoing, ..
        } => {
            if standing == Status::Running {
                let rows = transaction.run(&book.length, &[&run_id]).await?;
                if let Some(row) = rows.first() {
                    length = Reader::new(row).count("idx")?;
                }
            }
            let format = i16::from(entry.encoding);
            transaction
                .run(
                    &book.terminate,
                    &[&run_id, &entry.at, &signed(length + 1), &format],
                )
                .await?;
            let entries = std::slice::from_ref(entry);
            append(transaction, book, &run_id, length, entries).await?;
            leave(transaction, book, &run_id, length, entry.at, outgoing).await?;
        }
        Intervention::Reopen {
            entries,
            outgoing,
            version,
            now,
            ..
        } => {
            let after = signed(length + entries.len() as u64);
            let encodings = entries.iter().map(|entry| i16::from(entry.encoding));
            let format = encodings.max().unwrap_or(0);
            transaction
                .run(&book.reopen, &[&run_id, now, &after, &format, version])
                .await?;
            append(transaction, book, &run_id, length, entries).await?;
            if let Some(entry) = entries.last() {
                leave(transaction, book, &run_id, length, entry.at, outgoing).await?;
            }
        }
        Intervention::Delete { .. } => {
            for statement in &book.delete {
                transaction.run(statement, &[&run_id]).await?;
            }
        }
    }
    Ok(Some(Intervened::Done))
}

/// What leaves the run with its entry `entry`.
async fn leave(
    transaction: &Transaction,
    book: &Book,
    run_id: &str,
    entry: u64,
    at: Millis,
    outgoing: &[Outgoing],
) -> Result<(), Fault> {
    for (number, item) in (0_i32..).zip(outgoing) {
        let kind = i16::try_from(item.kind.code()).unwrap_or(-1);
        transaction
            .run(
                &book.leave,
                &[
                    &run_id,
                    &signed(entry),
                    &at,
                    &number,
                    &kind,
                    &&*item.target,
                    &&*item.body,
                ],
            )
            .await?;
    }
    Ok(())
}

async fn append(
    transaction: &Transaction,
    book: &Book,
    run_id: &str,
    length: u64,
    entries: &[Entry],
) -> Result<(), Fault> {
    let idx: Vec<i64> = (signed(length)..).take(entries.len()).collect();
    let at: Vec<i64> = entries.iter().map(|entry| entry.at).collect();
    let encoding: Vec<i16> = entries.iter().map(|one| i16::from(one.encoding)).collect();
    let kind: Vec<i16> = entries
        .iter()
        .map(|one| i16::from(one.kind.code()))
        .collect();
    let op: Vec<&str> = entries.iter().map(|entry| &*entry.op).collect();
    let meta: Vec<_> = entries
        .iter()
        .map(|one| one.meta.as_deref().map(clean))
        .collect();
    let payload: Vec<&[u8]> = entries.iter().map(|entry| &*entry.payload).collect();
    transaction
        .run(
            &book.extend,
            &[&run_id, &idx, &at, &encoding, &kind, &op, &meta, &payload],
        )
        .await?;
    Ok(())
}
