//! Rules that hold for every handler and every order of arrival, shown on generated ones.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::testing::program::{Node, nodes, rule};
use super::testing::{FakeStore, Fault, Rest, Sim, T0};
use crate::ids::Millis;
use crate::inbox::Slot;
use crate::journal::{Entry, Kind};
use crate::run::Status;
use crate::store::Next;

/// A small deterministic source of choices (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

/// What may happen besides the handler's own doing.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)] // independent switches, chosen at random
pub(super) struct Weather {
    pub(super) crashes: bool,
    pub(super) yields: bool,
    pub(super) warm: bool,
    pub(super) hold: Millis,
    pub(super) alone: bool,
    /// Someone cancels the run.
    pub(super) cancel: bool,
    /// The run has a time-out.
    pub(super) deadline: Option<Millis>,
    /// The store refuses commits, or another driver takes the run away.
    pub(super) faults: bool,
    /// Failed, cancelled and stuck runs are tried again.
    pub(super) retries: bool,
    /// Steps tell of their progress.
    pub(super) tells: bool,
}

pub(super) fn sim(node: &Node, store: FakeStore, weather: Weather) -> Sim {
    let node = node.clone();
    let mut sim = Sim::on(store, move |ctx| {
        let ctx = if weather.alone { ctx.alone() } else { ctx };
        node.clone().run(ctx)
    })
    .rule(rule);
    sim.warm = weather.warm;
    sim.store.row.deadline = weather.deadline.map(|span| T0 + span);
    sim.hold = weather.hold;
    sim.check_start = Some(barrier_is_reached);
    sim
}

/// Every hard entry that stood in the journal when a step was asked for is durable when it starts,
/// and no step starts whose end is recorded.
fn barrier_is_reached(sim: &Sim, slot: Slot, op: &str) {
    let asked_at = sim.ctx().with(|world| world.asked_at[&slot]) - sim.store.row.journal_start;
    let durable = sim.store.journal.len();
    let sent = sim.sent().map_or(&[][..], |commit| &commit.entries[..]);
    let all: Vec<Entry> = sim.machine(|machine| {
        let journal = sim.store.journal.iter().chain(sent);
        journal
            .chain(machine.run.ledger.staged())
            .cloned()
            .collect()
    });
    let told = all
        .iter()
        .rfind(|entry| entry.kind == Kind::StepProgress && &*entry.op == op);
    assert_eq!(
        sim.machine(|machine| machine.progress_of(slot)),
        told.map(|entry| entry.payload.clone()),
        "{op} goes on from elsewhere than it has told"
    );
    for (index, entry) in all.iter().enumerate() {
        let done = entry.kind == Kind::StepCompleted && &*entry.op == op;
        assert!(!done, "{op} has a result and starts again");
        let before = (index as u64) < asked_at
            || (entry.kind == Kind::StepAttemptFailed && &*entry.op == op);
        assert!(
            !before || index < durable || is_light(entry),
            "{op} starts before entry {index} ({:?}) is durable",
            entry.kind
        );
    }
}

/// Entries that no effect waits for.
fn is_light(entry: &Entry) -> bool {
    let ends = matches!(entry.kind, Kind::StepCompleted | Kind::StepFailed);
    matches!(entry.kind, Kind::ValueRecorded | Kind::PatchMarked)
        || (ends && entry.op.starts_with('L'))
}

/// Entries that bring the handler an outcome.
fn delivers(entry: &Entry) -> bool {
    matches!(
        entry.kind,
        Kind::StepCompleted
            | Kind::StepFailed
            | Kind::EventReceived
            | Kind::ApprovalResolved
            | Kind::TimerFired
            | Kind::CancelRequested
            | Kind::UpdateAccepted
    )
}

/// Drives a run to its end in an order that the seed chooses.
pub(super) fn explore(sim: &mut Sim, seed: u64, weather: Weather) -> Status {
    let mut chance = Chance(seed);
    let mut early = 4;
    let mut crashes = if weather.crashes { 8 } else { 0 };
    let mut yields = if weather.yields { 4 } else { 0 };
    let mut cancels = u64::from(weather.cancel);
    let mut faults = if weather.faults { 2 } else { 0 };
    let mut retries = if weather.retries { 3 } else { 0 };
    let mut tells = if weather.tells { 6 } else { 0 };
    for _ in 0..5_000 {
        if !sim.is_live() {
            match (sim.store.row.status, sim.store.row.ready_at) {
                (Status::Queued | Status::Running, _) => {}
                (Status::Waiting, Some(at)) => sim.clock = sim.clock.max(at),
                (Status::Waiting, None) => {
                    let waits = sim.store.row.waits.clone();
                    assert!(!waits.is_empty(), "waits for nothing, for ever");
                    send(sim, &waits[chance.pick(waits.len())]);
                }
                (Status::Failed | Status::Cancelled | Status::Stuck, _) if retries > 0 => {
                    retries -= 1;
                    sim.store.retry(sim.clock);
                }
                (status, _) => return status,
            }
            sim.claim();
        }
        let rest = sim.settle();
        check_commit(sim);
        if crashes > 0 && chance.one_in(8) {
            crashes -= 1;
            sim.crash();
            continue;
        }
        if early > 0 && chance.one_in(6) {
            early -= 1;
            let keys = [
                "event:e0",
                "event:e1",
                "approval:approval-1",
                "update:u0",
                "update:u1",
                "update:u2",
            ];
            let key = keys[chance.pick(keys.len())];
            send(sim, key);
            continue;
        }
        if cancels > 0 && chance.one_in(10) {
            cancels -= 1;
            sim.cancel("enough");
            continue;
        }
        if tells > 0 && !sim.running.is_empty() && chance.one_in(4) {
            tells -= 1;
            let slot = sim.running[chance.pick(sim.running.len())].0;
            let (progress, wall) = (tells.to_string().into(), sim.clock);
            sim.machine(|machine| machine.step_progress(slot, progress, wall));
            continue;
        }
        if yields > 0 && chance.one_in(8) {
            yields -= 1;
            sim.machine(super::Machine::yield_now);
            continue;
        }
        let may_apply = u64::from(sim.is_committing());
        let may_complete = sim.running.len() as u64;
        let may_wait = match rest {
            Rest::Hold(until) => Some(until),
            _ => None,
        };
        let may_end = u64::from(sim.sealed().is_some()) * 2;
        let choices = may_apply * 2 + may_end + may_complete + u64::from(may_wait.is_some());
        if choices == 0 {
            assert!(!sim.is_live(), "nothing can ever happen: {rest:?}");
            continue;
        }
        let choice = chance.below(choices);
        sim.clock += i64::try_from(chance.below(40)).unwrap();
        if choice < may_apply * 2 {
            if faults > 0 && chance.one_in(6) {
                faults -= 1;
                if chance.one_in(2) {
                    sim.reject_next();
                } else {
                    sim.fence_next();
                }
            }
            sim.apply();
        } else if choice < may_apply * 2 + may_end {
            let disturbed = faults > 0 && chance.one_in(4);
            faults -= u64::from(disturbed);
            end_transaction(sim, disturbed.then(|| chance.pick(4)));
        } else if choice - may_apply * 2 - may_end < may_complete {
            sim.complete_at(usize::try_from(choice - may_apply * 2 - may_end).unwrap());
        } else if let Some(until) = may_wait {
            sim.clock = sim.clock.max(until);
        }
    }
    panic!("the run never ends");
}

fn send(sim: &mut Sim, key: &str) {
    match key.split_once(':') {
        Some(("event", name)) => sim.event(name, "\"hello\""),
        Some(("approval", id)) => sim.decide(id, "true"),
        Some(("update", name)) => sim.update(name, "\"more\""),
        _ => panic!("nobody can send to {key}"),
    }
}

/// The user's transaction ends: it takes place, or the fault of that number happens.
fn end_transaction(sim: &mut Sim, fault: Option<usize>) {
    match fault {
        Some(0) => sim.fence_next(),
        Some(1) => return sim.roll_back(),
        Some(number) => return sim.doubt(number == 2),
        None => {}
    }
    sim.apply_sealed();
}

/// A commit that keeps the lease has a reason, and one that is in the hands of whoever holds a
/// transaction is alone.
fn check_commit(sim: &Sim) {
    if let Some(sealed) = sim.sealed() {
        assert!(!sim.is_committing(), "two commits of a run at once");
        assert_eq!(sealed.expected_len, length(sim));
    }
    let Some(commit) = sim.sent() else { return };
    if commit.next == Next::Running {
        // A lazy step's result that a reopening took back is recorded again as a durable one.
        let reopened = sim.store.story().contains(&"run_reopened".to_owned());
        assert!(reopened || !commit.entries.iter().all(is_light) || !commit.read.is_empty());
    }
    assert_eq!(
        commit.expected_len,
        length(sim),
        "the journal has two histories"
    );
}

/// The index behind the last entry that is durable.
fn length(sim: &Sim) -> u64 {
    sim.store.row.journal_start + sim.store.journal.len() as u64
}

/// The same handler three times over, a generation each; the next one begins however it has ended, but for a
/// cancellation.
fn in_generations(node: &Node, weather: Weather) -> Sim {
    let node = node.clone();
    let mut sim = Sim::on(FakeStore::new("input", T0), move |ctx| {
        let ctx = if weather.alone { ctx.alone() } else { ctx };
        let node = node.clone();
        async move {
            let (number, before) = ctx.with(|world| {
                let machine = &world.machine;
                (machine.facts().generation, machine.input().clone())
            });
            let said = match node.run(ctx.clone()).await {
                Err(Fault::Cancelled) => return Err(Fault::Cancelled),
                flow => format!("{flow:?}"),
            };
            let all = format!("{};{number}: {said}", String::from_utf8_lossy(&before));
            if number < 2 {
                Err(Fault::Continued(all))
            } else {
                Ok(all)
            }
        }
    })
    .rule(rule);
    sim.warm = weather.warm;
    sim.hold = weather.hold;
    sim.check_start = Some(barrier_is_reached);
    sim
}

/// What the whole story must show, whatever happened on the way.
fn check_story(sim: &Sim) {
    let journal = &sim.store.journal;
    let reopened = journal.iter().any(|entry| entry.kind == Kind::RunReopened);
    let mut messages = BTreeSet::new();
    let mut ends = BTreeSet::new();
    let mut applied = BTreeMap::new();
    for entry in journal {
        let first = |first: bool, what: &str| {
            // What a reopening took back is recorded again; else nothing happens twice.
            assert!(first || reopened, "{what} was recorded twice");
        };
        match (entry.kind, entry.meta().unwrap().message) {
            (Kind::UpdateAccepted, Some(message)) => {
                let before = applied.insert(entry.op.clone(), message);
                first(before.is_none(), &entry.op);
            }
            (Kind::UpdateFinished, _) => {
                // Answered by the same commit, and only then read.
                let message = applied[&entry.op].clone();
                first(messages.insert(message.clone()), &message);
            }
            (_, Some(message)) => first(messages.insert(message.clone()), &message),
            _ => {}
        }
        if matches!(entry.kind, Kind::StepCompleted | Kind::StepFailed) {
            first(ends.insert(entry.op.clone()), &entry.op);
        }
    }
    // Each message that was consumed is in the journal, and the other way round.
    assert_eq!(sim.store.read.len(), messages.len());
    // Budget: every commit carries something that must be durable, or releases the lease.
    let releases = sim.store.commits.len() - sim.saves();
    let hard = |entry: &&Entry| {
        let soft = [Kind::ValueRecorded, Kind::PatchMarked, Kind::WaitOpened];
        !soft.contains(&entry.kind)
    };
    assert!(sim.saves() <= journal.iter().filter(hard).count());
    assert!(sim.store.commits.len() <= sim.saves() + releases);
}

/// Replays a prefix of a journal, cold, until the machine has nothing recorded left.
fn replay(node: &Node, journal: &[Entry], weather: Weather) -> Sim {
    let mut store = FakeStore::with_journal(journal.to_vec(), T0);
    store.row.started_at = Some(T0);
    let mut sim = sim(node, store, weather);
    sim.clock = journal.iter().map(|entry| entry.at).max().unwrap();
    sim.claim();
    while sim.machine(|machine| machine.is_replaying()) {
        sim.turn();
    }
    assert_eq!(sim.machine(|machine| machine.divergence().cloned()), None);
    sim
}

fn weather() -> impl Strategy<Value = Weather> {
    let flag = any::<bool>;
    let deadline = prop::option::weighted(0.3, 0..400_i64);
    (
        (flag(), flag(), flag(), flag()),
        0..100_i64,
        (flag(), flag(), flag(), flag()),
        deadline,
    )
        .prop_map(
            |((crashes, yields, warm, alone), hold, (cancel, faults, retries, tells), deadline)| {
                Weather {
                    crashes,
                    yields,
                    warm,
                    hold,
                    alone,
                    cancel,
                    deadline,
                    faults,
                    retries,
                    tells,
                }
            },
        )
}

impl Weather {
    /// Nothing here changes how a handler ends that does not look at the clock.
    fn is_kind(self) -> bool {
        !self.cancel && self.deadline.is_none() && !self.retries && !self.faults
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 4 * ProptestConfig::default().cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_run_ends_whatever_happens_and_its_journal_has_one_history(
        node in nodes(), seed in any::<u64>(), weather in weather()
    ) {
        let mut run = sim(&node, FakeStore::new("input", T0), weather);
        let status = explore(&mut run, seed, weather);
        let note = run.store.row.note.clone().unwrap_or_default();
        let refused = note.contains("the store refused");
        prop_assert!(status.is_final() || (weather.faults && refused), "{:?}: {}", status, note);
        check_story(&run);
        if node.is_timeless() && weather.is_kind() {
            let calm = Weather { hold: 0, ..Weather::default() };
            let mut other = sim(&node, FakeStore::new("input", T0), calm);
            let expected = explore(&mut other, !seed, calm);
            prop_assert_eq!(status, expected);
        }
    }

    #[test]
    fn a_run_goes_through_all_its_generations_whatever_happens(
        node in nodes(), seed in any::<u64>(), weather in weather()
    ) {
        let weather = Weather { deadline: None, ..weather };
        let mut run = in_generations(&node, weather);
        let status = explore(&mut run, seed, weather);
        let note = run.store.row.note.clone().unwrap_or_default();
        let refused = note.contains("the store refused");
        prop_assert!(status.is_final() || (weather.faults && refused), "{:?}: {}", status, note);
        if status == Status::Completed {
            prop_assert_eq!(run.store.row.generation, 2);
        }
        prop_assert_eq!(run.store.journal[0].kind, Kind::RunCreated);
        prop_assert_eq!(run.store.row.journal_len, length(&run));
        let begun = run.store.commits.iter().filter(|it| matches!(it.next, Next::Continued { .. }));
        prop_assert_eq!(begun.count() as u64, run.store.row.generation);
        if node.is_timeless() && weather.is_kind() {
            let calm = Weather { hold: 0, ..Weather::default() };
            let mut other = in_generations(&node, calm);
            let expected = explore(&mut other, !seed, calm);
            prop_assert_eq!(status, expected);
        }
    }

    #[test]
    fn every_prefix_of_a_journal_replays_to_the_same_outcomes_and_goes_on(
        node in nodes(), seed in any::<u64>(), alone in any::<bool>(), cancel in any::<bool>(),
        deadline in prop::option::weighted(0.3, 0..400_i64)
    ) {
        let calm = Weather { warm: true, cancel, deadline, tells: true, ..Weather::default() };
        let mut first = sim(&node, FakeStore::new("input", T0), calm);
        let status = explore(&mut first, seed, calm);
        prop_assert!(status.is_final());
        let weather = Weather { alone, deadline, ..Weather::default() };
        for len in 1..=first.store.journal.len() {
            let mut again = replay(&node, &first.store.journal[..len], weather);
            let learnt = first.store.journal[..len].iter().filter(|entry| delivers(entry)).count();
            prop_assert_eq!(&first.seen[..learnt], &again.seen[..learnt]);
            if len < first.store.journal.len() {
                let status = explore(&mut again, seed, weather);
                prop_assert!(status.is_final(), "{:?}", again.store.row.note);
                prop_assert!(again.store.journal.starts_with(&first.store.journal[..len]));
            } else {
                prop_assert_eq!(&again.seen, &first.seen);
            }
        }
    }
}
