//! Owners: one row for each incarnation of a process, with the one lease it has.

use std::time::Duration;

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::{Beat, ENDED_OWNERS_KEPT, Heartbeat, OwnerRow};
use duramen_store_sql::Columns;
use tokio::time::sleep;

use crate::error::Fault;
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column};
use crate::sql::Book;

/// How often a successor comes back for runs that were locked when it came by.
const RETURNS: u32 = 5;
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
            link.run(&book.forget, &[&now, &ENDED_OWNERS_KEPT]).await?;
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
        let mut left = false;
        for row in &link.run(&book.succeed, &[&owner, &former, &now]).await? {
            match column::<Option<&str>>(row, 0, "run_id")? {
                Some(run_id) => inherited.push((run_id.into(), column(row, 1, "epoch")?)),
                None => left = true,
            }
        }
        if !left {
            break;
        }
    }
    inherited.sort_unstable();
    Ok(inherited)
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
    let rows = link.read(&book.owners, &[]).await?;
    rows.iter()
        .map(|row| {
            let mut c = Reader::new(row);
            Ok(OwnerRow {
                owner: c.text("owner")?.to_owned(),
                label: c.text_or_null("label")?.map(str::to_owned),
                serves: c.list("serves")?,
                format: c.small_code("format")?,
                started_at: c.integer("started_at")?,
                seen_at: c.integer("seen_at")?,
                lease_until: c.integer("lease_until")?,
                ended_at: c.integer_or_null("ended_at")?,
                held: c.count("held")?,
            })
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
