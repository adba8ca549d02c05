//! How much the handler has written to each stream.

use std::collections::BTreeMap;

/// Counts what this generation of the handler wrote, recorded or not.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    written: BTreeMap<String, u64>,
}

impl Streams {
    /// The place of the next item among all that the handler writes to the stream.
    pub(crate) fn next(&mut self, stream: &str) -> u64 {
        if let Some(count) = self.written.get_mut(stream) {
            *count += 1;
            return *count - 1;
        }
        self.written.insert(stream.to_owned(), 1);
        0
    }
}
