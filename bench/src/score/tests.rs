//! Figures and files of made-up estimates, and the whole command over a corpus of one small database.

use super::*;

fn estimates() -> Vec<Estimated> {
    let queries = [("a", "seed", 10.0), ("a", "hard", 50.0), ("b", "seed", 7.0), ("b", SUBPLAN, 1e6)];
    let plain = |rows| Prediction { rows, interval: None, planning_us: None };
    queries
        .iter()
        .enumerate()
        .map(|(index, &(database, kind, truth))| {
            let relata = Prediction { rows: 20.0, interval: Some((5.0, 60.0)), planning_us: Some(100) };
            let mut predictions = BTreeMap::from([
                (RELATA.to_owned(), relata),
                ("analytical".to_owned(), plain(truth * 2.0)),
                ("duckdb".to_owned(), plain(truth)),
            ]);
            if index > 0 {
                predictions.insert("postgres".to_owned(), plain(1.0));
            }
            Estimated {
                id: format!("q{index}"),
                database: database.to_owned(),
                kind: kind.to_owned(),
                tables: 1 + index,
                truth,
                predictions,
                errors: BTreeMap::new(),
            }
        })
        .collect()
}

fn contenders() -> Vec<String> {
    ["datafusion", "analytical", RELATA, "postgres", "duckdb"].map(str::to_owned).to_vec()
}

#[test]
fn figures_are_per_group_and_database() {
    let figures = figures(&estimates(), &contenders());
    let find = |subplans: bool, group: &str, contender: &str| {
        let found = figures.iter().find(|f| {
            f.database.is_none() && f.group.subplans == subplans && f.group.name == group && f.contender == contender
        });
        found.map(|figure| figure.summary.clone())
    };
    assert!(find(false, "seed", "datafusion").is_none());
    assert!((find(false, "all", "analytical").unwrap().median - 2.0).abs() < 1e-9);
    let postgres = find(false, "all", "postgres").unwrap();
    assert_eq!((postgres.n, postgres.missing), (2, 1));
    assert!((postgres.under.unwrap().share - 1.0).abs() < 1e-9 && postgres.over.is_none());
    assert!(find(false, "4 tables", RELATA).is_none());
    assert_eq!(find(true, "4 tables", RELATA).unwrap().n, 1);
    let relata = find(false, "all", RELATA).unwrap();
    assert!((relata.coverage.unwrap() - 1.0).abs() < 1e-9 && (relata.width.unwrap() - 12.0).abs() < 1e-9);
    assert_eq!(figures.iter().filter(|f| f.database.is_some() && f.contender == RELATA).count(), 2);
    let intervals = figures::Intervals::of(&figures, RELATA).unwrap();
    assert_eq!(intervals.databases.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(intervals.summary().contains("100.0% of the truths, 85% to 95% on 0 of 2"), "{}", intervals.summary());
    let table = print(&figures);
    assert!(table.contains("postgres") && table.contains("100%") && table.contains("sub-joins"), "{table}");
}

#[test]
fn results_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let scores = Scores {
        database: "a".to_owned(),
        contenders: contenders(),
        profile_seconds: 0.5,
        estimates: estimates(),
        plans: vec![],
    };
    let report = ScoreReport::new(vec![scores], None);
    assert!((report.median_planning_us - 100.0).abs() < 1e-9);
    report.write(folder.path()).unwrap();
    let read = ScoreReport::read(folder.path()).unwrap();
    assert_eq!((print(&read.figures), read.estimates), (print(&report.figures), report.estimates));
    assert_eq!(read.provenance, report.provenance);
}

#[tokio::test]
async fn a_missing_corpus_is_named() {
    let options = options(Path::new("/nonexistent"));
    assert!(run(&options).await.unwrap_err().to_string().contains("no corpus"));
}

fn options(corpus: &Path) -> ScoreOptions {
    ScoreOptions {
        source: crate::corpus::tests::source(corpus),
        kinds: ["seed", "hard", SUBPLAN].map(str::to_owned).to_vec(),
        estimates: vec![],
        weights: vec![],
        without: None,
        linear: None,
        output: None,
        jobs: 1,
    }
}

#[tokio::test]
async fn a_small_corpus_is_scored_from_end_to_end() {
    let corpus = tempfile::tempdir().unwrap();
    crate::corpus::tests::write_corpus(corpus.path());
    let estimates = corpus.path().join("mine.jsonl");
    std::fs::write(&estimates, "{\"id\":\"q1\",\"estimate\":10}\n{\"id\":\"q2\",\"estimate\":null}\n").unwrap();
    let options = ScoreOptions {
        estimates: vec![format!("mine={}", estimates.display()).parse().unwrap()],
        ..options(corpus.path())
    };
    let report = run(&options).await.unwrap();
    // The linear baseline stays away where its coefficients belong to another layout of the features.
    let contenders: Vec<&str> = report.contenders.iter().map(String::as_str).filter(|name| *name != "linear").collect();
    assert_eq!(contenders, ["datafusion", "analytical", RELATA, "postgres", "duckdb", "mine"]);
    assert_eq!(report.estimates.len(), 2);
    let first = &report.estimates[0];
    assert!((first.scored("mine").unwrap().estimate - 10.0).abs() < 1e-9 && first.errors.is_empty(), "{first:?}");
    assert!(first.scored(RELATA).unwrap().interval.is_some());
    // One join of two tables has one order.
    assert_eq!(report.plans.len(), 1);
    assert!(report.plans[0].costs.values().all(|cost| (cost - report.plans[0].best).abs() < 1e-9));
}
