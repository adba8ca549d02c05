//! Operation ids: explicit, or `{kind}-{n}` by order of request; a repeat gets `#2`, `#3` …

use std::collections::BTreeMap;

use crate::ids::OpId;

/// Gives out operation ids; the same requests in the same order get the same ids.
#[derive(Debug, Default)]
pub struct Naming {
    automatic: BTreeMap<&'static str, u32>,
    seen: BTreeMap<OpId, u32>,
}

impl Naming {
    /// The id of an operation with an explicit id.
    pub fn explicit(&mut self, id: &str) -> OpId {
        if let Some(times) = self.seen.get_mut(id) {
            *times += 1;
            return format!("{id}#{times}").into();
        }
        let id: OpId = id.into();
        self.seen.insert(id.clone(), 1);
        id
    }

    /// The id of an operation without one. It goes through the same table, because a user may
    /// have called a step `sleep-1`.
    pub fn automatic(&mut self, stem: &'static str) -> OpId {
        let n = self.automatic.entry(stem).or_insert(0);
        *n += 1;
        let id = format!("{stem}-{n}");
        self.explicit(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_and_automatic_ids_count_by_order_of_request() {
        let mut naming = Naming::default();
        assert_eq!(&*naming.explicit("charge"), "charge");
        assert_eq!(&*naming.explicit("charge"), "charge#2");
        assert_eq!(&*naming.explicit("charge"), "charge#3");
        assert_eq!(&*naming.automatic("sleep"), "sleep-1");
        assert_eq!(&*naming.automatic("event"), "event-1");
        assert_eq!(&*naming.automatic("sleep"), "sleep-2");
    }

    #[test]
    fn an_explicit_id_that_looks_automatic_never_collides() {
        let mut naming = Naming::default();
        assert_eq!(&*naming.explicit("sleep-1"), "sleep-1");
        assert_eq!(&*naming.automatic("sleep"), "sleep-1#2");
    }
}
