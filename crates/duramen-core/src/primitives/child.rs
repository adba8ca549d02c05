//! Children: runs that a handler starts, and whose end it may wait for.
//!
//! The creation leaves the run with the entry that records it. The child's seed is derived from its parent's and
//! the operation, so a creation that is sent again finds itself, and another run of that id is told from it.
//! A child tells its parent when it ends; that message waits in the parent's inbox until the handler asks for it.

use crate::derive::{child_seed, life};
use crate::family::{End, Ended, child_id, message_ids};
use crate::ids::{Millis, OpId, Payload, RunId, check_id};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind, Meta};
use crate::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE};
use crate::primitives::message::{NotSent, recorded};
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;
use crate::progress::naming::Holder;
use crate::progress::op::OpKind;
use crate::progress::turn::{Outcome, Turn};
use crate::store::{NewRun, Outgoing, Start};

/// What a handler starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChild {
    pub workflow: String,
    pub version: String,
    /// Derived from the parent's id and the operation unless given.
    pub run_id: Option<RunId>,
    pub input: Payload,
    pub tags: Vec<String>,
    pub memo: Option<Payload>,
    pub timeout: Option<Millis>,
}

/// The handler starts a child. It never suspends, so on replay the entry must be the next one.
pub(crate) fn start(
    mut desk: Desk<'_>,
    id: Option<&str>,
    child: NewChild,
) -> Result<(OpId, RunId), NotSent> {
    let op = desk.id(id, "child", Holder::Child)?;
    let facts = desk.facts();
    let run_id = child
        .run_id
        .unwrap_or_else(|| child_id(&facts.run_id, facts.generation, &op).into());
    check_id("run id of the child", &run_id)?;
    let seed = child_seed(&facts.seed, facts.generation, &op);
    let (parent, root) = (facts.run_id.clone(), facts.root.clone());
    let meta = Meta {
        run: Some(run_id.clone()),
        workflow: Some(child.workflow.clone()),
        ..Meta::default()
    };
    if recorded(&mut desk, Kind::ChildStarted, &op, &meta, told)?.is_some() {
        return Ok((op, run_id));
    }
    let run = NewRun {
        run_id: run_id.clone(),
        workflow: child.workflow,
        version: child.version,
        queue: DEFAULT_QUEUE.to_owned(),
        priority: DEFAULT_PRIORITY,
        input: child.input,
        entries: Vec::new(),
        started_at: None,
        start: Start::Queued { at: None },
        tags: child.tags,
        memo: child.memo,
        timeout: child.timeout,
        seed,
        root: Some(root.unwrap_or_else(|| parent.clone())),
        parent: Some(parent),
        origin: None,
        now: None,
    };
    let at = desk.now();
    let entry = Entry::new(Kind::ChildStarted, op.clone(), Payload::new(), at).with_meta(&meta);
    desk.record_sending(entry, Outgoing::start(&run));
    Ok((op, run_id))
}

/// What was started, for people.
fn told(meta: &Meta) -> String {
    let workflow = meta.workflow.as_deref().unwrap_or_default();
    let run_id = meta.run.as_deref().unwrap_or_default();
    format!("the child {run_id:?} of workflow {workflow:?}")
}

/// The handler waits for the end of a child that it has started.
pub(crate) fn wait(mut desk: Desk<'_>, op: &OpId, run_id: &RunId) -> Slot {
    let facts = desk.facts();
    let life = life(&child_seed(&facts.seed, facts.generation, op));
    let key = format!("child:{run_id}").into();
    desk.open_wait(op.clone(), OpKind::Child { key, life }, None)
}

/// A message came in for that wait: its place in the journal and its consumption are one commit. One of another
/// life of the child's id is set aside.
pub(crate) fn ended(mut desk: Desk<'_>, slot: Slot, wall: Millis) -> Option<Turn> {
    let OpKind::Child { life, .. } = &desk.op(slot)?.kind else {
        return None;
    };
    let message = desk.message(slot)?;
    let is_its = message.message_id.starts_with(&message_ids(life));
    let end = End::from_payload(&message.payload).filter(|_| is_its);
    let Some(end) = end else {
        desk.take_message(slot, Some("it is of another run of that id".to_owned()));
        return None;
    };
    let message = desk.take_message(slot, None)?;
    let op = desk.close(slot)?.id;
    let at = desk.advance(wall);
    let meta = Meta {
        message: Some(message.message_id),
        run: Some(message.name.into()),
        ended: Some(end.ended).filter(|ended| *ended != Ended::Completed),
        ..Meta::default()
    };
    let entry = Entry::new(Kind::ChildFinished, op.clone(), end.payload.clone(), at);
    let index = desk.record(entry.with_meta(&meta), Weight::Hard);
    if end.ended != Ended::Completed {
        desk.failed(op, index);
    }
    Some(Turn::Deliver {
        slot,
        outcome: Outcome::ChildEnded(end),
        at,
    })
}

#[cfg(test)]
mod tests {
    use crate::derive::child_seed;
    use crate::family::{End, Ended, message_id};
    use crate::ids::Payload;
    use crate::journal::{Kind, Meta};
    use crate::machine::testing::{Ctx, Fault, Flow, Journal, Sim, T0, job, join};
    use crate::run::Status;
    use crate::store::{Errand, MessageKind, NewRun, Outgoing, Unsent};

    /// What a test's children end with reaches the parent as the end of a child of that seed.
    fn ends(sim: &mut Sim, child: &NewRun, place: &str, ended: Ended, payload: &'static str) {
        let end = End {
            ended,
            payload: Payload::from_static(payload.as_bytes()),
        };
        let id = message_id(&child.seed, place);
        sim.message_of(MessageKind::Child, &child.run_id, end.to_payload(), id);
    }

    fn errand(item: &Outgoing) -> Errand {
        let unsent = Unsent {
            run_id: "run".into(),
            entry: 0,
            number: 0,
            kind: item.kind,
            target: item.target.clone(),
            body: item.body.clone(),
            at: 0,
        };
        unsent.errand().unwrap()
    }

    /// The runs that left with all commits so far.
    fn started(sim: &Sim) -> Vec<NewRun> {
        let items = sim.store.commits.iter().flat_map(|commit| &commit.outgoing);
        let runs = items.filter_map(|item| match errand(item) {
            Errand::Start(run) => Some(run),
            Errand::Message(_) | Errand::Inquiry(_) | Errand::StreamItem => None,
        });
        runs.collect()
    }

    async fn one(ctx: Ctx) -> Flow {
        ctx.child(None).await
    }

    #[test]
    fn a_child_leaves_with_the_entry_that_records_it_and_its_end_comes_back() {
        let mut sim = Sim::new(one);
        assert_eq!(sim.run(), Status::Waiting);
        let run = started(&sim).remove(0);
        assert_eq!(&*run.run_id, "run/child-1");
        assert_eq!(run.parent.as_deref(), Some("run"));
        assert_eq!(run.root.as_deref(), Some("run"));
        assert_eq!(run.seed, child_seed(&sim.store.row.seed, 0, "child-1"));
        assert_eq!(sim.store.row.waits, ["child:run/child-1"]);
        ends(&mut sim, &run, "4", Ended::Completed, "7");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(
            sim.store.story(),
            [
                "run_created",
                "child_started child-1",
                "wait_opened child-1",
                "child_finished child-1",
                "run_finished"
            ]
        );
        assert_eq!(&sim.store.journal[3].payload[..], b"7");
        assert_eq!(started(&sim).len(), 1);
    }

    #[test]
    fn it_is_started_once_however_often_the_handler_is_replayed() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            let first = ctx.child(None);
            ctx.step("b").await?;
            let second = ctx.child(Some("x"));
            join(vec![job(first), job(second)])
                .await
                .into_iter()
                .collect()
        });
        assert_eq!(sim.run_through(), Status::Waiting);
        for _ in 0..3 {
            sim.event("nobody waits for it", "1");
            sim.store.row.status = Status::Queued;
            sim.claim();
            sim.settle();
            sim.crash();
        }
        let runs = started(&sim);
        let ids: Vec<&str> = runs.iter().map(|run| &*run.run_id).collect();
        assert_eq!(ids, ["run/child-1", "run/x"]);
    }

    #[test]
    fn a_child_that_was_not_committed_is_not_started_and_is_the_same_next_time() {
        let mut sim = Sim::new(one);
        sim.claim();
        sim.settle();
        let lost = sim.sent().unwrap().outgoing.clone();
        sim.crash();
        assert_eq!(sim.run(), Status::Waiting);
        let Errand::Start(lost) = errand(&lost[0]) else {
            panic!("not a start")
        };
        assert_eq!(started(&sim), [lost]);
    }

    #[test]
    fn a_failure_of_a_child_is_an_outcome_that_stays() {
        let mut sim = Sim::new(|ctx| async move {
            let caught = ctx.child(None).await;
            assert!(matches!(caught, Err(Fault::Failed { .. })));
            ctx.step("a").await
        });
        sim.run();
        let run = started(&sim).remove(0);
        ends(&mut sim, &run, "2", Ended::Failed, "boom");
        sim.claim();
        sim.settle();
        sim.apply();
        sim.crash();
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(
            sim.store.journal[3].meta().unwrap().ended,
            Some(Ended::Failed)
        );
    }

    #[test]
    fn a_failure_that_ends_the_parent_is_its_cause() {
        let mut sim = Sim::new(one);
        sim.run();
        let run = started(&sim).remove(0);
        ends(&mut sim, &run, "2", Ended::Failed, "boom");
        assert_eq!(sim.run(), Status::Failed);
        assert_eq!(sim.store.journal[4].meta().unwrap().cause, Some(3));
    }

    #[test]
    fn a_retry_keeps_what_completed_and_asks_again_for_what_failed() {
        let mut sim = Sim::new(|ctx| async move {
            let children = ["a", "b"].map(|id| job(ctx.child(Some(id))));
            join(children.into()).await.into_iter().collect()
        });
        sim.run();
        let runs = started(&sim);
        ends(&mut sim, &runs[0], "2", Ended::Failed, "boom");
        ends(&mut sim, &runs[1], "2", Ended::Completed, "kept");
        assert_eq!(sim.run(), Status::Failed);
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.waits, ["child:run/a"]);
        ends(&mut sim, &runs[0], "5", Ended::Completed, "at last");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(started(&sim).len(), 2);
    }

    #[test]
    fn the_end_of_another_life_of_the_id_is_set_aside() {
        let mut sim = Sim::new(one);
        sim.run();
        let run = started(&sim).remove(0);
        let other = NewRun {
            seed: [9; 16],
            ..run.clone()
        };
        ends(&mut sim, &other, "4", Ended::Completed, "no");
        assert_eq!(sim.run(), Status::Waiting);
        ends(&mut sim, &run, "4", Ended::Completed, "yes");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["child-1 completed: yes"]);
    }

    #[test]
    fn an_id_that_is_too_long_is_refused_and_nothing_is_recorded() {
        let mut sim = Sim::new(|ctx| async move {
            let refused = ctx.start(None, Some(&"x".repeat(256)));
            assert!(matches!(refused, Err(crate::machine::Halt::InvalidId(_))));
            Ok("done".into())
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.store.story(), ["run_created", "run_finished"]);
    }

    #[test]
    fn another_child_under_the_same_operation_parks_the_run() {
        let meta = Meta {
            run: Some("other".into()),
            workflow: Some("child".into()),
            ..Meta::default()
        };
        let journal = Journal::new("", T0).with(Kind::ChildStarted, "child-1", "", &meta);
        let mut sim = Sim::replaying(journal, one);
        assert_eq!(sim.run(), Status::Stuck);
        let note = sim.store.row.note.clone().unwrap();
        let expected = "expected (recorded) child_started of \"child-1\", which was the child \"other\" of workflow \
                        \"child\", found a handler that asked for the child \"run/child-1\" of workflow \"child\"";
        assert!(note.contains(expected), "{note}");
    }

    #[test]
    fn a_thousand_children_cost_a_handful_of_commits() {
        let mut sim = Sim::new(|ctx| async move {
            let children = (0..2_500).map(|_| job(ctx.child(None)));
            join(children.collect()).await.into_iter().collect()
        });
        assert_eq!(sim.run(), Status::Waiting);
        let sizes: Vec<usize> = sim.store.commits.iter().map(|c| c.outgoing.len()).collect();
        assert_eq!(sizes, [1_000, 1_000, 500]);
        assert_eq!(started(&sim).len(), 2_500);
    }

    #[test]
    fn a_run_with_a_parent_tells_it_of_its_end() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.store.row.parent = Some("above".into());
        assert_eq!(sim.run(), Status::Completed);
        let last = sim.store.commits.last().unwrap();
        let Errand::Message(message) = errand(&last.outgoing[0]) else {
            panic!("not a message")
        };
        assert_eq!((&*message.run_id, &*message.name), ("above", "run"));
        let end = End::from_payload(&message.payload).unwrap();
        assert_eq!(
            (end.ended, &end.payload[..]),
            (Ended::Completed, &b"a!"[..])
        );
        assert_eq!(message.message_id, message_id(&sim.store.row.seed, "3"));
    }
}
