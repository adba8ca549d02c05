//! One file per primitive: how it is requested, what it records, how it is completed.

pub mod approval;
pub mod cancel;
pub mod child;
pub mod event;
pub mod message;
pub mod patch;
pub mod poll;
pub mod step;
pub mod stream;
pub mod timer;
pub mod update;
pub mod value;
