//! Operation ids: explicit, or `{kind}-{n}` by order of request; a repeat gets `#2`, `#3` …
//!
//! A repeat is another request of the *same* kind. What a step is called is the key that others know its
//! effect by, and an approval's id is what people decide about: so an id that another kind of operation has
//! is refused, rather than changed in silence.

use std::collections::BTreeMap;

use crate::ids::{InvalidId, OpId};
use crate::journal::Kind;

/// What an id is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A step, also one in a transaction of the user's own: both are known to others by a key.
    Step,
    Event,
    Approval,
    Child,
    /// Timers, values and messages to others, which users cannot name.
    Unnamed,
}

impl Holder {
    /// The word for messages.
    const fn name(self) -> &'static str {
        match self {
            Self::Step => "a step",
            Self::Event => "a wait for an event",
            Self::Approval => "an approval",
            Self::Child => "a child",
            Self::Unnamed => "a timer, a recorded value or a message",
        }
    }

    /// Whether this kind of operation has made an entry whose id is a repeat of one that `first` has.
    const fn has_recorded(self, entry: Kind, first: Self) -> bool {
        match self {
            Self::Step => matches!(
                entry,
                Kind::StepCompleted | Kind::StepFailed | Kind::StepAttemptFailed
            ),
            Self::Event => {
                matches!(entry, Kind::EventReceived | Kind::WaitOpened)
                    || Self::is_time_out(entry, first)
            }
            Self::Approval => {
                matches!(entry, Kind::ApprovalResolved | Kind::ApprovalRequested)
                    || Self::is_time_out(entry, first)
            }
            Self::Child => matches!(entry, Kind::ChildStarted | Kind::ChildFinished),
            Self::Unnamed => false,
        }
    }

    /// A time-out does not say whose it is: it is ours if it cannot be that of the first one's own repeat.
    const fn is_time_out(entry: Kind, first: Self) -> bool {
        matches!(entry, Kind::TimerFired) && matches!(first, Self::Step | Self::Unnamed)
    }
}

/// Gives out operation ids; the same requests in the same order get the same ids.
#[derive(Debug, Default)]
pub struct Naming {
    automatic: BTreeMap<&'static str, u32>,
    seen: BTreeMap<OpId, Seen>,
    /// The journal has an id that two kinds share, from a build that allowed it: so does this run.
    shared: bool,
}

#[derive(Debug)]
struct Seen {
    first: Holder,
    times: u32,
}

impl Naming {
    /// The id of an operation with an explicit id.
    ///
    /// `recorded` says whether the journal has an entry of an operation that satisfies a condition.
    pub fn explicit(
        &mut self,
        id: &str,
        holder: Holder,
        recorded: impl FnOnce(&str, &dyn Fn(Kind) -> bool) -> bool,
    ) -> Result<OpId, InvalidId> {
        if let Some(seen) = self.seen.get(id)
            && seen.first != holder
            && !self.shared
        {
            let first = seen.first;
            let repeat = format!("{id}#{}", seen.times + 1);
            if !recorded(&repeat, &|entry| holder.has_recorded(entry, first)) {
                return Err(InvalidId::Taken {
                    value: id.to_owned(),
                    by: first.name(),
                    wanted: holder.name(),
                });
            }
            self.shared = true;
        }
        Ok(self.give(id, holder))
    }

    /// The id of an operation without one. It goes through the same table, because a user may
    /// have called a step `sleep-1`.
    pub fn automatic(&mut self, stem: &'static str, holder: Holder) -> OpId {
        let n = self.automatic.entry(stem).or_insert(0);
        *n += 1;
        let id = format!("{stem}-{n}");
        self.give(&id, holder)
    }

    fn give(&mut self, id: &str, holder: Holder) -> OpId {
        if let Some(seen) = self.seen.get_mut(id) {
            seen.times += 1;
            return format!("{id}#{}", seen.times).into();
        }
        let id: OpId = id.into();
        let seen = Seen {
            first: holder,
            times: 1,
        };
        self.seen.insert(id.clone(), seen);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDERS: [Holder; 3] = [Holder::Step, Holder::Event, Holder::Approval];

    /// As in a run whose journal has nothing more to say.
    fn fresh(naming: &mut Naming, id: &str, holder: Holder) -> Result<OpId, InvalidId> {
        naming.explicit(id, holder, |_, _| false)
    }

    #[test]
    fn repeats_and_automatic_ids_count_by_order_of_request() {
        let mut naming = Naming::default();
        for expected in ["charge", "charge#2", "charge#3"] {
            let id = fresh(&mut naming, "charge", Holder::Step).unwrap();
            assert_eq!(&*id, expected);
        }
        assert_eq!(&*naming.automatic("sleep", Holder::Unnamed), "sleep-1");
        assert_eq!(&*naming.automatic("event", Holder::Event), "event-1");
        assert_eq!(&*naming.automatic("sleep", Holder::Unnamed), "sleep-2");
    }

    #[test]
    fn an_automatic_id_gives_way_to_an_explicit_one() {
        let mut naming = Naming::default();
        assert_eq!(
            &*fresh(&mut naming, "sleep-1", Holder::Step).unwrap(),
            "sleep-1"
        );
        assert_eq!(&*naming.automatic("sleep", Holder::Unnamed), "sleep-1#2");
    }

    #[test]
    fn an_id_that_another_kind_of_operation_has_is_refused_and_counts_nothing() {
        for first in HOLDERS {
            for second in HOLDERS {
                let mut naming = Naming::default();
                fresh(&mut naming, "ship", first).unwrap();
                let refused = fresh(&mut naming, "ship", second);
                assert_eq!(
                    refused.is_err(),
                    first != second,
                    "{first:?}, then {second:?}"
                );
                let repeat = fresh(&mut naming, "ship", first).unwrap();
                assert_eq!(&*repeat, if first == second { "ship#3" } else { "ship#2" });
            }
        }
        let mut naming = Naming::default();
        naming.automatic("sleep", Holder::Unnamed);
        assert!(fresh(&mut naming, "sleep-1", Holder::Step).is_err());
    }

    #[test]
    fn a_journal_in_which_two_kinds_share_an_id_goes_on_as_it_began() {
        let recorded =
            |op: &str, fits: &dyn Fn(Kind) -> bool| op == "ship#2" && fits(Kind::StepCompleted);
        let mut naming = Naming::default();
        fresh(&mut naming, "ship", Holder::Approval).unwrap();
        let second = naming.explicit("ship", Holder::Step, recorded).unwrap();
        assert_eq!(&*second, "ship#2");
        // From there on nothing is known of what it did before its last entry.
        assert_eq!(
            &*fresh(&mut naming, "ship", Holder::Step).unwrap(),
            "ship#3"
        );
        // What another kind recorded says nothing.
        let mut naming = Naming::default();
        fresh(&mut naming, "ship", Holder::Approval).unwrap();
        let other = |_: &str, fits: &dyn Fn(Kind) -> bool| fits(Kind::ApprovalResolved);
        assert!(naming.explicit("ship", Holder::Step, other).is_err());
    }

    #[test]
    fn a_time_out_that_may_be_the_first_ones_own_proves_nothing() {
        let timed_out = |_: &str, fits: &dyn Fn(Kind) -> bool| fits(Kind::TimerFired);
        for (first, second, shared) in [
            (Holder::Step, Holder::Event, true),
            (Holder::Step, Holder::Approval, true),
            (Holder::Event, Holder::Approval, false),
            (Holder::Approval, Holder::Event, false),
            (Holder::Approval, Holder::Step, false),
        ] {
            let mut naming = Naming::default();
            fresh(&mut naming, "ship", first).unwrap();
            let second = naming.explicit("ship", second, timed_out);
            assert_eq!(second.is_ok(), shared, "{first:?}");
        }
    }
}
