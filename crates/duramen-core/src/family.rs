//! Parents and children: what a run tells the one that started it.

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use crate::derive::life;
use crate::ids::{Payload, RunId};
use crate::run::{Seed, Status};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Completed,
    Failed,
    Cancelled,
    Terminated,
    /// It was never started: its id is that of another run.
    Conflict,
    /// It was deleted before it had ended.
    Deleted,
}

impl Ended {
    const ALL: [Self; 6] = [
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Terminated,
        Self::Conflict,
        Self::Deleted,
    ];

    /// How a run with this status has ended; none if it has not.
    pub const fn of(status: Status) -> Option<Self> {
        match status {
            Status::Completed => Some(Self::Completed),
            Status::Failed => Some(Self::Failed),
            Status::Cancelled => Some(Self::Cancelled),
            Status::Terminated => Some(Self::Terminated),
            Status::Queued | Status::Running | Status::Waiting | Status::Stuck | Status::Paused => {
                None
            }
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Terminated => "terminated",
            Self::Conflict => "conflict",
            Self::Deleted => "deleted",
        }
    }

    /// The first byte of the message: stored, so append and never change.
    const fn code(self) -> u8 {
        match self {
            Self::Completed => b'c',
            Self::Failed => b'f',
            Self::Cancelled => b'x',
            Self::Terminated => b't',
            Self::Conflict => b'o',
            Self::Deleted => b'd',
        }
    }
}

/// The end of a run, as its parent is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub ended: Ended,
    /// The output, the recorded error or the reason.
    pub payload: Payload,
}

impl End {
    /// As the payload of a message.
    pub fn to_payload(&self) -> Payload {
        let mut bytes = BytesMut::with_capacity(1 + self.payload.len());
        bytes.put_u8(self.ended.code());
        bytes.extend_from_slice(&self.payload);
        bytes.freeze()
    }

    /// The inverse; none if it is not such a payload.
    pub fn from_payload(payload: &Payload) -> Option<Self> {
        let code = *payload.first()?;
        let ended = Ended::ALL.into_iter().find(|each| each.code() == code)?;
        Some(Self {
            ended,
            payload: payload.slice(1..),
        })
    }
}

/// The id of the message that tells of an end, which its place in the child's journal (or what else is there
/// once) tells from another end of the same life: a run that was retried ends again.
pub fn message_id(child: &Seed, place: &str) -> String {
    format!("{}{place}", message_ids(&life(child)))
}

/// What the ids of all such messages of one life begin with.
pub fn message_ids(life: &str) -> String {
    format!("child:{life}:")
}

/// The id of a child whose parent gave it none. The journals of later generations begin anew, and so do the ids
/// of their operations.
pub fn child_id(parent: &RunId, generation: u64, op: &str) -> String {
    match generation {
        0 => format!("{parent}/{op}"),
        later => format!("{parent}/{op}@{later}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_comes_back_as_it_was_told() {
        for ended in Ended::ALL {
            let end = End {
                ended,
                payload: Payload::from_static(b"\x00{"),
            };
            assert_eq!(End::from_payload(&end.to_payload()), Some(end));
        }
        assert_eq!(End::from_payload(&Payload::new()), None);
        assert_eq!(End::from_payload(&Payload::from_static(b"?")), None);
    }

    #[test]
    fn two_lives_of_an_id_tell_with_other_ids() {
        assert_ne!(message_id(&[1; 16], "3"), message_id(&[2; 16], "3"));
        let mut again = [1; 16];
        again[15] = 7;
        assert_eq!(message_id(&[1; 16], "3"), message_id(&again, "3"));
        assert!(!message_id(&[1; 16], "3").contains("0101"));
    }

    #[test]
    fn children_of_two_generations_have_ids_of_their_own() {
        assert_eq!(child_id(&"p".into(), 0, "child-1"), "p/child-1");
        assert_eq!(child_id(&"p".into(), 2, "child-1"), "p/child-1@2");
    }
}
