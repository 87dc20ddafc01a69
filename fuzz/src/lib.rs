//! Fuzz bodies: each takes arbitrary bytes and panics only where relata is wrong.
//!
//! The targets for libFuzzer in `targets/` are one line each; the tests run every body on the seeds in `seeds/` and on
//! mutations of them, so that the bodies stay alive without a fuzzer.

pub mod queries;
pub mod sessions;

use std::path::Path;

use relata_experts::stack::ExpertStack;
use relata_experts::weights::sha256;
use relata_featurize::profile::TableProfile;

use sessions::Outcome;

/// A stored profile is read or refused.
///
/// # Panics
/// When a profile is read that does not fit its own sample.
pub fn profile(data: &[u8]) {
    if let Ok(profile) = TableProfile::from_bytes(data, Path::new("fuzz")) {
        assert_eq!(profile.columns.len(), profile.sample.num_columns());
    }
}

/// Weights are read or refused: the bytes are the length of the weights in four little-endian bytes, these, and their manifest.
/// Says whether they were read.
///
/// # Panics
/// When weights are read that their manifest does not describe, or whose numbers are not finite.
pub fn weights(data: &[u8]) -> bool {
    let Some((length, data)) = data.split_first_chunk::<4>() else { return false };
    let (weights, manifest) = data.split_at(data.len().min(u32::from_le_bytes(*length) as usize));
    let Ok(stack) = ExpertStack::from_bytes(weights, manifest) else { return false };
    assert_eq!(stack.manifest().map(|manifest| manifest.sha256.clone()), Some(sha256(weights)));
    let parameters = stack.parameters();
    assert_eq!(parameters.len(), stack.config().parameter_count());
    assert!(parameters.iter().all(|parameter| parameter.is_finite()));
    true
}

/// A text that is a query goes from plan to join graph and back, in an order that random estimates choose, and has the same
/// schema and answer as without relata.
///
/// # Panics
/// When it has not.
pub fn sql(data: &[u8]) {
    let Ok(sql) = std::str::from_utf8(data) else { return };
    // Only queries: statements would change the session.
    if sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select")) && sql.len() <= 2000 {
        let text = sql.to_ascii_lowercase();
        sessions::compare(sql, text.contains("limit") || text.contains("offset"));
    }
}

/// The same for the query that the bytes choose.
///
/// # Panics
/// When it has not.
pub fn query(data: &[u8]) -> Outcome {
    sessions::compare(&queries::query(data), false)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::{Arc, LazyLock};

    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    use relata_experts::weights::{PRETRAINED_MANIFEST, PRETRAINED_WEIGHTS};
    use relata_featurize::profile::ProfileConfig;

    use super::*;

    static STORED_PROFILE: LazyLock<Vec<u8>> = LazyLock::new(stored_profile);

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty());
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// A sound stored profile: it is made anew, because its form may change.
    fn stored_profile() -> Vec<u8> {
        let ids = Int64Array::from_iter((0..200).map(|i| (i % 9 > 0).then_some(i * i)));
        let words = StringArray::from_iter_values((0..200).map(|i| format!("word {}", i % 11)));
        let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("word", Arc::new(words))];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let profile = TableProfile::of_batches(rows.schema(), &[rows], &ProfileConfig::default()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed");
        profile.save(&path).unwrap();
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn seeds_pass() {
        assert!(TableProfile::from_bytes(&STORED_PROFILE, Path::new("seed")).is_ok());
        profile(&STORED_PROFILE);
        assert!(seeds("weights").iter().all(|seed| !weights(seed)));
        seeds("sql").iter().for_each(|seed| sql(seed));
    }

    /// Weights and a manifest as the body reads them; the manifest's checksum is made that of the weights.
    fn stored_weights(weights: &[u8]) -> Vec<u8> {
        let manifest = std::str::from_utf8(PRETRAINED_MANIFEST).unwrap();
        let manifest = manifest.replace(&sha256(PRETRAINED_WEIGHTS), &sha256(weights));
        [&(weights.len() as u32).to_le_bytes(), weights, manifest.as_bytes()].concat()
    }

    #[test]
    fn mutated_weights_are_refused_or_sound() {
        assert!(weights(&stored_weights(PRETRAINED_WEIGHTS)));
        let mut runner =
            TestRunner::new_with_rng(Config::with_cases(48), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let places = (any::<bool>(), any::<prop::sample::Index>(), any::<u8>());
        let read = RefCell::new([0; 2]);
        let run = runner.run(&places, |(in_header, position, byte)| {
            // The header of a safetensors file comes before the numbers.
            let header = 8 + u64::from_le_bytes(*PRETRAINED_WEIGHTS.first_chunk().unwrap()) as usize;
            let mut mutated = PRETRAINED_WEIGHTS.to_vec();
            let at = if in_header { position.index(header) } else { header + position.index(mutated.len() - header) };
            mutated[at] = byte;
            read.borrow_mut()[usize::from(weights(&stored_weights(&mutated)))] += 1;
            assert!(!weights(&stored_weights(&mutated[..at])));
            // The checksum of what it was.
            let stored = stored_weights(PRETRAINED_WEIGHTS);
            let unchecked = [&stored[..4], &mutated, &stored[4 + mutated.len()..]].concat();
            assert_eq!(weights(&unchecked), mutated == PRETRAINED_WEIGHTS);
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{error}"));
        // Numbers may be others, the header may not.
        let [refused, read] = read.into_inner();
        assert!(refused >= 12 && read >= 12, "{refused} refused, {read} read");
    }

    #[test]
    fn random_queries_agree() {
        let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let bytes = prop::collection::vec(any::<u8>(), 0..120);
        let outcomes = RefCell::new(vec![]);
        let run = runner.run(&bytes, |bytes| {
            outcomes.borrow_mut().push(query(&bytes));
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{error}"));
        let outcomes = outcomes.into_inner();
        let count = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count();
        let asked = outcomes.len();
        let with_rows = count(|outcome| matches!(outcome, Outcome::Same(rows) if *rows > 0));
        let refused = count(|outcome| *outcome == Outcome::Refused);
        let unstable = count(|outcome| *outcome == Outcome::Unstable);
        let reordered = sessions::reordered() as usize;
        let seen =
            format!("{asked}: {with_rows} with rows, {refused} refused, {unstable} unstable; {reordered} reordered");
        // What has no rows or no other order tests little.
        assert!(with_rows * 5 > asked * 2 && reordered > asked / 2, "{seen}");
        assert!(refused * 5 < asked && unstable * 20 < asked, "{seen}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn mutated_profiles_are_refused_or_sound(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut seed = STORED_PROFILE.clone();
            let at = position.index(seed.len());
            seed[at] = byte;
            profile(&seed);
            profile(&seed[..at]);
        }

        #[test]
        fn mutated_queries_agree(position in any::<prop::sample::Index>(), word in "[a-z0-9 =<>.,()*']{0,6}") {
            for seed in seeds("sql") {
                let mut text = String::from_utf8(seed).unwrap();
                let at = position.index(text.len());
                text.insert_str(at, &word);
                sql(text.as_bytes());
            }
        }
    }
}
