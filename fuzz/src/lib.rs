//! Fuzz bodies: each takes arbitrary bytes and panics only where relata is wrong.
//!
//! The targets for libFuzzer in `targets/` are one line each; the tests run every body on the seeds in `seeds/` and on
//! mutations of them, so that the bodies stay alive without a fuzzer.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use relata::Relata;
use relata_experts::stack::ExpertStack;
use relata_featurize::profile::TableProfile;

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

/// A query over two small tables has the same answer, or fails as well, with relata and without it.
///
/// # Panics
/// When it has not.
pub fn sql(data: &[u8]) {
    let Ok(sql) = std::str::from_utf8(data) else { return };
    // Only queries: statements would change the session.
    if !sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select")) || sql.len() > 2000 {
        return;
    }
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let [default, relata] = &*CONTEXTS;
            match (rows(default, sql).await, rows(relata, sql).await) {
                (Some(expected), Some(found)) => assert_eq!(expected, found, "{sql}"),
                (Some(_), None) => panic!("relata made a query fail: {sql}"),
                (None, _) => {}
            }
        });
    });
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = runtime();
}

#[expect(clippy::expect_used, reason = "a fuzz body may die when the machine gives it no thread")]
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A default session and one with relata over the same tables.
#[expect(clippy::expect_used, reason = "a fuzz body may die when its own set-up fails")]
static CONTEXTS: LazyLock<[SessionContext; 2]> = LazyLock::new(|| {
    let relata = Relata::pretrained().expect("the committed weights");
    let plain = SessionStateBuilder::new_with_default_features();
    let learned = relata.install(SessionStateBuilder::new_with_default_features());
    [plain, learned].map(|builder| {
        let ctx = SessionContext::new_with_state(builder.build());
        for (name, rows) in [("a", 40), ("b", 90)] {
            let ids = Int64Array::from_iter((0..rows).map(|i| (i % 13 != 5).then_some(i * i % 17)));
            let words = StringArray::from_iter_values((0..rows).map(|i| format!("w{}", i % 7)));
            let batch =
                RecordBatch::try_from_iter([("x", Arc::new(ids) as ArrayRef), ("y", Arc::new(words) as ArrayRef)]);
            ctx.register_batch(name, batch.expect("columns of one length")).expect("a new table");
        }
        ctx
    })
});

/// The rows of a query in a fixed order, `None` when it fails; a LIMIT without an order may pick any rows, so that only
/// their number is compared.
async fn rows(ctx: &SessionContext, sql: &str) -> Option<Vec<String>> {
    let batches = ctx.sql(sql).await.ok()?.collect().await.ok()?;
    if sql.to_ascii_lowercase().contains("limit") || sql.to_ascii_lowercase().contains("offset") {
        return Some(vec![batches.iter().map(RecordBatch::num_rows).sum::<usize>().to_string()]);
    }
    let text = datafusion::arrow::util::pretty::pretty_format_batches(&batches).ok()?.to_string();
    let mut lines: Vec<String> = text.lines().map(ToString::to_string).collect();
    lines.sort();
    Some(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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
