//! The oracles notice what they are there for: each fault that is built in on purpose is caught
//! within so many seeds, and for the reason it should be.

use duramen_sim::oracles;
use duramen_sim::plan::{Plan, Plant};
use duramen_sim::{play, tell};

/// The fault, within how many seeds it is caught, and the rules that it may break first.
const TABLE: [(Plant, u64, &[&str]); 14] = [
    (Plant::FencingOff, 200, &[oracles::FENCING]),
    (Plant::BarrierOff, 50, &[oracles::BARRIER]),
    (
        Plant::ArrivalOrder,
        50,
        &[oracles::LEGAL, oracles::REPLAY, oracles::ENDS],
    ),
    (
        Plant::ForgottenCommit,
        50,
        &[oracles::ONE_HISTORY, oracles::NOTHING_LOST],
    ),
    (Plant::SleptOver, 1_000, &[oracles::ENDS]),
    (Plant::GreedyClaim, 50, &[oracles::BUDGETS]),
    (
        Plant::LeaseIgnored,
        200,
        &[oracles::LEASE, oracles::EFFECTS_ONCE],
    ),
    (
        Plant::LyingDisk,
        100,
        &[oracles::NOTHING_LOST, oracles::ONE_HISTORY],
    ),
    (
        Plant::WeakSync,
        100,
        &[oracles::NOTHING_LOST, oracles::ONE_HISTORY],
    ),
    (Plant::LateRenewal, 50, &[oracles::LAPSE]),
    (Plant::SeedIgnored, 2_000, &[oracles::FENCING]),
    (Plant::LooseAppend, 3_000, &[oracles::FENCING]),
    (Plant::FormatIgnored, 100, &[oracles::FORMATS]),
    (Plant::GreedySuccession, 200, &[oracles::ONE_DRIVER]),
];

fn plan(seed: u64, plant: Plant) -> Plan {
    if plant.is_of_the_disk() {
        Plan::generate_on_disk(seed, plant)
    } else {
        Plan::generate(seed, plant)
    }
}

fn first_caught(plant: Plant, within: u64) -> Option<(u64, &'static str)> {
    (1..=within).find_map(|seed| {
        let violation = play(&plan(seed, plant), false).violation?;
        Some((seed, violation.rule))
    })
}

#[test]
fn every_planted_fault_is_in_the_table() {
    assert_eq!(TABLE.map(|(plant, ..)| plant), Plant::ALL);
}

#[test]
fn every_planted_fault_is_caught_within_so_many_seeds_and_for_its_reason() {
    for (plant, within, rules) in TABLE {
        let caught = first_caught(plant, within);
        let Some((seed, rule)) = caught else {
            panic!("{} was not caught within {within} seeds", plant.name());
        };
        println!("{} is caught by seed {seed}: {rule}", plant.name());
        assert!(rules.contains(&rule), "{}: {rule}", plant.name());
    }
}

#[test]
fn a_story_is_smaller_than_its_seed_and_is_told_the_same_each_time() {
    let (seed, rule) = first_caught(Plant::FencingOff, 200).expect("it is caught");
    let plan = Plan::generate(seed, Plant::FencingOff);
    let [first, second] = [(); 2].map(|()| tell(&plan).expect("it fails again"));
    assert_eq!(first.to_string(), second.to_string());
    assert_eq!(first.violation.rule, rule);
    let whole = play(&plan, true);
    assert!(first.trace.len() < whole.trace.len());
    assert!(first.plan.to_string().len() < plan.to_string().len());
    assert_eq!(play(&first.plan, false).violation, Some(first.violation));
}
