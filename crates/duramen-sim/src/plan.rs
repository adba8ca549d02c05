//! What happens in a simulation: drawn from the seed, and made smaller when a story is told.

mod draw;
mod smaller;

use std::fmt;

use duramen_core::ids::Millis;
use duramen_core::store::MessageKind;

use crate::disk::DiskFault;
use crate::net::{Method, StoreFault};
use crate::program::Program;
use crate::world::{ProcessId, T0};

/// A fault that is built in on purpose, to see that the oracles notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Plant {
    #[default]
    None,
    /// The store does not look at owner, epoch and length.
    FencingOff,
    /// Steps start when they are asked for, whatever is durable.
    BarrierOff,
    /// Handlers get all results that have arrived in one drain, before they have their places.
    ArrivalOrder,
    /// The store acknowledges some commits and does not keep them.
    ForgottenCommit,
    /// A pause takes no notice of messages that came meanwhile.
    SleptOver,
    /// A claim brings more than it was asked for.
    GreedyClaim,
    /// Steps start without a look at the lease.
    LeaseIgnored,
    /// The disk says that it has synced, and has not.
    LyingDisk,
    /// The file is opened with the weaker durability, which a power cut shows.
    WeakSync,
    /// A heartbeat renews an owner whose lease has ended.
    LateRenewal,
    /// The fence does not look at which life of the run is meant.
    SeedIgnored,
    /// A commit that only appends is let through whoever sends it.
    LooseAppend,
    /// A claim takes runs that the claimer cannot read.
    FormatIgnored,
    /// Who takes over from its former name takes the runs of another process, which lives.
    GreedySuccession,
}

impl Plant {
    pub const ALL: [Self; 14] = [
        Self::FencingOff,
        Self::BarrierOff,
        Self::ArrivalOrder,
        Self::ForgottenCommit,
        Self::SleptOver,
        Self::GreedyClaim,
        Self::LeaseIgnored,
        Self::LyingDisk,
        Self::WeakSync,
        Self::LateRenewal,
        Self::SeedIgnored,
        Self::LooseAppend,
        Self::FormatIgnored,
        Self::GreedySuccession,
    ];

    /// Whether it shows only over SQLite.
    pub const fn is_of_the_disk(self) -> bool {
        matches!(self, Self::LyingDisk | Self::WeakSync)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FencingOff => "fencing-off",
            Self::BarrierOff => "barrier-off",
            Self::ArrivalOrder => "arrival-order",
            Self::ForgottenCommit => "forgotten-commit",
            Self::SleptOver => "slept-over",
            Self::GreedyClaim => "greedy-claim",
            Self::LeaseIgnored => "lease-ignored",
            Self::LyingDisk => "lying-disk",
            Self::WeakSync => "weak-sync",
            Self::LateRenewal => "late-renewal",
            Self::SeedIgnored => "seed-ignored",
            Self::LooseAppend => "loose-append",
            Self::FormatIgnored => "format-ignored",
            Self::GreedySuccession => "greedy-succession",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| plant.name() == name)
    }
}

/// Something that happens at an instant of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The action of that number.
    Action(usize),
    /// A sweep of that slot's process, and another one later.
    Sweep(usize, ProcessId),
    GoOn(ProcessId),
    Restart(usize),
    /// A process that was told to leave closes its engine.
    Close(ProcessId),
    /// It is gone.
    Gone(ProcessId),
    /// The answer of that number was lost a while ago: have its runs gone on?
    Watch(usize),
    /// From here on nothing goes wrong any more.
    Calm,
    /// Have all runs ended?
    Look,
    /// Only so that the world looks at what is runnable.
    Nudge,
}

/// How a process finds its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Worker {
        concurrency: usize,
        poll_min: Millis,
        poll_max: Millis,
    },
    Sweeper {
        every: Millis,
        limit: usize,
        most: [usize; 3],
        within: Option<Millis>,
    },
    /// It drives what was started in it, and nothing else.
    Starter,
}

/// A place for one process after the other.
#[derive(Debug, Clone)]
pub struct SlotPlan {
    pub mode: Mode,
    pub lease: Millis,
    pub hold: Millis,
    pub warm: usize,
    /// By how much its clock is off.
    pub skew: Millis,
    /// Its processes are of a newer build.
    pub newer: bool,
    /// Its processes have one name, each after the other.
    pub named: bool,
    pub latency: Millis,
    /// How long its event loop is busy after each round, at the most.
    pub lag: Millis,
    pub faults: Vec<StoreFaultPlan>,
}

/// A fault of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFaultPlan {
    /// The how-manieth process of the slot (from 0).
    pub life: u32,
    pub method: Method,
    /// The how-manieth call of the method (from 0).
    pub number: u32,
    pub fault: StoreFault,
}

#[derive(Debug, Clone)]
pub struct RunPlan {
    pub program: Program,
    pub timeout: Option<Millis>,
}

/// Which way a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Through an engine.
    Slot(usize),
    /// Through a program of its own.
    Direct,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Creates the run of that number; `driven` asks the engine to drive it.
    Create {
        run: usize,
        via: Via,
        driven: bool,
    },
    Send {
        run: usize,
        id: String,
        kind: MessageKind,
        name: String,
        payload: String,
        /// Only newer builds can read it.
        newer: bool,
        via: Via,
    },
    /// People end the run.
    Terminate {
        run: usize,
        via: Via,
    },
    /// People take back the end of the run.
    Retry {
        run: usize,
        slot: usize,
    },
    /// People remove the run, whatever it does.
    Delete {
        run: usize,
        via: Via,
    },
    /// A stranger's transaction holds the run, or its id.
    Hold {
        run: usize,
        span: Millis,
    },
    /// The time of day of a process's host is set.
    SetClock {
        slot: usize,
        by: Millis,
    },
    /// The store's clock is set.
    SetStore {
        by: Millis,
    },
    Crash {
        slot: usize,
        down: Millis,
    },
    /// Stopped, and later it goes on and knows nothing of it.
    Stop {
        slot: usize,
        down: Millis,
    },
    /// The event loop is blocked; what runs beside it goes on.
    Block {
        slot: usize,
        down: Millis,
    },
    /// All its runs are to yield.
    Yield {
        slot: usize,
    },
    /// It leaves properly: lets its runs go and ends.
    Leave {
        slot: usize,
        down: Millis,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    pub at: Millis,
    pub what: What,
}

/// Everything that a simulation is told.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub plant: Plant,
    pub slots: Vec<SlotPlan>,
    pub runs: Vec<RunPlan>,
    pub actions: Vec<Action>,
    pub outages: Vec<(Millis, Millis)>,
    pub calm_at: Millis,
    /// Some commits send messages to other runs.
    pub family: bool,
    /// What befalls the disk, for a simulation over SQLite; none is one in memory.
    pub disk: Option<Vec<DiskFaultPlan>>,
}

/// A fault of one write or sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFaultPlan {
    /// How often the power was cut before.
    pub boot: u32,
    /// The number of the write or sync since then (from 0).
    pub operation: u64,
    pub fault: DiskFault,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, run) in self.runs.iter().enumerate() {
            let timeout = run
                .timeout
                .map_or(String::new(), |span| format!(", ends after {span} ms"));
            writeln!(f, "run r{number}: {}{timeout}", run.program.root)?;
        }
        for (number, slot) in self.slots.iter().enumerate() {
            let (mode, lease, warm) = (slot.mode, slot.lease, slot.warm);
            write!(f, "slot {number}: {mode:?}, lease {lease} ms, warm {warm}")?;
            for (is, what) in [(slot.newer, ", newer"), (slot.named, ", one name")] {
                f.write_str(if is { what } else { "" })?;
            }
            for (name, span) in [
                ("hold", slot.hold),
                ("clock off by", slot.skew),
                ("latency", slot.latency),
                ("lag", slot.lag),
            ] {
                if span != 0 {
                    write!(f, ", {name} {span} ms")?;
                }
            }
            writeln!(f)?;
            for plan in &slot.faults {
                let (life, method) = (plan.life, plan.method);
                let (number, fault) = (plan.number, plan.fault);
                writeln!(f, "  process {life}: {method:?} {number}: {fault:?}")?;
            }
        }
        for (from, to) in &self.outages {
            writeln!(f, "{:>7} the store is gone until {}", from - T0, to - T0)?;
        }
        for plan in self.disk.iter().flatten() {
            let (boot, operation, fault) = (plan.boot, plan.operation, plan.fault);
            writeln!(f, "disk, boot {boot}: operation {operation}: {fault:?}")?;
        }
        if self.family {
            writeln!(f, "runs send messages to each other")?;
        }
        for action in &self.actions {
            writeln!(f, "{:>7} {:?}", action.at - T0, action.what)?;
        }
        write!(f, "{:>7} calm", self.calm_at - T0)
    }
}
