//! Seeds break no rule, and a seed is all that a simulation depends on.

use std::sync::atomic::{AtomicU64, Ordering};

use duramen_sim::oracles::Counts;
use duramen_sim::plan::{Plan, Plant};
use duramen_sim::{play, tell};

/// As many as fit into a quarter of a minute without optimisation; `make sim` plays more.
const SEEDS: u64 = 2_000;

#[test]
fn thousands_of_seeds_break_no_rule() {
    let next = AtomicU64::new(1);
    let work = || {
        let mut counts = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > SEEDS {
                return counts;
            }
            let plan = Plan::generate(seed, Plant::None);
            let verdict = play(&plan, false);
            if verdict.violation.is_some() {
                let story = tell(&plan).expect("a seed that fails fails again");
                panic!("seed {seed}:\n{story}\nagain, in full: make sim SEED={seed}");
            }
            counts.add(&verdict.counts);
        }
    };
    let mut counts = Counts::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            counts.add(&thread.join().unwrap());
        }
    });
    // The world was as bad as it is meant to be.
    for (what, count, least) in [
        ("crashes", counts.crashes, SEEDS),
        ("zombies", counts.zombies, SEEDS / 2),
        ("store faults", counts.faults, SEEDS),
        ("fenced commits", counts.fenced, SEEDS / 30),
        ("duplicates", counts.duplicates, SEEDS / 2),
        ("sweeps", counts.sweeps, SEEDS),
        ("steps", counts.steps, SEEDS * 4),
        ("prefixes", counts.prefixes, SEEDS * 10),
        ("claims", counts.claims, SEEDS * 3),
        ("lapses", counts.lapses, SEEDS / 2),
        ("successions", counts.successions, SEEDS / 3),
        ("runs taken over", counts.inherited, SEEDS / 50),
        ("restarts under a name", counts.renamed, SEEDS / 8),
        ("lost commits", counts.lost_commits, SEEDS / 10),
        ("lost creations", counts.lost_creations, SEEDS / 25),
        ("lost claims", counts.lost_claims, SEEDS / 25),
        ("lost deliveries", counts.lost_deliveries, SEEDS / 25),
        ("lost heartbeats", counts.lost_heartbeats, SEEDS / 20),
        ("lost retirements", counts.lost_retirements, SEEDS / 1_000),
        (
            "lost answers that were followed up",
            counts.watched,
            SEEDS / 100,
        ),
        ("clocks that were set", counts.jumps, SEEDS / 3),
        ("clocks of the store", counts.store_jumps, SEEDS / 8),
        ("terminated runs", counts.terminated, SEEDS / 25),
        ("reopened runs", counts.reopened, SEEDS / 40),
        ("runs created anew", counts.recreated, SEEDS / 15),
        ("blocked answers", counts.blocked, SEEDS / 4),
        ("raised formats", counts.formats, SEEDS / 3),
        ("claims of newer runs", counts.newer, SEEDS / 4),
        ("items carried out", counts.carried, SEEDS / 3),
    ] {
        assert!(count > least, "only {count} {what} in {SEEDS} seeds");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_to_the_byte() {
    for seed in 1..60 {
        let [first, second] = [(); 2].map(|()| {
            let verdict = play(&Plan::generate(seed, Plant::None), true);
            (verdict.trace.join("\n"), verdict.counts)
        });
        assert_eq!(first, second, "seed {seed}");
        assert!(first.0.lines().count() > 5, "seed {seed} tells nothing");
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let [first, second] = [1, 2].map(|seed| play(&Plan::generate(seed, Plant::None), true).trace);
    assert_ne!(first, second);
}

#[test]
fn tracing_changes_nothing() {
    for seed in 1..60 {
        let plan = Plan::generate(seed, Plant::None);
        let [quiet, traced] = [false, true].map(|traced| play(&plan, traced));
        assert_eq!(quiet.counts, traced.counts, "seed {seed}");
    }
}

/// Without `biased`, tokio lets a generator of its own choose among branches that are ready at once:
/// a few of twenty thousand seeds were played differently each time.
#[test]
fn the_engine_leaves_no_order_to_chance() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../duramen-engine/src");
    let mut selects = 0;
    let mut paths = vec![std::path::PathBuf::from(folder)];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            paths.extend(entries.map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (place, _) in text.match_indices("select! {") {
            let body = text[place..].trim_start_matches("select! {").trim_start();
            assert!(body.starts_with("biased;"), "{}", path.display());
            selects += 1;
        }
    }
    assert!(selects > 0, "the test looks in the wrong place");
}
