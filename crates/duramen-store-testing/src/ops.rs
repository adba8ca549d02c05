//! Random operations: small universes of names, so that they meet often.

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::lanes::{DEFAULT_QUEUE, Lane};
use duramen_core::run::Status;
use duramen_core::store::{
    Claim, Cursor, Due, Filter, Intervention, MessageKind, NewMessage, NewRun, Next, Outgoing,
    OutgoingKind, ReadMessage, RunCommit, ScheduleAsk, ScheduleChange, ScheduleRow, Start,
    StreamAsk, StreamWrite,
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
    Append(Vec<AppendPlan>),
    Stream(StreamAsk),
    Heartbeat {
        owner: String,
        lease: Millis,
        succeeds: Option<String>,
    },
    Retire(String),
    Held(String, Option<RunId>, u32),
    /// With what some runs were told.
    Unread(String, Vec<(RunId, u64)>),
    Inbox(RunId, u64),
    Receipts(Vec<(RunId, String)>),
    Unsent(Millis, Option<RunId>, u32),
    /// The oldest so many of what is unsent are reported as sent.
    Sent(u32),
    Standing(Vec<RunId>),
    Deliver(Vec<NewMessage>),
    Intervene(Vec<InterventionPlan>),
    Get(Vec<RunId>),
    Load(RunId, u64, u32),
    List(Filter, u32, Option<Cursor>),
    /// Every page of a filter, by its cursors.
    Walk(Filter, u32),
    Count(Filter),
    Census,
    NextDue(Vec<String>),
    /// Each with whether the expected version is the one that stands there.
    ChangeSchedules(Vec<(ScheduleChange, bool)>),
    GetSchedules(Vec<String>),
    ListSchedules(Option<String>, u32),
    DueSchedules(ScheduleAsk),
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

/// The same for what a step has written.
#[derive(Debug, Clone)]
pub(crate) struct AppendPlan {
    pub(crate) lease: usize,
    pub(crate) epoch_off: i64,
    pub(crate) other_owner: bool,
    pub(crate) items: Vec<StreamWrite>,
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
        4 => vec(append(), 1..4).prop_map(Op::Append),
        2 => (run_id(), stream(), 0_u64..6, 1_u32..5).prop_map(|(run_id, stream, start, limit)| {
            Op::Stream(StreamAsk { run_id, stream, start, limit })
        }),
        4 => (owner(), 0_i64..150, proptest::option::weighted(0.2, owner()))
            .prop_map(|(owner, lease, succeeds)| Op::Heartbeat { owner, lease, succeeds }),
        1 => proptest::strategy::Union::new_weighted(vec![
            (2, owner().prop_map(Op::Retire).boxed()),
            (3, (owner(), of(run_id()), 0_u32..4)
                .prop_map(|(owner, after, limit)| Op::Held(owner, after, limit)).boxed()),
        ]),
        1 => (owner(), vec((run_id(), 0_u64..4), 0..2)).prop_map(|(owner, told)| Op::Unread(owner, told)),
        1 => (run_id(), 0_u64..4).prop_map(|(run_id, behind)| Op::Inbox(run_id, behind)),
        1 => vec((run_id(), message_id()), 0..4).prop_map(Op::Receipts),
        2 => prop_oneof![
            (0_i64..600, of(run_id()), 0_u32..5)
                .prop_map(|(before, run_id, limit)| Op::Unsent(before, run_id, limit)),
            (0_u32..4).prop_map(Op::Sent),
        ],
        1 => vec(run_id(), 1..4).prop_map(Op::Standing),
        6 => vec(message(), 1..4).prop_map(Op::Deliver),
        2 => vec(intervention(), 1..3).prop_map(Op::Intervene),
        1 => vec(run_id(), 1..4).prop_map(Op::Get),
        1 => (run_id(), 0_u64..6, 0_u32..6).prop_map(|(id, from, limit)| Op::Load(id, from, limit)),
        2 => (filter(), 0_u32..5, of(cursor())).prop_map(|(f, limit, c)| Op::List(f, limit, c)),
        1 => (filter(), 1_u32..4).prop_map(|(filter, limit)| Op::Walk(filter, limit)),
        1 => filter().prop_map(Op::Count),
        1 => Just(Op::Census),
        1 => vec(lane(), 0..3).prop_map(Op::NextDue),
        3 => proptest::strategy::Union::new_weighted(vec![
            (4, vec((schedule_change(), any::<bool>()), 1..4).prop_map(Op::ChangeSchedules).boxed()),
            (1, vec(schedule_id(), 0..3).prop_map(Op::GetSchedules).boxed()),
            (1, (of(schedule_id()), 0_u32..4).prop_map(|(after, limit)| Op::ListSchedules(after, limit)).boxed()),
            (3, schedule_ask().prop_map(Op::DueSchedules).boxed()),
        ]),
    ]
}

fn run_id() -> impl Strategy<Value = RunId> {
    prop_oneof![Just("a"), Just("ab"), Just("b"), Just("c/é"), Just("d")].prop_map(RunId::from)
}

/// Owners that have ended are of no use any more: a sequence needs more of them than meet at once.
fn owner() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just("ann"), 4 => Just("bob"), 1 => Just("cyd"), 1 => Just("dan"), 1 => Just("eli")]
        .prop_map(str::to_owned)
}

fn workflow() -> impl Strategy<Value = (String, String)> {
    (
        prop_oneof![Just("w"), Just("x")],
        prop_oneof![3 => Just("1"), 1 => Just("2")],
    )
        .prop_map(|(name, version)| (name.to_owned(), version.to_owned()))
}

fn queue() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(DEFAULT_QUEUE), 1 => Just("slow")].prop_map(str::to_owned)
}

/// The least encoding that can read something; now and then a newer build wrote it.
fn encoding() -> impl Strategy<Value = u8> {
    prop_oneof![12 => Just(1), 1 => Just(2_u8)]
}

fn lane() -> impl Strategy<Value = String> {
    (queue(), workflow(), encoding()).prop_map(|(queue, (workflow, version), format)| {
        Lane {
            queue: &queue,
            workflow: &workflow,
            version: &version,
            format,
        }
        .key()
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    vec(any::<u8>(), 0..9).prop_map(Payload::from)
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = (1_u8..21).prop_map(Kind::from_code);
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
        owner().prop_map(|owner| Start::Leased { owner }),
    ];
    let tags = vec(prop_oneof![Just("red"), Just("re"), Just("blue")], 0..3);
    let few = (of(payload()), of(0_i64..100), any::<[u8; 16]>());
    let place = (queue(), prop_oneof![3 => Just(5_u8), 1 => 0_u8..10]);
    let family = (
        proptest::option::weighted(0.2, run_id()),
        proptest::option::weighted(0.1, Just("import".to_owned())),
    );
    let brought = prop_oneof![4 => Just(Vec::new()), 1 => vec(entry(), 1..3)];
    (
        (run_id(), workflow(), place),
        payload(),
        start,
        tags,
        few,
        (family, brought),
    )
        .prop_map(
            |(
                (run_id, (workflow, version), (queue, priority)),
                input,
                start,
                tags,
                (memo, timeout, seed),
                ((parent, origin), entries),
            )| NewRun {
                run_id,
                workflow,
                version,
                queue,
                priority,
                meta: (input.len() % 2 == 0).then(|| "{\"x\":1}".to_owned()),
                input,
                started_at: (!entries.is_empty()).then_some(7),
                entries,
                start,
                tags: tags.into_iter().map(str::to_owned).collect(),
                memo,
                timeout,
                seed,
                root: parent.clone(),
                parent,
                origin,
                now: None,
            },
        )
}

fn schedule_id() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["nightly", "hourly", "ä", "B"]).prop_map(str::to_owned)
}

fn known_workflow() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["w", "v"]).prop_map(str::to_owned)
}

fn schedule_change() -> impl Strategy<Value = ScheduleChange> {
    let row = (
        0_i64..4,
        known_workflow(),
        of(0_i64..200),
        vec(any::<u8>(), 0..4),
    );
    (schedule_id(), of(0_i64..4), of(row)).prop_map(|(id, expected, row)| ScheduleChange {
        row: row.map(|(version, workflow, next_at, bytes)| ScheduleRow {
            id: id.clone(),
            version,
            workflow,
            next_at,
            definition: bytes.clone().into(),
            state: bytes.into(),
        }),
        id,
        expected,
    })
}

fn schedule_ask() -> impl Strategy<Value = ScheduleAsk> {
    let after = (0_i64..200, schedule_id());
    (vec(known_workflow(), 0..4), of(after), 0_u32..4).prop_map(|(workflows, after, limit)| {
        ScheduleAsk {
            workflows,
            after,
            limit,
            now: None,
        }
    })
}

fn claim() -> impl Strategy<Value = Claim> {
    let due = prop_oneof![
        1 => Just(Due::Recovery),
        1 => Just(Due::Wake),
        1 => Just(Due::Queued),
        4 => Just(Due::Any)
    ];
    let lanes = prop_oneof![
        3 => Just(all_lanes()),
        1 => vec(lane(), 0..3),
    ];
    let warm = vec((run_id(), 1_u64..5), 0..3);
    let rare = (of(run_id()), of(0_u64..20), 0_u64..40);
    (owner(), due, 0_u32..4, lanes, warm, rare).prop_map(
        |(owner, due, limit, lanes, warm, (run_id, max_bytes, turn))| Claim {
            owner,
            now: None,
            due,
            limit,
            lanes,
            run_id,
            warm,
            turn,
            max_bytes,
        },
    )
}

/// What this build reads of every workflow in every queue.
fn all_lanes() -> Vec<String> {
    let mut lanes = Vec::new();
    for queue in [DEFAULT_QUEUE, "slow"] {
        for workflow in ["w", "x"] {
            for version in ["1", "2"] {
                let lane = Lane {
                    queue,
                    workflow,
                    version,
                    format: 1,
                };
                lanes.push(lane.key());
            }
        }
    }
    lanes
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
        1 => (0_i64..9).prop_map(|code| Next::Finished { status: Status::from_code(code).unwrap() }),
        1 => Just(Next::Stuck { note: "changed".to_owned() }),
        2 => (of(0_i64..600), vec(wait(), 0..3)).prop_map(|(ready_at, waits)| Next::Paused {
            ready_at,
            waits,
            note: "held".to_owned()
        }),
        1 => (0_i64..600, prop_oneof![2 => Just("1"), 1 => Just("2"), 1 => Just("")])
            .prop_map(|(ready_at, version)| Next::Continued { ready_at, version: version.to_owned() }),
    ];
    let refused = of(Just("wrong shape".to_owned()));
    let read = (0_u64..5, refused, of(payload())).prop_map(|(seq, refused, reply)| ReadMessage {
        seq,
        refused,
        reply,
    });
    let offsets = prop_oneof![6 => Just((0, 0, false)), 1 => (-1_i64..2, -1_i64..2, any::<bool>())];
    let outgoing = prop_oneof![4 => Just(Vec::new()), 1 => vec(outgoing(), 1..4)];
    let written = prop_oneof![3 => Just(Vec::new()), 1 => vec(written(), 1..4)];
    let parts = (
        vec(entry(), 0..3),
        prop_oneof![2 => Just(Vec::new()), 1 => vec(read, 1..3)],
        proptest::option::weighted(0.4, 0_u64..6),
        next,
        (of(payload()), outgoing, written),
        0_i64..600,
        prop_oneof![20 => Just(None), 1 => Just(Some(2_u8))],
    );
    (any::<prop::sample::Index>(), offsets, parts).prop_map(
        |(lease, (epoch_off, length_off, other_owner), parts)| {
            let (mut entries, read, inbox_seen, next, (state, outgoing, written), at, format) =
                parts;
            if matches!(next, Next::Continued { .. }) && at % 8 > 0 {
                let beginning = Payload::from_static(b"again");
                entries.push(Entry::new(Kind::RunCreated, "".into(), beginning, at));
            }
            CommitPlan {
                lease: lease.index(8),
                epoch_off,
                length_off,
                other_owner,
                commit: RunCommit {
                    run_id: "".into(),
                    seed: [0; 16],
                    owner: String::new(),
                    epoch: 0,
                    expected_len: 0,
                    entries,
                    read,
                    inbox_seen,
                    next,
                    state,
                    outgoing,
                    written,
                    format,
                    at,
                },
            }
        },
    )
}

fn stream() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("s"), 2 => Just("t é"), 1 => Just("")].prop_map(str::to_owned)
}

fn written() -> impl Strategy<Value = StreamWrite> {
    let stream = prop_oneof![5 => Just("s"), 3 => Just("t é"), 1 => Just("a\u{1f}b")];
    let writer = prop_oneof![Just(""), Just("step#2"), Just("##2")];
    (
        (stream, writer, 0_u64..4, 0_u32..3),
        proptest::option::weighted(0.3, 0_u64..4),
        payload(),
        0_i64..500,
    )
        .prop_map(
            |((stream, writer, index, attempt), keep, payload, at)| StreamWrite {
                stream: stream.to_owned(),
                writer: writer.to_owned(),
                index,
                attempt,
                keep,
                payload,
                at,
            },
        )
}

fn append() -> impl Strategy<Value = AppendPlan> {
    let offsets = prop_oneof![6 => Just((0, false)), 1 => (-1_i64..2, any::<bool>())];
    (any::<prop::sample::Index>(), offsets, vec(written(), 0..4)).prop_map(
        |(lease, (epoch_off, other_owner), items)| AppendPlan {
            lease: lease.index(8),
            epoch_off,
            other_owner,
            items,
        },
    )
}

fn outgoing() -> impl Strategy<Value = Outgoing> {
    let kind = prop_oneof![Just(OutgoingKind::Start), Just(OutgoingKind::Message)];
    (kind, run_id(), payload()).prop_map(|(kind, target, body)| Outgoing { kind, target, body })
}

fn message_id() -> impl Strategy<Value = String> {
    (0_u8..6).prop_map(|number| format!("m{number}"))
}

fn message() -> impl Strategy<Value = NewMessage> {
    let kind = prop_oneof![
        3 => Just(MessageKind::Event),
        1 => Just(MessageKind::Approval),
        1 => Just(MessageKind::Cancel),
        1 => Just(MessageKind::Pause),
        1 => Just(MessageKind::Resume),
    ];
    let fingerprint = of(prop_oneof![Just("yes"), Just("no")].prop_map(str::to_owned));
    let name = prop_oneof![Just("go"), Just("g"), Just("")];
    (
        run_id(),
        message_id(),
        kind,
        name,
        payload(),
        (fingerprint, encoding()),
    )
        .prop_map(
            |(run_id, message_id, kind, name, payload, (fingerprint, encoding))| NewMessage {
                run_id,
                message_id,
                kind,
                name: name.to_owned(),
                payload,
                fingerprint,
                encoding,
                now: None,
            },
        )
}

fn intervention() -> impl Strategy<Value = InterventionPlan> {
    let intervention = prop_oneof![
        1 => (run_id(), entry(), vec(outgoing(), 0..2)).prop_map(|(run_id, entry, outgoing)| Intervention::Terminate { run_id, entry, outgoing }),
        2 => (run_id(), vec(entry(), 0..3), vec(outgoing(), 0..2), of(prop_oneof![Just("1"), Just("2")])).prop_map(
            |(run_id, entries, outgoing, version)| Intervention::Reopen {
                run_id,
                expected_len: 0,
                entries,
                outgoing,
                version: version.map(str::to_owned),
                now: None
            }
        ),
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
        (0_i64..9).prop_map(|code| Status::from_code(code).unwrap()),
        0..4,
    );
    let tag = prop_oneof![Just("red"), Just("re"), Just("r"), Just("")].prop_map(str::to_owned);
    let prefix = prop_oneof![Just("a"), Just("c/"), Just(""), Just("z")].prop_map(str::to_owned);
    // Mostly one or two fields, so that the filter finds something.
    let rare = |probability| proptest::option::weighted(probability, 0_i64..400);
    let waits = proptest::option::weighted(0.2, wait());
    let few = (
        proptest::option::weighted(0.1, queue()),
        proptest::option::weighted(0.1, run_id()),
        proptest::option::weighted(0.1, run_id()),
        rare(0.1),
    );
    (
        (proptest::option::weighted(0.2, workflow()), few),
        any::<bool>(),
        prop_oneof![2 => Just(Vec::new()), 1 => status],
        proptest::option::weighted(0.2, tag),
        waits,
        (rare(0.2), rare(0.2)),
        proptest::option::weighted(0.2, prefix),
    )
        .prop_map(
            |(
                (key, (queue, parent, root, finished_before)),
                version,
                status,
                tag,
                waiting_for,
                (after, before),
                id_prefix,
            )| Filter {
                workflow: key.as_ref().map(|(workflow, _)| workflow.clone()),
                version: key.filter(|_| version).map(|(_, version)| version),
                queue,
                parent,
                root,
                finished_before,
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
