//! How many runs have not ended, by lane and status.

use duramen_core::run::Status;
use duramen_core::store::OpenRuns;
use duramen_store_sql::open_runs;
use rusqlite::Connection;

use crate::error::Fault;
use crate::lists::source_of;
use crate::row::Reader;

/// Those of each status from the index that has them and no others: what has ended costs nothing. Of one state of the file,
/// so that a run that is taken up meanwhile is counted once.
pub(crate) fn statement() -> String {
    let parts: Vec<String> = (0..)
        .map_while(Status::from_code)
        .filter(|status| !status.is_final())
        .filter_map(|status| Some((status.code(), source_of(status)?)))
        .map(|(code, source)| {
            format!(
                "SELECT {code}, lane, count(*), min(printf('%019d', created_at) || run_id) \
                 FROM runs INDEXED BY {} WHERE {} GROUP BY lane",
                source.index, source.condition
            )
        })
        .collect();
    parts.join(" UNION ALL ")
}

pub(crate) fn census(connection: &Connection) -> Result<Vec<OpenRuns>, Fault> {
    let mut statement = connection.prepare_cached(&statement())?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(open_runs(&mut Reader::new(row))?);
    }
    found.sort();
    Ok(found)
}
