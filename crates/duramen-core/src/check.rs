//! What every store refuses before it touches anything.
//!
//! The layers above check ids first and say more about them; this is the last line, so that no
//! value is kept that could not be found again (a U+001F inside an item would split it in two), or that
//! another store could not keep.

use crate::ids::check_id;
use crate::journal::Kind;
use crate::lanes::LAST_PRIORITY;
use crate::store::{
    Intervention, NewMessage, NewRun, Next, RunCommit, ScheduleChange, StoreError, StreamAppend,
    StreamWrite,
};

/// Refuses a run whose ids no store could keep.
pub fn new_run(new: &NewRun) -> Result<(), StoreError> {
    if new.priority > LAST_PRIORITY {
        return Err(StoreError::Invalid {
            reason: format!(
                "the priority {} is too large; it goes from 0 to {LAST_PRIORITY}",
                new.priority
            ),
        });
    }
    let tags = new.tags.iter().map(|tag| ("tag", tag.as_str()));
    let family = [("parent's id", &new.parent), ("root's id", &new.root)];
    let family = family
        .into_iter()
        .filter_map(|(what, id)| Some((what, &**id.as_ref()?)));
    let origin = new.origin.iter().map(|text| ("origin", text.as_str()));
    [
        ("run id", &*new.run_id),
        ("workflow name", &new.workflow),
        ("workflow version", &new.version),
        ("queue's name", &new.queue),
    ]
    .into_iter()
    .chain(tags)
    .chain(family)
    .chain(origin)
    .try_for_each(|(what, value)| check_id(what, value))
    .map_err(|error| StoreError::Invalid {
        reason: error.to_string(),
    })
}

/// Refuses a message whose id or name no store could keep.
pub fn new_message(new: &NewMessage) -> Result<(), StoreError> {
    let bad = |what: &str| StoreError::Invalid {
        reason: format!("the {what} is empty or has a control character; choose another"),
    };
    if new.message_id.is_empty() || new.message_id.chars().any(char::is_control) {
        return Err(bad("message id"));
    }
    if new.name.chars().any(char::is_control) {
        return Err(bad("message's name"));
    }
    Ok(())
}

/// Refuses a change of a run to a version that no store could keep.
pub fn intervention(change: &Intervention) -> Result<(), StoreError> {
    let Intervention::Reopen {
        version: Some(version),
        ..
    } = change
    else {
        return Ok(());
    };
    check_id("workflow version", version).map_err(|error| StoreError::Invalid {
        reason: error.to_string(),
    })
}

/// Refuses an owner's name that no store could keep.
pub fn owner(name: &str) -> Result<(), StoreError> {
    check_id("owner's name", name).map_err(|error| StoreError::Invalid {
        reason: error.to_string(),
    })
}

/// Refuses a schedule whose id no store could keep.
pub fn schedule(change: &ScheduleChange) -> Result<(), StoreError> {
    let row = change.row.iter();
    let names = row.flat_map(|row| [("schedule's id", &row.id), ("workflow name", &row.workflow)]);
    [("schedule's id", &change.id)]
        .into_iter()
        .chain(names)
        .try_for_each(|(what, value)| check_id(what, value))
        .map_err(|error| StoreError::Invalid {
            reason: error.to_string(),
        })
}

/// The reason for which a commit can never be kept, if there is one.
pub fn commit(commit: &RunCommit) -> Option<String> {
    if commit.outgoing.len() > MOST_OUTGOING {
        return Some(format!(
            "{} items leave the run at once; at most {MOST_OUTGOING} can",
            commit.outgoing.len()
        ));
    }
    if !commit.outgoing.is_empty() && commit.entries.is_empty() {
        // Their place is told by the entry.
        return Some("items leave the run without an entry of its journal".to_owned());
    }
    if commit.written.len() > commit.entries.len() {
        return Some("items of streams come without entries of the journal".to_owned());
    }
    if let Some(reason) = streams(&commit.written) {
        return Some(reason);
    }
    match &commit.next {
        Next::Waiting { waits, .. } | Next::Paused { waits, .. } => waits
            .iter()
            .find(|wait| wait.is_empty() || wait.chars().any(char::is_control))
            .map(|wait| format!("the wait key {wait:?} is empty or has a control character")),
        Next::Finished { status } if !status.is_final() => Some(format!(
            "a run cannot finish as {:?}, which is not final",
            status.name()
        )),
        Next::Continued { .. }
            if commit.entries.last().map(|entry| entry.kind) != Some(Kind::RunCreated) =>
        {
            Some("a run that is continued as new must end with a new beginning".to_owned())
        }
        Next::Continued { version, .. } => check_id("workflow version", version)
            .err()
            .map(|error| error.to_string()),
        Next::Finished { .. } | Next::Running | Next::Stuck { .. } => None,
    }
}

/// The reason for which what a step has written can never be kept, if there is one.
pub fn append(append: &StreamAppend) -> Option<String> {
    if append.items.len() > MOST_APPENDED {
        return Some(format!(
            "{} items of streams come at once; at most {MOST_APPENDED} can",
            append.items.len()
        ));
    }
    streams(&append.items)
}

fn streams(items: &[StreamWrite]) -> Option<String> {
    let mut names = items
        .iter()
        .map(|item| check_id("stream's name", &item.stream));
    let error = names.find_map(Result::err)?;
    Some(error.to_string())
}

/// The most items of one commit.
const MOST_OUTGOING: usize = 10_000;

/// The most items of one append.
const MOST_APPENDED: usize = 10_000;
