//! What happens in a simulation: drawn from the seed, and made smaller when a story is told.

use std::fmt;

use duramen_core::ids::Millis;
use duramen_core::store::MessageKind;

use crate::disk::DiskFault;
use crate::net::{Method, StoreFault};
use crate::program::{EVENTS, Program};
use crate::rng::Rng;
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

impl Plan {
    pub fn generate(seed: u64, plant: Plant) -> Self {
        let mut rng = Rng::new(seed);
        let span = rng.span(1_000, 10_000);
        let (mut slots, mut runs) = (Vec::new(), Vec::new());
        for _ in 0..rng.span(1, 4) {
            slots.push(slot(&mut rng.fork()));
        }
        // Versions side by side: some of the processes are newer than the others.
        let mixed = rng.one_in(3);
        for slot in &mut slots {
            slot.newer = mixed && rng.one_in(2);
        }
        for _ in 0..rng.span(1, 4) {
            let mut own = rng.fork();
            runs.push(RunPlan {
                program: Program::generate(&mut own),
                timeout: own.one_in(8).then(|| own.span(50, 8_000)),
            });
        }
        let mut actions = Vec::new();
        for run in 0..runs.len() {
            requests(&mut rng.fork(), run, &slots, mixed, span, &mut actions);
        }
        people(&mut rng.fork(), runs.len(), slots.len(), span, &mut actions);
        trouble(&mut rng.fork(), slots.len(), span, &mut actions);
        actions.sort_by_key(|action| action.at);
        let mut outages = Vec::new();
        if rng.one_in(5) {
            let from = T0 + rng.span(0, span);
            outages.push((from, from + rng.span(50, 4_000)));
        }
        Self {
            seed,
            plant,
            slots,
            runs,
            actions,
            outages,
            calm_at: T0 + span,
            family: rng.one_in(3),
            disk: None,
        }
    }

    /// The same on a file of the real SQLite store, on a disk that fails.
    pub fn generate_on_disk(seed: u64, plant: Plant) -> Self {
        let mut rng = Rng::new(seed ^ 0xd15c);
        let mut faults = Vec::new();
        for number in 0..rng.span(1, 7) {
            let fault = match rng.below(6) {
                0 => DiskFault::ShortWrite,
                1 => DiskFault::Full,
                2 => DiskFault::SyncFails,
                _ => DiskFault::PowerCut,
            };
            // Opening a new file takes some thirty, a commit about three.
            faults.push(DiskFaultPlan {
                boot: u32::try_from(rng.below(u64::from(number > 1) * 3 + 1)).unwrap_or(0),
                operation: rng.below(rng_most(number)),
                fault,
            });
        }
        Self {
            disk: Some(faults),
            ..Self::generate(seed, plant)
        }
    }

    /// Plans with less in them, the most daring first.
    pub fn smaller(&self) -> Vec<Self> {
        let mut out = Vec::new();
        for run in (0..self.runs.len()).filter(|_| self.runs.len() > 1) {
            out.push(self.without_run(run));
        }
        for slot in (0..self.slots.len()).filter(|_| self.slots.len() > 1) {
            out.push(self.without_slot(slot));
        }
        for at in 0..self.actions.len() {
            let is_creation = matches!(self.actions[at].what, What::Create { .. });
            if !is_creation {
                let mut plan = self.clone();
                plan.actions.remove(at);
                out.push(plan);
            }
        }
        for slot in 0..self.slots.len() {
            for at in 0..self.slots[slot].faults.len() {
                let mut plan = self.clone();
                plan.slots[slot].faults.remove(at);
                out.push(plan);
            }
        }
        for at in 0..self.disk.as_ref().map_or(0, Vec::len) {
            let mut plan = self.clone();
            if let Some(faults) = &mut plan.disk {
                faults.remove(at);
            }
            out.push(plan);
        }
        if !self.outages.is_empty() {
            out.push(Self {
                outages: Vec::new(),
                ..self.clone()
            });
        }
        if self.family {
            out.push(Self {
                family: false,
                ..self.clone()
            });
        }
        for slot in 0..self.slots.len() {
            for simpler in simpler_slot(&self.slots[slot]) {
                let mut plan = self.clone();
                plan.slots[slot] = simpler;
                out.push(plan);
            }
        }
        for run in 0..self.runs.len() {
            for program in self.runs[run].program.smaller() {
                let mut plan = self.clone();
                plan.runs[run].program = program;
                out.push(plan);
            }
            if self.runs[run].timeout.is_some() {
                let mut plan = self.clone();
                plan.runs[run].timeout = None;
                out.push(plan);
            }
        }
        out
    }

    fn without_run(&self, gone: usize) -> Self {
        let mut plan = self.clone();
        plan.runs.remove(gone);
        plan.actions.retain_mut(|action| {
            if let Some(run) = action.what.run_mut() {
                let mine = *run == gone;
                *run -= usize::from(*run > gone);
                return !mine;
            }
            true
        });
        plan
    }

    fn without_slot(&self, gone: usize) -> Self {
        let mut plan = self.clone();
        plan.slots.remove(gone);
        plan.actions.retain_mut(|action| match &mut action.what {
            What::Create { via, .. }
            | What::Send { via, .. }
            | What::Terminate { via, .. }
            | What::Delete { via, .. } => {
                if let Via::Slot(slot) = via {
                    if *slot == gone {
                        *via = Via::Slot(0);
                    } else {
                        *slot -= usize::from(*slot > gone);
                    }
                }
                true
            }
            What::Hold { .. } | What::SetStore { .. } => true,
            What::Retry { slot, .. }
            | What::SetClock { slot, .. }
            | What::Crash { slot, .. }
            | What::Stop { slot, .. }
            | What::Block { slot, .. }
            | What::Yield { slot }
            | What::Leave { slot, .. } => {
                let mine = *slot == gone;
                *slot -= usize::from(*slot > gone);
                !mine
            }
        });
        plan
    }
}

impl What {
    /// The run that it is about.
    const fn run_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::Create { run, .. }
            | Self::Send { run, .. }
            | Self::Terminate { run, .. }
            | Self::Retry { run, .. }
            | Self::Delete { run, .. }
            | Self::Hold { run, .. } => Some(run),
            _ => None,
        }
    }
}

fn simpler_slot(slot: &SlotPlan) -> Vec<SlotPlan> {
    let mut out = Vec::new();
    for (is, simple) in [
        (
            slot.skew != 0,
            SlotPlan {
                skew: 0,
                ..slot.clone()
            },
        ),
        (
            slot.newer,
            SlotPlan {
                newer: false,
                ..slot.clone()
            },
        ),
        (
            slot.named,
            SlotPlan {
                named: false,
                ..slot.clone()
            },
        ),
        (
            slot.lag != 0,
            SlotPlan {
                lag: 0,
                ..slot.clone()
            },
        ),
        (
            slot.latency != 0,
            SlotPlan {
                latency: 0,
                ..slot.clone()
            },
        ),
        (
            slot.warm != 0,
            SlotPlan {
                warm: 0,
                ..slot.clone()
            },
        ),
        (
            slot.hold != 0,
            SlotPlan {
                hold: 0,
                ..slot.clone()
            },
        ),
    ] {
        if is {
            out.push(simple);
        }
    }
    out
}

fn slot(rng: &mut Rng) -> SlotPlan {
    let mode = match rng.below(8) {
        0..=4 => Mode::Worker {
            concurrency: rng.pick(&[1, 2, 10], 10),
            poll_min: rng.pick(&[1, 20, 50], 20),
            poll_max: rng.pick(&[100, 500, 2_000], 500),
        },
        5 | 6 => Mode::Sweeper {
            every: rng.pick(&[100, 300, 1_000], 300),
            limit: rng.pick(&[1, 2, 50], 50),
            most: [0; 3].map(|_| rng.pick(&[0, 1, 25, 25], 25)),
            within: rng.one_in(2).then(|| rng.span(20, 2_000)),
        },
        _ => Mode::Starter,
    };
    let mut faults = Vec::new();
    if !rng.one_in(4) {
        for _ in 0..rng.span(0, 6) {
            let method = if rng.one_in(2) {
                Method::Commit
            } else {
                rng.pick(&Method::FAULTY, Method::Commit)
            };
            faults.push(StoreFaultPlan {
                life: u32::try_from(rng.below(3)).unwrap_or(0),
                method,
                number: u32::try_from(rng.below(rng_bound(method))).unwrap_or(0),
                fault: store_fault(rng),
            });
        }
    }
    // Answers that are lost among the first calls, which are made for certain.
    if rng.one_in(2) {
        for _ in 0..rng.span(1, 4) {
            let method = rng.pick(&LOSABLE, Method::Commit);
            faults.push(StoreFaultPlan {
                life: u32::try_from(rng.below(2)).unwrap_or(0),
                method,
                number: u32::try_from(rng.below(rng_bound(method).min(5))).unwrap_or(0),
                fault: StoreFault::LostAfter,
            });
        }
    }
    SlotPlan {
        mode,
        lease: rng.pick(&[400, 600, 1_000, 3_000], 1_000),
        hold: rng.pick(&[0, 0, 50, 400], 0),
        warm: rng.pick(&[0, 1, 16], 16),
        skew: rng.pick(&[0, 0, 0, 15, -15, 400, -400, 60_000, -60_000], 0),
        newer: false,
        named: rng.one_in(3),
        latency: rng.pick(&[0, 0, 1, 5, 40, 250], 0),
        lag: rng.pick(&[0, 0, 0, 2, 30], 0),
        faults,
    }
}

/// By how much clocks are set.
const JUMPS: [Millis; 5] = [50, 700, 3_000, 20_000, 200_000];

/// Among how many first operations a fault may strike: the first is likely to be met.
const fn rng_most(number: i64) -> u64 {
    match number {
        0 => 90,
        1 => 250,
        _ => 60,
    }
}

/// Calls whose answers are lost on purpose.
const LOSABLE: [Method; 10] = [
    Method::Commit,
    Method::Commit,
    Method::Commit,
    Method::Create,
    Method::Create,
    Method::Claim,
    Method::Deliver,
    Method::Heartbeat,
    Method::Intervene,
    Method::Retire,
];

/// Among how many first calls of a method a fault may strike.
const fn rng_bound(method: Method) -> u64 {
    match method {
        Method::Commit => 25,
        Method::Create | Method::Load | Method::Deliver => 3,
        Method::Intervene | Method::Retire => 1,
        _ => 12,
    }
}

fn store_fault(rng: &mut Rng) -> StoreFault {
    match rng.below(12) {
        0 => StoreFault::Locked,
        1 => StoreFault::Broken,
        2 | 3 => StoreFault::LostBefore,
        4 | 5 => StoreFault::LostAfter,
        6 => StoreFault::SlowThere(rng.span(20, 4_000)),
        7 => StoreFault::SlowBack(rng.span(20, 4_000)),
        8 | 9 => StoreFault::CrashBefore,
        _ => StoreFault::CrashAfter,
    }
}

/// A run's creation, and the messages that are sent to it.
fn requests(
    rng: &mut Rng,
    run: usize,
    slots: &[SlotPlan],
    mixed: bool,
    span: Millis,
    actions: &mut Vec<Action>,
) {
    let via = |rng: &mut Rng| via(rng, slots.len());
    let begin = if rng.one_in(2) {
        0
    } else {
        rng.span(0, span / 2)
    };
    let driven = rng.one_in(2);
    for again in 0..=u64::from(rng.one_in(5)) {
        actions.push(Action {
            at: T0 + begin + i64::try_from(again).unwrap_or(0) * rng.span(0, 500),
            what: What::Create {
                run,
                via: via(rng),
                driven,
            },
        });
    }
    for number in 0..rng.span(0, 8) {
        let (kind, name) = match rng.below(12) {
            0 => (MessageKind::Cancel, String::new()),
            1..=3 => {
                let id = format!("approval-{}", rng.span(1, 2));
                (MessageKind::Approval, id)
            }
            _ => (MessageKind::Event, rng.pick(&EVENTS, EVENTS[0]).to_owned()),
        };
        let unfit = kind == MessageKind::Event && rng.one_in(6);
        let newer = mixed && kind == MessageKind::Event && rng.one_in(5);
        let at = T0 + rng.span(0, span);
        for again in 0..=u64::from(rng.one_in(4)) {
            actions.push(Action {
                at: at + i64::try_from(again).unwrap_or(0) * rng.span(0, 1_000),
                what: What::Send {
                    run,
                    id: format!("m{number}"),
                    kind,
                    name: name.clone(),
                    payload: format!("{}{number}", if unfit { "bad " } else { "" }),
                    newer,
                    via: via(rng),
                },
            });
        }
    }
}

fn via(rng: &mut Rng, slots: usize) -> Via {
    if rng.one_in(3) {
        Via::Direct
    } else {
        Via::Slot(rng.place(slots))
    }
}

/// What people do to runs, and what strangers hold.
fn people(rng: &mut Rng, runs: usize, slots: usize, span: Millis, actions: &mut Vec<Action>) {
    if rng.one_in(2) {
        return;
    }
    for _ in 0..rng.span(1, 3) {
        let (run, at) = (rng.place(runs), T0 + rng.span(0, span));
        let mut act = |at, what| actions.push(Action { at, what });
        match rng.below(8) {
            0 | 1 => {
                let via = via(rng, slots);
                act(at, What::Terminate { run, via });
                if rng.one_in(2) {
                    let slot = rng.place(slots);
                    act(at + rng.span(0, 1_000), What::Retry { run, slot });
                }
            }
            2 => {
                let slot = rng.place(slots);
                act(at, What::Retry { run, slot });
            }
            3..=5 => {
                let by = via(rng, slots);
                act(at, What::Delete { run, via: by });
                if !rng.one_in(4) {
                    let (via, driven) = (via(rng, slots), rng.one_in(2));
                    let at = at + rng.pick(&[0, 0, 1, 20, 300], 0);
                    act(at, What::Create { run, via, driven });
                }
            }
            _ => {
                let span = rng.pick(&[50, 400, 2_000, 6_000], 400);
                act(at, What::Hold { run, span });
            }
        }
    }
}

/// What goes wrong with the processes themselves.
fn trouble(rng: &mut Rng, slots: usize, span: Millis, actions: &mut Vec<Action>) {
    for _ in 0..rng.span(0, 8) {
        let slot = rng.place(slots);
        let by = rng.pick(&JUMPS, 0) * if rng.one_in(2) { -1 } else { 1 };
        let what = match rng.below(14) {
            10..=12 => What::SetClock { slot, by },
            // Whatever sleeps would sleep for as much longer.
            13 => What::SetStore {
                by: by.max(-60_000),
            },
            0..=2 => What::Crash {
                slot,
                down: rng.pick(&[0, 100, 2_000], 100),
            },
            3..=6 => What::Stop {
                slot,
                down: rng.pick(&[50, 700, 1_500, 4_000, 8_000], 1_500),
            },
            7 => What::Block {
                slot,
                down: rng.pick(&[100, 700, 4_000], 700),
            },
            8 => What::Yield { slot },
            _ => What::Leave {
                slot,
                down: rng.pick(&[100, 2_000], 100),
            },
        };
        actions.push(Action {
            at: T0 + rng.span(0, span),
            what,
        });
    }
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
