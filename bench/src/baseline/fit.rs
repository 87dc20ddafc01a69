//! `relata-bench baseline`: fits the linear model to traces.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use linfa::Dataset;
use linfa::traits::Fit;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2};
use relata_featurize::graph::LAYOUT_VERSION;
use relata_featurize::trace::read_all;

use super::{Linear, Regression, flat, place};
use crate::machine::Provenance;

/// Fit the linear baseline to traces
#[derive(Debug, Clone, Args)]
pub struct BaselineOptions {
    /// Folder of traces
    #[arg(long, required = true, num_args = 1..)]
    pub traces: Vec<PathBuf>,
    /// File of the coefficients
    #[arg(long)]
    pub output: PathBuf,
    /// Penalty of the squared slopes of standardised features, per node
    #[arg(long, default_value_t = 1e-4)]
    pub penalty: f64,
    /// Nodes of each kind, evenly spaced
    #[arg(long, default_value_t = 200_000)]
    pub nodes: usize,
}

/// Fits and writes the coefficients.
///
/// # Errors
/// When a trace cannot be read, holds no labels, or the file cannot be written.
pub fn run(options: &BaselineOptions) -> Result<Linear> {
    ensure!(options.nodes > 0 && options.penalty > 0.0, "--nodes and --penalty must be positive");
    let mut samples: [Vec<(Vec<f32>, f32)>; 3] = Default::default();
    let mut databases = 0;
    for folder in &options.traces {
        for trace in read_all(folder)? {
            databases += 1;
            for labelled in &trace.graphs {
                for ((node, features), label) in
                    labelled.graph.nodes.iter().zip(flat(&labelled.graph)).zip(&labelled.labels)
                {
                    if let (Some(kind), Some(features), Some(base), Some(label)) =
                        (place(node.kind), features, node.base, label)
                    {
                        samples[kind].push((features, label - base));
                    }
                }
            }
        }
    }
    let mut regressions = [None, None, None];
    for (kind, samples) in samples.iter().enumerate().filter(|(_, samples)| !samples.is_empty()) {
        let kept: Vec<&(Vec<f32>, f32)> = samples.iter().step_by(samples.len().div_ceil(options.nodes)).collect();
        regressions[kind] = Some(fit(&kept, options.penalty)?);
    }
    ensure!(regressions.iter().any(Option::is_some), "the traces hold no labels");
    let Provenance { commit, command, .. } = Provenance::collect(None);
    let linear = Linear { layout: LAYOUT_VERSION, command, commit, databases, penalty: options.penalty, regressions };
    let text = serde_json::to_string(&linear)? + "\n";
    std::fs::write(&options.output, text).with_context(|| options.output.display().to_string())?;
    Ok(linear)
}

/// Features of a node and its residual.
type Sample = (Vec<f32>, f32);

/// Ridge regression as least squares with a row `sqrt(penalty * nodes)` per feature below the samples (Hoerl and Kennard,
/// Technometrics 1970, section 2). Features that do not vary have no slope.
fn fit(samples: &[&Sample], penalty: f64) -> Result<Regression> {
    let (n, width) = (samples.len(), samples[0].0.len());
    let mean_of = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(|sample| of(sample)).sum::<f64>() / n as f64;
    let intercept = mean_of(&|sample| f64::from(sample.1));
    let means: Vec<f64> = (0..width).map(|f| mean_of(&|sample| f64::from(sample.0[f]))).collect();
    let spreads: Vec<f64> =
        (0..width).map(|f| mean_of(&|sample| (f64::from(sample.0[f]) - means[f]).powi(2)).sqrt()).collect();
    let varying: Vec<usize> = (0..width).filter(|&f| spreads[f] > 1e-6).collect();
    let scaled = |sample: usize, f: usize| (f64::from(samples[sample].0[f]) - means[f]) / spreads[f];
    let weight = (penalty * n as f64).sqrt();
    let x = Array2::from_shape_fn((n + varying.len(), varying.len()), |(row, column)| match row.checked_sub(n) {
        None => scaled(row, varying[column]),
        Some(diagonal) => {
            if diagonal == column {
                weight
            } else {
                0.0
            }
        }
    });
    let y =
        Array1::from_shape_fn(n + varying.len(), |row| samples.get(row).map_or(0.0, |s| f64::from(s.1) - intercept));
    let model = LinearRegression::new().with_intercept(false).fit(&Dataset::new(x, y));
    let model = model.map_err(|error| anyhow!("{error}"))?;
    let mut slopes = vec![0.0; width];
    for (&f, slope) in varying.iter().zip(model.params()) {
        slopes[f] = slope / spreads[f];
    }
    let residual = |sample: &(Vec<f32>, f32)| {
        let terms = sample.0.iter().zip(&means).zip(&slopes);
        f64::from(sample.1) - intercept - terms.map(|((x, mean), slope)| (f64::from(*x) - mean) * slope).sum::<f64>()
    };
    let before = mean_of(&|sample| f64::from(sample.1).powi(2)).sqrt();
    let after = mean_of(&|sample| residual(sample).powi(2)).sqrt();
    let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
    Ok(Regression {
        intercept: intercept as f32,
        means: narrow(&means),
        slopes: narrow(&slopes),
        nodes: n,
        deviation: (before as f32, after as f32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_recovers_a_line() {
        let samples: Vec<(Vec<f32>, f32)> = (0..200)
            .map(|i| {
                let (a, b) = ((i % 17) as f32, (i % 5) as f32);
                (vec![a, b, 3.0], 0.5 + 2.0 * a - b)
            })
            .collect();
        let regression = fit(&samples.iter().collect::<Vec<_>>(), 1e-9).unwrap();
        assert!((regression.slopes[0] - 2.0).abs() < 1e-3 && (regression.slopes[1] + 1.0).abs() < 1e-3);
        assert!(regression.slopes[2].abs() < 1e-9 && regression.deviation.1 < 1e-3, "{regression:?}");
    }
}
