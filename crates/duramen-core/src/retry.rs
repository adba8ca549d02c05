//! When a failed step is tried again.

use crate::derive;
use crate::ids::Millis;
use crate::run::Seed;

/// How the pause between attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// `base` each time.
    Constant,
    /// `base`, `2·base`, `3·base` …
    Linear,
    /// `base`, `2·base`, `4·base` …
    Exponential,
}

/// The retry rule of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all; 1 means no retry.
    pub attempts: u32,
    pub backoff: Backoff,
    pub base: Millis,
    /// The longest pause.
    pub cap: Millis,
    /// Take a random part, between half and all, of each pause.
    pub jitter: bool,
    /// A step that fails for good pauses its run, instead of failing in its handler.
    pub pauses_run: bool,
}

impl RetryPolicy {
    /// One attempt.
    pub const NEVER: Self = Self {
        attempts: 1,
        backoff: Backoff::Constant,
        base: 0,
        cap: 0,
        jitter: false,
        pauses_run: false,
    };

    /// The pause after attempt number `failed` (from 1), or none when no attempt is left.
    ///
    /// Jitter is "equal jitter" (half fixed, half random; M. Brooker, "Exponential Backoff And
    /// Jitter", 2015), drawn from the run's seed: a replayed decision is the same decision.
    pub fn pause_after(&self, failed: u32, seed: &Seed, op: &str) -> Option<Millis> {
        if failed >= self.attempts {
            return None;
        }
        let factor = match self.backoff {
            Backoff::Constant => 1,
            Backoff::Linear => i64::from(failed),
            Backoff::Exponential => 1_i64
                .checked_shl(failed.saturating_sub(1))
                .filter(|factor| *factor > 0)
                .unwrap_or(i64::MAX),
        };
        let pause = self.base.saturating_mul(factor).min(self.cap).max(0);
        if !self.jitter {
            return Some(pause);
        }
        let half = pause / 2;
        Some(half + derive::below(seed, op, failed, pause - half + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = [7; 16];

    fn pauses(policy: RetryPolicy) -> Vec<Option<Millis>> {
        (1..=5)
            .map(|failed| policy.pause_after(failed, &SEED, "a"))
            .collect()
    }

    #[test]
    fn exponential_pauses_double_up_to_the_cap_and_end_with_the_attempts() {
        let policy = RetryPolicy {
            attempts: 5,
            backoff: Backoff::Exponential,
            base: 500,
            cap: 1_500,
            jitter: false,
            pauses_run: false,
        };
        assert_eq!(
            pauses(policy),
            [Some(500), Some(1_000), Some(1_500), Some(1_500), None]
        );
    }

    #[test]
    fn one_attempt_means_no_retry() {
        assert_eq!(RetryPolicy::NEVER.pause_after(1, &SEED, "a"), None);
    }

    #[test]
    fn a_huge_attempt_number_does_not_overflow() {
        let policy = RetryPolicy {
            attempts: u32::MAX,
            backoff: Backoff::Exponential,
            base: 500,
            cap: 60_000,
            jitter: false,
            pauses_run: false,
        };
        assert_eq!(policy.pause_after(1_000_000, &SEED, "a"), Some(60_000));
    }

    #[test]
    fn jitter_stays_between_half_and_all_and_is_the_same_for_the_same_seed() {
        let policy = RetryPolicy {
            attempts: 100,
            backoff: Backoff::Constant,
            base: 1_000,
            cap: 1_000,
            jitter: true,
            pauses_run: false,
        };
        let mut seen = std::collections::BTreeSet::new();
        for failed in 1..100 {
            let pause = policy.pause_after(failed, &SEED, "a").unwrap();
            assert!((500..=1_000).contains(&pause));
            assert_eq!(policy.pause_after(failed, &SEED, "a"), Some(pause));
            seen.insert(pause);
        }
        assert!(seen.len() > 50);
    }
}
