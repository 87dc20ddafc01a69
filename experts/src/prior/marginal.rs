//! Marginal distributions: what becomes of a standardised signal.
//!
//! Each is a monotone function of the signal, so whatever made two signals depend on each other makes the columns
//! depend on each other, whichever marginals they have.

use super::Family;
use super::random::{Random, exp, ln, normal_share_below};

/// The distribution of a numeric column.
#[derive(Debug, Clone)]
pub(super) struct Marginal {
    shape: Shape,
    /// Values are multiples of `1 / steps`; of anything where `steps` is 0.
    steps: f64,
}

#[derive(Debug, Clone)]
enum Shape {
    Normal {
        mean: f64,
        deviation: f64,
    },
    LogNormal {
        median: f64,
        spread: f64,
    },
    /// Pareto: `scale * (1 - u)^(-1 / tail)`.
    Heavy {
        scale: f64,
        tail: f64,
    },
    /// Two humps; `split` is the share of the first.
    Mixture {
        split: f64,
        means: [f64; 2],
        deviations: [f64; 2],
    },
    /// Zero for a share of the rows, log-normal for the others.
    ZeroInflated {
        zeros: f64,
        median: f64,
        spread: f64,
    },
    Uniform {
        low: f64,
        high: f64,
    },
}

impl Marginal {
    /// A distribution over the reals, often with few decimals.
    pub(super) fn real(random: &mut Random) -> Self {
        let scale = exp(random.between(-2.0, 9.0));
        let shape = match random.below(6) {
            0 => Shape::Normal { mean: scale * random.between(-1.0, 4.0), deviation: scale },
            1 => Shape::LogNormal { median: scale, spread: random.between(0.3, 1.6) },
            2 => Shape::Heavy { scale, tail: random.between(0.9, 3.0) },
            3 => Shape::Mixture {
                split: random.between(0.1, 0.9),
                means: [scale, scale * random.between(3.0, 12.0)],
                deviations: [scale * 0.3, scale * random.between(0.2, 1.5)],
            },
            4 => Shape::ZeroInflated { zeros: zeros(random), median: scale, spread: random.between(0.3, 1.5) },
            _ => Shape::Uniform { low: scale * random.between(-1.0, 1.0), high: scale * random.between(1.0, 3.0) },
        };
        Self { shape, steps: random.pick(&[0.0, 1.0, 10.0, 100.0, 100.0, 10_000.0]) }
    }

    /// A distribution over whole numbers: mostly of few values.
    pub(super) fn whole(random: &mut Random) -> Self {
        let shape = match random.below(7) {
            0 | 1 => {
                Shape::Uniform { low: random.below(2) as f64 - 0.5, high: random.log_within(&(2..=60)) as f64 + 0.5 }
            }
            2 => Shape::ZeroInflated {
                zeros: zeros(random),
                median: exp(random.between(0.0, 4.0)),
                spread: random.between(0.3, 1.5),
            },
            3 => Shape::LogNormal { median: exp(random.between(0.0, 6.0)), spread: random.between(0.3, 1.5) },
            4 => {
                let deviation = exp(random.between(0.0, 7.0));
                Shape::Normal { mean: deviation * random.between(0.0, 5.0), deviation }
            }
            // Years.
            5 => Shape::Normal { mean: random.between(1960.0, 2015.0), deviation: random.between(2.0, 25.0) },
            _ => Shape::Heavy { scale: exp(random.between(0.0, 3.0)), tail: random.between(0.9, 2.5) },
        };
        Self { shape, steps: 1.0 }
    }

    /// The name of its shape.
    pub(super) fn family(&self) -> Family {
        match self.shape {
            Shape::Normal { .. } => Family::Normal,
            Shape::LogNormal { .. } => Family::LogNormal,
            Shape::Heavy { .. } => Family::Heavy,
            Shape::Mixture { .. } => Family::Mixture,
            Shape::ZeroInflated { .. } => Family::ZeroInflated,
            Shape::Uniform { .. } => Family::Uniform,
        }
    }

    /// The value that belongs to a standardised signal.
    #[inline]
    pub(super) fn value(&self, signal: f32) -> f64 {
        let z = f64::from(signal);
        let value = match self.shape {
            Shape::Normal { mean, deviation } => mean + deviation * z,
            Shape::LogNormal { median, spread } => median * exp(spread * z),
            Shape::Heavy { scale, tail } => scale * exp(-ln((1.0 - normal_share_below(signal)).max(1e-7)) / tail),
            Shape::Mixture { split, means, deviations } => {
                let hump = usize::from(normal_share_below(signal) >= split);
                means[hump] + deviations[hump] * z
            }
            Shape::ZeroInflated { zeros, median, spread } => {
                if normal_share_below(signal) < zeros {
                    0.0
                } else {
                    median * exp(spread * z)
                }
            }
            Shape::Uniform { low, high } => low + (high - low) * normal_share_below(signal),
        };
        // Ties go away from zero on every machine; a bound keeps heavy tails within the integers.
        let value = value.clamp(-1e12, 1e12);
        if self.steps > 0.0 { (value * self.steps).round() / self.steps } else { value }
    }
}

/// Share of zeros: up to almost all.
fn zeros(random: &mut Random) -> f64 {
    if random.chance(0.4) { random.between(0.85, 0.99) } else { random.between(0.2, 0.85) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_grow_with_the_signal() {
        let mut random = Random::new(1);
        for round in 0..200 {
            let marginal = if round % 2 == 0 { Marginal::real(&mut random) } else { Marginal::whole(&mut random) };
            // Humps may overlap; everything else is monotone.
            if matches!(marginal.shape, Shape::Mixture { .. }) {
                continue;
            }
            let values: Vec<f64> = (-40..40).map(|i| marginal.value(i as f32 / 10.0)).collect();
            assert!(values.iter().all(|value| value.is_finite()));
            assert!(values.windows(2).all(|pair| pair[0] <= pair[1]), "{marginal:?}");
        }
    }
}
