//! Changes from outside the driver: each a transaction of its own that locks the run's row first, so that
//! what it reads after that is as new as the row.

use duramen_core::journal::Entry;
use duramen_core::run::Status;
use duramen_core::store::{Intervened, Intervention};
use duramen_store_sql::Columns;

use crate::error::Fault;
use crate::link::{Link, REPEATS, Transaction};
use crate::row::{Reader, clean, signed};
use crate::sql::Book;

pub(crate) async fn intervene(
    link: &Link,
    book: &Book,
    batch: &[Intervention],
) -> Result<Vec<Intervened>, Fault> {
    let mut answers = Vec::with_capacity(batch.len());
    for one in batch {
        let mut repeats = 0;
        let answer = loop {
            match step_in(link, book, one).await {
                Err(fault) if fault.asks_for_repetition() && repeats < REPEATS => {
                    repeats += 1;
                    link.before_repeating(repeats).await;
                }
                other => break other?,
            }
        };
        answers.push(answer);
    }
    Ok(answers)
}

async fn step_in(link: &Link, book: &Book, one: &Intervention) -> Result<Intervened, Fault> {
    let transaction = link.begin().await?;
    let result = change(&transaction, book, one).await;
    transaction.end(result).await
}

async fn change(
    transaction: &Transaction,
    book: &Book,
    intervention: &Intervention,
) -> Result<Intervened, Fault> {
    let (Intervention::Terminate { run_id, .. }
    | Intervention::Reopen { run_id, .. }
    | Intervention::Delete { run_id, .. }) = intervention;
    let run_id = clean(run_id);
    let found = transaction.run(&book.standing, &[&run_id]).await?;
    let Some(mut row) = found.first().map(Reader::new) else {
        return Ok(Intervened::NotFound);
    };
    let standing = row.status()?;
    let length = row.count("journal_len")?;
    let live = matches!(standing, Status::Queued | Status::Running | Status::Waiting);
    match intervention {
        Intervention::Terminate { entry, .. } if live || standing == Status::Stuck => {
            let bytes = signed(entry.payload.len() as u64);
            transaction
                .run(&book.terminate, &[&run_id, &entry.at, &bytes])
                .await?;
            append(
                transaction,
                book,
                &run_id,
                length,
                std::slice::from_ref(entry),
            )
            .await?;
        }
        Intervention::Reopen {
            expected_len,
            entries,
            now,
            ..
        } if !live && standing != Status::Completed && length == *expected_len => {
            let grown = signed(entries.len() as u64);
            let bytes = entries.iter().map(|entry| entry.payload.len() as u64).sum();
            transaction
                .run(&book.reopen, &[&run_id, now, &grown, &signed(bytes)])
                .await?;
            append(transaction, book, &run_id, length, entries).await?;
        }
        Intervention::Delete { force, .. } if !live || *force => {
            for statement in &book.delete {
                transaction.run(statement, &[&run_id]).await?;
            }
        }
        Intervention::Terminate { .. }
        | Intervention::Reopen { .. }
        | Intervention::Delete { .. } => return Ok(Intervened::NotAllowed),
    }
    Ok(Intervened::Done)
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
            &book.append,
            &[&run_id, &idx, &at, &encoding, &kind, &op, &meta, &payload],
        )
        .await?;
    Ok(())
}
