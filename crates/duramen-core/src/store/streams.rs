//! Streams: items that a run's handler and its steps write while it runs, and that anybody reads in order.
//!
//! A stream belongs to its run and goes with it. Its items are numbered from 1 without a gap, by the store, in the
//! order in which they become visible: whoever has read up to a number has missed nothing before it, for ever. So a store
//! gives out numbers where writers of one run exclude each other (behind the lock of its row, in its one writer), never
//! beside it.
//!
//! **Who wrote an item.** A handler's item goes out with the commit that has its entry: once, whatever crashes. A step's is
//! sent while it runs, and an attempt that is repeated writes anew what the one before wrote. An item tells that by itself:
//! `index` is its place among what its `writer` wrote to the stream, and one that comes with an index voids what the
//! same writer wrote there and behind before. That holds for a repeated attempt, which begins at 0 again, for a handler that a
//! reopening sends back, and for an item that is sent again because its answer was lost.

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, Payload, RunId};
use crate::run::{Seed, Status};

/// An item as its writer brings it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamWrite {
    pub stream: String,
    /// Opaque: the handler or a step, of one generation.
    pub writer: String,
    /// From 0; see the module's head.
    pub index: u64,
    /// Of the step, from 1; 0 for a handler's.
    pub attempt: u32,
    /// Of the stream so many items are kept, the last ones; at least 1.
    pub keep: Option<u64>,
    pub payload: Payload,
    pub at: Millis,
}

/// What a step has written, under the fence of its run's driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAppend {
    pub run_id: RunId,
    pub seed: Seed,
    pub owner: String,
    pub epoch: i64,
    pub items: Vec<StreamWrite>,
}

/// The answer to one append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Appended {
    Applied,
    /// The run is not driven by that owner any more. Nothing was written.
    Fenced,
    /// Somebody else's transaction holds the run. Nothing was written, and the same may be sent again.
    Blocked,
    /// No store of this kind could keep it, ever. Nothing was written.
    Rejected {
        reason: String,
    },
}

/// A question for items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAsk {
    pub run_id: RunId,
    pub stream: String,
    /// The first number that is wanted.
    pub start: u64,
    /// At least 1.
    pub limit: u32,
}

/// A kept item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamItem {
    pub seq: u64,
    pub writer: String,
    pub index: u64,
    pub attempt: u32,
    pub at: Millis,
    pub payload: Payload,
}

/// Items in their order, and where their run stood when they were read: of one that had ended none is missing
/// behind the last page. Of a stream with items the last one is always kept: so a page that begins behind the number that
/// was asked for says which one is the first that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPage {
    /// The life of the run.
    pub seed: Seed,
    pub status: Status,
    /// No more than were asked for and, but for one, than [`STREAM_PAGE_BYTES`].
    pub items: Vec<StreamItem>,
}

/// The most bytes of a page, unless its first item alone has more.
pub const STREAM_PAGE_BYTES: usize = 4 << 20;

/// The most items that one write takes out of a stream because it keeps fewer: one that is to become much shorter does
/// so write by write.
pub const MOST_PRUNED: u64 = 10_000;

impl StreamPage {
    /// Adds the next item; false if it is one for the next page.
    pub fn add(&mut self, item: StreamItem) -> bool {
        let bytes: usize = self.items.iter().map(|item| item.payload.len()).sum();
        let fits = self.items.is_empty() || bytes + item.payload.len() <= STREAM_PAGE_BYTES;
        if fits {
            self.items.push(item);
        }
        fits
    }
}

impl StreamWrite {
    /// Behind which number nothing is kept, when this is the stream's last item with that number: what has
    /// this number or a lower one goes.
    pub fn kept_behind(&self, seq: u64) -> u64 {
        self.keep.map_or(0, |keep| seq.saturating_sub(keep.max(1)))
    }
}
