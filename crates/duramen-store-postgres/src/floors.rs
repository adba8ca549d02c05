//! From where on claims look for due runs.
//!
//! A run that was claimed leaves a dead entry at the front of the index of due runs, until vacuum takes it
//! away. Vacuum can be held up for hours: by a forgotten transaction, a standby, a long report. Then every
//! claim that begins at the front walks over all that was ever due before it finds the first that is
//! (<https://brandur.org/postgres-queues> shows what becomes of queues so). So a store remembers for
//! each line up to which instant nothing was left, and begins there.
//!
//! What came due earlier than that after all (its transaction was long on its way, or its start time was
//! in the past) is found by a look at everything, every few seconds: more seldom the longer such a look takes.
//! A test that gives the time has no floors.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use duramen_core::ids::Millis;
use duramen_core::lines::Line;
use duramen_core::run::Status;

/// How long a transaction that makes runs due may be on its way without their having to wait for the
/// next look at everything.
const SLACK: Millis = 2_000;
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(60);
/// Looks at everything take no more than one part in so many of the time.
const SHARE: u32 = 20;

type Key = (Status, String, String);

#[derive(Debug, Default)]
pub(crate) struct Floors {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing due is left below these, as far as is known.
    floors: BTreeMap<Key, Millis>,
    /// When to look at everything next.
    next_full: Option<Instant>,
    /// When each owner's leases were last renewed, all of them.
    renewed: BTreeMap<String, Millis>,
}

/// Where one request begins to look.
#[derive(Debug)]
pub(crate) struct Look {
    /// In the order of the request's lines.
    pub(crate) floors: Vec<Millis>,
    began: Option<Instant>,
}

fn key(line: &Line<'_>) -> Key {
    (
        line.status,
        line.workflow.name.clone(),
        line.workflow.version.clone(),
    )
}

impl Floors {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look that begins at the front of every line.
    pub(crate) fn everything(lines: &[Line<'_>]) -> Look {
        Look {
            floors: vec![Millis::MIN; lines.len()],
            began: None,
        }
    }

    /// From the floors on, unless it is time to look at everything.
    pub(crate) fn look(&self, lines: &[Line<'_>]) -> Look {
        let mut state = self.state();
        let now = Instant::now();
        if state.next_full.is_none_or(|next| next <= now) {
            // Whoever comes meanwhile does not have to do the same.
            state.next_full = Some(now + SOONEST);
            return Look {
                began: Some(now),
                ..Self::everything(lines)
            };
        }
        let floor = |line: &Line<'_>| state.floors.get(&key(line)).copied();
        Look {
            floors: lines
                .iter()
                .map(|line| floor(line).unwrap_or(Millis::MIN))
                .collect(),
            began: None,
        }
    }

    /// After a claim: `last` are the latest instants at which what was taken of each line was due, none
    /// where nothing was; `more` says that a limit ended it.
    pub(crate) fn claimed(
        &self,
        lines: &[Line<'_>],
        look: &Look,
        now: Millis,
        more: bool,
        last: &BTreeMap<usize, Millis>,
    ) {
        let mut state = self.state();
        state.looked(look);
        for (place, line) in lines.iter().enumerate() {
            let floor = match last.get(&place) {
                // What is left of the line was not due before what was taken.
                Some(last) if more => (*last).min(now - SLACK),
                None if more => look.floors[place],
                _ => now - SLACK,
            };
            state.floors.insert(key(line), floor);
        }
    }

    /// From where on an owner's leases end: each was given or renewed after the last time that all were.
    pub(crate) fn leases(&self, owner: &str) -> Millis {
        let state = self.state();
        let renewed = state.renewed.get(owner);
        renewed.map_or(Millis::MIN, |at| at - SLACK)
    }

    pub(crate) fn renewed(&self, owner: &str, now: Millis) {
        self.state().renewed.insert(owner.to_owned(), now);
    }

    /// After a question for the earliest due: a claim must find it.
    pub(crate) fn seen(&self, lines: &[Line<'_>], look: &Look, ready_at: Option<Millis>) {
        let mut state = self.state();
        state.looked(look);
        for line in lines {
            if let (Some(floor), Some(at)) = (state.floors.get_mut(&key(line)), ready_at) {
                *floor = (*floor).min(at);
            }
        }
    }
}

impl State {
    fn looked(&mut self, look: &Look) {
        if let Some(began) = look.began {
            let pause = (began.elapsed() * SHARE).clamp(SOONEST, LATEST);
            self.next_full = Some(Instant::now() + pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use duramen_core::lines::in_turn;
    use duramen_core::store::{Due, WorkflowKey};

    use super::*;

    fn workflows() -> [WorkflowKey; 2] {
        ["a", "b"].map(|name| WorkflowKey {
            name: name.to_owned(),
            version: "1".to_owned(),
        })
    }

    #[test]
    fn the_first_look_is_at_everything_and_the_next_ones_begin_where_nothing_was_left() {
        let workflows = workflows();
        let lines = in_turn(Due::Queued, &workflows, 0);
        let floors = Floors::default();
        let first = floors.look(&lines);
        assert_eq!(first.floors, [Millis::MIN; 2]);
        floors.claimed(&lines, &first, 100_000, false, &BTreeMap::new());
        assert_eq!(floors.look(&lines).floors, [98_000; 2]);
    }

    #[test]
    fn what_a_limit_left_is_looked_for_where_the_taken_ended() {
        let workflows = workflows();
        let lines = in_turn(Due::Queued, &workflows, 0);
        let floors = Floors::default();
        let first = floors.look(&lines);
        floors.claimed(&lines, &first, 100_000, true, &[(1, 500)].into());
        assert_eq!(floors.look(&lines).floors, [Millis::MIN, 500]);
        let second = floors.look(&lines);
        // The other line's turn comes in another order of the lines.
        let turned = in_turn(Due::Queued, &workflows, 1);
        assert_eq!(floors.look(&turned).floors, [500, Millis::MIN]);
        floors.claimed(&lines, &second, 100_000, false, &BTreeMap::new());
        assert_eq!(floors.look(&lines).floors, [98_000; 2]);
    }

    #[test]
    fn what_was_seen_below_a_floor_lowers_it() {
        let workflows = workflows();
        let lines = in_turn(Due::Queued, &workflows, 0);
        let floors = Floors::default();
        let first = floors.look(&lines);
        floors.claimed(&lines, &first, 100_000, false, &BTreeMap::new());
        let look = floors.look(&lines);
        floors.seen(&lines, &look, Some(12));
        assert_eq!(floors.look(&lines).floors, [12; 2]);
        floors.seen(&lines, &look, None);
        assert_eq!(floors.look(&lines).floors, [12; 2]);
    }
}
