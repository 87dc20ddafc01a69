//! The yardstick on a database whose answers are known.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use datafusion::parquet::arrow::ArrowWriter;
use relata_experts::config::DataConfig;
use relata_experts::prior::Family;

use super::*;

/// A corpus of one database of role `eval`, of one table: a column, its double and its parity.
fn corpus() -> tempfile::TempDir {
    let corpus = tempfile::tempdir().unwrap();
    let folder = corpus.path().join("numbers");
    std::fs::create_dir(&folder).unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let doubles: ArrayRef = Arc::new(Float64Array::from_iter_values((0..1000).map(|i| 2.0 * f64::from(i) + 0.5)));
    let parity: ArrayRef = Arc::new(Int64Array::from_iter((0..1000).map(|i| (i % 3 > 0).then_some(i % 2))));
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("numbers", numbers, false),
        ("doubles", doubles, false),
        ("parity", parity, true),
    ])
    .unwrap();
    let file = std::fs::File::create(folder.join("t.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let schema = r#"{"name": "numbers", "role": "eval", "tables": [{"name": "t", "file": "t.parquet"}]}"#;
    std::fs::write(folder.join("schema.json"), schema).unwrap();
    corpus
}

#[test]
fn known_tables_are_restored() {
    let (corpus, output) = (corpus(), tempfile::tempdir().unwrap());
    let options = ReconstructOptions {
        corpus: corpus.path().to_owned(),
        database: vec![],
        weights: None,
        histograms: 2,
        seed: 1,
        jobs: 1,
        output: Some(output.path().to_owned()),
    };
    let report = run(&options).unwrap();
    let figure = |group: &str, contender: &str| {
        report.histograms.iter().find(|figure| figure.group == group && figure.contender == contender).unwrap()
    };
    // One column is known exactly; two that depend on each other are not independent.
    assert!(figure("1-d", "profile: independence").pooled[1] < 1.01);
    assert!(figure("2-5-d", "groups, untrained").pooled[0] < figure("2-5-d", "profile: independence").pooled[0]);
    let cells = |contender: &str| report.cells.iter().find(|figure| figure.contender == contender).unwrap();
    assert_eq!(cells(EXPERT).cells, 100, "numbers and doubles, in fifty rows each");
    assert!(cells("ridge regression (linfa)").pooled > 0.99 && cells("profile: median").pooled < 0.5);
    let page = std::fs::read_to_string(output.path().join("README.md")).unwrap();
    assert!(page.contains("| high | data expert |") && output.path().join("columns.svg").is_file());
}

#[test]
fn components_are_found_for_every_column() {
    let config = DataConfig::default();
    let expert = relata_experts::fixture::data_expert(config.width, 1).unwrap();
    let (families, points) = scatter::components(&expert, 40).unwrap();
    assert_eq!((families.len(), points.dim()), (40, (40, 2)));
    assert!(families.contains(&Family::Uniform) && points.iter().all(|value| value.is_finite()));
}

#[test]
fn databases_to_train_on_are_not_measured() {
    let corpus = corpus();
    let schema = r#"{"name": "numbers", "role": "train", "tables": []}"#;
    std::fs::write(corpus.path().join("numbers").join("schema.json"), schema).unwrap();
    assert!(folders_of(corpus.path(), Role::Eval).unwrap().is_empty());
}
