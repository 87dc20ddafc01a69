//! The statistics on a database whose figures are known.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};

use super::*;
use crate::database::{ForeignKey, Table};

/// 40 parents, of which 30 have 10 children each, and two columns of the child that fall as one of the parent rises.
fn database() -> Database {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40));
    let size: ArrayRef = Arc::new(Float64Array::from_iter_values((0..40).map(f64::from)));
    let parent = RecordBatch::try_from_iter([("id", ids), ("size", size)]).unwrap();
    let refers: ArrayRef = Arc::new((0..310).map(|row| (row < 300).then_some(row % 30)).collect::<Int64Array>());
    let cost: ArrayRef = Arc::new((0..310).map(|row| Some(-(row % 30))).collect::<Int64Array>());
    let word: ArrayRef = Arc::new((0..310).map(|row| (row >= 31).then_some("ab")).collect::<StringArray>());
    let child = RecordBatch::try_from_iter_with_nullable([
        ("parent", refers, true),
        ("cost", Arc::clone(&cost), true),
        ("price", cost, true),
        ("word", word, true),
    ])
    .unwrap();
    Database {
        name: "d".to_owned(),
        role: Role::Train,
        tables: vec![
            Table::new("parent", parent, &["id".to_owned()]).unwrap(),
            Table::new("child", child, &[]).unwrap(),
        ],
        foreign_keys: vec![ForeignKey { table: 1, columns: vec![0], references: 0, references_columns: vec![0] }],
    }
}

#[test]
fn known_figures_are_found() {
    let measured = measure(&database());
    let quartiles = |statistic| [0.25, 0.5, 0.75].map(|u| Distribution::new([&measured], statistic).quantile(u));
    let near = |statistic, expected: f64| {
        let found = quartiles(statistic);
        assert!(found.iter().all(|value| (value - expected).abs() < 1e-9), "{statistic:?}: {found:?}");
    };
    near(Statistic::Tables, 2.0);
    near(Statistic::FanoutMean, 10.0);
    near(Statistic::FanoutVariation, 0.0);
    near(Statistic::FanoutTop, 1.0 / 30.0);
    near(Statistic::Childless, 0.25);
    near(Statistic::Correlation, 1.0);
    near(Statistic::AcrossCorrelation, 1.0);
    near(Statistic::TextLength, 2.0);
    near(Statistic::NullShare, 0.1);
    assert_eq!(Distribution::new([&measured], Statistic::DistinctRatio).len(), 3);
    let share = |share| mean_share([&measured], share);
    let third = 1.0 / 3.0;
    for (found, expected) in [
        (share(Share::Text), third),
        (share(Share::Integer), 2.0 * third),
        (share(Share::Nullable), third),
        (share(Share::NoKey), 0.5),
        (share(Share::Root), 0.5),
        (share(Share::OptionalReference), 1.0),
        (share(Share::DanglingReference), 0.0),
    ] {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }
}

#[test]
fn the_report_is_written_and_deterministic() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus");
    for (name, role) in [("one", "train"), ("two", "eval")] {
        std::fs::create_dir_all(corpus.join(name)).unwrap();
        let schema = format!("{{\"name\": \"{name}\", \"role\": \"{role}\", \"tables\": []}}");
        std::fs::write(corpus.join(name).join("schema.json"), schema).unwrap();
    }
    let options = MarginalsOptions { corpus, draws: 3, seed: 5, output: folder.path().join("report") };
    let report = run(&options).unwrap();
    assert_eq!(report.databases, ["one"]);
    assert_eq!(report.statistics.len(), Statistic::ALL.len());
    let read = |name: &str| std::fs::read_to_string(options.output.join(name)).unwrap();
    let pages = ["marginals.md", "marginals.json", "marginals.svg"].map(read);
    assert!(pages[0].contains("seeds 5 to 7") && pages[2].starts_with("<svg"));
    run(&options).unwrap();
    assert_eq!(pages, ["marginals.md", "marginals.json", "marginals.svg"].map(read));
}

#[test]
fn what_is_missing_is_said() {
    let options = |corpus: &Path| MarginalsOptions { corpus: corpus.to_owned(), draws: 3, seed: 0, output: "x".into() };
    assert!(run(&options(Path::new("/nonexistent"))).unwrap_err().to_string().contains("no corpus at /nonexistent"));
    let empty = tempfile::tempdir().unwrap();
    assert!(run(&options(empty.path())).unwrap_err().to_string().contains("no database of role train"));
}
