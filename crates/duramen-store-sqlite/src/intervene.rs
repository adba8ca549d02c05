//! Changes from outside the driver. Each raises the epoch, so that a driver is fenced off.

use duramen_core::ids::Millis;
use duramen_core::journal::Entry;
use duramen_core::run::Status;
use duramen_core::store::{Intervened, Intervention};
use duramen_store_sql::{Columns, lists};
use rusqlite::params;

use crate::clock::instant;
use crate::error::Fault;
use crate::row::{Reader, signed};
use crate::session::Session;
use crate::sql;

impl Session<'_> {
    pub(crate) fn intervene(&mut self, batch: &[Intervention]) -> Result<Vec<Intervened>, Fault> {
        batch.iter().map(|one| self.intervene_one(one)).collect()
    }

    fn intervene_one(&mut self, intervention: &Intervention) -> Result<Intervened, Fault> {
        let run_id = intervention.run_id();
        let Some((status, length)) = self.standing(run_id)? else {
            return Ok(Intervened::NotFound);
        };
        if !intervention.is_allowed(status, length) {
            return Ok(Intervened::NotAllowed);
        }
        match intervention {
            Intervention::Terminate {
                entry, outgoing, ..
            } => {
                self.terminate(run_id, length, entry)?;
                self.send(run_id, length, entry.at, outgoing)?;
            }
            Intervention::Reopen {
                entries,
                outgoing,
                version,
                now,
                ..
            } => {
                self.reopen(run_id, length, entries, instant(*now))?;
                if let Some(entry) = entries.last() {
                    self.send(run_id, length, entry.at, outgoing)?;
                }
                if let Some(version) = version {
                    self.connection
                        .prepare_cached(sql::intervene::MOVE)?
                        .execute(params![run_id, version])?;
                }
            }
            Intervention::Delete { .. } => self.delete(run_id)?,
        }
        Ok(Intervened::Done)
    }

    fn standing(&mut self, run_id: &str) -> Result<Option<(Status, u64)>, Fault> {
        let mut standing = self.connection.prepare_cached(sql::intervene::STANDING)?;
        let mut rows = standing.query([run_id])?;
        let Some(mut found) = rows.next()?.map(Reader::new) else {
            return Ok(None);
        };
        Ok(Some((found.status()?, found.count("journal_len")?)))
    }

    fn terminate(&mut self, run_id: &str, length: u64, entry: &Entry) -> Result<(), Fault> {
        self.connection
            .prepare_cached(sql::intervene::TERMINATE)?
            .execute(params![run_id, entry.at, signed(length + 1)?])?;
        self.raise(run_id, entry.encoding)?;
        self.append(run_id, length, std::slice::from_ref(entry))
    }

    fn reopen(
        &mut self,
        run_id: &str,
        length: u64,
        entries: &[Entry],
        now: Millis,
    ) -> Result<(), Fault> {
        let after = signed(length + entries.len() as u64)?;
        self.connection
            .prepare_cached(sql::intervene::REOPEN)?
            .execute(params![run_id, now, after])?;
        if let Some(encoding) = entries.iter().map(|entry| entry.encoding).max() {
            self.raise(run_id, encoding)?;
        }
        self.append(run_id, length, entries)
    }

    fn delete(&mut self, run_id: &str) -> Result<(), Fault> {
        self.delete_tags(run_id)?;
        for statement in sql::intervene::DELETE {
            self.connection
                .prepare_cached(statement)?
                .execute([run_id])?;
        }
        Ok(())
    }

    fn delete_tags(&mut self, run_id: &str) -> Result<(), Fault> {
        let mut tags = self.connection.prepare_cached(sql::intervene::TAGS)?;
        let mut rows = tags.query([run_id])?;
        let Some(found) = rows.next()? else {
            return Ok(());
        };
        let mut found = Reader::new(found);
        let tags = lists::disclose(found.text("tags")?);
        let created_at = found.integer("created_at")?;
        drop(rows);
        let mut delete = self.connection.prepare_cached(sql::intervene::DELETE_TAG)?;
        for tag in tags {
            delete.execute(params![tag, created_at, run_id])?;
        }
        Ok(())
    }
}
