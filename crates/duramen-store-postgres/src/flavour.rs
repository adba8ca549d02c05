//! How the tables stand in the server, and what follows for requests about several runs.
//!
//! - **Plain**: tables as the migration makes them. A batch is one statement that takes its elements from arrays.
//! - **Routed**: the tables of runs are in parts by run id: on an engine that keeps each part on a node of its own
//!   (Citus), or partitioned by hash. Every statement that changes anything is about one run, which it names by a
//!   parameter (`run_id = $1`), so that it goes to the one part that has the run. The statements of a batch go
//!   over one connection together, in one round trip.
//!
//! Most statements have one text for both: where it says `{run b}` stands the run id of the element `b` of a batch, or
//! the parameter (`sql/mod.rs`). What cannot be said so of one run, because it joins runs and owners or looks at all
//! runs at once, has a text of its own (`sql/routed.rs`, carried out by `routed.rs`).
//!
//! Routed statements do not share a transaction, although they go together: a transaction over runs on several nodes
//! would be a commit in two phases, which is slower than as many commits of one node, holds all its locks until the
//! slowest node has answered, and stays in doubt when a node is lost. Nothing needs it: each element of a batch is an
//! atomic change of one run, it is fenced by itself and answered by itself, and one that fails has no neighbours.

use futures_util::future::try_join_all;

use crate::error::Fault;
use crate::link::Link;
use crate::options::Names;
use crate::row::column;
use crate::sql::{Book, Sql, schema};

/// See the module's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Plain,
    Routed,
}

impl Flavour {
    /// Puts a run's id where a text speaks of it: of the batch's element, or parameter number `parameter`.
    pub(crate) fn name_runs(self, text: &str, parameter: usize) -> String {
        let mut parts = text.split("{run ");
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (element, rest) = part.split_once('}').unwrap_or((part, ""));
            let name = match self {
                Self::Plain => format!("{element}.run_id"),
                Self::Routed => format!("${parameter}"),
            };
            named.extend([&name, rest]);
        }
        named
    }

    /// The one that fits the tables.
    pub(crate) async fn found(link: &Link, names: &Names) -> Result<Self, Fault> {
        let asks = async |text: &str| {
            let rows = link.read(&Sql::once(names, text), &[]).await?;
            rows.first()
                .map_or(Ok(false), |row| column::<bool>(row, 0, "flavour"))
        };
        let in_parts = asks(schema::IS_PARTITIONED).await?
            || (asks(schema::HAS_CITUS).await? && asks(schema::IS_DISTRIBUTED).await?);
        Ok(if in_parts { Self::Routed } else { Self::Plain })
    }
}

/// Asks for elements in the order in which they stand: all at once in the plain flavour, each by itself in the routed one,
/// where the questions go together. (Neither if there is none.)
pub(crate) async fn in_batches<'e, E, A, F>(
    book: &Book,
    elements: &'e [E],
    ask: impl Fn(&'e [E]) -> F,
) -> Result<Vec<A>, Fault>
where
    F: Future<Output = Result<A, Fault>>,
{
    let size = match book.flavour {
        Flavour::Plain => elements.len(),
        Flavour::Routed => 1,
    };
    try_join_all(elements.chunks(size.max(1)).map(ask)).await
}

/// The place of the element that is number `n` (1 for the first) of a batch among all that were asked for.
pub(crate) fn place_in(batch: usize, n: i64) -> Option<usize> {
    usize::try_from(n).ok()?.checked_sub(1)?.checked_add(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_its_element_or_by_a_parameter() {
        let text = "SELECT FROM {runs} r WHERE r.run_id = {run b} OR {run u} = r.run_id";
        assert_eq!(
            Flavour::Plain.name_runs(text, 7),
            "SELECT FROM {runs} r WHERE r.run_id = b.run_id OR u.run_id = r.run_id"
        );
        assert_eq!(
            Flavour::Routed.name_runs(text, 7),
            "SELECT FROM {runs} r WHERE r.run_id = $7 OR $7 = r.run_id"
        );
    }
}
