//! Files that are missing, foreign, damaged, locked or not ours to write: typed errors that name the
//! file and say what to do.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use duramen_core::store::{Filter, Queries, Runs, Store, StoreError};
use duramen_store_sqlite::{SqliteOptions, SqliteStore, Synchronous};

use crate::support::{Home, alive, block_on, claim_all, create, new_run};

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(
        path,
        SqliteOptions {
            busy_timeout: Duration::from_millis(50),
            ..SqliteOptions::default()
        },
    )
}

#[test]
fn a_missing_directory_is_named() {
    let home = Home::new();
    let error = open(&home.directory().join("no/such/runs.db")).unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable { reason } if reason.contains("no/such does not exist")),
        "{error}"
    );
    assert!(error.is_of_the_place());
}

#[test]
fn a_directory_is_no_file() {
    let home = Home::new();
    let error = open(home.directory()).unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable { reason } if reason.contains("directory")),
        "{error}"
    );
}

#[test]
fn a_store_without_a_file_is_refused() {
    for path in ["", ":memory:"] {
        let error = open(Path::new(path)).unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
}

#[test]
fn a_file_that_is_not_a_database_is_refused_and_left_alone() {
    let home = Home::new();
    let text = "This is a diary, and no database at all.\n".repeat(50);
    std::fs::write(home.file(), &text).unwrap();
    let error = open(&home.file()).unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt { reason } if reason.contains("not a SQLite file")),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(home.file()).unwrap(), text);
}

#[test]
fn a_damaged_file_is_an_error_and_not_a_panic() {
    let home = Home::new();
    let store = home.open();
    create(
        &store,
        (0..400).map(|n| new_run(&format!("r{n}"))).collect(),
    );
    block_on(store.close()).unwrap();
    let mut bytes = std::fs::read(home.file()).unwrap();
    // The first page (the schema) stays whole, the others do not.
    bytes[4096..].fill(0xa5);
    std::fs::write(home.file(), &bytes).unwrap();
    let store = match open(&home.file()) {
        Err(error) => {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            return;
        }
        Ok(store) => store,
    };
    let error = block_on(store.get(vec!["r1".into()])).unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt { reason } if reason.contains("backup")),
        "{error}"
    );
    let error = block_on(store.create(vec![new_run("new")])).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(!error.is_of_the_place());
}

#[test]
fn a_run_with_an_entry_that_cannot_be_read_is_parked_and_does_not_block_the_others() {
    let home = Home::new();
    let store = home.open();
    create(&store, vec![new_run("a"), new_run("b"), new_run("c")]);
    home.connection()
        .execute("UPDATE journal SET kind = 999 WHERE run_id = 'b'", [])
        .unwrap();
    alive(&store, "ann");
    let claimed = claim_all(&store, "ann");
    let names: Vec<&str> = claimed.runs.iter().map(|run| &*run.row.run_id).collect();
    assert_eq!(names, ["a", "c"]);
    let page = block_on(store.list(duramen_core::store::Filter::default(), 10, None)).unwrap();
    let parked = page.rows.iter().find(|row| &*row.run_id == "b").unwrap();
    assert_eq!(parked.status, duramen_core::run::Status::Stuck);
    assert!(parked.note.as_deref().unwrap().contains("kind"));
    assert!(matches!(
        block_on(store.load("b".into(), 0, 10)),
        Err(StoreError::Corrupt { .. })
    ));
}

#[test]
fn a_lock_held_by_another_connection_is_an_error_for_all_and_passes_with_the_lock() {
    let home = Home::new();
    let store = open(&home.file()).unwrap();
    let other = home.connection();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let calls = [
        store.create(vec![new_run("a")]),
        store.create(vec![new_run("b")]),
    ];
    for call in calls {
        let error = block_on(call).unwrap_err();
        assert!(
            matches!(&error, StoreError::Locked { reason } if reason.contains("runs.db")),
            "{error}"
        );
        assert!(error.is_of_the_place());
    }
    // Readers are not held up by a writer.
    assert_eq!(block_on(store.get(vec!["a".into()])).unwrap(), [None]);
    other.execute_batch("ROLLBACK").unwrap();
    create(&store, vec![new_run("a")]);
}

#[test]
fn a_payload_of_50_megabytes_comes_back_as_it_went() {
    let home = Home::new();
    let store = home.open();
    let large: Vec<u8> = (0..50_u32 << 20).map(|n| (n % 251) as u8).collect();
    let mut new = new_run("a");
    new.input = large.clone().into();
    create(&store, vec![new]);
    alive(&store, "ann");
    let claimed = claim_all(&store, "ann");
    let journal = claimed.runs[0].journal.as_ref().unwrap();
    assert!(journal[0].payload == large);
}

const CHILD: &str = "DURAMEN_TEST_READ_ONLY_FILE";

#[test]
fn a_file_that_may_only_be_read_is_refused() {
    if let Some(path) = std::env::var_os(CHILD) {
        let error = open(Path::new(&path)).unwrap_err();
        assert!(
            matches!(&error, StoreError::ReadOnly { reason } if reason.contains("write access")),
            "{error}"
        );
        return;
    }
    let home = Home::new();
    let store = home.open();
    create(&store, vec![new_run("a")]);
    block_on(store.close()).unwrap();
    let readable = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    readable(&home.file(), 0o444);
    readable(home.directory(), 0o755);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "files::a_file_that_may_only_be_read_is_refused"])
        .env(CHILD, home.file());
    if std::fs::OpenOptions::new()
        .write(true)
        .open(home.file())
        .is_ok()
    {
        // The superuser may write everything; another user is asked.
        child.uid(65_534).gid(65_534).current_dir("/");
    }
    let output = child.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_file_with_two_names_is_refused() {
    let home = Home::new();
    let store = home.open();
    let other = home.directory().join("other.db");
    std::fs::hard_link(home.file(), &other).unwrap();
    for path in [home.file(), other.clone()] {
        let error = open(&path).unwrap_err();
        assert!(
            matches!(&error, StoreError::Unavailable { reason } if reason.contains("2 names")),
            "{error}"
        );
    }
    // Also by a store that was open before it got one, until it is gone.
    assert!(block_on(store.create(vec![new_run("a")])).is_err());
    std::fs::remove_file(other).unwrap();
    create(&store, vec![new_run("a")]);
}

#[test]
fn a_file_that_was_removed_or_replaced_takes_nothing_more() {
    let home = Home::new();
    let store = home.open();
    create(&store, vec![new_run("a")]);
    let aside = home.directory().join("aside");
    std::fs::rename(home.file(), &aside).unwrap();
    let refused = |about: &str| {
        for _ in 0..2 {
            let error = block_on(store.create(vec![new_run("b")])).unwrap_err();
            assert!(error.is_of_the_place(), "{error}");
            assert!(error.to_string().contains(about), "{error}");
        }
    };
    refused("not there any more");
    drop(std::fs::File::create(home.file()).unwrap());
    refused("another file");
    assert!(
        store
            .outside(Synchronous::Full, Duration::ZERO)
            .unwrap_err()
            .to_string()
            .contains("another file")
    );
    // Put back, it is the same one as before.
    std::fs::rename(&aside, home.file()).unwrap();
    create(&store, vec![new_run("b")]);
    assert!(block_on(store.get(vec!["a".into()])).unwrap()[0].is_some());
}

#[test]
fn a_log_that_was_removed_or_replaced_takes_nothing_more() {
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    let replace = |path: &Path| {
        let fresh = path.with_extension("fresh");
        drop(std::fs::File::create(&fresh).unwrap());
        std::fs::rename(fresh, path).unwrap();
    };
    for end in ["-wal", "-shm"] {
        for lose in [&remove as &dyn Fn(&Path), &replace] {
            let home = Home::new();
            let store = home.open();
            create(&store, vec![new_run("a")]);
            let mut beside = home.file().into_os_string();
            beside.push(end);
            lose(Path::new(&beside));
            let refused = |error: &StoreError| {
                let said = error.to_string();
                assert!(error.is_of_the_place(), "{said}");
                assert!(
                    said.contains("part of the store") && said.contains(end),
                    "{said}"
                );
            };
            for _ in 0..2 {
                refused(&block_on(store.create(vec![new_run("b")])).unwrap_err());
            }
            // What would be opened now would have another log than the writer.
            refused(&block_on(store.get(vec!["a".into()])).unwrap_err());
            refused(
                &store
                    .outside(Synchronous::Full, Duration::ZERO)
                    .unwrap_err(),
            );
            // Closed in order, nothing is lost.
            block_on(store.close()).unwrap();
            let store = home.open();
            let found = block_on(store.get(vec!["a".into(), "b".into()])).unwrap();
            assert_eq!(
                found.iter().map(Option::is_some).collect::<Vec<_>>(),
                [true, false]
            );
        }
    }
}

#[test]
fn a_log_that_was_put_back_is_the_same_as_before() {
    let home = Home::new();
    let store = home.open();
    create(&store, vec![new_run("a")]);
    let log = home.directory().join("runs.db-wal");
    let aside = home.directory().join("aside");
    std::fs::rename(&log, &aside).unwrap();
    assert!(block_on(store.create(vec![new_run("b")])).is_err());
    std::fs::rename(&aside, &log).unwrap();
    create(&store, vec![new_run("b")]);
}

const MOUNTED: &str = "DURAMEN_TEST_MOUNTED";

#[test]
fn a_file_that_is_mounted_by_itself_is_refused() {
    let Some(directory) = std::env::var_os(MOUNTED) else {
        let home = Home::new();
        let store = home.open();
        block_on(store.close()).unwrap();
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg("cd \"$DURAMEN_TEST_MOUNTED\" && touch \"a b\" && mount --bind runs.db \"a b\" && exec \"$0\" \"$@\"")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "files::a_file_that_is_mounted_by_itself_is_refused"])
            .env(MOUNTED, home.directory())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        return;
    };
    let directory = Path::new(&directory);
    let link = directory.join("link.db");
    std::os::unix::fs::symlink("a b", &link).unwrap();
    for path in [&directory.join("a b"), &link] {
        let error = open(path).unwrap_err();
        assert!(error.to_string().contains("mount its folder"), "{error}");
        assert!(error.is_of_the_place());
    }
    block_on(open(&directory.join("runs.db")).unwrap().close()).unwrap();
}

const WANDERER: &str = "DURAMEN_TEST_WANDERER";

#[test]
fn a_change_of_the_working_directory_changes_no_connection() {
    if std::env::var_os(WANDERER).is_none() {
        // A working directory is the whole process's.
        let home = Home::new();
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "files::a_change_of_the_working_directory_changes_no_connection",
            ])
            .env(WANDERER, "yes")
            .current_dir(home.directory())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        return;
    }
    let store = open(Path::new("runs.db")).unwrap();
    std::fs::create_dir("elsewhere").unwrap();
    std::env::set_current_dir("elsewhere").unwrap();
    create(&store, vec![new_run("a")]);
    // The first question opens a connection.
    assert!(block_on(store.get(vec!["a".into()])).unwrap()[0].is_some());
    store.outside(Synchronous::Full, Duration::ZERO).unwrap();
    assert!(store.path().is_absolute());
    block_on(store.close()).unwrap();
    assert_eq!(std::fs::read_dir(".").unwrap().count(), 0);
}

#[test]
fn once_closed_all_is_in_the_one_file() {
    for _ in 0..100 {
        let home = Home::new();
        let store = open(&home.file()).unwrap();
        create(&store, vec![new_run("a")]);
        let reads = [
            store.count(Filter::default()),
            store.count(Filter::default()),
        ];
        let closed = store.close();
        for read in reads {
            assert_eq!(block_on(read).unwrap(), 1);
        }
        block_on(closed).unwrap();
        let left: Vec<_> = std::fs::read_dir(home.directory())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [home.file().file_name().unwrap()]);
    }
}
