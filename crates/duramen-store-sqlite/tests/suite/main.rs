//! The tests of the SQLite store, in one binary so that it is linked once.

#![allow(clippy::doc_markdown)]

mod differential;
mod differential_ops;
mod support;
