//! Whether the run is still driven here, and what is to be written if it is not.

use crate::progress::divergence::Divergence;
use crate::progress::turn::Halt;
use crate::store::Next;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Driving,
    /// The handler has ended; the last commit, which makes that of the run, is due or under way.
    Ended(Next),
    /// Its journal has what only a newer build reads: to be left to those who can.
    Leaving {
        format: u8,
        waits: Vec<String>,
    },
    /// To be parked with this note.
    Parking {
        note: String,
        /// Nothing but the note is left to be written: what came before it was refused.
        bare: bool,
    },
    /// A commit that releases the lease is under way.
    Releasing,
    /// Released by a pause; can be resumed by a new claim.
    Paused,
    /// Final, parked, or lost to another owner.
    Gone,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) phase: Phase,
    divergence: Option<Divergence>,
}

impl Standing {
    pub(super) const fn driving() -> Self {
        Self {
            phase: Phase::Driving,
            divergence: None,
        }
    }

    pub(super) const fn is_driving(&self) -> bool {
        matches!(self.phase, Phase::Driving)
    }

    /// Why the run is being parked, if it is because of a divergence.
    pub(super) const fn divergence(&self) -> Option<&Divergence> {
        self.divergence.as_ref()
    }

    /// Refuses what the handler may not ask any more.
    pub(super) fn check(&self) -> Result<(), Halt> {
        match (&self.phase, &self.divergence) {
            (Phase::Driving, _) => Ok(()),
            (_, Some(divergence)) => Err(Halt::Diverged(divergence.clone())),
            _ => Err(Halt::Gone),
        }
    }

    /// The code and the journal do not fit together: the run is to be parked.
    pub(super) fn park(&mut self, divergence: Divergence, version: &str) {
        self.phase = Phase::Parking {
            note: format!("{divergence} (run of version {version:?})"),
            bare: false,
        };
        self.divergence = Some(divergence);
    }
}
