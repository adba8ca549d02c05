//! Patches: code that runs which were already further go on without.
//!
//! A handler asks `patched(id)` where its code was changed. A run that comes to this place for the first time gets yes,
//! and the journal a mark. A run whose journal goes on behind this place without a mark came by with the older code: it
//! gets no, on every replay, and follows the branch that its journal knows. So the answer never depends on anything but
//! the journal, and "no" needs no entry.
//!
//! A mark that the code does not ask for any more tells it nothing ([`Progress::pass_notes`]): once no run without the mark
//! is left, the older branch and the question can go.
//!
//! [`Progress::pass_notes`]: crate::progress::state::Progress::pass_notes

use crate::ids::{InvalidId, OpId, Payload, check_op_id};
use crate::journal::{Entry, Kind};
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;

/// Answered at once; the same for each question about the same patch.
pub(crate) fn request(mut desk: Desk<'_>, id: &str) -> Result<bool, InvalidId> {
    check_op_id(id)?;
    // Goes through the marks that come next, so that they are known.
    let is_behind = desk.next_recorded().is_some();
    if let Some(known) = desk.patch(id) {
        return Ok(known);
    }
    let patch = OpId::from(id);
    if is_behind {
        desk.passed_without(patch);
        return Ok(false);
    }
    let at = desk.now();
    let mark = Entry::new(Kind::PatchMarked, patch.clone(), Payload::new(), at);
    desk.record(mark, Weight::Light);
    desk.patched(patch);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::journal::Kind;
    use crate::machine::testing::{Ctx, Flow, Journal, Sim, T0};
    use crate::run::Status;

    async fn before(ctx: Ctx) -> Flow {
        ctx.step("a").await?;
        ctx.event("x", None).await?;
        ctx.step("old").await
    }

    async fn patched(ctx: Ctx) -> Flow {
        ctx.step("a").await?;
        if ctx.patched("p").await {
            ctx.step("new").await?;
        }
        ctx.event("x", None).await?;
        ctx.step(if ctx.patched("p").await {
            "newer"
        } else {
            "old"
        })
        .await
    }

    /// The question is gone, and with it the older branch.
    async fn retired(ctx: Ctx) -> Flow {
        ctx.step("a").await?;
        ctx.step("new").await?;
        ctx.event("x", None).await?;
        ctx.step("newer").await
    }

    fn completes(sim: &mut Sim) {
        let status = sim.run_through();
        assert_eq!(status, Status::Completed, "{:?}", sim.store.row.note);
    }

    #[test]
    fn a_new_run_follows_the_patched_code_and_has_one_mark() {
        let mut sim = Sim::new(patched);
        sim.event("x", "1");
        completes(&mut sim);
        assert_eq!(sim.starts, ["a/1", "new/1", "newer/1"]);
        let story = sim.store.story();
        let marks = story.iter().filter(|one| *one == "patch_marked p");
        assert_eq!(marks.count(), 1, "{story:?}");
    }

    #[test]
    fn a_run_that_was_further_goes_on_with_the_older_branch_on_every_replay() {
        let mut sim = Sim::new(before);
        assert_eq!(sim.run(), Status::Waiting);
        sim.deploy(patched);
        sim.crash();
        sim.event("x", "1");
        completes(&mut sim);
        assert_eq!(sim.starts, ["a/1", "old/1"]);
        assert!(!sim.store.story().contains(&"patch_marked p".to_owned()));
        // It is told the same by a journal that has all but the last step.
        let recorded = Journal::new("", T0)
            .entry(Kind::StepCompleted, "a", "1")
            .with(Kind::WaitOpened, "event-1", "", &wait())
            .with(Kind::EventReceived, "event-1", "1", &wait());
        let mut sim = Sim::replaying(recorded, patched);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["old/1"]);
    }

    fn wait() -> crate::journal::Meta {
        crate::journal::Meta {
            wait: Some("event:x".into()),
            ..crate::journal::Meta::default()
        }
    }

    #[test]
    fn a_run_that_had_not_come_to_the_place_follows_the_patched_code() {
        let recorded = Journal::new("", T0).entry(Kind::StepCompleted, "a", "1");
        let mut sim = Sim::replaying(recorded, patched);
        sim.event("x", "1");
        completes(&mut sim);
        assert_eq!(sim.starts, ["new/1", "newer/1"]);
    }

    #[test]
    fn a_mark_that_is_lost_with_a_crash_is_made_again() {
        let mut sim = Sim::new(patched);
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.crash();
        sim.event("x", "1");
        completes(&mut sim);
        assert_eq!(sim.starts, ["a/1", "a/1", "new/1", "newer/1"]);
    }

    #[test]
    fn marks_that_nobody_asks_for_any_more_are_passed_over() {
        let mut sim = Sim::new(patched);
        assert_eq!(sim.run_through(), Status::Waiting);
        sim.deploy(retired);
        sim.crash();
        sim.event("x", "1");
        completes(&mut sim);
        assert_eq!(sim.starts, ["a/1", "new/1", "newer/1"]);
    }

    #[test]
    fn several_patches_at_one_place_are_asked_for_in_any_order() {
        let mut sim = Sim::new(|ctx| async move {
            let found = [ctx.patched("p").await, ctx.patched("q").await];
            ctx.event("x", None).await?;
            Ok(format!("{found:?}"))
        });
        assert_eq!(sim.run(), Status::Waiting);
        sim.deploy(|ctx| async move {
            // `p` was retired, `r` is new: the run is behind its place.
            let found = [ctx.patched("r").await, ctx.patched("q").await];
            ctx.event("x", None).await?;
            Ok(format!("{found:?}"))
        });
        sim.crash();
        sim.event("x", "1");
        assert_eq!(sim.run(), Status::Completed, "{:?}", sim.store.row.note);
        let output = &sim.store.journal.last().unwrap().payload;
        assert_eq!(&output[..], b"[false, true]");
    }

    #[test]
    fn an_id_that_cannot_be_one_is_refused() {
        let mut sim = Sim::new(|ctx| async move {
            let refused = ctx.try_patched("").is_err() && ctx.try_patched("a\0b").is_err();
            Ok(refused.to_string())
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(&sim.store.journal.last().unwrap().payload[..], b"true");
        assert_eq!(sim.store.journal.len(), 2);
    }
}
