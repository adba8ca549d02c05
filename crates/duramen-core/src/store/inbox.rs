//! Messages to runs.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, Payload, RunId};
use crate::run::Status;

/// The most unread messages of one run; a further one is refused to its sender. (Cancellations are not.)
pub const MAX_UNREAD: u64 = 10_000;

/// The most payload bytes of one run's unread messages.
pub const MAX_UNREAD_BYTES: u64 = 64 << 20;

/// The most messages of one run that come with a claim or with one look for unread ones.
pub const INBOX_PAGE: usize = 1_000;

/// The most payload bytes of these, but for one message.
pub const INBOX_PAGE_BYTES: usize = 8 << 20;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// An event; `name` is the event's name. Wait key `event:NAME`.
    Event,
    /// A decision; `name` is the approval id. Wait key `approval:ID`.
    Approval,
    /// A cancellation; reaches the run whatever it waits for.
    Cancel,
    /// A child has ended; `name` is its run id. Wait key `child:ID`.
    Child,
    /// An update; `name` is the update's name. Wait key `update:NAME`.
    Update,
    /// The run is to be paused; `name` says for people who wants it and why. A run at rest is paused at
    /// once, one that is driven by its driver. Unread as long as it holds.
    Pause,
    /// The pauses before it are over.
    Resume,
    /// Of a newer build, with its number: not for this one.
    Unknown(u8),
}

impl MessageKind {
    /// The number that stores keep; append-only.
    pub const fn code(self) -> u8 {
        match self {
            Self::Event => 0,
            Self::Approval => 1,
            Self::Cancel => 2,
            Self::Child => 3,
            Self::Update => 4,
            Self::Pause => 5,
            Self::Resume => 6,
            Self::Unknown(code) => code,
        }
    }

    /// The inverse of [`MessageKind::code`].
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Event,
            1 => Self::Approval,
            2 => Self::Cancel,
            3 => Self::Child,
            4 => Self::Update,
            5 => Self::Pause,
            6 => Self::Resume,
            other => Self::Unknown(other),
        }
    }

    /// The key of a wait that a message of this kind and name ends; none when it ends any.
    pub fn wait_key(self, name: &str) -> Option<String> {
        match self {
            Self::Event => Some(format!("event:{name}")),
            Self::Approval => Some(format!("approval:{name}")),
            Self::Child => Some(format!("child:{name}")),
            Self::Update => Some(format!("update:{name}")),
            Self::Cancel | Self::Pause | Self::Resume | Self::Unknown(_) => None,
        }
    }

    /// Whether it reaches a live run whatever that does.
    pub const fn reaches_any(self) -> bool {
        matches!(self, Self::Cancel | Self::Pause | Self::Resume)
    }

    /// Whether a paused run is paused no longer when it gets one.
    pub const fn frees(self) -> bool {
        matches!(self, Self::Cancel | Self::Resume)
    }

    /// Whether it makes a run in that status due (or reaches its driver), if the run waits for `key`, the message's
    /// own. A run that nobody has begun keeps its start time, but for a cancellation.
    pub fn makes_due(self, status: Status, waits_for_it: bool) -> bool {
        match status {
            Status::Running => self.reaches_any(),
            Status::Waiting => waits_for_it || matches!(self, Self::Cancel | Self::Resume),
            Status::Queued => matches!(self, Self::Cancel),
            Status::Paused => self.frees(),
            _ => false,
        }
    }
}

/// A message to put into a run's inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    pub run_id: RunId,
    /// The dedupe key within the run: a second message with it is a duplicate, for ever.
    pub message_id: String,
    pub kind: MessageKind,
    pub name: String,
    pub payload: Payload,
    /// A short text that is kept with the message and given back to a duplicate's sender, so that
    /// a contradicting second approval can be told from a repeated one.
    pub fingerprint: Option<String>,
    /// The least encoding that can read it; raises that of the run.
    pub encoding: u8,
    pub now: Option<Millis>,
}

impl NewMessage {
    /// Whether an inbox with so many unread messages, of so many bytes, has no room for it.
    pub const fn overfills(&self, unread: u64, bytes: u64) -> bool {
        !matches!(
            self.kind,
            MessageKind::Cancel | MessageKind::Pause | MessageKind::Resume | MessageKind::Child
        ) && (unread >= MAX_UNREAD
            || bytes.saturating_add(self.payload.len() as u64) > MAX_UNREAD_BYTES)
    }
}

/// A message in an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub run_id: RunId,
    /// 1 for the run's first message, then 2, 3 …
    pub seq: u64,
    pub message_id: String,
    pub kind: MessageKind,
    pub name: String,
    pub payload: Payload,
    /// The least encoding that can read it.
    pub encoding: u8,
    pub at: Millis,
}

/// Unread messages of one run, in order of arrival, as many as a page has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxPage {
    pub messages: Vec<Message>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// What became of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub result: Delivery,
    /// Of the first message with that id, for duplicates.
    pub fingerprint: Option<String>,
    /// Who drives the run, if anybody does, so that a driver in the same process can be told.
    pub owner: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Kept, and the run was waiting for it: it is due now.
    Delivered,
    /// Kept until the run asks for it.
    Buffered,
    /// A message with that id was there already; nothing changed.
    Duplicate,
    NotFound,
    /// The run has ended; nothing was kept.
    Finished,
    /// The run has as many unread messages as it may have ([`MAX_UNREAD`], [`MAX_UNREAD_BYTES`]); nothing
    /// was kept.
    Full,
    /// Somebody else's transaction holds the run, for longer than others should wait for it. Nothing was
    /// kept, and the same message may be sent again.
    Blocked,
}

/// What became of a message in its inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Receipt {
    Unread,
    /// With the answer that the commit which consumed it gave to its sender.
    Consumed {
        reply: Option<Payload>,
    },
    SetAside {
        reason: String,
    },
}
