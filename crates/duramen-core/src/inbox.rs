//! The inbox matcher: unread messages on one side, open waits on the other.
//!
//! A message ends the oldest wait of its key; a wait takes the oldest message of its key. Which
//! pair is next is decided by the message's sequence number alone, so the answer does not depend
//! on whether the message or the wait came first.

use std::collections::{BTreeMap, VecDeque};

use crate::store::{Message, ReadMessage};

/// A place in the machine's table of operations.
pub type Slot = u32;

/// Unread messages and the waits they can end.
#[derive(Debug, Default)]
pub struct Inbox {
    queues: BTreeMap<String, VecDeque<Message>>,
    waits: BTreeMap<String, VecDeque<Slot>>,
    /// Sequence number of the message at the head of each queue that some wait could take now.
    matches: BTreeMap<u64, String>,
    cancels: VecDeque<Message>,
    seen: u64,
    read: Vec<ReadMessage>,
}

/// A message that can be handed over now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Wait { slot: Slot, message: Message },
    Cancel { message: Message },
}

impl Match {
    pub const fn message(&self) -> &Message {
        match self {
            Self::Wait { message, .. } | Self::Cancel { message } => message,
        }
    }
}

impl Inbox {
    /// Messages up to this sequence number have been taken note of.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Everything up to this sequence number has been added or was read long ago.
    pub const fn saw(&mut self, seen: u64) {
        if seen > self.seen {
            self.seen = seen;
        }
    }

    /// Takes in unread messages; those already known are passed over.
    pub fn add(&mut self, message: Message) {
        if message.seq <= self.seen {
            return;
        }
        self.seen = self.seen.max(message.seq);
        let Some(key) = message.kind.wait_key(&message.name) else {
            self.cancels.push_back(message);
            return;
        };
        self.queues
            .entry(key.clone())
            .or_default()
            .push_back(message);
        self.refresh(&key);
    }

    /// A wait for `key` was opened.
    pub fn open(&mut self, key: &str, slot: Slot) {
        self.waits
            .entry(key.to_owned())
            .or_default()
            .push_back(slot);
        self.refresh(key);
    }

    /// A wait has ended in another way.
    pub fn close(&mut self, key: &str, slot: Slot) {
        if let Some(slots) = self.waits.get_mut(key) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.waits.remove(key);
            }
            self.refresh(key);
        }
    }

    /// The next message that can be handed over: cancellations first, then by order of arrival.
    pub fn next_match(&self) -> Option<Match> {
        if let Some(message) = self.cancels.front() {
            return Some(Match::Cancel {
                message: message.clone(),
            });
        }
        let key = self.matches.values().next()?;
        let message = self.queues.get(key)?.front()?.clone();
        let slot = *self.waits.get(key)?.front()?;
        Some(Match::Wait { slot, message })
    }

    /// The message was consumed (or, with a reason, set aside) and leaves the inbox.
    pub fn take(&mut self, message: &Message, refused: Option<String>) {
        self.read.push(ReadMessage {
            seq: message.seq,
            refused,
        });
        match message.kind.wait_key(&message.name) {
            None => {
                self.cancels.pop_front();
            }
            // What is handed over is always the head of its queue: no search, however long it is.
            Some(key) => {
                if let Some(queue) = self.queues.get_mut(&key) {
                    queue.pop_front();
                    if queue.is_empty() {
                        self.queues.remove(&key);
                    }
                }
                self.matches.remove(&message.seq);
                self.refresh(&key);
            }
        }
    }

    /// Whether messages were read since the last commit was built.
    pub const fn has_read(&self) -> bool {
        !self.read.is_empty()
    }

    /// What the next commit must say of the inbox.
    pub fn take_read(&mut self) -> Vec<ReadMessage> {
        std::mem::take(&mut self.read)
    }

    /// Keeps `matches` true for one key.
    fn refresh(&mut self, key: &str) {
        let Some(head) = self.queues.get(key).and_then(VecDeque::front) else {
            return;
        };
        if self.waits.contains_key(key) {
            self.matches.insert(head.seq, key.to_owned());
        } else {
            self.matches.remove(&head.seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Payload;
    use crate::store::MessageKind;

    fn event(seq: u64, name: &str) -> Message {
        Message {
            run_id: "r".into(),
            seq,
            message_id: format!("m{seq}"),
            kind: MessageKind::Event,
            name: name.into(),
            payload: Payload::new(),
            at: 0,
        }
    }

    fn next(inbox: &mut Inbox) -> Option<(Slot, u64)> {
        match inbox.next_match()? {
            Match::Wait { slot, message } => {
                inbox.take(&message, None);
                inbox.close(&format!("event:{}", message.name), slot);
                Some((slot, message.seq))
            }
            Match::Cancel { .. } => None,
        }
    }

    #[test]
    fn the_pairing_is_the_same_whether_messages_or_waits_come_first() {
        let mut early = Inbox::default();
        early.add(event(1, "b"));
        early.add(event(2, "a"));
        early.add(event(3, "a"));
        early.open("event:a", 10);
        early.open("event:a", 11);
        early.open("event:b", 12);
        let mut late = Inbox::default();
        late.open("event:a", 10);
        late.open("event:a", 11);
        late.open("event:b", 12);
        late.add(event(1, "b"));
        late.add(event(2, "a"));
        late.add(event(3, "a"));
        for inbox in [&mut early, &mut late] {
            assert_eq!(next(inbox), Some((12, 1)));
            assert_eq!(next(inbox), Some((10, 2)));
            assert_eq!(next(inbox), Some((11, 3)));
            assert_eq!(next(inbox), None);
        }
    }

    #[test]
    fn a_message_of_another_name_stays_unread() {
        let mut inbox = Inbox::default();
        inbox.open("event:a", 1);
        inbox.add(event(1, "b"));
        assert_eq!(inbox.next_match(), None);
        assert!(!inbox.has_read());
        assert_eq!(inbox.seen(), 1);
    }

    #[test]
    fn a_message_that_was_seen_is_not_taken_twice() {
        let mut inbox = Inbox::default();
        inbox.add(event(1, "a"));
        inbox.add(event(1, "a"));
        inbox.open("event:a", 1);
        inbox.open("event:a", 2);
        assert_eq!(next(&mut inbox), Some((1, 1)));
        assert_eq!(next(&mut inbox), None);
    }

    #[test]
    fn a_refused_message_leaves_and_the_wait_goes_on() {
        let mut inbox = Inbox::default();
        inbox.open("event:a", 1);
        inbox.add(event(1, "a"));
        inbox.add(event(2, "a"));
        inbox.take(&event(1, "a"), Some("not a number".into()));
        assert_eq!(next(&mut inbox), Some((1, 2)));
        assert_eq!(
            inbox.take_read(),
            [
                ReadMessage {
                    seq: 1,
                    refused: Some("not a number".into())
                },
                ReadMessage {
                    seq: 2,
                    refused: None
                }
            ]
        );
    }

    #[test]
    fn a_closed_wait_takes_nothing() {
        let mut inbox = Inbox::default();
        inbox.open("event:a", 1);
        inbox.close("event:a", 1);
        inbox.add(event(1, "a"));
        assert_eq!(inbox.next_match(), None);
        inbox.open("event:a", 2);
        assert_eq!(next(&mut inbox), Some((2, 1)));
    }
}
