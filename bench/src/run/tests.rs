//! Times of made-up queries, and the whole command over a corpus of one small database.

use super::summary::speedup;
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
    QueryRun { id: id.to_owned(), database: "d".to_owned(), optimizers }
}

#[test]
fn summaries_take_the_fastest_repetition_and_the_limit() {
    let late = Timing { timeout: true, ..Timing::default() };
    let failed = Timing { error: Some("no memory".to_owned()), ..Timing::default() };
    let queries = [
        query("a", timing(&[9_000, 7_000]), timing(&[1_000, 3_000])),
        query("b", timing(&[1_000]), timing(&[4_000])),
        query("c", late, Timing { wrong: true, ..timing(&[999_000]) }),
        query("d", timing(&[1_000]), failed),
    ];
    let all: Vec<&QueryRun> = queries.iter().collect();
    let summary = summarize(&all, None, RELATA, Some(10.0));
    assert_eq!((summary.n, summary.failed, summary.default_timeouts, summary.timeouts), (3, 1, 1, 0));
    assert_eq!((summary.different, summary.wrong, summary.default_wrong), (0, 1, 0));
    assert!((summary.total_speedup - 10.010 / 1.007).abs() < 1e-6, "{summary:?}");
    assert!((summary.geometric_mean - (4.0 * 0.4 * 10.0_f64).powf(1.0 / 3.0)).abs() < 1e-6);
    assert!((summary.much_slower - 1.0 / 3.0).abs() < 1e-9 && (summary.much_faster - 2.0 / 3.0).abs() < 1e-9);
    assert_eq!((summary.worst.unwrap().id, summary.best.unwrap().id), ("b".to_owned(), "c".to_owned()));
    assert!(speedup(&queries[3], RELATA, None).is_none());
}

#[tokio::test]
async fn a_small_corpus_is_run_from_end_to_end() {
    let corpus = tempfile::tempdir().unwrap();
    crate::corpus::tests::write_corpus(corpus.path());
    let output = corpus.path().join("run.json");
    let options = RunOptions {
        source: crate::corpus::tests::source(corpus.path()),
        tpch: None,
        kinds: ["seed", crate::corpus::SUBPLAN].map(str::to_owned).to_vec(),
        limit: None,
        oracle: true,
        repeat: 2,
        timeout: Some(60.0),
        threads: Some(1),
        memory_limit: None,
        output: Some(output.clone()),
    };
    let report = run(&options).await.unwrap();
    assert_eq!((report.queries.len(), report.summaries.len()), (2, 4));
    for query in &report.queries {
        for (name, timing) in &query.optimizers {
            assert_eq!((timing.planning_us.len(), timing.wrong, &timing.error), (2, false, &None), "{name}");
        }
    }
    assert_eq!((report.summaries[0].different, report.summaries[1].optimizer.as_str()), (0, ORACLE));
    assert_eq!(RunReport::read(&output).unwrap().queries, report.queries);
    assert!(print(&report).contains("relata, worst: q1"));
}
