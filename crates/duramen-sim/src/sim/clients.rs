//! Clients: they create runs and send messages, and ask again until they are answered.

use duramen_core::ids::Payload;
use duramen_core::store::{NewMessage, NewRun, Start, Store};

use super::Sim;
use crate::net::settled;
use crate::plan::{Deed, Via, What};
use crate::world::Event;
use duramen_core::ids::Millis;

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
                            engine.start(token, self.new_run(*run));
                        }
                        What::Create { run, .. } => {
                            engine.create(token, vec![self.new_run(*run)]);
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
                        let run = self.new_run(*run);
                        settled(self.judge.create(vec![run])).is_ok()
                    }
                    other => message(other)
                        .is_none_or(|message| settled(self.judge.deliver(vec![message])).is_ok()),
                };
                self.answered[number] = answered;
                if !answered {
                    self.world.at(self.world.now() + PATIENCE, again);
                }
            }
        }
    }

    pub(super) fn new_run(&self, number: usize) -> NewRun {
        let plan = self.plan.runs.get(number);
        let byte = u8::try_from(number % 251).unwrap_or(0);
        NewRun {
            run_id: format!("r{number}").into(),
            workflow: "w".into(),
            version: "1".into(),
            input: Payload::from(format!("input {number}")),
            start: Start::Queued { at: None },
            tags: Vec::new(),
            memo: None,
            timeout: plan.and_then(|run| run.timeout),
            seed: [byte; 16],
            now: None,
        }
    }
}

fn message(what: &What) -> Option<NewMessage> {
    let What::Send {
        run,
        id,
        kind,
        name,
        payload,
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
        now: None,
    })
}
