//! Identifiers and the few scalar types that every layer shares.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

/// Milliseconds since the Unix epoch, UTC; also used for spans of time.
pub type Millis = i64;

/// Bytes of the user's own encoding. No layer below Python looks inside.
pub type Payload = Bytes;

/// A run's id, chosen by the user or generated.
pub type RunId = Arc<str>;

/// An operation's id inside its run: explicit, or `{kind}-{n}`, with `#2`, `#3` … for repeats.
pub type OpId = Arc<str>;

/// The longest identifier a store must accept, in characters.
pub const MAX_ID_CHARS: usize = 255;

/// Why an identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidId {
    #[error("the {what} is empty; give it at least one character")]
    Empty { what: &'static str },
    #[error("the {what} has {length} characters; at most {MAX_ID_CHARS} are allowed")]
    TooLong { what: &'static str, length: usize },
    #[error("the {what} {value:?} has a control character at position {position}; remove it")]
    Control {
        what: &'static str,
        value: String,
        position: usize,
    },
    #[error("the {what} {value:?} begins with \"__\", which is reserved; choose another name")]
    Reserved { what: &'static str, value: String },
    #[error("the {what} {value:?} contains '#', which marks repeated ids; choose another name")]
    Repeat { what: &'static str, value: String },
    #[error(
        "the operation id {value:?} is that of {by} in this run, so {wanted} cannot have it; give one of them another id"
    )]
    Taken {
        value: String,
        by: &'static str,
        wanted: &'static str,
    },
}

/// Checks an identifier that a store will keep: 1 to 255 characters, no control character.
///
/// Control characters are refused for two reasons: Postgres cannot keep NUL in text, and the
/// stores separate lists of tags and waits by U+001F.
pub fn check_id(what: &'static str, value: &str) -> Result<(), InvalidId> {
    if value.is_empty() {
        return Err(InvalidId::Empty { what });
    }
    let length = value.chars().count();
    if length > MAX_ID_CHARS {
        return Err(InvalidId::TooLong { what, length });
    }
    if let Some(position) = value.chars().position(char::is_control) {
        return Err(InvalidId::Control {
            what,
            value: value.to_owned(),
            position,
        });
    }
    Ok(())
}

/// Checks an event's name: an identifier that does not begin with `__`, which is kept for Duramen.
pub fn check_event_name(value: &str) -> Result<(), InvalidId> {
    check_id("event name", value)?;
    if value.starts_with("__") {
        return Err(InvalidId::Reserved {
            what: "event name",
            value: value.to_owned(),
        });
    }
    Ok(())
}

/// Checks an update's name: as an event's.
pub fn check_update_name(value: &str) -> Result<(), InvalidId> {
    check_id("update name", value)?;
    if value.starts_with("__") {
        return Err(InvalidId::Reserved {
            what: "update name",
            value: value.to_owned(),
        });
    }
    Ok(())
}

/// Checks an explicit operation id: an identifier without `#`, so that a repeat's `#2` is unambiguous.
pub fn check_op_id(value: &str) -> Result<(), InvalidId> {
    check_id("operation id", value)?;
    if value.contains('#') {
        return Err(InvalidId::Repeat {
            what: "operation id",
            value: value.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_to_255_characters_without_control_characters() {
        assert!(check_id("run id", "order:42 ü").is_ok());
        assert!(check_id("run id", &"ü".repeat(255)).is_ok());
        assert!(matches!(
            check_id("run id", ""),
            Err(InvalidId::Empty { .. })
        ));
        assert!(matches!(
            check_id("run id", &"a".repeat(256)),
            Err(InvalidId::TooLong { length: 256, .. })
        ));
        assert!(matches!(
            check_id("run id", "a\0b"),
            Err(InvalidId::Control { position: 1, .. })
        ));
    }

    #[test]
    fn event_names_and_operation_ids_keep_the_reserved_spellings_free() {
        assert!(matches!(
            check_event_name("__timer"),
            Err(InvalidId::Reserved { .. })
        ));
        assert!(matches!(check_op_id("a#2"), Err(InvalidId::Repeat { .. })));
        assert!(check_op_id("charge-card").is_ok());
    }
}
