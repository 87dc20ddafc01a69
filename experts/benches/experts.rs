//! What the stack costs a query: embedding a table, restoring from the embedding, one node, a whole plan.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use criterion::{Criterion, criterion_group, criterion_main};
use relata_experts::config::{DataConfig, ExpertConfig};
use relata_experts::data::context::RowContext;
use relata_experts::in_context::{Column, InContextPredictor, Labels};
use relata_experts::residual::{MOST_EXECUTIONS, ResidualPredictor};
use relata_experts::{ExpertStack, PhysicalExpert, fixture};
use relata_featurize::graph::NodeKind;
use relata_featurize::physical::{Facts, Observed, OperatorKind, OperatorRows, PhysicalGraph, PhysicalOperator};
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::relative::{RowSample, TableInput};
use relata_featurize::resources::Resources;
use relata_featurize::row_groups::MOST_GROUPS;
use relata_featurize::trace::Execution;

fn experts(criterion: &mut Criterion) {
    let config = ExpertConfig::default();
    let data = fixture::data_expert(DataConfig::default().width, 1).unwrap();
    let parameters = fixture::parameters(&config.parameters(), 1);
    let stack = ExpertStack::from_parameters(data, &config, &parameters, &[]).unwrap();

    let table = fixture::table(1 + MOST_GROUPS, 20, 1);
    criterion
        .bench_function("embed a table of 20 columns", |bench| bench.iter(|| stack.embed_table(black_box(&table))));

    let mut noise = fixture::Noise::new(1);
    from_profile(criterion, &stack, &mut noise);
    let state = noise.vector(stack.width());
    for kind in NodeKind::ALL {
        let features = noise.vector(kind.features());
        let roles = vec![state.as_slice(); kind.roles()];
        let mut out = vec![0.0; stack.width()];
        criterion.bench_function(&format!("step {kind:?}"), |bench| {
            bench.iter(|| stack.step(kind, black_box(&features), Some(&state), &roles, &mut out));
        });
    }
    criterion
        .bench_function("cardinality", |bench| bench.iter(|| stack.cardinality(NodeKind::Join, black_box(&state), 2)));

    let tables = [fixture::table(65, 8, 1), fixture::table(65, 5, 2), fixture::table(65, 12, 3)];
    let embeddings: Vec<_> = tables.iter().map(|table| stack.embed_table(table).unwrap()).collect();
    for relations in [3, 10] {
        let graph = fixture::graph(relations, &tables, 4);
        criterion.bench_function(&format!("plan of {relations} tables, {} nodes", graph.nodes.len()), |bench| {
            bench.iter(|| stack.forward(black_box(&graph), &embeddings));
        });
    }
}

/// A plan of ten operators: three scans with filters, two joins, an aggregation in two steps.
fn plan() -> PhysicalGraph {
    use OperatorKind::{Aggregate, Coalesce, Filter, HashJoin, Scan};
    let operator = |kind, inputs: &[u32], table_rows| PhysicalOperator {
        kind,
        inputs: inputs.iter().copied().collect(),
        pipeline: 0,
        facts: Facts { partitions: 2.0, width: 16.0, columns: 2.0, expressions: 1.0, table_rows, ..Facts::default() },
    };
    let operators = vec![
        operator(Scan, &[], 1e4),
        operator(Filter, &[0], 0.0),
        operator(Scan, &[], 1e5),
        operator(Filter, &[2], 0.0),
        operator(HashJoin, &[1, 3], 0.0),
        operator(Scan, &[], 1e6),
        operator(HashJoin, &[4, 5], 0.0),
        operator(Aggregate, &[6], 0.0),
        operator(Coalesce, &[7], 0.0),
        operator(Aggregate, &[8], 0.0),
    ];
    PhysicalGraph { operators, threads: 2, batch_size: 8192, memory_limit: 0 }
}

/// A prediction for a plan, and what 256 executed ones add to it.
fn runtime(criterion: &mut Criterion) {
    let graph = plan();
    let rows: Vec<_> = (0..10).map(|place| OperatorRows::exact(f64::from(1000 * (place + 1)))).collect();
    let machine = Resources::reference(2, 1.5);
    let expert = PhysicalExpert::pretrained().unwrap();
    criterion.bench_function("runtime of 10 operators", |bench| {
        bench.iter(|| expert.runtime(black_box(&graph), &rows, &machine));
    });

    let mut noise = fixture::Noise::new(1);
    let execution = |query| {
        let known: Vec<_> =
            rows.iter().map(|own| Some(OperatorRows::exact(f64::from(own.rows * noise.unit())))).collect();
        let predicted = expert.runtime(&graph, &graph.filled(&known), &machine).unwrap().elapsed_us[1];
        Execution {
            query,
            machine: machine.clone(),
            planning_us: vec![],
            execution_us: vec![predicted as f32 * (2.0 + noise.unit())],
            peak_bytes: 0,
            graph: graph.clone(),
            estimated: known,
            observed: vec![Observed::default(); rows.len()],
        }
    };
    let executions: Vec<Execution> = (0..MOST_EXECUTIONS as u32).map(execution).collect();
    let predictor = InContextPredictor::pretrained().unwrap();
    let read = || ResidualPredictor::fit(&expert, &predictor, black_box(&executions)).unwrap().unwrap();
    criterion.bench_function("read 256 executed plans and see whether they help", |bench| bench.iter(read));
    let (fitted, known) = (read(), &executions[0].estimated);
    criterion.bench_function("residual of 10 operators by 256 executed plans", |bench| {
        bench.iter(|| fitted.residual(&expert, black_box(&graph), known, &machine).unwrap());
    });
}

/// Reading 512 examples of 30 features, and predicting 256 rows from them.
fn in_context(criterion: &mut Criterion) {
    let predictor = InContextPredictor::pretrained().unwrap();
    let mut noise = fixture::Noise::new(1);
    let mut columns = |rows: usize| -> Vec<Column> { (0..30).map(|_| Column::Number(noise.vector(rows))).collect() };
    let (examples, rows) = (columns(512), columns(256));
    // What is linear in a feature, so that ridge regression adds its column.
    let Column::Number(numbers) = &examples[0] else { unreachable!("all features are numbers") };
    let labels = Labels::Classes { labels: numbers.iter().map(|x| u32::from(*x > 0.0)).collect(), count: 2 };
    criterion.bench_function("read 512 examples of 30 features", |bench| {
        bench.iter(|| predictor.prefill(black_box(&examples), &labels).unwrap().memory());
    });
    let prefilled = predictor.prefill(&examples, &labels).unwrap();
    let name = format!("predict 256 rows from them, kept in {} KB", prefilled.memory() / 1000);
    criterion.bench_function(&name, |bench| bench.iter(|| prefilled.predict(black_box(&rows)).unwrap()));
}

/// A table of 20 columns, some of which depend on each other.
fn from_profile(criterion: &mut Criterion, stack: &ExpertStack, noise: &mut fixture::Noise) {
    let rows = 20_000;
    let mut values = noise.vector(rows);
    let columns = (0..20).map(|column| {
        values.iter_mut().for_each(|value| *value = 0.7 * *value + 0.3 * noise.unit());
        let array: ArrayRef = Arc::new(Float64Array::from_iter_values(values.iter().map(|&value| f64::from(value))));
        (format!("c{column}"), array)
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let profile =
        TableProfile::of_batches(batch.schema(), std::slice::from_ref(&batch), &ProfileConfig::default()).unwrap();
    let embed = || stack.embed_table(&TableInput::new(black_box(&profile))).unwrap();
    criterion.bench_function("embed a table of 20 columns from its profile", |bench| bench.iter(embed));

    let (expert, embedding) = (stack.data(), embed());
    criterion.bench_function("decode the slots of 20 columns", |bench| bench.iter(|| expert.factors(&embedding)));
    let factors = expert.factors(&embedding);
    for columns in [&[3, 7][..], &[1, 5, 9, 13, 17]] {
        criterion.bench_function(&format!("restore a histogram over {} columns", columns.len()), |bench| {
            bench.iter(|| expert.restore(&embedding, &factors, black_box(columns)));
        });
    }
    let context = RowContext::new(RowSample::new(&profile, 2048));
    let relevance = expert.relevance(&context, 4);
    let row = noise.vector(20);
    criterion.bench_function("encode a row among 2048 and restore a cell", |bench| {
        bench.iter(|| expert.restore_cell(&expert.embed_row(&context, &relevance, black_box(&row)).unwrap()));
    });
}

criterion_group!(benches, runtime, in_context, experts);
criterion_main!(benches);
