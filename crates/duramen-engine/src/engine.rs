//! The engine of one process and one store: it ties leases, claims and commits together, and is what a
//! host calls. It sees `dyn Store`, and knows nothing of Python.

use std::sync::{Arc, Weak};
use std::time::Duration;

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::store::{Intervention, NewMessage, NewRun, Store, StoreFuture, WorkflowKey};

use crate::answers::Answers;
use crate::calls::{Call, Creations, Interventions, Messages};
use crate::carrier::carry;
use crate::claims::{Claims, SweepOptions};
use crate::commits::{Commits, Pipeline};
use crate::common::{Common, Config, Counters};
use crate::ends::Ends;
use crate::env::Env;
use crate::host::{Answer, HostEvent, HostQueue, Reply, Token};
use crate::insist::insist;
use crate::leases::{Leases, Listener, keep};
use crate::reading::read;
use crate::removal::{delete, terminate};
use crate::reopen::{reopen, skip};
use crate::ticks::Ticks;
use crate::watched::Watched;

/// How long a closing engine waits for what it has asked the store before.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module's head. The background tasks hold their parts only while they work, so that dropping
/// the engine ends them.
pub struct Engine {
    pub(crate) common: Arc<Common>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) claims: Claims,
    pub(crate) commits: Commits,
    ticks: Arc<Ticks>,
    ends: Arc<Ends>,
    answers: Arc<Answers>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.common.config)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the background tasks (heartbeats, messages, claims, ticks) in `env`: one each, since a
    /// claim that waits for a locked store must not hold up a heartbeat.
    pub fn new(
        store: Arc<dyn Store>,
        env: Arc<dyn Env>,
        host: Arc<HostQueue>,
        config: Config,
    ) -> Arc<Self> {
        let store = Arc::new(Watched::new(store, Arc::clone(&env)));
        let common = Arc::new(Common::new(store, env, host, config));
        let commits = Commits::new(&common);
        let leases = Leases::new(Arc::clone(&common), Arc::clone(&commits.releases));
        let ticks = Ticks::new(Arc::clone(&common));
        let ends = Ends::new(Arc::clone(&common), Arc::clone(&leases));
        let answers = Answers::new(Arc::clone(&common));
        let claims = Claims::new(
            Arc::clone(&common),
            Arc::clone(&leases),
            Arc::clone(&commits.releases),
            Arc::clone(&ticks),
            Arc::clone(&ends),
        );
        let hands = Arc::downgrade(claims.hands());
        keep(&leases, &(hands as Weak<dyn Listener>));
        carry(&common, claims.told());
        Arc::new(Self {
            common,
            leases,
            claims,
            commits,
            ticks,
            ends,
            answers,
        })
    }

    /// The name under which this process holds runs now. It changes when its lease has lapsed.
    pub fn owner(&self) -> Arc<str> {
        self.common.owner()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.common.store
    }

    pub fn host(&self) -> &HostQueue {
        &self.common.host
    }

    pub fn counters(&self) -> &Counters {
        &self.common.counters
    }

    pub fn hold(&self) -> Millis {
        self.common.config.hold
    }

    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.commits.pipeline
    }

    /// The store's time, as far as this process knows it.
    pub fn now(&self) -> Millis {
        self.common.clock.now()
    }

    /// The instant that requests must name, when it is not the store's own.
    pub fn explicit_now(&self) -> Option<Millis> {
        self.common.clock.explicit_now()
    }

    /// The workflows whose runs may be claimed here.
    pub fn register(&self, workflows: Vec<WorkflowKey>) {
        self.claims.register(workflows);
    }

    /// The queues whose runs may be claimed here; the default one unless others are given.
    pub fn register_queues(&self, queues: Vec<String>) {
        self.claims.register_queues(queues);
    }

    /// Runs driven here now.
    pub fn active(&self) -> usize {
        self.leases.held().len()
    }

    /// Instants that are waited for on behalf of runs that are driven here.
    pub fn ticks(&self) -> usize {
        self.ticks.len()
    }

    /// Runs that were started here and have not been seen to end.
    pub fn followed(&self) -> usize {
        self.claims.followed()
    }

    /// Claims due runs of registered workflows from now on, in the background.
    pub fn work(&self, concurrency: usize, poll_min: Millis, poll_max: Millis) {
        self.claims.work(concurrency, poll_min, poll_max);
    }

    /// Claims nothing more; runs in flight go on.
    pub fn stop_work(&self) {
        self.claims.stop_work();
    }

    /// Something may be due: look now.
    pub fn nudge(&self) {
        self.claims.alarm().nudge();
    }

    /// Every active run starts nothing fresh and is released as soon as it can be. So is every run
    /// whose claim or creation is under way. Paused runs that were started here are left alone
    /// until something is to be driven here again.
    pub fn yield_all(&self) {
        self.claims.yield_all();
    }

    /// Stops the background tasks, ends this owner, and closes the store, unless others use it too. Runs
    /// that are still driven here are anybody's from then on; runs whose claim is under way are let go.
    pub fn close(&self, token: Token) {
        self.common.close();
        self.leases.close();
        self.claims.close();
        self.ticks.close();
        self.ends.close();
        self.answers.close();
        let (common, leases) = (Arc::clone(&self.common), Arc::clone(&self.leases));
        self.common.env.spawn(Box::pin(async move {
            // What is let go now must still reach the store; and so must the owner's end, after it.
            within_patience(&common, common.pending.over()).await;
            within_patience(&common, leases.retire()).await;
            if common.config.shared_store {
                let reply = Ok(Reply::Done);
                common.host.push(HostEvent::Reply { token, reply });
            } else {
                common.call(token, common.store.close(), |()| Reply::Done);
            }
        }));
    }

    /// Sends a store's answer to the host as a reply.
    pub fn call<T: Send + 'static>(
        &self,
        token: Token,
        future: StoreFuture<T>,
        into: impl FnOnce(T) -> Reply + Send + 'static,
    ) {
        self.common.call(token, future, into);
    }

    /// Creates a run that is leased to this engine from the beginning, and drives it. One that exists and
    /// has not ended is gone on with here, as if it had been started here.
    pub fn start(&self, token: Token, run: NewRun) {
        self.claims.start(token, run);
    }

    /// Creates runs for whoever takes them. Each is answered by itself: one that somebody else's
    /// transaction holds up for longer than a lease is [`Created::Blocked`](duramen_core::store::Created).
    pub fn create(&self, token: Token, mut runs: Vec<NewRun>) {
        for run in &mut runs {
            run.now = self.explicit_now();
        }
        insist(&self.common, Creations(self.asked(token)), runs);
    }

    fn asked(&self, token: Token) -> Call {
        Call {
            common: Arc::clone(&self.common),
            told: Arc::clone(self.claims.told()),
            token,
        }
    }

    /// Claims one run if it is due, and drives it.
    pub fn take(&self, token: Token, run_id: RunId, now: Option<Millis>) {
        self.claims.take(token, run_id, now, false);
    }

    /// The same, and goes on with the run whenever it is due, as with one that was started here.
    pub fn adopt(&self, token: Token, run_id: RunId) {
        self.claims.take(token, run_id, None, true);
    }

    /// Sends messages; drivers and followers in this process are told at once. Each is answered by itself:
    /// one to a run that somebody else's transaction holds for longer than a lease is `Blocked`, and one
    /// whose first answer was lost is a `Duplicate`.
    pub fn deliver(&self, token: Token, mut messages: Vec<NewMessage>) {
        for message in &mut messages {
            message.now = self.explicit_now();
        }
        insist(&self.common, Messages(self.asked(token)), messages);
    }

    /// Changes runs from outside. Each is answered by itself, as with messages.
    pub fn intervene(&self, token: Token, interventions: Vec<Intervention>) {
        insist(
            &self.common,
            Interventions(self.asked(token)),
            interventions,
        );
    }

    /// Ends a run as terminated, with the entry that says so, and tells the run that started it.
    pub fn terminate(&self, token: Token, run_id: RunId, entry: Entry) {
        terminate(self.asked(token), run_id, entry);
    }

    /// Removes a run, when all that it has sent is out; a live one only if `force`.
    pub fn delete(&self, token: Token, run_id: RunId, force: bool) {
        delete(self.asked(token), run_id, force);
    }

    /// Reopens a failed, cancelled, terminated or stuck run, or one that is paused for a step. With a version, that one's
    /// code goes on with it; so it may with a run that is queued or waits.
    pub fn reopen(&self, token: Token, run_id: RunId, version: Option<String>) {
        reopen(self.asked(token), run_id, version);
    }

    /// Gives a step that its run is paused for a result.
    pub fn skip(&self, token: Token, run_id: RunId, op: String, result: Payload) {
        skip(self.asked(token), run_id, op, result);
    }

    /// Replies [`Reply::Ended`] when the run has ended, is parked, or is not there. However many wait, the
    /// store is asked a bounded number of times a second, and not at all for runs that are driven here.
    pub fn watch_end(&self, token: Token, run_id: RunId) {
        self.ends.watch(token, run_id);
    }

    /// Nobody waits for that reply any more. It may be under way.
    pub fn unwatch_end(&self, token: Token) {
        self.ends.forget(token);
    }

    /// Calls that wait for the end of a run.
    pub fn watching(&self) -> usize {
        self.ends.len()
    }

    /// Replies [`Reply::Answer`] when that message has been answered or refused, or will not be because its
    /// run has ended or is parked. However many wait, the store is asked a bounded number of times a second,
    /// and once more when somebody comes to wait or an answer is given here.
    pub fn watch_answer(&self, token: Token, run_id: RunId, message_id: String) {
        self.answers.watch(token, run_id, message_id);
    }

    /// Replies [`Reply::Answer`] with what has become of that message by now; of one that is unread or not
    /// there it is not told how its run stands.
    pub fn receipt(&self, token: Token, run_id: RunId, message_id: String) {
        let receipts = self.common.store.receipts(vec![(run_id, message_id)]);
        self.common.call(token, receipts, |receipts| {
            let receipt = receipts.into_iter().flatten().next();
            Reply::Answer(receipt.map_or(Answer::Unanswered { status: None }, Answer::of))
        });
    }

    /// Nobody waits for that reply any more. It may be under way.
    pub fn unwatch_answer(&self, token: Token) {
        self.answers.forget(token);
    }

    /// Reads a run as it stands, to be replayed by [`RunDriver::reading`](crate::RunDriver::reading).
    pub fn read(&self, token: Token, run_id: RunId) {
        let common = Arc::clone(&self.common);
        self.common.env.spawn(Box::pin(async move {
            let read = read(&*common.store, run_id).await;
            let reply = read.map(|run| Reply::Read(run.map(Box::new)));
            common.host.push(HostEvent::Reply { token, reply });
        }));
    }

    /// Runs a sweep in the background; the report comes as a reply.
    pub fn sweep(&self, token: Token, options: SweepOptions) {
        self.claims.sweep(token, options);
    }
}

async fn within_patience(common: &Common, done: impl Future<Output = ()>) {
    tokio::select! {
        biased; // the order is not left to chance: a simulation must be able to repeat it
        () = done => {}
        () = common.env.sleep(PATIENCE) => {}
    }
}
