//! The statements of a batch go over a connection one behind the other, and none waits for the answer to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use duramen_core::store::{Claims, Inboxes, Queries, Runs};
use duramen_store_postgres::{PostgresOptions, PostgresStore};
use duramen_store_testing::{APPLIED, alive, claim, commit, create, event, leased, new_run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::{Place, block_on, runtime, url};

/// What the client says at the end of each statement.
const SYNC: &[u8] = b"S\0\0\0\x04";

/// A way to the server on which answers wait until so many statements have been sent.
#[derive(Default)]
struct Way {
    wanted: AtomicUsize,
    sent: Notify,
}

impl Way {
    /// From now on no answer comes back before this many statements have been sent.
    fn hold_until(&self, statements: usize) {
        self.wanted.store(statements, SeqCst);
    }

    fn passed(&self, bytes: &[u8]) {
        let ends = bytes.windows(SYNC.len()).filter(|part| *part == SYNC);
        let ends = ends.count();
        let _ = self
            .wanted
            .fetch_update(SeqCst, SeqCst, |wanted| Some(wanted.saturating_sub(ends)));
        self.sent.notify_one();
    }

    async fn open(self: Arc<Self>) -> String {
        let at = url();
        let (before, after) = at.split_once('@').unwrap();
        let (host, path) = after.split_once('/').unwrap();
        let host = host.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&host).await.unwrap();
                let (mut from_near, mut to_near) = near.into_split();
                let (mut from_far, mut to_far) = far.into_split();
                let (there, back) = (Arc::clone(&self), Arc::clone(&self));
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 16];
                    let mut seen = Vec::new();
                    while let Ok(count @ 1..) = from_near.read(&mut bytes).await {
                        seen.extend_from_slice(&bytes[..count]);
                        there.passed(&seen);
                        // One may have come in two pieces.
                        seen.drain(..seen.len().saturating_sub(SYNC.len() - 1));
                        if to_far.write_all(&bytes[..count]).await.is_err() {
                            break;
                        }
                    }
                });
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(count @ 1..) = from_far.read(&mut bytes).await {
                        while back.wanted.load(SeqCst) > 0 {
                            back.sent.notified().await;
                        }
                        if to_near.write_all(&bytes[..count]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        format!("{before}@127.0.0.1:{port}/{path}")
    }
}

#[test]
fn the_statements_of_a_batch_do_not_wait_for_each_other() {
    let place = Place::new();
    let way = Arc::new(Way::default());
    let options = PostgresOptions {
        pool_size: 1,
        ..place.options()
    };
    let store = runtime().block_on(async {
        let url = Arc::clone(&way).open().await;
        PostgresStore::connect(&url, options).await.unwrap()
    });
    alive(&store, "ann");
    let ids = |prefix: &str| -> Vec<String> { (0..64).map(|n| format!("{prefix}{n}")).collect() };
    // What is asked for the first time is prepared first.
    for (prefix, most) in [("warm", 0), ("r", 64)] {
        let ids = ids(prefix);
        create(&store, vec![new_run(&format!("{prefix}-other"))]);
        way.hold_until(0);
        create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
        way.hold_until(most);
        let batch = ids.iter().map(|id| commit(id, "ann", 1)).collect();
        assert_eq!(block_on(store.commit(batch)).unwrap(), [APPLIED; 64]);
        way.hold_until(most);
        let batch = ids.iter().map(|id| event(id, "m", "go")).collect();
        assert_eq!(block_on(store.deliver(batch)).unwrap().len(), 64);
        way.hold_until(most);
        let run_ids = ids.iter().map(|id| id.as_str().into()).collect();
        let standing = block_on(store.standing(run_ids)).unwrap();
        assert!(standing.iter().flatten().all(|one| one.journal_len == 2));
        let queued: Vec<_> = ids
            .iter()
            .map(|id| new_run(&format!("{id}-queued")))
            .collect();
        create(&store, queued);
        let claimed = block_on(store.claim(claim("ann", 64))).unwrap();
        assert_eq!(claimed.runs.len(), 64);
    }
}
