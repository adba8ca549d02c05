//! Two stores answer every call of a random sequence alike.

use std::fmt::Debug;

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::{RunRow, Seed};
use duramen_core::store::{
    DueAsk, Filter, Heartbeat, Intervention, Page, RunCommit, Store, StoreError, StoreFuture,
    StreamAppend, StreamAsk, UnsentAsk,
};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::ops::{AppendPlan, CommitPlan, InterventionPlan, Op, ops};
use crate::{block_on, heartbeat};

/// A lease that some driver was given, whether or not it still holds.
#[derive(Debug, Clone)]
struct Lease {
    run_id: RunId,
    owner: String,
    epoch: i64,
    length: u64,
    seed: Seed,
}

struct Both<'s> {
    reference: &'s dyn Store,
    other: &'s dyn Store,
    now: Millis,
    leases: Vec<Lease>,
}

impl Both<'_> {
    fn same<T: PartialEq + Debug>(&self, call: impl Fn(&dyn Store) -> StoreFuture<T>) -> T {
        let expected: Result<T, StoreError> = block_on(call(self.reference));
        let found = block_on(call(self.other));
        assert_eq!(
            expected, found,
            "the reference (left) and the other store (right) differ"
        );
        found.unwrap()
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each call")]
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
                    if let Some(row) = created.row() {
                        self.note(row);
                    }
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
            Op::Append(plans) => {
                let batch: Vec<_> = plans.iter().filter_map(|plan| self.append(plan)).collect();
                self.same(|store| store.append(batch.clone()));
            }
            Op::Stream(ask) => {
                self.same(|store| store.stream(ask.clone()));
            }
            Op::Heartbeat {
                owner,
                lease,
                succeeds,
            } => {
                let beat = Heartbeat {
                    succeeds: succeeds.clone(),
                    ..heartbeat(owner, *lease, now)
                };
                let beat = self.same(|store| store.heartbeat(beat.clone()));
                for (run_id, epoch) in beat.inherited {
                    for lease in &mut self.leases {
                        if lease.run_id == run_id && lease.epoch == epoch {
                            lease.owner.clone_from(owner);
                        }
                    }
                }
            }
            Op::Retire(owner) => self.same(|store| store.retire(owner.clone(), now)),
            Op::Held(owner, after, limit) => {
                self.same(|store| store.held(owner.clone(), after.clone(), *limit));
            }
            Op::Unread(owner, told) => {
                self.same(|store| store.unread(owner.clone(), told.clone()));
            }
            Op::Inbox(run_id, behind) => {
                self.same(|store| store.inbox(run_id.clone(), *behind));
            }
            Op::Receipts(messages) => {
                self.same(|store| store.receipts(messages.clone()));
            }
            Op::Unsent(before, run_id, limit) => {
                let ask = UnsentAsk {
                    before: *before,
                    run_id: run_id.clone(),
                    limit: *limit,
                };
                self.same(|store| store.unsent(ask.clone()));
            }
            Op::Sent(limit) => {
                let ask = UnsentAsk {
                    before: Millis::MAX,
                    run_id: None,
                    limit: *limit,
                };
                let items = self.same(|store| store.unsent(ask.clone()));
                self.same(|store| store.sent(items.clone()));
            }
            Op::Standing(run_ids) => {
                self.same(|store| store.standing(run_ids.clone()));
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
            Op::Census => {
                self.same(|store| store.census());
            }
            Op::ChangeSchedules(changes) => {
                let ids: Vec<_> = changes
                    .iter()
                    .map(|(change, _)| change.id.clone())
                    .collect();
                let found = self.same(|store| store.get_schedules(ids.clone()));
                let mut batch = Vec::new();
                for ((change, is_right), found) in changes.iter().zip(found) {
                    let mut change = change.clone();
                    if *is_right {
                        change.expected = found.map(|row| row.version);
                    }
                    batch.push(change);
                }
                self.same(|store| store.change_schedules(batch.clone()));
            }
            Op::GetSchedules(ids) => {
                self.same(|store| store.get_schedules(ids.clone()));
            }
            Op::ListSchedules(after, limit) => {
                self.same(|store| store.list_schedules(after.clone(), *limit));
            }
            Op::DueSchedules(ask) => {
                let mut ask = ask.clone();
                ask.now = now;
                self.same(|store| store.due_schedules(ask.clone()));
            }
            Op::NextDue(lanes) => {
                let ask = DueAsk {
                    lanes: lanes.clone(),
                    now,
                };
                self.same(|store| store.next_due(ask.clone()));
            }
        }
    }

    fn note(&mut self, row: &RunRow) {
        if let Some(owner) = &row.owner {
            self.leases.insert(
                0,
                Lease {
                    run_id: row.run_id.clone(),
                    owner: owner.clone(),
                    epoch: row.epoch,
                    length: row.journal_len,
                    seed: row.seed,
                },
            );
            self.leases.truncate(8);
        }
    }

    /// Drivers learn the lengths of the journals that they write.
    fn refresh(&mut self) {
        for lease in &mut self.leases {
            let standing = block_on(self.reference.standing(vec![lease.run_id.clone()]))
                .unwrap()
                .remove(0);
            if let Some(standing) = standing.filter(|found| found.epoch == lease.epoch) {
                lease.length = standing.journal_len;
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
            seed: lease.seed,
            owner: owner.to_owned(),
            epoch: lease.epoch + plan.epoch_off,
            expected_len: lease.length.saturating_add_signed(plan.length_off),
            ..plan.commit.clone()
        })
    }

    fn append(&self, plan: &AppendPlan) -> Option<StreamAppend> {
        let lease = self.leases.get(plan.lease % self.leases.len().max(1))?;
        let owner = if plan.other_owner {
            "eve"
        } else {
            &lease.owner
        };
        Some(StreamAppend {
            run_id: lease.run_id.clone(),
            seed: lease.seed,
            owner: owner.to_owned(),
            epoch: lease.epoch + plan.epoch_off,
            items: plan.items.clone(),
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
            let detail = block_on(self.reference.get(vec![run_id.clone()]))
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
            for stream in ["s", "t é"] {
                let ask = StreamAsk {
                    run_id: run_id.clone(),
                    stream: stream.to_owned(),
                    start: 0,
                    limit: u32::MAX,
                };
                self.same(|store| store.stream(ask.clone()));
            }
        }
        for owner in self.same(|store| store.owners()) {
            let name = owner.owner;
            self.same(|store| store.unread(name.clone(), Vec::new()));
            self.same(|store| store.held(name.clone(), None, u32::MAX));
        }
        let ask = UnsentAsk {
            before: Millis::MAX,
            run_id: None,
            limit: u32::MAX,
        };
        self.same(|store| store.unsent(ask.clone()));
        self.same(|store| store.list_schedules(None, u32::MAX));
    }
}

/// Plays sequences on a reference store and another, both made empty by `fresh` for each sequence, and
/// fails with the shortest sequence that they answer differently.
///
/// The sequences are the same in each run of a test; with `PROPTEST_CASES` there are as many as it says,
/// different ones each time.
pub fn same_answers<R: Store, S: Store>(cases: u32, fresh: impl Fn() -> (R, S)) {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: asked.unwrap_or(cases),
        max_shrink_iters: 2_000,
        // Milliseconds; the shortest found until then is good enough.
        max_shrink_time: 30_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = if asked.is_some() {
        TestRunner::new(config)
    } else {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, rng)
    };
    let played = runner.run(&ops(), |ops| {
        let (reference, other) = fresh();
        let mut both = Both {
            reference: &reference,
            other: &other,
            now: 0,
            leases: Vec::new(),
        };
        for (pass, op) in &ops {
            both.now += pass;
            both.play(op);
        }
        both.compare_all();
        block_on(other.close()).unwrap();
        Ok(())
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}
