use relata_featurize::physical::{Facts, Observed, OperatorKind, PhysicalOperator, WORK};

use super::*;
use crate::config::MlpShape;
use crate::fixture::Noise;
use crate::physical::PhysicalConfig;

fn machine() -> Resources {
    Resources::reference(2, 1.5)
}

/// An expert that says what its cost model does, which knows no windows.
fn expert() -> PhysicalExpert {
    let mut costs = vec![[1e-3; WORK]; OperatorKind::COUNT];
    costs[OperatorKind::Window as usize] = [0.0; WORK];
    let known = vec![OperatorKind::Scan, OperatorKind::Filter, OperatorKind::Aggregate];
    let config = PhysicalConfig::above(costs, known);
    let parameters: usize = config.shapes().iter().map(MlpShape::parameter_count).sum();
    PhysicalExpert::from_parameters(&config, &vec![0.0; parameters], &[]).unwrap()
}

fn predictor() -> InContextPredictor {
    InContextPredictor::pretrained().unwrap()
}

fn operator(kind: OperatorKind, inputs: &[u32], table_rows: f32) -> PhysicalOperator {
    let facts = Facts { partitions: 2.0, width: 16.0, columns: 2.0, table_rows, ..Facts::default() };
    PhysicalOperator { kind, inputs: inputs.iter().copied().collect(), pipeline: 0, facts }
}

/// A filtered table, with or without a window above it, that took `e^residual` times as long as the expert says.
fn execution(query: u32, windows: bool, residual: f32) -> Execution {
    use OperatorKind::{Aggregate, Filter, Scan, Window};
    let rows = 10f32.powf(4.5 + Noise::new(u64::from(query)).vector(1)[0]);
    let mut operators = vec![operator(Scan, &[], rows), operator(Filter, &[0], 0.0)];
    operators.push(operator(if windows { Window } else { Aggregate }, &[1], 0.0));
    let graph = PhysicalGraph { operators, threads: 2, batch_size: 8192, memory_limit: 0 };
    let known = |rows: f32| Some(OperatorRows::exact(f64::from(rows)));
    let mut execution = Execution {
        query,
        machine: machine(),
        planning_us: vec![],
        execution_us: vec![],
        peak_bytes: 0,
        graph,
        estimated: vec![known(rows), known(rows / 3.0), None],
        observed: vec![Observed::default(); 3],
    };
    let filled = execution.graph.filled(&execution.estimated);
    let predicted = expert().runtime(&execution.graph, &filled, &machine()).unwrap().elapsed_us[1];
    execution.execution_us.push((predicted * f64::from(residual).exp()) as f32);
    execution
}

/// Plans with windows take ten times as long as the expert says, others half as long.
fn systematic(queries: u32) -> Vec<Execution> {
    let residual = |windows: bool| if windows { 10f32.ln() } else { 0.5f32.ln() };
    (0..queries).map(|query| execution(query, query % 3 == 0, residual(query % 3 == 0))).collect()
}

fn said(fitted: &ResidualPredictor, execution: &Execution) -> [f32; 3] {
    fitted.residual(&expert(), &execution.graph, &execution.estimated, &execution.machine).unwrap()
}

#[test]
fn what_was_executed_corrects_what_is_like_it() {
    let fitted = ResidualPredictor::fit(&expert(), &predictor(), &systematic(24)).unwrap().unwrap();
    assert_eq!(fitted.executions(), 24);
    for (windows, expected) in [(true, 10f32.ln()), (false, 0.5f32.ln())] {
        let asked = execution(100, windows, 0.0);
        let residual = said(&fitted, &asked);
        assert!((residual[1] - expected).abs() < 0.4 && residual.is_sorted(), "{residual:?} for {expected}");
        let rows = asked.graph.filled(&asked.estimated);
        let plain = expert().runtime(&asked.graph, &rows, &asked.machine).unwrap();
        let corrected = plain.clone().corrected(residual);
        let ratio = corrected.elapsed_us[1] / plain.elapsed_us[1];
        assert!((ratio.ln() - f64::from(residual[1])).abs() < 1e-6);
        assert!(corrected.elapsed_us.is_sorted());
        assert_eq!(corrected.peak_bytes.map(f64::to_bits), plain.peak_bytes.map(f64::to_bits));
        assert!((corrected.operators_us[0] / plain.operators_us[0] - ratio).abs() < 1e-6);
    }
}

#[test]
fn noise_and_few_queries_correct_nothing() {
    let mut noise = Noise::new(3);
    let mut random = || noise.vector(1)[0];
    let noisy: Vec<Execution> = (0..40).map(|query| execution(query, query % 3 == 0, random())).collect();
    assert!(ResidualPredictor::fit(&expert(), &predictor(), &noisy).unwrap().is_none());
    let few = systematic(FEWEST_QUERIES as u32 - 1);
    assert!(ResidualPredictor::fit(&expert(), &predictor(), &few).unwrap().is_none());
    // The same queries again are no others.
    let repeated = [few.clone(), few].concat();
    assert!(ResidualPredictor::fit(&expert(), &predictor(), &repeated).unwrap().is_none());
    assert!(ResidualPredictor::fit(&expert(), &predictor(), &[]).unwrap().is_none());
    assert!(matches!(ResidualPredictor::read(&predictor(), &[]), Err(ExpertsError::Context(_))));
}

#[test]
fn order_and_repetitions_do_not_matter() {
    let executions = systematic(20);
    let asked = execution(100, true, 0.0);
    let expected = said(&ResidualPredictor::fit(&expert(), &predictor(), &executions).unwrap().unwrap(), &asked);
    let mut others = executions.clone();
    others.reverse();
    others.swap(3, 11);
    // What ran before at another speed, and what cannot be read.
    let before = (0..20).map(|query| execution(query, query % 3 == 0, -3.0));
    let mut damaged = systematic(3);
    damaged.iter_mut().for_each(|one| one.query += 1000);
    damaged[0].execution_us = vec![f32::NAN];
    damaged[1].graph.operators.clear();
    damaged[2].estimated.pop();
    let others: Vec<Execution> = before.chain(damaged).chain(others).collect();
    let fitted = ResidualPredictor::fit(&expert(), &predictor(), &others).unwrap().unwrap();
    assert_eq!((fitted.executions(), said(&fitted, &asked)), (20, expected));
}

#[test]
fn features_are_finite_or_refused() {
    let mut plans = vec![execution(1, true, 0.0); 6];
    plans[0].graph.operators.clear();
    plans[0].estimated.clear();
    plans[1].estimated = vec![None; 3];
    plans[2].estimated[0] = Some(OperatorRows { rows: f32::NAN, lower: f32::NAN, upper: f32::NAN });
    plans[3].estimated[1] = Some(OperatorRows { rows: f32::MAX, lower: 0.0, upper: f32::INFINITY });
    plans[4].graph.operators[0].facts.table_rows = f32::MAX;
    plans[4].graph.operators[0].facts.file_bytes = f32::MAX;
    plans[5].graph = PhysicalGraph { threads: 0, batch_size: 0, ..plans[5].graph.clone() };
    let read: Vec<Option<Example>> = plans.iter().map(|plan| Example::new(&expert(), plan).ok()).collect();
    assert!(read[0].is_none() && read[1].is_some() && read[4].is_some() && read[5].is_some());
    let mut read = read.iter().flatten();
    assert!(read.all(|one| one.features.iter().all(|feature| feature.is_finite()) && one.residual.is_finite()));
}
