//! What a request costs: statements, round trips and transactions.

use duramen_core::store::{Claims, CommitOutcome, DueAsk, Inboxes, Next, Queries, Runs, UnsentAsk};
use duramen_store_postgres::{PostgresOptions, PostgresStore, Statements, Stats};
use duramen_store_testing::{
    APPLIED, alive, claim, claim_all, commit, create, event, heartbeat, leased, new_run,
};

use crate::support::{Place, block_on};

/// Statements and round trips of one call.
#[track_caller]
fn costs<T>(store: &PostgresStore, expected: (u64, u64), call: impl FnOnce() -> T) -> T {
    let before = store.stats();
    let answer = call();
    let Stats {
        statements,
        round_trips,
        repeated,
        ..
    } = store.stats();
    assert_eq!(
        (
            statements - before.statements,
            round_trips - before.round_trips
        ),
        expected
    );
    assert_eq!(repeated, 0);
    answer
}

const ONE: (u64, u64) = (1, 1);

/// Every hot request once with 64 elements (25 for the claim), after it was made once before: the first
/// time a statement is prepared, which is a round trip of its own.
fn every_request_costs_one(options: PostgresOptions, place: &Place) {
    let store = place.open_with(options);
    let ids =
        |prefix: &str| -> Vec<String> { (0..64).map(|n| format!("{prefix}{n:02}")).collect() };
    let make = |prefix: &str| ids(prefix).iter().map(|id| leased(id, "ann")).collect();
    let pause = |id: &String| duramen_core::store::RunCommit {
        next: Next::Waiting {
            ready_at: None,
            waits: vec!["event:go".to_owned()],
        },
        expected_len: 2,
        ..commit(id, "ann", 2)
    };
    let messages = |prefix: &str| ids(prefix).iter().map(|id| event(id, "m", "go")).collect();
    for owner in ["ann", "bob", "eve"] {
        alive(&store, owner);
    }
    for (prefix, cost) in [("warm", None), ("r", Some(ONE))] {
        let check = |call: &dyn Fn()| match cost {
            Some(cost) => costs(&store, cost, call),
            None => call(),
        };
        check(&|| create(&store, make(prefix)));
        check(&|| {
            let batch = ids(prefix).iter().map(|id| commit(id, "ann", 1)).collect();
            assert_eq!(block_on(store.commit(batch)).unwrap(), [APPLIED; 64]);
        });
        check(&|| {
            let beat = block_on(store.heartbeat(heartbeat("ann", 3_600_000, None))).unwrap();
            assert!(beat.alive);
        });
        check(&|| {
            let held = block_on(store.held("ann".to_owned(), None, 1_000)).unwrap();
            assert!(held.len() >= 64);
        });
        check(&|| {
            let batch = ids(prefix).iter().map(pause).collect();
            assert_eq!(block_on(store.commit(batch)).unwrap(), [APPLIED; 64]);
        });
        check(&|| {
            let sent = block_on(store.deliver(messages(prefix))).unwrap();
            assert_eq!(sent.len(), 64);
        });
        check(&|| {
            let claimed = block_on(store.claim(claim("bob", 25))).unwrap();
            assert_eq!(claimed.runs.len(), 25);
            assert!(claimed.more);
            for run in claimed.runs {
                assert_eq!(run.journal.unwrap().len(), 3);
                assert_eq!(run.inbox.len(), 1);
            }
        });
        // What is left over is not to be found by the second round.
        claim_all(&store, "eve");
        check(&|| {
            assert!(
                block_on(store.claim(claim("ann", 25)))
                    .unwrap()
                    .runs
                    .is_empty()
            );
        });
        check(&|| {
            let lanes = claim("ann", 1).lanes;
            block_on(store.next_due(DueAsk { lanes, now: None })).unwrap();
        });
        check(&|| {
            let unread = block_on(store.unread("ann".to_owned(), Vec::new())).unwrap();
            assert!(unread.is_empty());
        });
        check(&|| {
            let run_ids = ids(prefix).iter().map(|id| id.as_str().into()).collect();
            let standing = block_on(store.standing(run_ids)).unwrap();
            assert!(standing.iter().flatten().all(|one| one.journal_len == 3));
        });
        check(&|| {
            let ask = UnsentAsk {
                before: i64::MAX,
                run_id: None,
                limit: 10,
            };
            assert!(block_on(store.unsent(ask)).unwrap().is_empty());
        });
        check(&|| {
            let id = ids(prefix)[0].as_str().into();
            assert_eq!(block_on(store.load(id, 0, 100)).unwrap().len(), 3);
        });
    }
    assert_eq!(store.stats().connects, 4);
}

#[test]
fn every_hot_request_is_one_statement_and_one_round_trip() {
    let place = Place::new();
    every_request_costs_one(place.options(), &place);
}

#[test]
fn so_it_is_through_a_pooler() {
    let place = Place::new();
    let options = PostgresOptions {
        statements: Statements::Unnamed,
        ..place.options()
    };
    every_request_costs_one(options, &place);
}

#[test]
fn a_batch_is_one_transaction() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    let transactions = |table: &str| {
        place.number(&format!(
            "SELECT count(DISTINCT xmin::text) FROM {{s}}.{table}"
        ))
    };
    let ids: Vec<String> = (0..64).map(|n| format!("r{n}")).collect();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    assert_eq!((transactions("runs"), transactions("journal")), (1, 1));
    let batch = ids.iter().map(|id| commit(id, "ann", 1)).collect();
    assert_eq!(block_on(store.commit(batch)).unwrap(), [APPLIED; 64]);
    // The journal's rows are from the two. The runs' are as they were created.
    assert_eq!((transactions("runs"), transactions("journal")), (1, 2));
    let rewritten = "SELECT count(*) FROM {s}.runs r JOIN {s}.journal j USING (run_id) WHERE idx = 1 AND r.xmin = j.xmin";
    assert_eq!(place.number(rewritten), 0);
    let batch = ids.iter().map(|id| event(id, "m", "go")).collect();
    block_on(store.deliver(batch)).unwrap();
    assert_eq!((transactions("runs"), transactions("inbox")), (1, 1));
}

#[test]
fn messages_and_creations_of_many_callers_share_statements() {
    let place = Place::new();
    let store = place.open();
    create(
        &store,
        (0..200).map(|n| new_run(&format!("r{n}"))).collect(),
    );
    block_on(store.deliver(vec![event("r0", "first", "go")])).unwrap();
    let before = store.stats().statements;
    let sent: Vec<_> = (0..200)
        .map(|n| store.deliver(vec![event(&format!("r{n}"), "m", "go")]))
        .collect();
    let made: Vec<_> = (0..200)
        .map(|n| store.create(vec![new_run(&format!("s{n}"))]))
        .collect();
    for one in sent {
        assert_eq!(block_on(one).unwrap().len(), 1);
    }
    for one in made {
        assert!(block_on(one).unwrap()[0].is_new());
    }
    let statements = store.stats().statements - before;
    assert!(statements <= 100, "{statements} statements for 400 calls");
}

#[test]
fn a_large_batch_is_a_few_statements() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    let ids: Vec<String> = (0..1_000).map(|n| format!("r{n}")).collect();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    let one = commit("r0", "ann", 1);
    assert_eq!(block_on(store.commit(vec![one])).unwrap(), [APPLIED]);
    let batch = ids.iter().map(|id| commit(id, "ann", 1)).collect();
    let outcomes = costs(&store, (4, 4), || block_on(store.commit(batch)).unwrap());
    assert_eq!(outcomes[0], CommitOutcome::Fenced);
    assert!(outcomes[1..].iter().all(|outcome| *outcome == APPLIED));
}

/// What was recovered is read again: two statements, however many runs there are.
#[test]
fn a_recovery_is_two_statements() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    alive(&store, "bob");
    let ids: Vec<String> = (0..50).map(|n| format!("r{n}")).collect();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    let batch = ids.iter().map(|id| commit(id, "ann", 1)).collect();
    assert_eq!(block_on(store.commit(batch)).unwrap(), [APPLIED; 50]);
    claim_all(&store, "bob");
    block_on(store.retire("ann".to_owned(), None)).unwrap();
    let before = store.stats().statements;
    let claimed = claim_all(&store, "bob");
    assert_eq!(store.stats().statements - before, 2);
    assert_eq!(claimed.runs.len(), 50);
    for run in claimed.runs {
        assert_eq!(
            (run.row.journal_len, run.row.lost, run.row.lost_at),
            (2, 1, 2)
        );
        assert_eq!(run.journal.unwrap().len(), 2);
    }
}
