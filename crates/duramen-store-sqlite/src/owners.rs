//! Owners: their leases, and what they hold.

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::{Beat, ENDED_OWNERS_KEPT, Heartbeat, OwnerRow};
use duramen_store_sql::{Columns, lists};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Statement, params};

use crate::clock::instant;
use crate::error::Fault;
use crate::row::Reader;
use crate::session::Session;
use crate::sql;

/// A lease as it was looked up: none if there is no such owner, or it has ended.
pub(crate) struct Lease {
    owner: String,
    until: Option<Millis>,
}

impl Session<'_> {
    /// Whether an owner has a lease that lasts. What creations of one transaction name is one owner nearly always,
    /// which is looked up once. Whatever changes owners forgets it, and so does the next transaction.
    pub(crate) fn is_live(&mut self, owner: &str, now: Millis) -> Result<bool, Fault> {
        let until = match &self.lease {
            Some(lease) if lease.owner == owner => lease.until,
            _ => {
                let until = self.lease_until.query_row([owner], |row| row.get(0));
                let until = until.optional()?;
                let owner = owner.to_owned();
                self.lease = Some(Lease { owner, until });
                until
            }
        };
        Ok(until.is_some_and(|until| until > now))
    }

    /// One row is written, however many runs are driven.
    pub(crate) fn heartbeat(&mut self, beat: &Heartbeat) -> Result<Beat, Fault> {
        self.lease = None;
        let now = instant(beat.now);
        let Heartbeat {
            owner,
            label,
            format,
            ..
        } = beat;
        let lease_until = now.saturating_add(beat.lease);
        let serves = lists::enclose(&beat.serves);
        let args = params![owner, label, serves, format, now, lease_until];
        let connection = self.connection;
        let change = |statement: &str| connection.prepare_cached(statement);
        let renewed = change(sql::owner::RENEW)?.execute(args)?;
        if renewed == 0 {
            if change(sql::owner::END)?.execute(params![owner, now])? > 0 {
                return Ok(Beat {
                    now,
                    alive: false,
                    inherited: Vec::new(),
                });
            }
            let long_ago = now.saturating_sub(ENDED_OWNERS_KEPT);
            change(sql::owner::FORGET)?.execute([long_ago])?;
            change(sql::owner::REGISTER)?.execute(args)?;
        }
        let inherited = match &beat.succeeds {
            Some(former) if former != owner => inherit(connection, former, owner, now)?,
            _ => Vec::new(),
        };
        Ok(Beat {
            now,
            alive: true,
            inherited,
        })
    }

    pub(crate) fn retire(&mut self, owner: &str, now: Option<Millis>) -> Result<(), Fault> {
        self.lease = None;
        self.connection
            .prepare_cached(sql::owner::END)?
            .execute(params![owner, instant(now)])?;
        Ok(())
    }
}

fn inherit(
    connection: &Connection,
    former: &str,
    owner: &str,
    now: Millis,
) -> Result<Vec<(RunId, i64)>, Fault> {
    connection
        .prepare_cached(sql::owner::END)?
        .execute(params![former, now])?;
    let mut inherit = connection.prepare_cached(sql::owner::INHERIT)?;
    let mut moved = run_ids_with_epochs(&mut inherit, &[&former, &owner])?;
    moved.sort_unstable();
    Ok(moved)
}

fn run_ids_with_epochs(
    statement: &mut Statement<'_>,
    args: &[&dyn rusqlite::ToSql],
) -> Result<Vec<(RunId, i64)>, Fault> {
    let mut rows = statement.query(args)?;
    let mut found = Vec::new();
    while let Some(one) = rows.next()? {
        let mut one = Reader::new(one);
        found.push((one.text("run_id")?.into(), one.integer("epoch")?));
    }
    Ok(found)
}

pub(crate) fn owners(connection: &Connection) -> Result<Vec<OwnerRow>, Fault> {
    let mut statement = connection.prepare_cached(sql::owner::ALL)?;
    let mut rows = statement.query([])?;
    let mut owners = Vec::new();
    while let Some(found) = rows.next()? {
        let mut found = Reader::new(found);
        owners.push(OwnerRow {
            owner: found.text("owner")?.to_owned(),
            label: found.text_or_null("label")?.map(str::to_owned),
            serves: found.list("serves")?,
            format: found.small("format")?,
            started_at: found.integer("started_at")?,
            seen_at: found.integer("seen_at")?,
            lease_until: found.integer("lease_until")?,
            ended_at: found.integer_or_null("ended_at")?,
            held: found.count("held")?,
        });
    }
    Ok(owners)
}

/// A page of what an owner holds: of each of its lanes a page in the order of the index, then the least of
/// these. So a page costs no more than its length for each lane, however much is held.
pub(crate) fn held(
    connection: &Connection,
    owner: &str,
    after: Option<&RunId>,
    limit: u32,
) -> Result<Vec<(RunId, i64)>, Fault> {
    let mut statement = connection.prepare_cached(sql::owner::HELD)?;
    let mut next_lane = connection.prepare_cached(sql::owner::NEXT_LANE)?;
    // No run id is empty.
    let after = after.map_or("", |run_id| &**run_id);
    let mut held = Vec::new();
    let mut lane = Text::default();
    while let Some(next) = next_lane.query_row(params![owner, lane], |row| row.get(0))? {
        lane = next;
        held.append(&mut run_ids_with_epochs(
            &mut statement,
            &[&owner, &lane, &after, &limit],
        )?);
    }
    held.sort_unstable();
    held.truncate(limit as usize);
    Ok(held)
}

/// Owners that hold anything, each found by one descent. Of names that are no text at all, in a damaged file, nobody
/// knows anything: they must not hold up the runs of the others.
pub(crate) fn holders(next_holder: &mut Statement<'_>) -> Result<Vec<String>, Fault> {
    let mut holders: Vec<String> = Vec::new();
    let mut last = Text::default();
    while let Some(next) = next_holder.query_row([&last], |row| row.get(0))? {
        last = next;
        holders.extend(last.read());
    }
    Ok(holders)
}

/// A text as it stands in the file, where it need not be one.
#[derive(Debug, Default)]
struct Text(Vec<u8>);

impl Text {
    fn read(&self) -> Option<String> {
        String::from_utf8(self.0.clone()).ok()
    }
}

impl FromSql for Text {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Text(text) => Ok(Self(text.to_owned())),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for Text {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// When the runs of an owner are anybody's: the end of its lease, or now.
pub(crate) fn ends_at(connection: &Connection, owner: &str, now: Millis) -> Result<Millis, Fault> {
    let lease_until: Option<Millis> = connection
        .prepare_cached(sql::owner::LEASE)?
        .query_row([owner], |row| row.get(0))
        .optional()?;
    Ok(lease_until.map_or(now, |until| until.max(now)))
}

#[cfg(test)]
mod tests {
    use duramen_store_testing::{claim, heartbeat};
    use proptest::prelude::*;

    use super::*;
    use crate::migrate;

    proptest! {
        /// However owners change between two looks in one transaction.
        #[test]
        fn a_lease_that_is_remembered_is_the_one_that_stands(
            ops in prop::collection::vec((0..4, 0..2, 0..60_i64), 1..60)
        ) {
            let connection = Connection::open_in_memory().unwrap();
            migrate::apply(&connection).unwrap();
            let mut session = Session::new(&connection).unwrap();
            for (op, who, now) in ops {
                let owner = ["ann", "bob"][usize::try_from(who).unwrap()];
                match op {
                    0 => drop(session.heartbeat(&heartbeat(owner, 20, Some(now))).unwrap()),
                    1 => session.retire(owner, Some(now)).unwrap(),
                    2 => {
                        let mut claim = claim(owner, 1);
                        claim.now = Some(now);
                        session.claim(&claim).unwrap();
                    }
                    _ => {}
                }
                for owner in ["ann", "bob", "nobody"] {
                    let until: Option<Millis> = connection
                        .query_row(sql::owner::LEASE, [owner], |row| row.get(0))
                        .optional()
                        .unwrap();
                    let live = until.is_some_and(|until| until > now);
                    prop_assert_eq!(session.is_live(owner, now).unwrap(), live);
                    prop_assert_eq!(session.is_live(owner, now).unwrap(), live);
                }
            }
        }
    }
}
