//! The store as all processes share it: the real one behind it, its clock, and the oracles that see
//! every change. Planted faults of the store stand here too.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use duramen_core::ids::RunId;
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::RunRow;
use duramen_core::store::{
    Beat, Claim, Claimed, CommitOutcome, Created, Cursor, Delivered, Filter, Heartbeat, Intervened,
    Intervention, Message, NewMessage, NewRun, Next, NextDue, Page, RunCommit, RunDetail, Schema,
    Store, StoreError, StoreFuture, WorkflowKey,
};

use crate::net::settled;
use crate::oracles::{self, Facts};
use crate::plan::Plant;
use crate::world::{World, lock};

/// See the module's head.
pub struct Judge {
    /// Another one after a power cut.
    inner: Mutex<Arc<dyn Store>>,
    world: Arc<World>,
    facts: Mutex<Facts>,
    plant: Plant,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").finish_non_exhaustive()
    }
}

fn answer<T: Send + 'static>(answer: Result<T, StoreError>) -> StoreFuture<T> {
    Box::pin(std::future::ready(answer))
}

impl Judge {
    pub fn new(inner: Arc<dyn Store>, world: Arc<World>, plant: Plant) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(inner),
            world,
            facts: Mutex::default(),
            plant,
        })
    }

    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }

    fn inner(&self) -> Arc<dyn Store> {
        Arc::clone(&lock(&self.inner))
    }

    /// From here on this is the store: the same file, opened again.
    pub fn reopened(&self, store: Arc<dyn Store>) {
        *lock(&self.inner) = store;
    }

    pub fn row(&self, run_id: &RunId) -> Option<RunRow> {
        self.read_row(run_id).ok().flatten()
    }

    fn read_row(&self, run_id: &RunId) -> Result<Option<RunRow>, StoreError> {
        let details = settled(self.inner().get(vec![run_id.clone()]))?;
        Ok(details
            .into_iter()
            .next()
            .flatten()
            .map(|detail| detail.row))
    }

    pub fn journal(&self, run_id: &RunId) -> Result<Vec<Entry>, StoreError> {
        settled(self.inner().load(run_id.clone(), 0, u32::MAX))
    }

    /// Compares a run with what is known of it, where calls may have taken place that the store said
    /// had failed.
    pub fn reconcile(&self, run_id: &RunId) {
        let (Ok(row), Ok(journal)) = (self.read_row(run_id), self.journal(run_id)) else {
            return;
        };
        let mut facts = self.facts();
        if let (Some(row), Some(first)) = (&row, journal.first())
            && facts.run(run_id).history.is_empty()
        {
            facts.created(row, first.payload.clone(), first.clone());
        }
        let settled = facts.run(run_id).take_place(&journal);
        facts.judge(oracles::REPLAY, settled);
        let run = facts.run(run_id);
        if run.history.is_empty() {
            return; // nobody was told that it exists
        }
        let one = oracles::no_journal_has_two_histories(run, run_id, 0, &journal);
        let lost = oracles::nothing_acknowledged_is_lost(run, run_id, row.as_ref());
        facts.judge(oracles::NOTHING_LOST, lost);
        facts.judge(oracles::ONE_HISTORY, one);
    }

    fn commit_one(&self, commit: &RunCommit) -> Result<CommitOutcome, StoreError> {
        let before = self.read_row(&commit.run_id)?;
        let sent = self.tampered(commit.clone(), before.as_ref());
        let outcome = match sent.map(|sent| settled(self.inner().commit(vec![sent]))) {
            Some(Ok(outcomes)) => outcomes.into_iter().next(),
            Some(Err(error)) => {
                self.world.note(|| {
                    // Its kind alone: the text names the file, which is another one each time.
                    let error = format!("{error:?}");
                    let kind = error.split(' ').next().unwrap_or_default();
                    format!("a commit of {} fails: {kind}", commit.run_id)
                });
                self.facts().run(&commit.run_id).unsure(commit);
                self.reconcile(&commit.run_id);
                return Err(error);
            }
            None => Some(CommitOutcome::Applied { due: false }),
        };
        let outcome = outcome.ok_or(StoreError::Closed)?;
        self.world.note(|| {
            let kinds: Vec<String> = commit
                .entries
                .iter()
                .map(|entry| {
                    format!("{} {}", entry.kind.name(), entry.op)
                        .trim_end()
                        .to_owned()
                })
                .collect();
            let next = match &commit.next {
                Next::Running => "goes on".to_owned(),
                Next::Waiting { ready_at, waits } => {
                    let due = ready_at.map(|at| at - crate::world::T0);
                    format!("waits for {waits:?}, due {due:?}")
                }
                Next::Finished { status } => status.name().to_owned(),
                Next::Stuck { note } => format!("stuck: {note}"),
            };
            format!(
                "{} commits {} epoch {} at {}: [{}] {next} -> {outcome:?}",
                commit.owner,
                commit.run_id,
                commit.epoch,
                commit.expected_len,
                kinds.join(", ")
            )
        });
        let mut facts = self.facts();
        let stale = oracles::a_stale_epoch_never_writes(before.as_ref(), commit, &outcome);
        facts.judge(oracles::FENCING, stale);
        match &outcome {
            CommitOutcome::Applied { .. } => {
                facts.counts.commits += 1;
                facts.committed(commit);
                let from = usize::try_from(commit.expected_len).unwrap_or(usize::MAX);
                drop(facts);
                self.reread(&commit.run_id, from);
                let mut facts = self.facts();
                match &commit.next {
                    Next::Finished { status } => facts.shown(&commit.run_id, *status),
                    // Nobody has changed the code.
                    Next::Stuck { note } => {
                        let what = format!("{} is stuck: {note}", commit.run_id);
                        facts.judge(oracles::ENDS, Err(what));
                    }
                    Next::Running | Next::Waiting { .. } => {}
                }
            }
            CommitOutcome::Fenced => facts.counts.fenced += 1,
            CommitOutcome::Blocked | CommitOutcome::Rejected { .. } => {}
        }
        Ok(outcome)
    }

    /// Reads a journal from an index on, as anyone may, and compares it with what is known.
    fn reread(&self, run_id: &RunId, from: usize) {
        let index = u64::try_from(from).unwrap_or(u64::MAX);
        let Ok(read) = settled(self.inner().load(run_id.clone(), index, u32::MAX)) else {
            return; // the disk fails; the journal is read again when it does not
        };
        let mut facts = self.facts();
        let run = facts.run(run_id);
        let found = oracles::no_journal_has_two_histories(run, run_id, from, &read);
        facts.judge(oracles::ONE_HISTORY, found);
    }

    /// What the planted fault makes of a commit; none is one that is acknowledged and forgotten.
    fn tampered(&self, mut commit: RunCommit, before: Option<&RunRow>) -> Option<RunCommit> {
        match self.plant {
            Plant::FencingOff => {
                let Some(row) = before else {
                    return Some(commit);
                };
                commit.epoch = row.epoch;
                commit.expected_len = row.journal_len;
                if let Some(owner) = &row.owner {
                    commit.owner.clone_from(owner);
                }
            }
            Plant::ForgottenCommit => {
                let saves = commit.next == Next::Running && commit.entries.len() == 1;
                if saves && self.world.chance(|rng| rng.one_in(8)) {
                    return None;
                }
            }
            Plant::SleptOver => commit.inbox_seen = u64::MAX,
            _ => {}
        }
        Some(commit)
    }
}

impl Store for Judge {
    fn migrate(&self) -> StoreFuture<Schema> {
        answer(settled(self.inner().migrate()))
    }

    fn schema(&self) -> StoreFuture<Schema> {
        answer(settled(self.inner().schema()))
    }

    fn create(&self, mut batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        let now = self.world.now();
        for run in &mut batch {
            run.now = Some(now);
        }
        let inputs: Vec<_> = batch.iter().map(|run| run.input.clone()).collect();
        let created = match settled(self.inner().create(batch)) {
            Ok(created) => created,
            Err(error) => return answer(Err(error)),
        };
        let mut facts = self.facts();
        for (created, input) in created.iter().zip(inputs) {
            let (row, new) = (&created.row, created.created);
            self.world
                .note(|| format!("{} is created for {:?}: {new}", row.run_id, row.owner));
            if new {
                let first = Entry::new(Kind::RunCreated, "".into(), input.clone(), row.created_at);
                facts.created(row, input, first);
            }
        }
        drop(facts);
        answer(Ok(created))
    }

    fn claim(&self, mut claim: Claim) -> StoreFuture<Claimed> {
        claim.now = Some(self.world.now());
        let limit = claim.limit;
        if self.plant == Plant::GreedyClaim {
            claim.limit = claim.limit.saturating_mul(2);
        }
        let claimed = match settled(self.inner().claim(claim)) {
            Ok(claimed) => claimed,
            Err(error) => return answer(Err(error)),
        };
        let mut facts = self.facts();
        let found = oracles::a_claim_keeps_its_limit(claimed.runs.len(), limit);
        facts.judge(oracles::BUDGETS, found);
        for run in &claimed.runs {
            let row = &run.row;
            self.world.note(|| {
                let (owner, was) = (row.owner.as_deref().unwrap_or(""), run.was.name());
                let (id, epoch, len) = (&row.run_id, row.epoch, row.journal_len);
                format!("{owner} claims {id}, {was}, epoch {epoch}, {len} entries")
            });
            facts.claimed(row);
            if let Some(journal) = &run.journal {
                let known = facts.run(&row.run_id);
                let found = oracles::no_journal_has_two_histories(known, &row.run_id, 0, journal);
                facts.judge(oracles::ONE_HISTORY, found);
            }
        }
        drop(facts);
        answer(Ok(claimed))
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        // One by one: what a batch means does not depend on its neighbours, and each is judged by
        // the state right before it.
        answer(batch.iter().map(|one| self.commit_one(one)).collect())
    }

    fn heartbeat(&self, mut beat: Heartbeat) -> StoreFuture<Beat> {
        beat.now = Some(self.world.now());
        let lease = beat.lease;
        let beat = settled(self.inner().heartbeat(beat));
        if let Ok(beat) = &beat {
            let mut facts = self.facts();
            for (run_id, epoch) in &beat.held {
                facts.renewed(run_id, *epoch, beat.now + lease);
            }
        }
        answer(beat)
    }

    fn unread(&self, owner: String) -> StoreFuture<Vec<Message>> {
        answer(settled(self.inner().unread(owner)))
    }

    fn deliver(&self, mut batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        let now = self.world.now();
        let mut facts = self.facts();
        for message in &mut batch {
            message.now = Some(now);
            facts.sending(message);
        }
        let delivered = settled(self.inner().deliver(batch.clone()));
        for (message, delivered) in batch.iter().zip(delivered.iter().flatten()) {
            let (result, owner) = (delivered.result, &delivered.owner);
            facts.delivered(message, result);
            self.world.note(|| {
                let (id, run) = (&message.message_id, &message.run_id);
                format!("message {id} for {run}, held by {owner:?}: {result:?}")
            });
        }
        drop(facts);
        answer(delivered)
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        answer(settled(self.inner().intervene(batch)))
    }

    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        answer(settled(self.inner().get(run_ids)))
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        answer(settled(self.inner().load(run_id, from, limit)))
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        answer(settled(self.inner().list(filter, limit, cursor)))
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        answer(settled(self.inner().count(filter)))
    }

    fn next_due(&self, workflows: Vec<WorkflowKey>) -> StoreFuture<NextDue> {
        let now = self.world.now();
        answer(settled(self.inner().next_due(workflows)).map(|next| NextDue { now, ..next }))
    }

    fn close(&self) -> StoreFuture<()> {
        answer(settled(self.inner().close()))
    }
}
