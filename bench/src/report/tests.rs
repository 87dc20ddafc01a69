//! A report over a corpus of one small database.

use super::*;
use crate::run::RunOptions;
use crate::score::ScoreOptions;

#[tokio::test]
async fn a_small_corpus_is_reported() {
    let corpus = tempfile::tempdir().unwrap();
    crate::corpus::tests::write_corpus(corpus.path());
    let kinds = ["seed", crate::corpus::SUBPLAN].map(str::to_owned).to_vec();
    let estimates = corpus.path().join("estimates");
    let options = ScoreOptions {
        source: crate::corpus::tests::source(corpus.path()),
        kinds: kinds.clone(),
        estimates: vec![],
        weights: vec![],
        without: None,
        linear: None,
        output: Some(estimates.clone()),
        jobs: 1,
    };
    crate::score::run(&options).await.unwrap();
    let times = corpus.path().join("times.jsonl");
    let options = RunOptions {
        kinds,
        output: Some(times.clone()),
        ..RunOptions::of(crate::corpus::tests::source(corpus.path()))
    };
    run::run(&options).await.unwrap();
    let output = corpus.path().join("small");
    let (runs, estimates) = (vec![times], Some(estimates));
    let options = ReportOptions { estimates, runs, above: 10.0, beside: vec![], output: output.clone() };
    run(&options).unwrap();
    let page = std::fs::read_to_string(output.join("README.md")).unwrap();
    for part in ["# small", "| seed | datafusion |", "as written", "## Times: times", "| q1.s01 |", "(times.svg)"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    for name in ["percentiles.svg", "tables.svg", "predicted.svg", "times.svg"] {
        assert!(std::fs::read_to_string(output.join(name)).unwrap().contains("relata"), "{name}");
    }
    assert!(ScoreReport::read(&output).is_ok() && RunReport::read(&output.join("times.jsonl")).is_ok());
}
