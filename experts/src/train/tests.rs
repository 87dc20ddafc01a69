//! The training forward pass against inference, gradients, overfitting, and the whole way to a weight file.

use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use relata_featurize::trace::{DatabaseTrace, LabelledGraph};

use super::batch::Batch;
use super::cross_fit::CrossFit;
use super::data::{Chunk, Corpus, embed, targets};
use super::export;
use super::fit::{FitConfig, fit};
use super::model::TrainingStack;
use super::optimizer::{AdamW, AdamWConfig, initial_parameters};
use crate::config::{ExpertConfig, HEAD_OUTPUTS, Module};
use crate::fixture::{self, Noise};
use crate::heads::{CardinalityHead, JOIN_BUCKETS};
use crate::stack::ExpertStack;

/// A database of three tables with `graphs` labelled graphs of one to four relations; the analytical estimate is off by a
/// factor that the first feature of a node says.
pub(crate) fn database(graphs: usize, seed: u64) -> DatabaseTrace {
    let tables = vec![fixture::table(12, 3, seed), fixture::table(5, 2, seed + 1), fixture::table(20, 4, seed + 2)];
    let mut noise = Noise::new(seed);
    let graphs = (0..graphs)
        .map(|index| {
            let graph = fixture::graph(1 + index % 4, &tables, noise.bits());
            let label = |node: &relata_featurize::graph::Node| Some((node.base? + 3.0 * node.features[0]).max(0.0));
            let labels = graph.nodes.iter().map(label).collect();
            LabelledGraph { graph, labels, relations: 1 + index as u32 % 4 }
        })
        .collect();
    DatabaseTrace {
        name: format!("database-{seed}"),
        tables,
        graphs,
        queries: vec![],
        answers: vec![],
        executions: vec![],
    }
}

fn small() -> FitConfig {
    let experts = ExpertConfig { embedding: 8, node_hidden: 16, head_hidden: 8, ..ExpertConfig::with_width(8) };
    FitConfig { experts, ..FitConfig::new(fixture::data_expert(8, 9).unwrap()) }
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn batch(corpus: &[DatabaseTrace]) -> Batch {
    let chunks: Vec<Chunk> = corpus
        .iter()
        .enumerate()
        .map(|(database, trace)| Chunk { database, graphs: (0..trace.graphs.len()).collect() })
        .collect();
    let tables = embed(&small().data, corpus).unwrap();
    Batch::new(corpus, &tables, &chunks, &[1.0; JOIN_BUCKETS], 0.0, &mut StdRng::seed_from_u64(1)).unwrap()
}

#[test]
fn training_and_inference_agree() {
    let FitConfig { experts: config, data, .. } = small();
    let parameters = fixture::parameters(&config.parameters(), 9);
    let mut corpus = [database(6, 1), database(3, 7)];
    // Tables without groups and with one, next to full ones.
    corpus[1].tables[1] = fixture::table(1, 2, 3);
    corpus[1].tables[2] = fixture::table(2, 4, 3);
    let batch = batch(&corpus);
    let raw =
        TrainingStack::new(&config, &parameters, &device()).head(&batch).into_data().try_into_vec::<f32>().unwrap();

    let stack = ExpertStack::from_parameters(data, &config, &parameters, &[]).unwrap();
    let mut expected = Vec::new();
    for trace in &corpus {
        let tables: Vec<_> = trace.tables.iter().map(|table| stack.embed_table(table).unwrap()).collect();
        for graph in &trace.graphs {
            let estimates = stack.forward(&graph.graph, &tables).unwrap();
            expected.extend(targets(graph).iter().map(|target| estimates.cardinalities[target.node].unwrap()));
        }
    }
    assert_eq!(raw.len(), expected.len() * HEAD_OUTPUTS);
    for (raw, expected) in raw.chunks(HEAD_OUTPUTS).zip(expected) {
        let trained = CardinalityHead::uncalibrated([raw[0], raw[1], raw[2]]);
        for (left, right) in
            [(trained.lower, expected.lower), (trained.median, expected.median), (trained.upper, expected.upper)]
        {
            assert!((left - right).abs() < 1e-4 * (1.0 + right.abs()), "{trained:?} against {expected:?}");
        }
    }
}

#[test]
fn gradients_reach_every_parameter() {
    let config = small().experts;
    let batch = batch(&[database(8, 1)]);
    let (loss, gradient) =
        TrainingStack::new(&config, &fixture::parameters(&config.parameters(), 9), &device()).step(&batch);
    assert!(loss.is_finite() && gradient.len() == config.parameter_count());
    for shape in config.parameters() {
        let reached = gradient[shape.range()].iter().any(|slope| slope.abs() > 0.0);
        // Nothing is estimated above a Limit node, so no label speaks to its parameters.
        assert_eq!(reached, !shape.name.starts_with("logical.limit"), "{}", shape.name);
    }
}

#[test]
fn gradients_are_the_slope_of_the_loss() {
    let config = small().experts;
    let batch = batch(&[database(4, 1)]);
    let parameters = fixture::parameters(&config.parameters(), 9);
    let loss = |parameters: &[f32]| TrainingStack::new(&config, parameters, &device()).step(&batch).0;
    let (_, gradient) = TrainingStack::new(&config, &parameters, &device()).step(&batch);
    // Along the gradient the loss rises by the square of its norm.
    let step = 1e-3 / gradient.iter().map(|slope| slope * slope).sum::<f32>().sqrt();
    let moved =
        |sign: f32| -> Vec<f32> { parameters.iter().zip(&gradient).map(|(p, g)| p + sign * step * g).collect() };
    let measured = (loss(&moved(1.0)) - loss(&moved(-1.0))) / (2.0 * step);
    let expected: f32 = gradient.iter().map(|slope| slope * slope).sum();
    assert!((measured / expected - 1.0).abs() < 0.1, "{measured} against {expected}");
}

#[test]
fn overfits_one_batch() {
    let config = small().experts;
    let batch = batch(&[database(8, 1)]);
    let shapes = config.parameters();
    let mut run = AdamW::new(&shapes, initial_parameters(&shapes, &[Module::Cardinality], 1));
    let settings = AdamWConfig::default();
    let losses: Vec<f32> = (0..200)
        .map(|_| {
            let (loss, gradient) = TrainingStack::new(&config, &run.parameters, &device()).step(&batch);
            run.update(&settings, 1e-2, &gradient);
            loss
        })
        .collect();
    assert!(losses[199] < losses[0] / 8.0, "{} -> {}", losses[0], losses[199]);
}

#[test]
fn a_short_run_beats_the_analytical_estimate_and_exports() {
    let databases = (0..4).map(|seed| database(40, seed * 10)).collect();
    let corpus = Corpus::split(databases, 0.25, &[], 1).unwrap();
    let folder = std::env::temp_dir().join(format!("relata-fit-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let checkpoint = folder.join("checkpoint.safetensors");
    let config = FitConfig {
        optimizer: AdamWConfig { learning_rate: 1e-2, average: 0.8, ..AdamWConfig::default() },
        steps: 40,
        graphs: 10,
        databases: 3,
        withheld: 0.1,
        evaluate_every: 20,
        checkpoint: Some(checkpoint.clone()),
        ..small()
    };
    let mut evaluations = 0;
    let fitted = fit(&corpus, &config, &device(), |event| {
        evaluations += usize::from(matches!(event, super::fit::Event::Evaluation { .. }));
    })
    .unwrap();
    assert_eq!((evaluations, fitted.curve.len(), fitted.step), (2, 40, 40));
    let all = fitted.errors.last().unwrap();
    assert!(all.expert[0] < all.base[0], "{all:?}");
    assert!((all.coverage - 0.9).abs() < 0.05, "{all:?}");

    let blind = FitConfig { withheld: 1.1, ..config.clone() };
    assert!(matches!(fit(&corpus, &blind, &device(), |_| ()), Err(crate::ExpertsError::Config(_))));

    // The same seed gives the same weights.
    let again = fit(&corpus, &config, &device(), |_| ()).unwrap();
    assert_eq!(again.parameters, fitted.parameters);

    let manifest = export::write(&folder, &corpus, &config, &fitted, "test".to_owned()).unwrap();
    assert_eq!((manifest.corpus.graphs, manifest.corpus.held_out.len()), (120, 1));
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let stack = ExpertStack::above(config.data, &read("relata.safetensors"), &read("manifest.json")).unwrap();
    let golden: fixture::Golden = serde_json::from_slice(&read("golden.json")).unwrap();
    assert!(golden.distance(&fixture::golden(&stack).unwrap()) < 1e-6);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn experts_without_embeddings_do_not_read_those_they_are_offered() {
    let corpus = Corpus::split((0..3).map(|seed| database(12, seed * 10)).collect(), 0.3, &[], 1).unwrap();
    let config = FitConfig { steps: 6, graphs: 4, databases: 2, withheld: 1.0, ..small() };
    let fitted = fit(&corpus, &config, &device(), |_| ()).unwrap();
    let stack = ExpertStack::from_parameters(config.data, &config.experts, &fitted.parameters, &[]).unwrap();
    let trace = &corpus.training[0];
    let tables: Vec<_> = trace.tables.iter().map(|table| stack.embed_table(table).unwrap()).collect();
    let mut others = tables.clone();
    others.iter_mut().for_each(|table| table.table.iter_mut().for_each(|value| *value += 1.0));
    let graph = &trace.graphs[3].graph;
    assert_eq!(stack.forward(graph, &tables).unwrap(), stack.forward(graph, &others).unwrap());
    assert!(fitted.parameters.iter().any(|parameter| *parameter != 0.0));
}

#[test]
fn databases_that_are_trained_on_calibrate_by_runs_without_them() {
    let corpus =
        Corpus::split((0..6).map(|seed| database(12, seed * 10)).collect(), 0.0, &["database-0".to_owned()], 1);
    let config = FitConfig { steps: 4, graphs: 4, databases: 2, evaluate_every: 2, ..small() };
    let mut fitted = fit(corpus.as_ref().unwrap(), &config, &device(), |_| ()).unwrap();
    let (parameters, held_out) = (fitted.parameters.clone(), fitted.errors.len());
    assert_eq!((fitted.calibration.as_slice(), fitted.left_out_coverage()), (&["database-0".to_owned()][..], None));
    let names = ["database-0", "database-10", "database-40", "database-50"].map(str::to_owned);
    let cross_fit = CrossFit { databases: names.to_vec(), folds: 2 };
    let mut runs = [0; 2];
    let corpus = cross_fit.calibrate(&mut fitted, corpus.unwrap(), &config, &device(), |fold, event| {
        runs[fold] += usize::from(matches!(event, super::fit::Event::Step(_)));
    });
    let corpus = corpus.unwrap();
    assert_eq!((corpus.training.len(), corpus.held_out[0].name.as_str(), runs), (5, "database-0", [4, 4]));
    assert_eq!(fitted.calibration, ["database-0", "database-10", "database-50", "database-40"]);
    assert!(fitted.left_out.len() == 4 && fitted.left_out_coverage().is_some());
    assert_eq!((fitted.parameters == parameters, fitted.errors.len()), (true, held_out));
    let unknown = CrossFit { databases: vec!["nowhere".to_owned()], ..cross_fit };
    assert!(unknown.validate(&corpus).is_err());
    assert!(unknown.calibrate(&mut fitted, corpus, &config, &device(), |_, _| ()).is_err());
}

#[test]
fn a_resumed_run_goes_on_where_it_was() {
    let corpus = Corpus::split((0..3).map(|seed| database(12, seed * 10)).collect(), 0.3, &[], 1).unwrap();
    let folder = std::env::temp_dir().join(format!("relata-resume-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = FitConfig {
        steps: 8,
        graphs: 4,
        databases: 2,
        evaluate_every: 4,
        resume: true,
        checkpoint: Some(folder.join("checkpoint.safetensors")),
        checkpoint_every: std::time::Duration::ZERO,
        commit: Some("first".to_owned()),
        ..small()
    };
    let whole = fit(&corpus, &FitConfig { checkpoint: None, ..config.clone() }, &device(), |_| ()).unwrap();
    // A run that stops in the middle, as if it had been killed after the checkpoint of step 5.
    let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fit(&corpus, &config, &device(), |event| {
            assert!(!matches!(event, super::fit::Event::Step(point) if point.step == 6), "killed");
        })
    }));
    assert!(interrupted.is_err());
    // Other data or another optimizer are another run.
    let optimizer = AdamWConfig { weight_decay: 0.5, ..config.optimizer };
    let fewer = Corpus { training: corpus.training[1..].to_vec(), ..corpus.clone() };
    assert!(fit(&fewer, &config, &device(), |_| ()).is_err());
    assert!(fit(&corpus, &FitConfig { optimizer, ..config.clone() }, &device(), |_| ()).is_err());
    let later = FitConfig { commit: Some("later".to_owned()), ..config };
    let resumed = fit(&corpus, &later, &device(), |_| ()).unwrap();
    assert_eq!(resumed.curve.first().map(|point| point.step), Some(6));
    assert_eq!((resumed.parameters, resumed.begun.as_deref()), (whole.parameters, Some("first")));
    std::fs::remove_dir_all(folder).unwrap();
}
