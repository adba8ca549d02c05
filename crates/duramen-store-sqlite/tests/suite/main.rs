//! The tests of the SQLite store, in one binary so that it is linked once.

#![allow(clippy::doc_markdown)]

mod concurrency;
mod crash;
mod differential;
mod differential_ops;
mod files;
mod grouping;
mod migrations;
mod rules;
mod support;
