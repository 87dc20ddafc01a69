//! Linear models over the same features: logistic regression for classes, ridge regression for numbers, by linfa.

use anyhow::{Result, anyhow};
use linfa::Dataset;
use linfa::traits::Fit;
use linfa::traits::Predict;
use linfa_elasticnet::ElasticNet;
use linfa_logistic::{LogisticRegression, MultiLogisticRegression};
use ndarray::{Array1, Array2};
use relata_experts::in_context::{Column, Labels};

use super::prepare::Prepared;
use super::scores::Score;
use super::{Split, columns, compact};

/// Categories of a feature that are told apart.
const MOST_LEVELS: usize = 10;

/// Strength of the penalty of squared weights.
const PENALTY: f64 = 1.0;

/// Steps of the solver at most.
const STEPS: u64 = 200;

/// The linear model of a task's kind; `None` where it cannot be fitted.
pub(super) fn score(task: &Prepared, split: &Split) -> Result<Option<Score>> {
    let examples = columns(&task.features, &split.columns, &split.examples);
    let rows = columns(&task.features, &split.columns, &split.rows);
    let (labels, used) = compact(&task.labels_of(&split.examples));
    let values = match labels {
        Labels::Numbers(labels) => {
            let Some(values) = ridge(&examples, &labels, &rows) else { return Ok(None) };
            values.into_iter().map(|value| vec![value]).collect()
        }
        Labels::Classes { labels, count } => {
            let (x, asked) = encoded(&examples, &rows);
            let y: Array1<usize> = labels.iter().map(|label| *label as usize).collect();
            let data = Dataset::new(x, y);
            let mut values = vec![vec![0.0; task.classes()]; split.rows.len()];
            if count == 2 {
                let Ok(model) = LogisticRegression::default().alpha(PENALTY).max_iterations(STEPS).fit(&data) else {
                    return Ok(None);
                };
                let positive = model.labels().pos.class;
                for (values, share) in values.iter_mut().zip(model.predict_probabilities(&asked)) {
                    values[used[positive] as usize] = share;
                    values[used[1 - positive] as usize] = 1.0 - share;
                }
            } else {
                let Ok(model) = MultiLogisticRegression::default().alpha(PENALTY).max_iterations(STEPS).fit(&data)
                else {
                    return Ok(None);
                };
                let shares = model.predict_probabilities(&asked);
                for (values, shares) in values.iter_mut().zip(shares.rows()) {
                    for (class, share) in model.classes().iter().zip(shares) {
                        let class = used.get(*class).ok_or_else(|| anyhow!("a class that the examples have not"))?;
                        values[*class as usize] = *share;
                    }
                }
            }
            values
        }
    };
    Ok(Some(Score::new("linear", task, split, &values)))
}

/// What ridge regression of the examples says of rows; `None` where it cannot be fitted.
pub(crate) fn ridge(examples: &[Column], labels: &[f32], rows: &[Column]) -> Option<Vec<f64>> {
    let (x, asked) = encoded(examples, rows);
    let y: Array1<f64> = labels.iter().map(|label| f64::from(*label)).collect();
    let penalty = PENALTY / labels.len() as f64;
    let model = ElasticNet::ridge().penalty(penalty).fit(&Dataset::new(x, y)).ok()?;
    Some(model.predict(&asked).to_vec())
}

/// Examples and rows as the models read them.
fn encoded(examples: &[Column], rows: &[Column]) -> (Array2<f64>, Array2<f64>) {
    let encoders: Vec<Encoder> = examples.iter().map(Encoder::fit).collect();
    let of = |columns: &[Column]| matrix(&encoders, columns, columns.first().map_or(0, Column::len));
    (of(examples), of(rows))
}

/// How a feature is read: standardised, or a column for each frequent category.
enum Encoder {
    Number(f64, f64),
    Category(Vec<u32>),
}

impl Encoder {
    fn fit(column: &Column) -> Self {
        match column {
            Column::Number(values) => {
                let known: Vec<f64> =
                    values.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value)).collect();
                let count = known.len().max(1) as f64;
                let mean = known.iter().sum::<f64>() / count;
                let deviation = (known.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
                Self::Number(mean, if deviation > 1e-12 { deviation } else { 1.0 })
            }
            Column::Category(codes) => {
                let mut known: Vec<u32> = codes.iter().flatten().copied().collect();
                known.sort_unstable();
                let mut counts: Vec<(usize, u32)> =
                    known.chunk_by(|a, b| a == b).map(|same| (same.len(), same[0])).collect();
                counts.sort_by_key(|(count, code)| (std::cmp::Reverse(*count), *code));
                Self::Category(counts.into_iter().take(MOST_LEVELS).map(|(_, code)| code).collect())
            }
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::Number(..) => 1,
            Self::Category(codes) => codes.len(),
        }
    }
}

/// `[R, C]`; what is missing is zero, the mean.
fn matrix(encoders: &[Encoder], columns: &[Column], rows: usize) -> Array2<f64> {
    let width: usize = encoders.iter().map(Encoder::width).sum();
    let mut matrix = Array2::zeros((rows, width));
    let mut from = 0;
    for (encoder, column) in encoders.iter().zip(columns) {
        for row in 0..rows {
            match (encoder, column) {
                (Encoder::Number(mean, deviation), Column::Number(values)) if values[row].is_finite() => {
                    // Far outliers would decide alone.
                    matrix[[row, from]] = ((f64::from(values[row]) - mean) / deviation).clamp(-10.0, 10.0);
                }
                (Encoder::Category(known), Column::Category(codes)) => {
                    if let Some(place) = codes[row].and_then(|code| known.iter().position(|one| *one == code)) {
                        matrix[[row, from + place]] = 1.0;
                    }
                }
                _ => {}
            }
        }
        from += encoder.width();
    }
    matrix
}
