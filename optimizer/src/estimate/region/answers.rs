//! Aggregates over the rows of a region: the sample's answer, corrected by the answer head.

use relata_experts::AnswerHead;
use relata_featurize::analytical::ValueExpr;
use relata_featurize::answer::{AggregateFunction, AnswerEstimate, AnswerForm, estimate_answer};
use relata_featurize::join_graph::RelationSet;

use super::Region;
use crate::counters::count;
use crate::estimate::{Estimate, Origin};

/// The residuals of both ends of an interval where there is no head: 5% and 95% of a normal distribution for a mean, a
/// factor of 20 of the rows expected beyond for an extreme.
const UNTRAINED: [(AnswerForm, f64); AnswerForm::COUNT] =
    [(AnswerForm::Mean, 1.27), (AnswerForm::Smallest, 3.0), (AnswerForm::Largest, 3.0)];

/// An aggregate with a 90% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answer {
    /// The aggregate; `None` where it is known that no value enters it.
    pub(crate) value: Option<f64>,
    /// 5% quantile.
    pub(crate) lower: f64,
    /// 95% quantile.
    pub(crate) upper: f64,
    /// Where they come from.
    pub(crate) origin: Origin,
}

impl Answer {
    /// A number of rows.
    pub(crate) fn of_rows(rows: Estimate) -> Self {
        Self { value: Some(rows.rows), lower: rows.lower, upper: rows.upper, origin: rows.origin }
    }
}

impl Region<'_> {
    /// An aggregate of `value` over the rows of `set`; `None` where no sample has the values, or they are no numbers.
    pub(crate) fn answer(
        &mut self,
        set: RelationSet,
        function: AggregateFunction,
        value: &ValueExpr,
        head: Option<&AnswerHead>,
    ) -> Option<Answer> {
        let input = self.visit(set);
        let estimate = estimate_answer(&self.estimator, set, input.analytical.rows, function, value)?;
        if let Some(exact) = estimate.exact {
            let number = exact.unwrap_or(0.0);
            return Some(Answer { value: exact, lower: number, upper: number, origin: Origin::Exact });
        }
        let state = input.state.as_ref().map(|(state, _)| state.as_slice());
        let residuals = head.zip(state).and_then(|(head, state)| self.residuals(head, state, &estimate, value));
        let origin = if residuals.is_some() { Origin::Expert } else { Origin::Analytical };
        let [lower, median, upper] = residuals.unwrap_or_else(|| {
            let reach = UNTRAINED.iter().find(|(form, _)| *form == estimate.form()).map_or(3.0, |(_, reach)| *reach);
            [-reach, 0.0, reach]
        });
        let (low, middle, high) = (estimate.at(lower), estimate.at(median), estimate.at(upper));
        let (low, high) = (low.min(high), low.max(high));
        Some(if function == AggregateFunction::Sum {
            let values = input.estimate.map(|rows| rows * estimate.present);
            let (lower, upper) = product([low, middle, high], [values.lower, values.rows, values.upper]);
            Answer { value: Some(middle * values.rows), lower, upper, origin }
        } else {
            Answer { value: Some(middle), lower: low.min(middle), upper: high.max(middle), origin }
        })
    }

    /// What the head says of an answer: its residual's quantiles.
    fn residuals(
        &self,
        head: &AnswerHead,
        state: &[f32],
        estimate: &AnswerEstimate,
        value: &ValueExpr,
    ) -> Option<[f64; 3]> {
        let experts = self.experts?;
        let embeddings: Option<Vec<&[f32]>> = value
            .columns()
            .map(|(relation, column)| self.tables[relation].as_ref()?.embedding(experts)?.column(column))
            .collect();
        let input = AnswerHead::input(head.config(), state, embeddings?.into_iter(), &estimate.features());
        let quantiles = head.residual(estimate.form(), &input);
        let quantiles = quantiles.map_err(|_| count(&self.owner.counters.expert_failures)).ok()?;
        Some([quantiles.lower, quantiles.median, quantiles.upper].map(f64::from))
    }
}

/// The interval of a product of independent factors, each given by its quantiles; the second is positive.
fn product([low, middle, high]: [f64; 3], [fewest, rows, most]: [f64; 3]) -> (f64, f64) {
    // Deviations add in squares: of the one factor as it is, of the other in proportion to the first.
    let reach = |of_mean: f64, of_rows: f64| (of_mean * rows).hypot(middle * of_rows);
    let value = middle * rows;
    let (fewer, more) = (rows - fewest, most - rows);
    let (below, above) = if middle >= 0.0 { (fewer, more) } else { (more, fewer) };
    (value - reach(middle - low, below), value + reach(high - middle, above))
}
