//! Processes of a newer build: the same one behind a screen, which serves lanes of a further format and
//! writes entries that only such a build can read.

use duramen_core::journal::{ENCODING, Entry};
use duramen_core::lanes::Lane;
use duramen_core::run::RunRow;
use duramen_core::store::{Claimed, Created, Message, RunCommit, RunDetail};

/// The encoding that this build does not read.
pub const NEWER: u8 = ENCODING + 1;

pub(crate) const WORKFLOW: &str = "w";
pub(crate) const VERSION: &str = "1";

/// The lane of runs that only newer builds can read.
pub(crate) fn newer_lane() -> String {
    let lane = Lane {
        queue: duramen_core::lanes::DEFAULT_QUEUE,
        workflow: WORKFLOW,
        version: VERSION,
        format: NEWER,
    };
    lane.key()
}

/// An entry as the build behind the screen knows it.
pub(crate) fn known(entry: &mut Entry) {
    entry.encoding = entry.encoding.min(ENCODING);
}

pub(crate) fn row(row: &mut RunRow) {
    row.format = row.format.min(ENCODING);
}

pub(crate) fn messages(messages: &mut [Message]) {
    for message in messages {
        message.encoding = message.encoding.min(ENCODING);
    }
}

pub(crate) fn claimed(claimed: &mut Claimed) {
    for run in &mut claimed.runs {
        row(&mut run.row);
        run.journal.iter_mut().flatten().for_each(known);
        messages(&mut run.inbox);
    }
}

pub(crate) fn created(created: &mut [Created]) {
    for created in created {
        if let Created::Created { row: new } | Created::Exists { row: new } = created {
            row(new);
        }
    }
}

pub(crate) fn details(details: &mut [Option<RunDetail>]) {
    for detail in details.iter_mut().flatten() {
        row(&mut detail.row);
        detail.end.iter_mut().for_each(known);
    }
}

/// The commit with a last entry that only newer builds can read.
pub(crate) fn raise(commit: &mut RunCommit) {
    if let Some(last) = commit.entries.last_mut() {
        last.encoding = NEWER;
        commit.format = Some(NEWER);
    }
}
