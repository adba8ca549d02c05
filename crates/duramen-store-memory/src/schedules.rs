//! Schedules: rows by id, which nobody looks into here.

use duramen_core::store::{DueSchedules, ScheduleAsk, ScheduleChange, ScheduleRow};

use crate::state::{State, instant};

impl State {
    pub(crate) fn change_schedule(&mut self, change: ScheduleChange) -> bool {
        let found = self.schedules.get(&change.id).map(|row| row.version);
        if found != change.expected {
            return false;
        }
        match change.row {
            Some(row) => self.schedules.insert(change.id, row),
            None => self.schedules.remove(&change.id),
        };
        true
    }

    pub(crate) fn list_schedules(&self, after: Option<&str>, limit: u32) -> Vec<ScheduleRow> {
        self.schedules
            .values()
            .filter(|row| after.is_none_or(|after| row.id.as_str() > after))
            .take(limit as usize)
            .cloned()
            .collect()
    }

    pub(crate) fn due_schedules(&self, ask: &ScheduleAsk) -> DueSchedules {
        let now = instant(ask.now);
        let mut waiting: Vec<_> = self
            .schedules
            .values()
            .filter(|row| ask.workflows.contains(&row.workflow))
            .filter_map(|row| Some((row.next_at?, row)))
            .filter(|(at, row)| {
                let after = ask.after.as_ref();
                after.is_none_or(|(after, id)| (*at, &row.id) > (*after, id))
            })
            .collect();
        waiting.sort_by_key(|(at, row)| (*at, row.id.as_str()));
        let due = waiting.iter().take_while(|(at, _)| *at <= now);
        let taken = due.take(ask.limit as usize).count();
        let next_at = waiting.get(taken).map(|(at, _)| *at);
        let rows = waiting.into_iter().take(taken);
        DueSchedules {
            now,
            rows: rows.map(|(_, row)| row.clone()).collect(),
            next_at,
        }
    }
}
