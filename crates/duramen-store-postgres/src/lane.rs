//! A lane: while one batch is on its way, the requests of others gather and then go together.

use std::sync::{Arc, Mutex, PoisonError};

use duramen_core::store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// The most elements that are sent together.
const MOST: usize = 512;

struct Request<Q, A> {
    elements: Vec<Q>,
    reply: oneshot::Sender<Result<Vec<A>, StoreError>>,
}

/// The way into a lane. Dropping it ends the lane when all that was sent has been answered.
pub(crate) struct Lane<Q, A> {
    sender: Mutex<Option<UnboundedSender<Request<Q, A>>>>,
}

impl<Q, A> Lane<Q, A>
where
    Q: Send + Sync + 'static,
    A: Send + 'static,
{
    /// Starts the lane; `work` answers a batch, element by element.
    pub(crate) fn start<F, W>(handle: &Handle, work: W) -> Self
    where
        W: Fn(Arc<Vec<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Vec<A>, StoreError>> + Send + 'static,
    {
        let (sender, receiver) = unbounded_channel();
        handle.spawn(run(receiver, work));
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

async fn run<Q, A, F, W>(mut receiver: UnboundedReceiver<Request<Q, A>>, work: W)
where
    Q: Send + Sync,
    A: Send,
    W: Fn(Arc<Vec<Q>>) -> F + Send,
    F: Future<Output = Result<Vec<A>, StoreError>> + Send,
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
        let result = work(Arc::clone(&elements)).await;
        match result {
            Ok(answers) => share_out(replies, answers),
            // One request may have spoilt it for all: what the store itself refuses is asked again alone.
            Err(StoreError::Invalid { .. }) if replies.len() > 1 => {
                let Ok(mut rest) = Arc::try_unwrap(elements) else {
                    continue; // the work has ended, so nobody else has it
                };
                for (count, reply) in replies {
                    let after = rest.split_off(count);
                    let one = std::mem::replace(&mut rest, after);
                    let _ = reply.send(work(Arc::new(one)).await);
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

type Reply<A> = oneshot::Sender<Result<Vec<A>, StoreError>>;

fn share_out<A>(replies: Vec<(usize, Reply<A>)>, mut answers: Vec<A>) {
    for (count, reply) in replies {
        let after = answers.split_off(count.min(answers.len()));
        let mine = std::mem::replace(&mut answers, after);
        let _ = reply.send(Ok(mine));
    }
}
