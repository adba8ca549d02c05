//! What time it is for the store, as far as this process knows, and until when something lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use duramen_core::ids::Millis;

use crate::env::{Env, Moment};

/// Clocks of one machine may differ by rounding; beyond this the store's clock is followed.
const TOLERANCE: Millis = 20;
/// The two clocks of a machine drift apart by half a millisecond a second at the most while the time of
/// day is corrected; beyond this it was set, or the machine slept.
const SET: Millis = 1_000;

/// When a request was sent to the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    wall: Millis,
    moment: Moment,
}

impl Asked {
    /// Until when that span lasts for certain if the store granted it after it was asked, however long
    /// its answer took and whatever time it has there.
    pub(crate) fn until(self, span: Millis) -> Until {
        Until {
            wall: self.wall.saturating_add(span),
            moment: self.moment.after(span),
        }
    }
}

/// Until when something lasts for certain: as long as neither clock has passed its mark. The time of day
/// may be set back, and the other clock may stand still while the machine sleeps; not both at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    wall: Millis,
    moment: Moment,
}

/// The clocks of one engine.
pub(crate) struct Clock {
    env: Arc<dyn Env>,
    /// By how much the store is ahead of this machine's time of day.
    offset: AtomicI64,
    /// How far apart the two clocks of this machine were when that was learned.
    apart: AtomicI64,
}

impl Clock {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        let apart = AtomicI64::new(apart(&*env));
        Self {
            env,
            offset: AtomicI64::new(0),
            apart,
        }
    }

    /// The store's time, as far as this process knows it.
    pub(crate) fn now(&self) -> Millis {
        self.env.now() + self.offset.load(Ordering::Relaxed)
    }

    pub(crate) fn moment(&self) -> Moment {
        self.env.moment()
    }

    /// The instant that requests must name, when it is not the store's own.
    pub(crate) fn explicit_now(&self) -> Option<Millis> {
        self.env.explicit_now()
    }

    /// The moment at which the store will have that time, unless a clock is set until then.
    pub(crate) fn moment_of(&self, at: Millis) -> Moment {
        match at {
            Millis::MAX => Moment::NEVER,
            at => self.moment().after(at.saturating_sub(self.now())),
        }
    }

    /// To be noted before a request is sent.
    pub(crate) fn asking(&self) -> Asked {
        Asked {
            wall: self.env.now(),
            moment: self.env.moment(),
        }
    }

    /// Learns from an answer of the store what time it has there. The store looked at its clock at
    /// some moment between question and answer: only what no such moment explains is an offset,
    /// or every slow answer would set this clock back, and forget what a quicker one has shown.
    pub(crate) fn learn(&self, asked: Asked, store_now: Millis) {
        if self.env.explicit_now().is_some() {
            return;
        }
        let now = self.env.now();
        let passed = self.env.moment().since(asked.moment);
        if (now - asked.wall - passed).abs() > TOLERANCE {
            return; // this machine's time of day was set meanwhile: the next answer tells more
        }
        let (least, most) = (store_now - now, store_now - asked.wall);
        if least > most {
            return; // it was corrected by a little
        }
        let known = self.offset.load(Ordering::Relaxed);
        let offset = if (least..=most).contains(&known) {
            known
        } else if least - TOLERANCE <= 0 && most + TOLERANCE >= 0 {
            0
        } else {
            known.clamp(least, most)
        };
        self.offset.store(offset, Ordering::Relaxed);
        self.apart.store(apart(&*self.env), Ordering::Relaxed);
    }

    /// Whether the time of day was set since the store last said what it has there: what is believed
    /// of its time may be wrong by as much.
    pub(crate) fn was_set(&self) -> bool {
        let moved = apart(&*self.env).saturating_sub(self.apart.load(Ordering::Relaxed));
        self.env.explicit_now().is_none() && moved.abs() > SET
    }

    pub(crate) fn lasts(&self, until: Until) -> bool {
        self.env.now() < until.wall && self.env.moment() < until.moment
    }
}

fn apart(env: &dyn Env) -> Millis {
    env.now().saturating_sub(env.moment().since(Moment::at(0)))
}
