//! Random numbers and elementary functions that have the same bits on every machine.
//!
//! A seed promises the same database everywhere and for good. So nothing here calls the platform's `libm` (whose `exp`
//! and `ln` differ in the last digit) or a generator whose algorithm a crate is free to change: the generator is
//! xoshiro256++ seeded by splitmix64 (Blackman and Vigna, TOMS 2021), and `exp` and `ln` are short polynomials over
//! the basic operations, which IEEE 754 fixes to the bit.

use std::ops::RangeInclusive;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of splitmix64: a bijection that scatters every bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of random numbers (xoshiro256++).
#[derive(Debug, Clone)]
pub(super) struct Random {
    key: u64,
    state: [u64; 4],
}

impl Random {
    /// The stream that belongs to `key`.
    pub(super) fn new(key: u64) -> Self {
        let mut z = key;
        let state = std::array::from_fn(|_| {
            z = z.wrapping_add(GOLDEN);
            mix(z)
        });
        Self { key, state }
    }

    /// An independent stream that depends on this stream's key and on `label` only, not on what was drawn before:
    /// adding a column to one table leaves the other tables as they were.
    pub(super) fn fork(&self, label: u64) -> Self {
        Self::new(mix(self.key.wrapping_add(mix(label.wrapping_add(GOLDEN)))))
    }

    #[inline]
    pub(super) fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Uniform in [0, 1).
    #[inline]
    pub(super) fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..n`, or 0 where `n` is 0.
    #[inline]
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform over a range of whole numbers.
    pub(super) fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end().saturating_sub(*range.start()) + 1)
    }

    /// Uniform in the logarithm over a range of whole numbers.
    pub(super) fn log_within(&mut self, range: &RangeInclusive<usize>) -> usize {
        let (low, high) = (*range.start() as f64, *range.end() as f64);
        let drawn = exp(self.between(ln(low.max(1.0)), ln(high.max(1.0) + 1.0)));
        (drawn as usize).clamp(*range.start(), (*range.end()).max(*range.start()))
    }

    /// Over a range of whole numbers, bell-shaped in the logarithm, a little above its middle.
    pub(super) fn log_bell_within(&mut self, range: &RangeInclusive<usize>) -> usize {
        let (low, high) = (ln((*range.start() as f64).max(1.0)), ln(*range.end() as f64 + 1.0));
        let place = ((self.uniform() + self.uniform()) / 2.0).max(f64::MIN_POSITIVE);
        let drawn = exp(low + (high - low) * exp(0.8 * ln(place)));
        (drawn as usize).clamp(*range.start(), (*range.end()).max(*range.start()))
    }

    #[inline]
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// One of `choices`, which must not be empty.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Close to standard normal: the sum of eight uniform numbers of 16 bits each. The tails end at 4.9 deviations;
    /// where the prior wants heavy tails, it makes them from this.
    #[inline]
    pub(super) fn normal(&mut self) -> f32 {
        const PAIRS: u64 = 0x0000_ffff_0000_ffff;
        let (a, b) = (self.next_u64(), self.next_u64());
        // Two lanes of 32 bits, four summands of 16 bits in each.
        let lanes = (a & PAIRS) + ((a >> 16) & PAIRS) + (b & PAIRS) + ((b >> 16) & PAIRS);
        let sum = (lanes & 0xffff_ffff) + (lanes >> 32);
        // The mean is 8 * 65535 / 2; the deviation 65536 * sqrt(8 / 12).
        (sum as f32 - 262_140.0) * (1.0 / 53_510.03)
    }

    /// Exponential with the given mean.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * ln(1.0 - self.uniform())
    }

    /// The numbers `0..n` in random order.
    pub(super) fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// `e^x`, to about eight digits.
#[inline]
pub(super) fn exp(x: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    let x = x.clamp(-700.0, 700.0);
    let k = (x * (1.0 / LN_2)).round();
    let r = x - k * LN_2;
    let polynomial = 1.0
        + r * (1.0
            + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r / 5040.0))))));
    polynomial * f64::from_bits(((k as i64 + 1023) as u64) << 52)
}

/// The natural logarithm of a positive, normal number, to about nine digits; -700 for anything at or below zero.
#[inline]
pub(super) fn ln(x: f64) -> f64 {
    if x < f64::MIN_POSITIVE {
        return -700.0;
    }
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i64 - 1023) as f64;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let q = s * s;
    exponent * std::f64::consts::LN_2
        + 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q / 11.0)))))
}

/// Distribution function of the standard normal, through the logistic function (error below 0.01).
#[inline]
pub(super) fn normal_share_below(x: f32) -> f64 {
    1.0 / (1.0 + exp(-1.702 * f64::from(x)))
}

/// Weights `1 / rank^exponent` for the ranks `1..=n`.
pub(super) fn zipf_weights(n: usize, exponent: f64) -> Vec<f64> {
    (1..=n).map(|rank| exp(-exponent * ln(rank as f64))).collect()
}

/// Draws from fixed weights in constant time (alias method; Walker 1977, table construction by Vose 1991).
#[derive(Debug, Clone)]
pub(super) struct Alias {
    /// Share of the slot that stays with its own outcome (of 2^32), and the outcome that gets the rest.
    slots: Vec<(u32, u32)>,
}

impl Alias {
    /// Weights that are all zero count as equal.
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let n = weights.len();
        if total <= 0.0 {
            return Self { slots: (0..n.max(1) as u32).map(|i| (u32::MAX, i)).collect() };
        }
        let mut scaled: Vec<f64> = weights.iter().map(|w| w * n as f64 / total).collect();
        let mut slots: Vec<(u32, u32)> = (0..n as u32).map(|i| (u32::MAX, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| scaled[i] < 1.0);
        while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
            small.pop();
            slots[low] = ((scaled[low] * f64::from(u32::MAX)) as u32, high as u32);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self { slots }
    }

    /// An index into the weights.
    #[inline]
    pub(super) fn draw(&self, random: &mut Random) -> usize {
        let bits = random.next_u64();
        let slot = (((bits >> 32) * self.slots.len() as u64) >> 32) as usize;
        let (own, other) = self.slots[slot];
        if (bits as u32) <= own { slot } else { other as usize }
    }
}

/// The inverse distribution function of fixed weights: which outcome covers a share `u` of the total.
#[derive(Debug)]
pub(super) struct Quantiles {
    cumulative: Vec<f64>,
    /// First outcome that can cover `slot / GUIDES`.
    guide: Vec<u32>,
}

const GUIDES: usize = 1024;

impl Quantiles {
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let mut sum = 0.0;
        let cumulative: Vec<f64> = weights
            .iter()
            .map(|w| {
                sum += w / total;
                sum
            })
            .collect();
        let guide =
            (0..GUIDES).map(|slot| cumulative.partition_point(|&c| c < slot as f64 / GUIDES as f64) as u32).collect();
        Self { cumulative, guide }
    }

    /// The outcome at `u` in [0, 1]; the smallest `u` belong to the first outcome.
    #[inline]
    pub(super) fn outcome(&self, u: f64) -> usize {
        let slot = ((u * GUIDES as f64) as usize).min(GUIDES - 1);
        let last = self.cumulative.len().saturating_sub(1);
        let mut outcome = (self.guide[slot] as usize).min(last);
        while outcome < last && self.cumulative[outcome] < u {
            outcome += 1;
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_never_changes() {
        // Written down once: another value here means that every seed now names another database.
        let mut random = Random::new(1).fork(2);
        assert_eq!([random.next_u64(), random.next_u64()], [10_429_541_738_275_224_741, 7_851_883_561_255_609_884]);
    }

    #[test]
    fn exp_and_ln_agree_with_the_platform() {
        for i in -300..300 {
            let x = f64::from(i) * 0.11;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-7, "exp({x})");
            assert!((ln(x.exp()) - x).abs() < 1e-7, "ln(e^{x})");
        }
    }

    #[test]
    fn normal_has_mean_zero_and_deviation_one() {
        let mut random = Random::new(7);
        let draws: Vec<f64> = (0..100_000).map(|_| f64::from(random.normal())).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }

    #[test]
    fn alias_and_quantiles_follow_their_weights() {
        let weights = [5.0, 0.0, 3.0, 2.0];
        let (alias, quantiles) = (Alias::new(&weights), Quantiles::new(&weights));
        let mut random = Random::new(3);
        let mut counts = [[0usize; 4]; 2];
        for _ in 0..40_000 {
            counts[0][alias.draw(&mut random)] += 1;
            counts[1][quantiles.outcome(random.uniform())] += 1;
        }
        for drawn in counts {
            for (count, weight) in drawn.iter().zip(weights) {
                assert!((*count as f64 / 4_000.0 - weight).abs() < 0.2, "{drawn:?}");
            }
        }
    }

    #[test]
    fn ranges_are_kept() {
        let mut random = Random::new(5);
        for _ in 0..1000 {
            assert!((3..=9).contains(&random.log_within(&(3..=9))));
            assert!((3..=9).contains(&random.within(3..=9)));
            assert_eq!(random.within(4..=4), 4);
        }
        let mut order = random.permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<u32>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<u32>>());
    }
}
