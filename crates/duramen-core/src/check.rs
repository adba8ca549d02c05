//! What every store refuses before it touches anything.
//!
//! The layers above check ids first and say more about them; this is the last line, so that no
//! value is kept that could not be found again (a U+001F inside an item would split it in two), or that
//! another store could not keep.

use crate::ids::check_id;
use crate::store::{NewMessage, NewRun, Next, RunCommit, StoreError};

/// Refuses a run whose ids no store could keep.
pub fn new_run(new: &NewRun) -> Result<(), StoreError> {
    let tags = new.tags.iter().map(|tag| ("tag", tag.as_str()));
    [
        ("run id", &*new.run_id),
        ("workflow name", &new.workflow),
        ("workflow version", &new.version),
    ]
    .into_iter()
    .chain(tags)
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

/// The reason for which a commit can never be kept, if there is one.
pub fn commit(commit: &RunCommit) -> Option<String> {
    match &commit.next {
        Next::Waiting { waits, .. } => waits
            .iter()
            .find(|wait| wait.is_empty() || wait.chars().any(char::is_control))
            .map(|wait| format!("the wait key {wait:?} is empty or has a control character")),
        Next::Finished { status } if !status.is_final() => Some(format!(
            "a run cannot finish as {:?}, which is not final",
            status.name()
        )),
        Next::Finished { .. } | Next::Running | Next::Stuck { .. } => None,
    }
}
