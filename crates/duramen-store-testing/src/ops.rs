//! Random operations: small universes of names, so that they meet often.

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{
    Claim, Cursor, Due, Filter, Intervention, MessageKind, NewMessage, NewRun, Next, ReadMessage,
    RunCommit, Start, WorkflowKey,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

/// One call. Times are spans that pass before it, so that the clock never goes back.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create(Vec<NewRun>),
    Claim(Claim),
    Commit(Vec<CommitPlan>),
    Heartbeat(String, Millis),
    Unread(String),
    Deliver(Vec<NewMessage>),
    Intervene(Vec<InterventionPlan>),
    Get(Vec<RunId>),
    Load(RunId, u64, u32),
    List(Filter, u32, Option<Cursor>),
    /// Every page of a filter, by its cursors.
    Walk(Filter, u32),
    Count(Filter),
    NextDue(Vec<WorkflowKey>),
}

/// A commit relative to what the driver was given, so that it is often right and sometimes stale.
#[derive(Debug, Clone)]
pub(crate) struct CommitPlan {
    pub(crate) lease: usize,
    pub(crate) epoch_off: i64,
    pub(crate) length_off: i64,
    pub(crate) other_owner: bool,
    pub(crate) commit: RunCommit,
}

#[derive(Debug, Clone)]
pub(crate) struct InterventionPlan {
    pub(crate) intervention: Intervention,
    /// For reopening: the length is taken from the store, plus this.
    pub(crate) length_off: i64,
}

pub(crate) fn ops() -> impl Strategy<Value = Vec<(Millis, Op)>> {
    vec((0_i64..40, op()), 1..60)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => vec(new_run(), 1..4).prop_map(Op::Create),
        6 => claim().prop_map(Op::Claim),
        9 => vec(commit(), 1..4).prop_map(Op::Commit),
        2 => (owner(), 0_i64..80).prop_map(|(owner, lease)| Op::Heartbeat(owner, lease)),
        1 => owner().prop_map(Op::Unread),
        6 => vec(message(), 1..4).prop_map(Op::Deliver),
        2 => vec(intervention(), 1..3).prop_map(Op::Intervene),
        1 => vec(run_id(), 1..4).prop_map(Op::Get),
        1 => (run_id(), 0_u64..6, 0_u32..6).prop_map(|(id, from, limit)| Op::Load(id, from, limit)),
        2 => (filter(), 0_u32..5, of(cursor())).prop_map(|(f, limit, c)| Op::List(f, limit, c)),
        1 => (filter(), 1_u32..4).prop_map(|(filter, limit)| Op::Walk(filter, limit)),
        1 => filter().prop_map(Op::Count),
        1 => vec(workflow(), 0..3).prop_map(Op::NextDue),
    ]
}

fn run_id() -> impl Strategy<Value = RunId> {
    prop_oneof![Just("a"), Just("ab"), Just("b"), Just("c/é"), Just("d")].prop_map(RunId::from)
}

fn owner() -> impl Strategy<Value = String> {
    prop_oneof![Just("ann"), Just("bob")].prop_map(str::to_owned)
}

fn workflow() -> impl Strategy<Value = WorkflowKey> {
    (
        prop_oneof![Just("w"), Just("x")],
        prop_oneof![3 => Just("1"), 1 => Just("2")],
    )
        .prop_map(|(name, version)| WorkflowKey {
            name: name.to_owned(),
            version: version.to_owned(),
        })
}

fn payload() -> impl Strategy<Value = Payload> {
    vec(any::<u8>(), 0..9).prop_map(Payload::from)
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = (1_i64..19).prop_map(|code| Kind::from_code(code).unwrap());
    let meta = of(Just("{\"attempt\":2}".to_owned()));
    (
        kind,
        prop_oneof![Just(""), Just("step-1"), Just("ü#2")],
        meta,
        payload(),
        0_i64..500,
    )
        .prop_map(|(kind, op, meta, payload, at)| Entry {
            meta,
            ..Entry::new(kind, op.into(), payload, at)
        })
}

fn new_run() -> impl Strategy<Value = NewRun> {
    let start = prop_oneof![
        of(0_i64..300).prop_map(|at| Start::Queued { at }),
        (owner(), 0_i64..80).prop_map(|(owner, lease)| Start::Leased { owner, lease }),
    ];
    let tags = vec(prop_oneof![Just("red"), Just("re"), Just("blue")], 0..3);
    let few = (of(payload()), of(0_i64..100), any::<[u8; 16]>());
    (run_id(), workflow(), payload(), start, tags, few).prop_map(
        |(run_id, key, input, start, tags, (memo, timeout, seed))| NewRun {
            run_id,
            workflow: key.name,
            version: key.version,
            input,
            start,
            tags: tags.into_iter().map(str::to_owned).collect(),
            memo,
            timeout,
            seed,
            now: None,
        },
    )
}

fn claim() -> impl Strategy<Value = Claim> {
    let due = prop_oneof![
        1 => Just(Due::Recovery),
        1 => Just(Due::Wake),
        1 => Just(Due::Queued),
        4 => Just(Due::Any)
    ];
    let workflows = prop_oneof![
        3 => Just(all_workflows()),
        1 => vec(workflow(), 0..3),
    ];
    let warm = vec((run_id(), 1_u64..5), 0..3);
    let rare = (of(run_id()), of(0_u64..20), 0_u64..40);
    (owner(), 0_i64..80, due, 0_u32..4, workflows, warm, rare).prop_map(
        |(owner, lease, due, limit, workflows, warm, (run_id, max_bytes, turn))| Claim {
            owner,
            lease,
            now: None,
            due,
            limit,
            workflows,
            run_id,
            warm,
            turn,
            max_bytes,
        },
    )
}

fn all_workflows() -> Vec<WorkflowKey> {
    ["w", "x"]
        .into_iter()
        .flat_map(|name| ["1", "2"].map(|version| (name, version)))
        .map(|(name, version)| WorkflowKey {
            name: name.to_owned(),
            version: version.to_owned(),
        })
        .collect()
}

fn wait() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("timer"),
        Just("event:go"),
        Just("event:g"),
        Just("approval:go")
    ]
    .prop_map(str::to_owned)
}

fn commit() -> impl Strategy<Value = CommitPlan> {
    let next = prop_oneof![
        2 => Just(Next::Running),
        4 => (of(0_i64..600), vec(wait(), 0..3))
            .prop_map(|(ready_at, waits)| Next::Waiting { ready_at, waits }),
        // Now and then a status that no run can end with.
        1 => (0_i64..8).prop_map(|code| Next::Finished { status: Status::from_code(code).unwrap() }),
        1 => Just(Next::Stuck { note: "changed".to_owned() }),
    ];
    let refused = of(Just("wrong shape".to_owned()));
    let read = (0_u64..5, refused).prop_map(|(seq, refused)| ReadMessage { seq, refused });
    let offsets = prop_oneof![6 => Just((0, 0, false)), 1 => (-1_i64..2, -1_i64..2, any::<bool>())];
    let parts = (
        vec(entry(), 0..3),
        vec(read, 0..3),
        0_u64..6,
        next,
        of(payload()),
        0_i64..600,
    );
    (any::<prop::sample::Index>(), offsets, parts).prop_map(
        |(lease, (epoch_off, length_off, other_owner), parts)| {
            let (entries, read, inbox_seen, next, state, at) = parts;
            CommitPlan {
                lease: lease.index(8),
                epoch_off,
                length_off,
                other_owner,
                commit: RunCommit {
                    run_id: "".into(),
                    owner: String::new(),
                    epoch: 0,
                    expected_len: 0,
                    entries,
                    read,
                    inbox_seen,
                    next,
                    state,
                    at,
                },
            }
        },
    )
}

fn message() -> impl Strategy<Value = NewMessage> {
    let kind = prop_oneof![
        3 => Just(MessageKind::Event),
        1 => Just(MessageKind::Approval),
        1 => Just(MessageKind::Cancel)
    ];
    let fingerprint = of(prop_oneof![Just("yes"), Just("no")].prop_map(str::to_owned));
    let name = prop_oneof![Just("go"), Just("g"), Just("")];
    (run_id(), 0_u8..6, kind, name, payload(), fingerprint).prop_map(
        |(run_id, number, kind, name, payload, fingerprint)| NewMessage {
            run_id,
            message_id: format!("m{number}"),
            kind,
            name: name.to_owned(),
            payload,
            fingerprint,
            now: None,
        },
    )
}

fn intervention() -> impl Strategy<Value = InterventionPlan> {
    let intervention = prop_oneof![
        1 => (run_id(), entry()).prop_map(|(run_id, entry)| Intervention::Terminate { run_id, entry }),
        2 => (run_id(), vec(entry(), 0..3)).prop_map(|(run_id, entries)| Intervention::Reopen {
            run_id,
            expected_len: 0,
            entries,
            now: None
        }),
        1 => (run_id(), any::<bool>()).prop_map(|(run_id, force)| Intervention::Delete { run_id, force }),
    ];
    (
        intervention,
        prop_oneof![5 => Just(0_i64), 1 => Just(1_i64)],
    )
        .prop_map(|(intervention, length_off)| InterventionPlan {
            intervention,
            length_off,
        })
}

fn filter() -> impl Strategy<Value = Filter> {
    let status = vec(
        (0_i64..8).prop_map(|code| Status::from_code(code).unwrap()),
        0..4,
    );
    let tag = prop_oneof![Just("red"), Just("re"), Just("r"), Just("")].prop_map(str::to_owned);
    let prefix = prop_oneof![Just("a"), Just("c/"), Just(""), Just("z")].prop_map(str::to_owned);
    // Mostly one or two fields, so that the filter finds something.
    let rare = |probability| proptest::option::weighted(probability, 0_i64..400);
    let waits = proptest::option::weighted(0.2, wait());
    (
        proptest::option::weighted(0.2, workflow()),
        any::<bool>(),
        prop_oneof![2 => Just(Vec::new()), 1 => status],
        proptest::option::weighted(0.2, tag),
        waits,
        (rare(0.2), rare(0.2)),
        proptest::option::weighted(0.2, prefix),
    )
        .prop_map(
            |(key, version, status, tag, waiting_for, (after, before), id_prefix)| Filter {
                workflow: key.as_ref().map(|key| key.name.clone()),
                version: key.filter(|_| version).map(|key| key.version),
                status,
                tag,
                waiting_for,
                created_after: after,
                created_before: before,
                id_prefix,
            },
        )
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (0_i64..400, run_id()).prop_map(|(created_at, run_id)| Cursor { created_at, run_id })
}
