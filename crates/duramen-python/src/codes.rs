//! The codes of the tuples that cross into Python.

pub(crate) const EV_DRIVE: u8 = 0;
pub(crate) const EV_RESUME: u8 = 1;
pub(crate) const EV_EVICT: u8 = 2;
pub(crate) const EV_ADVANCE: u8 = 3;
pub(crate) const EV_LOST: u8 = 4;
pub(crate) const EV_REPLY: u8 = 5;
/// A request to a store written in Python.
pub(crate) const EV_STORE: u8 = 6;

pub(crate) const T_DELIVER: u8 = 0;
pub(crate) const T_OFFER: u8 = 1;
pub(crate) const T_START: u8 = 2;
pub(crate) const T_CANCEL: u8 = 3;
pub(crate) const T_TIMEOUT: u8 = 4;
pub(crate) const T_SEAL: u8 = 5;

pub(crate) const O_COMPLETED: u8 = 0;
pub(crate) const O_FAILED: u8 = 1;
pub(crate) const O_FIRED: u8 = 2;
pub(crate) const O_RECEIVED: u8 = 3;
pub(crate) const O_TIMED_OUT: u8 = 4;

pub(crate) const ALL: &[(&str, u8)] = &[
    ("EV_DRIVE", EV_DRIVE),
    ("EV_RESUME", EV_RESUME),
    ("EV_EVICT", EV_EVICT),
    ("EV_ADVANCE", EV_ADVANCE),
    ("EV_LOST", EV_LOST),
    ("EV_REPLY", EV_REPLY),
    ("EV_STORE", EV_STORE),
    ("T_DELIVER", T_DELIVER),
    ("T_OFFER", T_OFFER),
    ("T_START", T_START),
    ("T_CANCEL", T_CANCEL),
    ("T_TIMEOUT", T_TIMEOUT),
    ("T_SEAL", T_SEAL),
    ("O_COMPLETED", O_COMPLETED),
    ("O_FAILED", O_FAILED),
    ("O_FIRED", O_FIRED),
    ("O_RECEIVED", O_RECEIVED),
    ("O_TIMED_OUT", O_TIMED_OUT),
];
