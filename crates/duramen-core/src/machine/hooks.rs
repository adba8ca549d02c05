//! Runs that are started with the end of a run, or when it is parked: once for each time it ends so.

use crate::derive::child_seed;
use crate::ids::{RunId, check_id};
use crate::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE};
use crate::primitives::child::NewChild;
use crate::progress::state::Progress;
use crate::run::Status;
use crate::store::{NewRun, Next, Outgoing, RunCommit, Start};

/// What is started if the run comes to this next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub on: On,
    pub run: NewChild,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Completed,
    Failed,
    Stuck,
}

impl On {
    const fn name(self) -> &'static str {
        match self {
            Self::Completed => "on_completed",
            Self::Failed => "on_failed",
            Self::Stuck => "on_stuck",
        }
    }
}

impl Hook {
    /// What leaves the run with a commit that has this ready. None if the run comes to something else, or if the id of
    /// what is to be started would be too long for any store.
    pub(super) fn leaves(self, run: &Progress, commit: &RunCommit) -> Option<Outgoing> {
        let facts = &run.facts;
        let comes_to = match &commit.next {
            Next::Finished { status } => match status {
                Status::Completed => On::Completed,
                Status::Failed => On::Failed,
                _ => return None,
            },
            Next::Stuck { .. } => On::Stuck,
            Next::Running | Next::Waiting { .. } | Next::Paused { .. } | Next::Continued { .. } => {
                return None;
            }
        };
        if comes_to != self.on || commit.entries.is_empty() {
            return None;
        }
        // What can come again has a number: its place, or for what is tried again at the same one, the claim.
        let op = match self.on {
            On::Stuck => format!("{}@{}", self.on.name(), facts.epoch),
            on if facts.generation == 0 && !run.history.was_reopened() => on.name().to_owned(),
            on => format!("{}@{}", on.name(), commit.length_after()),
        };
        let run_id: RunId = format!("{}/{op}", facts.run_id).into();
        check_id("run id", &run_id).ok()?;
        let origin = Some(format!("hook:{}", facts.run_id));
        let new = NewRun {
            seed: child_seed(&facts.seed, facts.generation, &op),
            run_id,
            workflow: self.run.workflow,
            version: self.run.version,
            queue: DEFAULT_QUEUE.to_owned(),
            priority: DEFAULT_PRIORITY,
            input: self.run.input,
            entries: Vec::new(),
            meta: None,
            started_at: None,
            start: Start::Queued { at: None },
            tags: self.run.tags,
            memo: self.run.memo,
            timeout: self.run.timeout,
            parent: None,
            root: None,
            origin: origin.filter(|origin| check_id("origin", origin).is_ok()),
            now: None,
        };
        Some(Outgoing::start(&new))
    }
}

#[cfg(test)]
mod tests {
    use super::{Hook, On};
    use crate::ids::Payload;
    use crate::machine::Machine;
    use crate::machine::testing::{Fault, Sim};
    use crate::primitives::child::NewChild;
    use crate::run::Status;
    use crate::store::OutgoingKind;

    fn hook(on: On) -> Hook {
        let run = NewChild {
            workflow: "tell".into(),
            version: "1".into(),
            run_id: None,
            input: Payload::from_static(b"1"),
            tags: Vec::new(),
            memo: None,
            timeout: None,
        };
        Hook { on, run }
    }

    /// Takes the run up with that hook, and gives the ids of the runs that it has started so far.
    fn run_with(sim: &mut Sim, on: On, expected: Status) -> Vec<String> {
        sim.claim();
        sim.machine(|machine| Machine::set_hook(machine, hook(on)));
        assert_eq!(sim.run(), expected, "{:?}", sim.store.row.note);
        let left = sim.store.commits.iter().flat_map(|commit| &commit.outgoing);
        let starts = left.filter(|item| item.kind == OutgoingKind::Start);
        starts.map(|item| item.target.to_string()).collect()
    }

    #[test]
    fn what_is_to_come_of_an_end_leaves_with_it_and_of_no_other() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        assert_eq!(
            run_with(&mut sim, On::Completed, Status::Completed),
            ["run/on_completed"]
        );
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        assert!(run_with(&mut sim, On::Failed, Status::Completed).is_empty());
    }

    #[test]
    fn a_run_that_fails_again_has_another_one() {
        let mut sim = Sim::new(|_| async { Err(Fault::Raised("broken".into())) });
        run_with(&mut sim, On::Failed, Status::Failed);
        sim.store.retry(sim.clock);
        let ids = run_with(&mut sim, On::Failed, Status::Failed);
        assert_eq!(ids, ["run/on_failed", "run/on_failed@4"]);
    }

    #[test]
    fn a_parked_run_has_one_for_each_time_and_goes_on_afterwards() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.event("x", None).await
        });
        assert_eq!(sim.run_through(), Status::Waiting);
        sim.deploy(|ctx| async move { ctx.step("other").await });
        sim.event("x", "1");
        assert_eq!(run_with(&mut sim, On::Stuck, Status::Stuck).len(), 1);
        assert_eq!(sim.store.story().last().unwrap(), "run_parked");
        sim.store.retry(sim.clock);
        let ids = run_with(&mut sim, On::Stuck, Status::Stuck);
        assert_eq!(ids.len(), 2);
        assert_ne!(ids[0], ids[1]);
        sim.deploy(|ctx| async move {
            ctx.step("a").await?;
            ctx.event("x", None).await
        });
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Completed, "{:?}", sim.store.row.note);
    }
}
