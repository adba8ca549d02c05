//! A transaction that somebody forgot: nothing that was deleted or updated since can be cleared away.

use std::thread::sleep;
use std::time::{Duration, Instant};

use duramen_core::run::Status;
use duramen_core::store::{
    Claim, Claims, CommitOutcome, DueAsk, NewRun, Next, RunCommit, Runs, Start,
};
use duramen_store_postgres::PostgresStore;
use duramen_store_testing::{alive, claim, commit, create, heartbeat, new_run};

use crate::support::{Place, block_on, connection};

const RUNS: i64 = 4_000;

/// How many entries of an index were looked at so far. Sessions report such counts when they
/// end a transaction, once a second at the most.
fn looked_at(place: &Place, store: &PostgresStore, index: &str) -> i64 {
    sleep(Duration::from_millis(1_100));
    block_on(store.heartbeat(heartbeat("nobody", 1_000_000, None))).unwrap();
    block_on(store.heartbeat(heartbeat("nobody", 1_000_000, None))).unwrap();
    place.number(&format!(
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = '{{s}}' AND indexrelname = '{index}'"
    ))
}

fn finish_all(store: &PostgresStore) {
    let mut finished = 0;
    loop {
        let claimed = block_on(store.claim(claim("ann", 250))).unwrap();
        if claimed.runs.is_empty() {
            break;
        }
        finished += claimed.runs.len();
        let batch = claimed
            .runs
            .iter()
            .map(|run| RunCommit {
                epoch: run.row.epoch,
                next: Next::Finished {
                    status: Status::Completed,
                },
                ..commit(&run.row.run_id, "ann", 1)
            })
            .collect();
        let outcomes = block_on(store.commit(batch)).unwrap();
        assert!(
            outcomes
                .iter()
                .all(|one| matches!(one, CommitOutcome::Applied { .. }))
        );
    }
    assert_eq!(i64::try_from(finished), Ok(RUNS));
}

#[test]
fn claims_do_not_walk_over_what_vacuum_may_not_clear_away() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    let forgotten = connection();
    place.on(
        &forgotten,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM {s}.runs",
    );
    let now = place.number("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
    for part in 0..RUNS / 500 {
        let batch = (part * 500..(part + 1) * 500)
            .map(|n| NewRun {
                start: Start::Queued {
                    at: Some(now - 100_000 + n),
                },
                ..new_run(&format!("r{n:05}"))
            })
            .collect();
        create(&store, batch);
    }
    finish_all(&store);

    looked_at(&place, &store, "runs_due");
    let before = looked_at(&place, &store, "runs_due");
    let turns = 10;
    for _ in 0..turns {
        block_on(store.claim(claim("ann", 10))).unwrap();
        let lanes = claim("ann", 10).lanes;
        block_on(store.next_due(DueAsk { lanes, now: None })).unwrap();
    }
    let with_floors = looked_at(&place, &store, "runs_due") - before;
    for _ in 0..turns {
        // An instant that is given begins at the front.
        block_on(store.claim(Claim {
            now: Some(now),
            ..claim("ann", 10)
        }))
        .unwrap();
    }
    let without = looked_at(&place, &store, "runs_due") - before - with_floors;
    assert!(without >= turns * RUNS, "{without}");
    // One look at everything may be among them.
    assert!(
        with_floors <= 2 * RUNS,
        "{with_floors} where {without} without floors"
    );

    // What came due long ago, and late, is found at the next look at everything.
    create(
        &store,
        vec![NewRun {
            start: Start::Queued {
                at: Some(now - 90_000),
            },
            ..new_run("late")
        }],
    );
    let found = (0..100).any(|_| {
        sleep(Duration::from_millis(100));
        !block_on(store.claim(claim("ann", 10)))
            .unwrap()
            .runs
            .is_empty()
    });
    assert!(found);
}

/// What an owner has driven leaves dead entries as well, which nobody walks over once it has ended.
#[test]
fn claims_do_not_walk_over_what_an_ended_owner_held() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    let forgotten = connection();
    place.on(
        &forgotten,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM {s}.runs",
    );
    for part in 0..RUNS / 500 {
        let batch = (part * 500..(part + 1) * 500)
            .map(|n| new_run(&format!("r{n:05}")))
            .collect();
        create(&store, batch);
    }
    finish_all(&store);
    alive(&store, "bob");
    block_on(store.retire("ann".to_owned(), None)).unwrap();
    looked_at(&place, &store, "runs_owned");
    let before = looked_at(&place, &store, "runs_owned");
    let turns = 50;
    let since = Instant::now();
    for _ in 0..turns {
        let claimed = block_on(store.claim(claim("bob", 10))).unwrap();
        assert!(claimed.runs.is_empty() && !claimed.lapsed);
        let lanes = claim("bob", 10).lanes;
        block_on(store.next_due(DueAsk { lanes, now: None })).unwrap();
    }
    let walked = looked_at(&place, &store, "runs_owned") - before;
    // A look at everything goes over them a few times, and there may be one each second.
    let looks = 2 + i64::try_from(since.elapsed().as_secs()).unwrap();
    assert!(walked <= 5 * RUNS * looks, "{walked} in {turns} turns");
}
