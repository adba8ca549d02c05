//! The store's clock: the host's, since the file is on it.

use std::time::{SystemTime, UNIX_EPOCH};

use duramen_core::ids::Millis;

/// The explicit instant of a test, or the host's time.
pub(crate) fn instant(now: Option<Millis>) -> Millis {
    now.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| Millis::try_from(since.as_millis()).ok())
            .unwrap_or(0)
    })
}
