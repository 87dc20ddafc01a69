//! The batched forward pass against the per-node one, and malformed graphs.

use super::*;
use crate::fixture;
use relata_featurize::graph::Node;

fn stack() -> ExpertStack {
    fixture::stack(16, 1).unwrap()
}

/// Message passing as the seed paper describes it, one node after the other: the oracle.
fn node_by_node(stack: &ExpertStack, graph: &FeatureGraph, tables: &[TableEmbedding]) -> Vec<Vec<f32>> {
    let mut states: Vec<Vec<f32>> = Vec::new();
    for Node { kind, features, inputs, embedding: reference, .. } in &graph.nodes {
        let mut roles = vec![vec![0.0; stack.width()]; kind.roles()];
        for edge in inputs {
            let role = &mut roles[usize::from(edge.role)];
            role.iter_mut().zip(&states[edge.input as usize]).for_each(|(sum, state)| *sum += state);
        }
        let roles: Vec<&[f32]> = roles.iter().map(Vec::as_slice).collect();
        let mut state = vec![0.0; stack.width()];
        stack.step(*kind, features, embedding(tables, *reference).unwrap(), &roles, &mut state).unwrap();
        states.push(state);
    }
    states
}

#[test]
fn batched_forward_agrees_with_the_per_node_one() {
    let stack = stack();
    let inputs = [fixture::table(7, 3, 1), fixture::table(20, 5, 2), fixture::table(1, 1, 3)];
    let tables: Vec<_> = inputs.iter().map(|table| stack.embed_table(table).unwrap()).collect();
    for relations in [0, 1, 2, 3, 12] {
        let graph = fixture::graph(relations, &inputs, relations as u64);
        let estimates = stack.forward(&graph, &tables).unwrap();
        let joins = message_passing::joins(&graph);
        for (node, slow) in node_by_node(&stack, &graph, &tables).iter().enumerate() {
            for (fast, slow) in estimates.states.row(node).iter().zip(slow) {
                assert!((fast - slow).abs() < 1e-4, "{relations} relations, node {node}: {fast} against {slow}");
            }
            let estimated = graph.nodes[node].kind.estimated();
            assert_eq!(estimates.cardinalities[node].is_some(), estimated);
            if let Some(quantiles) = estimates.cardinalities[node] {
                let single = stack.cardinality(graph.nodes[node].kind, slow, joins[node] as usize).unwrap();
                assert!((quantiles.median - single.median).abs() < 1e-3);
            }
        }
    }
}

#[test]
fn deep_plans_stay_in_range() {
    let stack = stack();
    let inputs = [fixture::table(7, 3, 1)];
    let tables = [stack.embed_table(&inputs[0]).unwrap()];
    let estimates = stack.forward(&fixture::graph(200, &inputs, 4), &tables).unwrap();
    // States have a root mean square of 1, but where all of one are 0.
    for state in estimates.states.rows() {
        let square = state.iter().map(|value| value * value).sum::<f32>() / state.len() as f32;
        assert!((square - 1.0).abs() < 1e-3, "{square}");
    }
    assert!(
        estimates.cardinalities.iter().flatten().all(|rows| rows.lower <= rows.median && rows.median <= rows.upper)
    );
}

#[test]
fn refuses_references_to_nothing() {
    let stack = stack();
    let inputs = [fixture::table(7, 3, 1)];
    let graph = fixture::graph(2, &inputs, 4);
    assert!(matches!(stack.forward(&graph, &[]), Err(ExpertsError::Graph(_))));
    let mut broken = [stack.embed_table(&inputs[0]).unwrap()];
    broken[0].table[0] = f32::NAN;
    assert!(matches!(stack.forward(&graph, &broken), Err(ExpertsError::NotFinite { .. })));
    broken[0].table.pop();
    assert!(matches!(stack.forward(&graph, &broken), Err(ExpertsError::Shape { .. })));
    let narrow = [stack.embed_table(&fixture::table(7, 1, 1)).unwrap()];
    assert!(matches!(stack.forward(&graph, &narrow), Err(ExpertsError::Graph(_))));
}

#[test]
fn refuses_wrong_lengths() {
    let stack = stack();
    let mut out = vec![0.0; stack.width()];
    let kind = NodeKind::Limit;
    assert!(stack.step(kind, &[0.0; 4], None, &[], &mut out).is_err());
    assert!(stack.step(kind, &[0.0; 3], None, &[&[0.0; 16]], &mut out).is_err());
    assert!(stack.step(kind, &[0.0; 4], None, &[&[0.0; 15]], &mut out).is_err());
    assert!(stack.step(kind, &[0.0; 4], None, &[&[0.0; 16]], &mut out[1..]).is_err());
    assert!(stack.step(kind, &[f32::NAN; 4], None, &[&[0.0; 16]], &mut out).is_err());
    assert!(stack.cardinality(NodeKind::Join, &[0.0; 3], 0).is_err());
}
