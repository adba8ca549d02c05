//! The schema: from nothing, by several at a time, under other names, and by the wrong build.

use duramen_core::store::{
    Claims, Delivery, Filter, Inboxes, Intervened, Intervention, Next, Outgoing, OutgoingKind,
    Queries, RunCommit, Runs, Schema, Store, StoreError, UnsentAsk,
};
use duramen_store_postgres::{PostgresOptions, TABLES};
use duramen_store_testing::{
    APPLIED, alive, claim_all, commit, commit_one, create, event, heartbeat, leased, new_run,
};

use crate::support::{Place, block_on};

const CURRENT: Schema = Schema {
    found: 1,
    needed: 1,
    applied: Vec::new(),
};

fn manual(place: &Place) -> PostgresOptions {
    PostgresOptions {
        migrate: false,
        ..place.options()
    }
}

#[test]
fn an_empty_database_gets_every_migration_once() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.applied_on_open(), ["0001_initial"]);
    assert_eq!(block_on(store.migrate()).unwrap(), CURRENT);
    assert_eq!(block_on(store.schema()).unwrap(), CURRENT);
    create(&store, vec![new_run("a")]);
    let again = place.open_with(manual(&place));
    assert!(again.applied_on_open().is_empty());
    assert!(block_on(again.get(vec!["a".into()])).unwrap()[0].is_some());
    assert_eq!(
        place.number(
            "SELECT count(*) FROM {s}.duramen_schema_migrations WHERE number = 1 AND name = 'initial' \
             AND applied_at > 1600000000000"
        ),
        1
    );
}

#[test]
fn without_leave_to_migrate_a_missing_schema_is_refused_and_nothing_is_made() {
    let place = Place::new();
    let missing = StoreError::Unmigrated {
        found: 0,
        needed: 1,
    };
    assert_eq!(Place::try_open(manual(&place)).unwrap_err(), missing);
    let there = "SELECT count(*) FROM pg_namespace WHERE nspname = '{s}'";
    assert_eq!(place.number(there), 0);
    // A schema without the tables is as good as none.
    place.run("CREATE SCHEMA {s}");
    assert_eq!(Place::try_open(manual(&place)).unwrap_err(), missing);
    drop(place.open());
    Place::try_open(manual(&place)).unwrap();
}

#[test]
fn a_newer_schema_is_used_if_it_says_that_this_build_can() {
    let place = Place::new();
    drop(place.open());
    place.run("INSERT INTO {s}.duramen_schema_migrations VALUES (2, 'later', 1, 0)");
    for (run_id, options) in [("a", manual(&place)), ("b", place.options())] {
        let store = place.open_with(options);
        assert!(store.applied_on_open().is_empty());
        create(&store, vec![new_run(run_id)]);
        let found = block_on(store.migrate()).unwrap();
        assert_eq!(
            found,
            Schema {
                found: 2,
                ..CURRENT
            }
        );
    }
    place.run("INSERT INTO {s}.duramen_schema_migrations VALUES (3, 'later still', 2, 0)");
    for options in [manual(&place), place.options()] {
        let error = Place::try_open(options).unwrap_err();
        assert_eq!(
            error,
            StoreError::Newer {
                found: 3,
                needed: 1
            }
        );
    }
    // A later one that is harmless again does not take back what stands between.
    place.run("INSERT INTO {s}.duramen_schema_migrations VALUES (4, 'harmless', 1, 0)");
    assert!(matches!(
        Place::try_open(manual(&place)).unwrap_err(),
        StoreError::Newer { found: 4, .. }
    ));
}

#[test]
fn many_that_migrate_at_once_do_it_once() {
    for round in 0..3 {
        let place = Place::new();
        if round == 1 {
            // Without the race for the schema itself.
            place.run("CREATE SCHEMA {s}");
        }
        let applied: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| place.open().applied_on_open().len()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(applied, 1);
        let recorded = place.number("SELECT count(*) FROM {s}.duramen_schema_migrations");
        assert_eq!(recorded, 1);
    }
}

/// Every request under other names: one with a default name in it would fail.
#[test]
fn everything_works_under_other_names() {
    let renamed: Vec<(String, String)> = TABLES
        .iter()
        .map(|table| ((*table).to_owned(), format!("App_{table}")))
        .collect();
    let tables: Vec<(&str, &str)> = renamed
        .iter()
        .map(|(table, name)| (&**table, &**name))
        .collect();
    let place = Place::with_tables(&tables);
    let store = place.open();
    let made = place.number(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE nspname = '{s}' AND relkind IN ('r', 'v', 'i') AND relname NOT LIKE 'App\\_%'",
    );
    assert_eq!(made, 0);
    alive(&store, "ann");
    alive(&store, "bob");
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    let pause = RunCommit {
        next: Next::Waiting {
            ready_at: None,
            waits: vec!["event:go".to_owned()],
        },
        state: Some("{}".into()),
        written: Vec::new(),
        outgoing: vec![Outgoing {
            kind: OutgoingKind::Message,
            target: "b".into(),
            body: "1".into(),
        }],
        ..commit("a", "ann", 1)
    };
    assert_eq!(commit_one(&store, pause), APPLIED);
    let sent = block_on(store.deliver(vec![event("a", "m", "go"), event("a", "m", "go")])).unwrap();
    assert_eq!(sent[0].result, Delivery::Delivered);
    assert_eq!(sent[1].result, Delivery::Duplicate);
    let run = claim_all(&store, "bob").runs.remove(0);
    assert_eq!((run.journal.unwrap().len(), run.inbox.len()), (2, 1));
    let successor = duramen_core::store::Heartbeat {
        succeeds: Some("bob".to_owned()),
        ..heartbeat("bob-2", 1_000_000, None)
    };
    let beat = block_on(store.heartbeat(successor)).unwrap();
    assert_eq!(beat.inherited, [("a".into(), 2)]);
    assert_eq!(
        block_on(store.held("bob-2".to_owned(), None, 9)).unwrap(),
        beat.inherited
    );
    assert_eq!(block_on(store.owners()).unwrap().len(), 3);
    let unread = block_on(store.unread("bob-2".to_owned(), Vec::new())).unwrap();
    assert_eq!(unread.len(), 1);
    assert!(
        block_on(store.inbox("a".into(), 1))
            .unwrap()
            .messages
            .is_empty()
    );
    let receipts = block_on(store.receipts(vec![("a".into(), "m".to_owned())])).unwrap();
    assert!(receipts[0].is_some());
    assert!(block_on(store.standing(vec!["a".into()])).unwrap()[0].is_some());
    let ask = UnsentAsk {
        before: i64::MAX,
        run_id: Some("a".into()),
        limit: 9,
    };
    let items = block_on(store.unsent(ask)).unwrap();
    assert_eq!(items.len(), 1);
    block_on(store.sent(items)).unwrap();
    assert_eq!(block_on(store.count(Filter::default())).unwrap(), 2);
    let page = block_on(store.list(Filter::default(), 1, None)).unwrap();
    assert!(page.next.is_some());
    assert!(
        block_on(store.get(vec!["a".into()])).unwrap()[0]
            .as_ref()
            .unwrap()
            .state
            .is_some()
    );
    assert_eq!(block_on(store.load("a".into(), 0, 9)).unwrap().len(), 2);
    let delete = Intervention::Delete {
        run_id: "a".into(),
        force: true,
    };
    assert_eq!(
        block_on(store.intervene(vec![delete])).unwrap(),
        [Intervened::Done]
    );
    assert_eq!(block_on(store.schema()).unwrap(), CURRENT);
    assert_eq!(
        place.number("SELECT count(*) FROM {s}.\"App_journal_json\""),
        1
    );
}

#[test]
fn two_stores_in_two_schemas_of_one_database_do_not_see_each_other() {
    let (one, other) = (Place::new(), Place::new());
    let (one, other) = (one.open(), other.open());
    create(&one, vec![new_run("a")]);
    create(&other, vec![new_run("a"), new_run("b")]);
    alive(&one, "ann");
    alive(&other, "ann");
    assert_eq!(claim_all(&one, "ann").runs.len(), 1);
    assert_eq!(block_on(other.count(Filter::default())).unwrap(), 2);
    assert_eq!(claim_all(&other, "ann").runs.len(), 2);
}
