//! Locks that others hold for long: a user's transaction that has touched one run of fifty. The other
//! forty-nine are answered while it is held, in every lane, and the one is answered as blocked.

use std::time::{Duration, Instant};

use duramen_core::journal::{Entry, Kind};
use duramen_core::store::{
    Claim, Claims, CommitOutcome, Created, Delivery, Inboxes, Intervened, Intervention, NewRun,
    Next, Queries, RunCommit, Runs, Start,
};
use duramen_store_postgres::{PostgresOptions, PostgresStore, Statements};
use duramen_store_testing::{
    APPLIED, alive, claim, claim_all, commit, commit_one, create, event, heartbeat, leased, new_run,
};

use crate::support::{Held, Place, block_on};

/// The lock is held until all are answered; who waited for it would lose the connection after 15 seconds.
const SOON: Duration = Duration::from_secs(10);

fn open(place: &Place, options: PostgresOptions) -> PostgresStore {
    let store = place.open_with(PostgresOptions {
        lock_timeout: PostgresOptions::default().lock_timeout,
        ..options
    });
    alive(&store, "ann");
    store
}

/// All on one connection: who waits there is in everybody's way.
fn one_connection(place: &Place) -> PostgresStore {
    open(
        place,
        PostgresOptions {
            pool_size: 1,
            ..place.options()
        },
    )
}

fn ids() -> Vec<String> {
    (0..50).map(|n| format!("r{n:02}")).collect()
}

const HELD: usize = 31;

fn a_held_run_does_not_hold_up_commits(statements: Statements) {
    let place = Place::new();
    let store = open(
        &place,
        PostgresOptions {
            pool_size: 1,
            statements,
            ..place.options()
        },
    );
    let ids = ids();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    let held = Held::new(&place, &ids[HELD]);
    let commit_all = |round: u64| {
        let batch: Vec<RunCommit> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| commit(id, "ann", if n == HELD { 1 } else { round }))
            .collect();
        let (since, before) = (Instant::now(), store.stats().statements);
        let outcomes = block_on(store.commit(batch)).unwrap();
        for (n, outcome) in outcomes.iter().enumerate() {
            let expected = if n == HELD {
                CommitOutcome::Blocked
            } else {
                APPLIED
            };
            assert_eq!(*outcome, expected, "round {round}, element {n}");
        }
        assert!(since.elapsed() < SOON);
        store.stats().statements - before
    };
    let once = if crate::IN_PARTS { 50 } else { 1 };
    // It comes again a few times.
    assert!((once + 1..once + 29).contains(&commit_all(1)));
    // It is known now, and nobody waits for it any more.
    assert_eq!(commit_all(2), once);
    held.let_go();
    assert_eq!(commit_one(&store, commit(&ids[HELD], "ann", 1)), APPLIED);
    let lengths = "SELECT count(DISTINCT idx) FROM {s}.journal";
    assert_eq!(place.number(lengths), 3);
}

#[test]
fn a_held_run_does_not_hold_up_the_other_commits_of_its_batch() {
    a_held_run_does_not_hold_up_commits(Statements::Named);
}

#[test]
fn nor_does_it_through_a_pooler() {
    a_held_run_does_not_hold_up_commits(Statements::Unnamed);
}

#[test]
fn what_follows_a_blocked_commit_of_the_same_run_is_blocked_too() {
    let place = Place::new();
    let store = one_connection(&place);
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    let held = Held::new(&place, "a");
    let batch = || {
        vec![
            commit("a", "ann", 1),
            commit("b", "ann", 1),
            commit("a", "ann", 2),
        ]
    };
    assert_eq!(
        block_on(store.commit(batch())).unwrap(),
        [CommitOutcome::Blocked, APPLIED, CommitOutcome::Blocked]
    );
    held.let_go();
    assert_eq!(
        block_on(store.commit(batch())).unwrap(),
        [APPLIED, CommitOutcome::Fenced, APPLIED]
    );
}

#[test]
fn a_commit_without_entries_is_not_held_up_either() {
    let place = Place::new();
    let store = one_connection(&place);
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    let held = Held::new(&place, "a");
    let give_back = |run_id: &str| RunCommit {
        entries: Vec::new(),
        next: Next::Waiting {
            ready_at: None,
            waits: Vec::new(),
        },
        ..commit(run_id, "ann", 1)
    };
    let batch = vec![give_back("a"), give_back("b"), give_back("unknown")];
    assert_eq!(
        block_on(store.commit(batch)).unwrap(),
        [CommitOutcome::Blocked, APPLIED, CommitOutcome::Fenced]
    );
    held.let_go();
    assert_eq!(commit_one(&store, give_back("a")), APPLIED);
}

#[test]
fn a_held_run_does_not_hold_up_messages() {
    let place = Place::new();
    let store = one_connection(&place);
    let ids = ids();
    create(&store, ids.iter().map(|id| new_run(id)).collect());
    let held = Held::new(&place, &ids[HELD]);
    let since = Instant::now();
    let calls: Vec<_> = ids
        .iter()
        .map(|id| store.deliver(vec![event(id, "m", "go")]))
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let result = block_on(call).unwrap()[0].result;
        let expected = if n == HELD {
            Delivery::Blocked
        } else {
            Delivery::Buffered
        };
        assert_eq!(result, expected, "call {n}");
    }
    assert!(since.elapsed() < SOON);
    // Nobody waits for it any more.
    let before = store.stats().statements;
    let again = block_on(store.deliver(vec![event(&ids[HELD], "m", "go")])).unwrap();
    assert_eq!(again[0].result, Delivery::Blocked);
    assert_eq!(store.stats().statements - before, 1);
    held.let_go();
    let again = block_on(store.deliver(vec![event(&ids[HELD], "m", "go")])).unwrap();
    assert_eq!(again[0].result, Delivery::Buffered);
}

#[test]
fn a_held_run_does_not_hold_up_messages_of_the_same_call() {
    let place = Place::new();
    let store = one_connection(&place);
    create(&store, vec![new_run("a"), new_run("b")]);
    let held = Held::new(&place, "a");
    let batch = vec![
        event("a", "m1", "go"),
        event("b", "m", "go"),
        event("a", "m2", "go"),
    ];
    let sent = block_on(store.deliver(batch)).unwrap();
    let results: Vec<_> = sent.iter().map(|one| one.result).collect();
    assert_eq!(
        results,
        [Delivery::Blocked, Delivery::Buffered, Delivery::Blocked]
    );
    held.let_go();
}

#[test]
fn an_id_that_is_about_to_be_created_does_not_hold_up_other_creations() {
    let place = Place::new();
    let store = one_connection(&place);
    let ids = ids();
    create(&store, vec![new_run("model")]);
    let copy = format!(
        "CREATE TEMP TABLE copy AS SELECT * FROM {{s}}.runs; UPDATE copy SET run_id = '{}'; \
         INSERT INTO {{s}}.runs SELECT * FROM copy",
        ids[HELD]
    );
    let held = Held::by(&place, &copy);
    let since = Instant::now();
    let calls: Vec<_> = ids
        .iter()
        .map(|id| store.create(vec![new_run(id)]))
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let answer = block_on(call).unwrap().remove(0);
        if n == HELD {
            assert_eq!(answer, Created::Blocked);
        } else {
            assert!(answer.is_new(), "call {n}");
        }
    }
    assert!(since.elapsed() < SOON);
    // A run that is held and there is answered at once.
    let other = Held::new(&place, &ids[0]);
    let again = block_on(store.create(vec![new_run(&ids[0])])).unwrap();
    assert!(matches!(again[0], Created::Exists { .. }));
    other.let_go();
    held.let_go();
    create(&store, vec![new_run(&ids[HELD])]);
}

#[test]
fn a_held_run_does_not_hold_up_interventions_nor_these_the_heartbeats() {
    let place = Place::new();
    let store = one_connection(&place);
    let ids = ids();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    let held = Held::new(&place, &ids[HELD]);
    let terminate = |id: &String| Intervention::Terminate {
        run_id: id.as_str().into(),
        entry: Entry::new(Kind::RunTerminated, "".into(), "".into(), 5),
        outgoing: Vec::new(),
    };
    let since = Instant::now();
    let asked = store.intervene(ids.iter().map(terminate).collect());
    let beat = block_on(store.heartbeat(heartbeat("ann", 3_600_000, None))).unwrap();
    assert!(beat.alive);
    for (n, answer) in block_on(asked).unwrap().into_iter().enumerate() {
        let expected = if n == HELD {
            Intervened::Blocked
        } else {
            Intervened::Done
        };
        assert_eq!(answer, expected, "element {n}");
    }
    assert!(since.elapsed() < SOON);
    held.let_go();
    let again = block_on(store.intervene(vec![terminate(&ids[HELD])])).unwrap();
    assert_eq!(again, [Intervened::Done]);
}

#[test]
fn a_claim_passes_over_a_held_run_and_the_next_one_finds_it_when_it_is_free() {
    let place = Place::new();
    let store = one_connection(&place);
    let ids = ids();
    // Long overdue, so that a floor that rose to the present would hide it.
    let overdue = |id: &String| NewRun {
        start: Start::Queued { at: Some(1_000) },
        ..new_run(id)
    };
    create(&store, ids.iter().map(overdue).collect());
    let held = Held::new(&place, &ids[HELD]);
    let since = Instant::now();
    let claimed = claim_all(&store, "ann");
    assert_eq!(claimed.runs.len(), 49);
    assert!(!claimed.more, "there is nothing that a limit left");
    for _ in 0..3 {
        let claimed = claim_all(&store, "ann");
        assert!(claimed.runs.is_empty() && !claimed.more);
    }
    // A claim of this run does not wait for it.
    let alone = Claim {
        run_id: Some(ids[HELD].as_str().into()),
        ..claim("ann", 1)
    };
    assert!(block_on(store.claim(alone)).unwrap().runs.is_empty());
    assert!(since.elapsed() < SOON);
    held.let_go();
    let found = claim_all(&store, "ann").runs;
    assert_eq!(found.len(), 1);
    assert_eq!(*found[0].row.run_id, *ids[HELD]);
}

#[test]
fn a_recovery_passes_over_a_held_run() {
    let place = Place::new();
    let store = one_connection(&place);
    alive(&store, "bob");
    let ids = ids();
    create(&store, ids.iter().map(|id| leased(id, "bob")).collect());
    let held = Held::new(&place, &ids[HELD]);
    block_on(store.retire("bob".to_owned(), None)).unwrap();
    assert_eq!(claim_all(&store, "ann").runs.len(), 49);
    assert!(claim_all(&store, "ann").runs.is_empty());
    held.let_go();
    assert_eq!(claim_all(&store, "ann").runs.len(), 1);
}

#[test]
fn a_claim_gets_past_any_number_of_held_runs() {
    let place = Place::new();
    let store = one_connection(&place);
    let ids: Vec<String> = (0..60).map(|n| format!("r{n:02}")).collect();
    let due = |(n, id): (i64, &String)| NewRun {
        start: Start::Queued { at: Some(n) },
        ..new_run(id)
    };
    create(&store, (1_000..).zip(&ids).map(due).collect());
    let held = Held::by(
        &place,
        "SELECT FROM {s}.runs WHERE ready_at < 1040 FOR UPDATE",
    );
    for expected in &ids[40..] {
        let claimed = block_on(store.claim(claim("ann", 1))).unwrap();
        let found: Vec<_> = claimed.runs.iter().map(|run| &*run.row.run_id).collect();
        assert_eq!(found, [expected.as_str()]);
    }
    assert!(
        block_on(store.claim(claim("ann", 1)))
            .unwrap()
            .runs
            .is_empty()
    );
    held.let_go();
    let claimed = block_on(store.claim(claim("ann", 1))).unwrap();
    assert_eq!(*claimed.runs[0].row.run_id, *ids[0]);
}

#[test]
fn a_claim_locks_what_it_takes_and_nothing_else() {
    let place = Place::new();
    let store = one_connection(&place);
    create(&store, ids().iter().map(|id| new_run(id)).collect());
    alive(&store, "bob");
    let claimed = block_on(store.claim(claim("ann", 7))).unwrap();
    assert_eq!((claimed.runs.len(), claimed.more), (7, true));
    // Large journals end a claim as well.
    let budget = Claim {
        max_bytes: Some(20),
        ..claim("ann", 7)
    };
    let claimed = block_on(store.claim(budget)).unwrap();
    assert_eq!((claimed.runs.len(), claimed.more), (2, true));
    // A row that was locked and left as it is bears the mark of the lock.
    let marked = "SELECT count(*) FROM {s}.runs WHERE status = 0 AND xmax <> 0";
    assert_eq!(place.number(marked), 0);
    // This is how to tell.
    place.run("SELECT FROM {s}.runs WHERE run_id = 'r49' FOR NO KEY UPDATE");
    assert_eq!(place.number(marked), 1);
}

#[test]
fn a_heartbeat_does_not_touch_what_is_driven_and_a_successor_passes_over_a_held_run() {
    let place = Place::new();
    let store = one_connection(&place);
    let ids = ids();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    let held = Held::by(&place, "SELECT FROM {s}.runs FOR UPDATE");
    let before = store.stats().statements;
    let beat = block_on(store.heartbeat(heartbeat("ann", 3_600_000, None))).unwrap();
    assert!(beat.alive);
    assert_eq!(store.stats().statements - before, 1);
    held.let_go();
    let held = Held::new(&place, &ids[HELD]);
    let successor = duramen_core::store::Heartbeat {
        succeeds: Some("ann".to_owned()),
        ..heartbeat("ann-2", 3_600_000, None)
    };
    let beat = block_on(store.heartbeat(successor)).unwrap();
    assert!(beat.alive);
    assert_eq!(beat.inherited.len(), 49);
    held.let_go();
    // What it could not get is anybody's: its owner has ended.
    let found = claim_all(&store, "ann-2").runs;
    assert_eq!(found.len(), 1);
    assert_eq!(*found[0].row.run_id, *ids[HELD]);
    assert_eq!(
        block_on(store.held("ann-2".to_owned(), None, 99))
            .unwrap()
            .len(),
        50
    );
    assert_eq!(
        block_on(store.count(duramen_core::store::Filter::default())).unwrap(),
        50
    );
}

/// A schema change, or vacuum that gives space back: trouble of the place, which passes.
#[test]
fn a_table_that_is_held_for_a_moment_is_waited_for() {
    let place = Place::new();
    let store = one_connection(&place);
    create(&store, vec![leased("a", "ann"), new_run("b")]);
    for table in ["runs", "journal", "inbox"] {
        let held = Held::by(&place, &format!("LOCK TABLE {{s}}.{table}"));
        let before = store.stats().statements;
        let committed = store.commit(vec![commit("a", "ann", 1)]);
        let created = store.create(vec![new_run(table)]);
        let sent = store.deliver(vec![event("b", table, "go")]);
        let claimed = store.claim(claim("nobody", 1));
        // Each has come back more than once.
        while store.stats().statements < before + 12 {
            std::thread::yield_now();
        }
        held.let_go();
        let outcome = block_on(committed).unwrap().remove(0);
        assert!([APPLIED, CommitOutcome::Fenced].contains(&outcome));
        assert!(block_on(created).unwrap()[0].is_new());
        assert_eq!(block_on(sent).unwrap()[0].result, Delivery::Buffered);
        assert!(block_on(claimed).unwrap().lapsed);
    }
}

#[test]
fn a_successor_ends_the_former_one_however_short_its_own_lease_is() {
    let place = Place::new();
    let store = one_connection(&place);
    create(&store, vec![leased("a", "ann")]);
    let successor = duramen_core::store::Heartbeat {
        succeeds: Some("ann".to_owned()),
        ..heartbeat("ann-2", 0, None)
    };
    let beat = block_on(store.heartbeat(successor)).unwrap();
    assert_eq!(beat.inherited, [("a".into(), 1)]);
    assert!(block_on(store.claim(claim("ann", 1))).unwrap().lapsed);
}
