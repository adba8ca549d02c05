//! Recorded values: answered at once, on the first pass and on replay alike.

use crate::derive::ValueKind;
use crate::ids::Payload;
use crate::journal::{Entry, Kind};
use crate::progress::desk::Desk;
use crate::progress::divergence::{Divergence, Handler};
use crate::progress::ledger::Weight;
use crate::progress::naming::Holder;

/// The handler asks for a value. It never suspends, so on replay the entry must be the next one.
pub(crate) fn request(mut desk: Desk<'_>, kind: ValueKind) -> Result<Payload, Divergence> {
    let id = desk.numbered(kind.name(), Holder::Unnamed);
    if let Some(placed) = desk.next_recorded() {
        if placed.entry.kind != Kind::ValueRecorded || placed.entry.op != id {
            let asked = id.to_string();
            return Err(placed.parts_from(Handler::OtherValue { asked }));
        }
        if let Some(placed) = desk.take_recorded() {
            return Ok(placed.entry.payload);
        }
    }
    let at = desk.now();
    let value = kind.derive(desk.seed(), &id, at);
    let entry = Entry::new(Kind::ValueRecorded, id, value.clone(), at);
    desk.record(entry, Weight::Light);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use crate::derive::ValueKind;
    use crate::journal::Kind;
    use crate::machine::testing::{Journal, Rest, Sim, T0};
    use crate::run::Status;

    #[test]
    fn values_cost_no_commit_and_hold_nothing_up() {
        let mut sim = Sim::new(|ctx| async move {
            for kind in [ValueKind::Now, ValueKind::Uuid, ValueKind::Random] {
                ctx.value(kind).await;
            }
            ctx.step("a").await?;
            ctx.value(ValueKind::Uuid).await;
            ctx.step("b").await
        });
        sim.claim();
        assert_eq!(sim.settle(), Rest::Waiting);
        assert_eq!(sim.starts, ["a/1"]);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.store.commits.len(), 2);
    }

    #[test]
    fn a_value_is_the_same_after_a_crash_recorded_or_not() {
        let mut sim = Sim::new(|ctx| async move {
            let id = ctx.value(ValueKind::Uuid).await;
            ctx.step("a").await?;
            let now = ctx.value(ValueKind::Now).await;
            ctx.step("b").await?;
            Ok(format!("{id} {now}"))
        });
        sim.claim();
        sim.settle();
        sim.clock += 10;
        sim.complete("a");
        sim.settle();
        // The first commit is written, with the first value; the second value is in memory only.
        sim.apply();
        sim.settle();
        sim.crash();
        let uuid = sim.store.journal[1].payload.clone();
        sim.clock += 999;
        assert_eq!(sim.run(), Status::Completed);
        let output = &sim.store.journal.last().unwrap().payload;
        let expected = [&uuid[..], format!(" {}", T0 + 10).as_bytes()].concat();
        assert_eq!(&output[..], &expected[..]);
    }

    #[test]
    fn values_are_replayed_in_the_drain_that_asked_for_them() {
        let journal = Journal::new("", T0)
            .entry(Kind::StepCompleted, "a", "1")
            .entry(Kind::ValueRecorded, "uuid-1", "recorded");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            ctx.step("a").await?;
            Ok(ctx.value(ValueKind::Uuid).await)
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(&sim.store.journal[3].payload[..], b"recorded");
    }

    #[test]
    fn the_end_of_the_journal_may_lie_within_a_drain() {
        let journal = Journal::new("", T0)
            .entry(Kind::StepCompleted, "a", "1")
            .entry(Kind::ValueRecorded, "uuid-1", "recorded");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            ctx.step("a").await?;
            ctx.value(ValueKind::Uuid).await;
            ctx.value(ValueKind::Uuid).await;
            ctx.step("b").await
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["b/1"]);
        assert_eq!(sim.store.story()[3], "value_recorded uuid-2");
    }
}
