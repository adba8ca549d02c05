//! Rules that deserve a test of their own beside the comparison with the reference store. Each is
//! checked on both stores.

use duramen_core::ids::Payload;
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{
    CommitOutcome, Delivery, Due, Inboxes, Intervened, Intervention, MessageKind, NewRun, Next,
    ReadMessage, Receipt, RunCommit, Start, Store, StoreError,
};
use duramen_store_memory::MemoryStore;

use crate::support::{
    APPLIED, Home, alive, beat, block_on, claim, claim_all, commit, commit_one, create, entry,
    event, heartbeat, lane, leased, new_run,
};

fn on_both(rule: impl Fn(&dyn Store)) {
    for store in [
        &MemoryStore::new() as &dyn Store,
        &Home::new().open() as &dyn Store,
    ] {
        alive(store, "ann");
        alive(store, "bob");
        rule(store);
    }
}

fn row(store: &dyn Store, run_id: &str) -> duramen_core::run::RunRow {
    let mut found = block_on(store.get(vec![run_id.into()])).unwrap();
    found.remove(0).unwrap().row
}

fn waiting(run_id: &str, ready_at: Option<i64>, waits: &[&str]) -> duramen_core::store::RunCommit {
    let waits = waits.iter().map(|wait| (*wait).to_owned()).collect();
    let mut pause = commit(run_id, "ann", 1);
    pause.next = Next::Waiting { ready_at, waits };
    pause
}

#[test]
fn an_owner_whose_lease_has_lapsed_is_never_renewed_and_its_runs_are_anybodys() {
    on_both(|store| {
        assert!(beat(store, "old", 50, Some(0)).alive);
        assert!(beat(store, "new", 1_000, Some(0)).alive);
        let mut new = leased("a", "old");
        new.now = Some(0);
        create(store, vec![new]);
        assert_eq!(commit_one(store, commit("a", "old", 1)), APPLIED);
        let mut take = claim("new", 10);
        take.now = Some(49);
        assert!(block_on(store.claim(take.clone())).unwrap().runs.is_empty());
        take.now = Some(50);
        let run = block_on(store.claim(take)).unwrap().runs.remove(0);
        assert_eq!((run.was, run.row.epoch), (Status::Running, 2));
        // The length is that of the journal, not what the row said.
        assert_eq!(
            (run.row.journal_len, run.row.lost, run.row.lost_at),
            (2, 1, 2)
        );
        assert!(!beat(store, "old", 1_000, Some(51)).alive);
        // Nor with a clock that was put back: it has ended for good.
        assert!(!beat(store, "old", 1_000, Some(10)).alive);
        assert_eq!(
            commit_one(store, commit("a", "old", 2)),
            CommitOutcome::Fenced
        );
        let mut late = claim("old", 10);
        late.now = Some(51);
        assert!(block_on(store.claim(late)).unwrap().lapsed);
        let held = |owner: &str| block_on(store.held(owner.to_owned(), None, 10)).unwrap();
        assert_eq!(held("new"), [("a".into(), 2)]);
        assert!(held("old").is_empty());
        // A successor takes over with the epoch as it is.
        let mut heir = heartbeat("heir", 1_000, Some(60));
        heir.succeeds = Some("new".to_owned());
        let heir = block_on(store.heartbeat(heir)).unwrap();
        assert_eq!(heir.inherited, [("a".into(), 2)]);
        let mut goes_on = commit("a", "heir", 2);
        goes_on.epoch = 2;
        assert_eq!(commit_one(store, goes_on), APPLIED);
    });
}

#[test]
fn a_page_of_what_is_held_goes_over_all_lanes() {
    on_both(|store| {
        let runs = (0..20).map(|n| duramen_core::store::NewRun {
            workflow: ["w", "x", "y"][n % 3].to_owned(),
            ..leased(&format!("r{n:02}"), "ann")
        });
        create(store, runs.collect());
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let page = block_on(store.held("ann".to_owned(), after.clone(), 7)).unwrap();
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            seen.extend(page.into_iter().map(|(run_id, _)| run_id.to_string()));
        }
        assert_eq!(seen.len(), 20);
        assert!(seen.is_sorted());
    });
}

#[test]
fn whatever_a_late_commit_would_make_of_the_run_it_is_fenced() {
    type Late = fn(&mut RunCommit);
    let late: [Late; 9] = [
        |commit| commit.seed = [8; 16],
        |commit| commit.owner = "bob".to_owned(),
        |commit| commit.epoch = 0,
        |commit| commit.epoch = 2,
        |commit| commit.expected_len = 0,
        |commit| commit.expected_len = 1,
        |commit| commit.expected_len = 3,
        |commit| commit.expected_len = i64::MAX.unsigned_abs(),
        |commit| commit.expected_len = u64::MAX,
    ];
    let nexts = [
        Next::Running,
        Next::Finished {
            status: Status::Failed,
        },
        Next::Stuck {
            note: "n".to_owned(),
        },
        Next::Waiting {
            ready_at: Some(5),
            waits: vec!["timer".to_owned()],
        },
        Next::Continued {
            ready_at: 5,
            version: "2".to_owned(),
        },
    ];
    on_both(|store| {
        create(store, vec![leased("a", "ann"), leased("b", "ann")]);
        assert_eq!(commit_one(store, commit("a", "ann", 1)), APPLIED);
        let before = row(store, "a");
        for next in &nexts {
            for (number, spoil) in late.iter().enumerate() {
                for inbox_seen in [None, Some(u64::MAX)] {
                    let mut spoilt = RunCommit {
                        next: next.clone(),
                        inbox_seen,
                        ..commit("a", "ann", 2)
                    };
                    if matches!(next, Next::Continued { .. }) {
                        spoilt.entries =
                            vec![Entry::new(Kind::RunCreated, "".into(), Payload::new(), 1)];
                    }
                    spoil(&mut spoilt);
                    let outcome = commit_one(store, spoilt);
                    assert_eq!(outcome, CommitOutcome::Fenced, "{next:?}, {number}");
                }
            }
        }
        assert_eq!(row(store, "a"), before);
        assert_eq!(block_on(store.load("a".into(), 0, 9)).unwrap().len(), 2);
        let end = RunCommit {
            next: nexts[1].clone(),
            inbox_seen: Some(u64::MAX),
            ..commit("a", "ann", 2)
        };
        assert_eq!(commit_one(store, end), APPLIED);
        let after = row(store, "a");
        assert_eq!(
            (after.status, after.journal_len, after.inbox_seen),
            (Status::Failed, 3, 0)
        );
    });
}

#[test]
fn an_append_leaves_the_row_and_a_pause_writes_it() {
    on_both(|store| {
        create(store, vec![leased("a", "ann")]);
        let before = row(store, "a");
        for length in 1..4 {
            assert_eq!(commit_one(store, commit("a", "ann", length)), APPLIED);
        }
        assert_eq!(row(store, "a"), before);
        let standing = block_on(store.standing(vec!["a".into(), "b".into()])).unwrap();
        assert_eq!(standing[0].as_ref().unwrap().journal_len, 4);
        assert_eq!(standing[1], None);
        for wrong in [3, 5, 0, u64::MAX] {
            let outcome = commit_one(store, commit("a", "ann", wrong));
            assert_eq!(outcome, CommitOutcome::Fenced, "at {wrong}");
        }
        let other_life = duramen_core::store::RunCommit {
            seed: [8; 16],
            ..commit("a", "ann", 4)
        };
        assert_eq!(commit_one(store, other_life), CommitOutcome::Fenced);
        let mut pause = waiting("a", None, &["event:go"]);
        pause.expected_len = 4;
        assert_eq!(commit_one(store, pause), APPLIED);
        let after = row(store, "a");
        assert_eq!((after.journal_len, after.updated_at), (5, 10));
    });
}

#[test]
fn an_inbox_has_an_end_and_a_cancellation_passes_it() {
    on_both(|store| {
        create(store, vec![leased("a", "ann")]);
        let large = |id: &str| {
            let mut large = event("a", id, "go");
            large.payload = vec![1; 22 << 20].into();
            large
        };
        let send = |message| {
            block_on(store.deliver(vec![message]))
                .unwrap()
                .remove(0)
                .result
        };
        assert_eq!(send(large("1")), Delivery::Buffered);
        assert_eq!(send(large("2")), Delivery::Buffered);
        assert_eq!(send(large("3")), Delivery::Full);
        assert_eq!(send(large("2")), Delivery::Duplicate);
        let mut cancel = event("a", "c", "");
        cancel.kind = MessageKind::Cancel;
        assert_eq!(send(cancel), Delivery::Delivered);
        // A page has room for one of these.
        let page = block_on(store.inbox("a".into(), 0)).unwrap();
        assert_eq!((page.messages.len(), page.more), (1, true));
        let mut reads = commit("a", "ann", 1);
        reads.read = vec![ReadMessage {
            seq: 1,
            refused: None,
            reply: Some(vec![5].into()),
        }];
        assert_eq!(commit_one(store, reads), APPLIED);
        assert_eq!(send(large("3")), Delivery::Buffered);
        let receipts = block_on(store.receipts(vec![
            ("a".into(), "1".to_owned()),
            ("a".into(), "2".to_owned()),
            ("a".into(), "9".to_owned()),
        ]));
        let consumed = Receipt::Consumed {
            reply: Some(vec![5].into()),
        };
        assert_eq!(
            receipts.unwrap(),
            [Some(consumed), Some(Receipt::Unread), None]
        );
    });
}

#[test]
fn runs_that_only_a_newer_build_can_read_are_left_to_it() {
    on_both(|store| {
        create(store, vec![new_run("a"), new_run("b")]);
        let mut newer = event("a", "m", "go");
        newer.encoding = 2;
        block_on(store.deliver(vec![newer])).unwrap();
        let names = |lanes: Vec<String>| -> Vec<String> {
            let mut take = claim("ann", 10);
            take.lanes = lanes;
            let runs = block_on(store.claim(take)).unwrap().runs;
            runs.iter().map(|run| run.row.run_id.to_string()).collect()
        };
        assert_eq!(names(vec![lane("w")]), ["b"]);
        assert_eq!(
            names(vec![lane("w").replace("\u{1f}1\u{1f}1", "\u{1f}1\u{1f}2")]),
            ["a"]
        );
    });
}

#[test]
fn a_pause_is_due_at_once_if_a_message_came_that_its_driver_has_not_seen() {
    on_both(|store| {
        create(store, vec![leased("a", "ann"), leased("b", "ann")]);
        block_on(store.deliver(vec![event("a", "m", "go"), event("b", "m", "go")])).unwrap();
        let unread = block_on(store.unread("ann".to_owned(), Vec::new())).unwrap();
        assert_eq!(unread.len(), 2);
        let unseen = waiting("a", None, &["event:go"]);
        assert_eq!(
            commit_one(store, unseen),
            CommitOutcome::Applied { due: true }
        );
        let mut seen = waiting("b", None, &["event:other"]);
        seen.inbox_seen = Some(1);
        assert_eq!(commit_one(store, seen), APPLIED);
        let claimed = claim_all(store, "bob");
        assert_eq!(claimed.runs.len(), 1);
        assert_eq!(
            (claimed.runs[0].was, claimed.runs[0].inbox.len()),
            (Status::Waiting, 1)
        );
    });
}

#[test]
fn a_consumed_message_stays_a_duplicate_for_ever_even_when_the_run_has_ended() {
    on_both(|store| {
        create(store, vec![leased("a", "ann")]);
        let mut approval = event("a", "m", "ship");
        approval.kind = MessageKind::Approval;
        approval.fingerprint = Some("yes".to_owned());
        let send = |message: &duramen_core::store::NewMessage| {
            block_on(store.deliver(vec![message.clone()]))
                .unwrap()
                .remove(0)
        };
        let first = send(&approval);
        assert_eq!(
            (first.result, first.owner.as_deref()),
            (Delivery::Buffered, Some("ann"))
        );
        let mut end = commit("a", "ann", 1);
        end.read = vec![ReadMessage {
            seq: 1,
            refused: None,
            reply: None,
        }];
        end.next = Next::Finished {
            status: Status::Completed,
        };
        assert_eq!(commit_one(store, end), APPLIED);
        approval.fingerprint = Some("no".to_owned());
        let second = send(&approval);
        assert_eq!(second.result, Delivery::Duplicate);
        assert_eq!(second.fingerprint.as_deref(), Some("yes"));
        assert_eq!(send(&event("a", "m2", "ship")).result, Delivery::Finished);
        assert_eq!(
            send(&event("nobody", "m", "ship")).result,
            Delivery::NotFound
        );
    });
}

#[test]
fn a_refused_message_is_kept_with_its_reason_and_not_given_to_drivers_again() {
    on_both(|store| {
        create(store, vec![leased("a", "ann")]);
        block_on(store.deliver(vec![event("a", "m", "go")])).unwrap();
        let mut pause = waiting("a", Some(5), &["event:go"]);
        pause.inbox_seen = Some(1);
        pause.read = vec![ReadMessage {
            seq: 1,
            refused: Some("not a number".to_owned()),
            reply: None,
        }];
        assert_eq!(commit_one(store, pause), APPLIED);
        assert!(claim_all(store, "bob").runs[0].inbox.is_empty());
        let detail = block_on(store.get(vec!["a".into()]))
            .unwrap()
            .remove(0)
            .unwrap();
        let (message, reason) = &detail.refused[0];
        assert_eq!(
            (&message.payload[..], &**reason),
            (&b"\"hello\""[..], "not a number")
        );
    });
}

#[test]
fn a_claim_brings_no_more_bytes_than_asked_for_but_always_a_run() {
    on_both(|store| {
        let sized = |name: &str, bytes: usize| NewRun {
            input: vec![1; bytes].into(),
            now: Some(0),
            ..new_run(name)
        };
        create(
            store,
            vec![
                sized("a", 1_000),
                sized("b", 600),
                sized("c", 300),
                sized("d", 200),
            ],
        );
        let take = |limit: u32, max_bytes: u64| {
            let mut take = claim("ann", limit);
            take.max_bytes = Some(max_bytes);
            let claimed = block_on(store.claim(take)).unwrap();
            let names: Vec<String> = claimed
                .runs
                .iter()
                .map(|run| run.row.run_id.to_string())
                .collect();
            (names.join(""), claimed.more)
        };
        assert_eq!(take(10, 10), ("a".to_owned(), true));
        assert_eq!(take(10, 900), ("bc".to_owned(), true));
        assert_eq!(take(10, 900), ("d".to_owned(), false));
    });
}

#[test]
fn lines_are_served_in_turn_and_runs_of_a_line_due_at_the_same_instant_by_their_ids() {
    on_both(|store| {
        let at = |name: &str, workflow: &str, start: Start| NewRun {
            workflow: workflow.to_owned(),
            start,
            now: Some(0),
            ..new_run(name)
        };
        let queued = || Start::Queued { at: Some(5) };
        assert!(beat(store, "gone", 5, Some(0)).alive);
        assert!(beat(store, "cyd", 100, Some(0)).alive);
        let lost = || Start::Leased {
            owner: "gone".to_owned(),
        };
        create(
            store,
            vec![
                at("d", "w", lost()),
                at("e", "w", lost()),
                at("c", "x", queued()),
                at("b", "w", queued()),
                NewRun {
                    priority: 9,
                    ..at("0", "x", queued())
                },
                at("a", "x", queued()),
            ],
        );
        let mut take = claim("cyd", 5);
        take.now = Some(50);
        take.lanes.push(lane("x"));
        let mut names = |limit: u32, turn: u64| {
            (take.limit, take.turn) = (limit, turn);
            let claimed = block_on(store.claim(take.clone())).unwrap();
            let names = claimed.runs.iter().map(|run| run.row.run_id.to_string());
            (names.collect::<String>(), claimed.more)
        };
        // The lines: lost, woken and queued runs of w, then those of x.
        assert_eq!(names(0, 0), (String::new(), true));
        assert_eq!(names(1, 2), ("b".to_owned(), true));
        assert_eq!(names(1, 3), ("a".to_owned(), true));
        assert_eq!(names(2, 3), ("cd".to_owned(), true));
        // The lower priority comes last, although its id is the least.
        assert_eq!(names(5, 3), ("0e".to_owned(), false));
    });
}

#[test]
fn a_claim_of_one_run_takes_it_only_if_it_is_due_and_asked_for() {
    on_both(|store| {
        create(store, vec![new_run("a"), new_run("b")]);
        let take = |due: Due, workflow: &str| {
            let mut take = claim("ann", 10);
            take.run_id = Some("b".into());
            take.due = due;
            take.lanes = vec![lane(workflow)];
            block_on(store.claim(take)).unwrap().runs.len()
        };
        assert_eq!(take(Due::Wake, "w"), 0);
        assert_eq!(take(Due::Queued, "x"), 0);
        assert_eq!(take(Due::Queued, "w"), 1);
        assert_eq!(take(Due::Any, "w"), 0);
    });
}

#[test]
fn a_terminated_run_fences_its_driver_off_and_can_be_reopened() {
    on_both(|store| {
        create(store, vec![leased("a", "ann")]);
        let intervene = |one: Intervention| block_on(store.intervene(vec![one])).unwrap()[0];
        let terminate = Intervention::Terminate {
            run_id: "a".into(),
            entry: entry("", b"reason"),
            outgoing: Vec::new(),
        };
        assert_eq!(intervene(terminate.clone()), Intervened::Done);
        assert_eq!(intervene(terminate), Intervened::NotAllowed);
        assert_eq!(
            commit_one(store, commit("a", "ann", 1)),
            CommitOutcome::Fenced
        );
        let reopen = |expected_len| Intervention::Reopen {
            version: None,
            run_id: "a".into(),
            expected_len,
            entries: vec![entry("", b"")],
            outgoing: Vec::new(),
            now: Some(77),
        };
        assert_eq!(intervene(reopen(1)), Intervened::NotAllowed);
        assert_eq!(intervene(reopen(2)), Intervened::Done);
        let after = row(store, "a");
        assert_eq!(
            (after.status, after.ready_at, after.epoch),
            (Status::Queued, Some(77), 3)
        );
        let delete = |force| Intervention::Delete {
            run_id: "a".into(),
            force,
        };
        assert_eq!(intervene(delete(false)), Intervened::NotAllowed);
        assert_eq!(intervene(delete(true)), Intervened::Done);
        assert_eq!(intervene(delete(true)), Intervened::NotFound);
        assert!(block_on(store.load("a".into(), 0, 10)).unwrap().is_empty());
    });
}

#[test]
fn names_that_could_not_be_found_again_are_refused() {
    on_both(|store| {
        let bad = |change: &dyn Fn(&mut NewRun)| {
            let mut new = new_run("a");
            change(&mut new);
            block_on(store.create(vec![new_run("fine"), new]))
        };
        let refused = [
            bad(&|new| new.run_id = "".into()),
            bad(&|new| new.run_id = "a\0b".into()),
            bad(&|new| new.run_id = "a".repeat(256).into()),
            bad(&|new| new.tags = vec!["a\u{1f}b".to_owned()]),
            bad(&|new| new.workflow = String::new()),
        ];
        for outcome in refused {
            assert!(
                matches!(outcome, Err(StoreError::Invalid { .. })),
                "{outcome:?}"
            );
        }
        assert_eq!(block_on(store.get(vec!["fine".into()])).unwrap(), [None]);
        create(store, vec![leased("a", "ann")]);
        let split = commit_one(store, waiting("a", None, &["event:a\u{1f}b"]));
        assert!(matches!(split, CommitOutcome::Rejected { .. }));
    });
}

#[test]
fn ten_thousand_messages_and_a_hundred_thousand_entries_are_kept_in_order() {
    let home = Home::new();
    let store = home.open();
    alive(&store, "ann");
    alive(&store, "bob");
    create(&store, vec![leased("a", "ann")]);
    for part in 0..10 {
        let messages = (0..1_000)
            .map(|n| event("a", &format!("m{part}-{n}"), "go"))
            .collect();
        block_on(store.deliver(messages)).unwrap();
    }
    for part in 0..10_u64 {
        let mut one = commit("a", "ann", 1 + part * 10_000);
        one.entries = vec![entry("step", b"1"); 10_000];
        one.read = (1..=900)
            .map(|n| ReadMessage {
                seq: part * 1_000 + n,
                refused: None,
                reply: None,
            })
            .collect();
        one.inbox_seen = Some((part + 1) * 1_000);
        assert_eq!(commit_one(&store, one), APPLIED);
    }
    assert_eq!(
        commit_one(&store, {
            let mut pause = waiting("a", Some(0), &[]);
            pause.expected_len = 100_001;
            pause
        }),
        APPLIED
    );
    let claimed = claim_all(&store, "bob");
    let run = &claimed.runs[0];
    assert_eq!(run.journal.as_ref().unwrap().len(), 100_002);
    assert_eq!(run.inbox.len(), 1_000);
    assert!(run.inbox.is_sorted_by_key(|message| message.seq));
    assert_eq!(run.inbox[0].seq, 901);
}
