//! Labels against plain execution.

use std::sync::Arc;

use clap::ValueEnum;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use relata_experts::prior::{PriorConfig, generate};
use relata_featurize::graph::NodeKind;

use super::*;
use crate::queries::Generator;

/// Results above this are not run.
const MOST_RUN: f64 = 1e5;

async fn rows_and_first(context: &SessionContext, sql: &str) -> (usize, Option<f64>) {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    let rows = batches.iter().map(|batch| batch.num_rows()).sum::<usize>();
    let first = batches.iter().find(|batch| batch.num_rows() > 0).and_then(|batch| {
        let values = cast(batch.column(0), &DataType::Float64).ok()?;
        let values = values.as_primitive_opt::<Float64Type>()?.clone();
        values.is_valid(0).then(|| values.value(0))
    });
    (rows, first)
}

#[tokio::test]
async fn labels_are_what_execution_says() {
    let config = PriorConfig { tables: 3..=4, rows: 200..=2_000, ..PriorConfig::default() };
    let mut sub_joins = 0;
    for kind in Kind::value_variants().iter().copied() {
        let mut compared = 0;
        for seed in [11, 12] {
            let database = Database::from_synthetic(&generate(&config, seed).unwrap()).unwrap();
            let context = labelling_context();
            database.register(&context).unwrap();
            let mut generator = Generator::new(&database, 5);
            let mut labeller = Labeller::new(&database, 5, 16, &ProfileConfig::default()).unwrap();
            for _ in 0..24 {
                let Some(query) = generator.query(kind) else { continue };
                let Outcome::Labelled(labelled) = labeller.label(&query).await.unwrap() else { continue };
                let graph = &labelled.graph;
                assert!(graph.graph.is_valid());
                assert_eq!(graph.relations as usize, query.tables.len());
                if labelled.joined.max(labelled.rows) > MOST_RUN {
                    continue;
                }
                let (rows, first) = rows_and_first(&context, &query.sql).await;
                let sql = &query.sql;
                match kind {
                    Kind::Group | Kind::Distinct | Kind::Having | Kind::Top => {
                        assert_eq!(labelled.rows as usize, rows, "{sql}");
                    }
                    Kind::Aqp if labelled.answer.is_some() => {
                        let (answer, first) = (labelled.answer.unwrap(), first.unwrap());
                        assert!((answer - first).abs() <= 1e-9 * first.abs().max(1.0), "{sql}: {first}, not {answer}");
                    }
                    _ => assert_eq!(Some(labelled.rows), first, "{sql}"),
                }
                if let Some((names, count)) = labelled.sub_joins.last() {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    if let Some(sub_join) = query.statement.sub_join(&names) {
                        assert_eq!(rows_and_first(&context, &sub_join).await.1, Some(*count), "{sub_join}");
                        sub_joins += 1;
                    }
                }
                let kinds = [NodeKind::Filter, NodeKind::Join, NodeKind::Aggregate];
                let estimated = graph.graph.nodes.iter().filter(|node| kinds.contains(&node.kind)).count();
                // The groups of a condition on groups are not counted.
                let unknown = usize::from(kind == Kind::Having);
                assert_eq!(graph.labels.iter().flatten().count() + unknown, estimated, "{sql}");
                compared += 1;
            }
        }
        assert!(compared > 10, "{kind}: {compared}");
    }
    assert!(sub_joins > 60, "{sub_joins}");
}

#[tokio::test]
async fn sets_are_bounded_and_decompose_into_one_another() {
    let column = Arc::new(datafusion::arrow::array::Int64Array::from(vec![1]));
    let batch = datafusion::arrow::array::RecordBatch::try_from_iter([("k", column as _)]).unwrap();
    let context = labelling_context();
    context.register_batch("t", batch).unwrap();
    let from: Vec<String> = (0..9).map(|i| format!("t AS t{i}")).collect();
    let equal: Vec<String> = (1..9).map(|i| format!("t0.k = t{i}.k")).collect();
    let sql = format!("SELECT COUNT(*) FROM {} WHERE {}", from.join(", "), equal.join(" AND "));
    let graph = Planned::new(&context, &sql).await.unwrap().unwrap().graph;
    let sets = choose_sets(&graph, 40, &mut StdRng::seed_from_u64(1));
    assert!(sets.len() <= 40 && sets.len() > 30 && sets.contains(&graph.all()));
    for set in &sets {
        let rest = set.minus(RelationSet::single(graph.last(*set)));
        assert!(rest.len() == 1 || sets.contains(&rest));
    }
}
