//! Approvals: a recorded request, and a decision that comes as a message.

use crate::ids::{InvalidId, Millis, OpId, Payload};
use crate::inbox::Slot;
use crate::progress::desk::Desk;
use crate::progress::naming::Holder;
use crate::progress::op::OpKind;

/// The handler asks for a decision. The approval's id is the operation's id: derived from the
/// order of requests, never random, so that a crash cannot mint another one. From the second generation on
/// it has the generation's number, or a decision about the former one's would be a duplicate.
pub(crate) fn request(
    mut desk: Desk<'_>,
    id: Option<&str>,
    request: Payload,
    deadline: Option<Millis>,
) -> Result<(Slot, OpId), InvalidId> {
    let id = desk.id(id, "approval", Holder::Approval)?;
    let approval: OpId = desk.facts().in_generation(&id).as_ref().into();
    let key = format!("approval:{approval}").into();
    let slot = desk.open_wait(id, OpKind::Approval { key, request }, deadline);
    Ok((slot, approval))
}

#[cfg(test)]
mod tests {
    use crate::machine::testing::{Fault, Sim, T0};
    use crate::run::Status;

    #[test]
    fn the_id_comes_from_the_order_of_requests_and_survives_a_crash() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.approve(None, None).await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.apply();
        sim.crash();
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.waits, ["approval:approval-1"]);
        sim.decide("approval-1", "true");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(
            sim.store.story(),
            [
                "run_created",
                "step_completed a",
                "approval_requested approval-1",
                "approval_resolved approval-1",
                "run_finished"
            ]
        );
    }

    #[test]
    fn the_request_is_recorded_once_with_its_text_and_deadline() {
        let mut sim = Sim::new(|ctx| async move { ctx.approve(Some("ship"), Some(900)).await });
        sim.run();
        sim.event("unrelated", "1");
        sim.clock += 10;
        sim.claim();
        sim.run();
        assert_eq!(
            sim.store.story(),
            ["run_created", "approval_requested ship"]
        );
        let request = &sim.store.journal[1];
        assert_eq!(&request.payload[..], b"\"Ship it?\"");
        assert_eq!(
            request.meta.as_deref(),
            Some(r#"{"wait":"approval:ship","deadline":1000900}"#)
        );
        assert_eq!(sim.store.row.ready_at, Some(T0 + 900));
    }

    #[test]
    fn a_decision_may_come_early_and_one_that_is_late_times_out() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.approve(Some("a"), None).await?;
            assert_eq!(ctx.approve(Some("b"), Some(10)).await, Err(Fault::TimedOut));
            Ok(String::new())
        });
        sim.decide("a", "true");
        sim.run();
        sim.clock += 11;
        sim.decide("b", "true");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["a=true", "b timed out"]);
    }
}
