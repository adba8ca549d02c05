//! Messages that commits send to other runs: those of handlers, and some that are enclosed here. What is enclosed depends on nothing but the commit's place, so
//! that one that is sent again encloses the same.

use std::collections::BTreeMap;

use duramen_core::ids::Payload;
use duramen_core::run::Seed;
use duramen_core::store::{Delivery, MessageKind, NewMessage, Outgoing, RunCommit};

use crate::facts::RunLife;
use crate::program::EVENTS;
use crate::rng::Rng;

/// The id of a message begins so if a commit has sent it.
const PREFIX: &str = "out-";

/// What is known of the items that left runs, by the ids of their messages.
#[derive(Debug, Default)]
pub struct Letters {
    sent: BTreeMap<String, RunLife>,
    /// How often each was answered for, and by which lives it was kept.
    answers: BTreeMap<String, u32>,
    kept: BTreeMap<(String, RunLife), u32>,
}

/// Puts messages for other runs into a commit, or none.
pub(crate) fn enclose(commit: &mut RunCommit, family: usize) {
    if family == 0 || commit.entries.is_empty() {
        return;
    }
    let place = place(commit.seed) ^ (commit.expected_len << 8);
    let mut rng = Rng::new(place);
    if !rng.one_in(5) {
        return;
    }
    for number in 0..rng.span(1, 2) {
        let (run_id, len) = (&commit.run_id, commit.expected_len);
        let message = NewMessage {
            run_id: format!("r{}", rng.place(family)).into(),
            message_id: format!("{PREFIX}{run_id}-{place:x}-{len}-{number}"),
            kind: MessageKind::Event,
            name: rng.pick(&EVENTS, EVENTS[0]).to_owned(),
            payload: Payload::from(format!("from {run_id}")),
            fingerprint: None,
            encoding: 1,
            now: None,
        };
        commit.outgoing.push(Outgoing::message(&message));
    }
}

fn place(seed: Seed) -> u64 {
    let bytes = seed.iter().fold(0, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    bytes << 20
}

impl Letters {
    /// A commit took place that encloses these.
    pub fn posted(&mut self, commit: &RunCommit) {
        for item in &commit.outgoing {
            if let Ok(message) = serde_json::from_slice::<NewMessage>(&item.body) {
                let life = (commit.run_id.clone(), commit.seed);
                self.sent.insert(message.message_id, life);
            }
        }
    }

    /// Somebody has carried one out. True the first time.
    pub fn carried(&mut self, id: &str, target: RunLife, result: Delivery) -> Result<bool, String> {
        if result == Delivery::Blocked {
            return Ok(false);
        }
        if !self.sent.contains_key(id) {
            // Those of people, and of the carrier itself, have left no run.
            if !id.starts_with(PREFIX) && !id.starts_with("run:") {
                return Ok(false);
            }
            return Err(format!("{id} is carried out, and no commit has sent it"));
        }
        let answers = self.answers.entry(id.to_owned()).or_default();
        *answers += 1;
        let first = *answers == 1;
        if matches!(result, Delivery::Delivered | Delivery::Buffered) {
            let kept = self.kept.entry((id.to_owned(), target)).or_default();
            *kept += 1;
            if *kept > 1 {
                return Err(format!("{id} was kept twice"));
            }
        }
        Ok(first)
    }

    /// What was sent and never carried out; what was deleted with its run is not meant.
    pub fn left(&self, is_there: impl Fn(&RunLife) -> bool) -> Result<(), String> {
        let mut left = self
            .sent
            .iter()
            .filter(|(id, life)| !self.answers.contains_key(*id) && is_there(life));
        left.next().map_or(Ok(()), |(id, _)| {
            Err(format!("{id} was sent and is never carried out"))
        })
    }
}
