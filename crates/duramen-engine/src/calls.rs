//! What callers of the engine change, apart from the runs that it drives: creations, messages and
//! interventions, as [`insist`](crate::insist::insist) sends them.

use std::sync::Arc;

use duramen_core::run::{is_same_creation, next_try};
use duramen_core::store::{
    Created, Delivered, Delivery, Intervened, Intervention, NewMessage, NewRun, StoreError,
    StoreFuture,
};

use crate::claims::Told;
use crate::common::Common;
use crate::host::{HostEvent, Reply, Token};
use crate::insist::Ask;

/// Who asked, and who is told here.
pub(crate) struct Call {
    pub(crate) common: Arc<Common>,
    pub(crate) told: Arc<Told>,
    pub(crate) token: Token,
}

impl Call {
    fn reply(&self, reply: Result<Reply, StoreError>) {
        let token = self.token;
        self.common.host.push(HostEvent::Reply { token, reply });
    }
}

/// Runs for whoever takes them.
pub(crate) struct Creations(pub(crate) Call);

impl Ask for Creations {
    type Item = NewRun;
    type Answer = Created;
    const REPEATS: bool = true;

    fn send(&self, items: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        self.0.common.store.create(items)
    }

    fn is_blocked(answer: &Created) -> bool {
        matches!(answer, Created::Blocked)
    }

    fn blocked() -> Created {
        Created::Blocked
    }

    fn answered(&self, item: &NewRun, answer: Created, again: bool) -> Created {
        match answer {
            // The answer to this very creation was lost.
            Created::Exists { row } if again && is_same_creation(&row.seed, &item.seed) => {
                Created::Created { row }
            }
            answer => answer,
        }
    }

    fn renew(item: &mut NewRun) {
        item.seed = next_try(item.seed);
    }

    fn tell(&self, _: &[&NewRun], answers: &[&Created]) {
        if answers.iter().any(|created| created.is_new()) {
            self.0.told.nudge();
        }
    }

    fn done(self, result: Result<Vec<Created>, StoreError>) {
        self.0.reply(result.map(Reply::Created));
    }
}

/// Messages to runs.
pub(crate) struct Messages(pub(crate) Call);

impl Ask for Messages {
    type Item = NewMessage;
    type Answer = Delivered;
    const REPEATS: bool = true;

    fn send(&self, items: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        self.0.common.store.deliver(items)
    }

    fn is_blocked(answer: &Delivered) -> bool {
        answer.result == Delivery::Blocked
    }

    fn blocked() -> Delivered {
        Delivered {
            result: Delivery::Blocked,
            fingerprint: None,
            owner: None,
        }
    }

    fn tell(&self, items: &[&NewMessage], answers: &[&Delivered]) {
        let answers = items
            .iter()
            .map(|message| &message.run_id)
            .zip(answers.iter().copied());
        self.0.told.delivered(answers);
    }

    fn done(self, result: Result<Vec<Delivered>, StoreError>) {
        self.0.reply(result.map(Reply::Delivered));
    }
}

/// Changes of runs from outside.
pub(crate) struct Interventions(pub(crate) Call);

impl Ask for Interventions {
    type Item = Intervention;
    type Answer = Intervened;
    /// Nothing tells whether it was this one or another that has ended a run.
    const REPEATS: bool = false;

    fn send(&self, items: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        self.0.common.store.intervene(items)
    }

    fn is_blocked(answer: &Intervened) -> bool {
        *answer == Intervened::Blocked
    }

    fn blocked() -> Intervened {
        Intervened::Blocked
    }

    fn tell(&self, items: &[&Intervention], answers: &[&Intervened]) {
        let reopens = |(item, answer): (&&Intervention, &&Intervened)| {
            matches!(item, Intervention::Reopen { .. }) && **answer == Intervened::Done
        };
        if items.iter().zip(answers).any(reopens) {
            self.0.told.nudge();
        }
        for (item, answer) in items.iter().zip(answers) {
            if item.sends() && **answer == Intervened::Done {
                self.0.common.outbox.look_at(item.run_id());
            }
        }
    }

    fn done(self, result: Result<Vec<Intervened>, StoreError>) {
        self.0.reply(result.map(Reply::Intervened));
    }
}
