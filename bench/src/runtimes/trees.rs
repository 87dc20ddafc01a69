//! The baseline for predicted runtimes: gradient-boosted trees over pipelines.
//!
//! After Rieger and Neumann, "T3: Accurate and fast performance prediction for relational database systems" (SIGMOD 2025): a
//! pipeline is described by its operators and the rows that reach them, the trees predict the time of one of its rows, and the
//! times of the pipelines add up. Here a pipeline's time is its operators' share of the measured one.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use gbdt::config::Config;
use gbdt::decision_tree::{Data, DataVec};
use gbdt::gradient_boost::GBDT;
use relata_experts::train::physical::{elapsed_us, rows};
use relata_featurize::physical::{OperatorKind, OperatorRows, PhysicalGraph};
use relata_featurize::trace::{self, Execution};

/// What a pipeline says of each kind of operator: how many there are, `ln` of the rows in and out, of the bytes of a row and of the
/// expressions, summed.
const OF_KIND: usize = 5;

/// Those of every kind, the rows that the pipeline starts with, its operators, threads and rows of a batch.
const FEATURES: usize = OperatorKind::COUNT * OF_KIND + 4;

/// Trees as in the paper.
const TREES: usize = 200;
const DEPTH: u32 = 6;

/// Share of the plans that every tree sees.
const SHARE: f64 = 0.7;

/// The trees.
pub(super) struct Trees(GBDT);

impl std::fmt::Debug for Trees {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trees").finish_non_exhaustive()
    }
}

/// A pipeline: its features and the rows that it starts with.
struct Pipeline {
    features: [f32; FEATURES],
    rows: f32,
}

impl Trees {
    /// Trained on the executions of the traces below these folders.
    pub(super) fn train(folders: &[PathBuf]) -> Result<Self> {
        let mut data: DataVec = vec![];
        for folder in folders {
            for trace in trace::read_all(folder)? {
                trace.executions.iter().for_each(|execution| data.extend(labelled(execution)));
            }
        }
        ensure!(!data.is_empty(), "no executed plan to train the trees on");
        let mut config = Config::new();
        config.set_feature_size(FEATURES);
        config.set_iterations(TREES);
        config.set_max_depth(DEPTH);
        config.set_shrinkage(0.1);
        config.set_data_sample_ratio(SHARE);
        config.set_feature_sample_ratio(SHARE);
        config.set_min_leaf_size(5);
        config.set_loss("SquaredError");
        let mut trees = GBDT::new(&config);
        trees.fit(&mut data);
        Ok(Self(trees))
    }

    /// Microseconds of an execution, from its estimated rows.
    pub(super) fn predict(&self, execution: &Execution) -> f64 {
        let pipelines = pipelines(&execution.graph, &rows(execution, false));
        let asked = pipelines.iter().map(|one| Data::new_test_data(one.features.to_vec(), None)).collect();
        let of_row = self.0.predict(&asked);
        let times = pipelines.iter().zip(of_row).map(|(one, of_row)| f64::from(of_row).exp() * f64::from(one.rows));
        times.sum::<f64>() * execution.machine.slowness()
    }
}

/// The pipelines of an execution with `ln` microseconds of a row on a machine of slowness 1, under estimated and counted rows.
fn labelled(execution: &Execution) -> Vec<Data> {
    let graph = &execution.graph;
    let mut times = vec![0.0f32; pipeline_count(graph)];
    for (operator, observed) in graph.operators.iter().zip(&execution.observed) {
        let parallel = operator.facts.partitions.min(graph.threads as f32).max(1.0);
        times[operator.pipeline as usize] += observed.elapsed_us.unwrap_or(0.0) / parallel;
    }
    let whole = elapsed_us(execution) / execution.machine.slowness() as f32 / times.iter().sum::<f32>().max(1e-3);
    let of = |counted: bool| pipelines(graph, &rows(execution, counted)).into_iter().zip(times.clone());
    of(false)
        .chain(of(true))
        .map(|(pipeline, time)| {
            let label = ((time * whole).max(1e-3) / pipeline.rows).ln();
            Data::new_training_data(pipeline.features.to_vec(), 1.0, label, None)
        })
        .collect()
}

fn pipeline_count(graph: &PhysicalGraph) -> usize {
    graph.operators.iter().map(|operator| operator.pipeline as usize + 1).max().unwrap_or(0)
}

fn pipelines(graph: &PhysicalGraph, rows: &[OperatorRows]) -> Vec<Pipeline> {
    let none = || Pipeline { features: [0.0; FEATURES], rows: 1.0 };
    let mut pipelines: Vec<Pipeline> = (0..pipeline_count(graph)).map(|_| none()).collect();
    let first = OperatorKind::COUNT * OF_KIND;
    for (index, operator) in graph.operators.iter().enumerate() {
        let facts = &operator.facts;
        let read = operator.inputs.iter().map(|input| rows[*input as usize].rows).fold(facts.table_rows, f32::max);
        let pipeline = &mut pipelines[operator.pipeline as usize];
        pipeline.rows = pipeline.rows.max(read);
        let of_kind = &mut pipeline.features[operator.kind as usize * OF_KIND..][..OF_KIND];
        let values = [read, rows[index].rows, facts.width, facts.expressions + facts.text].map(f32::ln_1p);
        of_kind[0] += 1.0;
        of_kind[1..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        pipeline.features[first + 1] += 1.0;
    }
    for pipeline in &mut pipelines {
        pipeline.features[first] = pipeline.rows.ln();
        pipeline.features[first + 2] = graph.threads as f32;
        pipeline.features[first + 3] = (graph.batch_size as f32).ln();
    }
    pipelines
}
