//! How a run comes into the host's hands and out of them again, and what is remembered of it.
//!
//! Nothing is pushed to the host and no store is called under the lock: both may run other people's
//! code, which may come back here. Whatever enters or leaves what is held does so under it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::ClaimedRun;

use super::alarm::Alarm;
use super::followed::Followed;
use super::group::Group;
use super::unread::{Given, Unread};
use super::warm::{Kept, Warm};
use crate::common::Common;
use crate::ends::Ends;
use crate::env::Moment;
use crate::host::{Driven, HostEvent, Ticket, Token};
use crate::leases::{Leases, Listener, Tenure};
use crate::ticks::Ticks;

/// What is noted of a run that is held.
#[derive(Debug, Default)]
struct Note {
    /// The sweep that took it up.
    group: Option<Arc<Group>>,
    /// A message came that the pause under way does not know of.
    woken: bool,
}

#[derive(Debug)]
struct Notes {
    held: BTreeMap<Ticket, Note>,
    followed: Followed,
    warm: Warm,
    /// The worker has no use for free places until no more than so many runs are held.
    room_at: Option<usize>,
}

/// A run that was taken up.
pub(super) struct Entered {
    pub(super) run: ClaimedRun,
    pub(super) ticket: Ticket,
    /// The handler is still here.
    pub(super) warm: bool,
    /// A handler that was kept and cannot be used.
    pub(super) stale: Option<Ticket>,
    /// It was held already under that ticket, and the host must be told that it is lost.
    pub(super) lost: Option<(Ticket, i64)>,
}

/// A run that has left.
struct Left {
    tenure: Tenure,
    note: Note,
    /// The worker waits for the room.
    room: bool,
}

/// See the module's head.
pub(crate) struct Hands {
    common: Arc<Common>,
    leases: Arc<Leases>,
    ticks: Arc<Ticks>,
    unread: Arc<Unread>,
    alarm: Arc<Alarm>,
    ends: Arc<Ends>,
    notes: Mutex<Notes>,
}

impl Hands {
    pub(super) fn new(
        common: Arc<Common>,
        leases: Arc<Leases>,
        ticks: Arc<Ticks>,
        unread: Arc<Unread>,
        alarm: Arc<Alarm>,
        ends: Arc<Ends>,
    ) -> Self {
        let notes = Mutex::new(Notes {
            held: BTreeMap::new(),
            followed: Followed::default(),
            warm: Warm::new(common.config.warm),
            room_at: None,
        });
        Self {
            common,
            leases,
            ticks,
            unread,
            alarm,
            ends,
            notes,
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up runs that were leased to this process, and are so still: each under the ticket of its kept
    /// handler if the store left the journal out and it stands where the handler does, else under a new one.
    pub(super) fn enter(&self, runs: Vec<ClaimedRun>, group: Option<&Arc<Group>>) -> Vec<Entered> {
        let held = self.leases.held();
        let mut formers = Vec::new();
        let mut notes = self.notes();
        let first = held.len() == 0;
        let runs: Vec<ClaimedRun> = runs
            .into_iter()
            .filter(|run| held.admits(&run.row))
            .collect();
        let mut unusable = Vec::new();
        let mut entered: Vec<Entered> = runs
            .into_iter()
            .filter_map(|run| {
                let kept = notes.warm.take(&run.row.run_id);
                let usable = kept.filter(|kept| run.journal.is_none() && kept.fits(&run.row));
                let stale = kept.filter(|_| usable.is_none()).map(|kept| kept.ticket);
                let usable = usable.map(|kept| kept.ticket);
                let Some((ticket, former)) = held.enter(&run.row, usable) else {
                    unusable.extend(kept.map(|kept| kept.ticket));
                    return None;
                };
                if let Some((former, tenure)) = former {
                    let note = notes.held.remove(&former).unwrap_or_default();
                    formers.push((ticket, former, tenure, note, run.was));
                }
                let note = Note {
                    group: group.cloned(),
                    woken: false,
                };
                notes.held.insert(ticket, note);
                notes.followed.wakes(&run.row.run_id);
                Some(Entered {
                    run,
                    ticket,
                    warm: usable.is_some(),
                    stale,
                    lost: None,
                })
            })
            .collect();
        drop(notes);
        let evicted = unusable.into_iter();
        self.common
            .host
            .push_all(evicted.map(|ticket| HostEvent::Evict { ticket }));
        for (ticket, former, tenure, note, was) in formers {
            if former != ticket {
                self.ticks.forget(former);
                self.unread.end(former);
            }
            let released = tenure.leaving.is_some() && was != Status::Running;
            if !released && let Some(by) = entered.iter_mut().find(|run| run.ticket == ticket) {
                by.lost = Some((former, tenure.epoch));
            }
            // If it was released properly, the host will be told so: see `paused`.
            let driven = if released {
                Driven::Paused
            } else {
                Driven::Lost
            };
            self.count(&note, former, driven, false);
        }
        if first && !entered.is_empty() {
            self.unread.ring();
        }
        entered
    }

    /// The host has been given these runs: from now on it may be told what concerns them.
    pub(super) fn given(&self, runs: impl IntoIterator<Item = Given>) {
        let _notes = self.notes(); // so that none leaves between
        for given in runs {
            if self.leases.held().has(given.ticket) {
                self.unread.begin(given);
            }
        }
    }

    /// The store knows that the run's messages up to that one were seen.
    pub(crate) fn store_knows(&self, ticket: Ticket, seen: u64) {
        self.unread.known(ticket, seen);
    }

    fn leave(&self, notes: &mut Notes, ticket: Ticket) -> Option<Left> {
        let tenure = self.leases.held().leave(ticket)?;
        self.ticks.forget(ticket);
        self.unread.end(ticket);
        let note = notes.held.remove(&ticket).unwrap_or_default();
        let held = self.leases.held().len();
        let room = notes.room_at.is_some_and(|most| held <= most);
        if room {
            notes.room_at = None;
        }
        Some(Left { tenure, note, room })
    }

    /// A run was released by a pause.
    pub(crate) fn paused(&self, ticket: Ticket, journal_len: u64, due: bool) {
        let now = self.common.clock.now();
        let mut notes = self.notes();
        let Some(left) = self.leave(&mut notes, ticket) else {
            drop(notes);
            // It was claimed anew before the host heard of its release: under another ticket, so
            // that this handler is of no use any more.
            self.common.host.push(HostEvent::Evict { ticket });
            return;
        };
        let tenure = left.tenure;
        let due = due || left.note.woken;
        let ready_at = if due {
            Some(now)
        } else {
            tenure.leaving.and_then(|leaving| leaving.ready_at)
        };
        let yielded = tenure.leaving.is_some_and(|leaving| leaving.yields);
        // If it was to be let go of: taken up again right here, it would never leave.
        let first = if tenure.leaving.is_some_and(|leaving| leaving.leaves) {
            notes.followed.forget(&tenure.run_id);
            false
        } else {
            notes.followed.pauses(&tenure.run_id, ready_at)
        };
        let kept = Kept {
            ticket,
            journal_len,
            seed: tenure.seed,
            epoch: tenure.epoch,
        };
        let evicted = notes.warm.keep(tenure.run_id, kept);
        drop(notes);
        if let Some(ticket) = evicted {
            self.common.host.push(HostEvent::Evict { ticket });
        }
        self.count(&left.note, ticket, Driven::Paused, due || yielded);
        if due || left.room {
            self.alarm.nudge();
        } else if first {
            self.alarm.ring();
        }
        if let Some(ready_at) = ready_at {
            self.alarm.due_at(ready_at);
        }
    }

    /// A run is out of the host's hands for good.
    pub(crate) fn ended(&self, ticket: Ticket, driven: Driven) {
        let follow = matches!(driven, Driven::Lost | Driven::Continued);
        self.out_of_hands(ticket, driven, follow);
    }

    /// A run cannot be driven here.
    pub(crate) fn given_up(&self, ticket: Ticket) {
        self.out_of_hands(ticket, Driven::Lost, false);
    }

    fn out_of_hands(&self, ticket: Ticket, driven: Driven, follow: bool) {
        let now = self.common.clock.now();
        let mut notes = self.notes();
        let Some(left) = self.leave(&mut notes, ticket) else {
            return;
        };
        let continued = driven == Driven::Continued;
        // Taken up again right here, what is to be let go of would never leave.
        let leaves = continued && left.tenure.leaving.is_some_and(|leaving| leaving.leaves);
        let first = if follow && !leaves {
            // Its next generation is due. Whoever started one that was lost still wants it to end: if no one
            // else drives it, this process does once the lease is over.
            notes
                .followed
                .pauses(&left.tenure.run_id, continued.then_some(now))
        } else {
            notes.followed.forget(&left.tenure.run_id);
            false
        };
        drop(notes);
        if let Some(status) = ended_as(driven) {
            self.ends.ended(&left.tenure.run_id, Some(status));
        }
        self.count(&left.note, ticket, driven, continued);
        if left.room || continued {
            self.alarm.nudge();
        } else if first {
            self.alarm.ring();
        }
    }

    fn count(&self, note: &Note, ticket: Ticket, driven: Driven, due: bool) {
        let counters = &self.common.counters;
        match driven {
            Driven::Lost => counters.lost.fetch_add(1, Ordering::Relaxed),
            Driven::Paused | Driven::Continued => 0,
            _ => counters.ended.fetch_add(1, Ordering::Relaxed),
        };
        if let Some(group) = &note.group {
            group.ended(ticket, driven, due);
        }
    }

    /// Wakes the run's driver when the store has that time, unless the run is out of its hands by then.
    pub(crate) fn call_at(&self, ticket: Ticket, instant: Millis) {
        let _notes = self.notes(); // so that it does not leave between
        if self.leases.held().has(ticket) {
            self.ticks.at(ticket, instant);
        }
    }

    /// Wakes the run's driver after a pause, unless the run is out of its hands by then.
    pub(crate) fn call_after(&self, ticket: Ticket, pause: Millis) {
        let _notes = self.notes();
        if self.leases.held().has(ticket) {
            self.ticks.after(ticket, pause);
        }
    }

    /// The sweep that took the run up.
    pub(crate) fn sweep_of(&self, ticket: Ticket) -> Option<Token> {
        let notes = self.notes();
        let group = notes.held.get(&ticket)?.group.as_ref();
        group.map(|group| group.token)
    }

    /// How many places are free. If there are fewer than `least`, whichever run makes them as many
    /// nudges the worker.
    pub(super) fn room(&self, places: usize, least: usize) -> usize {
        let mut notes = self.notes();
        let free = places.saturating_sub(self.leases.held().len());
        notes.room_at = (free < least).then(|| places.saturating_sub(least));
        free
    }

    /// What a claim says of kept handlers: of one run, or of all.
    pub(super) fn warm_runs(&self, only: Option<&RunId>) -> Vec<(RunId, u64)> {
        self.notes().warm.runs(only)
    }

    // The runs that were started here.

    /// A run is about to be taken up, and to be gone on with here until it ends.
    pub(super) fn own(&self, run_id: &RunId, at: Option<Millis>) {
        let mut notes = self.notes();
        if self.leases.held().ticket_of(run_id).is_some() {
            notes.followed.own(run_id);
        } else {
            notes.followed.adopt(run_id, at);
        }
    }

    /// The same with a run that exists and may be due.
    pub(super) fn adopt(&self, run_id: &RunId, at: Option<Millis>) {
        self.own(run_id, at);
        self.alarm.nudge();
    }

    /// A run that is driven here is about to have started these: who goes on with it here goes on with them,
    /// also when it has ended before they are there.
    pub(crate) fn starts(&self, parent: &RunId, run_ids: Vec<RunId>) {
        self.notes().followed.starts(parent, run_ids);
    }

    /// A run was started by another.
    pub(super) fn started(&self, by: &RunId, run_id: &RunId, at: Option<Millis>) {
        let is_ours = self.notes().followed.started(by, run_id);
        if is_ours {
            self.own(run_id, at);
        }
    }

    /// Messages have made runs due that were waiting.
    pub(super) fn woken<'a>(&self, run_ids: impl IntoIterator<Item = &'a RunId>) {
        let now = self.common.clock.now();
        let mut notes = self.notes();
        for run_id in run_ids {
            notes.followed.due_at(run_id, Some(now));
            if let Some(ticket) = self.leases.held().ticket_of(run_id)
                && let Some(note) = notes.held.get_mut(&ticket)
            {
                // Its pause has taken place in the store and the host does not know it yet.
                note.woken = true;
            }
        }
    }

    /// A run whose commit was in doubt is released, due at that instant.
    pub(crate) fn released(&self, run_id: &RunId, at: Millis) {
        self.notes().followed.due_at(run_id, Some(at));
        self.alarm.nudge();
    }

    /// Something else was decided than to drive a claimed run: whoever started it here goes on
    /// following it, unless it is parked.
    pub(super) fn stands_aside(&self, run_id: &RunId, ready_at: Option<Millis>) {
        let mut notes = self.notes();
        match ready_at {
            None => notes.followed.forget(run_id),
            Some(at) => {
                if !notes.followed.due_at(run_id, Some(at)) {
                    notes.followed.pauses(run_id, Some(at));
                }
            }
        }
        drop(notes);
        if let Some(at) = ready_at {
            self.alarm.due_at(at);
        }
    }

    /// Paused runs that were started here.
    pub(super) fn followed(&self) -> usize {
        self.notes().followed.len()
    }

    /// Runs that were started here and are remembered for it.
    pub(super) fn remembered(&self) -> usize {
        self.notes().followed.remembered()
    }

    pub(super) fn followed_after(&self, from: Option<&RunId>, most: usize) -> Vec<RunId> {
        self.notes().followed.after(from, most)
    }

    /// Followed runs to claim now, and the moment at which the next one is due or has rested.
    pub(super) fn followed_due(&self, most: usize) -> (Vec<RunId>, Option<Moment>) {
        let clock = &self.common.clock;
        let mut notes = self.notes();
        let (due, at, rested) = notes.followed.take_due(clock.now(), clock.moment(), most);
        drop(notes);
        let at = at.map(|at| clock.moment_of(at));
        (due, at.into_iter().chain(rested).min())
    }

    /// These are not claimed before that moment.
    pub(super) fn rest<'a>(&self, run_ids: impl IntoIterator<Item = &'a RunId>, until: Moment) {
        let mut notes = self.notes();
        for run_id in run_ids {
            notes.followed.rests(run_id, until);
        }
    }

    /// These were due and not to be had, see [`Followed::tried_in_vain`].
    pub(super) fn tried_in_vain<'a>(&self, run_ids: impl IntoIterator<Item = &'a RunId>) {
        let now = self.common.clock.moment();
        let mut notes = self.notes();
        for run_id in run_ids {
            notes.followed.tried_in_vain(run_id, now);
        }
    }

    /// The store says when a followed run is due. True if that is at another time than was known.
    pub(super) fn found_due(&self, run_id: &RunId, at: Option<Millis>) -> bool {
        let mut notes = self.notes();
        self.leases.held().ticket_of(run_id).is_none() && notes.followed.due_at(run_id, at)
    }

    /// Another owner has a followed run: it is tried at that instant, in case that one has ended by then. A
    /// first look leaves an earlier instant.
    pub(super) fn found_held(&self, run_id: &RunId, at: Millis, tried: bool) {
        let mut notes = self.notes();
        if self.leases.held().ticket_of(run_id).is_some() {
            return;
        }
        if tried {
            notes.followed.due_at(run_id, Some(at));
        } else {
            notes.followed.due_at_first(run_id, at);
        }
    }

    /// The store says that a followed run has ended.
    pub(super) fn found_over(&self, run_id: &RunId) {
        self.notes().followed.forget(run_id);
    }

    pub(super) fn is_held(&self, run_id: &RunId) -> bool {
        self.ticket_of(run_id).is_some()
    }

    /// A run that nobody drives here is to be let go. False if somebody does.
    pub(super) fn forgo(&self, row: &RunRow) -> bool {
        self.leases.held().forgo(row)
    }

    /// The ticket of this life of the run.
    pub(super) fn ticket_of_life(&self, row: &RunRow) -> Option<Ticket> {
        self.leases.held().ticket_of_life(row)
    }

    pub(super) fn ticket_of(&self, run_id: &RunId) -> Option<Ticket> {
        self.leases.held().ticket_of(run_id)
    }
}

/// The status of a run that was driven to its end, or parked.
const fn ended_as(driven: Driven) -> Option<Status> {
    match driven {
        Driven::Completed => Some(Status::Completed),
        Driven::Failed => Some(Status::Failed),
        Driven::Cancelled => Some(Status::Cancelled),
        Driven::Stuck => Some(Status::Stuck),
        Driven::Paused | Driven::Continued | Driven::Lost => None,
    }
}

impl Listener for Hands {
    fn lost(&self, ticket: Ticket) {
        self.ended(ticket, Driven::Lost);
    }

    fn freed(&self) {
        self.alarm.nudge();
    }
}
