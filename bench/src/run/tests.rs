//! Times of made-up queries, and the whole command over a corpus of one small database.

use super::contender::Contender;
use super::table::print;
use super::*;

fn timing(execution_us: &[u64]) -> Timing {
    Timing {
        planning_us: execution_us.iter().map(|_| 1_000).collect(),
        execution_us: execution_us.to_vec(),
        digest: "d".to_owned(),
        ..Timing::default()
    }
}

fn query(id: &str, default: Timing, relata: Timing) -> QueryRun {
    let optimizers = BTreeMap::from([(DEFAULT.to_owned(), default), (RELATA.to_owned(), relata)]);
    QueryRun { id: id.to_owned(), database: "d".to_owned(), answer: Some(7.0), optimizers, confirmed: BTreeMap::new() }
}

fn report(queries: Vec<QueryRun>) -> RunReport {
    let settings = Settings {
        provenance: Provenance::collect(None),
        optimizers: vec![RELATA.to_owned()],
        repeat: 1,
        confirm: 3,
        timeout: Some(10.0),
        partitions: None,
        memory_limit: None,
        in_memory: false,
    };
    RunReport::new(settings, queries)
}

/// Whether two figures are one but for rounding.
fn near(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-6
}

#[test]
fn summaries_take_the_fastest_repetition_and_the_limit() {
    let late = Timing { timeout: true, ..Timing::default() };
    let failed = Timing { error: Some("no memory".to_owned()), ..Timing::default() };
    let report = report(vec![
        query("a", timing(&[9_000, 7_000]), timing(&[1_000, 3_000])),
        query("b", timing(&[1_000]), timing(&[4_000])),
        query("c", late, Timing { wrong: true, ..timing(&[999_000]) }),
        query("d", timing(&[1_000]), failed),
    ]);
    let summaries = report.summaries(5.0);
    let names: Vec<_> = summaries.iter().map(|summary| (summary.database.as_deref(), summary.above)).collect();
    assert_eq!(names, [(None, None), (None, Some(5.0)), (Some("d"), None)]);
    let summary = &summaries[0];
    assert_eq!((summary.n, summary.failed, summary.default_timeouts, summary.timeouts), (3, 1, 1, 0));
    assert_eq!((summary.different, summary.wrong, summary.default_wrong), (0, 1, 0));
    assert!(near(summary.total_speedup, 10.010 / 1.007), "{summary:?}");
    assert!(near(summary.geometric_mean, (4.0 * 0.4 * 10.0_f64).powf(1.0 / 3.0)));
    assert!(near(summary.slower.much_slower, 1.0 / 3.0) && near(summary.much_faster, 2.0 / 3.0));
    // Only the query of one second takes more than 50 ms.
    assert!(summary.planning_share.is_some_and(|share| near(share, 0.001)));
    let ids = |extreme: &Option<summary::Extreme>| extreme.as_ref().map(|extreme| extreme.id.clone());
    assert_eq!((ids(&summary.worst).as_deref(), ids(&summary.best).as_deref()), (Some("b"), Some("c")));
    assert!(speedup(&report.queries[3], RELATA, None).is_none());
    // Two queries take more than 5 ms by default, neither of them longer under relata.
    assert_eq!((summaries[1].n, summaries[1].failed), (2, 0));
    assert!(near(summaries[1].slower.slower, 0.0) && near(summaries[1].geometric_mean, 40.0_f64.sqrt()));
}

#[test]
fn slower_queries_are_confirmed_by_the_median() {
    let both =
        |default: Timing, relata: Timing| BTreeMap::from([(DEFAULT.to_owned(), default), (RELATA.to_owned(), relata)]);
    let slower = || query("a", timing(&[9_000]), timing(&[14_000]));
    let late = Timing { timeout: true, ..Timing::default() };
    let noise = both(timing(&[9_000, 9_000, 11_000]), timing(&[99_000, 9_500, 9_000]));
    let report = report(vec![
        QueryRun { confirmed: both(timing(&[9_000; 3]), timing(&[14_000; 3])), ..slower() },
        QueryRun { id: "b".to_owned(), confirmed: noise, ..slower() },
        QueryRun { id: "c".to_owned(), confirmed: both(timing(&[9_000; 3]), late), ..slower() },
        query("d", timing(&[9_000]), timing(&[9_000])),
    ]);
    let summary = summary::summarize(&report, None, None, RELATA);
    assert!(near(summary.slower.slower, 0.75) && near(summary.slower.much_slower, 0.0));
    let confirmed = summary.confirmed.unwrap();
    assert!(near(confirmed.slower, 0.5) && near(confirmed.much_slower, 0.25), "{confirmed:?}");
    assert!(print(&report, 10.0).contains("75.0% (50.0%)"));
}

#[test]
fn another_system_stands_beside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("times.jsonl");
    let lines = "{\"id\": \"a\", \"seconds\": [0.5, 0.002], \"answer\": 8, \"timeout\": false, \"error\": null}\n\
                 {\"id\": \"b\", \"seconds\": [], \"answer\": null, \"timeout\": true, \"error\": null}\n{\"id\": \"z\"}\n";
    std::fs::write(&path, lines).unwrap();
    let mut report = report(vec![
        query("a", timing(&[9_000]), timing(&[9_000])),
        query("b", timing(&[9_000]), timing(&[9_000])),
        query("c", timing(&[9_000]), timing(&[9_000])),
    ]);
    let system = |path| NamedPath { name: "duckdb".to_owned(), path };
    assert!(report.beside(&system(path.clone())).unwrap());
    let summary = summary::summarize(&report, None, None, "duckdb");
    assert_eq!((summary.n, summary.wrong, summary.timeouts, summary.different), (2, 1, 1, 0));
    assert!(near(summary.geometric_mean, (5.0 * 0.001_f64).sqrt()) && summary.confirmed.is_none(), "{summary:?}");
    std::fs::write(&path, "{\"id\": \"z\"}\n").unwrap();
    assert!(!report.beside(&system(path.clone())).unwrap());
    let id = report.queries[0].id.clone();
    for (in_memory, fits) in [("true", false), ("false", true)] {
        let line = format!("{{\"id\": \"{id}\", \"in_memory\": {in_memory}, \"version\": \"1.4\"}}\n");
        std::fs::write(&path, line).unwrap();
        assert_eq!(report.beside(&system(path.clone())).unwrap(), fits);
    }
}

#[tokio::test]
async fn a_small_corpus_is_run_from_end_to_end() {
    let corpus = tempfile::tempdir().unwrap();
    crate::corpus::tests::write_corpus(corpus.path());
    let output = corpus.path().join("run.jsonl");
    let options = RunOptions {
        with: vec![Contender::Registry, Contender::Analytical, Contender::Oracle, Contender::Random],
        kinds: ["seed", crate::corpus::SUBPLAN].map(str::to_owned).to_vec(),
        repeat: 2,
        timeout: Some(60.0),
        output: Some(output.clone()),
        ..RunOptions::of(crate::corpus::tests::source(corpus.path()))
    };
    let report = run(&options).await.unwrap();
    assert_eq!(report.queries.len(), 2);
    for query in &report.queries {
        assert_eq!(query.optimizers.len(), 6);
        for (name, timing) in &query.optimizers {
            assert_eq!((timing.planning_us.len(), timing.wrong, &timing.error), (2, false, &None), "{name}");
        }
    }
    let summaries = report.summaries(0.0);
    assert_eq!(summaries.len(), 3 * 5);
    assert_eq!((summaries[0].different, summaries[3].optimizer.as_str()), (0, "oracle"));
    assert!(print(&report, 0.0).contains("relata, worst: q1"));

    // Interrupted within the second query, the same command goes on with it.
    let text = std::fs::read_to_string(&output).unwrap();
    assert_eq!(RunReport::read(&output).unwrap(), report);
    std::fs::write(&output, &text[..text.len() - 9]).unwrap();
    let again = run(&options).await.unwrap();
    assert_eq!((&again.queries[0], again.queries.len()), (&report.queries[0], 2));
    assert_eq!(RunReport::read(&output).unwrap().queries, again.queries);
    let other = RunOptions { repeat: 1, ..options };
    assert!(run(&other).await.unwrap_err().to_string().contains("other settings"));
}
