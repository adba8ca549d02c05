//! The tests of the SQLite store, in one binary so that it is linked once.

// In a test a panic is the report; "SQLite" is a name, not a piece of code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::doc_markdown)]

mod concurrency;
mod crash;
mod differential;
mod files;
mod grouping;
mod migrations;
mod rules;
mod support;
#[cfg(target_os = "linux")]
mod trouble;
