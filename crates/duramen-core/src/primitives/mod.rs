//! One file per primitive: how it is requested, what it records, how it is completed.

pub mod approval;
pub mod cancel;
pub mod event;
pub mod patch;
pub mod poll;
pub mod step;
pub mod timer;
pub mod value;
