//! What the stack costs a query: embedding a table, one node, a whole plan.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use relata_experts::config::ExpertConfig;
use relata_experts::{ExpertStack, fixture};
use relata_featurize::graph::NodeKind;

fn experts(criterion: &mut Criterion) {
    let config = ExpertConfig::default();
    let stack = ExpertStack::from_parameters(&config, &fixture::parameters(&config, 1), &[]).unwrap();

    let table = fixture::table(256, 20, 1);
    criterion
        .bench_function("embed a table of 20 columns", |bench| bench.iter(|| stack.embed_table(black_box(&table))));

    let mut noise = fixture::Noise::new(1);
    let state = noise.vector(stack.width());
    for kind in NodeKind::ALL {
        let features = noise.vector(kind.features());
        let roles = vec![state.as_slice(); kind.roles()];
        let mut out = vec![0.0; stack.width()];
        criterion.bench_function(&format!("step {kind:?}"), |bench| {
            bench.iter(|| stack.step(kind, black_box(&features), Some(&state), &roles, &mut out));
        });
    }
    criterion.bench_function("cardinality", |bench| bench.iter(|| stack.cardinality(black_box(&state), 2)));

    let tables = [fixture::table(256, 8, 1), fixture::table(256, 5, 2), fixture::table(256, 12, 3)];
    let embeddings: Vec<_> = tables.iter().map(|table| stack.embed_table(table).unwrap()).collect();
    for relations in [3, 10] {
        let graph = fixture::graph(relations, &tables, 4);
        criterion.bench_function(&format!("plan of {relations} tables, {} nodes", graph.nodes.len()), |bench| {
            bench.iter(|| stack.forward(black_box(&graph), &embeddings));
        });
    }
}

criterion_group!(benches, experts);
criterion_main!(benches);
