//! The carrier: carries out what has left runs, in the order in which it left each, and reports it as sent.
//!
//! Carrying an item out twice does no harm. So whatever fails is tried again, and what a process that died
//! has left behind is done by whoever finds it, a lease later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use duramen_core::family::{End, Ended};
use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::run::is_same_creation;
use duramen_core::store::{
    Created, Delivery, Errand, Inquiry, Intervened, NewMessage, NewRun, RunDetail, StoreError,
    StoreFuture, Unsent, UnsentAsk, end_of_child, place_of_end,
};
use tokio::sync::Notify;

use crate::claims::Told;
use crate::common::Common;
use crate::env::span;
use crate::reopen::{Reopening, reopening};

/// The most items that are carried out in one go, and in one look.
const MOST: usize = 500;
const LOOK: u32 = 1_000;
/// The pauses when what is to be done cannot be done.
const SHORTEST: Millis = 25;
const LONGEST: Millis = 5_000;

/// What became of an item.
enum Carried {
    Out,
    /// Not for this build, or for none.
    Passed,
    /// It is tried again, and those behind it wait.
    Later,
}

/// What a look at a child brings.
#[allow(clippy::large_enum_variant)] // each is moved once, to the caller: a box would cost more
enum Found {
    Message(NewMessage),
    Nothing(Carried),
}

/// Carries out what the outbox has from now on, until the engine is closed or dropped.
pub(crate) fn carry(common: &Arc<Common>, told: &Arc<Told>) {
    let bell = Arc::clone(&common.outbox.bell);
    let carrying = run(Arc::downgrade(common), Arc::downgrade(told), bell);
    common.env.spawn(Box::pin(carrying));
}

async fn run(common: Weak<Common>, told: Weak<Told>, bell: Arc<Notify>) {
    let mut pause: Option<Millis> = None;
    loop {
        let sleep = {
            let Some(common) = common.upgrade() else {
                return;
            };
            pause.map(|pause| common.env.sleep(span(pause)))
        };
        let rested = async {
            match sleep {
                Some(sleep) => sleep.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = rested => {}
            () = bell.notified() => {}
        }
        let (Some(common), Some(told)) = (common.upgrade(), told.upgrade()) else {
            return;
        };
        if common.is_closing() {
            return;
        }
        let under_way = common.pending.begin();
        let carrier = Carrier {
            common: &common,
            told: &told,
        };
        pause = match carrier.round().await {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(%error, "what has left runs could not be carried out; trying again");
                Some(pause.map_or(SHORTEST, |pause| (2 * pause).min(LONGEST)))
            }
        };
        drop(under_way);
    }
}

pub(crate) struct Carrier<'a> {
    pub(crate) common: &'a Common,
    pub(crate) told: &'a Told,
}

impl Carrier<'_> {
    /// Everything that there is; an error says why something is left.
    async fn round(&self) -> Result<(), StoreError> {
        if self.common.outbox.takes_look() {
            self.look().await?;
        }
        while let Some(run_id) = self.common.outbox.takes_look_at() {
            if let Err(error) = self.look_at(&run_id).await {
                self.common.outbox.look_at(&run_id);
                return Err(error);
            }
        }
        // Runs whose first item has to wait: the others do not wait for them.
        let mut waiting: BTreeSet<RunId> = BTreeSet::new();
        loop {
            let items = self.common.outbox.firsts(MOST, &waiting);
            if items.is_empty() && waiting.is_empty() {
                return Ok(());
            }
            if items.is_empty() {
                return Err(StoreError::Locked {
                    reason: format!(
                        "what {} runs sent is for runs that others hold, or that have no room",
                        waiting.len()
                    ),
                });
            }
            let carried = self.carry(&items).await?;
            let mut sent = Vec::with_capacity(items.len());
            for (item, carried) in items.iter().zip(carried) {
                match carried {
                    Carried::Out => sent.push(item.clone()),
                    Carried::Passed => self.common.outbox.done(item, true),
                    Carried::Later => {
                        waiting.insert(item.run_id.clone());
                    }
                }
            }
            if !sent.is_empty() {
                self.common.store.sent(sent.clone()).await?;
                for item in &sent {
                    self.common.outbox.done(item, false);
                }
            }
        }
    }

    /// What others have left behind: whoever made a commit is at it for a lease.
    async fn look(&self) -> Result<(), StoreError> {
        let lease = self.common.config.lease;
        let ask = UnsentAsk {
            before: self.common.clock.now().saturating_sub(lease),
            run_id: None,
            limit: LOOK,
        };
        let unsent = self.common.store.unsent(ask).await?;
        self.common.outbox.add(unsent);
        Ok(())
    }

    async fn look_at(&self, run_id: &RunId) -> Result<(), StoreError> {
        let ask = UnsentAsk {
            before: Millis::MAX,
            run_id: Some(run_id.clone()),
            limit: LOOK,
        };
        let unsent = self.common.store.unsent(ask).await?;
        self.common.outbox.add(unsent);
        Ok(())
    }

    /// Everything that has left one run: an error says that something is left.
    pub(crate) async fn carry_out(&self, run_id: &RunId) -> Result<(), StoreError> {
        self.look_at(run_id).await?;
        let round = self.round().await;
        if self.common.outbox.has(run_id) {
            round?;
        }
        Ok(())
    }

    /// Items that depend on each other in no way.
    async fn carry(&self, items: &[Unsent]) -> Result<Vec<Carried>, StoreError> {
        let mut carried: Vec<Carried> = items.iter().map(|_| Carried::Passed).collect();
        let (mut starts, mut messages, mut inquiries) = (Vec::new(), Vec::new(), Vec::new());
        for (at, item) in items.iter().enumerate() {
            match item.errand() {
                Ok(Errand::Start(run)) => starts.push((at, run)),
                Ok(Errand::Message(message)) => messages.push((at, message)),
                Ok(Errand::Inquiry(inquiry)) => inquiries.push((at, inquiry)),
                Err(error) => tracing::error!(%error, "it is left to others"),
            }
        }
        for (at, done) in self.start(items, starts).await? {
            carried[at] = done;
        }
        for (at, inquiry) in inquiries {
            match self.inquire(&inquiry).await? {
                Found::Message(message) => messages.push((at, message)),
                Found::Nothing(done) => carried[at] = done,
            }
        }
        for (at, done) in self.deliver(messages).await? {
            carried[at] = done;
        }
        Ok(carried)
    }

    async fn start(
        &self,
        items: &[Unsent],
        mut starts: Vec<(usize, NewRun)>,
    ) -> Result<Vec<(usize, Carried)>, StoreError> {
        for (_, run) in &mut starts {
            run.now = self.common.clock.explicit_now();
        }
        let create = |runs| self.common.store.create(runs);
        let answers = each(&starts, create).await?;
        let mut refused = Vec::new();
        for ((at, run), (_, answer)) in starts.iter().zip(&answers) {
            match answer {
                Some(Created::Created { row }) => self.told.started(&items[*at].run_id, row),
                Some(Created::Exists { row }) if is_same_creation(&row.seed, &run.seed) => {
                    self.told.started(&items[*at].run_id, row);
                }
                Some(Created::Exists { .. }) => {
                    refused.extend(conflict(run).map(|message| (*at, message)));
                }
                Some(Created::Blocked) | None => {}
            }
        }
        let mut carried: BTreeMap<usize, Carried> = answers
            .into_iter()
            .map(|(at, answer)| match answer {
                Some(Created::Blocked) => (at, Carried::Later),
                Some(Created::Created { .. } | Created::Exists { .. }) => (at, Carried::Out),
                None => (at, Carried::Passed),
            })
            .collect();
        // A parent waits for its child: it learns that there is none before the item is out.
        carried.extend(self.deliver(refused).await?);
        Ok(carried.into_iter().collect())
    }

    /// Looks how a child stands that its parent asks for.
    async fn inquire(&self, inquiry: &Inquiry) -> Result<Found, StoreError> {
        let (store, child) = (&*self.common.store, &inquiry.child);
        let detail = store.get(vec![child.clone()]).await?;
        let detail = detail.into_iter().next().flatten();
        let end = |place: &str, ended, payload| {
            let end = End { ended, payload };
            let message = end_of_child(&inquiry.parent, child, &inquiry.seed, place, &end);
            Ok(Found::Message(message))
        };
        // What was told before may have been taken back: each question is answered by itself.
        let afresh = format!("asked:{}", inquiry.at);
        let Some(RunDetail { row, end: last, .. }) = detail else {
            return end(&afresh, Ended::Deleted, Payload::new());
        };
        if !is_same_creation(&row.seed, &inquiry.seed) {
            return end(&afresh, Ended::Conflict, Payload::new());
        }
        let Some(ended) = Ended::of(row.status) else {
            return Ok(Found::Nothing(Carried::Out));
        };
        let place = place_of_end(row.status, row.journal_len, row.finished_at);
        if ended == Ended::Completed || inquiry.told.as_ref() != Some(&place) {
            let payload = last.map(|entry| entry.payload).unwrap_or_default();
            return end(&place, ended, payload);
        }
        let (now, explicit) = (self.common.clock.now(), self.common.clock.explicit_now());
        let Reopening::By(reopen) = reopening(store, child.clone(), now, explicit).await? else {
            return Ok(Found::Nothing(Carried::Later));
        };
        let sends = reopen.sends();
        let done = store.intervene(vec![reopen]).await?;
        Ok(Found::Nothing(match done.first() {
            Some(Intervened::Done) => {
                if sends {
                    self.common.outbox.look_at(child);
                }
                self.told.reopened(&inquiry.parent, child, now);
                Carried::Out
            }
            // It has changed meanwhile, or others hold it: to be looked at again.
            _ => Carried::Later,
        }))
    }

    async fn deliver(
        &self,
        mut messages: Vec<(usize, NewMessage)>,
    ) -> Result<Vec<(usize, Carried)>, StoreError> {
        for (_, message) in &mut messages {
            message.now = self.common.clock.explicit_now();
        }
        let deliver = |messages| self.common.store.deliver(messages);
        let answers = each(&messages, deliver).await?;
        let told = messages.iter().zip(&answers);
        let told = told
            .filter_map(|((_, message), (_, answer))| Some((&message.run_id, answer.as_ref()?)));
        self.told.delivered(told);
        let carried = answers.into_iter().map(|(at, answer)| {
            let carried = match answer.map(|delivered| delivered.result) {
                Some(Delivery::Blocked | Delivery::Full) => Carried::Later,
                Some(_) => Carried::Out,
                None => Carried::Passed,
            };
            (at, carried)
        });
        Ok(carried.collect())
    }
}

/// Tells the parent of a run that could not be started that its id is another run's.
fn conflict(run: &NewRun) -> Option<NewMessage> {
    let parent = run.parent.as_ref()?;
    let end = End {
        ended: Ended::Conflict,
        payload: Payload::new(),
    };
    Some(end_of_child(
        parent,
        &run.run_id,
        &run.seed,
        "conflict",
        &end,
    ))
}

/// Sends them in one call; if the store can keep one of them never, each by itself: that one gets no answer.
async fn each<Q: Clone, A>(
    items: &[(usize, Q)],
    send: impl Fn(Vec<Q>) -> StoreFuture<Vec<A>>,
) -> Result<Vec<(usize, Option<A>)>, StoreError> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let places = items.iter().map(|(at, _)| *at);
    let all: Vec<Q> = items.iter().map(|(_, item)| item.clone()).collect();
    match send(all).await {
        Ok(answers) if answers.len() == items.len() => {
            return Ok(places.zip(answers.into_iter().map(Some)).collect());
        }
        Ok(answers) => {
            return Err(StoreError::Other {
                reason: format!("it answered {} of {} items", answers.len(), items.len()),
            });
        }
        Err(StoreError::Invalid { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut answers = Vec::with_capacity(items.len());
    for (at, item) in items {
        let answer = match send(vec![item.clone()]).await {
            Ok(one) => one.into_iter().next(),
            Err(error @ StoreError::Invalid { .. }) => {
                tracing::error!(%error, "what has left a run can never be carried out");
                None
            }
            Err(error) => return Err(error),
        };
        answers.push((*at, answer));
    }
    Ok(answers)
}
