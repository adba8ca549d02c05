//! What became of a commit whose first answer was lost, and which was fenced when it was sent again.
//!
//! Nothing else can have changed the run under the epoch of this process: each claim and each intervention
//! raises it. So the run's life, its epoch and the length of its journal tell whether the commit took place.

use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_core::store::{CommitOutcome, Next, RunCommit, Standing};

/// See the module's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Outcome(CommitOutcome),
    /// It did not take place, and may yet.
    Again,
}

/// Decides from how the run stands now. `own` says which names are this process's.
pub(super) fn found(
    commit: &RunCommit,
    standing: Option<&Standing>,
    own: impl Fn(&str) -> bool,
    now: Millis,
) -> Found {
    let fenced = Found::Outcome(CommitOutcome::Fenced);
    let Some(standing) = standing else {
        return fenced;
    };
    if standing.seed != commit.seed || standing.epoch != commit.epoch {
        return fenced;
    }
    let here = standing.status == Status::Running && standing.owner.as_deref().is_some_and(own);
    let became = match &commit.next {
        Next::Running => here,
        // A pause and its end are changes of the status alone.
        Next::Waiting { .. } | Next::Paused { .. } => {
            matches!(standing.status, Status::Waiting | Status::Paused)
        }
        Next::Finished { status } => standing.status == *status,
        Next::Stuck { .. } => standing.status == Status::Stuck,
        Next::Continued { .. } => matches!(standing.status, Status::Queued | Status::Paused),
    };
    // One that keeps the run and adds nothing would not have fenced itself.
    let told = !commit.entries.is_empty() || commit.next != Next::Running;
    if became && told && standing.journal_len == commit.length_after() {
        let due = standing.status == Status::Waiting
            && standing.ready_at.is_some_and(|ready_at| ready_at <= now);
        return Found::Outcome(CommitOutcome::Applied { due });
    }
    if here && standing.journal_len == commit.expected_len {
        return Found::Again;
    }
    fenced
}

#[cfg(test)]
mod tests {
    use duramen_core::ids::Payload;
    use duramen_core::journal::{Entry, Kind};

    use super::*;

    fn commit(next: Next, entries: usize) -> RunCommit {
        let entry = Entry::new(Kind::StepCompleted, "s".into(), Payload::new(), 0);
        RunCommit {
            run_id: "r".into(),
            seed: [1; 16],
            owner: "a".into(),
            epoch: 3,
            expected_len: 5,
            entries: vec![entry; entries],
            read: Vec::new(),
            inbox_seen: None,
            next,
            state: None,
            outgoing: Vec::new(),
            written: Vec::new(),
            format: None,
            at: 0,
        }
    }

    fn waiting() -> Next {
        Next::Waiting {
            ready_at: None,
            waits: Vec::new(),
        }
    }

    fn standing(status: Status, journal_len: u64) -> Standing {
        Standing {
            status,
            seed: [1; 16],
            owner: (status == Status::Running).then(|| "a".to_owned()),
            epoch: 3,
            journal_len,
            generation: 0,
            ready_at: None,
        }
    }

    fn judge(commit: &RunCommit, standing: &Standing) -> Found {
        found(commit, Some(standing), |owner| owner == "a", 100)
    }

    const APPLIED: Found = Found::Outcome(CommitOutcome::Applied { due: false });
    const FENCED: Found = Found::Outcome(CommitOutcome::Fenced);

    #[test]
    fn the_length_tells_of_a_commit_with_entries_and_the_status_of_one_without() {
        for (next, status) in [
            (Next::Running, Status::Running),
            (waiting(), Status::Waiting),
            (
                Next::Finished {
                    status: Status::Failed,
                },
                Status::Failed,
            ),
            (
                Next::Stuck {
                    note: String::new(),
                },
                Status::Stuck,
            ),
            (
                Next::Continued {
                    ready_at: 0,
                    version: "1".to_owned(),
                },
                Status::Queued,
            ),
        ] {
            let two = commit(next.clone(), 2);
            assert_eq!(judge(&two, &standing(status, 7)), APPLIED);
            assert_eq!(judge(&two, &standing(status, 6)), FENCED);
            assert_eq!(judge(&two, &standing(Status::Running, 5)), Found::Again);
            let none = commit(next.clone(), 0);
            let without = judge(&none, &standing(status, 5));
            if next == Next::Running {
                assert_eq!(without, Found::Again);
            } else {
                assert_eq!(without, APPLIED);
                assert_eq!(judge(&none, &standing(Status::Running, 5)), Found::Again);
            }
        }
        let ended = standing(Status::Terminated, 7);
        assert_eq!(judge(&commit(Next::Running, 2), &ended), FENCED);
    }

    #[test]
    fn another_life_another_epoch_and_another_owner_are_others() {
        let two = commit(Next::Running, 2);
        assert_eq!(found(&two, None, |_| true, 0), FENCED);
        for change in [
            (|it: &mut Standing| it.seed = [2; 16]) as fn(&mut Standing),
            |it| it.epoch = 4,
            |it| it.owner = Some("b".into()),
        ] {
            for len in [5, 7] {
                let mut other = standing(Status::Running, len);
                change(&mut other);
                assert_eq!(judge(&two, &other), FENCED);
            }
        }
    }

    #[test]
    fn a_pause_that_is_due_already_says_so() {
        let pause = commit(waiting(), 1);
        for (ready_at, due) in [(None, false), (Some(100), true), (Some(101), false)] {
            let now = Standing {
                ready_at,
                ..standing(Status::Waiting, 6)
            };
            let applied = Found::Outcome(CommitOutcome::Applied { due });
            assert_eq!(judge(&pause, &now), applied);
        }
    }
}
