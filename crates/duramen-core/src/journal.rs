//! Journal entries: what replay reads, and their stored form.
//!
//! A stored [`Entry`] is flat: a kind, the operation's id, a small `meta` text that belongs to
//! Duramen and a payload that belongs to the user.
//!
//! **Who can read an entry.** Its `encoding` is the least number of a build that understands it, and the
//! run's row has the highest of its journal and inbox ([`crate::run::RunRow::format`]): claims take only what
//! they can read. A later build that adds a field to `meta` decides what the field is: one that older
//! builds may pass over is written with the encoding as it was (unknown fields are passed over); one that
//! must be understood, like a new kind, is written with a higher one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::family::Ended;
use crate::ids::{Millis, OpId, Payload, RunId};

/// The highest encoding that this build reads; what it writes needs no more. (With the feature, for tests
/// of builds side by side, this build plays a newer one.)
pub const ENCODING: u8 = if cfg!(feature = "newer-format") { 2 } else { 1 };

/// What an entry records. The numbers are stored: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Always entry 0; its payload is the run's input.
    RunCreated,
    StepCompleted,
    StepFailed,
    StepAttemptFailed,
    WaitOpened,
    EventReceived,
    TimerFired,
    ApprovalRequested,
    ApprovalResolved,
    ValueRecorded,
    ChildStarted,
    ChildFinished,
    PatchMarked,
    CancelRequested,
    RunFinished,
    RunFailed,
    RunCancelled,
    RunTerminated,
    /// `retry` reopened the run; its meta says which failure it takes back.
    RunReopened,
    /// The handler sent a message to another run; its payload is the message's.
    MessageSent,
    /// The run took an update on; its payload is the update's.
    UpdateAccepted,
    /// An update has been applied, or its function has failed.
    UpdateFinished,
    /// The handler wrote an item of a stream.
    StreamWritten,
    /// What an attempt of a step told of its progress, for the next one. The handler is not told.
    StepProgress,
    /// The run was parked, and something left it with that.
    RunParked,
    /// Of a newer build, with its number: not for this one.
    Unknown(u8),
}

impl Kind {
    pub const ALL: [Self; 25] = [
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
        Self::MessageSent,
        Self::UpdateAccepted,
        Self::UpdateFinished,
        Self::StreamWritten,
        Self::StepProgress,
        Self::RunParked,
    ];

    /// The number that stores keep.
    pub const fn code(self) -> u8 {
        match self {
            Self::RunCreated => 0,
            Self::StepCompleted => 1,
            Self::StepFailed => 2,
            Self::StepAttemptFailed => 3,
            Self::WaitOpened => 4,
            Self::EventReceived => 5,
            Self::TimerFired => 6,
            Self::ApprovalRequested => 7,
            Self::ApprovalResolved => 8,
            Self::ValueRecorded => 9,
            Self::ChildStarted => 10,
            Self::ChildFinished => 11,
            Self::PatchMarked => 12,
            Self::CancelRequested => 13,
            Self::RunFinished => 14,
            Self::RunFailed => 15,
            Self::RunCancelled => 16,
            Self::RunTerminated => 17,
            Self::RunReopened => 18,
            Self::MessageSent => 19,
            Self::UpdateAccepted => 20,
            Self::UpdateFinished => 21,
            Self::StreamWritten => 22,
            Self::StepProgress => 23,
            Self::RunParked => 24,
            Self::Unknown(code) => code,
        }
    }

    /// The inverse of [`Kind::code`].
    pub fn from_code(code: u8) -> Self {
        Self::ALL
            .get(usize::from(code))
            .copied()
            .unwrap_or(Self::Unknown(code))
    }

    /// The least encoding that has entries of this kind, written as this build writes them.
    pub const fn encoding(self) -> u8 {
        match self {
            Self::Unknown(_) => ENCODING,
            Self::ValueRecorded if cfg!(feature = "newer-format") => 2,
            _ => 1,
        }
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
            Self::MessageSent => "message_sent",
            Self::UpdateAccepted => "update_accepted",
            Self::UpdateFinished => "update_finished",
            Self::StreamWritten => "stream_written",
            Self::StepProgress => "step_progress",
            Self::RunParked => "run_parked",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Its name; of one that this build does not know, its number.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(code) => write!(f, "kind {code}"),
            known => f.write_str(known.name()),
        }
    }
}

/// One journal entry as stores keep it. Its index is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The least encoding of a build that understands it.
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

/// The facts beside the payload. Absent fields are not written; an entry without any has no meta. Fields
/// that this build does not know may be passed over: the encoding would be higher otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// No attempt is left, and the run is paused: `retry` gives the step fresh ones.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exhausted: bool,
    /// Somebody has given the step this result in place of its function.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// What the run had done was undone before it ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub undone: bool,
    /// Index of the failure that ended the run (in `run_failed`), or that is taken back (in `run_reopened`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<u64>,
    /// The other run: a child, or whom a message went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The child's workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// How a child ended, if it has not completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// The stream that was written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What a schedule started the run for (in `run_created`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick: Option<Tick>,
    /// Of an update: its function raised, and the payload is the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
}

impl Meta {
    /// As it stands in an entry; none if there is nothing to say.
    pub fn text(&self) -> Option<String> {
        if *self == Self::default() {
            None
        } else {
            // A struct of numbers and strings always serialises.
            serde_json::to_string(self).ok()
        }
    }
}

/// A fire time of a schedule, as the run that it started sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    pub schedule: String,
    pub at: Millis,
    /// The fire time before it that started a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Millis>,
}

impl Entry {
    pub fn new(kind: Kind, op: OpId, payload: Payload, at: Millis) -> Self {
        Self {
            encoding: kind.encoding(),
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
        self.meta = meta.text();
        self
    }

    /// Refuses an entry that only a newer build understands.
    pub const fn check_readable(&self) -> Result<(), BadEntry> {
        match (self.kind, self.encoding) {
            (_, found) if found > ENCODING => Err(BadEntry::Newer { found }),
            (Kind::Unknown(code), _) => Err(BadEntry::Kind { code }),
            _ => Ok(()),
        }
    }

    /// Reads `meta`; an entry without one has only defaults.
    pub fn meta(&self) -> Result<Meta, BadEntry> {
        self.check_readable()?;
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

/// An entry that this build cannot read. A run with a newer one is left to those who can read it; a damaged one
/// parks its run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    #[error(
        "a journal entry has encoding {found}, this build reads up to {ENCODING}; upgrade duramen"
    )]
    Newer { found: u8 },
    #[error("a journal entry has the kind {code}, which no build knows in its encoding")]
    Kind { code: u8 },
    #[error("the meta of a {kind} entry cannot be read: {reason}")]
    Meta { kind: &'static str, reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_codes_are_their_places_and_round_trip() {
        for code in 0..=u8::MAX {
            let kind = Kind::from_code(code);
            assert_eq!(kind.code(), code);
            assert_eq!(
                Kind::ALL.contains(&kind),
                usize::from(code) < Kind::ALL.len()
            );
        }
        assert_eq!(Kind::from_code(18), Kind::RunReopened);
        assert_eq!(Kind::from_code(25), Kind::Unknown(25));
        assert_eq!(Kind::from_code(25).to_string(), "kind 25");
        assert_eq!(Kind::RunReopened.to_string(), "run_reopened");
    }

    #[test]
    fn a_field_of_a_newer_build_is_passed_over_unless_its_entry_must_be_understood() {
        let mut entry = Entry::new(Kind::StepFailed, "a".into(), Payload::new(), 0);
        entry.meta = Some(r#"{"attempt":2,"weather":{"sun":true}}"#.into());
        assert_eq!(entry.meta().unwrap().attempt, Some(2));
        entry.encoding = ENCODING + 1;
        assert_eq!(
            entry.meta(),
            Err(BadEntry::Newer {
                found: ENCODING + 1
            })
        );
        entry.encoding = ENCODING;
        entry.kind = Kind::Unknown(200);
        assert_eq!(entry.meta(), Err(BadEntry::Kind { code: 200 }));
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
    fn a_tick_of_a_schedule_stands_in_the_meta_of_the_first_entry() {
        let tick = Tick {
            schedule: "nightly".to_owned(),
            at: 60_000,
            previous: None,
        };
        let meta = Meta {
            tick: Some(tick),
            ..Meta::default()
        };
        let text = meta.text().unwrap();
        assert_eq!(text, r#"{"tick":{"schedule":"nightly","at":60000}}"#);
        let mut entry = Entry::new(Kind::RunCreated, "".into(), Payload::new(), 0);
        entry.meta = Some(text);
        assert_eq!(entry.meta(), Ok(meta));
    }

    #[test]
    fn a_newer_encoding_and_a_broken_meta_are_typed_errors() {
        let mut entry = Entry::new(Kind::TimerFired, "a".into(), Payload::new(), 0);
        entry.meta = Some("{".into());
        assert!(matches!(entry.meta(), Err(BadEntry::Meta { .. })));
        entry.encoding = ENCODING + 1;
        assert_eq!(
            entry.meta(),
            Err(BadEntry::Newer {
                found: ENCODING + 1
            })
        );
    }
}
