//! What a damaged store may bring: entries decoded from anything, journals that were tampered with.
//!
//! Nothing here may panic or go on for ever. A run whose journal does not fit its code is parked, and
//! parking it writes nothing into its journal.
//!
//! Deterministic in the tests. `DURAMEN_FUZZ=1` takes fresh cases each time, `PROPTEST_CASES` how many;
//! a case that fails is kept under `proptest-regressions`, and tried first ever after.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::history::History;
use super::properties::{Weather, explore, sim};
use super::testing::program::{Node, nodes, rule};
use super::testing::{FakeStore, Rest, Sim, T0};
use crate::family::Ended;
use crate::ids::Payload;
use crate::journal::{ENCODING, Entry, Kind, Meta, Tick};
use crate::run::Status;

/// More turns, or rounds of claim and release, than any generated handler can need.
const BOUND: usize = 5_000;

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("DURAMEN_FUZZ").is_none() {
        config.rng_seed = RngSeed::Fixed(0);
    }
    config
}

/// One way in which a journal is damaged. Places count modulo its length; entry 0 too may be hit.
#[derive(Debug, Clone)]
enum Damage {
    Drop(usize),
    Repeat(usize, usize),
    Swap(usize, usize),
    Cut(usize),
    Kind(usize, Kind),
    Op(usize, String),
    /// The operation of another entry.
    OpOf(usize, usize),
    Meta(usize, Option<String>),
    Payload(usize, Vec<u8>),
    At(usize, i64),
    Encoding(usize, u8),
    Insert(usize, Entry),
}

impl Damage {
    fn apply(self, journal: &mut Vec<Entry>) {
        let len = journal.len();
        if len == 0 {
            return;
        }
        match self {
            Self::Drop(at) => drop(journal.remove(at % len)),
            Self::Repeat(at, to) => journal.insert(to % (len + 1), journal[at % len].clone()),
            Self::Swap(one, other) => journal.swap(one % len, other % len),
            Self::Cut(at) => journal.truncate(at % (len + 1)),
            Self::Kind(at, kind) => journal[at % len].kind = kind,
            Self::Op(at, op) => journal[at % len].op = op.into(),
            Self::OpOf(at, from) => journal[at % len].op = journal[from % len].op.clone(),
            Self::Meta(at, meta) => journal[at % len].meta = meta,
            Self::Payload(at, payload) => journal[at % len].payload = payload.into(),
            Self::At(at, time) => journal[at % len].at = time,
            Self::Encoding(at, encoding) => journal[at % len].encoding = encoding,
            Self::Insert(at, entry) => journal.insert(at % (len + 1), entry),
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

/// Ids that generated handlers use, ids of Duramen's own, and any text.
fn op() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "(s|L)[0-2]f[0-3](#[1-3])?",
        4 => "(sleep|timer|event|approval|now|uuid|random|stream|update)-[0-3]",
        1 => Just(String::new()),
        1 => Just(crate::primitives::timer::RUN_TIMEOUT_OP.to_owned()),
        1 => any::<String>(),
    ]
}

/// Times and counts with their extremes.
fn extreme() -> impl Strategy<Value = i64> {
    prop_oneof![
        T0 - 500..T0 + 500,
        Just(0),
        Just(i64::MIN),
        Just(i64::MAX),
        any::<i64>(),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    (
        prop::option::of(prop_oneof![0..4_u32, Just(u32::MAX)]),
        prop::option::of(extreme()),
        prop::option::of("(timer|event:e[0-2]|approval:approval-[0-2]|update:u[0-2])|.{0,4}"),
        prop::option::of(extreme()),
        prop::option::of("m[0-9]"),
        prop::option::of(prop_oneof![0..20_u64, Just(u64::MAX)]),
        prop::option::of(("run/child-[0-2]|.{0,4}", "child|.{0,4}")),
        prop::option::of(prop_oneof![Just(Ended::Failed), Just(Ended::Conflict)]),
        prop::option::of("w[0-1]"),
        prop::option::of((extreme(), prop::option::of(extreme()))),
        prop::option::of(any::<bool>()),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(
                attempt,
                retry_at,
                wait,
                deadline,
                message,
                cause,
                other,
                ended,
                stream,
                tick,
                failed,
                exhausted,
            )| {
                let (run, workflow) = other.unzip();
                Meta {
                    attempt,
                    retry_at,
                    wait,
                    deadline,
                    message,
                    cause,
                    run: run.map(Into::into),
                    workflow,
                    ended,
                    stream,
                    tick: tick.map(|(at, previous)| Tick {
                        schedule: "s".to_owned(),
                        at,
                        previous,
                    }),
                    failed,
                    exhausted,
                    skipped: false,
                    undone: false,
                }
            },
        )
}

/// What may stand in the column of `meta`: what Duramen writes, nearly that, anything.
fn meta_text() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        4 => meta().prop_map(|meta| serde_json::to_string(&meta).ok()),
        1 => Just(None),
        1 => "\\{\"(attempt|deadline|cause|other)\":(-1|1e99|null|\"1\"|[0-9]{1,30})\\}".prop_map(Some),
        1 => any::<String>().prop_map(Some),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let bytes = prop::collection::vec(any::<u8>(), 0..8);
    let encoding = prop_oneof![9 => Just(ENCODING), 1 => any::<u8>()];
    (encoding, kind(), op(), meta_text(), bytes, extreme()).prop_map(
        |(encoding, kind, op, meta, payload, at)| Entry {
            encoding,
            kind,
            op: op.into(),
            meta,
            payload: Payload::from(payload),
            at,
        },
    )
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>;
    prop_oneof![
        at().prop_map(Damage::Drop),
        (at(), at()).prop_map(|(at, to)| Damage::Repeat(at, to)),
        (at(), at()).prop_map(|(one, other)| Damage::Swap(one, other)),
        at().prop_map(Damage::Cut),
        (at(), kind()).prop_map(|(at, kind)| Damage::Kind(at, kind)),
        (at(), op()).prop_map(|(at, op)| Damage::Op(at, op)),
        (at(), at()).prop_map(|(at, from)| Damage::OpOf(at, from)),
        (at(), meta_text()).prop_map(|(at, meta)| Damage::Meta(at, meta)),
        (at(), prop::collection::vec(any::<u8>(), 0..8))
            .prop_map(|(at, payload)| Damage::Payload(at, payload)),
        (at(), extreme()).prop_map(|(at, time)| Damage::At(at, time)),
        (at(), any::<u8>()).prop_map(|(at, encoding)| Damage::Encoding(at, encoding)),
        (at(), entry()).prop_map(|(at, entry)| Damage::Insert(at, entry)),
    ]
}

fn claim(node: &Node, journal: Vec<Entry>) -> Sim {
    let mut store = FakeStore::with_journal(journal, T0);
    store.row.started_at = Some(T0);
    let node = node.clone();
    let mut sim = Sim::on(store, move |ctx| node.clone().run(ctx)).rule(rule);
    sim.claim();
    sim
}

/// Turns until there is nothing to do, a bounded number of them, then asks for a commit.
fn settle(sim: &mut Sim) -> Rest {
    for _ in 0..BOUND {
        if !sim.is_live() || !sim.turn() {
            return sim.settle();
        }
    }
    panic!("the machine never comes to rest");
}

/// Drives a run with everything that it waits for until it ends or is parked.
fn drive(sim: &mut Sim) -> Status {
    for _ in 0..BOUND {
        if sim.store.is_left_to_newer() {
            return sim.store.row.status;
        }
        if !sim.is_live() {
            match (sim.store.row.status, sim.store.row.ready_at) {
                (Status::Queued | Status::Running, _) => {}
                (Status::Waiting, Some(at)) => sim.clock = sim.clock.max(at),
                (Status::Waiting, None) => {
                    let waits = sim.store.row.waits.clone();
                    let Some((kind, name)) = waits.iter().find_map(|key| key.split_once(':'))
                    else {
                        panic!("it waits for ever, for {waits:?}");
                    };
                    match kind {
                        "event" => sim.event(name, "\"hello\""),
                        _ => sim.decide(name, "true"),
                    }
                }
                (status, _) => return status,
            }
            sim.claim();
        }
        match settle(sim) {
            Rest::Committing => drop(sim.apply()),
            _ if sim.sealed().is_some() => {
                sim.apply_sealed();
            }
            _ if !sim.running.is_empty() => sim.complete_at(0),
            Rest::Hold(until) => sim.clock = sim.clock.max(until),
            Rest::Waiting | Rest::Idle => {
                // A journal that holds its own end: the machine has nothing more to say of it.
                assert!(!sim.machine(|machine| machine.is_driving()), "it hangs");
                return Status::Completed;
            }
        }
    }
    panic!("the run never ends");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn entries_decode_from_anything_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), entry in entry(), code in any::<u8>()
    ) {
        // Nothing is expected of garbage but an answer.
        drop(serde_json::from_slice::<Entry>(&bytes));
        prop_assert_eq!(Kind::from_code(code).code(), code);
        let text = serde_json::to_string(&entry).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Entry>(&text).unwrap(), &entry);
        if let Ok(meta) = entry.meta() {
            prop_assert_eq!(entry.with_meta(&meta).meta(), Ok(meta));
        }
    }

    #[test]
    fn a_history_keeps_the_order_of_any_journal(journal in prop::collection::vec(entry(), 0..20)) {
        let len = journal.len();
        if let Ok(mut history) = History::new(journal) {
            prop_assert!(history.len() <= len);
            let mut last = None;
            while let Some(placed) = history.pop() {
                prop_assert!(last < Some(placed.index) && placed.index < len as u64);
                last = Some(placed.index);
            }
        } else {
            prop_assert!(len > 0);
        }
    }

    #[test]
    fn a_journal_of_anything_ends_or_parks_the_run(
        node in nodes(), mut journal in prop::collection::vec(entry(), 0..12), created in any::<bool>()
    ) {
        if created && let Some(first) = journal.first_mut() {
            first.kind = Kind::RunCreated;
        }
        let mut run = claim(&node, journal);
        let status = drive(&mut run);
        let left = run.store.is_left_to_newer();
        prop_assert!(status.is_final() || matches!(status, Status::Stuck | Status::Paused) || left, "{:?}", status);
    }

    #[test]
    fn a_damaged_journal_ends_or_parks_the_run_and_parking_writes_nothing(
        node in nodes(), seed in any::<u64>(), cancel in any::<bool>(),
        damages in prop::collection::vec(damage(), 1..4)
    ) {
        let weather = Weather { cancel, retries: seed % 2 == 0, ..Weather::default() };
        let mut first = sim(&node, FakeStore::new("input", T0), weather);
        explore(&mut first, seed, weather);
        let mut journal = first.store.journal;
        for each in damages {
            each.apply(&mut journal);
        }
        let mut run = claim(&node, journal.clone());
        settle(&mut run);
        let parked = run.machine(|machine| machine.divergence().cloned());
        if let Some(divergence) = &parked {
            let entries = run.sent().map_or(0, |commit| commit.entries.len());
            prop_assert_eq!(entries, 0, "{}", divergence);
            prop_assert!(!divergence.to_string().is_empty());
        }
        let status = drive(&mut run);
        let left = run.store.is_left_to_newer();
        prop_assert!(status.is_final() || matches!(status, Status::Stuck | Status::Paused) || left, "{:?}", status);
        prop_assert!(parked.is_none() || status == Status::Stuck);
        prop_assert!(!left || run.store.journal == journal);
        prop_assert!(run.store.journal.starts_with(&journal));
    }
}
