//! What a store says of its schema, and how workflows are named.

use serde::{Deserialize, Serialize};

/// What a store knows of its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Number of the newest migration applied; 0 before the first.
    pub found: u32,
    /// Number of the newest migration this build ships.
    pub needed: u32,
    /// Names of the migrations this call applied.
    pub applied: Vec<String>,
}

/// A workflow by name and version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkflowKey {
    pub name: String,
    pub version: String,
}
