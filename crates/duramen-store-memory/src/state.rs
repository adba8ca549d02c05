//! The runs and the owners, and how they change.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use duramen_core::check;
use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    CommitOutcome, Created, Delivered, Delivery, Intervened, Intervention, Message, MessageKind,
    NewMessage, NewRun, Next, Outgoing, RunCommit, ScheduleRow, Start, Unsent,
};

use crate::owners::Owner;
use crate::streams::Stream;

/// All runs by id, all owners by name, what is still to be carried out, and all schedules by id.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) owners: BTreeMap<String, Owner>,
    pub(crate) unsent: Vec<Unsent>,
    pub(crate) schedules: BTreeMap<String, ScheduleRow>,
}

/// A run with all that belongs to it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) row: RunRow,
    /// That of the present generation; the row says where it begins.
    pub(crate) journal: Vec<Entry>,
    /// Every message the run ever got; the one with `seq` n stands at n - 1.
    pub(crate) inbox: Vec<Letter>,
    pub(crate) state: Option<Payload>,
    pub(crate) memo: Option<Payload>,
    pub(crate) streams: BTreeMap<String, Stream>,
}

/// A message and what became of it.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) message: Message,
    pub(crate) fingerprint: Option<String>,
    pub(crate) fate: Fate,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Unread,
    Consumed { reply: Option<Payload> },
    SetAside(String),
}

/// The explicit instant of a test, or the host's clock.
pub(crate) fn instant(now: Option<Millis>) -> Millis {
    now.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| Millis::try_from(since.as_millis()).ok())
            .unwrap_or(0)
    })
}

impl State {
    pub(crate) fn create(&mut self, new: NewRun) -> Created {
        if let Some(run) = self.runs.get(&new.run_id) {
            let row = run.row.clone();
            return Created::Exists { row };
        }
        let now = instant(new.now);
        let row = match &new.start {
            Start::Leased { owner } if !self.is_live(owner, now) => {
                new.left_to_others().first_row(now)
            }
            _ => new.first_row(now),
        };
        let mut journal = vec![new.first_entry(now)];
        journal.extend(new.entries);
        let run = Run {
            row: row.clone(),
            journal,
            inbox: Vec::new(),
            state: None,
            memo: new.memo,
            streams: BTreeMap::new(),
        };
        self.runs.insert(new.run_id, run);
        Created::Created { row }
    }

    pub(crate) fn commit(&mut self, commit: RunCommit) -> CommitOutcome {
        if let Some(reason) = check::commit(&commit) {
            return CommitOutcome::Rejected { reason };
        }
        let Some(run) = self.runs.get_mut(&commit.run_id) else {
            return CommitOutcome::Fenced;
        };
        if !run.lets_through(&commit) {
            return CommitOutcome::Fenced;
        }
        let due = run.apply(&commit);
        let place = commit.expected_len;
        self.leave(&commit.run_id, place, commit.at, commit.outgoing);
        CommitOutcome::Applied { due }
    }

    fn leave(&mut self, run_id: &RunId, entry: u64, at: Millis, outgoing: Vec<Outgoing>) {
        let items = (0..).zip(outgoing);
        self.unsent.extend(items.map(|(number, item)| Unsent {
            run_id: run_id.clone(),
            entry,
            number,
            kind: item.kind,
            target: item.target,
            body: item.body,
            at,
        }));
    }

    pub(crate) fn deliver(&mut self, new: NewMessage) -> Delivered {
        let answer = |result, fingerprint, owner| Delivered {
            result,
            fingerprint,
            owner,
        };
        let Some(run) = self.runs.get_mut(&new.run_id) else {
            return answer(Delivery::NotFound, None, None);
        };
        let owner = run.row.owner.clone();
        // A duplicate is answered as such even after the run has ended: its sender wants to know
        // whether the first one arrived, and it did.
        let first = run
            .inbox
            .iter()
            .find(|letter| letter.message.message_id == new.message_id);
        if let Some(first) = first {
            return answer(Delivery::Duplicate, first.fingerprint.clone(), owner);
        }
        let row = &mut run.row;
        if row.status.is_final() {
            return answer(Delivery::Finished, None, owner);
        }
        if new.overfills(row.unread, row.unread_bytes) {
            return answer(Delivery::Full, None, owner);
        }
        if row.status == Status::Paused && new.kind == MessageKind::Pause {
            // It could not be more so.
            return answer(Delivery::Duplicate, None, None);
        }
        let now = instant(new.now);
        row.inbox_len += 1;
        row.unread += 1;
        row.unread_bytes += new.payload.len() as u64;
        row.format = row.format.max(new.encoding);
        let key = new.kind.wait_key(&new.name);
        let waits_for_it = key.is_some_and(|key| row.waits.contains(&key));
        let awaited = new.kind.makes_due(row.status, waits_for_it);
        let begun = row.started_at.is_some() || new.kind == MessageKind::Cancel;
        if awaited && row.status != Status::Running && begun {
            // A run that is due already keeps its place in the line.
            row.ready_at = Some(row.ready_at.map_or(now, |ready_at| ready_at.min(now)));
        }
        match row.status {
            Status::Queued | Status::Waiting if new.kind == MessageKind::Pause => {
                row.status = Status::Paused;
                row.note = Some(new.name.clone());
                row.updated_at = now;
            }
            Status::Paused if new.kind.frees() => {
                row.status = row.before_pause();
                row.note = None;
                row.updated_at = now;
            }
            _ => {}
        }
        run.inbox.push(Letter {
            message: Message {
                run_id: new.run_id,
                seq: row.inbox_len,
                message_id: new.message_id,
                kind: new.kind,
                name: new.name,
                payload: new.payload,
                encoding: new.encoding,
                at: now,
            },
            fingerprint: new.fingerprint,
            fate: Fate::Unread,
        });
        let result = if awaited {
            Delivery::Delivered
        } else {
            Delivery::Buffered
        };
        answer(result, None, owner)
    }

    pub(crate) fn intervene(&mut self, intervention: Intervention) -> Intervened {
        let run_id = intervention.run_id().clone();
        let Some(run) = self.runs.get_mut(&run_id) else {
            return Intervened::NotFound;
        };
        let row = &mut run.row;
        if !intervention.is_allowed(row.status, row.journal_len) {
            return Intervened::NotAllowed;
        }
        match intervention {
            Intervention::Terminate {
                entry, outgoing, ..
            } => {
                let (place, at) = (run.journal.len() as u64, entry.at);
                row.release(Status::Terminated, None);
                row.epoch += 1;
                row.updated_at = entry.at;
                row.finished_at = Some(entry.at);
                row.format = row.format.max(entry.encoding);
                run.append(vec![entry]);
                self.leave(&run_id, place, at, outgoing);
            }
            Intervention::Reopen {
                entries,
                outgoing,
                version,
                now,
                ..
            } => {
                let (place, now) = (run.journal.len() as u64, instant(now));
                let at = entries.last().map(|entry| entry.at);
                let ready_at = match row.status {
                    Status::Queued => row.ready_at,
                    _ => Some(now),
                };
                row.release(Status::Queued, ready_at);
                if let Some(version) = version {
                    row.version = version;
                }
                row.epoch += 1;
                row.updated_at = now;
                row.finished_at = None;
                // Somebody has looked at it: what it cost before does not count.
                (row.lost, row.lost_at) = (0, 0);
                let encodings = entries.iter().map(|entry| entry.encoding);
                row.format = encodings.fold(row.format, u8::max);
                run.append(entries);
                if let Some(at) = at {
                    self.leave(&run_id, place, at, outgoing);
                }
            }
            Intervention::Delete { .. } => {
                self.runs.remove(&run_id);
                self.unsent.retain(|item| item.run_id != run_id);
            }
        }
        Intervened::Done
    }
}

impl Run {
    /// The fence.
    fn lets_through(&self, commit: &RunCommit) -> bool {
        let row = &self.row;
        row.status == Status::Running
            && row.seed == commit.seed
            && row.owner.as_deref() == Some(&*commit.owner)
            && row.epoch == commit.epoch
            && self.length() == commit.expected_len
    }

    /// True if the run is due at once.
    fn apply(&mut self, commit: &RunCommit) -> bool {
        self.journal.extend(commit.entries.iter().cloned());
        let length = self.length();
        self.write(&commit.written);
        if let Some(state) = &commit.state {
            self.state = Some(state.clone());
        }
        if commit.only_appends() {
            return false;
        }
        let row = &mut self.row;
        row.journal_len = length;
        row.updated_at = commit.at;
        row.format = row.format.max(commit.format.unwrap_or(0));
        // A driver cannot have seen what has not arrived, nor forget what it has seen.
        let seen = commit.inbox_seen.unwrap_or(0).min(row.inbox_len);
        row.inbox_seen = row.inbox_seen.max(seen);
        for read in &commit.read {
            let place = read
                .seq
                .checked_sub(1)
                .and_then(|n| usize::try_from(n).ok());
            if let Some(letter) = place.and_then(|place| self.inbox.get_mut(place))
                && letter.fate == Fate::Unread
            {
                row.unread -= 1;
                row.unread_bytes -= letter.message.payload.len() as u64;
                match &read.refused {
                    Some(reason) => letter.fate = Fate::SetAside(reason.clone()),
                    None => letter.consume(read.reply.clone()),
                }
            }
        }
        match &commit.next {
            Next::Running => {}
            Next::Waiting { ready_at, waits } => {
                let due = row.inbox_len > row.inbox_seen;
                row.release(
                    Status::Waiting,
                    if due { Some(commit.at) } else { *ready_at },
                );
                row.waits.clone_from(waits);
                return due;
            }
            Next::Paused {
                ready_at,
                waits,
                note,
            } => {
                // What its driver has not seen may be what frees it.
                let due = row.inbox_len > row.inbox_seen;
                if due {
                    row.release(Status::Waiting, Some(commit.at));
                } else {
                    row.release(Status::Paused, *ready_at);
                    row.note = Some(note.clone());
                }
                row.waits.clone_from(waits);
                return due;
            }
            Next::Finished { status } => {
                row.release(*status, None);
                row.finished_at = Some(commit.at);
            }
            Next::Stuck { note } => {
                row.release(Status::Stuck, None);
                row.note = Some(note.clone());
            }
            Next::Continued { ready_at, version } => {
                row.release(Status::Queued, Some(*ready_at));
                self.journal.drain(..self.journal.len() - 1);
                row.journal_start = row.journal_len - 1;
                row.generation += 1;
                row.version.clone_from(version);
                row.deadline = row.timeout.map(|timeout| ready_at.saturating_add(timeout));
                (row.lost, row.lost_at) = (0, 0);
            }
        }
        false
    }

    fn append(&mut self, entries: Vec<Entry>) {
        self.journal.extend(entries);
        self.row.journal_len = self.length();
    }

    /// The index behind the last entry.
    pub(crate) fn length(&self) -> u64 {
        self.row.journal_start + self.journal.len() as u64
    }
}

impl Letter {
    /// A consumed message stays for ever as a dedupe key; its payload is in the journal now.
    fn consume(&mut self, reply: Option<Payload>) {
        self.fate = Fate::Consumed { reply };
        self.message.payload = Payload::new();
    }
}

/// What several changes of a row share.
trait Release {
    /// Gives the run out of its owner's hands and forgets what belonged to the former status.
    fn release(&mut self, status: Status, ready_at: Option<Millis>);
}

impl Release for RunRow {
    fn release(&mut self, status: Status, ready_at: Option<Millis>) {
        self.status = status;
        self.ready_at = ready_at;
        self.owner = None;
        self.waits.clear();
        self.note = None;
    }
}
