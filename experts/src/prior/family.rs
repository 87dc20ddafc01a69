//! Single columns whose distribution is known by name.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};

use super::marginal::Marginal;
use super::random::Random;

/// The families of distributions that numeric columns of the prior have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Normal.
    Normal,
    /// Log-normal.
    LogNormal,
    /// Pareto.
    Heavy,
    /// Two humps.
    Mixture,
    /// Zero for a share of the rows, log-normal for the others.
    ZeroInflated,
    /// Uniform.
    Uniform,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 6] =
        [Self::Normal, Self::LogNormal, Self::Heavy, Self::Mixture, Self::ZeroInflated, Self::Uniform];

    /// Its name in pictures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::LogNormal => "log-normal",
            Self::Heavy => "Pareto",
            Self::Mixture => "two humps",
            Self::ZeroInflated => "many zeros",
            Self::Uniform => "uniform",
        }
    }
}

/// A numeric column of `rows` independent values, with random parameters, and its family.
pub fn family_column(rows: usize, seed: u64) -> (Family, ArrayRef) {
    let mut random = Random::new(seed);
    let marginal = Marginal::real(&mut random);
    let values: Float64Array = (0..rows).map(|_| Some(marginal.value(random.normal()))).collect();
    (marginal.family(), Arc::new(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_in_every_family() {
        let drawn: Vec<Family> = (0..100).map(|seed| family_column(5, seed).0).collect();
        assert!(Family::ALL.iter().all(|family| drawn.contains(family)));
        assert_eq!(family_column(50, 3), family_column(50, 3));
    }
}
