//! Items that the handler writes to streams: recorded by an entry, and sent out with the commit that has it.
//!
//! The entry says that an item was written and to which stream; the item itself stands in the stream alone. What is
//! written between two commits goes out with one. The entry is hard: a reader waits for the item, and what the handler says
//! before an effect is to be read before the effect.

use crate::ids::Payload;
use crate::journal::{Entry, Kind, Meta};
use crate::progress::desk::Desk;
use crate::progress::divergence::{Divergence, Handler};
use crate::progress::naming::Holder;
use crate::store::StreamWrite;

/// The handler writes an item. It never suspends, so on replay the entry must be the next one.
pub(crate) fn request(
    mut desk: Desk<'_>,
    stream: &str,
    keep: Option<u64>,
    payload: Payload,
) -> Result<(), Divergence> {
    let id = desk.numbered("stream", Holder::Unnamed);
    let index = desk.next_in_stream(stream);
    if let Some(placed) = desk.next_recorded() {
        let was = (placed.entry.kind == Kind::StreamWritten && placed.entry.op == id)
            .then(|| placed.entry.meta().ok()?.stream)
            .flatten();
        if was.as_deref() != Some(stream) {
            let asked = stream.to_owned();
            return Err(placed.parts_from(Handler::Writes { asked, was }));
        }
        desk.take_recorded();
        return Ok(());
    }
    let at = desk.now();
    let meta = Meta {
        stream: Some(stream.to_owned()),
        ..Meta::default()
    };
    let entry = Entry::new(Kind::StreamWritten, id, Payload::new(), at).with_meta(&meta);
    let item = StreamWrite {
        stream: stream.to_owned(),
        writer: desk.writer(""),
        index,
        attempt: 0,
        keep,
        payload,
        at,
    };
    desk.write(entry, item);
    Ok(())
}
