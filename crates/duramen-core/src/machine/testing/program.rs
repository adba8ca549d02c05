//! Small generated handlers: sequence, parallel, race with cancellation, loops, waits with
//! time-outs, retries, values.

use proptest::prelude::*;

use super::handler::{Ctx, Fault, Flow, Job, job, join, race, within};
use super::{failed, succeeded};
use crate::derive::ValueKind;
use crate::ids::Millis;
use crate::machine::op::Checkpoint;
use crate::primitives::step::StepOutcome;
use crate::retry::{Backoff, RetryPolicy};

/// One piece of a generated handler.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// Its first `fails` attempts fail; three are allowed.
    Step {
        id: u8,
        fails: u8,
        checkpoint: Checkpoint,
    },
    Sleep(Millis),
    Event {
        name: u8,
        timeout: Option<Millis>,
    },
    Approve(Option<Millis>),
    Value(u8),
    /// Of code that never changes: always in force.
    Patched(u8),
    /// An item of one of two streams.
    Write(u8),
    /// Takes updates from then on: such as end at once, run a step, or wait for an event first.
    Takes(u8),
    Seq(Vec<Node>),
    /// All of them; the first failure by position counts.
    Par(Vec<Node>),
    /// The first one; the others are cancelled.
    Race(Vec<Node>),
    Within(Millis, Box<Node>),
    Loop(u8, Box<Node>),
    Catch(Box<Node>),
    /// On cancellation a clean-up step runs before it goes on.
    Cleanup(Box<Node>),
}

pub(crate) const RETRY: RetryPolicy = RetryPolicy {
    attempts: 3,
    backoff: Backoff::Constant,
    base: 50,
    cap: 50,
    jitter: true,
    pauses_run: false,
};

/// The rule of generated steps: the id says how many attempts fail (and an `L` that it is lazy, a `T`
/// that its function runs in a transaction of the user's).
pub(crate) fn rule(op: &str, attempt: u32) -> StepOutcome {
    let fails = op.split('#').next().and_then(|id| id.split('f').nth(1));
    let fails: u32 = fails.and_then(|digits| digits.parse().ok()).unwrap_or(0);
    if attempt <= fails {
        failed("boom")
    } else {
        succeeded(&format!("{op}!"))
    }
}

impl Node {
    /// Whether how it ends cannot depend on when things happen.
    pub(crate) fn is_timeless(&self) -> bool {
        match self {
            Self::Step { .. }
            | Self::Sleep(_)
            | Self::Value(_)
            | Self::Patched(_)
            | Self::Write(_) => true,
            Self::Event { timeout, .. } | Self::Approve(timeout) => timeout.is_none(),
            Self::Seq(nodes) | Self::Par(nodes) => nodes.iter().all(Self::is_timeless),
            Self::Race(_) | Self::Within(..) | Self::Takes(_) => false,
            Self::Loop(_, node) | Self::Catch(node) | Self::Cleanup(node) => node.is_timeless(),
        }
    }

    /// The handler that this piece describes.
    pub(crate) fn run(self, ctx: Ctx) -> Job {
        match self {
            Self::Step {
                id,
                fails,
                checkpoint,
            } => job(async move {
                let stem = match checkpoint {
                    Checkpoint::Lazy => 'L',
                    Checkpoint::Durable => 's',
                    Checkpoint::Sealed => 'T',
                };
                ctx.step_with(&format!("{stem}{id}f{fails}"), RETRY, checkpoint)
                    .await
            }),
            Self::Sleep(span) => job(async move { ctx.sleep(span).await }),
            Self::Event { name, timeout } => {
                job(async move { ctx.event(&format!("e{name}"), timeout).await })
            }
            Self::Approve(timeout) => job(async move { ctx.approve(None, timeout).await }),
            Self::Value(kind) => job(async move {
                let kind =
                    [ValueKind::Now, ValueKind::Uuid, ValueKind::Random][usize::from(kind) % 3];
                Ok(ctx.value(kind).await)
            }),
            Self::Patched(id) => {
                job(async move { Ok(ctx.patched(&format!("p{id}")).await.to_string()) })
            }
            Self::Write(stream) => job(async move {
                ctx.write(&format!("w{stream}"), "item").await;
                Ok(String::new())
            }),
            Self::Takes(name) => job(async move {
                ctx.on_update(&format!("u{name}"), move |ctx, given| async move {
                    if name > 1 {
                        ctx.event("e0", None).await?;
                    }
                    if name > 0 {
                        let id = format!("s{name}f{name}");
                        return ctx.step_with(&id, RETRY, Checkpoint::Durable).await;
                    }
                    Ok(given)
                });
                Ok("takes".into())
            }),
            Self::Seq(nodes) => job(async move {
                let mut out = Vec::new();
                for node in nodes {
                    out.push(node.run(ctx.clone()).await?);
                }
                Ok(out.join(","))
            }),
            Self::Par(nodes) => job(async move {
                let ctx = ctx.together();
                let jobs = nodes.into_iter().map(|node| node.run(ctx.clone()));
                let flows: Result<Vec<_>, _> = join(jobs.collect()).await.into_iter().collect();
                flows.map(|out| out.join("+"))
            }),
            Self::Race(nodes) => job(async move {
                let ctx = ctx.together();
                let jobs = nodes.into_iter().map(|node| node.run(ctx.clone()));
                let (winner, flow) = race(jobs.collect()).await;
                flow.map(|out| format!("{winner}:{out}"))
            }),
            Self::Within(span, node) => job(async move {
                let inner = node.run(ctx.together());
                within(&ctx, span, inner).await
            }),
            Self::Loop(times, node) => job(async move {
                let mut out = String::new();
                for _ in 0..times {
                    out = node.clone().run(ctx.clone()).await?;
                }
                Ok(out)
            }),
            Self::Catch(node) => job(async move { caught(node.run(ctx).await) }),
            Self::Cleanup(node) => job(async move {
                let flow = node.run(ctx.clone()).await;
                if flow == Err(Fault::Cancelled) {
                    ctx.together().step("cleanup").await?;
                }
                flow
            }),
        }
    }
}

fn caught(flow: Flow) -> Flow {
    match flow {
        Err(Fault::Failed { op, .. }) => Ok(format!("caught {op}")),
        Err(Fault::TimedOut) => Ok("caught a time-out".into()),
        other => other,
    }
}

fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    prop_oneof![
        Just(Checkpoint::Durable),
        Just(Checkpoint::Lazy),
        Just(Checkpoint::Sealed)
    ]
}

/// Generated handlers, of some twenty operations at most.
pub(crate) fn nodes() -> impl Strategy<Value = Node> {
    let timeout = || prop::option::of(0..300_i64);
    let leaf = prop_oneof![
        5 => (0..3_u8, 0..3_u8, checkpoints())
            .prop_map(|(id, fails, checkpoint)| Node::Step { id, fails, checkpoint }),
        1 => (0..3_u8, checkpoints())
            .prop_map(|(id, checkpoint)| Node::Step { id, fails: 3, checkpoint }),
        2 => (0..200_i64).prop_map(Node::Sleep),
        2 => (0..2_u8, timeout()).prop_map(|(name, timeout)| Node::Event { name, timeout }),
        1 => timeout().prop_map(Node::Approve),
        2 => (0..3_u8).prop_map(Node::Value),
        1 => (0..2_u8).prop_map(Node::Patched),
        1 => (0..2_u8).prop_map(Node::Write),
        2 => (0..3_u8).prop_map(Node::Takes),
    ];
    leaf.prop_recursive(3, 20, 3, |inner| {
        let some = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            3 => some().prop_map(Node::Seq),
            2 => some().prop_map(Node::Par),
            2 => some().prop_map(Node::Race),
            1 => (0..250_i64, inner.clone())
                .prop_map(|(span, node)| Node::Within(span, Box::new(node))),
            1 => (1..3_u8, inner.clone()).prop_map(|(times, node)| Node::Loop(times, Box::new(node))),
            1 => inner.clone().prop_map(|node| Node::Cleanup(Box::new(node))),
            2 => inner.prop_map(|node| Node::Catch(Box::new(node))),
        ]
    })
}
