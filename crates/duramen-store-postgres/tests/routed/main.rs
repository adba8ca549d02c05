//! The same over tables in parts, in the routed flavour: partitioned by hash or, where the server has Citus, distributed.

// In a test a panic is the report; "PostgreSQL" is a name, not a piece of code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::doc_markdown
)]

/// The tables of runs are in parts.
const IN_PARTS: bool = true;

#[path = "../suite/differential.rs"]
mod differential;
#[path = "../suite/floors.rs"]
mod floors;
#[path = "../suite/grouping.rs"]
mod grouping;
#[path = "../suite/locks.rs"]
mod locks;
#[path = "../suite/lost.rs"]
mod lost;
mod outside;
#[path = "../suite/races.rs"]
mod races;
#[path = "../suite/support.rs"]
mod support;
mod together;
