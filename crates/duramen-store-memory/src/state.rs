//! The runs and how they change.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use duramen_core::check;
use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    CommitOutcome, Created, Delivered, Delivery, Intervened, Intervention, Message, NewMessage,
    NewRun, Next, RunCommit,
};

/// All runs by id.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) runs: BTreeMap<RunId, Run>,
}

/// A run with all that belongs to it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) row: RunRow,
    pub(crate) journal: Vec<Entry>,
    /// Every message the run ever got; the one with `seq` n stands at n - 1.
    pub(crate) inbox: Vec<Letter>,
    pub(crate) state: Option<Payload>,
    pub(crate) memo: Option<Payload>,
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
    Consumed,
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
            return Created {
                created: false,
                row: run.row.clone(),
            };
        }
        let now = instant(new.now);
        let row = new.first_row(now);
        let run = Run {
            row: row.clone(),
            journal: vec![Entry::new(Kind::RunCreated, "".into(), new.input, now)],
            inbox: Vec::new(),
            state: None,
            memo: new.memo,
        };
        self.runs.insert(new.run_id, run);
        Created { created: true, row }
    }

    pub(crate) fn commit(&mut self, commit: RunCommit) -> CommitOutcome {
        if let Some(reason) = check::commit(&commit) {
            return CommitOutcome::Rejected { reason };
        }
        let Some(run) = self.runs.get_mut(&commit.run_id) else {
            return CommitOutcome::Fenced;
        };
        let row = &mut run.row;
        if row.status != Status::Running
            || row.owner.as_deref() != Some(&*commit.owner)
            || row.epoch != commit.epoch
            || row.journal_len != commit.expected_len
        {
            return CommitOutcome::Fenced;
        }
        row.updated_at = commit.at;
        // A driver cannot have seen what has not arrived, nor forget what it has seen.
        row.inbox_seen = row.inbox_seen.max(commit.inbox_seen.min(row.inbox_len));
        for read in commit.read {
            let place = read
                .seq
                .checked_sub(1)
                .and_then(|n| usize::try_from(n).ok());
            if let Some(letter) = place.and_then(|place| run.inbox.get_mut(place))
                && letter.fate == Fate::Unread
            {
                match read.refused {
                    Some(reason) => letter.fate = Fate::SetAside(reason),
                    None => letter.consume(),
                }
            }
        }
        if let Some(state) = commit.state {
            run.state = Some(state);
        }
        let mut due = false;
        match commit.next {
            Next::Running => {}
            Next::Waiting { ready_at, waits } => {
                due = row.inbox_len > row.inbox_seen;
                row.release(
                    Status::Waiting,
                    if due { Some(commit.at) } else { ready_at },
                );
                row.waits = waits;
            }
            Next::Finished { status } => {
                row.release(status, None);
                row.finished_at = Some(commit.at);
            }
            Next::Stuck { note } => {
                row.release(Status::Stuck, None);
                row.note = Some(note);
            }
        }
        run.append(commit.entries);
        CommitOutcome::Applied { due }
    }

    pub(crate) fn deliver(&mut self, new: NewMessage) -> Delivered {
        let Some(run) = self.runs.get_mut(&new.run_id) else {
            return Delivered {
                result: Delivery::NotFound,
                fingerprint: None,
                owner: None,
            };
        };
        let owner = run.row.owner.clone();
        // A duplicate is answered as such even after the run has ended: its sender wants to know
        // whether the first one arrived, and it did.
        let first = run
            .inbox
            .iter()
            .find(|letter| letter.message.message_id == new.message_id);
        if let Some(first) = first {
            return Delivered {
                result: Delivery::Duplicate,
                fingerprint: first.fingerprint.clone(),
                owner,
            };
        }
        if run.row.status.is_final() {
            return Delivered {
                result: Delivery::Finished,
                fingerprint: None,
                owner,
            };
        }
        let now = instant(new.now);
        let row = &mut run.row;
        row.inbox_len += 1;
        let awaited = match (row.status, new.kind.wait_key(&new.name)) {
            (Status::Waiting, Some(key)) => row.waits.contains(&key),
            // A cancellation reaches a run whatever it does, unless it is parked.
            (Status::Waiting | Status::Queued | Status::Running, None) => true,
            _ => false,
        };
        if awaited && row.status != Status::Running {
            // A run that is due already keeps its place in the line.
            row.ready_at = Some(row.ready_at.map_or(now, |ready_at| ready_at.min(now)));
        }
        run.inbox.push(Letter {
            message: Message {
                run_id: new.run_id,
                seq: row.inbox_len,
                message_id: new.message_id,
                kind: new.kind,
                name: new.name,
                payload: new.payload,
                at: now,
            },
            fingerprint: new.fingerprint,
            fate: Fate::Unread,
        });
        Delivered {
            result: if awaited {
                Delivery::Delivered
            } else {
                Delivery::Buffered
            },
            fingerprint: None,
            owner,
        }
    }

    pub(crate) fn intervene(&mut self, intervention: Intervention) -> Intervened {
        let run_id = match &intervention {
            Intervention::Terminate { run_id, .. }
            | Intervention::Reopen { run_id, .. }
            | Intervention::Delete { run_id, .. } => run_id.clone(),
        };
        let Some(run) = self.runs.get_mut(&run_id) else {
            return Intervened::NotFound;
        };
        let row = &mut run.row;
        match intervention {
            Intervention::Terminate { entry, .. } => {
                if row.status.is_final() {
                    return Intervened::NotAllowed;
                }
                row.release(Status::Terminated, None);
                row.epoch += 1;
                row.updated_at = entry.at;
                row.finished_at = Some(entry.at);
                run.append(vec![entry]);
            }
            Intervention::Reopen {
                expected_len,
                entries,
                now,
                ..
            } => {
                let reopens = matches!(
                    row.status,
                    Status::Failed | Status::Cancelled | Status::Terminated | Status::Stuck
                );
                if !reopens || row.journal_len != expected_len {
                    return Intervened::NotAllowed;
                }
                let now = instant(now);
                row.release(Status::Queued, Some(now));
                row.epoch += 1;
                row.updated_at = now;
                row.finished_at = None;
                run.append(entries);
            }
            Intervention::Delete { force, .. } => {
                let live = matches!(
                    row.status,
                    Status::Queued | Status::Running | Status::Waiting
                );
                if live && !force {
                    return Intervened::NotAllowed;
                }
                self.runs.remove(&run_id);
            }
        }
        Intervened::Done
    }
}

impl Run {
    fn append(&mut self, entries: Vec<Entry>) {
        self.journal.extend(entries);
        self.row.journal_len = self.journal.len() as u64;
    }
}

impl Letter {
    /// A consumed message stays for ever as a dedupe key; its payload is in the journal now.
    fn consume(&mut self) {
        self.fate = Fate::Consumed;
        self.message.payload = Payload::new();
    }
}

/// What several changes of a row share.
trait Release {
    /// Gives the lease up and forgets what belonged to the former status.
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
