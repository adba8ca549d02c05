//! The numbers of migrations, and with which of them a build can work.

use duramen_core::store::{Schema, StoreError};

/// A migration: its name, which begins with its number, and its statements, which record it as well.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    pub name: &'static str,
    pub sql: &'static str,
}

/// All migrations of a store.
#[derive(Debug, Clone, Copy)]
pub struct Migrations(&'static [Migration]);

impl Migrations {
    /// In order of their numbers, from one on; append, never change one that has been released.
    ///
    /// # Panics
    ///
    /// If a name does not begin with its number in four digits and a `_`: at compile time, as a constant.
    pub const fn new(all: &'static [Migration]) -> Self {
        let mut place = 0;
        while place < all.len() {
            let name = all[place].name.as_bytes();
            assert!(name.len() > 5 && name[4] == b'_', "NUMBER_NAME is expected");
            let (mut number, mut digit) = (0, 0);
            while digit < 4 {
                assert!(name[digit].is_ascii_digit(), "a number has four digits");
                number = number * 10 + (name[digit] - b'0') as usize;
                digit += 1;
            }
            place += 1;
            assert!(number == place, "migrations have no gaps in their numbers");
        }
        Self(all)
    }

    /// The number of the newest one, which is what this build needs.
    pub fn needed(self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Each with its number.
    pub fn numbered(self) -> impl Iterator<Item = (u32, &'static Migration)> {
        (1..).zip(self.0)
    }

    /// Those after the one with this number, each with its own.
    pub fn after(self, found: u32) -> impl Iterator<Item = (u32, &'static Migration)> {
        self.numbered().filter(move |(number, _)| *number > found)
    }
}

/// What is there of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The newest migration that was applied; 0 if none was.
    pub number: u32,
    /// The oldest migration whose library can still work with it.
    pub compatible_from: u32,
}

impl Found {
    /// What is there before the first migration.
    pub const NOTHING: Self = Self {
        number: 0,
        compatible_from: 0,
    };

    /// As the store answers it, with nothing applied yet.
    pub fn schema(self, migrations: Migrations) -> Schema {
        Schema {
            found: self.number,
            needed: migrations.needed(),
            applied: Vec::new(),
        }
    }

    /// Whether this build knows migrations that were not applied.
    pub fn lacks(self, migrations: Migrations) -> bool {
        self.number < migrations.needed()
    }

    /// Whether this build can work with it: a newer schema says from which build on that is so.
    pub fn check(self, migrations: Migrations) -> Result<(), StoreError> {
        let (found, needed) = (self.number, migrations.needed());
        if self.lacks(migrations) {
            return Err(StoreError::Unmigrated { found, needed });
        }
        if self.compatible_from > needed {
            return Err(StoreError::Newer { found, needed });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn named(name: &'static str) -> Migration {
        Migration { name, sql: "" }
    }

    const TWO: Migrations = Migrations::new(&[named("0001_initial"), named("0002_more")]);

    #[test]
    fn what_is_missing_comes_after_what_was_found() {
        let names = |found| -> Vec<_> { TWO.after(found).map(|(_, one)| one.name).collect() };
        assert_eq!(names(0), ["0001_initial", "0002_more"]);
        assert_eq!(names(1), ["0002_more"]);
        assert!(names(2).is_empty() && names(3).is_empty());
        assert_eq!(TWO.needed(), 2);
    }

    #[test]
    #[should_panic(expected = "no gaps")]
    fn a_gap_in_the_numbers_is_refused() {
        const GAP: [Migration; 2] = [named("0001_initial"), named("0003_more")];
        Migrations::new(&GAP);
    }

    #[test]
    #[should_panic(expected = "NUMBER_NAME")]
    fn a_name_without_its_number_is_refused() {
        const BARE: [Migration; 1] = [named("initial")];
        Migrations::new(&BARE);
    }

    #[test]
    fn a_build_works_with_its_own_schema_and_with_newer_ones_that_allow_it() {
        let check = |number, compatible_from| {
            let found = Found {
                number,
                compatible_from,
            };
            found.check(TWO)
        };
        let unmigrated = |found| StoreError::Unmigrated { found, needed: 2 };
        assert_eq!(Found::NOTHING.check(TWO), Err(unmigrated(0)));
        assert_eq!(check(1, 1), Err(unmigrated(1)));
        assert_eq!(check(2, 1), Ok(()));
        assert_eq!(check(3, 2), Ok(()));
        let newer = StoreError::Newer {
            found: 3,
            needed: 2,
        };
        assert_eq!(check(3, 3), Err(newer));
    }
}
