//! Ridge regression of the labels, whose predictions the transformer reads as further columns.
//!
//! A sum over many features takes attention many layers to learn and many examples; a linear model has it in closed form (Hoerl
//! and Kennard, Technometrics 1970). Examples stand at what a model says that was fitted without them, so that such a column
//! can be trusted of the rows as much as of the examples (Wolpert, "Stacked generalization", Neural Networks 1992).

use super::encoding::{Column, Labels, Scale, ascending, by_frequency};
use crate::cholesky::{backward, decompose, forward, leverage, products};

/// Penalties per example, of which the one with the least error on examples left out is taken.
const PENALTIES: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// Share of the variance of examples left out that predictions explain at least: those of labels that have nothing linear
/// would say more about the example that was left out than about others.
const LEAST_EXPLAINED: f64 = 0.05;

/// Columns at most: of more classes, those that are explained best.
const MOST_COLUMNS: usize = 3;

/// Categories of a feature that are told apart.
const MOST_CATEGORIES: usize = 8;

/// Terms at most: with more the fit would take longer than the transformer does.
const MOST_TERMS: usize = 256;

/// Deviations beyond which numbers are not told apart.
const LARGEST: f64 = 5.0;

/// Linear models of labels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ridge {
    terms: Vec<Terms>,
    /// Mean of every term. `[T]`
    means: Vec<f64>,
    /// Per column what is predicted at the means, and the slope of every term. `[T]`
    planes: Vec<(f64, Vec<f64>)>,
}

/// What a feature is to a linear model; what is missing is zero.
#[derive(Debug, Clone)]
enum Terms {
    /// The number in deviations from the mean, and the same of the squashed number, both within the range of the examples:
    /// a line is no better than a guess beyond it.
    Number { mean: f64, deviation: f64, scale: Scale, range: [f32; 2] },
    /// Whether it is each of these categories.
    Category(Vec<u32>),
}

impl Terms {
    fn fit(column: &Column) -> Self {
        match column {
            Column::Number(values) => {
                let sorted = ascending(values);
                let count = sorted.len().max(1) as f64;
                let mean = sorted.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
                let variance = sorted.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
                let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
                let range = [sorted.first(), sorted.last()].map(|value| value.copied().unwrap_or_default());
                Self::Number { mean, deviation, scale: Scale::fit(&sorted), range }
            }
            Column::Category(codes) => {
                Self::Category(by_frequency(codes).into_iter().take(MOST_CATEGORIES).map(|(code, _)| code).collect())
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Number { .. } => 2,
            Self::Category(codes) => codes.len(),
        }
    }

    /// Writes the terms of a row to zeros. `[count]`
    fn write(&self, column: &Column, row: usize, out: &mut [f64]) {
        match (self, column) {
            (Self::Number { mean, deviation, scale, range }, Column::Number(values)) if values[row].is_finite() => {
                let value = values[row].clamp(range[0], range[1]);
                out[0] = ((f64::from(value) - mean) / deviation).clamp(-LARGEST, LARGEST);
                out[1] = f64::from(scale.apply(value)).clamp(-LARGEST, LARGEST);
            }
            (Self::Category(known), Column::Category(codes)) => {
                if let Some(place) = codes[row].and_then(|code| known.iter().position(|one| *one == code)) {
                    out[place] = 1.0;
                }
            }
            _ => {}
        }
    }
}

impl Ridge {
    /// Fits models to examples: theirs is a column for each class, or one for numbers, where they explain enough of the labels.
    /// Returns the columns of the examples, `[R]` each.
    pub(crate) fn fit(features: &[Column], labels: &Labels) -> (Self, Vec<Column>) {
        let terms: Vec<Terms> = features.iter().map(Terms::fit).collect();
        let (rows, width) = (labels.len(), terms.iter().map(Terms::count).sum::<usize>());
        if !(1..=MOST_TERMS).contains(&width) || rows < 3 {
            return (Self::default(), vec![]);
        }
        let mut ridge = Self { terms, means: vec![0.0; width], planes: vec![] };
        let mut x = ridge.matrix(features, rows);
        for row in x.chunks_exact(width) {
            ridge.means.iter_mut().zip(row).for_each(|(mean, term)| *mean += term / rows as f64);
        }
        for row in x.chunks_exact_mut(width) {
            row.iter_mut().zip(&ridge.means).for_each(|(term, mean)| *term -= mean);
        }
        let targets: Vec<Target> = targets(labels).into_iter().map(|values| Target::new(values, &x, width)).collect();
        let products = products(&x, width);
        let fits = PENALTIES.map(|penalty| Fit::new(&x, width, products.clone(), penalty * rows as f64, &targets));
        let Some(fit) = fits.into_iter().min_by(|a, b| a.error.total_cmp(&b.error)) else {
            return (Self::default(), vec![]);
        };
        let explained = |(target, left_out): (&Target, &Vec<f64>)| {
            let error: f64 =
                target.values.iter().zip(left_out).map(|(value, left_out)| (value - left_out).powi(2)).sum();
            1.0 - error / target.values.iter().map(|value| value * value).sum::<f64>()
        };
        let explained: Vec<f64> = targets.iter().zip(&fit.left_out).map(explained).collect();
        let mut used: Vec<usize> = (0..targets.len()).filter(|target| explained[*target] > LEAST_EXPLAINED).collect();
        used.sort_by(|a, b| explained[*b].total_cmp(&explained[*a]));
        used.truncate(MOST_COLUMNS);
        let column = |target: &usize| {
            let mean = targets[*target].mean;
            Column::Number(fit.left_out[*target].iter().map(|value| (mean + value) as f32).collect())
        };
        let columns = used.iter().map(column).collect();
        ridge.planes = used.iter().map(|target| (targets[*target].mean, fit.slopes[*target].clone())).collect();
        (ridge, columns)
    }

    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.planes.len()
    }

    /// The columns of rows, which have these features.
    pub(crate) fn predict(&self, features: &[Column]) -> Vec<Column> {
        if self.planes.is_empty() {
            return vec![];
        }
        let x = self.matrix(features, features.first().map_or(0, Column::len));
        let predicted = |(mean, slopes): &(f64, Vec<f64>)| {
            let at = |row: &[f64]| {
                let terms = row.iter().zip(&self.means).zip(slopes);
                (mean + terms.map(|((term, mean), slope)| (term - mean) * slope).sum::<f64>()) as f32
            };
            Column::Number(x.chunks_exact(self.means.len()).map(at).collect())
        };
        self.planes.iter().map(predicted).collect()
    }

    /// The terms of rows. `[R, T]`
    fn matrix(&self, features: &[Column], rows: usize) -> Vec<f64> {
        let width = self.means.len();
        let mut x = vec![0.0; rows * width];
        for (row, mut out) in x.chunks_exact_mut(width).enumerate() {
            for (terms, column) in self.terms.iter().zip(features) {
                let (own, rest) = out.split_at_mut(terms.count());
                terms.write(column, row, own);
                out = rest;
            }
        }
        x
    }
}

/// What is regressed: numbers as they are squashed; of each class whether a row is of it, of two classes of one of them.
fn targets(labels: &Labels) -> Vec<Vec<f64>> {
    match labels {
        Labels::Numbers(numbers) => {
            let scale = Scale::fit(&ascending(numbers));
            vec![numbers.iter().map(|number| f64::from(scale.apply(*number)).clamp(-LARGEST, LARGEST)).collect()]
        }
        Labels::Classes { labels, count } => {
            let is = |class: usize| labels.iter().map(|label| f64::from(u8::from(*label as usize == class))).collect();
            (usize::from(*count == 2)..*count).map(is).collect()
        }
    }
}

struct Target {
    mean: f64,
    /// Less the mean. `[R]`
    values: Vec<f64>,
    /// Products with the terms. `[T]`
    products: Vec<f64>,
}

impl Target {
    fn new(mut values: Vec<f64>, x: &[f64], width: usize) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter_mut().for_each(|value| *value -= mean);
        let mut products = vec![0.0; width];
        for (row, value) in x.chunks_exact(width).zip(&values) {
            products.iter_mut().zip(row).for_each(|(product, term)| *product += term * value);
        }
        Self { mean, values, products }
    }
}

/// The models of all targets with a penalty.
struct Fit {
    /// Per target. `[T]`
    slopes: Vec<Vec<f64>>,
    /// Per target what is predicted of each example without it, less the mean of all. `[R]`
    left_out: Vec<Vec<f64>>,
    /// Squared, of all targets.
    error: f64,
}

impl Fit {
    fn new(x: &[f64], width: usize, mut matrix: Vec<f64>, penalty: f64, targets: &[Target]) -> Self {
        matrix.iter_mut().step_by(width + 1).for_each(|diagonal| *diagonal += penalty);
        decompose(&mut matrix, width);
        let count = (x.len() / width) as f64;
        let leverages: Vec<f64> = x.chunks_exact(width).map(|row| leverage(&matrix, row) + 1.0 / count).collect();
        let mut fit = Self { slopes: vec![], left_out: vec![], error: 0.0 };
        for target in targets {
            let mut slopes = target.products.clone();
            forward(&matrix, width, &mut slopes);
            backward(&matrix, width, &mut slopes);
            let rows = x.chunks_exact(width).zip(&target.values).zip(&leverages);
            let left_out = rows.map(|((row, value), leverage)| {
                let predicted: f64 = row.iter().zip(&slopes).map(|(term, slope)| term * slope).sum();
                // Allen, "The relationship between variable selection and data augmentation", Technometrics 1974.
                value - (value - predicted) / (1.0 - leverage).max(1e-9)
            });
            let left_out: Vec<f64> = left_out.collect();
            fit.error += target.values.iter().zip(&left_out).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            fit.slopes.push(slopes);
            fit.left_out.push(left_out);
        }
        fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Noise;

    fn numbers(column: &Column) -> &[f32] {
        match column {
            Column::Number(values) => values,
            Column::Category(_) => panic!("not numbers"),
        }
    }

    fn features(noise: &mut Noise, rows: usize) -> Vec<Column> {
        let codes = (0..rows as u32).map(|row| (row % 5 > 0).then_some(row % 3)).collect();
        vec![Column::Number(noise.vector(rows)), Column::Category(codes), Column::Number(noise.vector(rows))]
    }

    /// Twice the first number, and three more in the second category.
    fn sums(features: &[Column]) -> Vec<f32> {
        let Column::Category(codes) = &features[1] else { panic!("not categories") };
        let sum = |(number, code): (&f32, &Option<u32>)| 2.0 * number + 3.0 * f32::from(u8::from(*code == Some(1)));
        numbers(&features[0]).iter().zip(codes).map(sum).collect()
    }

    #[test]
    fn what_is_linear_is_found_and_what_is_not_is_left_out() {
        let mut noise = Noise::new(3);
        let (examples, rows) = (features(&mut noise, 90), features(&mut noise, 30));
        let labels = sums(&examples);
        let (ridge, columns) = Ridge::fit(&examples, &Labels::Numbers(labels.clone()));
        assert!(ridge.columns() == 1 && columns.len() == 1);
        let correlation = |a: &[f32], b: &[f32]| {
            let mean = |x: &[f32]| x.iter().sum::<f32>() / x.len() as f32;
            let product =
                |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(v, w)| (v - mean(x)) * (w - mean(y))).sum::<f32>();
            product(a, b) / (product(a, a) * product(b, b)).sqrt()
        };
        assert!(correlation(numbers(&columns[0]), &labels) > 0.97);
        assert!(correlation(numbers(&ridge.predict(&rows)[0]), &sums(&rows)) > 0.97);
        // Classes that follow from it.
        let classes = labels.iter().map(|label| u32::from(*label > 0.0) + u32::from(*label > 2.0)).collect();
        let (ridge, columns) = Ridge::fit(&examples, &Labels::Classes { labels: classes, count: 3 });
        assert!(columns.len() >= 2 && ridge.predict(&rows).len() == columns.len());
        // Noise.
        let (ridge, columns) = Ridge::fit(&examples, &Labels::Numbers(noise.vector(90)));
        assert!(columns.is_empty() && ridge.predict(&rows).is_empty());
    }

    #[test]
    fn an_example_is_predicted_without_its_own_label() {
        let mut noise = Noise::new(5);
        let examples = features(&mut noise, 40);
        let labels = sums(&examples);
        let (_, all) = Ridge::fit(&examples, &Labels::Numbers(labels.clone()));
        let without = |column: &Column| match column {
            Column::Number(values) => Column::Number(values[1..].to_vec()),
            Column::Category(codes) => Column::Category(codes[1..].to_vec()),
        };
        let rest: Vec<Column> = examples.iter().map(without).collect();
        let (ridge, _) = Ridge::fit(&rest, &Labels::Numbers(labels[1..].to_vec()));
        // Scales, means and the penalty are those of all examples in one and of the rest in the other.
        let (left_out, fitted) = (numbers(&all[0])[0], numbers(&ridge.predict(&examples)[0])[0]);
        assert!((left_out - fitted).abs() < 0.1, "{left_out} {fitted}");
    }

    #[test]
    fn nonsense_is_survived() {
        let empty = vec![Column::Number(vec![f32::NAN; 4]), Column::Category(vec![None; 4])];
        let huge = vec![Column::Number(vec![3e38, -3e38, 1.0, f32::INFINITY])];
        let many = vec![Column::Number(vec![1.0, 2.0, 3.0, 4.0]); MOST_TERMS];
        for features in [empty, huge, many, vec![Column::Category(vec![None; 4])]] {
            for labels in [Labels::Numbers(vec![5.0; 4]), Labels::Numbers(vec![-3e38, 3e38, 0.0, 1.0])] {
                let (ridge, columns) = Ridge::fit(&features, &labels);
                let predicted = ridge.predict(&features);
                assert_eq!(predicted.len(), columns.len());
                assert!(predicted.iter().chain(&columns).flat_map(numbers).all(|value| value.is_finite()));
            }
        }
    }
}
