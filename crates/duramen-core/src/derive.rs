//! Recorded values: `now`, `uuid`, `random`.
//!
//! A value is derived from the run's secret seed, the operation's id and the logical clock, and
//! recorded in the journal. Because a run that crashed before the record became durable derives
//! the same value again, a value needs no commit of its own before the next effect: it is free.

use sha2::{Digest, Sha256};

use crate::ids::{Millis, Payload};
use crate::run::{DRAWN, Seed};

/// Which value an operation records. The payload is Duramen's own JSON: a number or a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Milliseconds since the epoch: the time of the last delivered entry.
    Now,
    /// A version 4 UUID (RFC 9562, 5.4) in its usual text form.
    Uuid,
    /// A number in `[0, 1)` with 53 random bits.
    Random,
}

impl ValueKind {
    /// The stem of automatic operation ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Uuid => "uuid",
            Self::Random => "random",
        }
    }

    /// The value as it is recorded.
    pub fn derive(self, seed: &Seed, op: &str, now: Millis) -> Payload {
        let text = match self {
            Self::Now => now.to_string(),
            Self::Uuid => format!("\"{}\"", uuid_text(draw(seed, op, 0))),
            Self::Random => {
                #[allow(clippy::cast_precision_loss)] // 53 bits are exact in an f64
                let unit = (first_u64(draw(seed, op, 0)) >> 11) as f64 / (1_u64 << 53) as f64;
                format!("{unit:?}")
            }
        };
        Payload::from(text)
    }
}

/// A number in `[0, bound)`, for jitter.
pub(crate) fn below(seed: &Seed, op: &str, salt: u32, bound: i64) -> i64 {
    let bound = u64::try_from(bound.max(1)).unwrap_or(1);
    // The modulo bias is below 2^-20 for any pause shorter than centuries.
    i64::try_from(first_u64(draw(seed, op, salt)) % bound).unwrap_or(0)
}

/// What the ids of lives, children and messages are drawn with, so that no value and no jitter is like them.
const LIFE: u32 = u32::MAX;
const CHILD: u32 = u32::MAX - 1;
const MESSAGE: u32 = u32::MAX - 2;

/// A name for this life of a run's id that tells nobody the seed.
pub fn life(seed: &Seed) -> String {
    hex(draw(seed, "", LIFE))
}

/// The seed of the child that an operation starts: the same however often its creation is sent.
pub(crate) fn child_seed(seed: &Seed, generation: u64, op: &str) -> Seed {
    let mut drawn = draw(seed, &format!("{generation} {op}"), CHILD);
    drawn[DRAWN] = 0;
    drawn
}

/// The id of the message that an operation sends, likewise.
pub(crate) fn message_id(seed: &Seed, generation: u64, op: &str) -> String {
    format!(
        "run:{}",
        hex(draw(seed, &format!("{generation} {op}"), MESSAGE))
    )
}

fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// What the values of a generation are derived from. Its operations have the ids of the one before, and each
/// generation draws its own.
pub(crate) fn of_generation(seed: &Seed, generation: u64) -> Seed {
    if generation == 0 {
        return *seed;
    }
    let digest = Sha256::new()
        .chain_update(b"generation")
        .chain_update(&seed[..DRAWN])
        .chain_update(generation.to_be_bytes())
        .finalize();
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(digest) {
        *to = from;
    }
    out
}

/// 16 bytes that nobody can guess without the seed.
fn draw(seed: &Seed, op: &str, salt: u32) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(&seed[..DRAWN])
        .chain_update(salt.to_be_bytes())
        .chain_update(op.as_bytes())
        .finalize();
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(digest) {
        *to = from;
    }
    out
}

fn first_u64(bytes: [u8; 16]) -> u64 {
    u64::try_from(u128::from_be_bytes(bytes) >> 64).unwrap_or_default()
}

fn uuid_text(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = [3; 16];

    #[test]
    fn the_same_operation_of_the_same_run_derives_the_same_value() {
        for kind in [ValueKind::Now, ValueKind::Uuid, ValueKind::Random] {
            assert_eq!(kind.derive(&SEED, "a", 5), kind.derive(&SEED, "a", 5));
        }
        assert_ne!(
            ValueKind::Uuid.derive(&SEED, "a", 5),
            ValueKind::Uuid.derive(&SEED, "b", 5)
        );
        assert_ne!(
            ValueKind::Uuid.derive(&SEED, "a", 5),
            ValueKind::Uuid.derive(&[4; 16], "a", 5)
        );
    }

    #[test]
    fn a_uuid_is_a_version_4_uuid() {
        let text = ValueKind::Uuid.derive(&SEED, "a", 0);
        let text = std::str::from_utf8(&text).unwrap();
        assert_eq!(text.len(), 38);
        assert_eq!(&text[15..16], "4");
        assert!("89ab".contains(&text[20..21]));
    }

    #[test]
    fn random_is_a_number_from_0_up_to_but_not_1() {
        for n in 0..1_000 {
            let text = ValueKind::Random.derive(&SEED, &format!("random-{n}"), 0);
            let number: f64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
            assert!((0.0..1.0).contains(&number));
        }
    }
}
