//! When a poll looks: a grid of instants that follows from when it was asked for, so that nothing of it is recorded.

use crate::ids::Millis;

/// How often a poll looks, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollRule {
    /// The first pause.
    pub every: Millis,
    /// How many thousandths of each pause the next one is: 1000 for equal ones, never less.
    pub growth: u32,
    /// The longest pause.
    pub cap: Millis,
    /// It gives up so long after it was asked for.
    pub timeout: Option<Millis>,
}

/// The looks of one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    rule: PollRule,
    /// When it was asked for, by the logical clock: the same on every replay.
    since: Millis,
}

impl Looks {
    pub(crate) const fn new(rule: PollRule, since: Millis) -> Self {
        Self { rule, since }
    }

    /// When it gives up.
    pub(crate) fn end(&self) -> Option<Millis> {
        let timeout = self.rule.timeout?;
        Some(self.since.saturating_add(timeout))
    }

    /// The next look behind an instant; the last one is at the end.
    pub(crate) fn next(&self, now: Millis) -> Millis {
        let next = self.around(now).1;
        self.end().map_or(next, |end| next.min(end))
    }

    /// The last look that was due at an instant.
    pub(crate) fn last(&self, now: Millis) -> Millis {
        self.around(now).0
    }

    /// The points of the grid before and behind an instant.
    fn around(&self, now: Millis) -> (Millis, Millis) {
        let cap = self.rule.cap.max(1);
        let mut pause = self.rule.every.clamp(1, cap);
        let mut at = self.since;
        let growth = i64::from(self.rule.growth.max(1_000));
        while pause < cap && growth > 1_000 {
            let next = at.saturating_add(pause);
            if next > now || next == Millis::MAX {
                return (at, next);
            }
            at = next;
            // At least one more, so that the walk ends however small they are.
            pause = (pause.saturating_mul(growth) / 1_000)
                .max(pause + 1)
                .min(cap);
        }
        let passed = now.saturating_sub(at).max(0) / pause;
        let last = at.saturating_add(passed.saturating_mul(pause));
        (last, last.saturating_add(pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(every: Millis, growth: u32, cap: Millis, timeout: Option<Millis>) -> Looks {
        let rule = PollRule {
            every,
            growth,
            cap,
            timeout,
        };
        Looks::new(rule, 1_000)
    }

    fn grid(looks: &Looks, many: usize) -> Vec<Millis> {
        let mut at = 1_000;
        std::iter::repeat_with(|| {
            at = looks.next(at);
            at - 1_000
        })
        .take(many)
        .collect()
    }

    #[test]
    fn pauses_are_equal_or_grow_up_to_the_cap() {
        assert_eq!(grid(&looks(10, 1_000, 10, None), 4), [10, 20, 30, 40]);
        assert_eq!(grid(&looks(10, 2_000, 40, None), 5), [10, 30, 70, 110, 150]);
        assert_eq!(grid(&looks(10, 1_500, 20, None), 5), [10, 25, 45, 65, 85]);
    }

    #[test]
    fn the_last_look_is_at_the_end() {
        assert_eq!(grid(&looks(10, 1_000, 10, Some(25)), 4), [10, 20, 25, 25]);
    }

    #[test]
    fn any_instant_stands_between_two_looks_wherever_one_begins() {
        let one = looks(7, 1_300, 90, None);
        let points = grid(&one, 50);
        for now in 0..2_000 {
            let next = *points.iter().find(|point| **point > now).unwrap();
            let last = points.iter().rfind(|point| **point <= now).copied();
            assert_eq!(one.next(1_000 + now) - 1_000, next);
            assert_eq!(one.last(1_000 + now) - 1_000, last.unwrap_or(0));
        }
    }

    #[test]
    fn odd_rules_and_times_do_no_harm() {
        for every in [i64::MIN, 0, 1, i64::MAX] {
            for growth in [0, 1_000, 1_001, u32::MAX] {
                for cap in [i64::MIN, 0, 5, i64::MAX] {
                    let one = looks(every, growth, cap, Some(i64::MAX));
                    for now in [i64::MIN, 0, 1_000, 100_000, i64::MAX] {
                        assert!(one.next(now) >= one.last(now), "{one:?} {now}");
                    }
                }
            }
        }
    }
}
