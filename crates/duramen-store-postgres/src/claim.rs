//! Claims: who drives a run.

use std::collections::BTreeMap;
use std::vec::IntoIter;

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::lanes::{self, Line};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Claim, Claimed, ClaimedRun, Due, DueAsk, InboxPage, Message, NextDue};
use duramen_store_sql::{Columns, Damaged, entry, lists, payload, run_row, unreadable, whole};
use futures_util::future::join_all;
use tokio_postgres::Row;

use crate::error::Fault;
use crate::flavour::{Flavour, in_batches, place_in};
use crate::floors::{Floors, Left, Look};
use crate::inbox;
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column, signed};
use crate::sql::Book;

mod routed;

/// The most candidates of one line that a claim looks at for each run that it may take.
const WIDEST: i64 = 100_000;

/// In the plain flavour one statement for rows, journals and unread messages; a second one for what was recovered.
pub(crate) async fn claim(
    link: &Link,
    book: &Book,
    floors: &Floors,
    claim: &Claim,
) -> Result<Claimed, Fault> {
    let lines = known(lanes::in_turn(claim.due, &claim.lanes, claim.turn));
    let look = if claim.now.is_none() && claim.run_id.is_none() {
        floors.look(&lines)
    } else {
        Floors::everything(&lines)
    };
    let limit = i64::from(claim.limit);
    let mut window = limit + 1 + floors.slack();
    loop {
        let mut answer = match book.flavour {
            Flavour::Plain => ask(link, book, claim, &lines, &look, window).await?,
            Flavour::Routed => routed::ask(link, book, claim, &lines, &look, window).await?,
        };
        answer.seen.now = answer.now;
        let taken = signed(answer.runs.len() as u64);
        let last = answer.runs.keys().next_back().copied().unwrap_or(0);
        // Others hold what stands before the last one taken; all of the candidates, if there were too few.
        let passed_over = if taken < limit {
            answer.considered
        } else {
            last
        } - taken;
        let cut = taken < limit && answer.considered == window;
        // Whose lease has lapsed has looked at nothing.
        if look.is_timed() && !answer.lapsed {
            floors.claimed(&lines, &look, &answer.seen, window);
        }
        if cut && passed_over > 0 {
            if taken == 0 && window < WIDEST {
                window = window.saturating_mul(4).min(WIDEST);
                continue;
            }
            answer.more = true;
        }
        floors.passed_over(passed_over);
        return answer.finish(link, book, claim).await;
    }
}

async fn ask(
    link: &Link,
    book: &Book,
    claim: &Claim,
    lines: &[Line<'_>],
    look: &Look,
    window: i64,
) -> Result<Answer, Fault> {
    let (status, lane) = keys(lines);
    let limit = i64::from(claim.limit);
    let warm_ids: Vec<_> = claim.warm.iter().map(|(run_id, _)| clean(run_id)).collect();
    let warm_lens: Vec<i64> = claim.warm.iter().map(|(_, len)| signed(*len)).collect();
    let max_bytes = claim.max_bytes.map(signed);
    let owner = clean(&claim.owner);
    let many: &Params<'_> = &[
        &claim.now,
        &owner,
        &status,
        &lane,
        &limit,
        &warm_ids,
        &warm_lens,
        &max_bytes,
        &look.floors,
        &look.is_full,
        &look.empty,
        &window,
        &look.is_timed(),
    ];
    let rows = match claim.run_id.as_deref().map(clean) {
        Some(run_id) => {
            let alone: &Params<'_> = &[&run_id, &window];
            let params = [&many[..8], alone].concat();
            link.run(&book.claim_alone, &params).await?
        }
        None => link.run(&book.claim, many).await?,
    };
    let mut answer = Answer::default();
    for row in &rows {
        answer.add(row)?;
    }
    Ok(answer)
}

/// What the rows of the answer come to.
#[derive(Default)]
struct Answer {
    now: Millis,
    more: bool,
    lapsed: bool,
    /// How many candidates the byte budget let through.
    considered: i64,
    seen: Left,
    runs: BTreeMap<i64, Taken>,
    journals: BTreeMap<i64, Vec<Numbered>>,
    inboxes: BTreeMap<i64, Vec<Message>>,
}

/// An entry with its index.
type Numbered = (i64, Result<Entry, Fault>);

struct Taken {
    row: RunRow,
    was: Status,
    warm: bool,
    /// Journal and inbox came with it and are as new as the row.
    current: bool,
}

impl Answer {
    fn add(&mut self, row: &Row) -> Result<(), Fault> {
        let n: i64 = column(row, 1, "n")?;
        let a: i64 = column(row, 2, "a")?;
        match column::<i16>(row, 0, "part")? {
            0 => {
                self.considered = n;
                self.now = a;
                self.more = column::<i64>(row, 3, "b")? != 0;
                self.lapsed = column::<i16>(row, 4, "c")? == 0;
                self.seen.empty =
                    column::<Option<Vec<String>>>(row, 10, "owners")?.unwrap_or_default();
            }
            1 => {
                self.runs.insert(n, taken(row, a != 0)?);
            }
            2 => {
                let found = entry(&mut Reader::at(row, 3));
                self.journals.entry(n).or_default().push((a, found));
            }
            3 => {
                let message = Message {
                    run_id: self
                        .runs
                        .get(&n)
                        .map_or_else(|| "".into(), |taken| taken.row.run_id.clone()),
                    seq: u64::try_from(a).map_err(|_| Damaged::column("seq"))?,
                    message_id: column(row, 6, "message_id")?,
                    kind: duramen_core::store::MessageKind::from_code(
                        Reader::at(row, 4).small_code("kind")?,
                    ),
                    encoding: Reader::at(row, 5).small_code("encoding")?,
                    name: column(row, 7, "name")?,
                    payload: payload(column(row, 8, "payload")?),
                    at: column(row, 3, "at")?,
                };
                self.inboxes.entry(n).or_default().push(message);
            }
            _ => {
                let priority: i16 = column(row, 4, "priority")?;
                let earliest = column(row, 3, "ready_at")?;
                self.seen.add(n, priority, a, earliest);
            }
        }
        Ok(())
    }

    async fn finish(mut self, link: &Link, book: &Book, claim: &Claim) -> Result<Claimed, Fault> {
        let mut taken = std::mem::take(&mut self.runs);
        let mut again = self.read_again(link, book, claim, &mut taken).await?;
        let mut runs = Vec::with_capacity(taken.len());
        for (n, taken) in taken {
            let found = match again.remove(&n) {
                Some(found) => found,
                None => self.gathered(n, &taken),
            };
            match found {
                Ok((journal, page)) => runs.push(ClaimedRun {
                    row: taken.row,
                    was: taken.was,
                    journal,
                    inbox: page.messages,
                    inbox_more: page.more,
                }),
                Err(Fault::Damaged(what)) => {
                    park(link, book, &taken.row, self.now, &what).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(Claimed {
            now: self.now,
            runs,
            more: self.more,
            lapsed: self.lapsed,
        })
    }

    fn gathered(&mut self, n: i64, taken: &Taken) -> Result<Loaded, Fault> {
        let mut messages = self.inboxes.remove(&n).unwrap_or_default();
        messages.sort_by_key(|message| message.seq);
        let page = InboxPage {
            more: taken.row.unread > messages.len() as u64,
            messages,
        };
        if taken.warm {
            return Ok((None, page));
        }
        let journal = in_order(self.journals.remove(&n).unwrap_or_default())?;
        whole(&taken.row, &journal)?;
        Ok((Some(journal), page))
    }

    /// Journal, length and inbox from a new snapshot. Nobody else writes them any more: the run is leased to the
    /// claimer, and no fence lets anybody else through.
    async fn read_again(
        &self,
        link: &Link,
        book: &Book,
        claim: &Claim,
        taken: &mut BTreeMap<i64, Taken>,
    ) -> Result<BTreeMap<i64, Result<Loaded, Fault>>, Fault> {
        let mut again = BTreeMap::new();
        let old = |taken: &&Taken| !taken.current;
        // What is in the claimer's memory and was written by nobody since needs no journal.
        let wanted: Vec<(&str, i64)> = taken
            .values()
            .filter(old)
            .filter(|one| one.was == Status::Running || !is_warm(claim, &one.row))
            .map(|one| (&*one.row.run_id, signed(one.row.journal_start)))
            .collect();
        let batches = in_batches(book, &wanted, async |wanted| {
            let (run_ids, starts): (Vec<&str>, Vec<i64>) = wanted.iter().copied().unzip();
            let Some(run_id) = run_ids.first() else {
                return Ok(Vec::new());
            };
            let params = book.of_run(&[&run_ids, &starts], run_id);
            link.read(&book.journals, &params).await
        });
        let mut journals: BTreeMap<RunId, Vec<Numbered>> = BTreeMap::new();
        for (batch, rows) in batches.await?.iter().enumerate() {
            for row in rows {
                let found = entry(&mut Reader::at(row, 2));
                let idx = column(row, 1, "idx")?;
                let place = place_in(batch, column(row, 0, "n")?);
                if let Some((run_id, _)) = place.and_then(|place| wanted.get(place)) {
                    let journal = journals.entry((*run_id).into()).or_default();
                    journal.push((idx, found));
                }
            }
        }
        let each = taken
            .iter_mut()
            .filter(|(_, taken)| !taken.current)
            .map(|(n, taken)| {
                let numbered = journals.remove(&taken.row.run_id).unwrap_or_default();
                async { (*n, load(link, book, claim, taken, numbered).await) }
            });
        for (n, loaded) in join_all(each).await {
            if matches!(loaded, Ok(_) | Err(Fault::Damaged(_))) {
                again.insert(n, loaded);
            } else {
                loaded?;
            }
        }
        Ok(again)
    }
}

type Loaded = (Option<Vec<Entry>>, InboxPage);

async fn load(
    link: &Link,
    book: &Book,
    claim: &Claim,
    taken: &mut Taken,
    numbered: Vec<Numbered>,
) -> Result<Loaded, Fault> {
    let row = &mut taken.row;
    let page = if row.unread > 0 {
        inbox::page(link, book, &row.run_id, 0).await?
    } else {
        InboxPage {
            messages: Vec::new(),
            more: false,
        }
    };
    let last = numbered.iter().map(|(idx, _)| *idx).max();
    let length = last.and_then(|last| u64::try_from(last + 1).ok());
    if let Some(length) =
        length.filter(|length| taken.was == Status::Running && *length > row.journal_len)
    {
        // Its former driver got further than the claim could see: that is progress.
        // (If somebody holds the run at this moment its row stays behind, as rows of running runs may.)
        let right: &Params<'_> = &[&&*row.run_id, &row.epoch, &signed(length)];
        match link.run_unless_locked(&book.right, right).await {
            Err(fault) if !fault.is_locked() => return Err(fault),
            _ => {}
        }
        row.journal_len = length;
        (row.lost, row.lost_at) = (1, length);
    }
    if is_warm(claim, row) {
        return Ok((None, page));
    }
    let journal = in_order(numbered)?;
    whole(row, &journal)?;
    Ok((Some(journal), page))
}

/// Whether the claimer has the journal in its memory.
fn is_warm(claim: &Claim, row: &RunRow) -> bool {
    let mut warm = claim.warm.iter();
    warm.any(|(run_id, len)| *run_id == row.run_id && *len == row.journal_len)
}

/// They come in the order of the primary key; nothing says that they must.
fn in_order(mut numbered: Vec<Numbered>) -> Result<Vec<Entry>, Fault> {
    if !numbered.is_sorted_by_key(|(idx, _)| *idx) {
        numbered.sort_by_key(|(idx, _)| *idx);
    }
    numbered.into_iter().map(|(_, entry)| entry).collect()
}

/// Sets a run aside that this build cannot read, so that it does not block the others.
async fn park(
    link: &Link,
    book: &Book,
    row: &RunRow,
    now: Millis,
    what: &str,
) -> Result<(), Fault> {
    let note = unreadable(what);
    let run_id: &RunId = &row.run_id;
    link.run(&book.park, &[&&**run_id, &row.epoch, &note, &now])
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

/// The lines that can have runs: a name with a NUL was never let in.
fn known(mut lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
    lines.retain(|line| !line.lane.contains('\0'));
    lines
}

/// Lines as arrays, in their order.
fn keys<'k>(lines: &[Line<'k>]) -> (Vec<i16>, Vec<&'k str>) {
    lines
        .iter()
        .map(|line| (i16::try_from(line.status.code()).unwrap_or(-1), line.lane))
        .unzip()
}

/// When the next claim could find something.
pub(crate) async fn next_due(
    link: &Link,
    book: &Book,
    floors: &Floors,
    ask: &DueAsk,
) -> Result<NextDue, Fault> {
    let lines = known(lanes::in_turn(Due::Any, &ask.lanes, 0));
    let look = match ask.now {
        None => floors.look(&lines),
        Some(_) => Floors::everything(&lines),
    };
    let earliest = match book.flavour {
        Flavour::Plain => earliest(link, book, ask, &lines, &look).await?,
        Flavour::Routed => routed::earliest(link, book, ask, &lines, &look).await?,
    };
    if look.is_timed() {
        floors.seen(&lines, &look, earliest.ready_at);
    }
    let Earliest {
        now,
        ready_at,
        until,
    } = earliest;
    Ok(NextDue {
        now,
        ready_at: ready_at.into_iter().chain(until).min(),
    })
}

/// The least instant of the lines, and the end of a lease that holds some of them.
struct Earliest {
    now: Millis,
    ready_at: Option<Millis>,
    until: Option<Millis>,
}

async fn earliest(
    link: &Link,
    book: &Book,
    ask: &DueAsk,
    lines: &[Line<'_>],
    look: &Look,
) -> Result<Earliest, Fault> {
    let (status, lane) = keys(lines);
    let params: &Params<'_> = &[
        &ask.now,
        &status,
        &lane,
        &look.floors,
        &look.is_full,
        &look.empty,
    ];
    let rows = link.read(&book.next, params).await?;
    let row = rows.first().ok_or_else(|| Damaged::column("now"))?;
    Ok(Earliest {
        now: column(row, 0, "now")?,
        ready_at: column(row, 1, "ready_at")?,
        until: column(row, 2, "lease_until")?,
    })
}
