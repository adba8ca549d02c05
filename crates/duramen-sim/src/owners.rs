//! What is known of owners and their leases, and the rules that they keep.

use std::collections::BTreeMap;

use duramen_core::ids::Millis;

/// One incarnation of one process.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The end of its lease by the store's clock.
    pub until: Millis,
    /// The same if heartbeats that have failed took place.
    pub most: Millis,
    /// The end of its lease by a clock that nobody sets.
    pub lasts: Millis,
    /// Why it has ended, if that was ever the case. It is for good.
    pub ended: Option<&'static str>,
    /// The highest encoding that it reads.
    pub format: u8,
}

/// All that ever were, by name.
#[derive(Debug, Default)]
pub struct Owners {
    by_name: BTreeMap<String, Owner>,
}

/// The name that a process was given, whatever incarnation this is.
pub fn base(owner: &str) -> &str {
    owner.split_once('~').map_or(owner, |(base, _)| base)
}

impl Owners {
    pub fn get(&self, name: &str) -> Option<&Owner> {
        self.by_name.get(name)
    }

    /// The first that lives and is of another process than that name.
    pub fn stranger(&self, to: &str, now: Millis) -> Option<String> {
        let mut all = self.by_name.iter();
        all.find(|(name, owner)| {
            base(name) != base(to) && owner.ended.is_none() && owner.until > now
        })
        .map(|(name, _)| name.clone())
    }

    /// A claim has looked at all leases: those that are over are so for good.
    pub fn look(&mut self, now: Millis) {
        for owner in self.by_name.values_mut() {
            if owner.most <= now {
                owner.ended.get_or_insert("a claim found it lapsed");
            }
        }
    }

    pub fn end(&mut self, name: &str, why: &'static str) {
        if let Some(owner) = self.by_name.get_mut(name) {
            owner.ended.get_or_insert(why);
        }
    }

    /// A heartbeat was answered that the owner lives: it may not have ended before.
    pub fn renewed(&mut self, name: &str, now: Millis, owner: Owner) -> Result<(), String> {
        let found = match self.by_name.get(name) {
            Some(before) => match before.ended {
                Some(why) => Err(format!("{name} is renewed, and had ended: {why}")),
                None if before.most <= now => Err(format!(
                    "{name} is renewed {} ms after the end of its lease",
                    now - before.most
                )),
                None => Ok(()),
            },
            None => Ok(()),
        };
        self.by_name.insert(name.to_owned(), owner);
        found
    }

    /// A heartbeat has failed, and may have taken place.
    pub fn maybe_renewed(&mut self, name: &str, most: Millis) {
        if let Some(owner) = self.by_name.get_mut(name) {
            owner.most = owner.most.max(most);
        }
    }

    /// A claim took a run from that owner: it has ended by the store's clock, or never was.
    pub fn left_it(&self, name: &str, now: Millis) -> Result<(), String> {
        match self.by_name.get(name) {
            Some(owner) if owner.ended.is_none() && owner.until > now => Err(format!(
                "a run of {name} is claimed {} ms before the end of its lease",
                owner.until - now
            )),
            _ => Ok(()),
        }
    }

    /// Whether its lease still lasts by the clock that nobody sets, whatever the store thinks.
    pub fn lasts(&self, name: &str, now: Millis) -> bool {
        self.by_name
            .get(name)
            .is_some_and(|owner| owner.lasts > now)
    }

    pub fn format(&self, name: &str) -> u8 {
        self.by_name.get(name).map_or(1, |owner| owner.format)
    }
}
