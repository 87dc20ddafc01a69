//! Values of the command line.

use std::time::Duration;

use anyhow::{Result, ensure};

/// Parses a number of at least one.
pub(crate) fn at_least_one(text: &str) -> Result<usize> {
    let number = text.parse()?;
    ensure!(number > 0, "must be at least 1");
    Ok(number)
}

/// Parses a positive number of seconds.
pub(crate) fn seconds(text: &str) -> Result<f64> {
    let seconds = text.parse()?;
    let is_positive = Duration::try_from_secs_f64(seconds).is_ok_and(|duration| !duration.is_zero());
    ensure!(is_positive, "must be a positive number of seconds");
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_refused() {
        assert_eq!(at_least_one("3").unwrap(), 3);
        assert!(at_least_one("0").is_err() && at_least_one("-1").is_err());
        assert!((seconds("0.5").unwrap() - 0.5).abs() < 1e-12);
        assert!(["0", "-1", "nan", "inf", "1e99", "x"].iter().all(|text| seconds(text).is_err()));
    }
}
