//! The tests of the Postgres store, in one binary so that it is linked once.
//!
//! They need a server (CONTRIBUTING.md says how to get one); each makes a schema of its own in it.

// In a test a panic is the report; "PostgreSQL" is a name, not a piece of code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::doc_markdown
)]

/// Each table is whole.
const IN_PARTS: bool = false;

mod counts;
mod differential;
mod floors;
mod grouping;
mod locks;
mod lost;
mod migrations;
mod races;
mod support;
mod vacuum;
