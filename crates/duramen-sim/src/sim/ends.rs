//! How a simulation ends: nothing goes wrong any more, every run ends, and all is looked through.

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::run::Status;
use duramen_core::store::{Delivery, Inboxes, MessageKind, NewMessage};

use super::{Sim, Slot};
use crate::facts::RunLife;
use crate::model;
use crate::net::settled;
use crate::oracles;
use crate::plan::{Deed, Mode, SlotPlan, What};
use crate::program::STREAMS;
use crate::replay::replay_equals_the_first_pass;
use crate::world::Event;

/// How often it is looked whether all runs have ended.
const LOOK: Millis = 250;

impl Sim {
    /// Nothing goes wrong any more: everybody who stopped goes on, who is gone comes back.
    pub(super) fn becalm(&mut self) {
        self.calm = true;
        self.world.note(|| "calm".to_owned());
        if let Some(machine) = &self.machine {
            machine.calm();
        }
        self.judge.calm();
        self.world.trouble_all();
        for host in self.hosts.values_mut() {
            host.net.calm();
            host.lag = 0;
            self.world.go_on(host.process);
        }
        for number in 0..self.slots.len() {
            self.boot(number);
        }
        // One that takes whatever is due, for those that would not.
        self.slots.push(Slot {
            plan: SlotPlan {
                mode: Mode::Worker {
                    concurrency: 10,
                    poll_min: 20,
                    poll_max: 500,
                },
                lease: 1_000,
                hold: 0,
                warm: 4,
                skew: 0,
                // It reads all that there is.
                newer: true,
                named: false,
                latency: 0,
                lag: 0,
                faults: Vec::new(),
            },
            host: None,
            lives: 0,
        });
        self.boot(self.slots.len() - 1);
        for number in 0..self.plan.actions.len() {
            let what = &self.plan.actions[number].what;
            if matches!(what, What::Create { .. } | What::Send { .. }) {
                let again = Event::Deed(Deed::Action(number));
                self.world.at(self.world.now(), again);
            }
        }
        self.world
            .at(self.world.now() + LOOK, Event::Deed(Deed::Look));
    }

    pub(super) fn run_ids(&self) -> Vec<RunId> {
        (0..self.plan.runs.len())
            .map(|number| RunId::from(format!("r{number}")))
            .collect()
    }

    /// Whether all runs have ended; those that legitimately wait get what they wait for.
    pub(super) fn look(&mut self) {
        let mut ended = !self.judge.is_unsent();
        for run_id in self.run_ids() {
            let Some(row) = self.judge.row(&run_id) else {
                ended &= self.is_gone(&run_id);
                continue;
            };
            if row.status.is_final() {
                continue;
            }
            ended = false;
            if row.status == Status::Paused {
                self.send_last(&run_id, MessageKind::Resume, "");
            }
            if row.status == Status::Waiting && row.ready_at.is_none() {
                let mut facts = self.judge.facts();
                let found = oracles::every_run_ends_or_waits(facts.run(&run_id), &row);
                facts.judge(oracles::ENDS, found);
                drop(facts);
                for wait in &row.waits {
                    self.finale(&run_id, wait);
                }
            }
        }
        self.done = ended;
        self.world
            .at(self.world.now() + LOOK, Event::Deed(Deed::Look));
    }

    /// Whether people have removed the run for good.
    fn is_gone(&self, run_id: &RunId) -> bool {
        let facts = self.judge.facts();
        facts.deleted.contains(run_id) && !facts.present.contains_key(run_id)
    }

    pub(super) fn finale(&mut self, run_id: &RunId, wait: &str) {
        let Some((kind, name)) = wait.split_once(':') else {
            return;
        };
        let kind = match kind {
            "event" => MessageKind::Event,
            "approval" => MessageKind::Approval,
            _ => return,
        };
        self.send_last(run_id, kind, name);
    }

    /// What a run waits for comes at last, and it must be due for it.
    fn send_last(&mut self, run_id: &RunId, kind: MessageKind, name: &str) {
        self.finales += 1;
        let number = self.finales;
        let message = NewMessage {
            run_id: run_id.clone(),
            message_id: format!("finale-{number}"),
            kind,
            name: name.to_owned(),
            payload: Payload::from(format!("finale {number}")),
            fingerprint: None,
            encoding: 1,
            now: None,
        };
        let delivered = settled(self.judge.deliver(vec![message]));
        let result = delivered.ok().and_then(|all| Some(all.first()?.result));
        if result != Some(Delivery::Delivered) {
            let what = format!("{run_id} waits for {kind:?} {name} and was not woken: {result:?}");
            self.judge.facts().judge(oracles::ENDS, Err(what));
        }
    }

    /// Time is over, and not every run has ended.
    pub(super) fn give_up(&self) {
        if self.judge.is_unsent() {
            let what = "what left a run is not carried out long after all was well".to_owned();
            self.judge.facts().judge(oracles::CARRIED, Err(what));
        }
        for run_id in self.run_ids() {
            let row = self.judge.row(&run_id);
            let what = match row {
                Some(row) if row.status.is_final() => continue,
                Some(row) => format!(
                    "{run_id} is {} of {:?}, due {:?}, waiting for {:?}, long after all was well",
                    row.status.name(),
                    row.owner,
                    row.ready_at.map(|at| at - self.world.now()),
                    row.waits
                ),
                None if self.is_gone(&run_id) => continue,
                None => format!("{run_id} was never created"),
            };
            self.judge.facts().judge(oracles::ENDS, Err(what));
        }
    }

    /// What must be true of every run when all is over.
    pub(super) fn check_ends(&self) {
        {
            let mut facts = self.judge.facts();
            let present = &facts.present;
            let is_there = |life: &RunLife| present.get(&life.0) == Some(&life.1);
            let left = facts.letters.left(is_there);
            facts.judge(oracles::CARRIED, left);
        }
        for (number, run_id) in self.run_ids().iter().enumerate() {
            if self.is_gone(run_id) {
                continue;
            }
            for stream in STREAMS {
                self.judge.read_stream(run_id, stream);
            }
            let row = self.judge.row(run_id);
            let journal = self.judge.journal(run_id).unwrap_or_default();
            let mut facts = self.judge.facts();
            let run = facts.run(run_id);
            let lost = oracles::nothing_acknowledged_is_lost(run, run_id, row.as_ref());
            let one = oracles::no_journal_has_two_histories(run, run_id, 0, &journal);
            let (Some(row), Some(program)) = (row, self.by_run.get(number)) else {
                facts.judge(oracles::NOTHING_LOST, lost);
                continue;
            };
            let legal = model::check(program, &row, &journal, run)
                .map_err(|error| format!("{run_id}: {error}"));
            let replay = replay_equals_the_first_pass(program, &row, run);
            let ends = oracles::every_run_ends_or_waits(run, &row);
            facts.judge(oracles::NOTHING_LOST, lost);
            facts.judge(oracles::ONE_HISTORY, one);
            facts.judge(oracles::ENDS, ends);
            facts.judge(oracles::LEGAL, legal);
            facts.counts.prefixes += replay.as_ref().copied().unwrap_or(0);
            facts.judge(oracles::REPLAY, replay.map(drop));
        }
    }
}
