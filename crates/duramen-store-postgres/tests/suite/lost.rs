//! A server that is not there any more.

use std::time::Instant;

use duramen_core::store::{Filter, Queries, StoreError};
use duramen_store_postgres::PostgresStore;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{Place, runtime, url};

/// The server's port through a forwarder that can be taken away.
async fn forwarder() -> (String, JoinHandle<()>) {
    let at = url();
    let (before, after) = at.split_once('@').unwrap();
    let (host, path) = after.split_once('/').unwrap();
    let host = host.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let forwarding = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(&host).await.unwrap();
            open.spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    (format!("{before}@127.0.0.1:{port}/{path}"), forwarding)
}

#[test]
fn many_requests_find_out_together_that_the_server_is_gone() {
    let place = Place::new();
    runtime().block_on(async {
        let (through, forwarding) = forwarder().await;
        let store = PostgresStore::connect(&through, place.options())
            .await
            .unwrap();
        assert_eq!(store.count(Filter::default()).await, Ok(0));
        forwarding.abort();
        assert!(forwarding.await.unwrap_err().is_cancelled());
        let began = Instant::now();
        let asked: Vec<_> = (0..100).map(|_| store.count(Filter::default())).collect();
        for answer in asked {
            assert!(matches!(answer.await, Err(StoreError::Unavailable { .. })));
        }
        // Each waits some seconds for the server to come back. One after the other they would take minutes.
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    });
}
