//! What this process writes to runs: the commits of those that are driven, through one pipeline, and
//! the releases of those that are not.

mod doubt;
mod lost;
mod pipeline;
mod releases;

use std::sync::Arc;

pub(crate) use doubt::settle_doubt;
pub use pipeline::Pipeline;
pub(crate) use releases::{Releases, rows_as_they_stand};

use crate::common::Common;

/// See the module's head.
pub(crate) struct Commits {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) releases: Arc<Releases>,
}

impl Commits {
    pub(crate) fn new(common: &Arc<Common>) -> Self {
        Self {
            pipeline: Arc::new(Pipeline::new(Arc::clone(common))),
            releases: Arc::new(Releases::new(Arc::clone(common))),
        }
    }
}
