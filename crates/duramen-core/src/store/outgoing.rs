//! What leaves a run with a commit and is carried out after it: children, messages. (Items of streams stay with their run:
//! they come with the commit, see [`super::RunCommit::written`].)
//!
//! The items of a commit are kept by the same transaction. Whoever made the commit carries them out, one
//! after the other, and reports them as sent; if it dies, anybody does who asks for what is still unsent.
//! Carrying an item out twice does no harm: each is idempotent at its target (a run's id, a message's
//! id). So they need no lease of their own, and no transaction touches two runs. A run that has
//! ended is not forgotten by this: its items stand by themselves until the last one is out.

use serde::{Deserialize, Serialize};

use super::{Inquiry, NewMessage, NewRun};
use crate::ids::{Millis, Payload, RunId};

/// What an outgoing item is. The numbers are stored: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutgoingKind {
    /// A run to create.
    Start,
    /// A message to another run.
    Message,
    /// A question to a child about its end.
    Inquiry,
}

impl OutgoingKind {
    /// The number that stores keep; append-only.
    pub const fn code(self) -> i64 {
        match self {
            Self::Start => 0,
            Self::Message => 1,
            Self::Inquiry => 2,
        }
    }

    /// The inverse of [`OutgoingKind::code`].
    pub const fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Start,
            1 => Self::Message,
            2 => Self::Inquiry,
            _ => return None,
        })
    }
}

/// An item as a commit brings it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    pub kind: OutgoingKind,
    /// The run that it is for.
    pub target: RunId,
    /// Opaque to the store.
    pub body: Payload,
}

impl Outgoing {
    /// A run to create.
    pub fn start(run: &NewRun) -> Self {
        Self {
            kind: OutgoingKind::Start,
            target: run.run_id.clone(),
            body: body(run),
        }
    }

    /// A message to another run.
    pub fn message(message: &NewMessage) -> Self {
        Self {
            kind: OutgoingKind::Message,
            target: message.run_id.clone(),
            body: body(message),
        }
    }

    /// A question to a child.
    pub fn inquiry(inquiry: &Inquiry) -> Self {
        Self {
            kind: OutgoingKind::Inquiry,
            target: inquiry.child.clone(),
            body: body(inquiry),
        }
    }
}

/// What is sent, as JSON. A struct of numbers, texts and bytes always serialises.
fn body(item: &impl Serialize) -> Payload {
    serde_json::to_vec(item).map_or_else(|_| Payload::new(), Payload::from)
}

/// What an item asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
// Each is moved once, into the call that carries it out.
#[allow(clippy::large_enum_variant)]
pub enum Errand {
    Start(NewRun),
    Message(NewMessage),
    Inquiry(Inquiry),
}

/// An item that is kept. Run, entry and number say which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    pub run_id: RunId,
    /// `expected_len` of its commit.
    pub entry: u64,
    /// Its place among the items of that commit, from 0.
    pub number: u32,
    pub kind: OutgoingKind,
    pub target: RunId,
    pub body: Payload,
    /// `at` of its commit.
    pub at: Millis,
}

impl Unsent {
    /// What is to be done: the inverse of [`Outgoing::start`] and its neighbours.
    pub fn errand(&self) -> Result<Errand, BadItem> {
        let bad = |error: serde_json::Error| BadItem {
            run_id: self.run_id.clone(),
            entry: self.entry,
            reason: error.to_string(),
        };
        Ok(match self.kind {
            OutgoingKind::Start => Errand::Start(serde_json::from_slice(&self.body).map_err(bad)?),
            OutgoingKind::Message => {
                Errand::Message(serde_json::from_slice(&self.body).map_err(bad)?)
            }
            OutgoingKind::Inquiry => {
                Errand::Inquiry(serde_json::from_slice(&self.body).map_err(bad)?)
            }
        })
    }
}

/// An item that this build cannot read; another may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what left run {run_id} with its entry {entry} cannot be read: {reason}")]
pub struct BadItem {
    run_id: RunId,
    entry: u64,
    reason: String,
}

/// A question for items that are still to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsentAsk {
    /// Only items of commits made at this instant or before: those who made later ones are at it.
    pub before: Millis,
    /// Only items of this run.
    pub run_id: Option<RunId>,
    pub limit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE};
    use crate::store::{MessageKind, Start};

    fn kept(item: Outgoing) -> Unsent {
        Unsent {
            run_id: "parent".into(),
            entry: 3,
            number: 0,
            kind: item.kind,
            target: item.target,
            body: item.body,
            at: 5,
        }
    }

    #[test]
    fn a_run_and_a_message_come_back_as_they_were_sent() {
        let run = NewRun {
            run_id: "child".into(),
            workflow: "w".into(),
            version: "1".into(),
            queue: DEFAULT_QUEUE.into(),
            priority: DEFAULT_PRIORITY,
            input: Payload::from_static(b"\x00\xff{"),
            meta: None,
            entries: Vec::new(),
            started_at: None,
            start: Start::Queued { at: Some(7) },
            tags: vec!["a".into()],
            memo: None,
            timeout: Some(9),
            seed: [3; 16],
            parent: Some("parent".into()),
            root: Some("parent".into()),
            origin: None,
            now: None,
        };
        let item = kept(Outgoing::start(&run));
        assert_eq!(item.target, run.run_id);
        assert_eq!(item.errand(), Ok(Errand::Start(run)));
        let message = NewMessage {
            run_id: "other".into(),
            message_id: "m".into(),
            kind: MessageKind::Event,
            name: "x".into(),
            payload: Payload::from_static(b"1"),
            fingerprint: None,
            encoding: 1,
            now: None,
        };
        let item = kept(Outgoing::message(&message));
        assert_eq!(item.target, message.run_id);
        assert_eq!(item.errand(), Ok(Errand::Message(message)));
    }

    #[test]
    fn what_cannot_be_read_says_where_it_is_from() {
        let item = kept(Outgoing {
            kind: OutgoingKind::Message,
            target: "x".into(),
            body: Payload::from_static(b"{}"),
        });
        let error = item.errand().unwrap_err().to_string();
        assert!(
            error.contains("parent") && error.contains("entry 3"),
            "{error}"
        );
    }
}
