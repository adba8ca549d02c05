//! The inbox matcher: unread messages on one side, open waits on the other.
//!
//! A message ends the oldest wait of its key; a wait takes the oldest message of its key. Which
//! pair is next is decided by the message's sequence number alone, so the answer does not depend
//! on whether the message or the wait came first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::ids::Payload;
use crate::store::{Message, MessageKind, ReadMessage};

/// A place in the machine's table of operations; later requests have greater ones.
pub type Slot = u32;

/// Unread messages and the waits they can end.
#[derive(Debug, Default)]
pub struct Inbox {
    channels: BTreeMap<Arc<str>, Channel>,
    /// Sequence number of the message at the head of each channel that some wait could take now.
    matches: BTreeMap<u64, Arc<str>>,
    cancels: VecDeque<Message>,
    /// Pauses and their ends, by sequence number. A pause stays unread for as long as it holds.
    pauses: BTreeMap<u64, Message>,
    /// Those up to this number are over.
    freed: u64,
    seen: u64,
    /// What the store has been told of `seen`.
    told: u64,
    /// Messages up to this number are on their way.
    expected: u64,
    /// The first message that is not for this build: it stays unseen, and with it what came behind it.
    barrier: Option<u64>,
    /// Messages that came before an earlier one did: notices of several senders may overtake each other.
    ahead: BTreeSet<u64>,
    read: Vec<ReadMessage>,
    offered: Option<Offer>,
    /// Where the unread updates wait, by the ids of their messages.
    updates: BTreeMap<String, (Arc<str>, u64)>,
    /// Updates that were taken on and are to be answered, by the ids of their messages. Without a number:
    /// the message has not come (again) yet, or was read long ago.
    taken_on: BTreeMap<String, Option<u64>>,
}

/// A message that is being checked against what a wait expects.
#[derive(Debug)]
struct Offer {
    slot: Slot,
    seq: u64,
    key: Arc<str>,
}

/// The messages of one key by sequence number, and the waits for it, oldest first.
#[derive(Debug, Default)]
struct Channel {
    queue: BTreeMap<u64, Message>,
    waits: BTreeSet<Slot>,
}

/// A message that can be handed over now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match<'a> {
    /// The wait it ends; none for a cancellation.
    pub slot: Option<Slot>,
    pub message: &'a Message,
}

impl Inbox {
    /// All messages up to this sequence number have been taken note of.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// What the store does not know yet of what was seen.
    pub fn news(&self) -> Option<u64> {
        (self.seen > self.told).then_some(self.seen)
    }

    /// The same, for the next commit: it will be known.
    pub fn take_news(&mut self) -> Option<u64> {
        let news = self.news();
        self.told = self.told.max(self.seen);
        news
    }

    /// The store knows that messages up to this number were seen.
    pub const fn store_knows(&mut self, seen: u64) {
        self.told = seen;
    }

    /// Unread messages up to `last` came with a claim; those up to `expected` are still to come.
    pub fn expect(&mut self, last: u64, expected: u64) {
        self.saw(last);
        self.expected = self.expected.max(expected);
    }

    /// Unread messages up to `last` came with a page; without any `more`, none is left behind.
    pub fn saw_page(&mut self, last: u64, more: bool) {
        self.saw(if more { last } else { last.max(self.expected) });
    }

    /// A message that this build cannot read: the run is due for whoever can as soon as it is let go.
    pub fn leave(&mut self, seq: u64) {
        self.barrier = Some(self.barrier.map_or(seq, |first| first.min(seq)));
    }

    /// Whether every message is here that was there when the run was claimed.
    pub const fn is_whole(&self) -> bool {
        self.seen >= self.expected
    }

    /// Everything up to this sequence number has been added or was read long ago.
    pub fn saw(&mut self, seen: u64) {
        let seen = self
            .barrier
            .map_or(seen, |first| seen.min(first.saturating_sub(1)));
        self.seen = self.seen.max(seen);
        self.ahead = self.ahead.split_off(&(self.seen + 1));
        self.close_ranks();
    }

    /// Takes in an unread message; one that is known already is passed over.
    pub fn add(&mut self, message: Message) {
        if message.seq <= self.seen || !self.ahead.insert(message.seq) {
            return;
        }
        self.close_ranks();
        if message.kind == MessageKind::Update
            && let Some(number) = self.taken_on.get_mut(&message.message_id)
        {
            *number = Some(message.seq);
            return;
        }
        let Some(key) = message.kind.wait_key(&message.name) else {
            if matches!(message.kind, MessageKind::Pause | MessageKind::Resume) {
                self.pause_or_resume(message);
            } else {
                self.cancels.push_back(message);
            }
            return;
        };
        if !self.channels.contains_key(&*key) {
            self.channels
                .insert(key.as_str().into(), Channel::default());
        }
        if let Some((name, _)) = self.channels.get_key_value(&*key)
            && message.kind == MessageKind::Update
        {
            let place = (name.clone(), message.seq);
            self.updates.insert(message.message_id.clone(), place);
        }
        if let Some(channel) = self.channels.get_mut(&*key) {
            channel.queue.insert(message.seq, message);
        }
        self.refresh(&key);
    }

    fn pause_or_resume(&mut self, message: Message) {
        let (seq, resumes) = (message.seq, message.kind == MessageKind::Resume);
        self.pauses.insert(seq, message);
        // What ends them may have overtaken them.
        self.end_pauses(if resumes { seq } else { self.freed });
    }

    /// Those up to that number are read: they hold no longer.
    fn end_pauses(&mut self, upto: u64) {
        self.freed = self.freed.max(upto);
        let rest = self.pauses.split_off(&(self.freed + 1));
        for seq in std::mem::replace(&mut self.pauses, rest).into_keys() {
            self.read.push(ReadMessage {
                seq,
                refused: None,
                reply: None,
            });
        }
    }

    /// The pause that holds, if no cancellation is to be told first.
    pub fn pause(&self) -> Option<&Message> {
        let (_, first) = self.pauses.first_key_value()?;
        self.cancels.is_empty().then_some(first)
    }

    /// Whether a cancellation is to be told.
    pub fn has_cancel(&self) -> bool {
        !self.cancels.is_empty()
    }

    /// A gap may have been filled: only what is known without one counts as seen, so that the
    /// store makes the run due again for the rest.
    fn close_ranks(&mut self) {
        while self.ahead.remove(&(self.seen + 1)) {
            self.seen += 1;
        }
    }

    /// A wait for `key` was opened.
    pub fn open(&mut self, key: &Arc<str>, slot: Slot) {
        self.channels
            .entry(key.clone())
            .or_default()
            .waits
            .insert(slot);
        self.refresh(key);
    }

    /// A wait has ended, by a message or in another way. A message that was on offer to it stays for the
    /// next one.
    pub fn close(&mut self, key: &str, slot: Slot) {
        if self
            .offered
            .as_ref()
            .is_some_and(|offer| offer.slot == slot)
        {
            self.offered = None;
        }
        if let Some(channel) = self.channels.get_mut(key) {
            channel.waits.remove(&slot);
            self.refresh(key);
        }
    }

    /// The next message that can be handed over: cancellations first, then by order of arrival.
    pub fn next_match(&self) -> Option<Match<'_>> {
        if let Some(message) = self.cancels.front() {
            return Some(Match {
                slot: None,
                message,
            });
        }
        let (seq, key) = self.matches.first_key_value()?;
        let channel = self.channels.get(key)?;
        Some(Match {
            slot: Some(*channel.waits.first()?),
            message: channel.queue.get(seq)?,
        })
    }

    /// The message that this wait would get, if it can be handed over now.
    pub fn match_of(&self, key: &str, slot: Slot) -> Option<&Message> {
        let channel = self.channels.get(key)?;
        if channel.waits.first() != Some(&slot) {
            return None;
        }
        channel.queue.values().next()
    }

    /// Whether [`Inbox::next_match`] has something.
    pub fn has_match(&self) -> bool {
        !self.cancels.is_empty() || !self.matches.is_empty()
    }

    /// Offers the wait its message, which stays here until the offer is answered.
    pub fn offer(&mut self, key: &str, slot: Slot) -> Option<Message> {
        let message = self.match_of(key, slot)?.clone();
        let (key, _) = self.channels.get_key_value(key)?;
        self.offered = Some(Offer {
            slot,
            seq: message.seq,
            key: key.clone(),
        });
        Some(message)
    }

    /// Whether a message is on offer.
    pub const fn is_offering(&self) -> bool {
        self.offered.is_some()
    }

    /// The offered message was taken, or with a reason set aside. None if the offer is off.
    pub fn answer(&mut self, refused: Option<String>) -> Option<(Slot, Message)> {
        let Offer { slot, seq, key } = self.offered.take()?;
        Some((slot, self.take(&key, seq, refused)?))
    }

    /// The offer is off; the message stays.
    pub fn withdraw(&mut self) {
        self.offered = None;
    }

    /// A message for `key` was consumed (or, with a reason, set aside) and leaves the inbox.
    pub fn take(&mut self, key: &str, seq: u64, refused: Option<String>) -> Option<Message> {
        let message = self.remove(key, seq)?;
        self.read.push(ReadMessage {
            seq,
            refused,
            reply: None,
        });
        Some(message)
    }

    /// A message for `key` leaves its channel.
    fn remove(&mut self, key: &str, seq: u64) -> Option<Message> {
        let message = self.channels.get_mut(key)?.queue.remove(&seq)?;
        if message.kind == MessageKind::Update {
            self.updates.remove(&message.message_id);
        }
        self.matches.remove(&seq);
        self.refresh(key);
        Some(message)
    }

    /// The wait that a message is on offer to.
    pub fn offered_to(&self) -> Option<Slot> {
        self.offered.as_ref().map(|offer| offer.slot)
    }

    /// The offered update was accepted: nobody else gets it, and it stays unread until it is answered.
    pub fn take_on_offered(&mut self) -> Option<Message> {
        let Offer { seq, key, .. } = self.offered.take()?;
        let message = self.remove(&key, seq)?;
        self.taken_on.insert(message.message_id.clone(), Some(seq));
        Some(message)
    }

    /// The same of an update that the journal has, by its message's id.
    pub fn take_on(&mut self, message_id: &str) {
        let place = self.updates.get(message_id).cloned();
        let message = place.and_then(|(key, seq)| self.remove(&key, seq));
        let number = message.map(|message| message.seq);
        self.taken_on.insert(message_id.to_owned(), number);
    }

    /// Whether the number of the message is known, or that there is none to be answered.
    pub fn can_answer(&self, message_id: &str) -> bool {
        self.is_whole() || matches!(self.taken_on.get(message_id), Some(Some(_)))
    }

    /// An update that was taken on is answered, and read with that.
    pub fn reply(&mut self, message_id: &str, reply: Payload) {
        if let Some(Some(seq)) = self.taken_on.remove(message_id) {
            self.read.push(ReadMessage {
                seq,
                refused: None,
                reply: Some(reply),
            });
        }
    }

    /// The journal has its answer.
    pub fn was_answered(&mut self, message_id: &str) {
        self.taken_on.remove(message_id);
    }

    /// The oldest cancellation was consumed.
    pub fn take_cancel(&mut self) -> Option<Message> {
        let message = self.cancels.pop_front()?;
        // A run that is to end has to be driven for it, whoever paused it before.
        self.end_pauses(message.seq);
        self.read.push(ReadMessage {
            seq: message.seq,
            refused: None,
            reply: None,
        });
        Some(message)
    }

    /// Whether messages were read since the last commit was built.
    pub const fn has_read(&self) -> bool {
        !self.read.is_empty()
    }

    /// What the next commit must say of the inbox.
    pub fn take_read(&mut self) -> Vec<ReadMessage> {
        std::mem::take(&mut self.read)
    }

    /// What was read since the last commit.
    pub fn read(&self) -> &[ReadMessage] {
        &self.read
    }

    /// What was read since the last commit never happened: it is unread in the store.
    pub fn forget_read(&mut self) {
        self.read.clear();
    }

    /// Keeps `matches` true for one key, and drops a channel that nobody needs.
    fn refresh(&mut self, key: &str) {
        let Some((name, channel)) = self.channels.get_key_value(key) else {
            return;
        };
        match channel.queue.keys().next() {
            // Of one channel at most its head is listed; an older message may take its place.
            Some(head) => {
                let second = channel.queue.keys().nth(1);
                if let Some(second) = second {
                    self.matches.remove(second);
                }
                if channel.waits.is_empty() {
                    self.matches.remove(head);
                } else if !self.matches.contains_key(head) {
                    self.matches.insert(*head, name.clone());
                }
            }
            None if channel.waits.is_empty() => {
                self.channels.remove(key);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Payload;
    use crate::store::MessageKind;

    fn event(seq: u64, name: &str) -> Message {
        message(MessageKind::Event, seq, name)
    }

    fn message(kind: MessageKind, seq: u64, name: &str) -> Message {
        Message {
            run_id: "r".into(),
            seq,
            message_id: format!("m{seq}"),
            kind,
            name: name.into(),
            payload: Payload::new(),
            encoding: 1,
            at: 0,
        }
    }

    fn open(inbox: &mut Inbox, key: &str, slot: Slot) {
        inbox.open(&key.into(), slot);
    }

    fn next(inbox: &mut Inbox) -> Option<(Slot, u64)> {
        let Match { slot, message } = inbox.next_match()?;
        let (key, seq) = (format!("event:{}", message.name), message.seq);
        let slot = slot?;
        inbox.take(&key, seq, None);
        inbox.close(&key, slot);
        Some((slot, seq))
    }

    #[test]
    fn what_is_not_for_this_build_is_never_seen_however_pages_go_on() {
        let mut inbox = Inbox::default();
        inbox.expect(2, 9);
        inbox.add(event(3, "x"));
        inbox.leave(5);
        inbox.saw_page(6, true);
        assert_eq!(inbox.seen(), 4);
        inbox.leave(8);
        inbox.add(event(9, "x"));
        inbox.saw_page(9, false);
        assert_eq!((inbox.seen(), inbox.take_news()), (4, Some(4)));
    }

    #[test]
    fn pages_make_an_inbox_whole_whatever_was_read_between_long_ago() {
        let mut inbox = Inbox::default();
        for seq in [1, 2] {
            inbox.add(event(seq, "x"));
        }
        inbox.expect(2, 9);
        // 4 was read; 10 came after the claim.
        for (page, more, whole, seen) in [
            (&[3, 5][..], true, false, 5),
            (&[6, 8], true, false, 8),
            (&[10], false, true, 10),
        ] {
            for seq in page {
                inbox.add(event(*seq, "x"));
            }
            inbox.saw_page(*page.last().unwrap(), more);
            assert_eq!((inbox.is_whole(), inbox.seen()), (whole, seen));
        }
        let mut inbox = Inbox::default();
        inbox.expect(2, 9);
        inbox.saw_page(0, false);
        assert!(inbox.is_whole(), "those behind it were read");
    }

    #[test]
    fn the_pairing_is_the_same_whether_messages_or_waits_come_first() {
        let mut early = Inbox::default();
        early.add(event(1, "b"));
        early.add(event(2, "a"));
        early.add(event(3, "a"));
        open(&mut early, "event:a", 10);
        open(&mut early, "event:a", 11);
        open(&mut early, "event:b", 12);
        let mut late = Inbox::default();
        open(&mut late, "event:a", 10);
        open(&mut late, "event:a", 11);
        open(&mut late, "event:b", 12);
        late.add(event(1, "b"));
        late.add(event(2, "a"));
        late.add(event(3, "a"));
        for inbox in [&mut early, &mut late] {
            assert_eq!(next(inbox), Some((12, 1)));
            assert_eq!(next(inbox), Some((10, 2)));
            assert_eq!(next(inbox), Some((11, 3)));
            assert_eq!(next(inbox), None);
            assert!(inbox.channels.is_empty());
            assert!(inbox.matches.is_empty());
        }
    }

    #[test]
    fn a_message_of_another_name_stays_unread() {
        let mut inbox = Inbox::default();
        open(&mut inbox, "event:a", 1);
        inbox.add(event(1, "b"));
        assert_eq!(inbox.next_match(), None);
        assert!(!inbox.has_match());
        assert!(!inbox.has_read());
        assert_eq!(inbox.seen(), 1);
    }

    #[test]
    fn a_message_that_was_seen_is_not_taken_twice() {
        let mut inbox = Inbox::default();
        inbox.add(event(1, "a"));
        inbox.add(event(1, "a"));
        open(&mut inbox, "event:a", 1);
        open(&mut inbox, "event:a", 2);
        assert_eq!(next(&mut inbox), Some((1, 1)));
        assert_eq!(next(&mut inbox), None);
    }

    #[test]
    fn a_message_that_overtakes_another_does_not_hide_it() {
        let mut inbox = Inbox::default();
        open(&mut inbox, "event:a", 1);
        inbox.add(event(2, "a"));
        // The store must not be told that message 1 was seen: it would never make the run due for it.
        assert_eq!(inbox.seen(), 0);
        inbox.add(event(1, "a"));
        inbox.add(event(2, "a"));
        assert_eq!(inbox.seen(), 2);
        assert_eq!(next(&mut inbox), Some((1, 1)));
        open(&mut inbox, "event:a", 2);
        assert_eq!(next(&mut inbox), Some((2, 2)));
        assert_eq!(next(&mut inbox), None);
    }

    #[test]
    fn what_was_read_before_a_claim_leaves_no_gap() {
        let mut inbox = Inbox::default();
        inbox.add(event(3, "a"));
        inbox.add(event(5, "a"));
        inbox.saw(5);
        assert_eq!(inbox.seen(), 5);
        inbox.add(event(7, "a"));
        inbox.saw(6);
        assert_eq!(inbox.seen(), 7);
    }

    #[test]
    fn a_refused_message_leaves_and_the_wait_goes_on() {
        let mut inbox = Inbox::default();
        open(&mut inbox, "event:a", 1);
        inbox.add(event(1, "a"));
        inbox.add(event(2, "a"));
        inbox.take("event:a", 1, Some("not a number".into()));
        assert_eq!(next(&mut inbox), Some((1, 2)));
        assert_eq!(
            inbox.take_read(),
            [
                ReadMessage {
                    seq: 1,
                    refused: Some("not a number".into()),
                    reply: None
                },
                ReadMessage {
                    seq: 2,
                    refused: None,
                    reply: None
                }
            ]
        );
    }

    #[test]
    fn a_closed_wait_takes_nothing() {
        let mut inbox = Inbox::default();
        open(&mut inbox, "event:a", 1);
        inbox.close("event:a", 1);
        inbox.add(event(1, "a"));
        assert_eq!(inbox.next_match(), None);
        open(&mut inbox, "event:a", 2);
        assert_eq!(next(&mut inbox), Some((2, 1)));
    }

    #[test]
    fn a_cancellation_comes_before_every_message() {
        let mut inbox = Inbox::default();
        open(&mut inbox, "event:a", 1);
        inbox.add(event(1, "a"));
        inbox.add(message(MessageKind::Cancel, 2, ""));
        assert_eq!(inbox.next_match().map(|found| found.slot), Some(None));
        assert_eq!(inbox.take_cancel().map(|message| message.seq), Some(2));
        assert_eq!(next(&mut inbox), Some((1, 1)));
    }
}
