//! Requests that meet at one run's row. A lock that the test holds brings them into an order.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use duramen_core::ids::RunId;
use duramen_core::run::Status;
use duramen_core::store::{
    Claim, CommitOutcome, Delivery, Filter, Intervened, Intervention, Next, ReadMessage, RunCommit,
    Store,
};
use duramen_store_postgres::{PostgresOptions, PostgresStore};
use duramen_store_testing::{
    APPLIED, claim, claim_all, commit, commit_one, create, event, heartbeat, leased, new_run,
};

use crate::support::{Held, Place, block_on};

fn pause(run_id: &str) -> RunCommit {
    RunCommit {
        next: Next::Waiting {
            ready_at: None,
            waits: vec!["event:go".to_owned()],
        },
        ..commit(run_id, "ann", 1)
    }
}

/// A claim of one run at an instant when every lease has ended.
fn claim_one(run_id: &str) -> Claim {
    Claim {
        run_id: Some(run_id.into()),
        now: Some(i64::MAX / 2),
        ..claim("bob", 1)
    }
}

fn consistent(place: &Place) {
    for wrong in [
        "SELECT count(*) FROM {s}.runs r WHERE journal_len <> \
         (SELECT count(*) FROM {s}.journal j WHERE j.run_id = r.run_id)",
        "SELECT count(*) FROM {s}.journal j WHERE NOT EXISTS (SELECT FROM {s}.runs r WHERE r.run_id = j.run_id)",
        "SELECT count(*) FROM {s}.inbox i WHERE NOT EXISTS (SELECT FROM {s}.runs r WHERE r.run_id = i.run_id)",
    ] {
        assert_eq!(place.number(wrong), 0, "{wrong}");
    }
}

#[test]
fn a_claim_that_waited_for_a_commit_brings_the_journal_with_that_commit() {
    let place = Place::new();
    let (one, other) = (place.open(), place.open());
    create(&one, vec![leased("a", "ann")]);
    let held = Held::new(&place, "a");
    let committed = one.commit(vec![pause("a")]);
    held.until_waiting(1);
    let sent = one.deliver(vec![event("a", "m", "go")]);
    held.until_waiting(2);
    let claimed = other.claim(claim_one("a"));
    held.until_waiting(3);
    held.let_go();
    assert_eq!(block_on(committed).unwrap(), [APPLIED]);
    assert_eq!(block_on(sent).unwrap()[0].result, Delivery::Delivered);
    let run = block_on(claimed).unwrap().runs.remove(0);
    assert_eq!(run.was, Status::Waiting);
    // The claim's snapshot is older than both; what it brings is not.
    assert_eq!((run.row.journal_len, run.row.inbox_len), (2, 1));
    assert_eq!(run.journal.unwrap().len(), 2);
    assert_eq!(run.inbox.len(), 1);
}

#[test]
fn a_claim_that_waited_brings_no_message_that_was_set_aside_meanwhile() {
    let place = Place::new();
    let (one, other) = (place.open(), place.open());
    create(&one, vec![leased("a", "ann")]);
    block_on(one.deliver(vec![event("a", "m", "go")])).unwrap();
    // Seen before: neither the journal's length nor the inbox's changes with the commit below.
    let seen = RunCommit {
        inbox_seen: 1,
        ..commit("a", "ann", 1)
    };
    assert_eq!(commit_one(&one, seen), APPLIED);
    let held = Held::new(&place, "a");
    let refusal = RunCommit {
        entries: Vec::new(),
        expected_len: 2,
        inbox_seen: 1,
        read: vec![ReadMessage {
            seq: 1,
            refused: Some("wrong shape".to_owned()),
        }],
        next: Next::Waiting {
            ready_at: Some(1),
            waits: Vec::new(),
        },
        ..commit("a", "ann", 2)
    };
    let committed = one.commit(vec![refusal]);
    held.until_waiting(1);
    let claimed = other.claim(claim_one("a"));
    held.until_waiting(2);
    held.let_go();
    assert_eq!(block_on(committed).unwrap(), [APPLIED]);
    let run = block_on(claimed).unwrap().runs.remove(0);
    assert_eq!(run.was, Status::Waiting);
    assert_eq!(run.inbox, []);
}

#[test]
fn a_commit_that_waited_for_a_claim_is_fenced() {
    let place = Place::new();
    let (one, other) = (place.open(), place.open());
    create(&one, vec![leased("a", "ann")]);
    let held = Held::new(&place, "a");
    let claimed = other.claim(claim_one("a"));
    held.until_waiting(1);
    let committed = one.commit(vec![pause("a")]);
    held.until_waiting(2);
    held.let_go();
    let run = block_on(claimed).unwrap().runs.remove(0);
    assert_eq!((run.row.epoch, run.journal.unwrap().len()), (2, 1));
    assert_eq!(block_on(committed).unwrap(), [CommitOutcome::Fenced]);
    consistent(&place);
}

#[test]
fn a_message_that_meets_a_pause_makes_the_run_due_whichever_comes_first() {
    let place = Place::new();
    let store = place.open();
    for (run_id, message_first) in [("a", true), ("b", false)] {
        create(&store, vec![leased(run_id, "ann")]);
        let held = Held::new(&place, run_id);
        let deliver = || store.deliver(vec![event(run_id, "m", "go")]);
        let (committed, sent);
        if message_first {
            sent = deliver();
            held.until_waiting(1);
            committed = store.commit(vec![pause(run_id)]);
        } else {
            committed = store.commit(vec![pause(run_id)]);
            held.until_waiting(1);
            sent = deliver();
        }
        held.until_waiting(2);
        held.let_go();
        let committed = block_on(committed).unwrap();
        let sent = block_on(sent).unwrap()[0].result;
        assert_eq!(committed, [CommitOutcome::Applied { due: message_first }]);
        let expected = if message_first {
            Delivery::Buffered
        } else {
            Delivery::Delivered
        };
        assert_eq!(sent, expected);
        let run = claim_all(&store, "bob").runs.remove(0);
        assert_eq!((&*run.row.run_id, run.inbox.len()), (run_id, 1));
    }
}

#[test]
fn messages_that_race_pauses_are_never_lost() {
    const RUNS: usize = 300;
    let place = Place::new();
    let (one, other) = (place.open(), place.open());
    let ids: Vec<String> = (0..RUNS).map(|n| format!("r{n:03}")).collect();
    create(&one, ids.iter().map(|id| leased(id, "ann")).collect());
    let calls: Vec<_> = ids
        .chunks(10)
        .map(|ids| {
            let pauses = ids.iter().map(|id| pause(id)).collect();
            let messages = ids.iter().map(|id| event(id, "m", "go")).collect();
            (one.commit(pauses), other.deliver(messages))
        })
        .collect();
    for (committed, sent) in calls {
        let (committed, sent) = (block_on(committed).unwrap(), block_on(sent).unwrap());
        for (outcome, sent) in committed.iter().zip(sent) {
            let came_first = sent.result == Delivery::Buffered;
            assert_eq!(*outcome, CommitOutcome::Applied { due: came_first });
        }
    }
    let claimed = claim_all(&one, "bob").runs;
    assert_eq!(claimed.len(), RUNS);
    assert!(claimed.iter().all(|run| run.inbox.len() == 1));
}

#[test]
fn a_deletion_that_meets_a_commit_leaves_nothing_behind() {
    let place = Place::new();
    let store = place.open();
    for delete_first in [true, false] {
        create(&store, vec![leased("a", "ann")]);
        let held = Held::new(&place, "a");
        let delete = || {
            store.intervene(vec![Intervention::Delete {
                run_id: "a".into(),
                force: true,
            }])
        };
        let (committed, deleted);
        if delete_first {
            deleted = delete();
            held.until_waiting(1);
            committed = store.commit(vec![commit("a", "ann", 1)]);
        } else {
            committed = store.commit(vec![commit("a", "ann", 1)]);
            held.until_waiting(1);
            deleted = delete();
        }
        held.until_waiting(2);
        let sent = store.deliver(vec![event("a", "m", "go")]);
        held.until_waiting(3);
        held.let_go();
        let expected = if delete_first {
            CommitOutcome::Fenced
        } else {
            APPLIED
        };
        assert_eq!(block_on(committed).unwrap(), [expected]);
        assert_eq!(block_on(deleted).unwrap(), [Intervened::Done]);
        assert_eq!(block_on(sent).unwrap()[0].result, Delivery::NotFound);
        for table in ["runs", "journal", "inbox", "run_data"] {
            assert_eq!(
                place.number(&format!("SELECT count(*) FROM {{s}}.{table}")),
                0
            );
        }
    }
}

#[test]
fn two_creations_of_one_run_make_it_once_and_the_second_is_told_so() {
    let place = Place::new();
    let (one, other) = (place.open(), place.open());
    let ids: Vec<String> = (0..200).map(|n| format!("r{n:03}")).collect();
    let batch = |reverse: bool| {
        let mut batch: Vec<_> = ids.iter().map(|id| new_run(id)).collect();
        if reverse {
            batch.reverse();
        }
        batch
    };
    let calls = [one.create(batch(false)), other.create(batch(true))];
    let [first, mut second] = calls.map(|call| block_on(call).unwrap());
    second.reverse();
    for (first, second) in first.iter().zip(&second) {
        assert_ne!(first.created, second.created);
        assert_eq!(first.row, second.row);
    }
    consistent(&place);
}

#[test]
fn claims_of_eight_connections_take_each_run_once() {
    let place = Place::new();
    let stores: Vec<PostgresStore> = (0..8)
        .map(|_| {
            place.open_with(PostgresOptions {
                pool_size: 1,
                ..place.options()
            })
        })
        .collect();
    create(
        &stores[0],
        (0..400).map(|n| new_run(&format!("r{n}"))).collect(),
    );
    let taken: Mutex<BTreeMap<RunId, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for (number, store) in stores.iter().enumerate() {
            let taken = &taken;
            scope.spawn(move || {
                let owner = format!("owner-{number}");
                loop {
                    let claimed = block_on(store.claim(claim(&owner, 7))).unwrap();
                    if claimed.runs.is_empty() && !claimed.more {
                        break;
                    }
                    for run in &claimed.runs {
                        let run_id = run.row.run_id.clone();
                        assert!(taken.lock().unwrap().insert(run_id, number).is_none());
                        assert_eq!(run.row.epoch, 1);
                    }
                    let commits = claimed
                        .runs
                        .iter()
                        .map(|run| commit(&run.row.run_id, &owner, 1));
                    let outcomes = block_on(store.commit(commits.collect())).unwrap();
                    assert!(outcomes.iter().all(|outcome| *outcome == APPLIED));
                }
            });
        }
    });
    // Those that were locked when the last claim of their neighbours came by are still there.
    let rest = claim_all(&stores[0], "rest").runs.len();
    assert_eq!(taken.lock().unwrap().len() + rest, 400);
    assert_eq!(rest, 0);
    consistent(&place);
}

#[test]
fn messages_of_several_processes_to_one_run_are_all_kept_and_numbered_apart() {
    let place = Place::new();
    let stores = [place.open(), place.open(), place.open()];
    create(&stores[0], vec![new_run("a")]);
    let calls: Vec<_> = (0..60)
        .map(|n| {
            // Each message is sent twice, by two processes.
            let batch: Vec<_> = (0..10)
                .map(|m| event("a", &format!("m{}-{m}", n / 2), "go"))
                .collect();
            stores[n % 3].deliver(batch)
        })
        .collect();
    let mut kept = 0;
    for call in calls {
        for sent in block_on(call).unwrap() {
            match sent.result {
                Delivery::Buffered => kept += 1,
                Delivery::Duplicate => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(kept, 300);
    assert_eq!(
        place.number("SELECT count(DISTINCT seq) FROM {s}.inbox"),
        300
    );
    let behind = "SELECT (SELECT max(seq) FROM {s}.inbox) - inbox_len FROM {s}.runs";
    assert_eq!(place.number(behind), 0);
}

#[test]
fn a_heartbeat_passes_over_a_run_that_somebody_else_has_locked() {
    let place = Place::new();
    let store = place.open();
    let lease_end = |id| {
        place.number(&format!(
            "SELECT ready_at FROM {{s}}.runs WHERE run_id = '{id}'"
        ))
    };
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    let before = lease_end("b");
    let held = Held::new(&place, "a");
    let since = Instant::now();
    let beat = block_on(store.heartbeat(heartbeat("ann", 500_000, None))).unwrap();
    assert!(since.elapsed() < Duration::from_secs(2));
    // Both are still ann's; only the free one was renewed.
    assert_eq!(beat.held, [("a".into(), 1), ("b".into(), 1)]);
    assert!(lease_end("b") > before + 300_000);
    assert!(lease_end("a") <= before);
    held.let_go();
    block_on(store.heartbeat(heartbeat("ann", 500_000, None))).unwrap();
    assert!(lease_end("a") > before + 300_000);
    assert_eq!(block_on(store.count(Filter::default())).unwrap(), 2);
}

#[test]
fn a_claim_of_many_passes_over_a_run_that_somebody_else_has_locked() {
    let place = Place::new();
    let store = place.open();
    create(&store, vec![new_run("a"), new_run("b")]);
    let held = Held::new(&place, "a");
    let claimed = claim_all(&store, "ann");
    let ids: Vec<_> = claimed.runs.iter().map(|run| &*run.row.run_id).collect();
    assert_eq!(ids, ["b"]);
    held.let_go();
    assert_eq!(claim_all(&store, "ann").runs.len(), 1);
}
