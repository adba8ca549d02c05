//! Lanes and lines: what a claim asks for, and in which order it takes it.
//!
//! A *lane* is what decides who may take a run: its queue, workflow, version and format. It is stored as one
//! opaque key, so that what else may matter one day changes no index. A process serves a set of lanes.
//!
//! A *line* is a lane and a status: the runs of ended owners, those that were woken, those that never
//! began. Within a line of waiting or queued runs the lower priority comes first, then the earliest due,
//! then the lesser run id; runs of ended owners come by run id. The first of every line comes before the
//! second of any, so that a flood of one workflow, or of fresh runs, delays the others by no more than
//! their number of lines, however much earlier it was due. With one place to fill the line that a claim
//! begins with decides: the claimer says which ([`Claim::turn`]) and goes on behind the one that was
//! served last.
//!
//! [`Claim::turn`]: crate::store::Claim::turn

use std::ops::RangeInclusive;

use crate::journal::ENCODING;
use crate::run::{RunRow, Status};
use crate::store::{Due, WorkflowKey};

/// The queue of runs that were given none.
pub const DEFAULT_QUEUE: &str = "default";

/// The priority of runs that were given none.
pub const DEFAULT_PRIORITY: u8 = 5;

/// The lowest priority; 0 is the highest.
pub const LAST_PRIORITY: u8 = 9;

/// Stands between the parts of a key; no id contains it.
const SEPARATOR: char = '\u{1f}';

/// What decides who may take a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane<'a> {
    pub queue: &'a str,
    pub workflow: &'a str,
    pub version: &'a str,
    pub format: u8,
}

impl Lane<'_> {
    /// As stores keep it and claims name it.
    pub fn key(&self) -> String {
        let Self {
            queue,
            workflow,
            version,
            format,
        } = self;
        // Every creation makes one: by hand, which takes a fifth of what `format!` does.
        let mut key = String::with_capacity(queue.len() + workflow.len() + version.len() + 6);
        for part in [queue, workflow, version] {
            key.push_str(part);
            key.push(SEPARATOR);
        }
        key.push_str(&format.to_string());
        key
    }
}

impl<'k> Lane<'k> {
    /// What a key says; none if it is none.
    pub fn of_key(key: &'k str) -> Option<Self> {
        let mut parts = key.split(SEPARATOR);
        let lane = Self {
            queue: parts.next()?,
            workflow: parts.next()?,
            version: parts.next()?,
            format: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(lane)
    }
}

// Here and not beside the row: the order of claims is made of rows, no row of the order of claims.
impl RunRow {
    /// The lane that it stands in.
    pub fn lane(&self) -> Lane<'_> {
        Lane {
            queue: &self.queue,
            workflow: &self.workflow,
            version: &self.version,
            format: self.format,
        }
    }
}

/// So many formats behind its own does a build look for runs that it cannot read, to tell people that they wait
/// for a newer one. Builds side by side are neighbours; each format more is another look at every workflow.
const AHEAD: u8 = 3;

/// The keys of all lanes that this build can serve of some workflows in some queues.
pub fn served(queues: &[String], workflows: &[WorkflowKey]) -> Vec<String> {
    keys(queues, workflows, 1..=ENCODING)
}

/// The keys of lanes of the same workflows and queues that only newer builds can serve, as far ahead as this
/// one looks. They are never claimed.
pub fn ahead(queues: &[String], workflows: &[WorkflowKey]) -> Vec<String> {
    keys(queues, workflows, ENCODING + 1..=ENCODING + AHEAD)
}

fn keys(queues: &[String], workflows: &[WorkflowKey], formats: RangeInclusive<u8>) -> Vec<String> {
    let mut keys = Vec::with_capacity(queues.len() * workflows.len() * formats.clone().count());
    for queue in queues {
        for workflow in workflows {
            for format in formats.clone() {
                let lane = Lane {
                    queue,
                    workflow: &workflow.name,
                    version: &workflow.version,
                    format,
                };
                keys.push(lane.key());
            }
        }
    }
    keys
}

/// A line: a lane's key and the status of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub status: Status,
    pub lane: &'a str,
}

/// The lines that a claim takes from, beginning with the one whose turn it is.
pub fn in_turn(due: Due, lanes: &[String], turn: u64) -> Vec<Line<'_>> {
    let mut round = numbered(due, lanes);
    if !round.is_empty() {
        let first = usize::try_from(turn % round.len() as u64).unwrap_or(0);
        round.rotate_left(first);
    }
    round
}

/// The turn after a run of that line was served.
pub fn turn_after(due: Due, lanes: &[String], served: Line<'_>) -> Option<u64> {
    let place = numbered(due, lanes)
        .into_iter()
        .position(|line| line == served)?;
    Some(place as u64 + 1)
}

/// Every line once, also when a lane stands twice in the list.
fn numbered(due: Due, lanes: &[String]) -> Vec<Line<'_>> {
    let mut all = Vec::with_capacity(lanes.len() * due.statuses().len());
    for (place, lane) in lanes.iter().enumerate() {
        if !lanes[..place].contains(lane) {
            all.extend(due.statuses().iter().map(|&status| Line { status, lane }));
        }
    }
    all
}

/// The first of each line, then the second of each, and so on.
pub fn interleave<T>(lines: Vec<Vec<T>>) -> Vec<T> {
    let mut mixed = Vec::with_capacity(lines.iter().map(Vec::len).sum());
    let mut lines: Vec<_> = lines.into_iter().map(Vec::into_iter).collect();
    while !lines.is_empty() {
        lines.retain_mut(|line| match line.next() {
            Some(run) => {
                mixed.push(run);
                true
            }
            None => false,
        });
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::{Lane, Line, ahead, in_turn, interleave, served, turn_after};
    use crate::journal::ENCODING;
    use crate::run::Status;
    use crate::store::{Due, WorkflowKey};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_line_has_its_turn_once_in_a_round() {
        let lanes = names(&["a", "b", "a"]);
        for due in [Due::Any, Due::Recovery, Due::Wake, Due::Queued] {
            let count = in_turn(due, &lanes, 0).len();
            assert_eq!(count, 2 * due.statuses().len());
            let firsts: Vec<_> = (0..count as u64)
                .map(|turn| in_turn(due, &lanes, turn)[0])
                .collect();
            assert_eq!(firsts, in_turn(due, &lanes, 0));
        }
        assert!(in_turn(Due::Any, &[], 7).is_empty());
    }

    #[test]
    fn the_next_turn_is_that_of_the_line_behind_the_one_served() {
        let lanes = names(&["a", "b"]);
        for turn in 0..20 {
            let round = in_turn(Due::Any, &lanes, turn);
            let next = turn_after(Due::Any, &lanes, round[0]).unwrap();
            assert_eq!(in_turn(Due::Any, &lanes, next)[0], round[1]);
        }
        let served = Line {
            status: Status::Queued,
            lane: "c",
        };
        assert_eq!(turn_after(Due::Any, &lanes, served), None);
    }

    #[test]
    fn lines_of_any_length_are_interleaved_whole() {
        let lines = vec![vec![1, 4, 6, 7], vec![], vec![2], vec![3, 5]];
        assert_eq!(interleave(lines), [1, 2, 3, 4, 5, 6, 7]);
        assert!(interleave(Vec::<Vec<u8>>::new()).is_empty());
    }

    #[test]
    fn a_key_says_what_it_was_made_of() {
        let lane = Lane {
            queue: "q",
            workflow: "w/é",
            version: "2",
            format: 12,
        };
        assert_eq!(Lane::of_key(&lane.key()), Some(lane));
        for key in [
            "",
            "lane",
            "q\u{1f}w\u{1f}2",
            "q\u{1f}w\u{1f}2\u{1f}x",
            "q\u{1f}w\u{1f}2\u{1f}1\u{1f}",
        ] {
            assert_eq!(Lane::of_key(key), None, "{key:?}");
        }
    }

    #[test]
    fn a_process_serves_every_format_that_it_reads_of_its_workflows_and_queues() {
        let workflow = WorkflowKey {
            name: "w".into(),
            version: "2".into(),
        };
        let workflows = [workflow];
        let lanes = served(&names(&["q", "r"]), &workflows);
        assert_eq!(lanes.len(), 2 * usize::from(ENCODING));
        let readable = Lane {
            queue: "q",
            workflow: "w",
            version: "2",
            format: ENCODING,
        };
        assert!(lanes.contains(&readable.key()));
        let newer = Lane {
            format: ENCODING + 1,
            ..readable
        };
        assert!(!lanes.contains(&newer.key()));
        let ahead = ahead(&names(&["q", "r"]), &workflows);
        assert!(ahead.contains(&newer.key()));
        assert!(ahead.iter().all(|lane| !lanes.contains(lane)));
    }
}
