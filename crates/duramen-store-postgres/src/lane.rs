//! A lane: while one batch is on its way, the requests of others gather and then go together.

use std::sync::{Arc, Mutex, PoisonError};

use duramen_core::store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// The most elements that are sent together.
const MOST: usize = 512;

/// How much time a lane's work may take over elements whose runs others have locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// None: they are answered with `None`, so that the others need not wait.
    Once,
    /// As long as requests wait for such: each element has an answer.
    Patient,
}

struct Request<Q, A> {
    elements: Vec<Q>,
    reply: Reply<A>,
}

type Reply<A> = oneshot::Sender<Result<Vec<A>, StoreError>>;

/// The way into a lane. Dropping it ends the lane when all that was sent has been answered.
pub(crate) struct Lane<Q, A> {
    sender: Mutex<Option<UnboundedSender<Request<Q, A>>>>,
}

impl<Q, A> Lane<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    /// Starts the lane; `work` answers a batch, element by element.
    pub(crate) fn start<F, W>(handle: &Handle, work: W) -> Self
    where
        W: Fn(Arc<Vec<Q>>, Pace) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<Option<A>>, StoreError>> + Send + 'static,
    {
        let (sender, receiver) = unbounded_channel();
        handle.spawn(run(receiver, Arc::new(work)));
        Self {
            sender: Mutex::new(Some(sender)),
        }
    }

    /// Hands elements over; the answer comes when they are durable.
    pub(crate) fn send(&self, elements: Vec<Q>) -> oneshot::Receiver<Result<Vec<A>, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let request = Request { elements, reply };
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        // A request that is not taken drops its reply, which the caller sees.
        if let Some(sender) = sender.as_ref() {
            let _ = sender.send(request);
        }
        answer
    }

    pub(crate) fn close(&self) {
        self.sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

async fn run<Q, A, F, W>(mut receiver: UnboundedReceiver<Request<Q, A>>, work: Arc<W>)
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
    W: Fn(Arc<Vec<Q>>, Pace) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<Option<A>>, StoreError>> + Send + 'static,
{
    while let Some(first) = receiver.recv().await {
        let mut replies = vec![(first.elements.len(), first.reply)];
        let mut elements = first.elements;
        while elements.len() < MOST
            && let Ok(next) = receiver.try_recv()
        {
            replies.push((next.elements.len(), next.reply));
            elements.extend(next.elements);
        }
        let elements = Arc::new(elements);
        match work(Arc::clone(&elements), Pace::Once).await {
            Ok(answers) => share_out(&work, replies, &elements, answers),
            // One request may have spoilt it for all: what the store itself refuses is asked again alone.
            Err(StoreError::Invalid { .. }) if replies.len() > 1 => {
                let mut from = 0;
                for (count, reply) in replies {
                    let mine = Arc::new(elements[from..from + count].to_vec());
                    from += count;
                    match work(Arc::clone(&mine), Pace::Once).await {
                        Ok(answers) => share_out(&work, vec![(count, reply)], &mine, answers),
                        Err(error) => {
                            let _ = reply.send(Err(error));
                        }
                    }
                }
            }
            Err(error) => {
                for (_, reply) in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Answers each request that is done. One with elements that others hold up goes its own way from here.
fn share_out<Q, A, F, W>(
    work: &Arc<W>,
    replies: Vec<(usize, Reply<A>)>,
    elements: &[Q],
    answers: Vec<Option<A>>,
) where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
    W: Fn(Arc<Vec<Q>>, Pace) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<Option<A>>, StoreError>> + Send + 'static,
{
    let mut all = elements.iter().zip(answers);
    for (count, reply) in replies {
        let (asked, answers): (Vec<&Q>, Vec<Option<A>>) = all.by_ref().take(count).unzip();
        if answers.iter().all(Option::is_some) {
            let _ = reply.send(Ok(answers.into_iter().flatten().collect()));
            continue;
        }
        let rest: Vec<Q> = asked
            .into_iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_none())
            .map(|(element, _)| element.clone())
            .collect();
        let work = Arc::clone(work);
        tokio::spawn(async move {
            let found = work(Arc::new(rest), Pace::Patient).await;
            let _ = reply.send(found.map(|found| {
                let mut found = found.into_iter().flatten();
                answers
                    .into_iter()
                    .filter_map(|answer| answer.or_else(|| found.next()))
                    .collect()
            }));
        });
    }
}
