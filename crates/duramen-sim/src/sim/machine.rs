//! The machine under the processes, when the store is a SQLite file: its disk fails, and its power is cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use duramen_core::store::Store;
use duramen_store_memory::MemoryStore;
use duramen_store_sqlite::{SqliteOptions, SqliteStore, Synchronous};
use tempfile::TempDir;

use super::Sim;
use crate::disk::{Disk, DiskFault};
use crate::net::settled;
use crate::oracles;
use crate::plan::{Deed, Plan, Plant};
use crate::rng::Rng;
use crate::world::{Event, ProcessId};

/// How often a file is opened again when the disk fails on opening.
const TRIES: u32 = 40;

/// A SQLite file on a disk that fails.
pub(super) struct Machine {
    folder: TempDir,
    disk: Arc<Disk>,
    store: Arc<SqliteStore>,
    rng: Rng,
    boots: u32,
    met: u64,
}

fn faults(plan: &Plan, boot: u32) -> BTreeMap<u64, DiskFault> {
    let faults = plan.disk.iter().flatten();
    faults
        .filter(|fault| fault.boot == boot)
        .map(|fault| (fault.operation, fault.fault))
        .collect()
}

impl Machine {
    /// The store of a simulation, and the machine under it if there is one.
    pub(super) fn boot(
        plan: &Plan,
        mut rng: Rng,
    ) -> Result<(Arc<dyn Store>, Option<Self>), String> {
        if plan.disk.is_none() {
            return Ok((Arc::new(MemoryStore::new()), None));
        }
        let folder = new_folder()?;
        let mut boots = 0;
        let (folder, disk, store, met) = open(plan, folder, &mut boots, &mut rng)?;
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        let machine = Self {
            folder,
            disk,
            store,
            rng,
            boots,
            met,
        };
        Ok((shared, Some(machine)))
    }

    pub(super) fn calm(&self) {
        self.disk.calm();
    }

    /// Closes the file; says how many faults have struck, and how often the power was cut.
    pub(super) fn end(self) -> (u64, u64) {
        let _ = settled(self.store.close());
        self.disk.forget();
        (self.met + self.disk.met(), u64::from(self.boots))
    }
}

fn new_folder() -> Result<TempDir, String> {
    tempfile::tempdir().map_err(|error| format!("no folder for the file: {error}"))
}

/// Opens the file in that folder; when the power is cut meanwhile, what it leaves in another one.
fn open(
    plan: &Plan,
    mut folder: TempDir,
    boots: &mut u32,
    rng: &mut Rng,
) -> Result<(TempDir, Arc<Disk>, Arc<SqliteStore>, u64), String> {
    let mut met = 0;
    let text = |error: std::io::Error| format!("the disk itself fails: {error}");
    let options = SqliteOptions {
        synchronous: if plan.plant == Plant::WeakSync {
            Synchronous::Normal
        } else {
            Synchronous::Full
        },
        ..SqliteOptions::default()
    };
    let mut disk = Disk::new(folder.path(), faults(plan, *boots)).map_err(text)?;
    for _ in 0..TRIES {
        let opened = SqliteStore::open(&folder.path().join("runs.db"), options.clone());
        if let Ok(store) = opened {
            // It begins once the schema is there: else nobody could ever have been told anything.
            if plan.plant == Plant::LyingDisk {
                disk.lie();
            }
            return Ok((folder, disk, Arc::new(store), met));
        }
        if disk.is_off() {
            met += disk.met();
            let next = new_folder()?;
            disk.after_power_cut(next.path(), rng).map_err(text)?;
            folder = next;
            *boots += 1;
            disk = Disk::new(folder.path(), faults(plan, *boots)).map_err(text)?;
        }
    }
    let last = SqliteStore::open(&folder.path().join("runs.db"), options);
    disk.forget();
    Err(format!(
        "the file cannot be opened any more: {:?}",
        last.err()
    ))
}

impl Sim {
    /// If the power is gone: everything starts again on what the disk has kept.
    pub(super) fn survive_power_cuts(&mut self) {
        if self
            .machine
            .as_ref()
            .is_none_or(|machine| !machine.disk.is_off())
        {
            return;
        }
        let Some(mut machine) = self.machine.take() else {
            return;
        };
        self.world.note(|| "the power is cut".to_owned());
        let all: Vec<ProcessId> = self.hosts.keys().copied().collect();
        for process in all {
            self.crash(process);
        }
        self.world.forget_requests();
        // Its threads end; nothing that they write arrives.
        let _ = settled(machine.store.close());
        let reopened = new_folder().and_then(|next| {
            machine
                .disk
                .after_power_cut(next.path(), &mut machine.rng)
                .map_err(|error| format!("the disk itself fails: {error}"))?;
            machine.boots += 1;
            open(&self.plan, next, &mut machine.boots, &mut machine.rng)
        });
        match reopened {
            Err(what) => self.judge.facts().judge(oracles::NOTHING_LOST, Err(what)),
            Ok((folder, disk, store, met)) => {
                machine.met += machine.disk.met() + met;
                machine.folder = folder;
                machine.disk = disk;
                machine.store = store;
                if self.calm {
                    machine.disk.calm();
                }
                self.judge
                    .reopened(Arc::clone(&machine.store) as Arc<dyn Store>);
                self.machine = Some(machine);
                for run_id in self.run_ids() {
                    self.judge.reconcile(&run_id);
                }
                for slot in 0..self.slots.len() {
                    let restart = Event::Deed(Deed::Restart(slot));
                    self.world.at(self.world.now() + 100, restart);
                }
            }
        }
    }
}
