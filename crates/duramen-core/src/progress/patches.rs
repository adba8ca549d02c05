//! Which patches of the code are in force for a run.

use std::collections::BTreeMap;

use crate::ids::OpId;

/// What the handler was told of each patch, or what the journal says that it was.
#[derive(Debug, Default)]
pub(crate) struct Patches {
    known: BTreeMap<OpId, bool>,
}

impl Patches {
    pub(crate) fn get(&self, patch: &str) -> Option<bool> {
        self.known.get(patch).copied()
    }

    /// The journal has its mark: the run came first to it with the patched code.
    pub(crate) fn marked(&mut self, patch: OpId) {
        self.known.insert(patch, true);
    }

    /// The run went on behind this place with code that did not have the patch yet.
    pub(crate) fn passed_without(&mut self, patch: OpId) {
        self.known.insert(patch, false);
    }
}
