//! Figures, files and plots of made-up estimates; the scan of a whole corpus where it is small.

use super::*;

fn estimates() -> Vec<Estimated> {
    let queries = [("a", "seed", 10.0), ("a", "hard", 50.0), ("b", "seed", 7.0), ("b", "hard", 1e6)];
    queries
        .iter()
        .enumerate()
        .map(|(index, &(database, group, truth))| Estimated {
            id: format!("q{index}"),
            database: database.to_owned(),
            group: group.to_owned(),
            truth,
            estimate: Some(20.0),
            lower: Some(5.0),
            upper: Some(60.0),
            default: None,
            analytical: Some(truth * 2.0),
            postgres: (index > 0).then_some(1.0),
            duckdb: Some(truth),
            planning_us: Some(100),
            error: None,
        })
        .collect()
}

#[test]
fn figures_are_per_group_and_database() {
    let figures = figures(&estimates());
    // Four contenders have estimates; three groups overall and in each of two databases.
    assert_eq!(figures.len(), 4 * 3 + 2 * 4 * 3 - 1);
    let find = |group: &str, contender| {
        let found = figures.iter().find(|f| f.database.is_none() && f.group == group && f.contender == contender);
        found.map(|figure| figure.summary.clone())
    };
    assert!(find("seed", Contender::DataFusion).is_none());
    assert!((find("all", Contender::Analytical).unwrap().median - 2.0).abs() < 1e-9);
    assert_eq!(find("all", Contender::Postgres).unwrap().missing, 1);
    let relata = find("all", Contender::Relata).unwrap();
    assert!((relata.coverage.unwrap() - 0.75).abs() < 1e-9 && (relata.width.unwrap() - 12.0).abs() < 1e-9);
    let table = print(&figures);
    assert!(table.contains("postgres") && table.contains("75.0%"), "{table}");
}

#[test]
fn results_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let report = ScoreReport {
        provenance: Provenance::collect(None),
        profile_seconds: vec![("a".to_owned(), 0.5)],
        median_planning_us: 100.0,
        figures: figures(&estimates()),
        estimates: estimates(),
    };
    write(&report, folder.path(), "queries").unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("queries.json")).unwrap();
    assert_eq!(json["figures"][0]["contender"], "analytical");
    assert_eq!(read("queries.jsonl").lines().count(), 4);
    assert!(read("queries.svg").contains("relata"));
}

#[tokio::test]
async fn a_missing_corpus_is_named() {
    let options = ScoreOptions {
        corpus: PathBuf::from("/nonexistent"),
        database: vec![],
        kinds: vec!["seed".to_owned()],
        subplans: false,
        output: None,
        jobs: 1,
    };
    assert!(run(&options).await.unwrap_err().to_string().contains("no corpus"));
}
