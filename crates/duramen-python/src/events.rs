//! What `Engine.drain` gives: one object for each thing that the host has to do.

use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};

use crate::record::record;
use crate::run::Run;

/// `(kind, message)` of a store's error.
pub(crate) type ErrorPair = (&'static str, String);

record! { ordered
    /// A claimed run, to be driven from its journal.
    Drive { ticket: Py<PyInt>, run: Py<Run> }
}

record! { ordered
    /// A paused run that was kept warm was claimed again.
    Resume { ticket: Py<PyInt> }
}

record! { ordered
    /// Drop a paused run that was kept warm.
    Evict { ticket: Py<PyInt> }
}

record! { ordered
    /// Something came in for a run.
    Advance {
        ticket: Py<PyInt>,
        /// How it left these hands, if it did: a name of [`duramen_engine::Driven`].
        driven: Py<PyAny>,
    }
}

record! { ordered
    /// A run is another's: stop at once, write nothing.
    Lost { ticket: Py<PyInt>, error: Option<ErrorPair> }
}

record! { ordered
    /// Runs of the workflows served here need a build that reads a higher encoding than `reads`.
    Newer { reads: u8 }
}

record! { ordered
    /// The outcome of a call.
    Reply {
        token: Py<PyInt>,
        value: Py<PyAny>,
        /// An [`ErrorPair`], or None.
        error: Py<PyAny>,
    }
}

record! { ordered
    /// A request to a store written in Python.
    StoreRequest { request: Py<PyInt>, method: &'static str, arguments: Py<PyTuple> }
}
