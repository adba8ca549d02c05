//! What a commit says, and what follows from its outcome.

use super::hooks::Hook;
use super::seal::Sealing;
use super::standing::{Phase, Standing};
use crate::family::{End, Ended};
use crate::ids::{Millis, Payload};
use crate::progress::state::Progress;
use crate::store::{CommitOutcome, Next, Outgoing, RunCommit, end_of_child, place_of_end};

/// What became of the run with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCommit {
    /// There is more to do here; see [`Machine::committed`].
    ///
    /// [`Machine::committed`]: crate::machine::Machine::committed
    Driving,
    /// Released by a pause; `due` if it is due again already.
    Paused { due: bool },
    /// It has reached a final status or was parked.
    Ended,
    /// Another owner has it: nothing was written, throw everything away.
    Lost,
}

/// What the commit under way makes of the run. The phase may have moved on since it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Save,
    Release,
    End,
}

/// What goes out with the next commit besides the record, and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// The run's state object, if it changed.
    pub(super) state: Option<Payload>,
    /// What is started if the run ends so, or is parked.
    pub(super) hooks: Vec<Hook>,
    /// The lease is to be given back as soon as nothing is in flight.
    pub(super) yielding: bool,
    sent: Option<Sent>,
}

impl Commits {
    /// The next commit: all that is staged.
    pub(super) fn build(&mut self, run: &mut Progress, next: Next, wall: Millis) -> Box<RunCommit> {
        self.sent = Some(match &next {
            Next::Running => Sent::Save,
            Next::Waiting { .. } | Next::Paused { .. } => Sent::Release,
            Next::Finished { .. } | Next::Stuck { .. } | Next::Continued { .. } => Sent::End,
        });
        let taken = run.ledger.take();
        let at = run.clock.at(wall);
        let mut commit = run.facts.commit(taken, next, at);
        run.facts.told_format(commit.format);
        commit.outgoing.extend(end_for_parent(run, &commit));
        if self.sent == Some(Sent::End) {
            let hooks = std::mem::take(&mut self.hooks).into_iter();
            let starts: Vec<_> = hooks.filter_map(|hook| hook.leaves(run, &commit)).collect();
            commit.outgoing.extend(starts);
        }
        commit.read = run.inbox.take_read();
        commit.inbox_seen = run.inbox.take_news();
        commit.state = self.state.take();
        commit
    }

    /// Some of what is staged, because so much leaves the run with it. What was read and the state go out with
    /// the last part, which has the entries that they belong to.
    pub(super) fn build_part(&mut self, run: &mut Progress, wall: Millis) -> Box<RunCommit> {
        self.sent = Some(Sent::Save);
        let taken = run.ledger.take_part();
        let at = run.clock.at(wall);
        let commit = run.facts.commit(taken, Next::Running, at);
        run.facts.told_format(commit.format);
        commit
    }

    /// Takes in the outcome of the commit in flight, sealed or not.
    pub(super) fn committed(
        &mut self,
        outcome: &CommitOutcome,
        sealing: &mut Sealing,
        run: &mut Progress,
        standing: &mut Standing,
    ) -> AfterCommit {
        let sent = self.sent.take();
        if standing.phase == Phase::Gone {
            return AfterCommit::Lost;
        }
        let sealed = sealing.take();
        match outcome {
            CommitOutcome::Applied { due } => {
                if let Some(sealed) = sealed {
                    sealed.applied(run);
                    return AfterCommit::Driving;
                }
                run.ledger.applied();
                match sent {
                    Some(Sent::Save) | None => AfterCommit::Driving,
                    Some(Sent::Release) => {
                        standing.phase = Phase::Paused;
                        AfterCommit::Paused { due: *due }
                    }
                    Some(Sent::End) => {
                        standing.phase = Phase::Gone;
                        AfterCommit::Ended
                    }
                }
            }
            // Who sends commits sends a blocked one again; to be told of it is to be told to give up.
            CommitOutcome::Fenced | CommitOutcome::Blocked => {
                standing.phase = Phase::Gone;
                AfterCommit::Lost
            }
            CommitOutcome::Rejected { reason } => self.rejected(reason, run, standing),
        }
    }

    /// The store cannot keep what it was told. Whatever was staged since stands on it and falls
    /// with it: only the note that parks the run is written.
    fn rejected(
        &mut self,
        reason: &str,
        run: &mut Progress,
        standing: &mut Standing,
    ) -> AfterCommit {
        run.ledger.rolled_back();
        run.inbox.forget_read();
        self.state = None;
        let note = match std::mem::replace(&mut standing.phase, Phase::Gone) {
            // Even the bare note was refused: give up and leave the run to a later recovery.
            Phase::Parking { bare: true, .. } => return AfterCommit::Lost,
            Phase::Parking { note, .. } => note,
            _ => format!(
                "the store refused to record this run's progress: {reason}. What was recorded \
                 before is whole; mend the cause, then `retry` the run"
            ),
        };
        standing.phase = Phase::Parking { note, bare: true };
        AfterCommit::Driving
    }
}

/// What a run that ends with this commit tells its parent.
fn end_for_parent(run: &Progress, commit: &RunCommit) -> Option<Outgoing> {
    let Next::Finished { status } = commit.next else {
        return None;
    };
    let (parent, last) = (run.facts.parent.as_ref()?, commit.entries.last()?);
    let end = End {
        ended: Ended::of(status)?,
        payload: last.payload.clone(),
    };
    let place = place_of_end(status, commit.length_after(), None);
    let told = end_of_child(parent, &run.facts.run_id, &run.facts.seed, &place, &end);
    Some(Outgoing::message(&told))
}

#[cfg(test)]
mod tests {
    use crate::ids::Payload;
    use crate::journal::{Entry, Kind};
    use crate::machine::ledger::Weight;
    use crate::machine::testing::{Rest, Sim, T0, job, join};
    use crate::machine::{AfterCommit, Machine};
    use crate::run::Status;
    use crate::store::Next;

    #[test]
    fn a_driver_that_was_fenced_off_writes_nothing_more() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.store.row.epoch += 1;
        assert_eq!(sim.apply(), AfterCommit::Lost);
        assert_eq!(sim.store.story(), ["run_created"]);
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_driver_that_gave_the_run_up_is_lost_whatever_the_store_says() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.machine(Machine::abandon);
        assert_eq!(sim.apply(), AfterCommit::Lost);
    }

    fn assert_parked(sim: &mut Sim) {
        assert_eq!(sim.run(), Status::Stuck);
        assert_eq!(
            sim.store.row.note.as_deref(),
            Some(
                "the store refused to record this run's progress: too large. What was recorded \
                 before is whole; mend the cause, then `retry` the run"
            )
        );
        let last = sim.store.commits.last().unwrap();
        assert!(last.entries.is_empty() && last.read.is_empty() && last.state.is_none());
    }

    #[test]
    fn progress_that_the_store_cannot_keep_parks_the_run_whatever_it_was_doing() {
        let program = |ctx: crate::machine::testing::Ctx| async move {
            let jobs = vec![job(ctx.step("a")), job(ctx.event("x", None))];
            join(jobs).await.into_iter().collect()
        };
        // A commit that keeps the lease, with more that came in since.
        let mut sim = Sim::new(move |ctx| async move {
            let jobs = vec![job(program(ctx.clone())), job(ctx.step("b"))];
            join(jobs).await.into_iter().collect()
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        sim.event("x", "1");
        sim.complete("b");
        sim.machine(|machine| machine.set_state(Payload::from_static(b"{}")));
        sim.settle();
        sim.reject_next();
        assert_eq!(sim.apply(), AfterCommit::Driving);
        assert_parked(&mut sim);
        assert!(sim.store.read.is_empty(), "the message is still there");
        // A pause.
        let mut sim = Sim::new(program);
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.reject_next();
        sim.apply();
        assert_parked(&mut sim);
        // The end.
        let mut sim = Sim::new(|_| async { Ok("huge".into()) });
        sim.claim();
        sim.settle();
        sim.reject_next();
        sim.apply();
        assert_parked(&mut sim);
        // And it can be retried.
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_run_that_is_being_parked_is_parked_without_what_the_store_cannot_keep() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            std::future::pending().await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert!(matches!(sim.sent().unwrap().next, Next::Stuck { .. }));
        sim.reject_next();
        assert_eq!(sim.apply(), AfterCommit::Driving);
        assert_eq!(sim.run(), Status::Stuck);
        assert_eq!(sim.store.story(), ["run_created"]);
        // A store that refuses even that keeps the run as it is.
        let mut sim = Sim::new(|_| std::future::pending());
        sim.claim();
        sim.settle();
        sim.reject_next();
        sim.apply();
        sim.settle();
        sim.reject_next();
        assert_eq!(sim.apply(), AfterCommit::Lost);
    }

    #[test]
    fn the_first_commit_with_entries_of_a_higher_encoding_says_so() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        sim.machine(|machine| {
            let mut entry = Entry::new(Kind::PatchMarked, "p".into(), Payload::new(), T0);
            entry.encoding = 9;
            machine.run.ledger.append(entry, Weight::Light);
        });
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert_eq!(sim.sent().unwrap().format, Some(9));
        assert!(!sim.sent().unwrap().only_appends());
        sim.apply();
        sim.settle();
        sim.complete("b");
        sim.settle();
        assert_eq!(sim.sent().unwrap().format, None);
    }

    #[test]
    fn a_step_of_a_run_without_messages_only_appends() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert!(sim.sent().unwrap().only_appends());
    }

    #[test]
    fn the_runs_state_goes_out_with_the_next_commit() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.claim();
        sim.machine(|machine| machine.set_state(Payload::from_static(b"{}")));
        assert_eq!(sim.settle(), Rest::Waiting);
        sim.run();
        let state = sim.store.commits[0].state.clone();
        assert_eq!(state, Some(Payload::from_static(b"{}")));
    }
}
