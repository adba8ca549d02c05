//! From where on claims look for due runs.
//!
//! A run that was claimed leaves a dead entry at the front of the index of due runs, until vacuum takes it
//! away. Vacuum can be held up for hours: by a forgotten transaction, a standby, a long report. Then every
//! claim that begins at the front walks over all that was ever due before it finds the first that is: 0.4 µs an
//! entry, 130 ms for 300,000 (<https://brandur.org/postgres-queues> shows what becomes of queues so). So a store
//! remembers for each line and priority up to which instant nothing was left, and begins there.
//!
//! Claims look before they lock, so that a floor never rises over a run that was due and not taken, whoever
//! held it. What came due earlier than its floor after all (its transaction was long on its way, or its start
//! time was in the past) is found by a look at everything, each second or, where such a look takes long,
//! each so many seconds that it takes a tenth of the time. Owners that have ended and hold nothing are
//! passed over until then as well. A test that gives the time has no floors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use duramen_core::ids::Millis;
use duramen_core::lanes::{LAST_PRIORITY, Line};
use duramen_core::run::Status;

/// How long a transaction that makes runs due may be on its way without their having to wait for the
/// next look at everything.
const SLACK: Millis = 2_000;
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(10);
/// Looks at everything take no more than one part in so many of the time.
const SHARE: u32 = 10;

const PRIORITIES: usize = LAST_PRIORITY as usize + 1;
// The statements name them.
const _: () = assert!(PRIORITIES == 10);

/// The most candidates beyond its limit that a claim looks at because others hold some.
const MOST_SLACK: i64 = 10_000;

type Key = (Status, String);

#[derive(Debug, Default)]
pub(crate) struct Floors {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing due is left below these, as far as is known: one for each priority.
    floors: BTreeMap<Key, [Millis; PRIORITIES]>,
    /// Owners that have ended and held nothing.
    empty: BTreeSet<String>,
    /// When to look at everything next.
    next_full: Option<Instant>,
    /// How many candidates the last claim found in the hands of others.
    passed_over: i64,
}

/// Where one request begins to look.
#[derive(Debug)]
pub(crate) struct Look {
    /// In the order of the request's lines, one for each priority.
    pub(crate) floors: Vec<Millis>,
    /// Owners that need no look.
    pub(crate) empty: Vec<String>,
    pub(crate) is_full: bool,
    began: Option<Instant>,
}

impl Look {
    /// Whether it is by the store's own clock, so that something may be learned from it.
    pub(crate) const fn is_timed(&self) -> bool {
        self.began.is_some()
    }
}

/// What a claim saw without a lock, and did not take.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) now: Millis,
    /// Of each line (1 for the first) and priority: how much was seen, and the earliest of what was left.
    lines: BTreeMap<i64, BTreeMap<i16, (i64, Option<Millis>)>>,
    pub(crate) empty: Vec<String>,
}

impl Left {
    pub(crate) fn add(&mut self, place: i64, priority: i16, seen: i64, earliest: Option<Millis>) {
        let line = self.lines.entry(place).or_default();
        line.insert(priority, (seen, earliest));
    }
}

fn key(line: &Line<'_>) -> Key {
    (line.status, line.lane.to_owned())
}

impl Floors {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look that begins at the front of every line and teaches nothing.
    pub(crate) fn everything(lines: &[Line<'_>]) -> Look {
        Look {
            floors: vec![Millis::MIN; lines.len() * PRIORITIES],
            empty: Vec::new(),
            is_full: true,
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
            state.empty.clear();
            return Look {
                began: Some(now),
                ..Self::everything(lines)
            };
        }
        let none = [Millis::MIN; PRIORITIES];
        Look {
            floors: lines
                .iter()
                .flat_map(|line| state.floors.get(&key(line)).copied().unwrap_or(none))
                .collect(),
            empty: state.empty.iter().cloned().collect(),
            is_full: false,
            began: Some(now),
        }
    }

    /// After a claim that looked at `window` candidates of each line at the most.
    pub(crate) fn claimed(&self, lines: &[Line<'_>], look: &Look, left: &Left, window: i64) {
        let mut state = self.state();
        state.looked(look);
        let nothing = BTreeMap::new();
        for (place, line) in (1..).zip(lines) {
            if line.status == Status::Running {
                continue;
            }
            let seen = left.lines.get(&place).unwrap_or(&nothing);
            // A window that was filled ends within the last priority that it shows.
            let filled = seen.values().map(|(count, _)| count).sum::<i64>() >= window;
            let end = seen.keys().next_back().copied().filter(|_| filled);
            let floors = state
                .floors
                .entry(key(line))
                .or_insert([Millis::MIN; PRIORITIES]);
            for (priority, floor) in (0_i16..).zip(floors) {
                let earliest = seen.get(&priority).and_then(|(_, earliest)| *earliest);
                match end {
                    Some(end) if priority > end => {}
                    Some(end) if priority == end => *floor = earliest.unwrap_or(*floor),
                    _ => {
                        let none = left.now - SLACK;
                        *floor = earliest.map_or(none, |at| at.min(none));
                    }
                }
            }
        }
        state.empty.extend(left.empty.iter().cloned());
    }

    /// How many candidates a claim looks at beyond its limit.
    pub(crate) fn slack(&self) -> i64 {
        self.state().passed_over.saturating_mul(2).min(MOST_SLACK)
    }

    pub(crate) fn passed_over(&self, count: i64) {
        self.state().passed_over = count;
    }

    /// After a question for the earliest due: a claim must find it.
    pub(crate) fn seen(&self, lines: &[Line<'_>], look: &Look, ready_at: Option<Millis>) {
        let mut state = self.state();
        state.looked(look);
        for line in lines {
            if let (Some(floors), Some(at)) = (state.floors.get_mut(&key(line)), ready_at) {
                for floor in floors {
                    *floor = (*floor).min(at);
                }
            }
        }
    }
}

impl State {
    fn looked(&mut self, look: &Look) {
        if let Some(began) = look.began.filter(|_| look.is_full) {
            let pause = (began.elapsed() * SHARE).clamp(SOONEST, LATEST);
            self.next_full = Some(Instant::now() + pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use duramen_core::lanes::in_turn;
    use duramen_core::store::Due;

    use super::*;

    fn lanes() -> [String; 2] {
        ["a", "b"].map(str::to_owned)
    }

    fn left(now: Millis, seen: &[(i64, i16, i64, Option<Millis>)]) -> Left {
        let mut left = Left {
            now,
            ..Left::default()
        };
        for (place, priority, count, earliest) in seen {
            left.add(*place, *priority, *count, *earliest);
        }
        left
    }

    fn of(floors: &Floors, lines: &[Line<'_>], line: usize, priority: usize) -> Millis {
        floors.look(lines).floors[line * PRIORITIES + priority]
    }

    #[test]
    fn the_first_look_is_at_everything_and_the_next_ones_begin_where_nothing_was_left() {
        let served = lanes();
        let lines = in_turn(Due::Queued, &served, 0);
        let floors = Floors::default();
        let first = floors.look(&lines);
        assert!(first.is_full);
        assert_eq!(first.floors, [Millis::MIN; 2 * PRIORITIES]);
        floors.claimed(&lines, &first, &left(100_000, &[]), 10);
        let next = floors.look(&lines);
        assert!(!next.is_full);
        assert_eq!(next.floors, [98_000; 2 * PRIORITIES]);
    }

    #[test]
    fn no_floor_rises_over_what_was_seen_and_not_taken() {
        let served = lanes();
        let lines = in_turn(Due::Queued, &served, 0);
        let floors = Floors::default();
        let first = floors.look(&lines);
        // Two of the second line, one of them in the hands of others.
        let seen = left(100_000, &[(2, 5, 2, Some(500))]);
        floors.claimed(&lines, &first, &seen, 10);
        assert_eq!(of(&floors, &lines, 1, 5), 500);
        assert_eq!(of(&floors, &lines, 1, 4), 98_000);
        assert_eq!(of(&floors, &lines, 0, 5), 98_000);
        // The other line's turn comes in another order of the lines.
        let turned = in_turn(Due::Queued, &served, 1);
        assert_eq!(of(&floors, &turned, 0, 5), 500);
    }

    #[test]
    fn what_a_filled_window_did_not_reach_keeps_its_floor() {
        let served = lanes();
        let lines = in_turn(Due::Queued, &served, 0);
        let floors = Floors::default();
        let first = floors.look(&lines);
        let seen = left(100_000, &[(1, 3, 4, None), (1, 5, 6, Some(700))]);
        floors.claimed(&lines, &first, &seen, 10);
        let now = [2, 3, 5, 6].map(|priority| of(&floors, &lines, 0, priority));
        assert_eq!(now, [98_000, 98_000, 700, Millis::MIN]);
    }

    #[test]
    fn what_was_seen_below_a_floor_lowers_it() {
        let served = lanes();
        let lines = in_turn(Due::Queued, &served, 0);
        let floors = Floors::default();
        let first = floors.look(&lines);
        floors.claimed(&lines, &first, &left(100_000, &[]), 10);
        let look = floors.look(&lines);
        floors.seen(&lines, &look, Some(12));
        assert_eq!(floors.look(&lines).floors, [12; 2 * PRIORITIES]);
        floors.seen(&lines, &look, None);
        assert_eq!(floors.look(&lines).floors, [12; 2 * PRIORITIES]);
    }

    #[test]
    fn owners_that_hold_nothing_are_passed_over_until_the_next_look_at_everything() {
        let served = lanes();
        let lines = in_turn(Due::Any, &served, 0);
        let floors = Floors::default();
        let first = floors.look(&lines);
        let seen = Left {
            empty: vec!["ann".to_owned()],
            ..left(100_000, &[])
        };
        floors.claimed(&lines, &first, &seen, 10);
        assert_eq!(floors.look(&lines).empty, ["ann"]);
        floors.state().next_full = None;
        assert!(floors.look(&lines).empty.is_empty());
    }
}
