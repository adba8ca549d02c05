//! Claims in the routed flavour (`crate::flavour`). What the plain one does in a statement is done in rounds here:
//! who may be taken from, what is due, what it weighs, and then each run is taken by itself, under its fence. Those of
//! a round go together.
//!
//! Only the last round changes runs, and it looks again at what the rounds before found. Owners are marked as ended
//! before anything is taken from them, for good: whoever is interrupted in between leaves runs that are anybody's.
//! A claimer whose lease ends in between takes runs that are to be recovered from it, as if it had ended just after.

use std::collections::BTreeSet;

use duramen_core::lanes::{LAST_PRIORITY, interleave};
use futures_util::future::try_join_all;

use super::{
    Answer, BTreeMap, Book, Claim, Damaged, DueAsk, Earliest, Fault, Line, Link, Look, Millis,
    Params, Reader, Row, Status, Taken, clean, column, keys, run_row, signed,
};

const RUNNING: i16 = 1;
const PRIORITIES: usize = LAST_PRIORITY as usize + 1;
/// Of a run's unread messages a claim brings no more than this.
const PAGE_BYTES: i64 = 8 << 20;
/// Of journals that are longer together a claim with a byte budget brings the first only.
const MOST_ENTRIES: i64 = 50_000;

/// A run that may be taken, as it was found.
struct Candidate {
    /// Which line it was found in, and its place among those that are considered: 1 for the first.
    line: i64,
    n: i64,
    run_id: String,
    status: i16,
    lane: String,
    owner: Option<String>,
    priority: i16,
    ready_at: Option<Millis>,
    start: i64,
    length: i64,
    unread_bytes: i64,
}

impl Candidate {
    fn new(row: &Row, line: i64) -> Result<Self, Fault> {
        Ok(Self {
            line,
            n: 0,
            run_id: column(row, 0, "run_id")?,
            status: column(row, 1, "status")?,
            lane: column(row, 2, "lane")?,
            owner: column(row, 3, "owner")?,
            priority: column(row, 4, "priority")?,
            ready_at: column(row, 5, "ready_at")?,
            start: column(row, 6, "journal_start")?,
            length: column(row, 7, "journal_len")?,
            unread_bytes: column(row, 8, "unread_bytes")?,
        })
    }

    fn is_due(&self, now: Millis) -> bool {
        self.ready_at.is_some_and(|at| at <= now)
    }
}

/// What is known of owners when a claim begins.
struct Who {
    now: Millis,
    claimer_lives: bool,
    gone: Vec<String>,
    all: Vec<String>,
}

/// A look over all runs.
struct Eyes<'s> {
    link: &'s Link,
    book: &'s Book,
    window: i64,
    now: Millis,
}

pub(super) async fn ask(
    link: &Link,
    book: &Book,
    claim: &Claim,
    lines: &[Line<'_>],
    look: &Look,
    window: i64,
) -> Result<Answer, Fault> {
    let who = who(link, book, claim).await?;
    let mut answer = Answer {
        now: who.now,
        lapsed: !who.claimer_lives,
        ..Answer::default()
    };
    if answer.lapsed {
        return Ok(answer);
    }
    let eyes = Eyes {
        link,
        book,
        window,
        now: who.now,
    };
    let found = match claim.run_id.as_deref().map(clean) {
        Some(run_id) => eyes.alone(&run_id, &who, lines).await?,
        None => eyes.everywhere(&who, lines, look, &mut answer).await?,
    };
    let left: Vec<(i64, i16, Option<Millis>, String)> = found
        .iter()
        .flatten()
        .filter(|one| one.status != RUNNING)
        .map(|one| (one.line, one.priority, one.ready_at, one.run_id.clone()))
        .collect();
    let mut numbered = interleave(found);
    numbered.truncate(usize::try_from(window).unwrap_or(usize::MAX));
    for (one, n) in numbered.iter_mut().zip(1..) {
        one.n = n;
    }
    let fits = fits(link, book, claim, &numbered).await?;
    answer.considered = signed(fits.iter().filter(|fits| **fits).count() as u64);
    answer.runs = take(link, book, claim, who.now, &numbered, &fits).await?;
    let last = answer.runs.keys().next_back().copied().unwrap_or(0);
    answer.more = if signed(answer.runs.len() as u64) >= i64::from(claim.limit) {
        last == window || signed(numbered.len() as u64) > last
    } else {
        let too_heavy = numbered.iter().zip(&fits).filter(|(_, fits)| !**fits);
        too_heavy
            .map(|(one, _)| one)
            .any(|one| !answer.runs.contains_key(&one.n))
    };
    let taken: BTreeSet<&str> = answer.runs.values().map(|one| &*one.row.run_id).collect();
    let mut seen: BTreeMap<(i64, i16), (i64, Option<Millis>)> = BTreeMap::new();
    for (line, priority, ready_at, run_id) in &left {
        let (count, earliest) = seen.entry((*line, *priority)).or_default();
        *count += 1;
        if !taken.contains(&**run_id) {
            *earliest = earliest.iter().chain(ready_at).min().copied();
        }
    }
    for ((line, priority), (count, earliest)) in seen {
        answer.seen.add(line, priority, count, earliest);
    }
    Ok(answer)
}

async fn who(link: &Link, book: &Book, claim: &Claim) -> Result<Who, Fault> {
    let rows = link
        .run(&book.routed.who, &[&claim.now, &clean(&claim.owner)])
        .await?;
    let row = rows.first().ok_or_else(|| Damaged::column("now"))?;
    Ok(Who {
        now: column(row, 0, "now")?,
        claimer_lives: column(row, 1, "owner")?,
        gone: column(row, 2, "owner")?,
        all: column(row, 3, "owner")?,
    })
}

impl Eyes<'_> {
    /// The run that is asked for, if it may be taken.
    async fn alone(
        &self,
        run_id: &str,
        who: &Who,
        lines: &[Line<'_>],
    ) -> Result<Vec<Vec<Candidate>>, Fault> {
        let rows = self.link.read(&self.book.routed.one, &[&run_id]).await?;
        let Some(row) = rows.first() else {
            return Ok(Vec::new());
        };
        let mut one = Candidate::new(row, 0)?;
        let (status, lane) = keys(lines);
        let place = status
            .iter()
            .zip(lane)
            .position(|(status, lane)| *status == one.status && *lane == one.lane);
        let free = match (&one.owner, one.status) {
            (Some(owner), RUNNING) => who.gone.contains(owner) || !who.all.contains(owner),
            (None, RUNNING) => false,
            _ => one.is_due(self.now),
        };
        Ok(match place {
            Some(place) if free => {
                one.line = signed(place as u64 + 1);
                vec![vec![one]]
            }
            _ => Vec::new(),
        })
    }

    /// What is due in each line, the first of it.
    async fn everywhere(
        &self,
        who: &Who,
        lines: &[Line<'_>],
        look: &Look,
        answer: &mut Answer,
    ) -> Result<Vec<Vec<Candidate>>, Fault> {
        let holders = if lines.iter().any(|line| line.status == Status::Running) {
            self.holders(who, look, answer).await?
        } else {
            Vec::new()
        };
        let (holders, floors) = (&holders[..], look.floors.chunks(PRIORITIES));
        let each = (1..)
            .zip(lines)
            .zip(floors)
            .map(|((place, line), floors)| async move {
                if line.status == Status::Running {
                    self.held(place, line.lane, holders).await
                } else {
                    self.due(place, line, floors).await
                }
            });
        try_join_all(each).await
    }

    /// Owners that have ended and hold something.
    async fn holders(
        &self,
        who: &Who,
        look: &Look,
        answer: &mut Answer,
    ) -> Result<Vec<String>, Fault> {
        let mut gone: Vec<String> = who.gone.clone();
        gone.retain(|owner| !look.empty.contains(owner));
        if look.is_full {
            gone.extend(strangers(self.link, self.book, &who.all).await?);
        }
        let each = gone.iter().map(|owner| async move {
            let rows = self.link.read(&self.book.routed.holds, &[owner]).await?;
            Ok::<_, Fault>(!rows.is_empty())
        });
        let hold = try_join_all(each).await?;
        let mut holders = Vec::new();
        for (owner, holds) in gone.into_iter().zip(hold) {
            if holds {
                holders.push(owner);
            } else {
                answer.seen.empty.push(owner);
            }
        }
        Ok(holders)
    }

    async fn held(
        &self,
        place: i64,
        lane: &str,
        holders: &[String],
    ) -> Result<Vec<Candidate>, Fault> {
        let each = holders.iter().map(|owner| async move {
            let params: &Params<'_> = &[owner, &lane, &self.window];
            self.link.read(&self.book.routed.of_owner, params).await
        });
        let mut found: Vec<Candidate> = try_join_all(each)
            .await?
            .iter()
            .flatten()
            .map(|row| Candidate::new(row, place))
            .collect::<Result<_, _>>()?;
        found.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        found.truncate(usize::try_from(self.window).unwrap_or(usize::MAX));
        Ok(found)
    }

    /// From priority to priority: each look shows the next that there is.
    async fn due(
        &self,
        place: i64,
        line: &Line<'_>,
        floors: &[Millis],
    ) -> Result<Vec<Candidate>, Fault> {
        let mut found: Vec<Candidate> = Vec::new();
        let mut from: i16 = 0;
        while from <= i16::from(LAST_PRIORITY) {
            // A page that ended among due runs of a priority is read again from that priority on.
            found.retain(|one| one.priority < from);
            let limit = self.window - signed(found.len() as u64);
            if limit <= 0 {
                break;
            }
            let rows = self.line(line, from, floors, limit).await?;
            let is_full = signed(rows.len() as u64) == limit;
            let mut last = None;
            for row in &rows {
                let one = Candidate::new(row, place)?;
                let is_due = one.is_due(self.now);
                last = Some((one.priority, is_due));
                if is_due {
                    found.push(one);
                }
            }
            match last {
                Some((priority, is_due)) if is_full => {
                    if signed(found.len() as u64) == self.window {
                        break;
                    }
                    from = if is_due { priority } else { priority + 1 };
                }
                _ => break,
            }
        }
        Ok(found)
    }

    async fn line(
        &self,
        line: &Line<'_>,
        from: i16,
        floors: &[Millis],
        limit: i64,
    ) -> Result<Vec<Row>, Fault> {
        let status = i16::try_from(line.status.code()).unwrap_or(-1);
        let above = floors.iter().skip(usize::try_from(from).unwrap_or(0));
        let floor = above.min().copied().unwrap_or(Millis::MIN);
        let params: &Params<'_> = &[&status, &line.lane, &from, &floor, &limit];
        self.link.read(&self.book.routed.line, params).await
    }
}

/// Owners of runs that have no row.
async fn strangers(link: &Link, book: &Book, known: &[String]) -> Result<Vec<String>, Fault> {
    let rows = link.read(&book.routed.strangers, &[&known]).await?;
    rows.iter().map(|row| column(row, 0, "owner")).collect()
}

/// Which of the candidates the byte budget lets through: the first, and others as long as there is room.
async fn fits(
    link: &Link,
    book: &Book,
    claim: &Claim,
    numbered: &[Candidate],
) -> Result<Vec<bool>, Fault> {
    let Some(budget) = claim.max_bytes.map(signed) else {
        return Ok(vec![true; numbered.len()]);
    };
    let is_warm = |one: &Candidate, length: i64| {
        let warm = &claim.warm;
        warm.iter()
            .any(|(run_id, len)| **run_id == *one.run_id && signed(*len) == length)
    };
    let each = numbered.iter().map(|one| async move {
        if one.status != RUNNING && is_warm(one, one.length) {
            return Ok::<_, Fault>((one.length, 0));
        }
        let rows = link
            .read(&book.routed.weight, &[&one.run_id, &one.start])
            .await?;
        let row = rows.first().ok_or_else(|| Damaged::column("idx"))?;
        let length = match one.status {
            RUNNING => column(row, 0, "idx")?,
            _ => one.length,
        };
        Ok((length, column(row, 1, "payload")?))
    });
    let (mut entries, mut bytes) = (0, 0);
    let mut fits = Vec::with_capacity(numbered.len());
    for (one, (length, weight)) in numbered.iter().zip(try_join_all(each).await?) {
        if !is_warm(one, length) {
            entries += length - one.start;
            bytes += weight;
        }
        bytes += one.unread_bytes.min(PAGE_BYTES);
        fits.push(one.n == 1 || (entries <= MOST_ENTRIES && bytes <= budget));
    }
    Ok(fits)
}

/// Takes runs in their order, as many as the claim may have; those that have changed or are locked are passed over. If
/// nothing that fits is to be had, one comes that does not.
async fn take(
    link: &Link,
    book: &Book,
    claim: &Claim,
    now: Millis,
    numbered: &[Candidate],
    fits: &[bool],
) -> Result<BTreeMap<i64, Taken>, Fault> {
    let limit = usize::try_from(claim.limit).unwrap_or(usize::MAX);
    let mut taken = BTreeMap::new();
    let that = |fit: bool| {
        let all = numbered.iter().zip(fits);
        all.filter(move |(_, fits)| **fits == fit)
            .map(|(one, _)| one)
    };
    let mut fitting = that(true);
    while taken.len() < limit {
        let round: Vec<&Candidate> = fitting.by_ref().take(limit - taken.len()).collect();
        if round.is_empty() {
            break;
        }
        let each = round
            .iter()
            .map(|one| take_one(link, book, claim, now, one));
        let found = try_join_all(each).await?;
        for (one, found) in round.into_iter().zip(found) {
            taken.extend(found.map(|run| (one.n, run)));
        }
    }
    for one in that(false) {
        if !taken.is_empty() || limit == 0 {
            break;
        }
        let found = take_one(link, book, claim, now, one).await?;
        taken.extend(found.map(|run| (one.n, run)));
    }
    Ok(taken)
}

async fn take_one(
    link: &Link,
    book: &Book,
    claim: &Claim,
    now: Millis,
    one: &Candidate,
) -> Result<Option<Taken>, Fault> {
    let claimer = clean(&claim.owner);
    let params: &Params<'_> = &[
        &one.run_id,
        &one.status,
        &one.lane,
        &one.owner,
        &claimer,
        &now,
    ];
    let rows = link.run(&book.routed.take, params).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Taken {
        row: run_row(&mut Reader::new(row))?,
        was: Status::from_code(one.status.into()).ok_or_else(|| Damaged::column("status"))?,
        warm: false,
        current: false,
    }))
}

pub(super) async fn earliest(
    link: &Link,
    book: &Book,
    ask: &DueAsk,
    lines: &[Line<'_>],
    look: &Look,
) -> Result<Earliest, Fault> {
    let owners = link.read(&book.routed.leases, &[&ask.now]).await?;
    let row = owners.first().ok_or_else(|| Damaged::column("now"))?;
    let eyes = Eyes {
        link,
        book,
        window: 1,
        now: column(row, 0, "now")?,
    };
    let floors = look.floors.chunks(PRIORITIES);
    let each = lines
        .iter()
        .zip(floors)
        .filter(|(line, _)| line.status != Status::Running)
        .map(|(line, floors)| eyes.earliest(line, floors));
    let ready_at = try_join_all(each).await?.into_iter().flatten().min();
    Ok(Earliest {
        now: eyes.now,
        ready_at,
        until: eyes.lease_end(&owners, lines, look).await?,
    })
}

impl Eyes<'_> {
    async fn earliest(&self, line: &Line<'_>, floors: &[Millis]) -> Result<Option<Millis>, Fault> {
        let mut earliest = None;
        let mut from = 0;
        while from <= i16::from(LAST_PRIORITY) {
            let rows = self.line(line, from, floors, 1).await?;
            let Some(row) = rows.first() else {
                break;
            };
            let one = Candidate::new(row, 0)?;
            earliest = earliest.into_iter().chain(one.ready_at).min();
            from = one.priority + 1;
        }
        Ok(earliest)
    }

    /// The earliest end of a lease whose owner holds a run of the lanes. Of living owners that is asked in a look at
    /// everything only.
    async fn lease_end(
        &self,
        owners: &[Row],
        lines: &[Line<'_>],
        look: &Look,
    ) -> Result<Option<Millis>, Fault> {
        let (_, served) = keys(lines);
        let holds = async |owner: &str| {
            let rows = self
                .link
                .read(&self.book.routed.holds_of, &[&owner, &served])
                .await?;
            Ok::<_, Fault>(!rows.is_empty())
        };
        let mut known = Vec::with_capacity(owners.len());
        let mut end = None;
        for row in owners {
            let Some(owner) = column::<Option<String>>(row, 1, "owner")? else {
                continue;
            };
            let (until, alive): (Millis, bool) = (
                column(row, 2, "lease_until")?,
                column(row, 3, "lease_until")?,
            );
            let passed_over = column(row, 4, "ended_at")? && look.empty.contains(&owner);
            if end.is_none() && !passed_over && ((alive && !look.is_full) || holds(&owner).await?) {
                end = Some(until);
            }
            known.push(owner);
        }
        if look.is_full && end.is_none_or(|end| end > self.now) {
            for owner in strangers(self.link, self.book, &known).await? {
                if holds(&owner).await? {
                    return Ok(Some(self.now));
                }
            }
        }
        Ok(end)
    }
}
