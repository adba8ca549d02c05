//! Fairness of claims: due runs stand in lines, and a claim takes from the lines in turn.
//!
//! A line is what shares workflow, version and status: the runs of dead workers, those that were
//! woken, those that never began. Within a line the earliest due comes first. The first of every
//! line comes before the second of any, so that a flood of one workflow, or of fresh runs, delays
//! the others by no more than their number of lines, however much earlier it was due. With one place
//! to fill the line that a claim begins with decides: the claimer says which ([`Claim::turn`]) and goes
//! on behind the one that was served last.
//!
//! [`Claim::turn`]: crate::store::Claim::turn

use crate::run::Status;
use crate::store::{Due, WorkflowKey};

/// A line: a workflow and the status of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub status: Status,
    pub workflow: &'a WorkflowKey,
}

/// The lines that a claim takes from, beginning with the one whose turn it is.
pub fn in_turn(due: Due, workflows: &[WorkflowKey], turn: u64) -> Vec<Line<'_>> {
    let mut lines = numbered(due, workflows);
    if !lines.is_empty() {
        let first = usize::try_from(turn % lines.len() as u64).unwrap_or(0);
        lines.rotate_left(first);
    }
    lines
}

/// The turn after a run of that line was served.
pub fn turn_after(due: Due, workflows: &[WorkflowKey], served: Line<'_>) -> Option<u64> {
    let place = numbered(due, workflows)
        .into_iter()
        .position(|line| line == served)?;
    Some(place as u64 + 1)
}

/// Every line once, also when a workflow stands twice in the list.
fn numbered(due: Due, workflows: &[WorkflowKey]) -> Vec<Line<'_>> {
    let mut lines = Vec::with_capacity(workflows.len() * due.statuses().len());
    for (place, workflow) in workflows.iter().enumerate() {
        if !workflows[..place].contains(workflow) {
            lines.extend(
                due.statuses()
                    .iter()
                    .map(|&status| Line { status, workflow }),
            );
        }
    }
    lines
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
    use super::{Line, in_turn, interleave, turn_after};
    use crate::run::Status;
    use crate::store::{Due, WorkflowKey};

    fn key(name: &str) -> WorkflowKey {
        WorkflowKey {
            name: name.into(),
            version: "1".into(),
        }
    }

    #[test]
    fn every_line_has_its_turn_once_in_a_round() {
        let workflows = [key("a"), key("b"), key("a")];
        for due in [Due::Any, Due::Recovery, Due::Wake, Due::Queued] {
            let count = in_turn(due, &workflows, 0).len();
            assert_eq!(count, 2 * due.statuses().len());
            let firsts: Vec<_> = (0..count as u64)
                .map(|turn| in_turn(due, &workflows, turn)[0])
                .collect();
            assert_eq!(firsts, in_turn(due, &workflows, 0));
        }
        assert!(in_turn(Due::Any, &[], 7).is_empty());
    }

    #[test]
    fn the_next_turn_is_that_of_the_line_behind_the_one_served() {
        let workflows = [key("a"), key("b")];
        for turn in 0..20 {
            let lines = in_turn(Due::Any, &workflows, turn);
            let next = turn_after(Due::Any, &workflows, lines[0]).unwrap();
            assert_eq!(in_turn(Due::Any, &workflows, next)[0], lines[1]);
        }
        let unknown = key("c");
        let served = Line {
            status: Status::Queued,
            workflow: &unknown,
        };
        assert_eq!(turn_after(Due::Any, &workflows, served), None);
    }

    #[test]
    fn lines_of_any_length_are_interleaved_whole() {
        let lines = vec![vec![1, 4, 6, 7], vec![], vec![2], vec![3, 5]];
        assert_eq!(interleave(lines), [1, 2, 3, 4, 5, 6, 7]);
        assert!(interleave(Vec::<Vec<u8>>::new()).is_empty());
    }
}
