//! Frequencies of the distinct values of a column in bounded memory.
//!
//! Integers of a known small range are counted in an array, other values in a hash map; both exactly. A map that is full goes
//! on by adaptive sampling (Wegman; analysed by Flajolet, "On adaptive sampling", Computing 1990): only values with a small
//! hash stay, with their exact counts, so that the map is a uniform sample of the degree sequence and its number of values
//! times two to the number of halvings estimates the distinct ones. From then on the rows of all values are also counted in
//! cells by hash, as in one row of a count-min sketch (Cormode and Muthukrishnan, J. Algorithms 2005): a value has no more
//! rows than its cell, so that the degrees of the cells dominate those of the values.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::degrees::DegreeSequence;
use super::reading::{Reading, key_hash};
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

/// Cells that count the rows of all values once the map is full.
const CELLS: usize = 1 << 16;

/// Counts of distinct keys.
#[derive(Debug)]
pub(crate) struct Counter {
    /// Counts of the keys from a smallest one on.
    dense: Option<(u64, Vec<u64>)>,
    counts: HashMap<u64, u64, Build>,
    capacity: usize,
    halvings: u32,
    /// Keys with a larger hash are sampled out.
    threshold: u64,
    /// Rows by the hash of their key, once the map was full.
    cells: Option<Vec<u64>>,
}

impl Counter {
    /// A counter of at most `capacity` keys.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            dense: None,
            counts: HashMap::default(),
            capacity: capacity.max(1024),
            halvings: 0,
            threshold: u64::MAX,
            cells: None,
        }
    }

    /// A counter of the keys from `low` to `high`; others turn it into one of `capacity` keys.
    pub(crate) fn dense(low: u64, high: u64, capacity: usize) -> Self {
        Self { dense: Some((low, vec![0; (high - low) as usize + 1])), ..Self::new(capacity) }
    }

    /// Whether it counts by hash.
    pub(crate) fn is_hashed(&self) -> bool {
        self.dense.is_none()
    }

    /// Counts the keys of `reading`, which are hashed where [`Self::is_hashed`].
    pub(crate) fn add_all(&mut self, reading: &mut Reading) {
        if let Some((base, counts)) = &mut self.dense {
            let place = |key: &u64| usize::try_from(key.wrapping_sub(*base)).ok().filter(|&i| i < counts.len());
            let inside = reading.ends.is_none_or(|(low, high)| place(&low).is_some() && place(&high).is_some());
            if inside {
                for key in &reading.keys {
                    counts[key.wrapping_sub(*base) as usize] += 1;
                }
                return;
            }
            // What the files said of the range is wrong.
            self.scatter();
            reading.hash();
        }
        for (&key, &hash) in reading.keys.iter().zip(&reading.hashes) {
            if let Some(cells) = &mut self.cells {
                cells[hash as usize % CELLS] += 1;
            }
            if hash <= self.threshold {
                self.insert(key, 1);
            }
        }
    }

    /// Goes over from the array to the map.
    fn scatter(&mut self) {
        let Some((base, counts)) = self.dense.take() else { return };
        for (place, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let key = base + place as u64;
            if let Some(cells) = &mut self.cells {
                cells[key_hash(key) as usize % CELLS] += count;
            }
            if key_hash(key) <= self.threshold {
                self.insert(key, count);
            }
        }
    }

    fn insert(&mut self, key: u64, rows: u64) {
        match self.counts.entry(key) {
            Entry::Occupied(mut entry) => *entry.get_mut() += rows,
            Entry::Vacant(entry) => {
                entry.insert(rows);
                self.shrink();
            }
        }
    }

    /// Samples while the keys are too many.
    fn shrink(&mut self) {
        if self.counts.len() > self.capacity {
            self.count_in_cells();
        }
        while self.counts.len() > self.capacity {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.halvings += 1;
        self.threshold /= 2;
        let threshold = self.threshold;
        self.counts.retain(|&key, _| key_hash(key) <= threshold);
    }

    fn count_in_cells(&mut self) {
        if self.cells.is_none() {
            let mut cells = vec![0; CELLS];
            self.counts.iter().for_each(|(&key, &count)| cells[key_hash(key) as usize % CELLS] += count);
            self.cells = Some(cells);
        }
    }

    /// Adds what another counter counted.
    pub(crate) fn append(&mut self, mut other: Self) {
        if let (Some((base, counts)), Some((other_base, other_counts))) = (&mut self.dense, &other.dense)
            && *base == *other_base
            && counts.len() == other_counts.len()
        {
            counts.iter_mut().zip(other_counts).for_each(|(count, more)| *count += more);
            return;
        }
        self.scatter();
        other.scatter();
        if self.cells.is_some() || other.cells.is_some() {
            self.count_in_cells();
            other.count_in_cells();
        }
        if let (Some(cells), Some(more)) = (&mut self.cells, &other.cells) {
            cells.iter_mut().zip(more).for_each(|(cell, more)| *cell += more);
        }
        while self.halvings < other.halvings {
            self.halve();
        }
        let threshold = self.threshold;
        let stay = other.counts.into_iter().filter(|(key, _)| key_hash(*key) <= threshold);
        stay.for_each(|(key, count)| *self.counts.entry(key).or_default() += count);
        self.shrink();
    }

    /// Number of keys, where they are in a map and all counted.
    pub(crate) fn len(&self) -> Option<usize> {
        (self.dense.is_none() && self.is_exact()).then(|| self.counts.len())
    }

    /// Whether every key was counted.
    pub(crate) fn is_exact(&self) -> bool {
        self.halvings == 0
    }

    /// Distinct keys per counted one.
    pub(crate) fn scale(&self) -> f64 {
        2f64.powi(self.halvings as i32)
    }

    /// Rows of a key, where it was counted.
    pub(crate) fn count(&self, key: u64) -> Option<u64> {
        match &self.dense {
            Some((base, counts)) => {
                counts.get(usize::try_from(key.wrapping_sub(*base)).ok()?).copied().filter(|count| *count > 0)
            }
            None => self.counts.get(&key).copied(),
        }
    }

    /// Keys and counts in ascending order of key.
    pub(crate) fn sorted(&self) -> Vec<(u64, u64)> {
        match &self.dense {
            Some((base, counts)) => {
                let counted = counts.iter().enumerate().filter(|(_, count)| **count > 0);
                counted.map(|(place, &count)| (base + place as u64, count)).collect()
            }
            None => {
                let mut all: Vec<(u64, u64)> = self.counts.iter().map(|(&key, &count)| (key, count)).collect();
                all.sort_unstable();
                all
            }
        }
    }

    /// A sequence that dominates the degrees of all keys; `sorted` are the counted ones.
    pub(crate) fn degrees(&self, sorted: &[(u64, u64)]) -> DegreeSequence {
        let mut values: HashMap<u64, u64> = HashMap::new();
        let degrees: Box<dyn Iterator<Item = u64>> = match &self.cells {
            Some(cells) => Box::new(cells.iter().copied().filter(|count| *count > 0)),
            None => Box::new(sorted.iter().map(|(_, count)| *count)),
        };
        degrees.for_each(|degree| *values.entry(degree).or_default() += 1);
        DegreeSequence::new(values.into_iter().collect())
    }

    /// The smallest hashes of the keys, at most `capacity`, ascending.
    pub(crate) fn smallest_hashes(&self, sorted: &[(u64, u64)], capacity: usize) -> Vec<u64> {
        let mut hashes: Vec<u64> = sorted.iter().map(|(key, _)| key_hash(*key)).collect();
        if hashes.len() > capacity {
            hashes.select_nth_unstable(capacity);
            hashes.truncate(capacity);
        }
        hashes.sort_unstable();
        hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &[u64]) -> Reading {
        let ends = keys.iter().min().copied().zip(keys.iter().max().copied());
        let mut reading = Reading { keys: keys.to_vec(), ends, ..Reading::default() };
        reading.hash();
        reading
    }

    #[test]
    fn counts_exactly_below_the_capacity() {
        for mut counter in [Counter::new(2048), Counter::dense(0, 999, 2048), Counter::dense(5, 700, 2048)] {
            let keys: Vec<u64> = (0..1000).chain(0..10).collect();
            counter.add_all(&mut read(&keys));
            let sorted = counter.sorted();
            assert!(counter.is_exact() && sorted.len() == 1000 && sorted.is_sorted());
            assert_eq!((counter.count(3), counter.count(500), counter.count(1000)), (Some(2), Some(1), None));
            let degrees = counter.degrees(&sorted);
            assert_eq!((degrees.max(), degrees.rows(), degrees.power_sum(2)), (2.0, 1010.0, 1030.0));
        }
    }

    #[test]
    fn parts_add_up() {
        let keys: Vec<u64> = (0..30_000u64).map(|i| i * 7919 % 5000).collect();
        let mut whole = Counter::new(1 << 13);
        whole.add_all(&mut read(&keys));
        let (head, tail) = keys.split_at(7000);
        let parts = [
            (Counter::new(1 << 13), Counter::new(1 << 13)),
            (Counter::dense(0, 4999, 1 << 13), Counter::dense(0, 4999, 1 << 13)),
            (Counter::dense(0, 4999, 1 << 13), Counter::new(1 << 13)),
        ];
        for (mut one, mut other) in parts {
            one.add_all(&mut read(head));
            other.add_all(&mut read(tail));
            one.append(other);
            assert_eq!(one.sorted(), whole.sorted());
        }
        let (mut one, mut other) = (Counter::new(1 << 10), Counter::new(1 << 12));
        one.add_all(&mut read(head));
        other.add_all(&mut read(tail));
        one.append(other);
        assert!(one.sorted().iter().all(|(key, count)| whole.count(*key) == Some(*count)) && !one.is_exact());
    }

    #[test]
    fn estimates_distinct_values_above_it() {
        let mut counter = Counter::new(4096);
        let keys: Vec<u64> = (0..300_000u64).flat_map(|key| [key, key]).collect();
        counter.add_all(&mut read(&keys));
        assert!(!counter.is_exact());
        let kept = counter.sorted();
        let estimate = kept.len() as f64 * counter.scale();
        assert!((estimate / 300_000.0 - 1.0).abs() < 0.1, "{estimate}");
        assert!(kept.iter().all(|&(_, count)| count == 2));
        let hashes = counter.smallest_hashes(&kept, 256);
        assert!(hashes.len() == 256 && hashes.is_sorted());
        let by_hashes = 255.0 / (hashes[255] as f64 / u64::MAX as f64);
        assert!((by_hashes / 300_000.0 - 1.0).abs() < 0.25, "{by_hashes}");
    }

    #[test]
    fn cells_bound_the_degrees_of_what_is_not_counted() {
        let mut counter = Counter::new(1024);
        let keys: Vec<u64> = (0..200_000u64).map(|i| if i % 10 == 0 { 7 } else { i }).collect();
        counter.add_all(&mut read(&keys));
        let degrees = counter.degrees(&counter.sorted());
        assert!(degrees.max() >= 20_000.0 && degrees.max() < 20_100.0, "{}", degrees.max());
        assert!((degrees.rows() - 200_000.0).abs() < 1.0);
    }
}
