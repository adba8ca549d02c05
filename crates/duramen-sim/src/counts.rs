//! What happened in simulations, for people.

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $label:literal,)*) => {
        /// See the module's head.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            pub const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Each with its name.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$(($label, self.$name),)*]
            }
        }
    };
}

counts! {
    runs: "runs",
    claims: "runs claimed",
    commits: "commits",
    fenced: "commits fenced off",
    steps: "steps",
    messages: "messages",
    duplicates: "duplicates",
    sweeps: "sweeps",
    crashes: "crashes",
    zombies: "processes stopped beyond a lease",
    faults: "store faults",
    power_cuts: "power cuts",
    heartbeats: "heartbeats",
    /// Owners that were found to have ended by a heartbeat or a claim of theirs.
    lapses: "lapses",
    /// Incarnations that took over from one before, and the runs that were left for them.
    successions: "successions",
    inherited: "runs taken over",
    /// Owners of a name that was used before a restart.
    renamed: "restarts under a name in use",
    lost_commits: "lost answers to commits",
    lost_creations: "to creations",
    lost_claims: "to claims",
    lost_deliveries: "to deliveries",
    lost_heartbeats: "to heartbeats",
    lost_interventions: "to interventions",
    lost_retirements: "to retirements",
    lost_others: "to other calls",
    /// Lost answers whose runs were looked at: had they gone on?
    watched: "lost answers followed up",
    jumps: "clock jumps of processes",
    store_jumps: "of the store",
    terminated: "runs terminated",
    reopened: "reopened",
    deleted: "deleted",
    recreated: "created anew",
    refused: "interventions refused",
    blocked: "answers that a run is blocked",
    formats: "formats raised",
    newer: "runs of a newer format claimed",
    retired: "owners retired",
    outgoing: "outgoing items",
    written: "items of streams",
    carried: "carried out",
    prefixes: "journal prefixes replayed",
}
