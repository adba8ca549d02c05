//! How runs begin.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, Payload, RunId};
use crate::journal::{ENCODING, Entry, Kind};
use crate::run::{RunRow, Seed, Status};

/// A run to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRun {
    pub run_id: RunId,
    pub workflow: String,
    pub version: String,
    /// The queue that it stands in; [`crate::lanes::DEFAULT_QUEUE`] unless asked for another.
    pub queue: String,
    /// 0 to 9, lower first.
    pub priority: u8,
    pub input: Payload,
    /// The meta of journal entry 0, as it is to be kept; see [`crate::journal::Meta::tick`].
    #[serde(default)]
    pub meta: Option<String>,
    /// The beginning of a journal that the run brings, behind entry 0: a fork's or an import's.
    pub entries: Vec<Entry>,
    /// The origin of the logical clock that a brought journal was recorded with.
    pub started_at: Option<Millis>,
    pub start: Start,
    pub tags: Vec<String>,
    pub memo: Option<Payload>,
    /// How long the whole run may take, from its creation or its start time.
    pub timeout: Option<Millis>,
    /// Drawn by the creator: it tells this life of the id from any other, so that a creation whose answer
    /// was lost knows itself again.
    pub seed: Seed,
    /// The run that started this one, and the first of that family.
    pub parent: Option<RunId>,
    pub root: Option<RunId>,
    /// What started it if no program did: `schedule:ID`, `import`, `fork:RUN`.
    pub origin: Option<String>,
    pub now: Option<Millis>,
}

impl NewRun {
    /// The row of the run when it is created at `now`: nobody has driven it yet. Whoever is to have its
    /// lease must be live; see [`NewRun::left_to_others`].
    pub fn first_row(&self, now: Millis) -> RunRow {
        let (status, owner, epoch, started_at, ready_at, origin) = match &self.start {
            Start::Queued { at } => {
                let at = at.unwrap_or(now);
                (Status::Queued, None, 0, None, Some(at), at)
            }
            Start::Leased { owner } => {
                let owner = Some(owner.clone());
                (Status::Running, owner, 1, Some(now), None, now)
            }
        };
        RunRow {
            run_id: self.run_id.clone(),
            workflow: self.workflow.clone(),
            version: self.version.clone(),
            queue: self.queue.clone(),
            priority: self.priority,
            status,
            created_at: now,
            started_at: self.started_at.or(started_at),
            updated_at: now,
            finished_at: None,
            ready_at,
            owner,
            epoch,
            format: self.format(),
            journal_start: 0,
            journal_len: 1 + self.entries.len() as u64,
            generation: 0,
            inbox_len: 0,
            inbox_seen: 0,
            unread: 0,
            unread_bytes: 0,
            timeout: self.timeout,
            deadline: self.timeout.map(|timeout| origin.saturating_add(timeout)),
            lost: 0,
            lost_at: 0,
            waits: Vec::new(),
            tags: self.tags.clone(),
            seed: self.seed,
            note: None,
            parent: self.parent.clone(),
            root: self.root.clone(),
            origin: self.origin.clone(),
        }
    }

    /// The same run without a lease, due at once: its creator's lease has ended.
    #[must_use]
    pub fn left_to_others(&self) -> Self {
        Self {
            start: Start::Queued { at: None },
            ..self.clone()
        }
    }

    /// Entry 0 of its journal, recorded at `now`.
    pub fn first_entry(&self, now: Millis) -> Entry {
        let entry = Entry::new(Kind::RunCreated, "".into(), self.input.clone(), now);
        Entry {
            meta: self.meta.clone(),
            ..entry
        }
    }

    /// The least encoding that can read the journal it begins with.
    pub fn format(&self) -> u8 {
        let brought = self.entries.iter().map(|entry| entry.encoding).max();
        brought.unwrap_or(0).max(ENCODING_OF_A_CREATION)
    }
}

/// `run_created` without meta has been readable since the first build.
const ENCODING_OF_A_CREATION: u8 = 1;
const _: () = assert!(ENCODING_OF_A_CREATION <= ENCODING);

/// How a new run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Start {
    /// Left for any sweep or worker, at once or at an instant.
    Queued { at: Option<Millis> },
    /// Leased to its creator from the beginning: epoch 1, `started_at` set.
    Leased { owner: String },
}

/// The answer to a creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
// Rows are moved once, from the store's answer to whoever asked; boxing each would cost more.
#[allow(clippy::large_enum_variant)]
pub enum Created {
    Created {
        row: RunRow,
    },
    /// The id existed; nothing was changed.
    Exists {
        row: RunRow,
    },
    /// Somebody else's transaction is about to create that id, for longer than others should wait for it.
    /// Nothing was changed, and the same creation may be sent again.
    Blocked,
}

impl Created {
    /// Whether this call created the run.
    pub const fn is_new(&self) -> bool {
        matches!(self, Self::Created { .. })
    }

    /// The run's row, unless the creation was blocked.
    pub const fn row(&self) -> Option<&RunRow> {
        match self {
            Self::Created { row } | Self::Exists { row } => Some(row),
            Self::Blocked => None,
        }
    }
}
