//! The SQLite store answers every call as the reference store in memory does.

use std::sync::Mutex;

use duramen_store_memory::MemoryStore;
use duramen_store_sqlite::{SqliteOptions, Synchronous};
use duramen_store_testing::same_answers;

use crate::support::Home;

#[test]
fn sqlite_and_memory_give_the_same_answers_to_the_same_calls() {
    // The file of one sequence is removed when the next begins.
    let home = Mutex::new(Home::new());
    same_answers(192, || {
        let mut home = home
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *home = Home::new();
        // The test is about answers; nothing of it has to survive a power cut.
        let sqlite = home.open_with(SqliteOptions {
            synchronous: Synchronous::Normal,
            ..SqliteOptions::default()
        });
        (MemoryStore::new(), sqlite)
    });
}
