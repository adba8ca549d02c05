//! What is said of a store that holds what no build wrote there.

use duramen_core::journal::Entry;
use duramen_core::run::RunRow;

/// A value that no build wrote where it was found, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged(pub String);

impl Damaged {
    /// A column with a value of another kind, or one that stands for nothing.
    pub fn column(name: &str) -> Self {
        Self(format!("the column {name} has an impossible value"))
    }
}

/// A journal shorter than its row says has been tampered with.
pub fn whole(row: &RunRow, journal: &[Entry]) -> Result<(), Damaged> {
    let (found, said) = (
        journal.len() as u64,
        row.journal_len.saturating_sub(row.journal_start),
    );
    if found == said {
        return Ok(());
    }
    Err(Damaged(format!(
        "the journal of {:?} has {found} entries where its row says {said}",
        row.run_id
    )))
}

/// The note of a run that was set aside because it cannot be read.
pub fn unreadable(what: &str) -> String {
    format!("this build cannot read the run: {what}. Upgrade duramen if a newer one wrote it")
}
