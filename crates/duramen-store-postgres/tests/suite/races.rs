//! Requests that meet at one run's row, or at one owner's. Gates hold statements where they have their snapshots
//! and locks.

use std::collections::BTreeMap;
use std::sync::Mutex;

use duramen_core::ids::RunId;
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{
    Claim, Claims, CommitOutcome, Delivery, Inboxes, Intervened, Intervention, NewRun, Next,
    Queries, RunCommit, Runs,
};
use duramen_store_postgres::{Isolation, PostgresOptions, PostgresStore};
use duramen_store_testing::{
    APPLIED, alive, beat, claim, claim_all, commit, commit_one, create, entry, event, heartbeat,
    leased, new_run,
};

use crate::support::{Gate, Place, block_on};

fn pause(run_id: &str) -> RunCommit {
    RunCommit {
        next: Next::Waiting {
            ready_at: None,
            waits: vec!["event:go".to_owned()],
        },
        ..commit(run_id, "ann", 1)
    }
}

/// A commit that a gate before the op "slow" holds.
fn slow(run_id: &str, expected_len: u64) -> RunCommit {
    RunCommit {
        entries: vec![entry("slow", b"1")],
        ..commit(run_id, "ann", expected_len)
    }
}

fn gate_before_slow(place: &Place) -> Gate<'_> {
    Gate::before(place, "INSERT", "journal", "NEW.op = 'slow'")
}

fn consistent(place: &Place) {
    for wrong in [
        "SELECT count(*) FROM {s}.runs r WHERE status <> 1 AND journal_len <> \
         (SELECT count(*) FROM {s}.journal j WHERE j.run_id = r.run_id)",
        "SELECT count(*) FROM {s}.runs r WHERE \
         (SELECT max(idx) + 1 FROM {s}.journal j WHERE j.run_id = r.run_id) <> \
         (SELECT count(*) FROM {s}.journal j WHERE j.run_id = r.run_id)",
        "SELECT count(*) FROM {s}.journal j WHERE NOT EXISTS (SELECT FROM {s}.runs r WHERE r.run_id = j.run_id)",
        "SELECT count(*) FROM {s}.inbox i WHERE NOT EXISTS (SELECT FROM {s}.runs r WHERE r.run_id = i.run_id)",
        "SELECT count(*) FROM {s}.runs r WHERE unread <> \
         (SELECT count(*) FROM {s}.inbox i WHERE i.run_id = r.run_id AND i.state = 0)",
    ] {
        assert_eq!(place.number(wrong), 0, "{wrong}");
    }
}

const LEVELS: [Isolation; 3] = [
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

fn at(place: &Place, isolation: Isolation) -> PostgresStore {
    place.open_with(PostgresOptions {
        isolation,
        ..place.options()
    })
}

/// Two owners by explicit instants: ann's lease ends at 1,000, bob's does not.
fn ann_and_bob(store: &PostgresStore) {
    assert!(beat(store, "ann", 1_000, Some(0)).alive);
    assert!(beat(store, "bob", 1_000_000, Some(0)).alive);
}

fn later(owner: &str) -> Claim {
    Claim {
        now: Some(5_000),
        ..claim(owner, 10)
    }
}

fn created(run_id: &str) -> NewRun {
    NewRun {
        now: Some(0),
        ..leased(run_id, "ann")
    }
}

/// The row of a run says nothing about appends: a claim whose snapshot is older than the last one brings it
/// all the same, and its length.
#[test]
fn a_claim_brings_what_was_appended_behind_its_snapshot() {
    for isolation in LEVELS {
        let place = Place::new();
        let (one, other) = (at(&place, isolation), at(&place, isolation));
        ann_and_bob(&one);
        create(&one, vec![created("a")]);
        // The claim stands with its snapshot where it marks ann as ended.
        let gate = Gate::before(&place, "UPDATE", "owners", "NEW.ended_at IS NOT NULL");
        let claimed = other.claim(later("bob"));
        gate.until_reached();
        assert_eq!(commit_one(&one, commit("a", "ann", 1)), APPLIED);
        assert_eq!(commit_one(&one, commit("a", "ann", 2)), APPLIED);
        gate.open();
        let run = block_on(claimed).unwrap().runs.remove(0);
        assert_eq!(run.was, Status::Running);
        assert_eq!((run.row.journal_len, run.row.epoch), (3, 2));
        assert_eq!((run.row.lost, run.row.lost_at), (1, 3));
        assert_eq!(run.journal.unwrap().len(), 3);
        let kept =
            "SELECT count(*) FROM {s}.runs WHERE journal_len = 3 AND lost = 1 AND lost_at = 3";
        assert_eq!(place.number(kept), 1);
        // Its former driver is fenced off.
        assert_eq!(
            commit_one(&one, commit("a", "ann", 3)),
            CommitOutcome::Fenced
        );
        consistent(&place);
    }
}

#[test]
fn an_owner_whose_runs_are_being_taken_is_not_renewed() {
    for isolation in LEVELS {
        let place = Place::new();
        let (one, other) = (at(&place, isolation), at(&place, isolation));
        ann_and_bob(&one);
        create(&one, vec![created("a")]);
        let gate = Gate::before(&place, "UPDATE", "owners", "NEW.ended_at IS NOT NULL");
        let claimed = other.claim(later("bob"));
        gate.until_reached();
        // By its own time the lease still lasts.
        let sign = one.heartbeat(heartbeat("ann", 60_000, Some(900)));
        gate.open();
        assert_eq!(block_on(claimed).unwrap().runs.len(), 1);
        assert!(!block_on(sign).unwrap().alive);
        assert!(!beat(&one, "ann", 60_000, Some(900)).alive);
        assert!(block_on(one.claim(later("ann"))).unwrap().lapsed);
    }
}

#[test]
fn an_owner_that_is_being_renewed_does_not_lose_its_runs() {
    for isolation in LEVELS {
        let place = Place::new();
        let (one, other) = (at(&place, isolation), at(&place, isolation));
        ann_and_bob(&one);
        create(&one, vec![created("a")]);
        let gate = Gate::before(&place, "UPDATE", "owners", "NEW.ended_at IS NULL");
        let sign = one.heartbeat(heartbeat("ann", 60_000, Some(900)));
        gate.until_reached();
        let claimed = block_on(other.claim(later("bob"))).unwrap();
        assert!(claimed.runs.is_empty());
        gate.open();
        assert!(block_on(sign).unwrap().alive);
        assert!(block_on(other.claim(later("bob"))).unwrap().runs.is_empty());
        assert_eq!(commit_one(&one, commit("a", "ann", 1)), APPLIED);
    }
}

#[test]
fn a_claim_passes_over_a_run_whose_commit_is_under_way() {
    for isolation in LEVELS {
        let place = Place::new();
        let (one, other) = (at(&place, isolation), at(&place, isolation));
        ann_and_bob(&one);
        create(&one, vec![created("a")]);
        let gate = gate_before_slow(&place);
        let committed = one.commit(vec![slow("a", 1)]);
        gate.until_reached();
        assert!(block_on(other.claim(later("bob"))).unwrap().runs.is_empty());
        gate.open();
        assert_eq!(block_on(committed).unwrap(), [APPLIED]);
        let run = block_on(other.claim(later("bob"))).unwrap().runs.remove(0);
        assert_eq!(run.journal.unwrap().len(), 2);
    }
}

#[test]
fn a_commit_that_is_sent_again_while_it_is_under_way_is_fenced() {
    for isolation in LEVELS {
        let place = Place::new();
        let (one, other) = (at(&place, isolation), at(&place, isolation));
        alive(&one, "ann");
        create(&one, vec![leased("a", "ann"), leased("b", "ann")]);
        let gate = gate_before_slow(&place);
        let first = one.commit(vec![slow("a", 1)]);
        gate.until_reached();
        let again = other.commit(vec![slow("a", 1), commit("b", "ann", 1)]);
        // Without entries it meets no key; with another end it would leave a wrong length.
        let bare = other.commit(vec![RunCommit {
            entries: Vec::new(),
            ..pause("a")
        }]);
        gate.open();
        assert_eq!(block_on(first).unwrap(), [APPLIED]);
        assert_eq!(block_on(again).unwrap(), [CommitOutcome::Fenced, APPLIED]);
        assert_eq!(block_on(bare).unwrap(), [CommitOutcome::Fenced]);
        consistent(&place);
    }
}

/// The second of two alike may lock the row when the first has just ended, with a snapshot that does not show it: its
/// entries meet the journal's key.
#[test]
fn a_commit_that_meets_the_key_of_the_journal_is_fenced_and_its_neighbours_are_not() {
    for isolation in LEVELS {
        let place = Place::new();
        let store = at(&place, isolation);
        alive(&store, "ann");
        create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
        let gate = gate_before_slow(&place);
        let batch = store.commit(vec![slow("a", 1), commit("b", "ann", 1)]);
        gate.until_reached();
        place.run("INSERT INTO {s}.journal VALUES (1, 5, 1, 1, 'a', 'step-1', NULL, '')");
        gate.open();
        assert_eq!(block_on(batch).unwrap(), [CommitOutcome::Fenced, APPLIED]);
        assert_eq!(commit_one(&store, commit("a", "ann", 2)), APPLIED);
        consistent(&place);
    }
}

/// Polls alone would hardly ever find such a run free.
#[test]
fn a_run_that_is_never_free_for_long_is_got_at_in_line() {
    let place = Place::new();
    let store = place.open_with(PostgresOptions {
        lock_timeout: std::time::Duration::from_millis(20),
        ..place.options()
    });
    alive(&store, "ann");
    create(&store, vec![leased("a", "ann")]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        // Two who hand it to each other: each waits in line while the other holds it for some milliseconds.
        for _ in 0..2 {
            scope.spawn(|| {
                let client = crate::support::connection();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    place.on(
                        &client,
                        "BEGIN; SET LOCAL synchronous_commit = off; SELECT FROM {s}.runs FOR UPDATE; \
                         SELECT pg_sleep(0.001); COMMIT",
                    );
                }
            });
        }
        let outcomes: Vec<CommitOutcome> = (1..=40)
            .map(|length| commit_one(&store, commit("a", "ann", length)))
            .take_while(|outcome| *outcome == APPLIED)
            .collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcomes
    });
    assert_eq!(outcomes.len(), 40);
}

/// An intervention that comes while a commit of the run is under way. What becomes of it is looked at then.
fn meets_an_append(one: &Intervention, look: impl Fn(&Place, &PostgresStore)) {
    for isolation in LEVELS {
        let place = Place::new();
        let (store, other) = (at(&place, isolation), at(&place, isolation));
        alive(&store, "ann");
        create(&store, vec![leased("a", "ann")]);
        let gate = gate_before_slow(&place);
        let committed = store.commit(vec![slow("a", 1)]);
        gate.until_reached();
        let ended = other.intervene(vec![one.clone()]);
        gate.open();
        assert_eq!(block_on(committed).unwrap(), [APPLIED]);
        assert_eq!(block_on(ended).unwrap(), [Intervened::Done]);
        look(&place, &store);
        assert_eq!(
            commit_one(&store, commit("a", "ann", 2)),
            CommitOutcome::Fenced
        );
        consistent(&place);
    }
}

#[test]
fn an_intervention_that_meets_an_append_ends_the_journal_behind_it() {
    let terminate = Intervention::Terminate {
        run_id: "a".into(),
        entry: Entry::new(Kind::RunTerminated, "".into(), "".into(), 5),
        outgoing: Vec::new(),
    };
    meets_an_append(&terminate, |_, store| {
        let found = block_on(store.get(vec!["a".into()])).unwrap().remove(0);
        let detail = found.unwrap();
        assert_eq!(detail.row.journal_len, 3);
        assert_eq!(detail.end.unwrap().kind, Kind::RunTerminated);
    });
    let delete = Intervention::Delete {
        run_id: "a".into(),
        force: true,
    };
    meets_an_append(&delete, |place, _| {
        assert_eq!(place.number("SELECT count(*) FROM {s}.journal"), 0);
    });
}

#[test]
fn a_deletion_that_meets_a_commit_leaves_nothing_behind() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    for delete_first in [true, false] {
        create(&store, vec![leased("a", "ann")]);
        block_on(store.deliver(vec![event("a", "m", "go")])).unwrap();
        let delete = || {
            store.intervene(vec![Intervention::Delete {
                run_id: "a".into(),
                force: true,
            }])
        };
        let (committed, deleted) = if delete_first {
            let deleted = block_on(delete()).unwrap();
            (commit_one(&store, slow("a", 1)), deleted)
        } else {
            let gate = gate_before_slow(&place);
            let committed = store.commit(vec![slow("a", 1)]);
            gate.until_reached();
            let deleted = delete();
            gate.open();
            (
                block_on(committed).unwrap().remove(0),
                block_on(deleted).unwrap(),
            )
        };
        let expected = if delete_first {
            CommitOutcome::Fenced
        } else {
            APPLIED
        };
        assert_eq!(committed, expected);
        assert_eq!(deleted, [Intervened::Done]);
        let sent = block_on(store.deliver(vec![event("a", "m", "go")])).unwrap();
        assert_eq!(sent[0].result, Delivery::NotFound);
        for table in [
            "runs",
            "journal",
            "inbox",
            "run_data",
            "run_tags",
            "outgoing",
            "stream_items",
        ] {
            assert_eq!(
                place.number(&format!("SELECT count(*) FROM {{s}}.{table}")),
                0
            );
        }
    }
}

#[test]
fn messages_that_race_pauses_are_never_lost() {
    const RUNS: usize = 300;
    let place = Place::new();
    let (one, other) = (place.open(), place.open());
    alive(&one, "ann");
    alive(&one, "bob");
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
    consistent(&place);
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
        assert_ne!(first.is_new(), second.is_new());
        assert_eq!(first.row().unwrap(), second.row().unwrap());
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
                alive(store, &owner);
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
    alive(&stores[0], "rest");
    let rest = claim_all(&stores[0], "rest").runs.len();
    assert_eq!(taken.lock().unwrap().len() + rest, 400);
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
    consistent(&place);
}
