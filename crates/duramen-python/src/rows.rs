//! What reads of the store answer with: runs, their details, their journals.
//!
//! A fact of a run's row that Python is to see is named here, in `Row` and below it, and in
//! `_native.pyi`.

use duramen_core::ids::{Millis, Payload};
use duramen_core::journal;
use duramen_core::run::RunRow;
use duramen_core::store::{self, Message, MessageKind, RunDetail};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::record::record;

record! {
    /// A run as it stands in the store.
    Row {
        run_id: String,
        workflow: String,
        version: String,
        queue: String,
        priority: u8,
        status: &'static str,
        created_at: Millis,
        started_at: Option<Millis>,
        updated_at: Millis,
        finished_at: Option<Millis>,
        ready_at: Option<Millis>,
        owner: Option<String>,
        epoch: i64,
        /// The least encoding that can read its journal and inbox.
        format: u8,
        journal_start: u64,
        journal_len: u64,
        generation: u64,
        inbox_len: u64,
        inbox_seen: u64,
        unread: u64,
        unread_bytes: u64,
        timeout: Option<Millis>,
        deadline: Option<Millis>,
        lost: u32,
        /// The length of its journal at which that happened.
        lost_at: u64,
        waits: Vec<String>,
        tags: Vec<String>,
        seed: Py<PyBytes>,
        note: Option<String>,
        parent: Option<String>,
        root: Option<String>,
        origin: Option<String>,
    }
}

impl Row {
    fn new(py: Python<'_>, row: RunRow) -> Self {
        Self {
            run_id: row.run_id.to_string(),
            workflow: row.workflow,
            version: row.version,
            queue: row.queue,
            priority: row.priority,
            status: row.status.name(),
            created_at: row.created_at,
            started_at: row.started_at,
            updated_at: row.updated_at,
            finished_at: row.finished_at,
            ready_at: row.ready_at,
            owner: row.owner,
            epoch: row.epoch,
            format: row.format,
            journal_start: row.journal_start,
            journal_len: row.journal_len,
            generation: row.generation,
            inbox_len: row.inbox_len,
            inbox_seen: row.inbox_seen,
            unread: row.unread,
            unread_bytes: row.unread_bytes,
            timeout: row.timeout,
            deadline: row.deadline,
            lost: row.lost,
            lost_at: row.lost_at,
            waits: row.waits,
            tags: row.tags,
            seed: PyBytes::new(py, &row.seed).unbind(),
            note: row.note,
            parent: row.parent.map(|id| id.to_string()),
            root: row.root.map(|id| id.to_string()),
            origin: row.origin,
        }
    }
}

record! {
    /// One entry of a journal. Its index is its place in the list.
    Entry {
        /// `kind N` if this build does not know it.
        kind: String,
        op: String,
        meta: Option<String>,
        payload: Py<PyBytes>,
        at: Millis,
        encoding: u8,
    }
}

record! {
    /// An item of a stream.
    StreamItem {
        seq: u64,
        writer: String,
        index: u64,
        attempt: u32,
        at: Millis,
        payload: Py<PyBytes>,
    }
}

record! {
    /// Items of a stream, and where their run stood when they were read.
    StreamPage { seed: Py<PyBytes>, status: &'static str, items: Vec<Py<StreamItem>> }
}

pub(crate) fn stream_page(
    py: Python<'_>,
    page: Option<store::StreamPage>,
) -> PyResult<Option<StreamPage>> {
    let Some(page) = page else {
        return Ok(None);
    };
    let items = page.items.into_iter().map(|item| {
        Py::new(
            py,
            StreamItem {
                seq: item.seq,
                writer: item.writer,
                index: item.index,
                attempt: item.attempt,
                at: item.at,
                payload: PyBytes::new(py, &item.payload).unbind(),
            },
        )
    });
    Ok(Some(StreamPage {
        seed: PyBytes::new(py, &page.seed).unbind(),
        status: page.status.name(),
        items: items.collect::<PyResult<_>>()?,
    }))
}

impl Entry {
    fn new(py: Python<'_>, entry: journal::Entry) -> Self {
        Self {
            kind: entry.kind.to_string(),
            op: entry.op.to_string(),
            meta: entry.meta,
            payload: PyBytes::new(py, &entry.payload).unbind(),
            at: entry.at,
            encoding: entry.encoding,
        }
    }
}

record! {
    /// A message that the run has set aside.
    Refused {
        message_id: String,
        kind: &'static str,
        name: String,
        payload: Py<PyBytes>,
        encoding: u8,
        at: Millis,
        reason: String,
    }
}

impl Refused {
    fn new(py: Python<'_>, (message, reason): (Message, String)) -> Self {
        Self {
            message_id: message.message_id,
            kind: match message.kind {
                MessageKind::Event => "event",
                MessageKind::Approval => "approval",
                MessageKind::Cancel => "cancel",
                MessageKind::Child => "child",
                MessageKind::Update => "update",
                MessageKind::Pause => "pause",
                MessageKind::Resume => "resume",
                MessageKind::Unknown(_) => "unknown",
            },
            name: message.name,
            payload: PyBytes::new(py, &message.payload).unbind(),
            encoding: message.encoding,
            at: message.at,
            reason,
        }
    }
}

record! {
    /// A run with what belongs to it.
    Detail {
        row: Py<Row>,
        input: Py<PyBytes>,
        /// The entry that ended it.
        end: Option<Py<Entry>>,
        state: Option<Py<PyBytes>>,
        memo: Option<Py<PyBytes>>,
        refused: Vec<Py<Refused>>,
    }
}

impl Detail {
    fn new(py: Python<'_>, detail: RunDetail) -> PyResult<Self> {
        let bytes = |payload: Payload| PyBytes::new(py, &payload).unbind();
        Ok(Self {
            row: Py::new(py, Row::new(py, detail.row))?,
            input: bytes(detail.input),
            end: detail
                .end
                .map(|entry| Py::new(py, Entry::new(py, entry)))
                .transpose()?,
            state: detail.state.map(bytes),
            memo: detail.memo.map(bytes),
            refused: detail
                .refused
                .into_iter()
                .map(|refused| Py::new(py, Refused::new(py, refused)))
                .collect::<PyResult<_>>()?,
        })
    }
}

record! {
    /// A process, or what was one, as others see it.
    OwnerRow {
        owner: String,
        label: Option<String>,
        serves: Vec<String>,
        format: u8,
        started_at: Millis,
        seen_at: Millis,
        lease_until: Millis,
        ended_at: Option<Millis>,
        /// Runs in hand.
        held: u64,
    }
}

impl OwnerRow {
    fn new(row: store::OwnerRow) -> Self {
        Self {
            owner: row.owner,
            label: row.label,
            serves: row.serves,
            format: row.format,
            started_at: row.started_at,
            seen_at: row.seen_at,
            lease_until: row.lease_until,
            ended_at: row.ended_at,
            held: row.held,
        }
    }
}

record! {
    /// The runs of one lane and status that have not ended, counted.
    OpenRuns {
        workflow: String,
        version: String,
        queue: String,
        format: u8,
        status: &'static str,
        count: u64,
        /// When the oldest of them was created, and its id.
        oldest: (Millis, String),
    }
}

record! {
    /// Some rows of a longer answer.
    Page {
        rows: Vec<Py<Row>>,
        /// `(created_at, run_id)`: where the next page begins.
        next: Option<(Millis, String)>,
    }
}

pub(crate) fn details(
    py: Python<'_>,
    details: Vec<Option<RunDetail>>,
) -> PyResult<Vec<Option<Py<Detail>>>> {
    details
        .into_iter()
        .map(|detail| {
            detail
                .map(|detail| Py::new(py, Detail::new(py, detail)?))
                .transpose()
        })
        .collect()
}

pub(crate) fn entries(py: Python<'_>, entries: Vec<journal::Entry>) -> PyResult<Vec<Py<Entry>>> {
    entries
        .into_iter()
        .map(|entry| Py::new(py, Entry::new(py, entry)))
        .collect()
}

pub(crate) fn owners(owners: Vec<store::OwnerRow>) -> Vec<OwnerRow> {
    owners.into_iter().map(OwnerRow::new).collect()
}

pub(crate) fn census(found: Vec<store::OpenRuns>) -> Vec<OpenRuns> {
    let record = |runs: store::OpenRuns| OpenRuns {
        workflow: runs.workflow,
        version: runs.version,
        queue: runs.queue,
        format: runs.format,
        status: runs.status.name(),
        count: runs.count,
        oldest: (runs.oldest.created_at, runs.oldest.run_id.to_string()),
    };
    found.into_iter().map(record).collect()
}

pub(crate) fn page(py: Python<'_>, page: store::Page) -> PyResult<Page> {
    Ok(Page {
        rows: page
            .rows
            .into_iter()
            .map(|row| Py::new(py, Row::new(py, row)))
            .collect::<PyResult<_>>()?,
        next: page
            .next
            .map(|cursor| (cursor.created_at, cursor.run_id.to_string())),
    })
}

record! {
    /// A schedule as it stands in the store.
    ScheduleRow {
        id: String,
        version: i64,
        workflow: String,
        next_at: Option<Millis>,
        definition: Py<PyBytes>,
        state: Py<PyBytes>,
    }
}

impl ScheduleRow {
    pub(crate) fn new(py: Python<'_>, row: store::ScheduleRow) -> Self {
        Self {
            id: row.id,
            version: row.version,
            workflow: row.workflow,
            next_at: row.next_at,
            definition: PyBytes::new(py, &row.definition).unbind(),
            state: PyBytes::new(py, &row.state).unbind(),
        }
    }
}

record! {
    /// What of schedules is due.
    DueSchedules {
        now: Millis,
        rows: Vec<Py<ScheduleRow>>,
        /// When somebody has to look at the next one behind these.
        next_at: Option<Millis>,
    }
}

pub(crate) fn due_schedules(py: Python<'_>, due: store::DueSchedules) -> PyResult<DueSchedules> {
    let rows = due.rows.into_iter();
    let rows = rows.map(|row| Py::new(py, ScheduleRow::new(py, row)));
    Ok(DueSchedules {
        now: due.now,
        rows: rows.collect::<PyResult<_>>()?,
        next_at: due.next_at,
    })
}
