//! Trouble of the place: a disk that is full or failing for a moment fails whole calls with an error
//! that says so, never one element; and the store goes on by itself as soon as it is over.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use duramen_core::store::{Claims, CommitOutcome, Inboxes, Queries, Runs, Store, StoreError};
use duramen_store_sqlite::{Point, Probe, SqliteOptions, SqliteStore};

use crate::support::{
    APPLIED, Home, alive, beat, block_on, claim, commit, commit_one, create, entry, event, leased,
    new_run,
};

#[test]
fn each_code_fails_the_whole_call_or_its_own_element_and_passes() {
    let home = Home::new();
    let code = Arc::new(AtomicI32::new(0));
    let armed = Arc::clone(&code);
    let store = home.open_with(SqliteOptions {
        probe: Some(Probe::failing(move |point| {
            let code = armed.load(Ordering::SeqCst);
            (point == Point::BeforeCommit && code != 0).then_some(code)
        })),
        ..SqliteOptions::default()
    });
    alive(&store, "ann");
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    let mut length = 1;
    let extended = |primary: i32, most: i32| (0..=most).map(move |number| primary | number << 8);
    let of_the_place = [
        (5, 3),
        (6, 2),
        (8, 6),
        (10, 31),
        (13, 0),
        (14, 6),
        (7, 0),
        (15, 0),
    ];
    for (primary, most) in of_the_place {
        for failing in extended(primary, most) {
            code.store(failing, Ordering::SeqCst);
            let both = vec![commit("a", "ann", length), commit("b", "ann", length)];
            let outcome = block_on(store.commit(both.clone()));
            let error = outcome.expect_err("nothing is said of any run");
            assert!(error.is_of_the_place(), "code {failing}: {error}");
            let sent = block_on(store.deliver(vec![event("a", "m", "go")])).unwrap_err();
            assert!(sent.is_of_the_place(), "code {failing}: {sent}");
            code.store(0, Ordering::SeqCst);
            assert_eq!(block_on(store.commit(both)).unwrap(), [APPLIED, APPLIED]);
            length += 1;
        }
    }
    // What no store could ever keep is that of its element.
    for failing in extended(19, 12).chain([18]) {
        code.store(failing, Ordering::SeqCst);
        let outcome = commit_one(&store, commit("a", "ann", length));
        assert!(
            matches!(outcome, CommitOutcome::Rejected { .. }),
            "code {failing}: {outcome:?}"
        );
    }
    code.store(0, Ordering::SeqCst);
    assert_eq!(commit_one(&store, commit("a", "ann", length)), APPLIED);
}

const CHILD: &str = "DURAMEN_TEST_TROUBLE";

/// Runs this test again in a process of its own, by way of a shell.
fn child(test: &str, shell: &str) {
    let home = Home::new();
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("{shell}; exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, home.directory())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn limit_files_to(bytes: &str) {
    let done = Command::new("prlimit")
        .arg(format!("--pid={}", std::process::id()))
        .arg(format!("--fsize={bytes}:"))
        .status()
        .unwrap();
    assert!(done.success());
}

/// One call of each kind that writes; all of them fail or none does.
fn calls(store: &SqliteStore, length: u64) -> Vec<Result<(), StoreError>> {
    let mut large = commit("a", "ann", length);
    large.entries = vec![entry("s", &vec![1; 200_000])];
    vec![
        block_on(store.commit(vec![large, commit("b", "ann", length)])).map(|outcomes| {
            assert_eq!(outcomes, [APPLIED, APPLIED]);
        }),
        block_on(store.create(vec![duramen_core::store::NewRun {
            input: vec![1; 200_000].into(),
            ..new_run(&format!("new-{length}"))
        }]))
        .map(drop),
    ]
}

#[test]
fn a_disk_that_refuses_writes_for_a_while_costs_that_while() {
    let Some(directory) = std::env::var_os(CHILD) else {
        // A write beyond the limit fails instead of ending the process.
        child(
            "trouble::a_disk_that_refuses_writes_for_a_while_costs_that_while",
            "trap '' XFSZ",
        );
        return;
    };
    let file = Path::new(&directory).join("runs.db");
    let store = SqliteStore::open(&file, SqliteOptions::default()).unwrap();
    alive(&store, "ann");
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    for length in 1..4 {
        limit_files_to("100000");
        for _ in 0..3 {
            for outcome in calls(&store, length) {
                let error = outcome.expect_err("there is no room");
                assert!(error.is_of_the_place(), "{error}");
            }
        }
        limit_files_to("unlimited");
        for outcome in calls(&store, length) {
            outcome.unwrap();
        }
    }
    let standing = block_on(store.standing(vec!["a".into(), "b".into()])).unwrap();
    for one in standing {
        assert_eq!(one.unwrap().journal_len, 4);
    }
    let rows = block_on(store.owners()).unwrap();
    assert!(rows[0].ended_at.is_none());
    assert!(beat(&store, "ann", 3_600_000, None).alive);
    block_on(store.close()).unwrap();
}

#[test]
fn no_file_handles_for_a_while_fail_readers_for_that_while() {
    let Some(directory) = std::env::var_os(CHILD) else {
        child(
            "trouble::no_file_handles_for_a_while_fail_readers_for_that_while",
            "true",
        );
        return;
    };
    let file = Path::new(&directory).join("runs.db");
    let store = SqliteStore::open(&file, SqliteOptions::default()).unwrap();
    create(&store, vec![new_run("a")]);
    let limit = |most: &str| {
        let done = Command::new("prlimit")
            .arg(format!("--pid={}", std::process::id()))
            .arg(format!("--nofile={most}:"))
            .status()
            .unwrap();
        assert!(done.success());
    };
    // Of this process: its own handles stay, no new one is to be had. (The child of this call needs some.)
    let one = std::fs::File::open("/dev/null").unwrap();
    let open = std::os::fd::AsRawFd::as_raw_fd(&one) + 1;
    limit(&open.to_string());
    let mut taken = Vec::new();
    while let Ok(more) = std::fs::File::open("/dev/null") {
        taken.push(more);
    }
    let error = block_on(store.get(vec!["a".into()])).unwrap_err();
    assert!(error.is_of_the_place(), "{error}");
    taken.clear();
    drop(one);
    limit("256");
    assert!(block_on(store.get(vec!["a".into()])).unwrap()[0].is_some());
}

#[test]
fn a_file_system_that_another_file_fills_for_a_moment_costs_that_moment() {
    let Some(directory) = std::env::var_os(CHILD) else {
        // A file system of its own, in a name space of its own: this needs no rights on the machine.
        let home = Home::new();
        let mut child = Command::new("unshare");
        child
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg("mount -t tmpfs -o size=4m tmpfs \"$DURAMEN_TEST_TROUBLE\" && exec \"$0\" \"$@\"")
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "trouble::a_file_system_that_another_file_fills_for_a_moment_costs_that_moment",
                "--nocapture",
            ])
            .env(CHILD, home.directory());
        let output = child.output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    };
    let directory = Path::new(&directory);
    let store = SqliteStore::open(&directory.join("runs.db"), SqliteOptions::default()).unwrap();
    alive(&store, "ann");
    create(&store, vec![leased("a", "ann"), leased("b", "ann")]);
    // Full: another file takes what is left, then goes.
    let filler = directory.join("filler");
    for length in 1..4 {
        let room = vec![0; 8 << 20];
        assert!(std::fs::write(&filler, &room).is_err());
        for outcome in calls(&store, length) {
            let error = outcome.expect_err("there is no room");
            assert!(error.is_of_the_place(), "{error}");
        }
        std::fs::remove_file(&filler).unwrap();
        for outcome in calls(&store, length) {
            outcome.unwrap();
        }
    }
    assert!(block_on(store.claim(claim("ann", 0))).unwrap().more);
}
