//! Messages to other runs: recorded, and out as soon as the record is durable.
//!
//! The message's id is derived from the sender's life and the operation, so that it takes place once however often
//! it is sent: by a crash between the delivery and the note of it, or by a handler whose record was taken back.

use crate::derive::message_id;
use crate::ids::{InvalidId, Payload, RunId, check_event_name, check_id};
use crate::journal::{Entry, Kind, Meta};
use crate::progress::desk::Desk;
use crate::progress::divergence::{Divergence, Handler};
use crate::progress::history::Placed;
use crate::progress::naming::Holder;
use crate::store::{MessageKind, NewMessage, Outgoing};

/// What a handler sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// An event.
    Event {
        to: RunId,
        name: String,
        payload: Payload,
    },
    /// A cancellation, with its reason.
    Cancel { to: RunId, reason: Payload },
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSent {
    InvalidId(InvalidId),
    Diverged(Divergence),
}

impl From<InvalidId> for NotSent {
    fn from(error: InvalidId) -> Self {
        Self::InvalidId(error)
    }
}

/// The handler sends a message. It never suspends, so on replay the entry must be the next one.
pub(crate) fn send(mut desk: Desk<'_>, sent: Sent) -> Result<(), NotSent> {
    let (to, kind, name, stem, payload) = match sent {
        Sent::Event { to, name, payload } => {
            check_event_name(&name)?;
            (to, MessageKind::Event, name, "signal", payload)
        }
        Sent::Cancel { to, reason } => {
            let name = "cancel".to_owned();
            (to, MessageKind::Cancel, name, "cancel", reason)
        }
    };
    check_id("run id", &to)?;
    let id = desk.numbered(stem, Holder::Unnamed);
    let meta = Meta {
        wait: kind.wait_key(&name),
        run: Some(to.clone()),
        ..Meta::default()
    };
    if recorded(&mut desk, Kind::MessageSent, &id, &meta, told)?.is_some() {
        return Ok(());
    }
    let facts = desk.facts();
    let message = NewMessage {
        run_id: to,
        message_id: message_id(&facts.seed, facts.generation, &id),
        kind,
        name,
        payload: payload.clone(),
        fingerprint: None,
        encoding: 1,
        now: None,
    };
    let entry = Entry::new(Kind::MessageSent, id, payload, desk.now()).with_meta(&meta);
    desk.record_sending(entry, Outgoing::message(&message));
    Ok(())
}

/// What was sent, for people.
fn told(meta: &Meta) -> String {
    let what = meta.wait.as_deref().unwrap_or("a cancellation");
    format!("{what} to {:?}", meta.run.as_deref().unwrap_or_default())
}

/// The next entry, if there is one: it must be of this kind and operation, and say the same.
pub(super) fn recorded(
    desk: &mut Desk<'_>,
    kind: Kind,
    id: &str,
    meta: &Meta,
    told: impl Fn(&Meta) -> String,
) -> Result<Option<Placed>, NotSent> {
    let Some(placed) = desk.next_recorded() else {
        return Ok(None);
    };
    let diverged = |handler| NotSent::Diverged(placed.parts_from(handler));
    if placed.entry.kind != kind || &*placed.entry.op != id {
        let asked = id.to_owned();
        return Err(diverged(Handler::OtherValue { asked }));
    }
    let was = placed.entry.meta().unwrap_or_default();
    if (&was.run, &was.workflow, &was.wait) != (&meta.run, &meta.workflow, &meta.wait) {
        let (was, asked) = (told(&was), told(meta));
        return Err(diverged(Handler::OtherSent { was, asked }));
    }
    Ok(desk.take_recorded())
}

#[cfg(test)]
mod tests {
    use crate::machine::testing::{Ctx, Flow, Sim};
    use crate::run::Status;
    use crate::store::Outgoing;

    fn left(sim: &Sim) -> Vec<Outgoing> {
        let commits = sim.store.commits.iter();
        commits.flat_map(|commit| commit.outgoing.clone()).collect()
    }

    async fn telling(ctx: Ctx) -> Flow {
        ctx.send("other", "x").await;
        ctx.step("a").await?;
        ctx.send("other", "x").await;
        ctx.step("b").await
    }

    #[test]
    fn a_message_leaves_with_its_record_before_the_next_effect_and_once() {
        let mut sim = Sim::new(telling);
        sim.claim();
        sim.settle();
        assert!(sim.starts.is_empty(), "the step waits for the record");
        sim.apply();
        sim.settle();
        assert_eq!(sim.starts, ["a/1"]);
        sim.crash();
        assert_eq!(sim.run(), Status::Completed);
        let left = left(&sim);
        assert_eq!(left.len(), 2);
        assert_ne!(left[0].body, left[1].body, "each has an id of its own");
        let story = sim.store.story();
        assert_eq!(&story[1..3], ["message_sent signal-1", "step_completed a"]);
    }

    #[test]
    fn a_message_whose_record_was_taken_back_is_sent_again_as_the_same() {
        let mut sim = Sim::new(|ctx| async move {
            let failed = ctx.step("bad").await;
            ctx.send("other", "x").await;
            failed
        })
        .rule(|_, _| crate::machine::testing::failed("boom"));
        assert_eq!(sim.run(), Status::Failed);
        sim = sim.rule(|_, _| crate::machine::testing::succeeded("1"));
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Completed);
        let left = left(&sim);
        assert_eq!(left.len(), 2);
        assert_eq!(left[0], left[1]);
    }

    #[test]
    fn another_message_in_its_place_parks_the_run() {
        let mut sim = Sim::new(telling);
        sim.claim();
        sim.settle();
        sim.apply();
        sim.crash();
        sim.deploy(|ctx| async move {
            ctx.send("other", "y").await;
            ctx.step("a").await
        });
        assert_eq!(sim.run(), Status::Stuck);
        let note = sim.store.row.note.clone().unwrap();
        assert!(
            note.contains("which was event:x to \"other\", found a handler that asked for event:y to \"other\""),
            "{note}"
        );
    }
}
