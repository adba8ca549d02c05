//! Every call of the store passes here: it gets the store's time, and the oracles see what came of it.

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::store::{
    Appended, Beat, Claim, Claimed, Claims, CommitOutcome, Created, Cursor, Delivered, Delivery,
    DueAsk, DueSchedules, Filter, Heartbeat, InboxPage, Inboxes, Intervened, Intervention, Message,
    NewMessage, NewRun, NextDue, OpenRuns, OwnerRow, Page, Queries, Receipt, RunCommit, RunDetail,
    Runs, ScheduleAsk, ScheduleChange, ScheduleRow, Schedules, Schema, Standing, Store, StoreError,
    StoreFuture, StreamAppend, StreamAsk, StreamPage, Streams, Unsent, UnsentAsk,
};

use super::{Judge, Owner, answer, base, newer_lane};
use crate::net::settled;
use crate::newer::NEWER;
use crate::oracles;
use crate::plan::Plant;

/// Every so many heartbeats it is looked at all that they leave alone.
const SAMPLE: u64 = 8;

impl Judge {
    fn create_one(&self, mut new: NewRun) -> Result<Created, StoreError> {
        if self.is_blocked(&new.run_id) {
            return Ok(Created::Blocked);
        }
        let now = self.now();
        new.now = Some(now);
        let (input, run_id) = (new.input.clone(), new.run_id.clone());
        let created = match settled(self.inner().create(vec![new])) {
            Ok(created) => created.into_iter().next().ok_or(StoreError::Closed)?,
            Err(error) => {
                self.failed(&run_id, &error);
                return Err(error);
            }
        };
        let mut facts = self.facts();
        if let Created::Created { row } = &created {
            self.world
                .note(|| format!("{run_id} is created for {:?}", row.owner));
            let first = Entry::new(Kind::RunCreated, "".into(), input.clone(), row.created_at);
            facts.created(row, input, first);
        }
        Ok(created)
    }

    fn intervene_one(&self, mut change: Intervention) -> Result<Intervened, StoreError> {
        if let Intervention::Reopen { now, .. } = &mut change {
            *now = Some(self.now());
        }
        let change = &change;
        let run_id = change.run_id();
        if self.is_blocked(run_id) {
            return Ok(Intervened::Blocked);
        }
        let entries: &[Entry] = match change {
            Intervention::Terminate { entry, .. } => std::slice::from_ref(entry),
            Intervention::Reopen { entries, .. } => entries,
            Intervention::Delete { .. } => &[],
        };
        let result = match settled(self.inner().intervene(vec![change.clone()])) {
            Ok(results) => results.into_iter().next().ok_or(StoreError::Closed)?,
            Err(error) => {
                let mut facts = self.facts();
                let run = facts.run(run_id);
                let len = run.history.len() as u64;
                match change {
                    Intervention::Delete { .. } => run.may_be_gone = true,
                    _ => run.unsure(-1, len, entries),
                }
                drop(facts);
                self.failed(run_id, &error);
                return Err(error);
            }
        };
        let name = match change {
            Intervention::Terminate { .. } => "terminated",
            Intervention::Reopen { .. } => "reopened",
            Intervention::Delete { .. } => "deleted",
        };
        self.world
            .note(|| format!("{run_id} is to be {name}: {result:?}"));
        let row = self.row(run_id);
        let mut facts = self.facts();
        if result != Intervened::Done {
            facts.counts.refused += 1;
            return Ok(result);
        }
        match change {
            Intervention::Delete { .. } => {
                let found = row.map_or(Ok(()), |row| {
                    let status = row.status.name();
                    Err(format!("{run_id} was deleted and is {status}"))
                });
                facts.judge(oracles::NOTHING_LOST, found);
                facts.deleted(run_id);
                return Ok(result);
            }
            Intervention::Terminate { .. } => facts.counts.terminated += 1,
            Intervention::Reopen { .. } => facts.counts.reopened += 1,
        }
        facts.intervened(run_id, entries, row.as_ref());
        drop(facts);
        self.reread(run_id, 0);
        Ok(result)
    }

    fn deliver_one(&self, mut message: NewMessage) -> Result<Delivered, StoreError> {
        if self.is_blocked(&message.run_id) {
            return Ok(Delivered {
                result: Delivery::Blocked,
                fingerprint: None,
                owner: None,
            });
        }
        message.now = Some(self.now());
        let mut facts = self.facts();
        facts.sending(&message);
        drop(facts);
        let delivered = settled(self.inner().deliver(vec![message.clone()]));
        let delivered = delivered.inspect_err(|_| self.world.trouble_all())?;
        let delivered = delivered.into_iter().next().ok_or(StoreError::Closed)?;
        let (result, owner) = (delivered.result, &delivered.owner);
        self.world.note(|| {
            let (id, run) = (&message.message_id, &message.run_id);
            format!("message {id} for {run}, held by {owner:?}: {result:?}")
        });
        let mut facts = self.facts();
        facts.delivered(&message, result);
        let kept = matches!(result, Delivery::Delivered | Delivery::Buffered);
        facts.counts.formats += u64::from(kept && message.encoding == NEWER);
        Ok(delivered)
    }

    fn beat(&self, mut beat: Heartbeat) -> Result<Beat, StoreError> {
        let now = self.now();
        beat.now = Some(now);
        let owner = Owner {
            until: now + beat.lease,
            most: now + beat.lease,
            lasts: self.world.now() + beat.lease,
            ended: None,
            format: beat.format,
        };
        let (name, former) = (beat.owner.clone(), beat.succeeds.clone());
        let sampled = former.is_none() && {
            let facts = self.facts();
            // The first one of an owner may forget others.
            facts.counts.heartbeats.is_multiple_of(SAMPLE) && facts.owners.get(&name).is_some()
        };
        let before = sampled.then(|| self.others(&name)).flatten();
        let answered = settled(self.inner().heartbeat(self.tampered_beat(beat)));
        let mut answered = answered.inspect_err(|_| {
            self.world.trouble_all();
            self.facts().owners.maybe_renewed(&name, owner.until);
        })?;
        if self.plant == Plant::LateRenewal {
            answered.alive = true;
        }
        let after = before.is_some().then(|| self.others(&name)).flatten();
        let mut facts = self.facts();
        facts.counts.heartbeats += 1;
        if before.is_some() && after.is_some() && before != after {
            let what = format!("a heartbeat of {name} changed {before:?} to {after:?}");
            facts.judge(oracles::ONE_ROW, Err(what));
        }
        if !answered.alive {
            self.world.note(|| format!("{name} has ended"));
            facts.counts.lapses += 1;
            facts.owners.end(&name, "a heartbeat found it lapsed");
            return Ok(answered);
        }
        let renewed = facts.owners.renewed(&name, now, owner);
        facts.judge(oracles::LAPSE, renewed);
        if let Some(former) = former {
            self.world
                .note(|| format!("{name} takes over {:?} from {former}", answered.inherited));
            facts.counts.successions += 1;
            facts.owners.end(&former, "another name has succeeded it");
            for (run_id, epoch) in &answered.inherited {
                let run = facts.run(run_id);
                let from = run.tenures.get(epoch).map(|tenure| tenure.owner.clone());
                let found = match from {
                    Some(from) if from == former && base(&from) == base(&name) => Ok(()),
                    from => Err(format!(
                        "{name} succeeds {former}, and takes {run_id} from {from:?}"
                    )),
                };
                facts.judge(oracles::ONE_DRIVER, found);
                facts.inherited(run_id, *epoch, &name);
            }
        }
        Ok(answered)
    }
}

impl Runs for Judge {
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        answer(batch.into_iter().map(|new| self.create_one(new)).collect())
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        // One by one: what a batch means does not depend on its neighbours, and each is judged by
        // the state right before it.
        answer(batch.iter().map(|one| self.commit_one(one)).collect())
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        answer(
            batch
                .into_iter()
                .map(|one| self.intervene_one(one))
                .collect(),
        )
    }

    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>> {
        answer(settled(self.inner().unsent(ask)))
    }

    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()> {
        answer(settled(self.inner().sent(items)))
    }
}

impl Claims for Judge {
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        answer(self.beat(beat))
    }

    fn retire(&self, owner: String, _: Option<Millis>) -> StoreFuture<()> {
        let retired = settled(self.inner().retire(owner.clone(), Some(self.now())));
        if retired.is_ok() {
            self.world.note(|| format!("{owner} is retired"));
            let mut facts = self.facts();
            facts.counts.retired += 1;
            facts.owners.end(&owner, "it was retired");
        }
        answer(retired)
    }

    fn owners(&self) -> StoreFuture<Vec<OwnerRow>> {
        answer(settled(self.inner().owners()))
    }

    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>> {
        answer(settled(self.inner().held(owner, after, limit)))
    }

    fn claim(&self, mut claim: Claim) -> StoreFuture<Claimed> {
        let now = self.now();
        claim.now = Some(now);
        let limit = claim.limit;
        match self.plant {
            Plant::GreedyClaim => claim.limit = claim.limit.saturating_mul(2),
            Plant::FormatIgnored => claim.lanes.push(newer_lane()),
            _ => {}
        }
        let owner = claim.owner.clone();
        let claimed = match settled(self.inner().claim(claim)) {
            Ok(claimed) => claimed,
            Err(error) => {
                self.world.trouble_all();
                return answer(Err(error));
            }
        };
        let mut facts = self.facts();
        if claimed.lapsed {
            self.world
                .note(|| format!("{owner} claims without a lease"));
            return answer(Ok(claimed));
        }
        let found = oracles::a_claim_keeps_its_limit(claimed.runs.len(), limit);
        facts.judge(oracles::BUDGETS, found);
        for run in &claimed.runs {
            let row = &run.row;
            self.world.note(|| {
                let (id, epoch, len, was) =
                    (&row.run_id, row.epoch, row.journal_len, run.was.name());
                format!("{owner} claims {id}, {was}, epoch {epoch}, {len} entries")
            });
            let reads = facts.owners.format(&owner);
            // A claim that failed may have taken place: then nobody knows who had it.
            let former = facts.run(&row.run_id).tenures.get(&(row.epoch - 1));
            let former = former.map(|tenure| tenure.owner.clone());
            let former = former.filter(|_| run.was == duramen_core::run::Status::Running);
            let mut lasts = false;
            if let Some(former) = former {
                let left = facts.owners.left_it(&former, now);
                facts.judge(oracles::ONE_DRIVER, left);
                lasts = facts.owners.lasts(&former, self.world.now());
            }
            let readable = oracles::only_readers_claim(facts.run(&row.run_id), row, reads);
            facts.judge(oracles::FORMATS, readable);
            facts.counts.newer += u64::from(row.format == NEWER);
            facts.claimed(row, lasts);
            if let Some(journal) = &run.journal {
                let known = facts.run(&row.run_id);
                let found = oracles::no_journal_has_two_histories(known, &row.run_id, 0, journal);
                facts.judge(oracles::ONE_HISTORY, found);
            }
        }
        facts.owners.look(now);
        drop(facts);
        answer(Ok(claimed))
    }

    fn next_due(&self, mut ask: DueAsk) -> StoreFuture<NextDue> {
        ask.now = Some(self.now());
        answer(settled(self.inner().next_due(ask)))
    }
}

impl Inboxes for Judge {
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        answer(batch.into_iter().map(|one| self.deliver_one(one)).collect())
    }

    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>> {
        answer(settled(self.inner().unread(owner, told)))
    }

    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage> {
        answer(settled(self.inner().inbox(run_id, behind)))
    }

    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>> {
        answer(settled(self.inner().receipts(messages)))
    }
}

impl Streams for Judge {
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>> {
        answer(settled(self.inner().append(batch)))
    }

    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>> {
        answer(settled(self.inner().stream(ask)))
    }
}

impl Queries for Judge {
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        answer(settled(self.inner().get(run_ids)))
    }

    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>> {
        answer(settled(self.inner().standing(run_ids)))
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

    fn census(&self) -> StoreFuture<Vec<OpenRuns>> {
        answer(settled(self.inner().census()))
    }
}

impl Schedules for Judge {
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>> {
        answer(settled(self.inner().change_schedules(batch)))
    }

    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>> {
        answer(settled(self.inner().get_schedules(ids)))
    }

    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>> {
        answer(settled(self.inner().list_schedules(after, limit)))
    }

    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules> {
        answer(settled(self.inner().due_schedules(ask)))
    }
}

impl Store for Judge {
    fn migrate(&self) -> StoreFuture<Schema> {
        answer(settled(self.inner().migrate()))
    }

    fn schema(&self) -> StoreFuture<Schema> {
        answer(settled(self.inner().schema()))
    }

    fn close(&self) -> StoreFuture<()> {
        answer(settled(self.inner().close()))
    }
}
