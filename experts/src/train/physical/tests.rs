use relata_featurize::physical::{Facts, PhysicalGraph, PhysicalOperator};
use relata_featurize::resources::Resources;

use super::*;
use crate::config::{HEAD_OUTPUTS, MlpShape};
use crate::fixture::Noise;
use crate::tuned::TunedManifest;

fn machine() -> Resources {
    Resources::reference(2, 1.5)
}

/// A join of two scans below an aggregation, whose time is that of `costs` but for a factor that only the expert can know: with a
/// semi join all takes three times as long.
fn execution(costs: &Costs, seed: u64) -> Execution {
    let random = Noise::new(seed).vector(4);
    let size = |place: usize| 10f32.powf(4.0 + random[place]);
    let facts = |partitions: f32, outer: f32, table_rows: f32| Facts {
        partitions,
        width: 16.0,
        columns: 2.0,
        expressions: 2.0,
        outer,
        keys: 1.0,
        table_rows,
        ..Facts::default()
    };
    let semi = f32::from(u8::from(random[3] > 0.0));
    let operator = |kind, inputs: &[u32], facts| PhysicalOperator {
        kind,
        inputs: inputs.iter().copied().collect(),
        pipeline: 0,
        facts,
    };
    let operators = vec![
        operator(OperatorKind::Scan, &[], facts(1.0, 0.0, size(0))),
        operator(OperatorKind::Filter, &[0], facts(1.0, 0.0, 0.0)),
        operator(OperatorKind::Scan, &[], facts(2.0, 0.0, size(1))),
        operator(OperatorKind::HashJoin, &[1, 2], facts(2.0, semi, 0.0)),
        operator(OperatorKind::Aggregate, &[3], facts(1.0, 0.0, 0.0)),
    ];
    let graph = PhysicalGraph { operators, threads: 2, batch_size: 8192, memory_limit: 0 };
    let counts = [size(0), size(0) / 3.0, size(1), size(1) / 2.0, 9.0];
    let known: Vec<Option<OperatorRows>> =
        counts.iter().map(|rows| Some(OperatorRows::exact(f64::from(*rows)))).collect();
    let rows = graph.filled(&known);
    let input = PlanInput::new(costs, &graph, &rows, &machine());
    let slowness = machine().slowness() as f32;
    let elapsed = input.cost() * slowness * if semi > 0.0 { 3.0 } else { 1.0 };
    let observed = counts.iter().zip(&input.costs).map(|(rows, cost)| {
        let elapsed_us = Some(*cost * slowness);
        Observed { rows: Some(*rows), elapsed_us }
    });
    let observed = observed.collect();
    Execution {
        query: 0,
        machine: machine(),
        planning_us: vec![1.0],
        execution_us: vec![elapsed; 3],
        peak_bytes: input.held as u64,
        estimated: known,
        observed,
        graph,
    }
}

fn costs() -> Costs {
    (0..OperatorKind::COUNT).map(|kind| std::array::from_fn(|work| 1e-3 * (1 + (kind + work) % 5) as f32)).collect()
}

fn executed(database: &str, seeds: std::ops::Range<u64>) -> Executed {
    let executions = seeds.map(|seed| execution(&costs(), seed)).collect();
    Executed { database: database.to_owned(), executions }
}

#[test]
fn training_and_inference_say_the_same() {
    let config = PhysicalConfig::above(costs(), vec![]);
    let count = config.shapes().iter().map(MlpShape::parameter_count).sum();
    let flat: Vec<f32> = Noise::new(5).vector(count).into_iter().map(|value| value * 0.2).collect();
    let expert = PhysicalExpert::from_parameters(&config, &flat, &[]).unwrap();
    let executions = executed("d", 0..4).executions;
    let samples: Vec<Sample> = executions.iter().map(|one| Sample::new(&config.costs, one, true)).collect();
    let device = Device::default().autodiff();
    let models = Models::new(&config.shapes(), &flat, &device);
    let output = forward(&config, &models, &Batch::new(&samples.iter().collect::<Vec<_>>()));
    for (head, (raw, base)) in output.heads.into_iter().enumerate() {
        let raw = raw.into_data().try_into_vec::<f32>().unwrap();
        let base = base.into_data().try_into_vec::<f32>().unwrap();
        for (plan, execution) in executions.iter().enumerate() {
            let said = expert.runtime(&execution.graph, &rows(execution, true), &execution.machine).unwrap();
            let said = if head == 0 { said.elapsed_us } else { said.peak_bytes };
            assert!(said[0] <= said[1] && said[1] <= said[2]);
            let slowness = if head == 0 { machine().slowness() } else { 1.0 };
            let expected = f64::from(base[plan] + raw[plan * HEAD_OUTPUTS]) + slowness.ln();
            assert!((said[1].ln() - expected).abs() < 1e-3, "{} for {expected}", said[1].ln());
        }
    }
}

#[test]
fn costs_are_calibrated() {
    let mut one = executed("d", 0..60);
    one.executions.retain(|execution| execution.graph.operators[3].facts.outer <= 0.0);
    let found = calibrate(std::slice::from_ref(&one));
    for execution in &one.executions {
        let input = PlanInput::new(&found, &execution.graph, &rows(execution, true), &execution.machine);
        let ratio = input.cost() * execution.machine.slowness() as f32 / elapsed_us(execution);
        assert!((ratio - 1.0).abs() < 0.05, "{ratio}");
    }
    assert!(found.iter().flatten().all(|cost| *cost >= 0.0));
}

#[test]
fn the_expert_learns_what_the_costs_leave_out() {
    let corpus = PhysicalCorpus { training: vec![executed("a", 0..60)], held_out: vec![executed("b", 100..140)] };
    let settings = PhysicalFitConfig { steps: 400, batch: 16, evaluate_every: 100, ..PhysicalFitConfig::default() };
    let fitted = fit(&corpus, &settings, &Device::default().autodiff(), |_| {}).unwrap();
    let [estimated, counted] = &fitted.errors[..] else { panic!("two kinds of rows") };
    assert!(estimated.expert[0] < 1.4 && estimated.expert[2] < 0.75 * estimated.cost[2], "{estimated:?}");
    assert!(counted.coverage > 0.8 && counted.memory[0] < 1.2, "{counted:?}");
    // A machine that is twice as slow takes twice as long.
    let expert = PhysicalExpert::from_parameters(&fitted.config, &fitted.parameters, &fitted.conformal).unwrap();
    let execution = &corpus.held_out[0].executions[0];
    let elapsed =
        |machine: &Resources| expert.runtime(&execution.graph, &rows(execution, true), machine).unwrap().elapsed_us[1];
    let ratio = elapsed(&machine().slowed(2.0)) / elapsed(&machine());
    assert!((ratio - 2.0).abs() < 1e-3, "{ratio}");
}

#[test]
fn malformed_plans_are_refused() {
    let config = PhysicalConfig::above(costs(), vec![]);
    let count = config.shapes().iter().map(MlpShape::parameter_count).sum();
    let expert = PhysicalExpert::from_parameters(&config, &vec![0.0; count], &[]).unwrap();
    let one = execution(&costs(), 1);
    let known = rows(&one, true);
    assert!(expert.runtime(&PhysicalGraph::default(), &[], &one.machine).is_err());
    assert!(expert.runtime(&one.graph, &known[1..], &one.machine).is_err());
    assert!(expert.runtime(&one.graph, &known, &Resources { scan: f64::NAN, ..machine() }).is_err());
    assert!(PhysicalExpert::from_parameters(&config, &vec![f32::NAN; count], &[]).is_err());
    assert!(PhysicalConfig::above(vec![], vec![]).validate().is_err());
}

#[test]
fn tuning_learns_what_is_special_about_a_database() {
    let config = PhysicalConfig::above(costs(), vec![]);
    let shapes = config.parameters();
    let quiet = [Module::OperatorTime, Module::Runtime, Module::Memory];
    let conformal = [0.1, 0.2].map(|lower| ConformalOffset { lower, upper: 0.3 });
    let expert = PhysicalExpert::from_parameters(&config, &initial_parameters(&shapes, &quiet, 1), &conformal).unwrap();
    let mut executions = executed("d", 0..120).executions;
    for (query, execution) in executions.iter_mut().enumerate() {
        execution.query = query as u32;
        // Recorded without its memory.
        execution.peak_bytes = 0;
    }
    let mut steps = vec![];
    let settings = tune::PhysicalTuneConfig { folds: 3, ..tune::PhysicalTuneConfig::default() };
    let tuned = tune::tune(&expert, &executions, &settings, |taken, all| steps.push((taken, all))).unwrap();
    assert_eq!((steps.len(), steps.last()), (600, Some(&(600, 600))));
    assert!(tuned.after.improves(&tuned.before) && tuned.after.mean < 1.3, "{:?} {:?}", tuned.before, tuned.after);
    let unseen = outcomes(&tuned.expert, &[executed("d", 500..540)], false).unwrap();
    let covered = unseen.iter().filter(|one| one.ends[0] <= 0.0 && one.ends[1] >= 0.0).count();
    assert!(covered >= 32, "{covered} of 40");
    // What nobody measured calibrates nothing.
    let [times, memory] = [0, 1].map(|head| tuned.expert.conformal()[head]);
    assert!(times != conformal[0] && memory == conformal[1], "{times:?} {memory:?}");
    assert!(tune::tune(&expert, &executions[..2], &settings, |_, _| ()).is_err());
    // The tuned weights are read back above the expert that was tuned, and no other.
    let (weights, manifest) = tuned.expert.to_tuned(&expert, &TunedManifest::default()).unwrap();
    let read = expert.with_tuned(&weights, &manifest).unwrap();
    assert_eq!((read.parameters(), read.conformal()), (tuned.expert.parameters(), tuned.expert.conformal()));
    assert!(tuned.expert.with_tuned(&weights, &manifest).is_err());
}
