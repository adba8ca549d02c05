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

#[cfg(test)]
mod tests {
    use crate::journal::{Kind, Meta};
    use crate::machine::testing::{Ctx, Flow, Journal, Rest, Sim, T0, failed, succeeded};
    use crate::run::Status;

    /// Stream, writer, index and item of each that went out.
    fn written(sim: &Sim) -> Vec<String> {
        let items = sim.store.commits.iter().flat_map(|commit| &commit.written);
        let told = items.map(|item| {
            let text = String::from_utf8_lossy(&item.payload);
            format!("{}/{} {}={text}", item.stream, item.writer, item.index)
        });
        told.collect()
    }

    #[test]
    fn what_is_written_before_a_step_goes_out_at_once_and_before_it_begins() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.write("log", "a").await;
            ctx.write("log", "b").await;
            ctx.write("more", "c").await;
            ctx.step("s").await
        });
        sim.claim();
        assert_eq!(sim.settle(), Rest::Committing);
        assert!(sim.starts.is_empty());
        sim.apply();
        assert_eq!(sim.store.commits.len(), 1);
        assert_eq!(written(&sim), ["log/ 0=a", "log/ 1=b", "more/ 0=c"]);
        sim.settle();
        assert_eq!(sim.starts, ["s/1"]);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(
            sim.store.story(),
            [
                "run_created",
                "stream_written stream-1",
                "stream_written stream-2",
                "stream_written stream-3",
                "step_completed s",
                "run_finished"
            ]
        );
        assert!(
            sim.store.journal[1].payload.is_empty(),
            "it stands in the stream"
        );
    }

    #[test]
    fn an_item_goes_out_once_whatever_crashes() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.write("log", "a").await;
            ctx.step("s").await?;
            ctx.write("log", "b").await;
            ctx.step("t").await
        });
        sim.claim();
        // The first commit is lost with its process.
        sim.settle();
        sim.crash();
        sim.claim();
        sim.settle();
        sim.apply();
        sim.settle();
        sim.crash();
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(written(&sim), ["log/ 0=a", "log/ 1=b"]);
    }

    #[test]
    fn a_reopened_handler_says_where_it_goes_on() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.write("log", "a").await;
            let flow = ctx.step("s").await;
            let what = if flow.is_err() { "failed" } else { "b" };
            ctx.write("log", what).await;
            flow
        })
        .rule(|_, _| failed("boom"));
        assert_eq!(sim.run(), Status::Failed);
        let mut sim = sim.rule(|_, _| succeeded("1"));
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(written(&sim), ["log/ 0=a", "log/ 1=failed", "log/ 1=b"]);
    }

    #[test]
    fn a_later_generation_is_another_writer() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.write("log", "a").await;
            Ok(String::new())
        });
        sim.store.row.generation = 1;
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(written(&sim), ["log/##2 0=a"]);
    }

    async fn writes(ctx: Ctx) -> Flow {
        ctx.write("log", "a").await;
        ctx.step("s").await
    }

    fn note(
        journal: Journal,
        program: impl Fn(Ctx) -> std::pin::Pin<Box<dyn Future<Output = Flow>>> + 'static,
    ) -> String {
        let mut sim = Sim::replaying(journal, program);
        assert_eq!(sim.run(), Status::Stuck);
        let note = sim.store.row.note.unwrap();
        let end = note.find(". Nothing was lost").unwrap();
        note[..end].to_owned()
    }

    #[test]
    fn code_that_writes_elsewhere_is_parked() {
        let journal = || Journal::new("", T0);
        let meta = Meta {
            stream: Some("other".into()),
            ..Meta::default()
        };
        let other = journal().with(Kind::StreamWritten, "stream-1", "", &meta);
        assert_eq!(
            note(other, |ctx| Box::pin(writes(ctx))),
            "the code no longer fits the journal at entry 1: expected (recorded) stream_written of \
             \"stream-1\" into the stream \"other\", found a handler that writes there to the stream \"log\""
        );
        assert_eq!(
            note(journal().entry(Kind::StepCompleted, "s", "1"), |ctx| {
                Box::pin(writes(ctx))
            }),
            "the code no longer fits the journal at entry 1: expected (recorded) step_completed of \"s\", found \
             a handler that writes to the stream \"log\""
        );
        let meta = Meta {
            stream: Some("log".into()),
            ..Meta::default()
        };
        let written = journal().with(Kind::StreamWritten, "stream-1", "", &meta);
        assert_eq!(
            note(written, |ctx| Box::pin(async move { ctx.step("s").await })),
            "the code no longer fits the journal at entry 1: expected (recorded) stream_written of \
             \"stream-1\", found a handler that has not asked for it; it waits for a step \"s\""
        );
    }
}
