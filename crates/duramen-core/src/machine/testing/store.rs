//! A store of one run in memory, as strict as the contract: what it is told wrongly, it panics about.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Millis, Payload};
use crate::journal::{ENCODING, Entry, Kind, Meta};
use crate::run::{RunRow, Status};
use crate::store::{ClaimedRun, CommitOutcome, Message, MessageKind, Next, RunCommit};

pub(crate) const OWNER: &str = "owner";

/// One run, its journal and its inbox.
pub(crate) struct FakeStore {
    pub(crate) row: RunRow,
    pub(crate) journal: Vec<Entry>,
    pub(crate) inbox: Vec<Message>,
    /// `seq` of each message that was consumed or set aside, with the reason.
    pub(crate) read: Vec<(u64, Option<String>)>,
    /// The answers that were given, by the same numbers.
    pub(crate) replies: Vec<(u64, String)>,
    read_seqs: BTreeSet<u64>,
    /// How many items of each stream are valid.
    pub(crate) streams: BTreeMap<String, u64>,
    /// Every commit that took place.
    pub(crate) commits: Vec<RunCommit>,
    /// Answers for the next commits, instead of applying them.
    pub(crate) refuse: Vec<CommitOutcome>,
}

impl FakeStore {
    pub(crate) fn new(input: &str, now: Millis) -> Self {
        Self::with_journal(Journal::new(input, now).entries(), now)
    }

    /// A run that was driven before and has this journal.
    pub(crate) fn with_journal(journal: Vec<Entry>, now: Millis) -> Self {
        let started_at = (journal.len() > 1).then_some(now);
        let mut streams = BTreeMap::new();
        for stream in journal.iter().filter_map(|entry| entry.meta().ok()?.stream) {
            *streams.entry(stream).or_default() += 1;
        }
        Self {
            row: RunRow {
                run_id: "run".into(),
                workflow: "flow".into(),
                version: "1".into(),
                queue: crate::lanes::DEFAULT_QUEUE.into(),
                priority: crate::lanes::DEFAULT_PRIORITY,
                status: Status::Queued,
                created_at: now,
                started_at,
                updated_at: now,
                finished_at: None,
                ready_at: Some(now),
                owner: None,
                epoch: 0,
                format: 1,
                journal_start: 0,
                journal_len: journal.len() as u64,
                generation: 0,
                inbox_len: 0,
                inbox_seen: 0,
                unread: 0,
                unread_bytes: 0,
                timeout: None,
                deadline: None,
                lost: 0,
                lost_at: 0,
                waits: Vec::new(),
                tags: Vec::new(),
                seed: [9; 16],
                note: None,
                parent: None,
                root: None,
                origin: None,
            },
            journal,
            inbox: Vec::new(),
            read: Vec::new(),
            replies: Vec::new(),
            read_seqs: BTreeSet::new(),
            streams,
            commits: Vec::new(),
            refuse: Vec::new(),
        }
    }

    /// Leases the run: what is due, or what a dead driver held. Who has it warm gets no journal.
    pub(crate) fn claim(&mut self, now: Millis, warm: bool) -> ClaimedRun {
        let row = &mut self.row;
        assert!(
            matches!(
                row.status,
                Status::Queued | Status::Waiting | Status::Running
            ),
            "a run that is {:?} cannot be claimed",
            row.status
        );
        assert!(row.format <= ENCODING, "claimed what it cannot read");
        let was = row.status;
        row.status = Status::Running;
        row.owner = Some(OWNER.into());
        row.epoch += 1;
        row.started_at.get_or_insert(now);
        row.ready_at = None;
        ClaimedRun {
            row: row.clone(),
            was,
            journal: (!warm).then(|| self.journal.clone()),
            inbox: self.unread(),
            inbox_more: false,
        }
    }

    /// Only a newer build may claim it.
    pub(crate) fn is_left_to_newer(&self) -> bool {
        self.row.format > ENCODING
    }

    pub(crate) fn unread(&self) -> Vec<Message> {
        self.inbox
            .iter()
            .filter(|message| !self.read_seqs.contains(&message.seq))
            .cloned()
            .collect()
    }

    pub(crate) fn deliver(
        &mut self,
        kind: MessageKind,
        name: &str,
        payload: &str,
        now: Millis,
    ) -> Message {
        let row = &mut self.row;
        row.inbox_len += 1;
        let awaited = kind
            .wait_key(name)
            .is_none_or(|key| row.waits.contains(&key));
        if matches!(row.status, Status::Queued | Status::Waiting) && kind == MessageKind::Pause {
            row.status = Status::Paused;
            row.note = Some(name.to_owned());
        } else if row.status == Status::Paused && kind.frees() {
            row.status = row.before_pause();
            row.note = None;
            row.ready_at = Some(now);
        } else if row.status == Status::Waiting && awaited {
            row.ready_at = Some(row.ready_at.map_or(now, |ready_at| ready_at.min(now)));
        }
        let message = Message {
            run_id: row.run_id.clone(),
            seq: row.inbox_len,
            message_id: format!("m{}", row.inbox_len),
            kind,
            name: name.into(),
            payload: Payload::from(payload.to_owned()),
            encoding: 1,
            at: now,
        };
        self.inbox.push(message.clone());
        message
    }

    pub(crate) fn commit(&mut self, commit: &RunCommit) -> CommitOutcome {
        if let Some(outcome) = self.refuse.pop() {
            return outcome;
        }
        let row = &mut self.row;
        if row.status != Status::Running
            || row.owner.as_deref() != Some(&*commit.owner)
            || row.epoch != commit.epoch
            || row.seed != commit.seed
            || row.journal_len != commit.expected_len
        {
            return CommitOutcome::Fenced;
        }
        if let Some(seen) = commit.inbox_seen {
            assert!(seen <= row.inbox_len, "saw what has not arrived");
            row.inbox_seen = row.inbox_seen.max(seen);
        }
        row.format = row.format.max(commit.format.unwrap_or(0));
        for read in &commit.read {
            let first = self.read_seqs.insert(read.seq);
            assert!(first, "message {} was read twice", read.seq);
            self.read.push((read.seq, read.refused.clone()));
            if let Some(reply) = &read.reply {
                let reply = String::from_utf8_lossy(reply).into_owned();
                self.replies.push((read.seq, reply));
            }
        }
        let entries = commit.entries.iter();
        let noted = entries.filter(|entry| entry.kind == Kind::StreamWritten);
        assert_eq!(noted.count(), commit.written.len(), "items without entries");
        for item in &commit.written {
            let valid = self.streams.entry(item.stream.clone()).or_default();
            assert!(item.index <= *valid, "an item is missing before {item:?}");
            *valid = item.index + 1;
        }
        self.journal.extend(commit.entries.iter().cloned());
        row.journal_len = row.journal_start + self.journal.len() as u64;
        let mut due = false;
        let (status, ready_at) = match &commit.next {
            Next::Running => (Status::Running, None),
            Next::Waiting { ready_at, waits } => {
                due = row.inbox_len > row.inbox_seen;
                row.waits.clone_from(waits);
                (
                    Status::Waiting,
                    if due { Some(commit.at) } else { *ready_at },
                )
            }
            Next::Paused {
                ready_at,
                waits,
                note,
            } => {
                due = row.inbox_len > row.inbox_seen;
                row.waits.clone_from(waits);
                row.note = (!due).then(|| note.clone());
                if due {
                    (Status::Waiting, Some(commit.at))
                } else {
                    (Status::Paused, *ready_at)
                }
            }
            Next::Finished { status } => (*status, None),
            Next::Continued { ready_at, version } => {
                let last = self.journal.pop();
                assert!(
                    last.as_ref()
                        .is_some_and(|last| last.kind == Kind::RunCreated)
                );
                self.journal = last.into_iter().collect();
                row.journal_start = row.journal_len - 1;
                row.generation += 1;
                row.version.clone_from(version);
                (Status::Queued, Some(*ready_at))
            }
            Next::Stuck { note } => {
                row.note = Some(note.clone());
                (Status::Stuck, None)
            }
        };
        row.status = status;
        row.ready_at = ready_at;
        if status != Status::Running {
            row.owner = None;
        }
        self.commits.push(commit.clone());
        CommitOutcome::Applied { due }
    }

    /// What `retry` does: takes back the failure that ended the run.
    pub(crate) fn retry(&mut self, now: Millis) {
        let last = self.journal.len() as u64 - 1;
        let end = &self.journal[self.journal.len() - 1];
        let cause = match end.kind {
            Kind::RunFailed | Kind::RunCancelled => Some(end.meta().unwrap().cause.unwrap_or(last)),
            Kind::RunTerminated => Some(last),
            _ => None,
        };
        let entry = Entry::new(Kind::RunReopened, "".into(), Payload::new(), now);
        self.reopen(entry.with_meta(&Meta {
            cause,
            ..Meta::default()
        }));
        self.row.ready_at = Some(now);
    }

    /// What `skip` does: the step that the run is paused for has this result.
    pub(crate) fn skip(&mut self, op: &str, result: &str, now: Millis) {
        let payload = Payload::from(result.to_owned());
        let entry = Entry::new(Kind::StepCompleted, op.into(), payload, now);
        self.reopen(entry.with_meta(&Meta {
            skipped: true,
            ..Meta::default()
        }));
        self.row.ready_at = Some(now);
    }

    fn reopen(&mut self, entry: Entry) {
        self.journal.push(entry);
        self.row.journal_len += 1;
        self.row.epoch += 1;
        self.row.status = Status::Queued;
        self.row.note = None;
    }

    /// `kind op` of each entry, for assertions.
    pub(crate) fn story(&self) -> Vec<String> {
        self.journal
            .iter()
            .map(|entry| match &*entry.op {
                "" => entry.kind.name().to_owned(),
                op => format!("{} {op}", entry.kind.name()),
            })
            .collect()
    }
}

/// Builds a journal by hand.
pub(crate) struct Journal {
    entries: Vec<Entry>,
    at: Millis,
}

impl Journal {
    pub(crate) fn new(input: &str, at: Millis) -> Self {
        Self {
            entries: Vec::new(),
            at,
        }
        .entry(Kind::RunCreated, "", input)
    }

    pub(crate) fn entry(self, kind: Kind, op: &str, payload: &str) -> Self {
        self.with(kind, op, payload, &Meta::default())
    }

    pub(crate) fn with(mut self, kind: Kind, op: &str, payload: &str, meta: &Meta) -> Self {
        let payload = Payload::from(payload.to_owned());
        self.entries
            .push(Entry::new(kind, op.into(), payload, self.at).with_meta(meta));
        self
    }

    pub(crate) fn entries(self) -> Vec<Entry> {
        self.entries
    }
}
