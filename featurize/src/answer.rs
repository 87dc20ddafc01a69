//! Approximate answers: AVG, SUM, MIN and MAX of an expression over a join, from sampled rows.
//!
//! Three views of the sampled values, from the most to the least specific: the rows that pass every condition of the join,
//! those that pass the common ones, and those that pass the filters on the value itself. A mean is the one of the first view
//! drawn towards what the conditions, each by itself, make of the last (main effects; an empirical Bayes estimate after Efron
//! and Morris, "Stein's estimation rule and its competitors", JASA 1973). An extreme is where the tail of all three views
//! leaves less than half a row to be expected beyond. What the model adds is the residual: of a mean in standard errors, of an
//! extreme in the logarithm of the rows expected beyond it.

use smallvec::SmallVec;

use crate::analytical::{Factor, JoinEstimator, SampledValues, ValueExpr, effective};
use crate::join_graph::RelationSet;
use crate::logical::{count, flag, share};
use crate::selectivity::number_limits;
use crate::sketch::Value;

/// What is computed of the values other than NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Their mean.
    Avg,
    /// Their sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

/// The forms of residuals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AnswerForm {
    /// Of a mean or a sum: the inverse hyperbolic sine of standard errors.
    Mean,
    /// Of the smallest value: the logarithm of the rows expected beyond it.
    Smallest,
    /// Of the largest value.
    Largest,
}

impl AnswerForm {
    /// Number of forms.
    pub const COUNT: usize = 3;

    /// The form with this discriminant.
    pub fn from_u8(value: u8) -> Option<Self> {
        [Self::Mean, Self::Smallest, Self::Largest].get(usize::from(value)).copied()
    }
}

/// Numbers that the model reads of an aggregate.
pub const ANSWER_FEATURES: usize = 28;

/// Rows that pass from which on a view speaks for itself.
const ENOUGH_ROWS: f64 = 24.0;

/// Weight of what is expected of a mean against what was seen, in rows.
const PRIOR_ROWS: f64 = 2.0;

/// Rows behind the effect of one condition on the mean at which half of it is believed.
const EFFECT_ROWS: f64 = 8.0;

/// Weight of the common view and of the value's own against the rows that pass, in the tail of an extreme.
const TAIL_ROWS: [f64; 2] = [2.0, 0.25];

/// Rows expected beyond an extreme: half of the samples of a Poisson distribution with this mean are empty.
const BEYOND: f64 = std::f64::consts::LN_2;

/// The residuals are cut off here.
const LARGEST_RESIDUAL: f64 = 12.0;

/// What the sample says of an aggregate, and how a residual changes it.
#[derive(Debug, Clone)]
pub struct AnswerEstimate {
    /// What is computed.
    pub function: AggregateFunction,
    /// Whether the answer is exact, of rows that are all known; it is `None` where no value passes.
    pub exact: Option<Option<f64>>,
    /// Share of the rows whose value is not NULL.
    pub present: f64,
    /// The smallest and the largest value there can be; provable.
    pub range: (f64, f64),
    form: Form,
    evidence: Evidence,
}

/// How residuals are answers.
#[derive(Debug, Clone)]
enum Form {
    /// A mean and its standard error.
    Mean { mean: f64, error: f64 },
    /// An extreme.
    Extreme(Tail),
}

/// What the model reads of it.
#[derive(Debug, Clone, Default)]
struct Evidence {
    /// Rows that pass every condition, the common ones, and those on the value, in effective numbers.
    rows: [f64; 3],
    /// Sampled rows.
    sampled: f64,
    /// Rows of the value's own table that pass what is known of them, in effective numbers.
    table: f64,
    /// Relations that are seen, and all.
    relations: [f64; 2],
    /// Conditions that are left out of the common ones.
    rare: f64,
    /// Rows of the join.
    joined: f64,
    /// How the means differ, in standard deviations: every condition and the common ones, these and the value's own, the
    /// expected one and the value's own.
    shifts: [f64; 3],
    /// Standard deviation under the common conditions and under those on the value, in that of the latter and in the mean.
    spread: [f64; 2],
    /// Where the mean lies in the range, where that is finite.
    position: Option<f64>,
    /// Rows expected beyond the extreme that was seen, and distance from it to the end of the range.
    beyond_seen: f64,
    gap: f64,
}

/// The answer of `function` over `value` in the join of `set`, which is estimated at `rows` rows. `None` where no sample
/// has the value's relations, or there are no numbers among the values.
pub fn estimate_answer(
    estimator: &JoinEstimator<'_>,
    set: RelationSet,
    rows: f64,
    function: AggregateFunction,
    value: &ValueExpr,
) -> Option<AnswerEstimate> {
    let (mut sampled, table) = estimator.sampled_values(set, value)?;
    let (range, at_ends) = range(estimator, value);
    let exact = sampled.exact.then(|| View::new(&sampled, sampled.factors.iter()).exact(&sampled.values, function));
    move_into(&mut sampled, range);
    let Some(views) = Views::of(&sampled) else {
        // Where every row is known, it is known too that none has a value.
        let form = Form::Mean { mean: 0.0, error: 0.0 };
        return exact.map(|exact| AnswerEstimate {
            function,
            exact: Some(exact),
            present: 0.0,
            range,
            form,
            evidence: Evidence::default(),
        });
    };
    let Views { full, common, own, .. } = &views;
    let table = table.map_or_else(|| full.clone(), |table| View::new(&table, table.factors.iter()));
    let expected = (table.rows * table.mean + PRIOR_ROWS * views.expected) / (table.rows + PRIOR_ROWS);
    let expected = expected.clamp(range.0, range.1);
    let deviation = own.deviation.max(common.deviation);
    let in_deviations = |shift: f64| if deviation > 0.0 { shift / deviation } else { 0.0 };
    let mut evidence = Evidence {
        rows: [full.rows, common.rows, own.rows],
        sampled: sampled.values.len() as f64,
        table: table.rows,
        relations: [sampled.relations.len() as f64, set.len() as f64],
        rare: views.rare as f64,
        joined: rows,
        shifts: [full.mean - common.mean, common.mean - own.mean, expected - own.mean].map(in_deviations),
        spread: [common.deviation / own.deviation.max(1e-300), deviation / expected.abs().max(1e-300)],
        ..Evidence::default()
    };
    let form = match function {
        AggregateFunction::Avg | AggregateFunction::Sum => {
            let weight = full.rows + PRIOR_ROWS;
            let mean = (full.rows * full.mean + PRIOR_ROWS * expected) / weight;
            let spread = if full.rows >= ENOUGH_ROWS { full.deviation } else { deviation };
            let (mean, width) = (mean.clamp(range.0, range.1), range.1 - range.0);
            evidence.position = (width.is_finite() && width > 0.0).then(|| (mean - range.0) / width);
            Form::Mean { mean, error: spread / weight.sqrt() }
        }
        AggregateFunction::Min | AggregateFunction::Max => {
            let sign = if function == AggregateFunction::Max { 1.0 } else { -1.0 };
            let end = if sign > 0.0 { range.1 } else { -range.0 };
            let of_relation = value.relations().iter().map(|relation| estimator.relations[relation].rows);
            let rows = of_relation.reduce(|a, b| a * b).unwrap_or(1.0).min(rows).max(1.0);
            let at_end = rows * if sign > 0.0 { at_ends.1 } else { at_ends.0 };
            let tail = Tail::new(sign, (end, at_end), rows, &sampled.values, &views);
            evidence.beyond_seen = tail.beyond(tail.seen).0;
            evidence.gap = in_deviations(end - tail.seen);
            Form::Extreme(tail)
        }
    };
    Some(AnswerEstimate { function, exact, present: common.present, range, form, evidence })
}

/// The smallest and the largest value that can pass the filters on a column, and the share of the rows that have each.
fn range(estimator: &JoinEstimator<'_>, value: &ValueExpr) -> ((f64, f64), (f64, f64)) {
    let of_column = || {
        let (relation, column) = value.column()?;
        let profile = estimator.relations[relation].profile.as_ref()?;
        let limits = number_limits(profile, &estimator.graph.relations[relation].table_filters, column);
        let of_rows = estimator.passing_range(relation, value).unwrap_or(limits);
        let (least, most) = (limits.0.max(of_rows.0), limits.1.min(of_rows.1));
        // The column's own ends occur at least once.
        let share = |end: f64| profile.columns[column].equality(&Value::Number(end)).max(1.0 / profile.rows.max(1.0));
        (least <= most).then(|| ((least, most), (share(least), share(most))))
    };
    of_column().unwrap_or(((f64::NEG_INFINITY, f64::INFINITY), (0.0, 0.0)))
}

/// Where no sampled value passes the filters on it, the values are moved to where they would.
fn move_into(sampled: &mut SampledValues, (least, most): (f64, f64)) {
    let weights = sampled.weights(sampled.factors.iter().filter(|factor| factor.of_value));
    if weights.iter().zip(&sampled.values).all(|(weight, value)| *weight <= 0.0 || value.is_nan()) {
        sampled.factors.retain(|factor| !factor.of_value);
        sampled.values.iter_mut().for_each(|value| *value = value.clamp(least, most));
    }
}

impl AnswerEstimate {
    /// The answer for a residual; 0 gives that of the sample.
    pub fn at(&self, residual: f64) -> f64 {
        let residual = residual.clamp(-LARGEST_RESIDUAL, LARGEST_RESIDUAL);
        match &self.form {
            Form::Mean { mean, error } => (mean + error * residual.sinh()).clamp(self.range.0, self.range.1),
            Form::Extreme(tail) => tail.sign * tail.at((BEYOND.ln() + residual).exp()),
        }
    }

    /// The form of the residual, of which each has an interval of its own.
    pub fn form(&self) -> AnswerForm {
        match &self.form {
            Form::Mean { .. } => AnswerForm::Mean,
            Form::Extreme(tail) if tail.sign < 0.0 => AnswerForm::Smallest,
            Form::Extreme(_) => AnswerForm::Largest,
        }
    }

    /// What the model reads: finite numbers, most of them within a few units of zero. `[ANSWER_FEATURES]`
    pub fn features(&self) -> [f32; ANSWER_FEATURES] {
        let evidence = &self.evidence;
        let mut form = [0.0; AnswerForm::COUNT];
        form[self.form() as usize] = 1.0;
        let [full, common, own] = evidence.rows;
        let logarithm = |x: f64| x.abs().ln_1p().copysign(x) as f32;
        let values = [
            form[0],
            form[1],
            form[2],
            count(full),
            count(common),
            count(own),
            count(evidence.sampled),
            count(evidence.joined),
            count(evidence.table),
            flag(full <= 0.0),
            flag(full < ENOUGH_ROWS),
            share((own + 1.0) / (evidence.joined + 1.0)),
            share((full + 0.5) / (own + 1.0)),
            flag(evidence.relations[0] < evidence.relations[1]),
            evidence.relations[1] as f32 / 5.0,
            evidence.rare as f32 / 5.0,
            logarithm(evidence.shifts[0]),
            logarithm(evidence.shifts[1]),
            logarithm(evidence.shifts[2]),
            share(evidence.spread[0]),
            share(evidence.spread[1]),
            flag(evidence.position.is_some()),
            evidence.position.unwrap_or(0.0) as f32,
            count(evidence.beyond_seen),
            logarithm(evidence.gap),
            flag(evidence.gap <= 0.0),
            share(self.present),
            flag(self.range.0.is_finite() && self.range.1.is_finite()),
        ];
        values.map(|value| if value.is_finite() { value.clamp(-10.0, 10.0) } else { 0.0 })
    }

    /// The residual that gives `answer`; of several the one closest to 0.
    pub fn residual(&self, answer: f64) -> f64 {
        let residual = match &self.form {
            Form::Mean { mean, .. } if (answer - mean).abs() <= 1e-9 * mean.abs() => 0.0,
            Form::Mean { error, .. } if *error <= 0.0 => 0.0,
            Form::Mean { mean, error } => ((answer - mean) / error).asinh(),
            Form::Extreme(tail) => {
                let (strictly, with) = tail.beyond(tail.sign * answer);
                let (least, most) = (strictly.ln() - BEYOND.ln(), with.ln() - BEYOND.ln());
                0f64.max(least).min(most.max(least))
            }
        };
        residual.clamp(-LARGEST_RESIDUAL, LARGEST_RESIDUAL)
    }
}

/// Sampled values under some conditions.
#[derive(Debug, Clone)]
struct View {
    /// What each row counts, 0 for NULL. `[rows]`
    weights: Vec<f64>,
    /// Effective number of rows that count.
    rows: f64,
    mean: f64,
    /// Standard deviation.
    deviation: f64,
    /// Share of the rows that pass whose value is not NULL.
    present: f64,
}

impl View {
    fn new<'f>(sampled: &SampledValues, factors: impl Iterator<Item = &'f Factor>) -> Self {
        let mut weights = sampled.weights(factors);
        let all: f64 = weights.iter().sum();
        let (mut sum, mut of_values) = (0.0, 0.0);
        for (weight, value) in weights.iter_mut().zip(&sampled.values) {
            if value.is_finite() {
                sum += *weight;
                of_values += *weight * value;
            } else {
                *weight = 0.0;
            }
        }
        let mean = if sum > 0.0 { of_values / sum } else { 0.0 };
        let present = |weight: f64| weight > 0.0;
        let squares = weights.iter().zip(&sampled.values).filter(|(weight, _)| present(**weight));
        let squares: f64 = squares.map(|(weight, value)| weight * (value - mean) * (value - mean)).sum();
        Self {
            rows: effective(weights.iter().copied()),
            mean,
            deviation: if sum > 0.0 { (squares / sum).sqrt() } else { 0.0 },
            present: if all > 0.0 { sum / all } else { 1.0 },
            weights,
        }
    }

    /// The aggregate of the rows that count; `None` without any.
    fn exact(&self, values: &[f64], function: AggregateFunction) -> Option<f64> {
        let counted = || self.weights.iter().zip(values).filter(|(weight, _)| **weight > 0.0);
        counted().next()?;
        Some(match function {
            AggregateFunction::Avg => self.mean,
            AggregateFunction::Sum => counted().map(|(weight, value)| weight * value).sum(),
            AggregateFunction::Min => counted().fold(f64::INFINITY, |least, (_, value)| least.min(*value)),
            AggregateFunction::Max => counted().fold(f64::NEG_INFINITY, |most, (_, value)| most.max(*value)),
        })
    }
}

/// The views of sampled values.
struct Views {
    full: View,
    common: View,
    own: View,
    /// Number of conditions that are not common.
    rare: usize,
    /// The mean to be expected of `full` from the effects of each condition.
    expected: f64,
}

impl Views {
    /// `None` where no value is there.
    fn of(sampled: &SampledValues) -> Option<Self> {
        let full = View::new(sampled, sampled.factors.iter());
        let of_value = || sampled.factors.iter().filter(|factor| factor.of_value);
        let own = View::new(sampled, of_value());
        if own.rows <= 0.0 {
            return None;
        }
        let mut others: SmallVec<[(View, &Factor); 8]> = sampled
            .factors
            .iter()
            .filter(|factor| !factor.of_value)
            .map(|factor| (View::new(sampled, of_value().chain([factor])), factor))
            .collect();
        others.sort_by(|(one, _), (other, _)| one.rows.total_cmp(&other.rows));
        let mut rare = 0;
        let common = loop {
            if rare == others.len() {
                break own.clone();
            }
            let rest = others[rare..].iter().map(|(_, factor)| *factor);
            let view = if rare == 0 { full.clone() } else { View::new(sampled, of_value().chain(rest)) };
            if view.rows >= ENOUGH_ROWS {
                break view;
            }
            rare += 1;
        };
        let effect = |(view, _): &(View, &Factor)| (view.mean - own.mean) * view.rows / (view.rows + EFFECT_ROWS);
        let expected = common.mean + others[..rare].iter().filter(|(view, _)| view.rows > 0.0).map(effect).sum::<f64>();
        let present =
            sampled.values.iter().zip(&own.weights).filter(|(_, weight)| **weight > 0.0).map(|(value, _)| *value);
        let (least, most) =
            present.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(v), most.max(v)));
        Some(Self { full, common, own, rare, expected: expected.clamp(least, most) })
    }
}

/// The tail of the values at one end; `sign` is 1 at the largest and -1 at the smallest.
#[derive(Debug, Clone)]
struct Tail {
    sign: f64,
    /// The end of the range, times the sign, and the rows expected there.
    end: f64,
    at_end: f64,
    /// Values times the sign, descending, with the rows expected strictly beyond and at or beyond each.
    steps: Vec<(f64, f64, f64)>,
    /// The extreme of the rows that pass every condition, times the sign; the end opposite where none does.
    seen: f64,
}

impl Tail {
    /// The tail of `rows` rows, of which `at_end` are expected at the `end` of the range.
    fn new(sign: f64, (end, at_end): (f64, f64), rows: f64, values: &[f64], views: &Views) -> Self {
        let weighted = [(&views.full, views.full.rows), (&views.common, TAIL_ROWS[0]), (&views.own, TAIL_ROWS[1])];
        let weighted = weighted.map(|(view, weight)| (view, weight, view.weights.iter().sum::<f64>()));
        let total: f64 = weighted.iter().filter(|(.., sum)| *sum > 0.0).map(|(_, weight, _)| weight).sum();
        let share = |row: usize| -> f64 {
            let of_views = weighted.iter().filter(|(.., sum)| *sum > 0.0);
            of_views.map(|(view, weight, sum)| weight * view.weights[row] / sum).sum::<f64>() / total
        };
        let mut order: Vec<(f64, f64)> = (0..values.len())
            .filter(|row| values[*row].is_finite())
            .map(|row| (sign * values[row], share(row)))
            .collect();
        order.retain(|(_, share)| *share > 0.0);
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        // Of n values one more would be beyond them all once in n + 1 times, the less often the more of them are the same.
        let same = order.iter().take_while(|(value, _)| *value >= order[0].0).count();
        let outside = 1.0 / (views.own.rows + 1.0) / same.max(1) as f64;
        let beyond_end = order.first().is_some_and(|(first, _)| end.is_finite() && *first < end);
        let mut before = if beyond_end { rows * outside } else { 0.0 };
        let at_end = at_end.min(0.5 * before);
        let mut steps: Vec<(f64, f64, f64)> = vec![];
        for (value, share) in order {
            let at = before + rows * (1.0 - outside) * share;
            match steps.last_mut() {
                Some(last) if last.0 <= value => last.2 = at,
                _ => steps.push((value, before, at)),
            }
            before = at;
        }
        let counted = views.full.weights.iter().zip(values).filter(|(weight, _)| **weight > 0.0);
        let seen = counted.fold(f64::NEG_INFINITY, |most, (_, value)| most.max(sign * value));
        let last = steps.last().map_or(end, |step| step.0);
        Self { sign, end, at_end, steps, seen: seen.max(last) }
    }

    /// The value, times the sign, at or beyond which so many rows are expected; never short of what was seen.
    fn at(&self, rows: f64) -> f64 {
        let Some(first) = self.steps.first() else { return self.end };
        let value = if rows < first.1 {
            let share = if rows <= self.at_end { 0.0 } else { (rows - self.at_end) / (first.1 - self.at_end) };
            self.end + (first.0 - self.end) * share
        } else {
            self.steps.iter().find(|step| rows <= step.2).or(self.steps.last()).map_or(self.end, |step| step.0)
        };
        value.max(self.seen)
    }

    /// Rows expected strictly beyond a value, and at or beyond it.
    fn beyond(&self, value: f64) -> (f64, f64) {
        let Some(first) = self.steps.first() else { return (0.0, f64::INFINITY) };
        if value > first.0 {
            if value >= self.end || self.end.is_infinite() {
                return (0.0, self.at_end);
            }
            let rows = self.at_end + (first.1 - self.at_end) * (self.end - value) / (self.end - first.0);
            return (rows, rows);
        }
        let after = self.steps.partition_point(|step| step.0 >= value);
        let step = self.steps[after - 1];
        if step.0 > value { (step.2, step.2) } else { (step.1, step.2) }
    }
}
