//! The store as all processes share it: the real one behind it, its clock, and the oracles that see
//! every change. Planted faults of the store stand here too.

mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::RunRow;
use duramen_core::store::{
    CommitOutcome, Filter, Heartbeat, Next, RunCommit, Standing, Store, StoreError, StoreFuture,
    StreamAsk, UnsentAsk,
};

use crate::net::settled;
use crate::newer::newer_lane;
use crate::oracles::{self, Facts};
use crate::owners::{Owner, base};
use crate::plan::Plant;
use crate::watch::Watch;
use crate::world::{World, lock};

/// See the module's head.
pub struct Judge {
    /// Another one after a power cut.
    inner: Mutex<Arc<dyn Store>>,
    world: Arc<World>,
    facts: Mutex<Facts>,
    /// Until when strangers' transactions hold runs, or ids that have none.
    locks: Mutex<BTreeMap<RunId, Millis>>,
    watches: Mutex<Vec<Watch>>,
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
            locks: Mutex::default(),
            watches: Mutex::default(),
            plant,
        })
    }

    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        let now = self.world.now();
        let mut facts = lock(&self.facts);
        facts.now = now;
        facts
    }

    fn inner(&self) -> Arc<dyn Store> {
        Arc::clone(&lock(&self.inner))
    }

    /// Whether something that left a run is still to be carried out; not known while the disk fails.
    pub fn is_unsent(&self) -> bool {
        let ask = UnsentAsk {
            before: Millis::MAX,
            run_id: None,
            limit: 1,
        };
        settled(self.inner().unsent(ask)).is_ok_and(|unsent| !unsent.is_empty())
    }

    /// From here on this is the store: the same file, opened again.
    pub fn reopened(&self, store: Arc<dyn Store>) {
        *lock(&self.inner) = store;
    }

    /// The store's time.
    fn now(&self) -> Millis {
        self.world.store_now()
    }

    /// A stranger's transaction holds a run until then.
    pub fn hold(&self, run_id: &RunId, until: Millis) {
        lock(&self.locks).insert(run_id.clone(), until);
    }

    /// Nobody holds anything any more.
    pub fn calm(&self) {
        lock(&self.locks).clear();
    }

    fn is_blocked(&self, run_id: &RunId) -> bool {
        let until = lock(&self.locks).get(run_id).copied();
        let blocked = until.is_some_and(|until| until > self.world.now());
        self.facts().counts.blocked += u64::from(blocked);
        blocked
    }

    /// An answer will be lost.
    pub(crate) fn watch(&self, watch: Watch) {
        lock(&self.watches).push(watch);
    }

    pub(crate) fn take_watches(&self) -> Vec<Watch> {
        std::mem::take(&mut *lock(&self.watches))
    }

    pub fn standing_of(&self, run_id: &RunId) -> Result<Option<Standing>, StoreError> {
        let standings = settled(self.inner().standing(vec![run_id.clone()]))?;
        Ok(standings.into_iter().next().flatten())
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
        if row.is_none() && facts.run(run_id).may_be_gone {
            facts.deleted(run_id);
            return;
        }
        facts.run(run_id).may_be_gone = false;
        if let (Some(row), Some(first)) = (&row, journal.first())
            && facts.present.get(run_id) != Some(&row.seed)
        {
            facts.created(row, first.payload.clone(), first.clone());
        }
        let settled = facts.run(run_id).take_place(&journal);
        facts.judge(oracles::REPLAY, settled);
        if !facts.present.contains_key(run_id) {
            return; // nobody was told that it exists
        }
        let run = facts.run(run_id);
        let one = oracles::no_journal_has_two_histories(run, run_id, 0, &journal);
        let lost = oracles::nothing_acknowledged_is_lost(run, run_id, row.as_ref());
        facts.judge(oracles::NOTHING_LOST, lost);
        facts.judge(oracles::ONE_HISTORY, one);
    }

    /// The store has failed: what was written is not known.
    fn failed(&self, run_id: &RunId, error: &StoreError) {
        self.world.trouble_all();
        self.world.note(|| {
            // Its kind alone: the text names the file, which is another one each time.
            let error = format!("{error:?}");
            let kind = error.split(' ').next().unwrap_or_default();
            format!("a change of {run_id} fails: {kind}")
        });
        self.reconcile(run_id);
    }

    fn commit_one(&self, commit: &RunCommit) -> Result<CommitOutcome, StoreError> {
        if self.is_blocked(&commit.run_id) {
            return Ok(CommitOutcome::Blocked);
        }
        let before = self.standing_of(&commit.run_id)?;
        self.only_readers_read(commit)?;
        let sent = self.tampered(commit.clone(), before.as_ref());
        let outcome = match sent.map(|sent| settled(self.inner().commit(vec![sent]))) {
            Some(Ok(outcomes)) => outcomes.into_iter().next(),
            Some(Err(error)) => {
                let life = (commit.run_id.clone(), commit.seed);
                let (epoch, len) = (commit.epoch, commit.expected_len);
                self.facts().life(life).unsure(epoch, len, &commit.entries);
                self.failed(&commit.run_id, &error);
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
                Next::Paused { waits, .. } => format!("paused, waits for {waits:?}"),
                Next::Continued { ready_at, version } => {
                    format!("continued under version {version}, due {ready_at}")
                }
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
                facts.counts.formats += u64::from(commit.format.is_some());
                facts.counts.outgoing += commit.outgoing.len() as u64;
                facts.counts.written += commit.written.len() as u64;
                facts.letters.posted(commit);
                facts.committed(commit);
                let from = usize::try_from(commit.expected_len).unwrap_or(usize::MAX);
                drop(facts);
                self.reread(&commit.run_id, from);
                for item in &commit.written {
                    self.read_stream(&commit.run_id, &item.stream);
                }
                let mut facts = self.facts();
                match &commit.next {
                    Next::Finished { status } => {
                        let run = facts.run(&commit.run_id);
                        run.shown.get_or_insert(*status);
                    }
                    // Nobody has changed the code.
                    Next::Stuck { note } => {
                        let what = format!("{} is stuck: {note}", commit.run_id);
                        facts.judge(oracles::ENDS, Err(what));
                    }
                    Next::Running
                    | Next::Waiting { .. }
                    | Next::Paused { .. }
                    | Next::Continued { .. } => {}
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

    /// Compares a stream with the journal.
    pub(crate) fn read_stream(&self, run_id: &RunId, stream: &str) {
        let ask = StreamAsk {
            run_id: run_id.clone(),
            stream: stream.to_owned(),
            start: 0,
            limit: u32::MAX,
        };
        let journal = settled(self.inner().load(run_id.clone(), 0, u32::MAX));
        let (Ok(journal), Ok(Some(page))) = (journal, settled(self.inner().stream(ask))) else {
            return; // the disk fails, or the run was deleted
        };
        let found = oracles::an_item_is_there_once(run_id, stream, &journal, &page.items);
        self.facts().judge(oracles::STREAMS, found);
    }

    /// A message that only newer builds can read is consumed or set aside by them alone.
    fn only_readers_read(&self, commit: &RunCommit) -> Result<(), StoreError> {
        if commit.read.is_empty() {
            return Ok(());
        }
        let page = settled(self.inner().inbox(commit.run_id.clone(), 0))?;
        let mut facts = self.facts();
        if facts.present.get(&commit.run_id) != Some(&commit.seed) {
            return Ok(()); // it means another life of that id, with an inbox of its own
        }
        let reads = facts.owners.format(&commit.owner);
        let unreadable = page.messages.iter().find(|message| {
            message.encoding > reads && commit.read.iter().any(|read| read.seq == message.seq)
        });
        let found = unreadable.map_or(Ok(()), |message| {
            Err(format!(
                "{} reads message {:?}, which needs format {}",
                commit.owner, message.message_id, message.encoding
            ))
        });
        facts.judge(oracles::FORMATS, found);
        Ok(())
    }

    /// What the planted fault makes of a commit; none is one that is acknowledged and forgotten.
    fn tampered(&self, mut commit: RunCommit, before: Option<&Standing>) -> Option<RunCommit> {
        let Some(run) = before else {
            return Some(commit);
        };
        let of_the_owner = |commit: &mut RunCommit| {
            commit.epoch = run.epoch;
            if let Some(owner) = &run.owner {
                commit.owner.clone_from(owner);
            }
        };
        match self.plant {
            Plant::FencingOff => {
                commit.seed = run.seed;
                commit.expected_len = run.journal_len;
                of_the_owner(&mut commit);
            }
            Plant::SeedIgnored => commit.seed = run.seed,
            Plant::LooseAppend if commit.only_appends() => of_the_owner(&mut commit),
            Plant::ForgottenCommit => {
                let saves = commit.next == Next::Running && commit.entries.len() == 1;
                if saves && self.world.chance(|rng| rng.one_in(8)) {
                    return None;
                }
            }
            Plant::SleptOver if matches!(commit.next, Next::Waiting { .. }) => {
                commit.inbox_seen = Some(u64::MAX);
            }
            _ => {}
        }
        Some(commit)
    }

    /// What the planted fault makes of a heartbeat.
    fn tampered_beat(&self, mut beat: Heartbeat) -> Heartbeat {
        if self.plant == Plant::GreedySuccession && beat.succeeds.is_some() {
            let stranger = self.facts().owners.stranger(&beat.owner, self.now());
            beat.succeeds = stranger.or(beat.succeeds);
        }
        beat
    }

    /// All that a heartbeat must leave alone: runs, and the rows of other owners but for that one.
    fn others(&self, owner: &str) -> Option<(Vec<RunRow>, Vec<String>)> {
        let page = settled(self.inner().list(Filter::default(), u32::MAX, None)).ok()?;
        let owners = settled(self.inner().owners()).ok()?;
        let others = owners.iter().filter(|row| row.owner != owner);
        // How much they hold is no column.
        let others =
            others.map(|row| format!("{} {} {:?}", row.owner, row.lease_until, row.ended_at));
        Some((page.rows, others.collect()))
    }
}
