//! The SQLite store answers every call as the reference store in memory does.

use std::fmt::Debug;

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::{
    Filter, Heartbeat, Intervention, NextDue, Page, RunCommit, Store, StoreError, StoreFuture,
};
use duramen_store_memory::MemoryStore;
use duramen_store_sqlite::{SqliteOptions, SqliteStore, Synchronous};
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::differential_ops::{CommitPlan, InterventionPlan, Op, ops};
use crate::support::{Home, block_on};

/// A lease that some driver was given, whether or not it still holds.
#[derive(Debug, Clone)]
struct Lease {
    run_id: RunId,
    owner: String,
    epoch: i64,
    length: u64,
}

struct Both {
    memory: MemoryStore,
    sqlite: SqliteStore,
    now: Millis,
    leases: Vec<Lease>,
}

impl Both {
    fn same<T: PartialEq + Debug>(&self, call: impl Fn(&dyn Store) -> StoreFuture<T>) -> T {
        self.same_as(call, |answer| answer)
    }

    fn same_as<T: PartialEq + Debug>(
        &self,
        call: impl Fn(&dyn Store) -> StoreFuture<T>,
        relevant: impl Fn(T) -> T,
    ) -> T {
        let expected: Result<T, StoreError> = block_on(call(&self.memory)).map(&relevant);
        let found = block_on(call(&self.sqlite)).map(&relevant);
        assert_eq!(expected, found, "memory (left) and SQLite (right) differ");
        found.unwrap()
    }

    fn play(&mut self, op: &Op) {
        let now = Some(self.now);
        match op {
            Op::Create(batch) => {
                let batch: Vec<_> = batch
                    .iter()
                    .cloned()
                    .map(|mut new| {
                        new.now = now;
                        new
                    })
                    .collect();
                for created in self.same(|store| store.create(batch.clone())) {
                    self.note(&created.row);
                }
            }
            Op::Claim(claim) => {
                let mut claim = claim.clone();
                claim.now = now;
                for run in self.same(|store| store.claim(claim.clone())).runs {
                    self.note(&run.row);
                }
            }
            Op::Commit(plans) => {
                let batch: Vec<_> = plans
                    .iter()
                    .filter_map(|plan| self.concrete(plan))
                    .collect();
                self.same(|store| store.commit(batch.clone()));
                self.refresh();
            }
            Op::Heartbeat(owner, lease) => {
                let beat = Heartbeat {
                    owner: owner.clone(),
                    lease: *lease,
                    now,
                };
                self.same(|store| store.heartbeat(beat.clone()));
            }
            Op::Unread(owner) => {
                self.same(|store| store.unread(owner.clone()));
            }
            Op::Deliver(batch) => {
                let batch: Vec<_> = batch
                    .iter()
                    .cloned()
                    .map(|mut new| {
                        new.now = now;
                        new
                    })
                    .collect();
                self.same(|store| store.deliver(batch.clone()));
            }
            Op::Intervene(plans) => {
                let batch: Vec<_> = plans.iter().map(|plan| self.intervention(plan)).collect();
                self.same(|store| store.intervene(batch.clone()));
            }
            Op::Get(run_ids) => {
                self.same(|store| store.get(run_ids.clone()));
            }
            Op::Load(run_id, from, limit) => {
                self.same(|store| store.load(run_id.clone(), *from, *limit));
            }
            Op::List(filter, limit, cursor) => {
                self.same(|store| store.list(filter.clone(), *limit, cursor.clone()));
            }
            Op::Walk(filter, limit) => self.walk(filter, *limit),
            Op::Count(filter) => {
                self.same(|store| store.count(filter.clone()));
            }
            Op::NextDue(workflows) => {
                self.same_as(
                    |store| store.next_due(workflows.clone()),
                    |due| NextDue { now: 0, ..due },
                );
            }
        }
    }

    fn note(&mut self, row: &duramen_core::run::RunRow) {
        if let Some(owner) = &row.owner {
            self.leases.insert(
                0,
                Lease {
                    run_id: row.run_id.clone(),
                    owner: owner.clone(),
                    epoch: row.epoch,
                    length: row.journal_len,
                },
            );
            self.leases.truncate(8);
        }
    }

    /// Drivers learn the lengths of the journals that they write.
    fn refresh(&mut self) {
        for lease in &mut self.leases {
            let detail = block_on(self.memory.get(vec![lease.run_id.clone()]))
                .unwrap()
                .remove(0);
            if let Some(detail) = detail.filter(|detail| detail.row.epoch == lease.epoch) {
                lease.length = detail.row.journal_len;
            }
        }
    }

    fn concrete(&self, plan: &CommitPlan) -> Option<RunCommit> {
        let lease = self.leases.get(plan.lease % self.leases.len().max(1))?;
        let owner = if plan.other_owner {
            "eve"
        } else {
            &lease.owner
        };
        Some(RunCommit {
            run_id: lease.run_id.clone(),
            owner: owner.to_owned(),
            epoch: lease.epoch + plan.epoch_off,
            expected_len: lease.length.saturating_add_signed(plan.length_off),
            ..plan.commit.clone()
        })
    }

    fn intervention(&self, plan: &InterventionPlan) -> Intervention {
        let mut intervention = plan.intervention.clone();
        if let Intervention::Reopen {
            run_id,
            expected_len,
            now,
            ..
        } = &mut intervention
        {
            let detail = block_on(self.memory.get(vec![run_id.clone()]))
                .unwrap()
                .remove(0);
            let length = detail.map_or(0, |detail| detail.row.journal_len);
            *expected_len = length.saturating_add_signed(plan.length_off);
            *now = Some(self.now);
        }
        intervention
    }

    fn walk(&self, filter: &Filter, limit: u32) {
        let mut cursor = None;
        let mut seen = 0;
        loop {
            let Page { rows, next } =
                self.same(|store| store.list(filter.clone(), limit, cursor.clone()));
            seen += rows.len() as u64;
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, self.same(|store| store.count(filter.clone())));
    }

    /// Every run, whole.
    fn compare_all(&self) {
        let rows = self
            .same(|store| store.list(Filter::default(), 1_000, None))
            .rows;
        let run_ids: Vec<RunId> = rows.into_iter().map(|row| row.run_id).collect();
        self.same(|store| store.get(run_ids.clone()));
        for run_id in &run_ids {
            self.same(|store| store.load(run_id.clone(), 0, u32::MAX));
        }
        for owner in ["ann", "bob"] {
            self.same(|store| store.unread(owner.to_owned()));
        }
    }
}

fn config() -> Config {
    Config {
        cases: std::env::var("PROPTEST_CASES")
            .ok()
            .and_then(|cases| cases.parse().ok())
            .unwrap_or(192),
        max_shrink_iters: 2_000,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sqlite_and_memory_give_the_same_answers_to_the_same_calls(ops in ops()) {
        let home = Home::new();
        let mut both = Both {
            memory: MemoryStore::new(),
            // The test is about answers; nothing of it has to survive a power cut.
            sqlite: home.open_with(SqliteOptions {
                synchronous: Synchronous::Normal,
                ..SqliteOptions::default()
            }),
            now: 0,
            leases: Vec::new(),
        };
        for (pass, op) in &ops {
            both.now += pass;
            both.play(op);
        }
        both.compare_all();
        block_on(both.sqlite.close()).unwrap();
    }
}
