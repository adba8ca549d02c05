//! Why a store could not do what it was asked.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a store could not do what it was asked. Each message says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StoreError {
    #[error("the store cannot be reached: {reason}")]
    Unavailable { reason: String },
    #[error("the store is locked by another process: {reason}")]
    Locked { reason: String },
    #[error("the store is read-only: {reason}")]
    ReadOnly { reason: String },
    #[error("the store is full: {reason}")]
    Full { reason: String },
    #[error("the store is damaged: {reason}")]
    Corrupt { reason: String },
    #[error(
        "the store's schema is at version {found}, this build needs {needed}; run `duramen migrate` first"
    )]
    Unmigrated { found: u32, needed: u32 },
    #[error(
        "the store's schema is at version {found}, newer than this build's {needed}; upgrade duramen"
    )]
    Newer { found: u32, needed: u32 },
    #[error("the store refused the request: {reason}")]
    Invalid { reason: String },
    #[error("the store is closed")]
    Closed,
    #[error("the store failed: {reason}")]
    Other { reason: String },
}

impl StoreError {
    /// Whether the place is in trouble (disk, server, network, lock), not the request: the same call may
    /// succeed later, and nothing may be concluded about the runs it was for. A file that is read-only for a
    /// moment (a remount, a failover) is such trouble too.
    pub const fn is_of_the_place(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Locked { .. }
            | Self::ReadOnly { .. }
            | Self::Full { .. }
            | Self::Other { .. } => true,
            Self::Corrupt { .. }
            | Self::Unmigrated { .. }
            | Self::Newer { .. }
            | Self::Invalid { .. }
            | Self::Closed => false,
        }
    }
}

/// What store methods return: owned, sendable, already under way.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'static>>;
