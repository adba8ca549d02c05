//! Journal entries: what replay reads, and their stored form.
//!
//! A stored [`Entry`] is flat: a kind, the operation's id, a small `meta` text that belongs to
//! Duramen and a payload that belongs to the user. [`ENCODING`] numbers the meaning of `kind` and
//! `meta`; it is stored with every entry, so that a later build can tell old entries from new ones.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, OpId, Payload};

/// The encoding version this build writes.
pub const ENCODING: u8 = 1;

/// What an entry records. The numbers are stored: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// Always entry 0; its payload is the run's input.
    RunCreated = 0,
    StepCompleted = 1,
    StepFailed = 2,
    StepAttemptFailed = 3,
    WaitOpened = 4,
    EventReceived = 5,
    TimerFired = 6,
    ApprovalRequested = 7,
    ApprovalResolved = 8,
    ValueRecorded = 9,
    ChildStarted = 10,
    ChildFinished = 11,
    PatchMarked = 12,
    CancelRequested = 13,
    RunFinished = 14,
    RunFailed = 15,
    RunCancelled = 16,
    RunTerminated = 17,
    /// `retry` reopened the run; its meta says which failure it takes back.
    RunReopened = 18,
}

impl Kind {
    pub const ALL: [Self; 19] = [
        Self::RunCreated,
        Self::StepCompleted,
        Self::StepFailed,
        Self::StepAttemptFailed,
        Self::WaitOpened,
        Self::EventReceived,
        Self::TimerFired,
        Self::ApprovalRequested,
        Self::ApprovalResolved,
        Self::ValueRecorded,
        Self::ChildStarted,
        Self::ChildFinished,
        Self::PatchMarked,
        Self::CancelRequested,
        Self::RunFinished,
        Self::RunFailed,
        Self::RunCancelled,
        Self::RunTerminated,
        Self::RunReopened,
    ];

    /// The number that stores keep.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The inverse of [`Kind::code`].
    pub fn from_code(code: i64) -> Option<Self> {
        usize::try_from(code)
            .ok()
            .and_then(|index| Self::ALL.get(index).copied())
    }

    /// The name in timelines, events and differences.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RunCreated => "run_created",
            Self::StepCompleted => "step_completed",
            Self::StepFailed => "step_failed",
            Self::StepAttemptFailed => "step_attempt_failed",
            Self::WaitOpened => "wait_opened",
            Self::EventReceived => "event_received",
            Self::TimerFired => "timer_fired",
            Self::ApprovalRequested => "approval_requested",
            Self::ApprovalResolved => "approval_resolved",
            Self::ValueRecorded => "value_recorded",
            Self::ChildStarted => "child_started",
            Self::ChildFinished => "child_finished",
            Self::PatchMarked => "patch_marked",
            Self::CancelRequested => "cancel_requested",
            Self::RunFinished => "run_finished",
            Self::RunFailed => "run_failed",
            Self::RunCancelled => "run_cancelled",
            Self::RunTerminated => "run_terminated",
            Self::RunReopened => "run_reopened",
        }
    }
}

/// One journal entry as stores keep it. Its index is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`ENCODING`] of the build that wrote it.
    pub encoding: u8,
    pub kind: Kind,
    /// The operation it belongs to; empty for entries of the run itself.
    pub op: OpId,
    /// Duramen's own facts about the entry, as JSON; see [`Meta`].
    pub meta: Option<String>,
    pub payload: Payload,
    /// When it was recorded, by the store's clock.
    pub at: Millis,
}

/// The facts beside the payload. Absent fields are not written; an entry without any has no meta.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Meta {
    /// The attempt that ended so (1 for the first); written from the second on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Millis>,
    /// The wait's key, as in [`crate::run::RunRow::waits`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Millis>,
    /// The id of the message that was consumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Index of the failure that ended the run (in `run_failed`), or that is taken back (in `run_reopened`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<u64>,
}

impl Entry {
    pub fn new(kind: Kind, op: OpId, payload: Payload, at: Millis) -> Self {
        Self {
            encoding: ENCODING,
            kind,
            op,
            meta: None,
            payload,
            at,
        }
    }

    /// The same entry with `meta` written into it.
    #[must_use]
    pub fn with_meta(mut self, meta: &Meta) -> Self {
        self.meta = if *meta == Meta::default() {
            None
        } else {
            // A struct of numbers and strings always serialises.
            serde_json::to_string(meta).ok()
        };
        self
    }

    /// Reads `meta`; an entry without one has only defaults.
    pub fn meta(&self) -> Result<Meta, BadEntry> {
        if self.encoding > ENCODING {
            return Err(BadEntry::Newer {
                found: self.encoding,
            });
        }
        self.meta.as_deref().map_or_else(
            || Ok(Meta::default()),
            |text| {
                serde_json::from_str(text).map_err(|error| BadEntry::Meta {
                    kind: self.kind.name(),
                    reason: error.to_string(),
                })
            },
        )
    }
}

/// An entry that this build cannot read. The run that has it is parked, not failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    #[error(
        "a journal entry has encoding {found}, this build reads up to {ENCODING}; upgrade duramen"
    )]
    Newer { found: u8 },
    #[error("the meta of a {kind} entry cannot be read: {reason}")]
    Meta { kind: &'static str, reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_codes_are_their_places_and_round_trip() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.code()), index);
            assert_eq!(Kind::from_code(i64::from(kind.code())), Some(kind));
        }
        assert_eq!(Kind::from_code(19), None);
        assert_eq!(Kind::from_code(-1), None);
    }

    #[test]
    fn an_entry_without_facts_has_no_meta() {
        let entry = Entry::new(
            Kind::StepCompleted,
            "a".into(),
            Payload::from_static(b"1"),
            5,
        );
        assert_eq!(entry.clone().with_meta(&Meta::default()).meta, None);
        let meta = Meta {
            attempt: Some(2),
            ..Meta::default()
        };
        let entry = entry.with_meta(&meta);
        assert_eq!(entry.meta.as_deref(), Some(r#"{"attempt":2}"#));
        assert_eq!(entry.meta(), Ok(meta));
    }

    #[test]
    fn a_newer_encoding_and_a_broken_meta_are_typed_errors() {
        let mut entry = Entry::new(Kind::TimerFired, "a".into(), Payload::new(), 0);
        entry.meta = Some("{".into());
        assert!(matches!(entry.meta(), Err(BadEntry::Meta { .. })));
        entry.encoding = ENCODING + 1;
        assert_eq!(entry.meta(), Err(BadEntry::Newer { found: 2 }));
    }
}
