//! The same over the real `SQLite` store, on a disk that tears writes, fails syncs, is full, and loses
//! in a power cut what was not synced.

use duramen_sim::oracles::Counts;
use duramen_sim::plan::{Plan, Plant};
use duramen_sim::{play, tell};

const SEEDS: u64 = 150;

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut_and_no_seed_breaks_a_rule() {
    let mut counts = Counts::default();
    for seed in 1..=SEEDS {
        let plan = Plan::generate_on_disk(seed, Plant::None);
        let verdict = play(&plan, false);
        if verdict.violation.is_some() {
            let story = tell(&plan).expect("a seed that fails fails again");
            panic!("seed {seed}:\n{story}\nagain, in full: make sim SEED={seed} DISK=1");
        }
        counts.add(&verdict.counts);
    }
    let cuts = counts.power_cuts;
    assert!(cuts > SEEDS / 4, "only {cuts} power cuts in {SEEDS} seeds");
}

#[test]
fn a_seed_on_a_disk_gives_the_same_trace_to_the_byte() {
    for seed in 1..12 {
        let plan = Plan::generate_on_disk(seed, Plant::None);
        let [first, second] = [(); 2].map(|()| {
            let verdict = play(&plan, true);
            (verdict.trace.join("\n"), verdict.counts)
        });
        assert_eq!(first, second, "seed {seed}");
    }
}
