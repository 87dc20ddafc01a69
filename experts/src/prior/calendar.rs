//! Days and instants with growth and seasons.

use super::random::{Random, exp, ln};

/// Microseconds of a day.
pub(super) const DAY: i64 = 86_400_000_000;

/// Year, month (1-12) and day (1-31) of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level date
/// algorithms", 2013).
pub(super) fn civil(day: i64) -> (i32, u32, u32) {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as i32, month as u32, (day_of_year - (153 * shifted + 2) / 5 + 1) as u32)
}

/// How often something happens on each day of a span: growth over the span times the month times the weekday.
#[derive(Debug)]
pub(super) struct Season {
    first_day: i64,
    cumulative: Vec<f64>,
}

impl Season {
    /// `growth`: rate on the last day as a multiple of the first; `months`: relative rate of January to December;
    /// `weekend`: rate of Saturday and Sunday relative to the other days.
    pub(super) fn new(first_day: i64, days: usize, growth: f64, months: &[f64; 12], weekend: f64) -> Self {
        let slope = ln(growth) / days.max(1) as f64;
        let mut total = 0.0;
        let cumulative = (0..days.max(1))
            .map(|i| {
                let day = first_day + i as i64;
                let (_, month, _) = civil(day);
                // 1970-01-01 was a Thursday.
                let weekday = (day + 3).rem_euclid(7);
                total += exp(slope * i as f64) * months[month as usize - 1] * if weekday >= 5 { weekend } else { 1.0 };
                total
            })
            .collect();
        Self { first_day, cumulative }
    }

    /// A random rhythm: from steady to strongly growing and seasonal.
    pub(super) fn random(first_day: i64, days: usize, random: &mut Random) -> Self {
        let strength = random.between(0.0, 0.8);
        let months = std::array::from_fn(|_| exp(strength * f64::from(random.normal())));
        let growth = exp(random.between(-0.5, 2.5));
        Self::new(first_day, days, growth, &months, random.between(0.2, 1.3))
    }

    /// The day that a share `u` in [0, 1) of all events precedes.
    pub(super) fn day(&self, u: f64) -> i64 {
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        self.first_day + self.cumulative.partition_point(|&c| c <= u * total).min(self.cumulative.len() - 1) as i64
    }
}

/// A time of day in microseconds, to the second: mostly around noon.
pub(super) fn time_of_day(random: &mut Random) -> i64 {
    ((random.uniform() + random.uniform()) * 43_200.0) as i64 * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_089), (2025, 1, 1));
    }

    #[test]
    fn seasons_grow_and_peak() {
        let mut months = [1.0; 12];
        months[11] = 5.0;
        let season = Season::new(17_897, 730, 3.0, &months, 0.5); // 2019 and 2020
        let mut random = Random::new(1);
        let days: Vec<i64> = (0..20_000).map(|_| season.day(random.uniform())).collect();
        let share = |test: &dyn Fn(i64) -> bool| days.iter().filter(|&&day| test(day)).count() as f64 / 20_000.0;
        assert!(share(&|day| civil(day).1 == 12) > 0.25);
        assert!(share(&|day| civil(day).0 == 2020) > 0.55);
        assert!(share(&|day| (day + 3).rem_euclid(7) >= 5) < 0.2);
        assert!(days.iter().all(|&day| (17_897..17_897 + 730).contains(&day)));
    }
}
