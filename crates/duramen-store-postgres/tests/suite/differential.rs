//! The Postgres store answers every call as the reference store in memory does.

use duramen_store_memory::MemoryStore;
use duramen_store_postgres::{Isolation, PostgresOptions, Statements};
use duramen_store_testing::same_answers;

use crate::support::Place;

fn same_as_memory(cases: u32, change: impl Fn(PostgresOptions) -> PostgresOptions) {
    let place = Place::new();
    let options = change(place.options());
    place.open_with(options.clone());
    same_answers(cases, || {
        place.run(
            "DELETE FROM {s}.runs; DELETE FROM {s}.journal; DELETE FROM {s}.inbox; DELETE FROM {s}.run_data; DELETE FROM {s}.run_tags; DELETE FROM {s}.outgoing; DELETE FROM {s}.stream_items; DELETE FROM {s}.owners; DELETE FROM {s}.schedules",
        );
        (MemoryStore::new(), place.open_with(options.clone()))
    });
}

#[test]
fn postgres_and_memory_give_the_same_answers_to_the_same_calls() {
    same_as_memory(96, |options| options);
}

#[test]
fn so_they_do_through_a_pooler_and_at_the_strictest_isolation() {
    same_as_memory(32, |options| PostgresOptions {
        statements: Statements::Unnamed,
        isolation: Isolation::Serializable,
        pool_size: 1,
        ..options
    });
}
