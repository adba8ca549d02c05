//! Runs over which driver after driver is lost: what kills a process, or holds it up for longer than
//! a lease, must not go round the fleet for ever, and must not take its neighbours with it.
//!
//! The facts are in the row. A claim of a run whose driver's lease has ended notes the journal's
//! length and that driver's epoch ([`RunRow::standing`]); at the next such claim the epoch says how many
//! drivers were lost since, and the length whether the run has got any further. No commit is made for
//! it, and none has to be made before the next attempt, which may be the one that kills.
//!
//! The first loss is an accident: the run goes on at once. After the second it is set back for a
//! random while, which doubles with each further loss: whoever was lost with it by chance returns at
//! another time, gets further and is not suspect any more. After [`MOST`] it is parked with the reason.

use crate::derive::below;
use crate::ids::Millis;
use crate::run::{RunRow, Status};

/// A run that has cost so many drivers in a row without getting any further is parked.
pub const MOST: u64 = 8;

/// It is set back for no more than so many leases.
const LONGEST: i64 = 8;

/// What is to become of a run that was just claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Drive,
    /// To be released with this wait key, and due again after that pause.
    SetBack {
        pause: Millis,
        wait: String,
    },
    /// To be parked with this note.
    Park {
        note: String,
    },
}

impl RunRow {
    /// The note that a claim leaves in this row, given the row as it was before: `LENGTH@EPOCH`, the
    /// journal's length and the epoch of the first driver whose lease ended at that length.
    pub fn standing(&self) -> Option<String> {
        if self.status != Status::Running {
            return None;
        }
        let here = format!("{}@", self.journal_len);
        match &self.note {
            Some(note) if note.starts_with(&here) => Some(note.clone()),
            _ => Some(format!("{here}{}", self.epoch)),
        }
    }

    /// After a claim: how many drivers in a row were lost over this run at its present length.
    pub fn lost_drivers(&self) -> u64 {
        let lost = self
            .note
            .as_deref()
            .and_then(|note| self.at_this_length(note))
            .and_then(|epoch| epoch.parse::<i64>().ok())
            .and_then(|epoch| u64::try_from(self.epoch.checked_sub(epoch)?).ok());
        let before = self
            .waits
            .iter()
            .find_map(|wait| self.at_this_length(wait.strip_prefix(SET_BACK)?))
            .and_then(|count| count.parse::<u64>().ok());
        lost.unwrap_or(0).saturating_add(before.unwrap_or(0))
    }

    /// What stands behind the journal's length, if that is still the same.
    fn at_this_length<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (length, rest) = text.split_once('@')?;
        (length.parse() == Ok(self.journal_len)).then_some(rest)
    }
}

/// The key under which a run that was set back waits: the release of a lease clears the note.
const SET_BACK: &str = "set-back:";

/// Decides about a run from its row after the claim.
pub fn verdict(row: &RunRow, was: Status, lease: Millis) -> Verdict {
    if was != Status::Running {
        return Verdict::Drive;
    }
    let lost = row.lost_drivers();
    if lost < 2 {
        return Verdict::Drive;
    }
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
    let doublings = u32::try_from(lost - 2).unwrap_or(0);
    let leases = 1_i64.checked_shl(doublings).unwrap_or(LONGEST).min(LONGEST);
    let most = lease.max(1).saturating_mul(leases);
    let salt = u32::try_from(lost).unwrap_or(u32::MAX);
    Verdict::SetBack {
        pause: below(&row.seed, SET_BACK, salt, most),
        wait: format!("{SET_BACK}{}@{lost}", row.journal_len),
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Verdict, verdict};
    use crate::run::{RunRow, Status};

    const LEASE: i64 = 30_000;

    fn row(seed: u8) -> RunRow {
        RunRow {
            run_id: "r".into(),
            workflow: "w".into(),
            version: "1".into(),
            status: Status::Running,
            created_at: 0,
            started_at: None,
            updated_at: 0,
            finished_at: None,
            ready_at: Some(0),
            owner: Some("a".into()),
            epoch: 1,
            journal_len: 7,
            inbox_len: 0,
            inbox_seen: 0,
            deadline: None,
            waits: Vec::new(),
            tags: Vec::new(),
            seed: [seed; 16],
            note: None,
        }
    }

    /// A claim as every store makes it.
    fn claim(row: &mut RunRow) -> Verdict {
        let was = row.status;
        row.note = row.standing();
        row.epoch += 1;
        row.status = Status::Running;
        verdict(row, was, LEASE)
    }

    fn release(row: &mut RunRow, wait: String) {
        row.status = Status::Waiting;
        row.waits = vec![wait];
        row.note = None;
    }

    #[test]
    fn drivers_that_are_lost_at_one_length_are_counted_and_progress_starts_anew() {
        let mut row = row(1);
        let mut lost = |progress: u64| {
            row.journal_len += progress;
            claim(&mut row);
            row.lost_drivers()
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
                Verdict::SetBack { pause, wait } => {
                    pauses.push(pause);
                    release(&mut row, wait);
                }
                Verdict::Park { note } => break note,
            }
        };
        assert_eq!((drives, pauses.len() as u64), (MOST, MOST - 2));
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
        let wait = loop {
            if let Verdict::SetBack { wait, .. } = claim(&mut row) {
                break wait;
            }
        };
        release(&mut row, wait);
        assert_eq!(claim(&mut row), Verdict::Drive);
        assert_eq!(row.lost_drivers(), 2);
        row.journal_len += 1;
        assert_eq!(claim(&mut row), Verdict::Drive);
        assert_eq!(row.lost_drivers(), 1);
    }

    #[test]
    fn runs_that_were_lost_together_return_at_different_times() {
        let pauses: std::collections::BTreeSet<i64> = (0..100)
            .filter_map(|seed| {
                let mut row = row(seed);
                claim(&mut row);
                match claim(&mut row) {
                    Verdict::SetBack { pause, .. } => Some(pause),
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
            row.note = Some("7@-90".into());
            assert_eq!(verdict(&row, was, LEASE), Verdict::Drive);
        }
    }

    #[test]
    fn texts_of_another_kind_count_nothing() {
        let mut row = row(1);
        for text in ["", "@", "7", "7@", "7@x", "70@1", "write to a@b", "7@9"] {
            row.note = Some(text.into());
            row.waits = vec![format!("event:{text}"), format!("set-back:x{text}")];
            assert_eq!(row.lost_drivers(), 0, "{text}");
        }
        row.note = Some(format!("7@{}", i64::MIN));
        assert_eq!(row.lost_drivers(), 0);
    }

    #[test]
    fn odd_leases_do_no_harm() {
        for lease in [i64::MIN, -1, 0, i64::MAX] {
            let mut row = row(1);
            row.note = Some("7@-4".into());
            let Verdict::SetBack { pause, .. } = verdict(&row, Status::Running, lease) else {
                panic!("not set back");
            };
            assert!(pause >= 0);
        }
    }
}
