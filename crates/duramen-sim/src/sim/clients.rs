//! Clients: they create runs and send messages, and ask again until they are answered.

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE};
use duramen_core::store::{
    Created, Delivered, Delivery, Inboxes, Intervention, NewMessage, NewRun, Runs, Start,
};
use duramen_engine::Reply;

use super::Sim;
use crate::net::settled;
use crate::newer::{NEWER, VERSION, WORKFLOW};
use crate::plan::{Deed, Via, What};
use crate::world::Event;

/// After so long without an answer a client asks again.
const PATIENCE: Millis = 2_500;

impl Sim {
    /// A client asks, and asks again until it is answered: ids make that safe.
    pub(super) fn request(&mut self, number: usize, what: &What) {
        if self.answered[number] {
            return;
        }
        self.tries[number] += 1;
        let via = match what {
            What::Create { via, .. } | What::Send { via, .. } => *via,
            _ => Via::Direct,
        };
        let again = Event::Deed(Deed::Action(number));
        match via {
            Via::Slot(slot) if !self.calm => {
                // Another process each time.
                let slot = (slot + self.tries[number] - 1) % self.slots.len();
                self.world.at(self.world.now() + PATIENCE, again);
                if let Some(engine) = self.engine_of(slot)
                    && let Some(process) = self.host_of(slot)
                    && let Some(host) = self.hosts.get_mut(&process)
                {
                    let token = host.token();
                    self.asked.insert((process, token), number);
                    match what {
                        What::Create { run, driven, .. } if *driven => {
                            engine.start(token, self.new_run(*run, number));
                        }
                        What::Create { run, .. } => {
                            engine.create(token, vec![self.new_run(*run, number)]);
                        }
                        other => {
                            if let Some(message) = message(other) {
                                engine.deliver(token, vec![message]);
                            }
                        }
                    }
                }
            }
            Via::Slot(_) | Via::Direct => {
                let answered = match what {
                    What::Create { run, .. } => {
                        let run = self.new_run(*run, number);
                        let created = settled(self.judge.create(vec![run]));
                        created.is_ok_and(|created| answers(&Reply::Created(created)))
                    }
                    other => message(other).is_none_or(|message| {
                        let delivered = settled(self.judge.deliver(vec![message]));
                        delivered.is_ok_and(|delivered| answers(&Reply::Delivered(delivered)))
                    }),
                };
                self.answered[number] = answered;
                if !answered {
                    self.world.at(self.world.now() + PATIENCE, again);
                }
            }
        }
    }

    /// Each call draws a seed of its own, whose last byte the engine counts on when it sends the creation again.
    fn new_run(&self, number: usize, action: usize) -> NewRun {
        let plan = self.plan.runs.get(number);
        let mut seed = [u8::try_from(number % 251).unwrap_or(0); 16];
        seed[7..15].copy_from_slice(&(action as u64).to_be_bytes());
        seed[3..7].copy_from_slice(&u32::try_from(self.tries[action]).unwrap_or(0).to_be_bytes());
        NewRun {
            run_id: format!("r{number}").into(),
            workflow: WORKFLOW.into(),
            version: VERSION.into(),
            queue: DEFAULT_QUEUE.into(),
            priority: DEFAULT_PRIORITY,
            input: Payload::from(format!("input {number}")),
            meta: None,
            entries: Vec::new(),
            started_at: None,
            start: Start::Queued { at: None },
            tags: Vec::new(),
            memo: None,
            timeout: plan.and_then(|run| run.timeout),
            seed,
            parent: None,
            root: None,
            origin: None,
            now: None,
        }
    }

    /// People change a run. Nobody asks again: whether it took place is to be seen in the run.
    pub(super) fn intervene(&mut self, what: &What) {
        let (change, via) = match what {
            What::Terminate { run, via } => {
                let entry = Entry::new(
                    Kind::RunTerminated,
                    "".into(),
                    Payload::from_static(b"enough"),
                    self.world.store_now(),
                );
                let run_id = run_id(*run);
                (
                    Intervention::Terminate {
                        run_id,
                        entry,
                        outgoing: Vec::new(),
                    },
                    *via,
                )
            }
            What::Delete { run, via } => {
                let run_id = run_id(*run);
                (
                    Intervention::Delete {
                        run_id,
                        force: true,
                    },
                    *via,
                )
            }
            What::Retry { run, slot } => {
                if let Some((engine, token)) = self.caller(*slot) {
                    engine.reopen(token, run_id(*run), None);
                }
                return;
            }
            _ => return,
        };
        match via {
            Via::Slot(slot) => {
                if let Some((engine, token)) = self.caller(slot) {
                    engine.intervene(token, vec![change]);
                }
            }
            Via::Direct => {
                // Its answer is in what becomes of the run.
                let _ = settled(self.judge.intervene(vec![change]));
            }
        }
    }
}

pub(super) fn run_id(number: usize) -> RunId {
    format!("r{number}").into()
}

/// Whether a client has what it asked for. One that is told that somebody holds the run asks again.
pub(super) fn answers(reply: &Reply) -> bool {
    let is_there = |created: &Created| !matches!(created, Created::Blocked);
    let is_kept = |delivered: &Delivered| delivered.result != Delivery::Blocked;
    match reply {
        Reply::Created(created) => created.iter().all(is_there),
        Reply::Delivered(delivered) => delivered.iter().all(is_kept),
        _ => true,
    }
}

fn message(what: &What) -> Option<NewMessage> {
    let What::Send {
        run,
        id,
        kind,
        name,
        payload,
        newer,
        ..
    } = what
    else {
        return None;
    };
    Some(NewMessage {
        run_id: format!("r{run}").into(),
        message_id: id.clone(),
        kind: *kind,
        name: name.clone(),
        payload: Payload::from(payload.clone()),
        fingerprint: None,
        encoding: if *newer { NEWER } else { 1 },
        now: None,
    })
}
