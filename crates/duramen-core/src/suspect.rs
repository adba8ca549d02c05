//! Runs over which driver after driver is lost: what kills a process, or holds it up for longer than
//! a lease, must not go round the fleet for ever, and must not take its neighbours with it.
//!
//! The facts are columns of the row. A claim of a run whose owner has ended counts that driver as lost
//! ([`RunRow::lose_driver`]): how many in a row, and at which length of the journal; progress starts the
//! count anew. No commit is made for it, and none has to be made before the next attempt, which may be the
//! one that kills.
//!
//! The first loss is an accident: the run goes on at once. After the second it is set back for a
//! random while, which doubles with each further loss: whoever was lost with it by chance returns at
//! another time, gets further and is not suspect any more. After [`MOST`] it is parked with the reason.

use crate::derive::below;
use crate::ids::Millis;
use crate::run::{RunRow, Status};

/// A run that has cost so many drivers in a row without getting any further is parked.
pub const MOST: u32 = 8;

/// It is set back for no more than so many leases.
const LONGEST: i64 = 8;

/// The wait key of a run that was set back.
pub const SET_BACK: &str = "set-back";

/// What is to become of a run that was just claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Drive,
    /// To be released with the wait key [`SET_BACK`], and due again after that pause.
    SetBack {
        pause: Millis,
    },
    /// To be parked with this note.
    Park {
        note: String,
    },
}

/// Decides about a run from its row after the claim.
pub fn verdict(row: &RunRow, was: Status, lease: Millis) -> Verdict {
    if was != Status::Running || row.lost < 2 {
        return Verdict::Drive;
    }
    let lost = row.lost;
    if lost >= MOST {
        let entry = row.journal_len.saturating_sub(1);
        let note = format!(
            "{lost} drivers in a row were lost over this run without its getting past entry {entry} of its \
             journal: their processes died, or were held up for longer than a lease. Find out what it does \
             there (it may use up the memory, end the process or block the event loop); `duramen runs \
             retry` lets it try again"
        );
        return Verdict::Park { note };
    }
    let leases = 1_i64.checked_shl(lost - 2).unwrap_or(LONGEST).min(LONGEST);
    let most = lease.max(1).saturating_mul(leases);
    Verdict::SetBack {
        pause: below(&row.seed, SET_BACK, lost, most),
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Verdict, verdict};
    use crate::run::{RunRow, Status};
    use crate::store::{NewRun, Start};

    const LEASE: i64 = 30_000;

    fn row(seed: u8) -> RunRow {
        let new = NewRun {
            run_id: "r".into(),
            workflow: "w".into(),
            version: "1".into(),
            queue: crate::lanes::DEFAULT_QUEUE.into(),
            priority: crate::lanes::DEFAULT_PRIORITY,
            input: "".into(),
            meta: None,
            entries: Vec::new(),
            started_at: None,
            start: Start::Leased { owner: "a".into() },
            tags: Vec::new(),
            memo: None,
            timeout: None,
            seed: [seed; 16],
            parent: None,
            root: None,
            origin: None,
            now: None,
        };
        RunRow {
            journal_len: 7,
            ..new.first_row(0)
        }
    }

    /// A claim as every store makes it.
    fn claim(row: &mut RunRow) -> Verdict {
        let was = row.status;
        if was == Status::Running {
            row.lose_driver(row.journal_len);
        }
        row.epoch += 1;
        row.status = Status::Running;
        verdict(row, was, LEASE)
    }

    #[test]
    fn drivers_that_are_lost_at_one_length_are_counted_and_progress_starts_anew() {
        let mut row = row(1);
        let mut lost = |progress: u64| {
            row.journal_len += progress;
            claim(&mut row);
            row.lost
        };
        assert_eq!([lost(0), lost(0), lost(0)], [1, 2, 3]);
        assert_eq!([lost(3), lost(0)], [1, 2]);
    }

    #[test]
    fn a_run_that_kills_is_set_back_ever_longer_and_parked_at_last() {
        let mut row = row(1);
        let mut pauses = Vec::new();
        let mut drives = 1; // its first driver, which is lost as well
        let note = loop {
            match claim(&mut row) {
                Verdict::Drive => drives += 1,
                Verdict::SetBack { pause } => {
                    pauses.push(pause);
                    row.status = Status::Waiting;
                }
                Verdict::Park { note } => break note,
            }
        };
        assert_eq!((drives, pauses.len()), (MOST, MOST as usize - 2));
        for (n, pause) in pauses.iter().enumerate() {
            let most = LEASE * (1 << n).min(8);
            assert!((0..most).contains(pause), "pause {n}: {pause}");
        }
        assert!(note.starts_with("8 drivers in a row"), "{note}");
        assert!(note.contains("past entry 6 of its journal"), "{note}");
    }

    #[test]
    fn a_run_that_gets_further_after_it_was_set_back_is_not_suspect_any_more() {
        let mut row = row(1);
        while !matches!(claim(&mut row), Verdict::SetBack { .. }) {}
        row.status = Status::Waiting;
        assert_eq!(claim(&mut row), Verdict::Drive);
        assert_eq!(row.lost, 2);
        row.journal_len += 1;
        assert_eq!(claim(&mut row), Verdict::Drive);
        assert_eq!(row.lost, 1);
    }

    #[test]
    fn runs_that_were_lost_together_return_at_different_times() {
        let pauses: std::collections::BTreeSet<i64> = (0..100)
            .filter_map(|seed| {
                let mut row = row(seed);
                claim(&mut row);
                match claim(&mut row) {
                    Verdict::SetBack { pause } => Some(pause),
                    _ => None,
                }
            })
            .collect();
        assert!(pauses.len() > 95, "{pauses:?}");
    }

    #[test]
    fn what_was_not_lost_is_driven() {
        for was in [Status::Queued, Status::Waiting] {
            let mut row = row(1);
            (row.lost, row.lost_at) = (7, row.journal_len);
            assert_eq!(verdict(&row, was, LEASE), Verdict::Drive);
        }
    }

    #[test]
    fn odd_leases_and_counts_do_no_harm() {
        for lease in [i64::MIN, -1, 0, i64::MAX] {
            let mut row = row(1);
            row.lost = 5;
            let Verdict::SetBack { pause } = verdict(&row, Status::Running, lease) else {
                panic!("not set back");
            };
            assert!(pause >= 0);
        }
        let mut row = row(1);
        (row.lost, row.lost_at) = (u32::MAX, row.journal_len);
        row.lose_driver(row.journal_len);
        assert!(matches!(
            verdict(&row, Status::Running, LEASE),
            Verdict::Park { .. }
        ));
    }
}
