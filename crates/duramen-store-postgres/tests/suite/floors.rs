//! Where claims begin to look.

use duramen_core::store::{NewRun, Start};
use duramen_store_testing::{alive, claim_all, create, new_run};

use crate::support::Place;

/// It was refused before it looked at anything.
#[test]
fn a_claim_of_an_ended_owner_hides_nothing_from_the_next_claim() {
    let place = Place::new();
    let store = place.open();
    alive(&store, "ann");
    let overdue = NewRun {
        start: Start::Queued { at: Some(1_000) },
        ..new_run("a")
    };
    create(&store, vec![overdue]);
    assert!(claim_all(&store, "nobody").lapsed);
    assert_eq!(claim_all(&store, "ann").runs.len(), 1);
}
