//! The reader threads: queries run beside the writer, on connections of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use duramen_core::store::StoreError;
use rusqlite::Connection;

use crate::error::Fault;
use crate::oneshot::Reply;
use crate::open;
use crate::place::Place;
use crate::queue::Queue;

/// A query that knows whom to answer. True if the connection is still good afterwards.
pub(crate) type Query = Box<dyn FnOnce(Result<&Connection, StoreError>, &Place) -> bool + Send>;

/// Packs a question with its reply.
pub(crate) fn query<T: Send + 'static>(
    ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    reply: Reply<T>,
) -> Query {
    Box::new(move |connection, place| {
        let answer = match connection {
            Ok(connection) => snapshot(connection, ask),
            Err(error) => {
                reply.send(Err(error));
                return false;
            }
        };
        let good = !answer.as_ref().is_err_and(Fault::spoils_the_connection);
        reply.send(answer.map_err(|fault| place.error(&fault)));
        good
    })
}

/// All statements of one question see the same state of the file.
fn snapshot<T>(
    connection: &Connection,
    ask: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let answer = ask(connection);
    let ended = connection
        .prepare_cached("COMMIT")
        .and_then(|mut end| end.execute([]));
    let answer = answer?;
    ended?;
    Ok(answer)
}

/// What a reader thread shares with the store.
pub(crate) struct Reader {
    pub(crate) queue: Arc<Queue<Query>>,
    pub(crate) place: Place,
    pub(crate) busy_timeout: Duration,
}

impl Reader {
    /// Serves the queue until it is closed and empty.
    pub(crate) fn run(&self) {
        let mut connection: Option<Connection> = None;
        loop {
            // One query at a time, so that two readers share what is queued.
            let Some(queries) = self.queue.take(|_| true) else {
                return;
            };
            for query in queries {
                if connection.is_none() {
                    match open::read_connection(&self.place, self.busy_timeout) {
                        Ok(new) => connection = Some(new),
                        Err(fault) => {
                            query(Err(self.place.error(&fault)), &self.place);
                            continue;
                        }
                    }
                }
                let Some(open) = &connection else { continue };
                let served = catch_unwind(AssertUnwindSafe(|| query(Ok(open), &self.place)));
                if served.is_err() || !open.is_autocommit() {
                    // A transaction that was left open would hold its snapshot for ever.
                    tracing::error!(file = %self.place.path().display(), "a SQLite reader failed; it opens anew");
                    connection = None;
                } else if let Ok(false) = served {
                    tracing::warn!(file = %self.place.path().display(), "a SQLite reader met trouble; it opens anew");
                    connection = None;
                }
            }
        }
    }
}
