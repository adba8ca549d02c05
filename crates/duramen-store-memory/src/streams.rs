//! Streams of runs.

use std::collections::VecDeque;

use duramen_core::check;
use duramen_core::run::Status;
use duramen_core::store::{
    Appended, MOST_PRUNED, StreamAppend, StreamAsk, StreamItem, StreamPage, StreamWrite,
};

use crate::state::{Run, State};

/// The items that are kept of one stream; their numbers have no gap.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    items: VecDeque<StreamItem>,
}

impl State {
    pub(crate) fn append(&mut self, append: &StreamAppend) -> Appended {
        if let Some(reason) = check::append(append) {
            return Appended::Rejected { reason };
        }
        let Some(run) = self.runs.get_mut(&append.run_id) else {
            return Appended::Fenced;
        };
        let row = &run.row;
        let lets_through = row.status == Status::Running
            && row.seed == append.seed
            && row.owner.as_deref() == Some(&*append.owner)
            && row.epoch == append.epoch;
        if !lets_through {
            return Appended::Fenced;
        }
        run.write(&append.items);
        Appended::Applied
    }

    pub(crate) fn stream(&self, ask: &StreamAsk) -> Option<StreamPage> {
        let run = self.runs.get(&ask.run_id)?;
        let mut page = StreamPage {
            seed: run.row.seed,
            status: run.row.status,
            items: Vec::new(),
        };
        let Some(stream) = run.streams.get(&ask.stream) else {
            return Some(page);
        };
        let wanted = stream.items.iter().filter(|item| item.seq >= ask.start);
        for item in wanted.take(ask.limit as usize) {
            if !page.add(item.clone()) {
                break;
            }
        }
        Some(page)
    }
}

impl Run {
    pub(crate) fn write(&mut self, items: &[StreamWrite]) {
        for item in items {
            let stream = self.streams.entry(item.stream.clone()).or_default();
            let seq = stream.items.back().map_or(1, |last| last.seq + 1);
            stream.items.push_back(StreamItem {
                seq,
                writer: item.writer.clone(),
                index: item.index,
                attempt: item.attempt,
                at: item.at,
                payload: item.payload.clone(),
            });
            let behind = item.kept_behind(seq);
            let mut pruned = 0;
            while pruned < MOST_PRUNED
                && stream
                    .items
                    .front()
                    .is_some_and(|first| first.seq <= behind)
            {
                stream.items.pop_front();
                pruned += 1;
            }
        }
    }
}
