//! The one source of chance: a seeded generator (splitmix64).

/// Numbers that depend on nothing but the seed and how many were drawn before.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to but not `bound`; 0 if that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draw() % bound }
    }

    /// A span from `low` to `high`, both included.
    pub fn span(&mut self, low: i64, high: i64) -> i64 {
        let width = u64::try_from(high - low + 1).unwrap_or(1);
        low + i64::try_from(self.below(width)).unwrap_or(0)
    }

    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A place in a list of that length.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of these; the first if chance has nothing to choose from.
    pub fn pick<T: Copy>(&mut self, of: &[T], or: T) -> T {
        of.get(self.place(of.len())).copied().unwrap_or(or)
    }

    /// A generator of its own for a part, so that what the part draws shifts nobody else.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.draw())
    }
}
