//! Leases: who drives a run, and until when.

use std::collections::BTreeMap;
use std::time::Duration;
use std::vec::IntoIter;

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::lines::{self, Line};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    Beat, Claim, Claimed, ClaimedRun, Due, Heartbeat, Message, NextDue, WorkflowKey,
};
use duramen_store_sql::{
    Columns, Damaged, entry, lists, message, payload, run_row, unreadable, whole,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::Fault;
use crate::floors::{Floors, Look};
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column, signed};
use crate::sql::Book;

/// How often a heartbeat comes back for runs that were locked when it came by.
const RETURNS: u32 = 3;
const RETURN_PAUSE: Duration = Duration::from_millis(20);

/// One statement for rows, journals and unread messages.
pub(crate) async fn claim(
    link: &Link,
    book: &Book,
    floors: &Floors,
    claim: &Claim,
) -> Result<Claimed, Fault> {
    let lines = known(lines::in_turn(claim.due, &claim.workflows, claim.turn));
    let look = match claim.now {
        None if claim.run_id.is_none() => Some(floors.look(&lines)),
        _ => None,
    };
    let answer = ask(link, book, claim, &lines, look.as_ref()).await?;
    if let Some(look) = &look {
        let mut last = BTreeMap::new();
        for taken in answer.runs.values() {
            let place = lines.iter().position(|line| stood_in(line, taken));
            if let (Some(place), Some(at)) = (place, taken.was_due) {
                let latest = last.entry(place).or_insert(at);
                *latest = at.max(*latest);
            }
        }
        floors.claimed(&lines, look, answer.now, answer.more, &last);
    }
    answer.finish(link, book).await
}

fn stood_in(line: &Line<'_>, taken: &Taken) -> bool {
    let key = line.workflow;
    line.status == taken.was && key.name == taken.row.workflow && key.version == taken.row.version
}

async fn ask(
    link: &Link,
    book: &Book,
    claim: &Claim,
    lines: &[Line<'_>],
    look: Option<&Look>,
) -> Result<Answer, Fault> {
    let (status, names, versions) = keys(lines);
    let everything = Floors::everything(lines);
    let floors = &look.unwrap_or(&everything).floors;
    let limit = i64::from(claim.limit);
    let warm_ids: Vec<_> = claim.warm.iter().map(|(run_id, _)| clean(run_id)).collect();
    let warm_lens: Vec<i64> = claim.warm.iter().map(|(_, len)| signed(*len)).collect();
    let max_bytes = claim.max_bytes.map(signed);
    let owner = clean(&claim.owner);
    let run_id = claim.run_id.as_deref().map(clean);
    let (sql, last): (_, &(dyn ToSql + Sync)) = match &run_id {
        Some(run_id) => (&book.claim_alone, run_id),
        None => (&book.claim, floors),
    };
    let params: &Params<'_> = &[
        &claim.now,
        &status,
        &names,
        &versions,
        &limit,
        &warm_ids,
        &warm_lens,
        &max_bytes,
        &owner,
        &claim.lease,
        last,
    ];
    let mut answer = Answer::default();
    for row in &link.run(sql, params).await? {
        answer.add(row)?;
    }
    Ok(answer)
}

/// What the rows of the answer come to.
#[derive(Default)]
struct Answer {
    now: Millis,
    more: bool,
    runs: BTreeMap<i64, Taken>,
    journals: BTreeMap<i64, Vec<Numbered>>,
    inboxes: BTreeMap<i64, Vec<Message>>,
}

/// An entry with its index.
type Numbered = (i64, Result<Entry, Fault>);

struct Taken {
    row: RunRow,
    was: Status,
    /// When it was due.
    was_due: Option<Millis>,
    warm: bool,
    /// Journal and inbox are as new as the row.
    current: bool,
}

impl Answer {
    fn add(&mut self, row: &Row) -> Result<(), Fault> {
        let n: i64 = column(row, 1, "n")?;
        let a: i64 = column(row, 2, "a")?;
        match column::<i16>(row, 0, "part")? {
            0 => {
                self.now = a;
                self.more = column::<i64>(row, 3, "b")? != 0;
            }
            1 => {
                self.runs.insert(n, taken(row, a != 0)?);
            }
            2 => {
                let found = entry(&mut Reader::at(row, 3));
                self.journals.entry(n).or_default().push((a, found));
            }
            _ => {
                let message = Message {
                    run_id: self
                        .runs
                        .get(&n)
                        .map_or_else(|| "".into(), |taken| taken.row.run_id.clone()),
                    seq: u64::try_from(a).map_err(|_| Damaged::column("seq"))?,
                    message_id: column(row, 6, "message_id")?,
                    kind: Reader::at(row, 4).message_kind()?,
                    name: column(row, 7, "name")?,
                    payload: payload(column(row, 8, "payload")?),
                    at: column(row, 3, "at")?,
                };
                self.inboxes.entry(n).or_default().push(message);
            }
        }
        Ok(())
    }

    async fn finish(mut self, link: &Link, book: &Book) -> Result<Claimed, Fault> {
        let mut runs = Vec::with_capacity(self.runs.len());
        for (n, taken) in std::mem::take(&mut self.runs) {
            let run_id = RunId::clone(&taken.row.run_id);
            let epoch = taken.row.epoch;
            let found = if taken.current {
                self.gathered(n, &taken)
            } else {
                read_again(link, book, &taken).await
            };
            match found {
                Ok((journal, inbox)) => runs.push(ClaimedRun {
                    row: taken.row,
                    was: taken.was,
                    journal,
                    inbox,
                }),
                Err(Fault::Damaged(what)) => {
                    park(link, book, &run_id, epoch, self.now, &what).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(Claimed {
            now: self.now,
            runs,
            more: self.more,
        })
    }

    fn gathered(&mut self, n: i64, taken: &Taken) -> Result<Loaded, Fault> {
        let mut inbox = self.inboxes.remove(&n).unwrap_or_default();
        inbox.sort_by_key(|message| message.seq);
        if taken.warm {
            return Ok((None, inbox));
        }
        let mut numbered = self.journals.remove(&n).unwrap_or_default();
        // They come in the order of the primary key; nothing says that they must.
        if !numbered.is_sorted_by_key(|(idx, _)| *idx) {
            numbered.sort_by_key(|(idx, _)| *idx);
        }
        let journal: Vec<Entry> = numbered
            .into_iter()
            .map(|(_, entry)| entry)
            .collect::<Result<_, _>>()?;
        whole(&taken.row, &journal)?;
        Ok((Some(journal), inbox))
    }
}

type Loaded = (Option<Vec<Entry>>, Vec<Message>);

/// Journal and inbox from a new snapshot. Nobody else writes them: the run is leased to the caller.
async fn read_again(link: &Link, book: &Book, taken: &Taken) -> Result<Loaded, Fault> {
    let run_id = &*taken.row.run_id;
    let inbox = link
        .read(&book.unread, &[&run_id])
        .await?
        .iter()
        .map(|row| message(&mut Reader::new(row)))
        .collect::<Result<_, _>>()?;
    if taken.warm {
        return Ok((None, inbox));
    }
    let journal: Vec<Entry> = link
        .read(&book.load, &[&run_id, &0_i64, &i64::MAX])
        .await?
        .iter()
        .map(|row| entry(&mut Reader::new(row)))
        .collect::<Result<_, _>>()?;
    whole(&taken.row, &journal)?;
    Ok((Some(journal), inbox))
}

/// Sets a run aside that this build cannot read, so that it does not block the others.
async fn park(
    link: &Link,
    book: &Book,
    run_id: &str,
    epoch: i64,
    now: Millis,
    what: &str,
) -> Result<(), Fault> {
    let note = unreadable(what);
    link.run(&book.park, &[&run_id, &epoch, &note, &now])
        .await?;
    Ok(())
}

fn taken(row: &Row, current: bool) -> Result<Taken, Fault> {
    let mut packed = Packed {
        row,
        numbers: column::<Vec<_>>(row, 9, "numbers")?.into_iter(),
        texts: column::<Vec<_>>(row, 10, "texts")?.into_iter(),
    };
    Ok(Taken {
        was: Reader::at(row, 4).status()?,
        row: run_row(&mut packed)?,
        was_due: packed.integer_or_null("was_due")?,
        warm: column::<i64>(row, 3, "warm")? != 0,
        current,
    })
}

/// The columns of a run as a claim brings them: numbers in one array and texts in another, in their order,
/// beside a status and bytes.
struct Packed<'r> {
    row: &'r Row,
    numbers: IntoIter<Option<i64>>,
    texts: IntoIter<Option<&'r str>>,
}

impl Columns for Packed<'_> {
    type Fault = Fault;

    fn integer(&mut self, name: &str) -> Result<i64, Fault> {
        let number = self.integer_or_null(name)?;
        number.ok_or_else(|| Damaged::column(name).into())
    }

    fn integer_or_null(&mut self, _name: &str) -> Result<Option<i64>, Fault> {
        Ok(self.numbers.next().flatten())
    }

    fn code(&mut self, name: &str) -> Result<i64, Fault> {
        Reader::at(self.row, 5).code(name)
    }

    fn text(&mut self, name: &str) -> Result<&str, Fault> {
        let text = self.text_or_null(name)?;
        text.ok_or_else(|| Damaged::column(name).into())
    }

    fn text_or_null(&mut self, _name: &str) -> Result<Option<&str>, Fault> {
        Ok(self.texts.next().flatten())
    }

    fn bytes(&mut self, name: &str) -> Result<&[u8], Fault> {
        column(self.row, 8, name)
    }

    fn list(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        self.text_or_null(name).map(lists::split)
    }
}

type Keys<'k> = (Vec<i16>, Vec<&'k str>, Vec<&'k str>);

/// The lines that can have runs: a name with a NUL was never let in.
fn known(mut lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
    lines
        .retain(|line| !line.workflow.name.contains('\0') && !line.workflow.version.contains('\0'));
    lines
}

/// Lines as arrays, in their order.
fn keys<'k>(lines: &[Line<'k>]) -> Keys<'k> {
    let mut keys = Keys::default();
    for line in lines {
        keys.0.push(i16::try_from(line.status.code()).unwrap_or(-1));
        keys.1.push(&line.workflow.name);
        keys.2.push(&line.workflow.version);
    }
    keys
}

/// Renews the leases of an owner.
pub(crate) async fn heartbeat(
    link: &Link,
    book: &Book,
    floors: &Floors,
    beat: &Heartbeat,
) -> Result<Beat, Fault> {
    let floor = match beat.now {
        None => floors.leases(&beat.owner),
        Some(_) => Millis::MIN,
    };
    let owner = clean(&beat.owner);
    let mut returns = 0;
    loop {
        let rows = link
            .run(&book.renew, &[&owner, &beat.now, &beat.lease, &floor])
            .await?;
        let mut answer = Beat {
            now: 0,
            held: Vec::with_capacity(rows.len()),
        };
        let mut passed_over = false;
        for row in &rows {
            answer.now = column(row, 0, "now")?;
            let Some(run_id) = column::<Option<&str>>(row, 1, "run_id")? else {
                continue;
            };
            answer.held.push((run_id.into(), column(row, 2, "epoch")?));
            passed_over |= !column::<bool>(row, 3, "renewed")?;
        }
        if passed_over && returns < RETURNS {
            returns += 1;
            tokio::time::sleep(RETURN_PAUSE).await;
            continue;
        }
        if !passed_over && beat.now.is_none() {
            floors.renewed(&beat.owner, answer.now);
        }
        answer.held.sort_unstable();
        return Ok(answer);
    }
}

/// When the next claim could find something.
pub(crate) async fn next_due(
    link: &Link,
    book: &Book,
    floors: &Floors,
    workflows: &[WorkflowKey],
) -> Result<NextDue, Fault> {
    let lines = known(lines::in_turn(Due::Any, workflows, 0));
    let look = floors.look(&lines);
    let (status, names, versions) = keys(&lines);
    let rows = link
        .read(&book.next, &[&status, &names, &versions, &look.floors])
        .await?;
    let row = rows.first().ok_or_else(|| Damaged::column("now"))?;
    let ready_at = column(row, 1, "ready_at")?;
    floors.seen(&lines, &look, ready_at);
    Ok(NextDue {
        now: column(row, 0, "now")?,
        ready_at,
    })
}
