//! A readable account of how the code differs from the journal.

use std::fmt;

use crate::journal::{BadEntry, Kind};

/// The handler and the journal do not fit together. The run is parked, never failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The journal index where they part.
    pub index: u64,
    /// What the journal has there.
    pub recorded: Recorded,
    /// What the handler did instead.
    pub handler: Handler,
}

/// The journal's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    Entry {
        kind: Kind,
        op: String,
    },
    Unreadable(BadEntry),
    /// The store brought another number of entries than the run's row says.
    Length {
        found: u64,
        expected: u64,
    },
    /// The journal ends here; the handler is the one that cannot go on.
    End,
}

impl Recorded {
    const fn is_end_of_run(&self) -> bool {
        matches!(
            self,
            Self::Entry {
                kind: Kind::RunFinished
                    | Kind::RunFailed
                    | Kind::RunCancelled
                    | Kind::RunTerminated,
                ..
            }
        )
    }
}

/// The handler's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// It has not asked for that operation; these are the ones it waits for.
    Waiting { open: Vec<String> },
    /// It asked for that id, but as another kind of operation.
    OtherKind { asked: &'static str },
    /// It waits under that id for something else, by the keys of the waits.
    OtherWait { was: String, asked: String },
    /// It takes no updates by that key; these are the ones it takes.
    TakesNot { key: String, taken: Vec<String> },
    /// The function of that update goes on.
    StillApplies,
    /// It asked for a recorded value of another id.
    OtherValue { asked: String },
    /// It sends something else under that id, as both are told.
    OtherSent { was: String, asked: String },
    /// It writes to a stream; the journal has nothing of the kind there, or that it wrote to another.
    Writes { asked: String, was: Option<String> },
    /// It was given what is recorded, and has another type for it.
    CannotRead { why: String },
    /// It has ended.
    Ended { how: &'static str },
    /// It awaits something that no journal entry, step or timer can ever complete.
    Deadlocked,
}

impl fmt::Display for Divergence {
    #[allow(clippy::too_many_lines)] // a sentence for each way to part
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.handler == Handler::Deadlocked {
            return write!(
                f,
                "the handler awaits something that is not durable (a future or lock of its own that nothing \
                 will complete): no step, timer, event, approval or child is open, so it can never go on. Await \
                 operations of the context instead, or put the waiting into a step; then `retry` the run"
            );
        }
        match &self.recorded {
            Recorded::Length { found, expected } => {
                return write!(
                    f,
                    "the store brought {found} journal entries of this run, but its row counts {expected}: \
                     the store is damaged or was changed by hand. Nothing was written; restore the \
                     journal, then `retry` the run"
                );
            }
            Recorded::Unreadable(error) => {
                return write!(
                    f,
                    "journal entry {} cannot be replayed: {error}. Nothing was lost: deploy code that \
                     reads it, then `retry` the run",
                    self.index
                );
            }
            Recorded::Entry { .. } | Recorded::End => {}
        }
        write!(
            f,
            "the code no longer fits the journal at entry {}: ",
            self.index
        )?;
        match &self.recorded {
            Recorded::Entry { kind, op } if op.is_empty() => {
                write!(f, "expected (recorded) {}", kind.name())?;
            }
            Recorded::Entry { kind, op } => {
                write!(f, "expected (recorded) {} of {op:?}", kind.name())?;
            }
            Recorded::End | Recorded::Unreadable(_) | Recorded::Length { .. } => {
                write!(f, "the journal ends")?;
            }
        }
        match &self.handler {
            Handler::Waiting { open } if self.recorded.is_end_of_run() => {
                write!(f, ", found a handler that goes on; it waits for ")?;
                f.write_str(if open.is_empty() { "nothing" } else { "" })?;
                f.write_str(&open.join(", "))?;
            }
            Handler::Waiting { open } if open.is_empty() => {
                write!(
                    f,
                    ", found a handler that has not asked for it and waits for nothing"
                )?;
            }
            Handler::Waiting { open } => write!(
                f,
                ", found a handler that has not asked for it; it waits for {}",
                open.join(", ")
            )?,
            Handler::OtherKind { asked } => {
                write!(f, ", found a handler that asked for that id as {asked}")?;
            }
            Handler::OtherWait { was, asked } => write!(
                f,
                " while waiting for {was:?}, found a handler that waits there for {asked:?}"
            )?,
            Handler::TakesNot { key, taken } if taken.is_empty() => {
                write!(f, " by {key:?}, found a handler that takes no updates")?;
            }
            Handler::TakesNot { key, taken } => write!(
                f,
                " by {key:?}, found a handler that takes no such update; it takes {}",
                taken.join(", ")
            )?,
            Handler::StillApplies => {
                write!(f, ", found an update whose function goes on")?;
            }
            Handler::OtherValue { asked } => {
                write!(f, ", found a handler that asked for {asked:?}")?;
            }
            Handler::OtherSent { was, asked } => {
                write!(
                    f,
                    ", which was {was}, found a handler that asked for {asked}"
                )?;
            }
            Handler::Writes { asked, was: None } => {
                write!(f, ", found a handler that writes to the stream {asked:?}")?;
            }
            Handler::Writes {
                asked,
                was: Some(was),
            } => write!(
                f,
                " into the stream {was:?}, found a handler that writes there to the stream {asked:?}"
            )?,
            Handler::CannotRead { why } => {
                write!(f, ", found code that cannot read what is recorded: {why}")?;
            }
            Handler::Ended { how } => write!(f, ", found a handler that {how}")?,
            Handler::Deadlocked => {}
        }
        write!(
            f,
            ". Nothing was lost: deploy code that fits, then `retry` the run"
        )?;
        if matches!(self.handler, Handler::CannotRead { .. }) {
            return Ok(());
        }
        write!(
            f,
            ". If the code is the same, look in the handler for a loop over a set (its order differs between \
             processes), the clock, chance or I/O"
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::derive::ValueKind;
    use crate::journal::{ENCODING, Kind, Meta};
    use crate::machine::testing::{Ctx, Fault, Flow, Journal, Rest, Sim, T0};
    use crate::run::Status;
    use crate::store::MessageKind;

    const TAIL: &str = ". Nothing was lost: deploy code that fits, then `retry` the run. If the code is the same, look in the \
         handler for a loop over a set (its order differs between processes), the clock, chance or I/O (run of \
         version \"1\")";

    /// Replays a journal with code that does not fit it; gives the note of the parked run.
    fn parked<F>(journal: Journal, program: impl Fn(Ctx) -> F + 'static) -> String
    where
        F: Future<Output = Flow> + 'static,
    {
        note(Sim::replaying(journal, program))
    }

    fn note(mut sim: Sim) -> String {
        let before = sim.store.journal.clone();
        assert_eq!(sim.run(), Status::Stuck);
        assert_eq!(sim.store.journal, before, "nothing may be written");
        assert!(sim.starts.is_empty(), "nothing may be run again");
        let note = sim.store.row.note.unwrap();
        note.strip_suffix(TAIL).unwrap_or(&note).to_owned()
    }

    fn journal() -> Journal {
        Journal::new("", T0)
    }

    #[test]
    fn an_operation_that_is_missing() {
        let done = || journal().entry(Kind::StepCompleted, "charge", "1");
        assert_eq!(
            parked(done(), |ctx| async move { ctx.step("pay").await }),
            "the code no longer fits the journal at entry 1: expected (recorded) step_completed of \
             \"charge\", found a handler that has not asked for it; it waits for a step \"pay\""
        );
        assert_eq!(
            parked(done(), |_| std::future::pending()),
            "the code no longer fits the journal at entry 1: expected (recorded) step_completed of \
             \"charge\", found a handler that has not asked for it and waits for nothing"
        );
    }

    #[test]
    fn a_long_list_of_what_it_waits_for_is_cut() {
        let note = parked(
            journal().entry(Kind::TimerFired, "sleep-1", ""),
            |ctx| async move {
                let steps = (0..100).map(|n| ctx.step(&format!("s{n}")));
                let steps: Vec<_> = steps.collect();
                std::future::pending::<()>().await;
                drop(steps);
                Ok(String::new())
            },
        );
        assert!(note.ends_with("a step \"s7\", and 92 more"), "{note}");
    }

    #[test]
    fn the_same_id_as_another_kind_of_operation() {
        let recorded = journal().entry(Kind::StepCompleted, "approval-1", "1");
        assert_eq!(
            parked(recorded, |ctx| async move { ctx.approve(None, None).await }),
            "the code no longer fits the journal at entry 1: expected (recorded) step_completed of \
             \"approval-1\", found a handler that asked for that id as an approval"
        );
        let meta = Meta {
            attempt: Some(1),
            ..Meta::default()
        };
        let recorded = journal().with(Kind::StepAttemptFailed, "sleep-1", "boom", &meta);
        assert_eq!(
            parked(recorded, |ctx| async move { ctx.sleep(5).await }),
            "the code no longer fits the journal at entry 1: expected (recorded) \
             step_attempt_failed of \"sleep-1\", found a handler that asked for that id as a timer"
        );
        let recorded = journal().entry(Kind::TimerFired, "a", "");
        assert_eq!(
            parked(recorded, |ctx| async move { ctx.step("a").await }),
            "the code no longer fits the journal at entry 1: expected (recorded) timer_fired of \
             \"a\", found a handler that asked for that id as a step"
        );
    }

    #[test]
    fn a_wait_for_another_event_under_the_same_id() {
        let meta = Meta {
            wait: Some("event:paid".into()),
            ..Meta::default()
        };
        for kind in [Kind::WaitOpened, Kind::EventReceived] {
            let recorded = journal().with(kind, "event-1", "1", &meta);
            let found = parked(recorded, |ctx| async move { ctx.event("sent", None).await });
            assert_eq!(
                found,
                format!(
                    "the code no longer fits the journal at entry 1: expected (recorded) {} of \
                     \"event-1\" while waiting for \"event:paid\", found a handler that waits there \
                     for \"event:sent\"",
                    kind.name()
                )
            );
        }
    }

    #[test]
    fn another_value() {
        let recorded = journal().entry(Kind::ValueRecorded, "uuid-1", "\"u\"");
        assert_eq!(
            parked(recorded, |ctx| async move {
                Ok(ctx.value(ValueKind::Now).await)
            }),
            "the code no longer fits the journal at entry 1: expected (recorded) value_recorded of \
             \"uuid-1\", found a handler that asked for \"now-1\""
        );
        let recorded = journal().entry(Kind::ValueRecorded, "uuid-1", "\"u\"");
        assert_eq!(
            parked(recorded, |ctx| async move { ctx.step("a").await }),
            "the code no longer fits the journal at entry 1: expected (recorded) value_recorded of \
             \"uuid-1\", found a handler that has not asked for it; it waits for a step \"a\""
        );
    }

    #[test]
    fn a_handler_that_ends_early() {
        let recorded = || journal().entry(Kind::TimerFired, "sleep-1", "");
        assert_eq!(
            parked(recorded(), |_| async { Ok(String::new()) }),
            "the code no longer fits the journal at entry 1: expected (recorded) timer_fired of \
             \"sleep-1\", found a handler that returned"
        );
        assert_eq!(
            parked(recorded(), |_| async { Err(Fault::Raised(String::new())) }),
            "the code no longer fits the journal at entry 1: expected (recorded) timer_fired of \
             \"sleep-1\", found a handler that raised"
        );
    }

    #[test]
    fn a_handler_that_ends_otherwise_or_not_at_all() {
        let recorded = || journal().entry(Kind::RunFinished, "", "1");
        assert_eq!(
            parked(recorded(), |_| async { Err(Fault::Raised(String::new())) }),
            "the code no longer fits the journal at entry 1: expected (recorded) run_finished, \
             found a handler that raised"
        );
        assert_eq!(
            parked(recorded(), |ctx| async move { ctx.step("a").await }),
            "the code no longer fits the journal at entry 1: expected (recorded) run_finished, \
             found a handler that goes on; it waits for a step \"a\""
        );
    }

    #[test]
    fn an_entry_that_cannot_be_read() {
        let program = |ctx: Ctx| async move { ctx.sleep(5).await };
        let mut sim = Sim::replaying(journal().entry(Kind::WaitOpened, "sleep-1", ""), program);
        sim.store.journal[1].meta = Some("{".into());
        let found = note(sim);
        let start =
            "journal entry 1 cannot be replayed: the meta of a wait_opened entry cannot be read: ";
        assert!(found.starts_with(start), "{found}");
        let end = ". Nothing was lost: deploy code that reads it, then `retry` the run (run of version \"1\")";
        assert!(found.ends_with(end), "{found}");
    }

    #[test]
    fn an_entry_of_a_newer_build_leaves_the_run_to_those_who_can_read_it() {
        let program = |ctx: Ctx| async move { ctx.step("a").await };
        let mut sim = Sim::replaying(journal().entry(Kind::StepCompleted, "a", "1"), program);
        sim.store.journal[1].encoding = ENCODING + 1;
        sim.store.row.waits = vec!["timer".into()];
        sim.claim();
        assert_eq!(sim.settle(), Rest::Committing);
        assert!(sim.machine(|machine| machine.divergence().is_none()));
        let commit = sim.sent().unwrap();
        assert_eq!(
            (commit.entries.len(), commit.format),
            (0, Some(ENCODING + 1))
        );
        sim.apply();
        let row = &sim.store.row;
        assert_eq!((row.status, row.ready_at), (Status::Waiting, Some(T0)));
        assert_eq!(row.waits, ["timer"], "as it waited before");
        assert!(sim.starts.is_empty());
    }

    #[test]
    fn a_message_of_a_newer_build_is_left_unread_and_the_run_to_those_who_can_read_it() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        let mut message = sim
            .store
            .deliver(MessageKind::Unknown(77), "x", "1", sim.clock);
        message.encoding = ENCODING + 1;
        sim.machine(|machine| machine.deliver(vec![message]));
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        sim.apply();
        assert_eq!(sim.starts, ["a/1"], "nothing fresh is begun");
        let row = &sim.store.row;
        assert_eq!((row.status, row.ready_at), (Status::Waiting, Some(T0)));
        assert_eq!(row.inbox_seen, 0);
    }

    #[test]
    fn a_page_with_a_message_of_a_newer_build_leaves_the_run_due_for_those_who_can_read_it() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("y", None).await });
        sim.claim();
        sim.settle();
        let mut message = sim.store.deliver(MessageKind::Event, "x", "1", sim.clock);
        message.encoding = ENCODING + 1;
        sim.machine(|machine| machine.deliver_page(vec![message], false));
        assert_eq!(sim.settle(), Rest::Committing);
        sim.apply();
        let row = &sim.store.row;
        assert_eq!((row.status, row.inbox_seen), (Status::Waiting, 0));
        assert_eq!(row.ready_at, Some(sim.clock));
    }

    #[test]
    fn an_entry_of_a_kind_that_its_encoding_does_not_have() {
        let program = |ctx: Ctx| async move { ctx.step("a").await };
        let mut sim = Sim::replaying(journal().entry(Kind::StepCompleted, "a", "1"), program);
        sim.store.journal[1].kind = Kind::Unknown(200);
        assert!(note(sim).contains("has the kind 200"));
    }

    #[test]
    fn a_journal_that_is_shorter_or_longer_than_its_row_says() {
        for (len, text) in [(5, "row counts 5"), (1, "row counts 1")] {
            let program = |ctx: Ctx| async move { ctx.step("a").await };
            let mut sim = Sim::replaying(journal().entry(Kind::StepCompleted, "a", "1"), program);
            sim.store.row.journal_len = len;
            let found = note(sim);
            assert!(
                found.contains("the store brought 2 journal entries"),
                "{found}"
            );
            assert!(found.contains(text), "{found}");
        }
    }

    #[test]
    fn a_journal_that_does_not_begin_with_the_runs_creation() {
        let mut sim = Sim::replaying(journal(), |ctx| async move { ctx.step("a").await });
        sim.store.journal[0].kind = Kind::StepCompleted;
        assert!(note(sim).contains("at entry 0: expected (recorded) step_completed"));
    }

    #[test]
    fn a_handler_that_awaits_something_that_is_not_durable() {
        let found = parked(journal(), |_| std::future::pending());
        assert_eq!(
            found,
            "the handler awaits something that is not durable (a future or lock of its own that \
             nothing will complete): no step, timer, event, approval or child is open, so it can never go \
             on. Await operations of the context instead, or put the waiting into a step; then \
             `retry` the run (run of version \"1\")"
        );
    }

    #[test]
    fn mended_code_goes_on_where_the_other_was_parked() {
        let recorded = journal().entry(Kind::StepCompleted, "charge", "1");
        let mut sim = Sim::replaying(recorded, |ctx| async move { ctx.step("pay").await });
        assert_eq!(sim.run(), Status::Stuck);
        sim.deploy(|ctx| async move {
            ctx.step("charge").await?;
            ctx.step("ship").await
        });
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["ship/1"]);
    }
}
