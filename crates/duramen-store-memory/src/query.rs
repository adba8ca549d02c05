//! What people and drivers ask without changing anything.

use std::collections::BTreeMap;

use duramen_core::ids::RunId;
use duramen_core::journal::Entry;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{
    Cursor, Filter, OpenRuns, Page, Receipt, RunDetail, Standing, Unsent, UnsentAsk,
};

use crate::state::{Fate, State};

impl State {
    pub(crate) fn get(&self, run_id: &RunId) -> Option<RunDetail> {
        let run = self.runs.get(run_id)?;
        let input = run.journal.first().map(|entry| entry.payload.clone());
        let refused = run.inbox.iter().filter_map(|letter| match &letter.fate {
            Fate::SetAside(reason) => Some((letter.message.clone(), reason.clone())),
            Fate::Unread | Fate::Consumed { .. } => None,
        });
        Some(RunDetail {
            row: run.row.clone(),
            input: input.unwrap_or_default(),
            end: if run.row.status.is_final() {
                run.journal.last().cloned()
            } else {
                None
            },
            state: run.state.clone(),
            memo: run.memo.clone(),
            refused: refused.collect(),
        })
    }

    pub(crate) fn standing(&self, run_id: &RunId) -> Option<Standing> {
        let run = self.runs.get(run_id)?;
        let row = &run.row;
        Some(Standing {
            status: row.status,
            seed: row.seed,
            owner: row.owner.clone(),
            epoch: row.epoch,
            journal_len: run.length(),
            generation: row.generation,
            ready_at: row.ready_at,
        })
    }

    pub(crate) fn receipt(&self, run_id: &RunId, message_id: &str) -> Option<Receipt> {
        let letter = self
            .runs
            .get(run_id)?
            .inbox
            .iter()
            .find(|letter| letter.message.message_id == message_id)?;
        Some(match &letter.fate {
            Fate::Unread => Receipt::Unread,
            Fate::Consumed { reply } => Receipt::Consumed {
                reply: reply.clone(),
            },
            Fate::SetAside(reason) => Receipt::SetAside {
                reason: reason.clone(),
            },
        })
    }

    pub(crate) fn unsent(&self, ask: &UnsentAsk) -> Vec<Unsent> {
        let mut items: Vec<Unsent> = self
            .unsent
            .iter()
            .filter(|item| item.at <= ask.before)
            .filter(|item| ask.run_id.as_ref().is_none_or(|id| *id == item.run_id))
            .cloned()
            .collect();
        items.sort_by(|a, b| place_of(a).cmp(&place_of(b)));
        items.truncate(ask.limit as usize);
        items
    }

    pub(crate) fn sent(&mut self, items: &[Unsent]) {
        self.unsent
            .retain(|kept| !items.iter().any(|sent| place_of(sent) == place_of(kept)));
    }

    pub(crate) fn load(&self, run_id: &RunId, from: u64, limit: u32) -> Vec<Entry> {
        let Some(run) = self.runs.get(run_id) else {
            return Vec::new();
        };
        // What stands before the present generation is gone.
        let from = from.checked_sub(run.row.journal_start);
        let from = from.and_then(|from| usize::try_from(from).ok());
        run.journal
            .iter()
            .skip(from.unwrap_or(usize::MAX))
            .take(limit as usize)
            .cloned()
            .collect()
    }

    pub(crate) fn list(&self, filter: &Filter, limit: u32, cursor: Option<&Cursor>) -> Page {
        let mut rows: Vec<&RunRow> = self
            .matching(filter)
            .filter(|row| cursor.is_none_or(|cursor| place(row) < *cursor))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(place(row)));
        let limit = limit as usize;
        let next = match rows.get(limit.wrapping_sub(1)) {
            Some(last) if rows.len() > limit => Some(place(last)),
            _ => None,
        };
        Page {
            rows: rows.into_iter().take(limit).cloned().collect(),
            next,
        }
    }

    pub(crate) fn count(&self, filter: &Filter) -> u64 {
        self.matching(filter).count() as u64
    }

    pub(crate) fn census(&self) -> Vec<OpenRuns> {
        let mut found: BTreeMap<(String, Status), OpenRuns> = BTreeMap::new();
        let open = self.runs.values().map(|run| &run.row);
        for row in open.filter(|row| !row.status.is_final()) {
            let key = (row.lane().key(), row.status);
            let runs = found.entry(key).or_insert_with(|| OpenRuns {
                workflow: row.workflow.clone(),
                version: row.version.clone(),
                queue: row.queue.clone(),
                format: row.format,
                status: row.status,
                count: 0,
                oldest: place(row),
            });
            runs.count += 1;
            runs.oldest = place(row).min(runs.oldest.clone());
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort();
        found
    }

    fn matching<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a RunRow> {
        self.runs
            .values()
            .map(|run| &run.row)
            .filter(|row| matches(filter, row))
    }
}

/// Oldest first; those of one run in the order in which they left it.
fn place_of(item: &Unsent) -> (i64, &RunId, u64, u32) {
    (item.at, &item.run_id, item.entry, item.number)
}

fn place(row: &RunRow) -> Cursor {
    Cursor {
        created_at: row.created_at,
        run_id: row.run_id.clone(),
    }
}

/// Both ends of the span of creation times are exclusive: "after" and "before" mean it.
fn matches(filter: &Filter, row: &RunRow) -> bool {
    fn fits<T>(asked: Option<&T>, fits: impl FnOnce(&T) -> bool) -> bool {
        asked.is_none_or(fits)
    }
    fits(filter.workflow.as_ref(), |name| row.workflow == **name)
        && fits(filter.version.as_ref(), |version| row.version == **version)
        && fits(filter.queue.as_ref(), |queue| row.queue == **queue)
        && fits(filter.parent.as_ref(), |parent| {
            row.parent.as_ref() == Some(parent)
        })
        && fits(filter.root.as_ref(), |root| row.root.as_ref() == Some(root))
        && fits(filter.finished_before.as_ref(), |at| {
            row.finished_at.is_some_and(|finished| finished < *at)
        })
        && (filter.status.is_empty() || filter.status.contains(&row.status))
        && fits(filter.tag.as_ref(), |tag| row.tags.contains(tag))
        && fits(filter.waiting_for.as_ref(), |key| row.waits.contains(key))
        && fits(filter.created_after.as_ref(), |at| row.created_at > *at)
        && fits(filter.created_before.as_ref(), |at| row.created_at < *at)
        && fits(filter.id_prefix.as_ref(), |prefix| {
            row.run_id.starts_with(prefix.as_str())
        })
}
