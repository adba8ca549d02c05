//! Owners: one row for each incarnation of a process, with the one lease it has.

use std::collections::BTreeMap;
use std::time::Duration;

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::{Beat, ENDED_OWNERS_KEPT, Heartbeat, OwnerRow};
use duramen_store_sql::Columns;
use futures_util::future::try_join_all;
use tokio::time::sleep;
use tokio_postgres::Row;

use crate::error::Fault;
use crate::flavour::Flavour;
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column};
use crate::sql::Book;

/// How often a successor comes back for runs that were locked when it came by.
const RETURNS: u32 = 5;
/// So many runs are moved together.
const MOST_AT_ONCE: usize = 256;
const RETURN_PAUSE: Duration = Duration::from_millis(10);

/// Registers an owner or renews its lease: one statement as a rule.
pub(crate) async fn heartbeat(link: &Link, book: &Book, beat: &Heartbeat) -> Result<Beat, Fault> {
    let owner = clean(&beat.owner);
    let label = beat.label.as_deref().map(clean);
    let serves: Vec<_> = beat.serves.iter().map(|one| clean(one)).collect();
    let format = i16::from(beat.format);
    let sign: &Params<'_> = &[&owner, &beat.now, &beat.lease, &label, &serves, &format];
    let now: Millis = loop {
        if let Some(row) = link.run(&book.beat, sign).await?.first() {
            break column(row, 0, "now")?;
        }
        if let Some(row) = link.run(&book.lapse, &[&owner, &beat.now]).await?.first() {
            return Ok(Beat {
                now: column(row, 0, "now")?,
                alive: false,
                inherited: Vec::new(),
            });
        }
        if let Some(row) = link.run(&book.register, sign).await?.first() {
            let now: Millis = column(row, 0, "now")?;
            forget(link, book, now).await?;
            break now;
        }
        // Whoever has the same name has registered it at this moment.
    };
    let inherited = match beat.succeeds.as_deref().map(clean) {
        Some(former) if former != owner => inherit(link, book, &owner, &former, beat.now).await?,
        _ => Vec::new(),
    };
    Ok(Beat {
        now,
        alive: true,
        inherited,
    })
}

/// Moves what the former incarnation holds. What somebody else holds for longer than this comes back for it stays with
/// the former one, which has ended: it is anybody's.
async fn inherit(
    link: &Link,
    book: &Book,
    owner: &str,
    former: &str,
    now: Option<Millis>,
) -> Result<Vec<(RunId, i64)>, Fault> {
    let mut inherited = Vec::new();
    for turn in 0..=RETURNS {
        if turn > 0 {
            sleep(RETURN_PAUSE).await;
        }
        let moved = match book.flavour {
            Flavour::Plain => succeed(link, book, owner, former, now).await?,
            Flavour::Routed => succeed_one_by_one(link, book, owner, former, now).await?,
        };
        let left = moved.iter().any(Option::is_none);
        inherited.extend(moved.into_iter().flatten());
        if !left {
            break;
        }
    }
    inherited.sort_unstable();
    Ok(inherited)
}

/// A run of the former owner that is the successor's now, with its epoch. None: it is locked.
type Moved = Option<(RunId, i64)>;

async fn succeed(
    link: &Link,
    book: &Book,
    owner: &str,
    former: &str,
    now: Option<Millis>,
) -> Result<Vec<Moved>, Fault> {
    let rows = link.run(&book.succeed, &[&owner, &former, &now]).await?;
    rows.iter().map(moved).collect()
}

/// The former one ends first, so that nothing comes to it any more; then each run is moved by itself.
async fn succeed_one_by_one(
    link: &Link,
    book: &Book,
    owner: &str,
    former: &str,
    now: Option<Millis>,
) -> Result<Vec<Moved>, Fault> {
    let ended: &Params<'_> = &[&owner, &former, &now];
    if link.run(&book.routed.end, ended).await?.is_empty() {
        return Ok(Vec::new());
    }
    let held: Vec<String> = link
        .read(&book.routed.all_held, &[&former])
        .await?
        .iter()
        .map(|row| column(row, 0, "run_id"))
        .collect::<Result<_, _>>()?;
    let mut all = Vec::with_capacity(held.len());
    for part in held.chunks(MOST_AT_ONCE) {
        let each = part.iter().map(|run_id| async move {
            let params: &Params<'_> = &[run_id, &former, &owner];
            let rows = link.run(&book.routed.hand_over, params).await?;
            rows.first().map_or(Ok(None), moved)
        });
        all.extend(try_join_all(each).await?);
    }
    Ok(all)
}

fn moved(row: &Row) -> Result<Moved, Fault> {
    let run_id: Option<&str> = column(row, 0, "run_id")?;
    run_id
        .map(|run_id| Ok((run_id.into(), column(row, 1, "epoch")?)))
        .transpose()
}

/// Takes out the rows of owners that ended long ago and hold nothing.
async fn forget(link: &Link, book: &Book, now: Millis) -> Result<(), Fault> {
    let ago: &Params<'_> = &[&now, &ENDED_OWNERS_KEPT];
    if book.flavour == Flavour::Plain {
        link.run(&book.forget, ago).await?;
        return Ok(());
    }
    for row in &link.read(&book.routed.ended, ago).await? {
        let owner: String = column(row, 0, "owner")?;
        if link.read(&book.routed.holds, &[&owner]).await?.is_empty() {
            link.run(&book.routed.forget, &[&owner]).await?;
        }
    }
    Ok(())
}

pub(crate) async fn retire(
    link: &Link,
    book: &Book,
    owner: &str,
    now: Option<Millis>,
) -> Result<(), Fault> {
    link.run(&book.retire, &[&clean(owner), &now]).await?;
    Ok(())
}

pub(crate) async fn owners(link: &Link, book: &Book) -> Result<Vec<OwnerRow>, Fault> {
    let (rows, counts) = match book.flavour {
        Flavour::Plain => (link.read(&book.owners, &[]).await?, BTreeMap::new()),
        Flavour::Routed => (
            link.read(&book.routed.owners, &[]).await?,
            counts(link, book).await?,
        ),
    };
    rows.iter()
        .map(|row| {
            let mut c = Reader::new(row);
            let owner = c.text("owner")?.to_owned();
            let counted = counts.get(&owner).copied();
            Ok(OwnerRow {
                owner,
                label: c.text_or_null("label")?.map(str::to_owned),
                serves: c.list("serves")?,
                format: c.small_code("format")?,
                started_at: c.integer("started_at")?,
                seen_at: c.integer("seen_at")?,
                lease_until: c.integer("lease_until")?,
                ended_at: c.integer_or_null("ended_at")?,
                held: counted.map_or_else(|| c.count("held"), Ok)?,
            })
        })
        .collect()
}

/// How many runs each owner has.
async fn counts(link: &Link, book: &Book) -> Result<BTreeMap<String, u64>, Fault> {
    let rows = link.read(&book.routed.counts, &[]).await?;
    rows.iter()
        .map(|row| {
            let mut c = Reader::new(row);
            Ok((c.text("owner")?.to_owned(), c.count("held")?))
        })
        .collect()
}

pub(crate) async fn held(
    link: &Link,
    book: &Book,
    owner: &str,
    after: Option<&RunId>,
    limit: u32,
) -> Result<Vec<(RunId, i64)>, Fault> {
    let after = after.map_or("", |after| &**after);
    let rows = link
        .read(
            &book.held,
            &[&clean(owner), &clean(after), &i64::from(limit)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                column::<&str>(row, 0, "run_id")?.into(),
                column(row, 1, "epoch")?,
            ))
        })
        .collect()
}
