//! The simulator's own tests: seeds, determinism, planted faults, and stories of faults that were found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod planted;
mod regressions;
mod seeds;
