//! Rows of answers: which columns a run, an entry and a message have, in which order, and what they mean.
//!
//! A store selects the columns by a macro and gives the function of the same thing a reader that takes
//! them one after the other. A new column has its place in the macro and in the function.

use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Message, MessageKind, ScheduleRow, StreamItem};

use crate::damage::Damaged;

/// Names with something in front of each, as one literal.
#[doc(hidden)]
#[macro_export]
macro_rules! columns {
    ($prefix:literal: $first:ident $(, $next:ident)*) => {
        concat!($prefix, stringify!($first) $(, ", ", $prefix, stringify!($next))*)
    };
}

/// The columns of `runs` that [`run_row`] reads, each with a prefix (`"r."`, or `""`).
#[macro_export]
macro_rules! run_columns {
    ($prefix:literal) => {
        concat!(
            $crate::columns!($prefix: status),
            ", ",
            $crate::run_numbers!($prefix),
            ", ",
            $crate::columns!($prefix: run_id, owner, queue, workflow, version, waits, tags, seed, note, parent,
                root, origin)
        )
    };
}

/// Those of [`run_columns!`] that are numbers.
#[macro_export]
macro_rules! run_numbers {
    ($prefix:literal) => {
        $crate::columns!($prefix: epoch, format, priority, journal_start, journal_len, generation, inbox_len,
            inbox_seen, unread, unread_bytes, ready_at, updated_at, started_at, finished_at, created_at, timeout,
            deadline, lost, lost_at)
    };
}

/// The columns of `journal` that [`entry`] reads, each with a prefix.
#[macro_export]
macro_rules! entry_columns {
    ($prefix:literal) => {
        $crate::columns!($prefix: at, encoding, kind, op, meta, payload)
    };
}

/// The columns of `inbox` that [`message`] reads, each with a prefix.
#[macro_export]
macro_rules! message_columns {
    ($prefix:literal) => {
        $crate::columns!($prefix: run_id, seq, message_id, kind, encoding, name, at, payload)
    };
}

/// The columns of `stream_items` that [`stream_item`] reads, each with a prefix.
#[macro_export]
macro_rules! item_columns {
    ($prefix:literal) => {
        $crate::columns!($prefix: seq, idx, attempt, at, writer, payload)
    };
}

/// How many columns [`run_columns!`] names: what comes next in an answer stands there.
pub const RUN_COLUMNS: usize = names_in(run_columns!(""));

/// How many columns [`entry_columns!`] names. The last one is the payload.
pub const ENTRY_COLUMNS: usize = names_in(entry_columns!(""));

const fn names_in(list: &str) -> usize {
    let (list, mut place, mut names) = (list.as_bytes(), 0, 1);
    while place < list.len() {
        if list[place] == b',' {
            names += 1;
        }
        place += 1;
    }
    names
}

/// The columns of one row, taken one after the other; each is named for the error.
pub trait Columns {
    type Fault: From<Damaged>;

    fn integer(&mut self, name: &str) -> Result<i64, Self::Fault>;
    fn integer_or_null(&mut self, name: &str) -> Result<Option<i64>, Self::Fault>;
    /// A status, a kind or an encoding, which a database may keep as a smaller type.
    fn code(&mut self, name: &str) -> Result<i64, Self::Fault>;
    fn text(&mut self, name: &str) -> Result<&str, Self::Fault>;
    fn text_or_null(&mut self, name: &str) -> Result<Option<&str>, Self::Fault>;
    fn bytes(&mut self, name: &str) -> Result<&[u8], Self::Fault>;
    fn list(&mut self, name: &str) -> Result<Vec<String>, Self::Fault>;

    /// A length or index.
    fn count(&mut self, name: &str) -> Result<u64, Self::Fault> {
        u64::try_from(self.integer(name)?).map_err(|_| Damaged::column(name).into())
    }

    fn status(&mut self) -> Result<Status, Self::Fault> {
        Status::from_code(self.code("status")?).ok_or_else(|| Damaged::column("status").into())
    }

    /// A kind of entries or messages, or an encoding. One that this build does not know is none of its
    /// business: see [`RunRow::format`].
    fn small_code(&mut self, name: &str) -> Result<u8, Self::Fault> {
        u8::try_from(self.code(name)?).map_err(|_| Damaged::column(name).into())
    }

    /// A number of which there are few.
    fn small<N: TryFrom<i64>>(&mut self, name: &str) -> Result<N, Self::Fault> {
        N::try_from(self.integer(name)?).map_err(|_| Damaged::column(name).into())
    }

    /// The id of another run.
    fn run_id_or_null(&mut self, name: &str) -> Result<Option<RunId>, Self::Fault> {
        Ok(self.text_or_null(name)?.map(RunId::from))
    }
}

/// Reads the columns of [`run_columns!`].
pub fn run_row<C: Columns>(c: &mut C) -> Result<RunRow, C::Fault> {
    // The fields are read as they stand here, which is the order of the macro.
    Ok(RunRow {
        status: c.status()?,
        epoch: c.integer("epoch")?,
        format: c.small("format")?,
        priority: c.small("priority")?,
        journal_start: c.count("journal_start")?,
        journal_len: c.count("journal_len")?,
        generation: c.count("generation")?,
        inbox_len: c.count("inbox_len")?,
        inbox_seen: c.count("inbox_seen")?,
        unread: c.count("unread")?,
        unread_bytes: c.count("unread_bytes")?,
        ready_at: c.integer_or_null("ready_at")?,
        updated_at: c.integer("updated_at")?,
        started_at: c.integer_or_null("started_at")?,
        finished_at: c.integer_or_null("finished_at")?,
        created_at: c.integer("created_at")?,
        timeout: c.integer_or_null("timeout")?,
        deadline: c.integer_or_null("deadline")?,
        lost: c.small("lost")?,
        lost_at: c.count("lost_at")?,
        run_id: c.text("run_id")?.into(),
        owner: c.text_or_null("owner")?.map(str::to_owned),
        queue: c.text("queue")?.to_owned(),
        workflow: c.text("workflow")?.to_owned(),
        version: c.text("version")?.to_owned(),
        waits: c.list("waits")?,
        tags: c.list("tags")?,
        seed: c
            .bytes("seed")?
            .try_into()
            .map_err(|_| Damaged::column("seed"))?,
        note: c.text_or_null("note")?.map(str::to_owned),
        parent: c.run_id_or_null("parent")?,
        root: c.run_id_or_null("root")?,
        origin: c.text_or_null("origin")?.map(str::to_owned),
    })
}

/// Reads `id, version, workflow, next_at, definition, state`.
pub fn schedule_row<C: Columns>(c: &mut C) -> Result<ScheduleRow, C::Fault> {
    Ok(ScheduleRow {
        id: c.text("id")?.to_owned(),
        version: c.integer("version")?,
        workflow: c.text("workflow")?.to_owned(),
        next_at: c.integer_or_null("next_at")?,
        definition: Payload::copy_from_slice(c.bytes("definition")?),
        state: Payload::copy_from_slice(c.bytes("state")?),
    })
}

/// Reads the columns of [`entry_columns!`].
pub fn entry<C: Columns>(c: &mut C) -> Result<Entry, C::Fault> {
    Ok(Entry {
        at: c.integer("at")?,
        encoding: c.small_code("encoding")?,
        kind: Kind::from_code(c.small_code("kind")?),
        op: c.text("op")?.into(),
        meta: c.text_or_null("meta")?.map(str::to_owned),
        payload: payload(c.bytes("payload")?),
    })
}

/// Reads the columns of [`message_columns!`].
pub fn message<C: Columns>(c: &mut C) -> Result<Message, C::Fault> {
    Ok(Message {
        run_id: c.text("run_id")?.into(),
        seq: c.count("seq")?,
        message_id: c.text("message_id")?.to_owned(),
        kind: MessageKind::from_code(c.small_code("kind")?),
        encoding: c.small_code("encoding")?,
        name: c.text("name")?.to_owned(),
        at: c.integer("at")?,
        payload: payload(c.bytes("payload")?),
    })
}

/// Reads the columns of [`item_columns!`].
pub fn stream_item<C: Columns>(c: &mut C) -> Result<StreamItem, C::Fault> {
    Ok(StreamItem {
        seq: c.count("seq")?,
        index: c.count("idx")?,
        attempt: c.small("attempt")?,
        at: c.integer("at")?,
        writer: c.text("writer")?.to_owned(),
        payload: payload(c.bytes("payload")?),
    })
}

/// Bytes of the user's, out of the driver's buffer.
pub fn payload(bytes: &[u8]) -> Payload {
    if bytes.is_empty() {
        Payload::new()
    } else {
        Payload::copy_from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives each column a value that is possible there, and writes down what it was asked for.
    #[derive(Default)]
    struct Asked {
        names: Vec<String>,
        code: i64,
        integer: i64,
        seed: usize,
    }

    impl Asked {
        fn of(&mut self, name: &str) {
            self.names.push(name.to_owned());
        }

        fn list(&self) -> String {
            self.names.join(", ")
        }
    }

    impl Columns for Asked {
        type Fault = Damaged;

        fn integer(&mut self, name: &str) -> Result<i64, Damaged> {
            self.of(name);
            Ok(self.integer)
        }

        fn integer_or_null(&mut self, name: &str) -> Result<Option<i64>, Damaged> {
            self.of(name);
            Ok(None)
        }

        fn code(&mut self, name: &str) -> Result<i64, Damaged> {
            self.of(name);
            Ok(self.code)
        }

        fn text(&mut self, name: &str) -> Result<&str, Damaged> {
            self.of(name);
            Ok("t")
        }

        fn text_or_null(&mut self, name: &str) -> Result<Option<&str>, Damaged> {
            self.of(name);
            Ok(None)
        }

        fn bytes(&mut self, name: &str) -> Result<&[u8], Damaged> {
            self.of(name);
            Ok(&[0; 32][..self.seed])
        }

        fn list(&mut self, name: &str) -> Result<Vec<String>, Damaged> {
            self.of(name);
            Ok(Vec::new())
        }
    }

    fn asked() -> Asked {
        Asked {
            code: 1,
            seed: 16,
            ..Asked::default()
        }
    }

    #[test]
    fn columns_are_read_in_the_order_in_which_they_are_named() {
        let mut run = asked();
        run_row(&mut run).unwrap();
        assert_eq!(run.list(), run_columns!(""));
        assert_eq!(run.names.len(), RUN_COLUMNS);
        let mut one = asked();
        entry(&mut one).unwrap();
        assert_eq!(one.list(), entry_columns!(""));
        assert_eq!(one.names[ENTRY_COLUMNS - 1], "payload");
        let mut one = asked();
        message(&mut one).unwrap();
        assert_eq!(one.list(), message_columns!(""));
        let mut one = asked();
        stream_item(&mut one).unwrap();
        assert_eq!(one.list(), item_columns!(""));
        assert!(entry_columns!("j.").starts_with("j.at, j.encoding, j."));
    }

    #[test]
    fn an_impossible_value_is_named_by_its_column() {
        let of = |name| Damaged::column(name);
        let wrong = |change: fn(&mut Asked)| {
            let mut asked = asked();
            change(&mut asked);
            run_row(&mut asked).unwrap_err()
        };
        assert_eq!(wrong(|asked| asked.code = 99), of("status"));
        assert_eq!(wrong(|asked| asked.integer = -1), of("format"));
        assert_eq!(wrong(|asked| asked.seed = 15), of("seed"));
        let mut one = asked();
        one.code = 256;
        assert_eq!(entry(&mut one).unwrap_err(), of("encoding"));
        one.code = 255;
        assert_eq!(entry(&mut one).unwrap().kind, Kind::Unknown(255));
        assert_eq!(message(&mut one).unwrap().kind, MessageKind::Unknown(255));
    }
}
