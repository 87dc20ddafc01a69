//! Fuzz bodies: each takes arbitrary bytes and panics only where relata is wrong.
//!
//! The targets for libFuzzer in `targets/` are one line each; the tests run every body on the seeds in `seeds/` and on
//! mutations of them, so that the bodies stay alive without a fuzzer.

pub mod queries;
pub mod sessions;

use std::path::Path;

use relata_experts::stack::ExpertStack;
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

/// Weights are read or refused; what is read passes for the committed weights only.
///
/// # Panics
/// When the bytes pass for weights.
pub fn weights(data: &[u8]) {
    let (weights, manifest) = data.split_at(data.len() / 2);
    assert!(ExpertStack::from_bytes(weights, manifest).is_err(), "arbitrary bytes passed for weights");
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
        seeds("weights").iter().for_each(|seed| weights(seed));
        seeds("sql").iter().for_each(|seed| sql(seed));
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
