//! Runs that have not ended, counted by lane and status.

use duramen_core::lanes::Lane;
use duramen_core::store::{Cursor, OpenRuns};

use crate::columns::Columns;
use crate::damage::Damaged;

/// So many digits of an instant stand before the id of a run: the least of such texts is the oldest run, which a
/// database finds as it counts, without sorting any.
const DIGITS: usize = 19;

/// Reads a row with the status, the lane, the number of its runs and the oldest of them.
pub fn open_runs<C: Columns>(c: &mut C) -> Result<OpenRuns, C::Fault> {
    let status = c.status()?;
    let key = c.text("lane")?.to_owned();
    let lane = Lane::of_key(&key).ok_or_else(|| Damaged::column("lane"))?;
    let count = c.count("count")?;
    Ok(OpenRuns {
        workflow: lane.workflow.to_owned(),
        version: lane.version.to_owned(),
        queue: lane.queue.to_owned(),
        format: lane.format,
        status,
        count,
        oldest: oldest(c.text("oldest")?).ok_or_else(|| Damaged::column("oldest"))?,
    })
}

fn oldest(text: &str) -> Option<Cursor> {
    let (created_at, run_id) = text.split_at_checked(DIGITS)?;
    Some(Cursor {
        created_at: created_at.parse().ok()?,
        run_id: run_id.into(),
    })
}

#[cfg(test)]
mod tests {
    use duramen_core::store::Cursor;

    use super::oldest;

    #[test]
    fn the_oldest_is_a_text_of_instant_and_id() {
        let found = oldest("0000000000000000042order:1");
        let expected = Cursor {
            created_at: 42,
            run_id: "order:1".into(),
        };
        assert_eq!(found, Some(expected));
        assert_eq!(oldest("42order"), None);
        assert_eq!(oldest("000000000000000004xorder"), None);
    }
}
