//! One bad element of a batch, and batches that hold odd things.

use duramen_core::store::{
    CommitOutcome, Delivery, INBOX_PAGE, Inboxes, MAX_UNREAD, MessageKind, NewMessage, NewRun,
    Next, Outgoing, OutgoingKind, Queries, ReadMessage, RunCommit, Runs, Store, StoreError,
};
use duramen_store_testing::{
    APPLIED, alive, claim_all, commit, commit_one, create, entry, event, leased, new_run,
};

use crate::support::{Place, block_on};

#[test]
fn a_fenced_commit_among_63_good_ones_fails_alone() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    let ids: Vec<String> = (0..64).map(|n| format!("r{n}")).collect();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    let zombies: [fn(&mut RunCommit); 4] = [
        |commit| commit.owner = "eve".to_owned(),
        |commit| commit.epoch = 2,
        |commit| commit.expected_len += 1,
        |commit| commit.run_id = "unknown".into(),
    ];
    for (round, spoil) in (0..).zip(zombies) {
        let mut batch: Vec<RunCommit> = ids.iter().map(|id| commit(id, "ann", round + 1)).collect();
        // The one that was fenced off before is behind the others by now.
        batch[31].expected_len = 1;
        spoil(&mut batch[31]);
        let outcomes = block_on(store.commit(batch)).unwrap();
        for (place, outcome) in outcomes.iter().enumerate() {
            let expected = if place == 31 {
                CommitOutcome::Fenced
            } else {
                APPLIED
            };
            assert_eq!(*outcome, expected, "round {round}, element {place}");
        }
    }
    let entries = place.number("SELECT count(*) FROM {s}.journal WHERE run_id = 'r31'");
    assert_eq!(entries, 1);
    // It was not harmed: its true driver goes on.
    assert_eq!(commit_one(&store, commit("r31", "ann", 1)), APPLIED);
}

/// What the server refuses: a text that it cannot keep, and a row where another stands already, which says
/// that another commit of that length was there before.
#[test]
fn a_commit_that_the_server_refuses_fails_alone() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    let ids: Vec<String> = (0..64).map(|n| format!("r{n}")).collect();
    create(&store, ids.iter().map(|id| leased(id, "ann")).collect());
    place.run("INSERT INTO {s}.outgoing VALUES (1, 0, 0, 1, 'r7', 'b', '')");
    let mut batch: Vec<RunCommit> = ids.iter().map(|id| commit(id, "ann", 1)).collect();
    batch[7].outgoing = vec![Outgoing {
        kind: OutgoingKind::Message,
        target: "b".into(),
        body: "1".into(),
    }];
    batch[50].entries = vec![entry("a\0b", b"1")];
    let outcomes = block_on(store.commit(batch)).unwrap();
    for (place, outcome) in outcomes.iter().enumerate() {
        match place {
            7 => assert_eq!(*outcome, CommitOutcome::Fenced),
            50 => assert!(
                matches!(outcome, CommitOutcome::Rejected { reason } if reason.contains("0x00")),
                "{outcome:?}"
            ),
            _ => assert_eq!(*outcome, APPLIED, "element {place}"),
        }
    }
    assert_eq!(place.number("SELECT count(*) FROM {s}.journal"), 126);
    // A refused commit changes nothing: the same run goes on with a better one.
    assert_eq!(commit_one(&store, commit("r50", "ann", 1)), APPLIED);
}

#[test]
fn two_commits_of_one_run_in_one_batch_follow_each_other() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    let end = RunCommit {
        next: Next::Finished {
            status: duramen_core::run::Status::Completed,
        },
        ..commit("a", "ann", 3)
    };
    let batch = vec![
        commit("a", "ann", 1),
        commit("b", "ann", 1),
        commit("a", "ann", 2),
        end,
        // Too late, and too early.
        commit("a", "ann", 4),
        commit("b", "ann", 3),
    ];
    assert_eq!(
        block_on(store.commit(batch)).unwrap(),
        [
            APPLIED,
            APPLIED,
            APPLIED,
            APPLIED,
            CommitOutcome::Fenced,
            CommitOutcome::Fenced
        ]
    );
    let lengths = |id| {
        place.number(&format!(
            "SELECT count(*) FROM {{s}}.journal WHERE run_id = '{id}'"
        ))
    };
    assert_eq!((lengths("a"), lengths("b")), (4, 2));
}

#[test]
fn a_run_that_the_server_refuses_spoils_no_other_callers_creation() {
    let place = Place::new();
    let store = place.open();
    // The store lets no value through that its tables would refuse; a constraint of the test's own does.
    place.run("ALTER TABLE {s}.runs ADD CONSTRAINT odd CHECK (workflow <> 'bad')");
    let bad = NewRun {
        workflow: "bad".to_owned(),
        ..new_run("bad")
    };
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let new = if n == 10 {
                bad.clone()
            } else {
                new_run(&format!("r{n}"))
            };
            store.create(vec![new])
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let answer = block_on(call);
        if n == 10 {
            assert!(
                matches!(answer, Err(StoreError::Invalid { .. })),
                "{answer:?}"
            );
        } else {
            assert!(answer.unwrap()[0].is_new());
        }
    }
}

#[test]
fn ten_thousand_messages_to_one_run_are_numbered_without_gaps() {
    let place = Place::new();
    let store = place.open();
    create(&store, vec![new_run("a"), new_run("b")]);
    let calls: Vec<_> = (0..100)
        .map(|call| {
            let batch = (0..100)
                .map(|n| event("a", &format!("m{call}-{n}"), "go"))
                .collect();
            store.deliver(batch)
        })
        .collect();
    for call in calls {
        assert_eq!(block_on(call).unwrap().len(), 100);
    }
    // In the order of the calls and of their elements.
    assert_eq!(
        place.number(
            "SELECT count(*) FROM {s}.inbox WHERE run_id = 'a' AND seq = 1 \
             + 100 * split_part(substr(message_id, 2), '-', 1)::bigint + split_part(message_id, '-', 2)::bigint"
        ),
        10_000
    );
    assert_eq!(
        place.number("SELECT inbox_len FROM {s}.runs WHERE run_id = 'a'"),
        10_000
    );
    assert_eq!(
        place.number("SELECT inbox_len FROM {s}.runs WHERE run_id = 'b'"),
        0
    );
    alive(&store, "ann");
    let run = claim_all(&store, "ann").runs.remove(0);
    assert!(run.inbox_more);
    let mut seqs: Vec<u64> = run.inbox.iter().map(|message| message.seq).collect();
    assert_eq!(seqs.len(), INBOX_PAGE);
    loop {
        let page = block_on(store.inbox("a".into(), *seqs.last().unwrap())).unwrap();
        seqs.extend(page.messages.iter().map(|message| message.seq));
        if !page.more {
            break;
        }
    }
    assert!(seqs.into_iter().eq(1..=10_000));
    // It has no room for another, in whatever company it comes; a cancellation needs none.
    let cancel = NewMessage {
        kind: MessageKind::Cancel,
        ..event("a", "cancel", "")
    };
    let batch = vec![
        event("a", "more", "go"),
        event("b", "m", "go"),
        cancel,
        event("a", "m0-0", "go"),
    ];
    let results: Vec<_> = block_on(store.deliver(batch))
        .unwrap()
        .into_iter()
        .map(|one| one.result)
        .collect();
    let expected = [
        Delivery::Full,
        Delivery::Buffered,
        Delivery::Delivered,
        Delivery::Duplicate,
    ];
    assert_eq!(results, expected);
    let unread = place.number("SELECT unread::bigint FROM {s}.runs WHERE run_id = 'a'");
    assert_eq!(u64::try_from(unread), Ok(MAX_UNREAD + 1));
}

#[test]
fn calls_on_a_closed_store_are_refused() {
    let place = Place::new();
    let store = place.open();
    block_on(store.close()).unwrap();
    assert_eq!(
        block_on(store.create(vec![new_run("a")])),
        Err(StoreError::Closed)
    );
    assert_eq!(
        block_on(store.commit(vec![commit("a", "ann", 1)])),
        Err(StoreError::Closed)
    );
    assert_eq!(
        block_on(store.get(vec!["a".into()])),
        Err(StoreError::Closed)
    );
    assert_eq!(
        block_on(store.deliver(vec![event("a", "m", "go")])),
        Err(StoreError::Closed)
    );
}

#[test]
fn a_run_that_is_asked_for_twice_is_answered_twice_with_its_refused_messages() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    create(&store, vec![leased("a", "ann")]);
    block_on(store.deliver(vec![event("a", "m", "go")])).unwrap();
    let refusal = RunCommit {
        read: vec![ReadMessage {
            seq: 1,
            refused: Some("wrong shape".to_owned()),
            reply: None,
        }],
        inbox_seen: Some(1),
        ..commit("a", "ann", 1)
    };
    assert_eq!(commit_one(&store, refusal), APPLIED);
    let found = block_on(store.get(vec!["a".into(), "a".into()])).unwrap();
    assert_eq!(found[0].as_ref().unwrap().refused.len(), 1);
    assert_eq!(found[0], found[1]);
}

#[test]
fn pages_of_an_inbox_end_with_their_bytes() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    create(&store, vec![new_run("a")]);
    let large = |n: usize, bytes: usize| NewMessage {
        payload: vec![b'x'; bytes].into(),
        ..event("a", &format!("m{n}"), "go")
    };
    let mib = 1 << 20;
    let batch = vec![
        large(0, 9 * mib),
        large(1, 4 * mib),
        large(2, 4 * mib),
        large(3, 1),
    ];
    block_on(store.deliver(batch)).unwrap();
    let run = claim_all(&store, "ann").runs.remove(0);
    assert_eq!((run.inbox.len(), run.inbox_more), (1, true));
    let page = block_on(store.inbox("a".into(), 1)).unwrap();
    assert_eq!((page.messages.len(), page.more), (2, true));
    let told = vec![("a".into(), 3)];
    let unread = block_on(store.unread("ann".to_owned(), told)).unwrap();
    assert_eq!(unread.len(), 1);
    // Together they have no room; each by itself fills what is left.
    let rest = vec![large(4, 30 * mib), large(5, 30 * mib), large(6, mib)];
    let results: Vec<_> = block_on(store.deliver(rest))
        .unwrap()
        .into_iter()
        .map(|one| one.result)
        .collect();
    assert_eq!(
        results,
        [Delivery::Buffered, Delivery::Full, Delivery::Buffered]
    );
}
