//! Frequencies of the distinct values of a column in bounded memory.
//!
//! Adaptive sampling (Wegman; analysed by Flajolet, "On adaptive sampling", Computing 1990): values are counted exactly
//! until the map is full; then only values whose hash starts with one more zero bit stay. The number of distinct values is
//! the size of the map times two to the number of halvings, and the values that stay keep their exact counts, so that the
//! map remains a uniform sample of the degree sequence.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::sample::mix;

/// The keys are already hashes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct PassThrough(u64);

impl std::hash::Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64(bytes);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = mix(value);
    }
}

type Build = std::hash::BuildHasherDefault<PassThrough>;

/// Counts of distinct keys.
#[derive(Debug)]
pub(crate) struct Counter {
    counts: HashMap<u64, u64, Build>,
    capacity: usize,
    halvings: u32,
}

impl Counter {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { counts: HashMap::default(), capacity: capacity.max(1024), halvings: 0 }
    }

    pub(crate) fn add(&mut self, key: u64) {
        if self.halvings > 0 && !self.stays(key) {
            return;
        }
        match self.counts.entry(key) {
            Entry::Occupied(mut entry) => *entry.get_mut() += 1,
            Entry::Vacant(entry) => {
                entry.insert(1);
                while self.counts.len() > self.capacity {
                    self.halvings += 1;
                    let halvings = self.halvings;
                    self.counts.retain(|&key, _| stays(key, halvings));
                }
            }
        }
    }

    fn stays(&self, key: u64) -> bool {
        stays(key, self.halvings)
    }

    /// Whether every key was counted.
    pub(crate) fn is_exact(&self) -> bool {
        self.halvings == 0
    }

    /// Distinct keys per key in the map.
    pub(crate) fn scale(&self) -> f64 {
        2f64.powi(self.halvings as i32)
    }

    pub(crate) fn count(&self, key: u64) -> Option<u64> {
        self.counts.get(&key).copied()
    }

    /// Keys and counts in ascending order of key.
    pub(crate) fn sorted(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = self.counts.iter().map(|(&key, &count)| (key, count)).collect();
        all.sort_unstable();
        all
    }
}

fn stays(key: u64, halvings: u32) -> bool {
    // The table uses the low and the highest bits of mix(key); a second mix keeps this choice independent of them.
    mix(mix(key)).leading_zeros() >= halvings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_exactly_below_the_capacity() {
        let mut counter = Counter::new(2048);
        (0..1000u64).chain(0..10).for_each(|key| counter.add(key));
        assert!(counter.is_exact());
        assert_eq!(counter.sorted().len(), 1000);
        assert_eq!(counter.count(3), Some(2));
        assert_eq!(counter.count(500), Some(1));
    }

    #[test]
    fn estimates_distinct_values_above_it() {
        let mut counter = Counter::new(4096);
        for key in 0..300_000u64 {
            counter.add(key);
            counter.add(key);
        }
        assert!(!counter.is_exact());
        let kept = counter.sorted();
        let estimate = kept.len() as f64 * counter.scale();
        assert!((estimate / 300_000.0 - 1.0).abs() < 0.1, "{estimate}");
        assert!(kept.iter().all(|&(_, count)| count == 2));
    }
}
