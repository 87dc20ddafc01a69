//! What recorded executions say of other queries: the residuals of the expert's times, and of rows that nobody estimated.
//!
//! Some queries of a workload are taken as recorded, by several seeds, and the others are predicted from them.

use anyhow::Result;
use hashbrown::HashMap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use relata_experts::PhysicalExpert;
use relata_experts::in_context::{Column, InContextPredictor, Labels, Prediction, QUANTILES};
use relata_experts::physical::elapsed_us;
use relata_experts::residual::{Example, FEATURES, MOST_EXECUTIONS, ResidualPredictor};
use relata_experts::train::physical::rows;
use relata_featurize::trace::Execution;

use super::RuntimeOptions;
use crate::metrics::{percentile, sorted};
use crate::predict::linear::ridge;
use crate::score::figures::table;

/// Draws of the recorded queries.
const SEEDS: u64 = 5;

/// Queries that are left to predict at least.
const FEWEST_LEFT: usize = 8;

/// Examples that are read of each plan on its own, instead of all.
const NEAREST: usize = 32;

/// An execution: what the expert says of it, and whether it is scored.
struct Case {
    example: Example,
    /// The expert's interval, around its median, in `ln` units.
    interval: [f32; 2],
    /// Whether the expert knows all its operators.
    known: bool,
    scored: bool,
}

impl Case {
    fn new(expert: &PhysicalExpert, execution: &Execution, above: f64) -> Result<Self> {
        let runtime = expert.runtime(&execution.graph, &rows(execution, false), &execution.machine)?;
        let [lower, median, upper] = runtime.elapsed_us.map(f64::ln);
        Ok(Self {
            example: Example::new(expert, execution)?,
            interval: [lower - median, upper - median].map(|end| end as f32),
            known: execution.graph.operators.iter().all(|operator| expert.knows(operator.kind)),
            scored: f64::from(elapsed_us(execution)) >= 1000.0 * above,
        })
    }
}

/// Errors of one contender, in `ln` units, and how many of them are within its interval.
#[derive(Debug, Clone, Default)]
struct Errors {
    all: Vec<f64>,
    /// Those of plans with operators that the expert does not know.
    unknown: Vec<f64>,
    covered: usize,
}

impl Errors {
    fn add(&mut self, case: &Case, [lower, median, upper]: [f32; 3]) {
        let residual = case.example.residual;
        let error = f64::from((residual - median).abs());
        self.all.push(error);
        self.unknown.extend((!case.known).then_some(error));
        self.covered += usize::from((lower..=upper).contains(&residual));
    }
}

/// The tables of all numbers of recorded queries; nothing where none is asked for.
pub(super) fn measure(expert: &PhysicalExpert, traces: &[Vec<Execution>], options: &RuntimeOptions) -> Result<String> {
    if options.recorded.is_empty() {
        return Ok(String::new());
    }
    let predictor = InContextPredictor::pretrained()?;
    let (mut times, mut counts) = (vec![], vec![]);
    for &recorded in &options.recorded {
        let mut errors = vec![Errors::default(); CONTENDERS.len()];
        let mut of_rows = vec![vec![]; ROW_CONTENDERS.len()];
        let (mut draws, mut helps) = (0, 0);
        for trace in traces {
            let cases = trace.iter().map(|one| Case::new(expert, one, options.above)).collect::<Result<Vec<_>>>()?;
            for seed in 0..SEEDS {
                let Some([taken, left]) = drawn(trace, recorded, seed) else { continue };
                draws += 1;
                helps += usize::from(score(&predictor, &cases, &taken, &left, &mut errors)?);
                score_rows(&predictor, trace, &taken, &left, &mut of_rows)?;
            }
        }
        let name = format!("{recorded}, used by {helps} of {draws}");
        for (contender, errors) in CONTENDERS.iter().zip(errors) {
            let count = errors.all.len().max(1);
            let covered = format!("{:.0}%", 100.0 * errors.covered as f64 / count as f64);
            let unknown = errors.unknown.len().to_string();
            let [mean, of_all] = figures(errors.all);
            let [_, of_unknown] = figures(errors.unknown);
            times.push(vec![
                name.clone(),
                (*contender).to_owned(),
                count.to_string(),
                mean,
                of_all,
                covered,
                unknown,
                of_unknown,
            ]);
        }
        for (contender, errors) in ROW_CONTENDERS.iter().zip(of_rows) {
            let count = errors.len().to_string();
            let [mean, all] = figures(errors);
            counts.push(vec![recorded.to_string(), (*contender).to_owned(), count, mean, all]);
        }
    }
    let header = ["recorded", "", "n", "geo-mean", "q-errors", "coverage", "unknown operators", "q-errors"];
    let times = format!("\n\nq-errors of runtimes by recorded queries\n{}", table(&[&header], times));
    let header = ["recorded", "", "n", "geo-mean", "q-errors"];
    Ok(times + &format!("\n\nq-errors of rows that were not estimated\n{}", table(&[&header], counts)))
}

/// The geometric mean, and the percentiles, of errors in `ln` units.
fn figures(errors: Vec<f64>) -> [String; 2] {
    if errors.is_empty() {
        return ["-", "-"].map(str::to_owned);
    }
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    let errors = sorted(errors);
    let at = |share: f64| format!("{:.2}", percentile(&errors, share).exp());
    [format!("{:.3}", mean.exp()), format!("{} / {} / {}", at(50.0), at(90.0), at(95.0))]
}

/// The places of the executions of so many queries, and those of the others; `None` where too few are left.
fn drawn(trace: &[Execution], recorded: usize, seed: u64) -> Option<[Vec<usize>; 2]> {
    let mut queries: Vec<u32> = trace.iter().map(|execution| execution.query).collect();
    queries.sort_unstable();
    queries.dedup();
    if queries.len() < recorded + FEWEST_LEFT {
        return None;
    }
    queries.shuffle(&mut StdRng::seed_from_u64(seed));
    queries.truncate(recorded);
    let (taken, left) = (0..trace.len()).partition(|&place| queries.contains(&trace[place].query));
    Some([taken, left])
}

/// Who predicts the residual of a time.
const CONTENDERS: [&str; 7] = [
    "expert",
    "one factor",
    "ridge",
    "nearest, in context",
    "in context",
    "in context, unknown operators",
    "in context, where it helps",
];

/// Predicts the cases that are left from those that were taken; whether the taken ones help each other.
fn score(
    predictor: &InContextPredictor,
    cases: &[Case],
    taken: &[usize],
    left: &[usize],
    errors: &mut [Errors],
) -> Result<bool> {
    let examples: Vec<&Example> = taken.iter().map(|&place| &cases[place].example).collect();
    let left: Vec<&Case> = left.iter().map(|&place| &cases[place]).filter(|case| case.scored).collect();
    let asked: Vec<_> = left.iter().map(|case| case.example.features).collect();
    let in_context = ResidualPredictor::read(predictor, &examples)?.residuals(&asked)?;
    let validated = ResidualPredictor::validated(predictor, &examples)?;
    let validated = validated.map(|fitted| fitted.residuals(&asked)).transpose()?;
    let residuals = sorted(examples.iter().map(|one| f64::from(one.residual)).collect());
    let factor = percentile(&residuals, 50.0) as f32;
    let labels: Vec<f32> = examples.iter().map(|one| one.residual).collect();
    let features: Vec<_> = examples.iter().map(|one| one.features).collect();
    let linear = ridge(&columns(&features), &labels, &columns(&asked)).unwrap_or_default();
    let scales = scales(&features);
    for (place, case) in left.into_iter().enumerate() {
        let own = [case.interval[0], 0.0, case.interval[1]];
        let around = |residual: f32| own.map(|end| end + residual);
        let nearest = nearest(&examples, &case.example, &scales);
        let nearest = ResidualPredictor::read(predictor, &nearest)?.residuals(&[case.example.features])?;
        let said = [
            own,
            around(factor),
            around(linear.get(place).map_or(0.0, |residual| *residual as f32)),
            nearest[0],
            in_context[place],
            if case.known { own } else { in_context[place] },
            validated.as_ref().map_or(own, |residuals| residuals[place]),
        ];
        errors.iter_mut().zip(said).for_each(|(errors, said)| errors.add(case, said));
    }
    Ok(validated.is_some())
}

fn columns(features: &[[f32; FEATURES]]) -> Vec<Column> {
    (0..FEATURES).map(|place| Column::Number(features.iter().map(|one| one[place]).collect())).collect()
}

/// The deviation of every feature.
fn scales(features: &[[f32; FEATURES]]) -> [f32; FEATURES] {
    let count = features.len().max(1) as f32;
    std::array::from_fn(|place| {
        let mean = features.iter().map(|one| one[place]).sum::<f32>() / count;
        (features.iter().map(|one| (one[place] - mean).powi(2)).sum::<f32>() / count).sqrt()
    })
}

/// The examples that are most like another.
fn nearest<'a>(examples: &[&'a Example], asked: &Example, scales: &[f32; FEATURES]) -> Vec<&'a Example> {
    let distance = |one: &Example| -> f32 {
        let each = one.features.iter().zip(&asked.features).zip(scales).filter(|(_, scale)| **scale > 0.0);
        each.map(|((a, b), scale)| ((a - b) / scale).clamp(-5.0, 5.0).powi(2)).sum()
    };
    let mut examples = examples.to_vec();
    examples.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    examples.truncate(NEAREST);
    examples
}

/// Who predicts the residual of rows.
const ROW_CONTENDERS: [&str; 3] = ["rows of the inputs", "one factor by operator", "in context"];

/// An operator whose rows nobody estimated: its kind, its features under the rows of its inputs, and the residual of those.
type Operator = (usize, Vec<f32>, f32);

fn operators(trace: &[Execution], places: &[usize]) -> Vec<Operator> {
    let mut operators = vec![];
    for execution in places.iter().map(|&place| &trace[place]) {
        let filled = rows(execution, false);
        for (index, operator) in execution.graph.operators.iter().enumerate() {
            if let (None, Some(rows)) = (execution.estimated[index], execution.observed[index].rows) {
                let features = execution.graph.features(index, &filled).to_vec();
                operators.push((operator.kind as usize, features, rows.ln_1p() - filled[index].rows.ln_1p()));
            }
        }
    }
    operators
}

fn score_rows(
    predictor: &InContextPredictor,
    trace: &[Execution],
    taken: &[usize],
    left: &[usize],
    errors: &mut [Vec<f64>],
) -> Result<()> {
    let (mut taken, left) = (operators(trace, taken), operators(trace, left));
    taken.shuffle(&mut StdRng::seed_from_u64(0));
    taken.truncate(MOST_EXECUTIONS);
    let (Some((_, features, _)), false) = (taken.first(), left.is_empty()) else { return Ok(()) };
    let columns = |operators: &[Operator]| -> Vec<Column> {
        let column = |place: usize| Column::Number(operators.iter().map(|(_, features, _)| features[place]).collect());
        (0..features.len()).map(column).collect()
    };
    let labels = Labels::Numbers(taken.iter().map(|(.., residual)| *residual).collect());
    let said = predictor.prefill(&columns(&taken), &labels)?.predict(&columns(&left))?;
    let mut by_kind: HashMap<usize, Vec<f64>> = HashMap::new();
    taken.iter().for_each(|(kind, _, residual)| by_kind.entry(*kind).or_default().push(f64::from(*residual)));
    let medians: HashMap<usize, f64> =
        by_kind.into_iter().map(|(kind, residuals)| (kind, percentile(&sorted(residuals), 50.0))).collect();
    for ((kind, _, residual), said) in left.iter().zip(said) {
        let residual = f64::from(*residual);
        let factor = medians.get(kind).copied().unwrap_or(0.0);
        let in_context = match said {
            Prediction::Numbers(quantiles) => f64::from(quantiles[QUANTILES.len() / 2]),
            Prediction::Classes(_) => 0.0,
        };
        let said = [0.0, factor, in_context];
        errors.iter_mut().zip(said).for_each(|(errors, said)| errors.push((residual - said).abs()));
    }
    Ok(())
}
