//! `duramen-sim`: plays seeds on all cores, and tells the story of the first that fails.
//!
//! ```text
//! duramen-sim --seeds 100000 --start 1     so many, from that one on
//! duramen-sim --seed 123                   one, with all that happens in it
//! duramen-sim --plant fencing-off          with a fault built in, until it is caught
//! duramen-sim --disk 1 --seeds 1000        over SQLite on a disk that fails
//! ```

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use duramen_sim::oracles::Counts;
use duramen_sim::plan::{Plan, Plant};
use duramen_sim::{play, tell};

struct Options {
    start: u64,
    seeds: u64,
    plant: Plant,
    /// Over a file on a disk that fails, instead of memory.
    disk: bool,
    /// One seed, in full.
    traced: bool,
}

impl Options {
    fn plan(&self, seed: u64) -> Plan {
        if self.disk || self.plant.is_of_the_disk() {
            Plan::generate_on_disk(seed, self.plant)
        } else {
            Plan::generate(seed, self.plant)
        }
    }
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if options.traced {
        trace(&options.plan(options.start));
    }
    let (failed, counts, played, took) = play_all(&options);
    let rate = u128::from(played) * 1_000 / took.as_millis().max(1);
    println!("{played} seeds in {:.1} s ({rate}/s)", took.as_secs_f64());
    for (name, count) in counts.named() {
        let each = thousandths(count, played);
        println!("{count:>12} {name} ({each} a seed)");
    }
    let Some(seed) = failed else {
        println!("no rule was broken");
        return ExitCode::SUCCESS;
    };
    println!("\nseed {seed} breaks a rule; the smallest story found:\n");
    if let Some(story) = tell(&options.plan(seed)) {
        println!("{story}");
    }
    let disk = if options.disk { " DISK=1" } else { "" };
    let plant = match options.plant {
        Plant::None => String::new(),
        plant => format!(" ARGS=\"--plant {}\"", plant.name()),
    };
    println!("\nagain, in full: make sim SEED={seed}{disk}{plant}");
    ExitCode::FAILURE
}

/// How many there are for each of so many, to three places.
fn thousandths(count: u64, of: u64) -> String {
    let each = count.saturating_mul(1_000) / of.max(1);
    format!("{}.{:03}", each / 1_000, each % 1_000)
}

fn trace(plan: &Plan) {
    let verdict = play(plan, true);
    println!("{plan}\n--");
    for line in &verdict.trace {
        println!("{line}");
    }
    println!();
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        start: 1,
        seeds: 10_000,
        plant: Plant::None,
        disk: false,
        traced: false,
    };
    while let Some(name) = args.next() {
        let value = args
            .next()
            .ok_or_else(|| format!("{name} needs a value behind it"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|error| format!("{name} {value:?}: {error}"))
        };
        match name.as_str() {
            "--seeds" => options.seeds = number()?,
            "--start" => options.start = number()?,
            "--seed" => {
                options.start = number()?;
                options.seeds = 1;
                options.traced = true;
            }
            "--disk" => options.disk = number()? > 0,
            "--plant" => {
                options.plant = Plant::from_name(&value).ok_or_else(|| {
                    let names = Plant::ALL.map(Plant::name).join(", ");
                    format!("no fault is called {value:?}; there are {names}")
                })?;
            }
            _ => {
                return Err(format!(
                    "{name} is not known; there are --seeds, --start, --seed, --disk and --plant"
                ));
            }
        }
    }
    Ok(options)
}

/// The first seed that failed, what happened in all, how many seeds were played, and how long it took.
fn play_all(options: &Options) -> (Option<u64>, Counts, u64, Duration) {
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let (total, over) = (Mutex::new(Counts::default()), AtomicBool::new(false));
    let played = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut counts = Counts::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let seed = options.start.wrapping_add(number);
            // Seeds before one that failed are played all the same: the first is the one to tell.
            if number >= options.seeds || seed > failed.load(Ordering::Relaxed) {
                break;
            }
            let verdict = play(&options.plan(seed), false);
            counts.add(&verdict.counts);
            played.fetch_add(1, Ordering::Relaxed);
            if verdict.violation.is_some() {
                failed.fetch_min(seed, Ordering::Relaxed);
            }
        }
        if let Ok(mut total) = total.lock() {
            total.add(&counts);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        scope.spawn(|| {
            let mut said = Instant::now();
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                if said.elapsed() > Duration::from_secs(2) {
                    said = Instant::now();
                    let (played, all) = (played.load(Ordering::Relaxed), options.seeds);
                    let took = begun.elapsed().as_secs();
                    eprint!("\r{played} of {all} seeds, {took} s ");
                    // A progress line that cannot be written is no reason to stop.
                    let _ = std::io::stderr().flush();
                }
            }
        });
        for worker in workers {
            if worker.join().is_err() {
                eprintln!("a simulation panicked");
                failed.fetch_min(options.start, Ordering::Relaxed);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let failed = Some(failed.into_inner()).filter(|seed| *seed != u64::MAX);
    let counts = total.into_inner().unwrap_or_default();
    (failed, counts, played.into_inner(), begun.elapsed())
}
