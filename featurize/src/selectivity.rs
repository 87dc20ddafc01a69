//! How many rows of a base table pass its filters.
//!
//! Three sources, in this order: the filters run on the row sample with DataFusion's own physical expressions (so LIKE, OR,
//! functions and correlated columns just work); where few sampled rows match, the sketches answer for the rarest
//! conjuncts; the posterior mean of a Gamma prior at the sketches' answer joins both. A table that fits in the sample is
//! answered exactly.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{and, prep_null_mask_filter};
use datafusion::common::DFSchema;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, Operator};

use crate::key_sample::KeySample;
use crate::profile::TableProfile;
use crate::sketch::Value;

mod contradiction;
mod interval;
mod sketched;

use contradiction::contradictory;
pub(crate) use interval::number_limits;
pub use sketched::PredicateKind;
use sketched::Sketched;

/// What is known of one conjunct.
#[derive(Debug, Clone)]
pub struct PredicateEstimate {
    /// Its form.
    pub kind: PredicateKind,
    /// Columns of the table that it reads, ascending.
    pub columns: Vec<usize>,
    /// Its smallest and largest literal in the relative encoding of the column, where it compares one column.
    pub literals: Option<(f32, f32)>,
    /// Number of literals.
    pub literal_count: usize,
    /// Selectivity by the sketches, where they know the form.
    pub sketch: Option<f64>,
    /// Matching rows of the sample; `None` where the conjunct could not run on it.
    pub matches: Option<usize>,
    /// Selectivity from both.
    pub selectivity: f64,
}

/// What is known of the filters of one base table.
#[derive(Debug, Clone)]
pub struct FilterEstimate {
    /// Rows of the table.
    pub base_rows: f64,
    /// Rows that pass.
    pub rows: f64,
    /// Rows that can pass at most; provable.
    pub bound: f64,
    /// Whether `rows` is exact: the sample is the table, or the conjuncts contradict each other.
    pub exact: bool,
    /// Product of the conjuncts' selectivities.
    pub independent: f64,
    /// Selectivity by the sketches for the rare conjuncts and the sample for the others.
    pub prior: f64,
    /// Rows of the sample.
    pub sample_rows: usize,
    /// Rows of the sample that pass every conjunct that could run.
    pub matches: usize,
    /// The conjuncts.
    pub predicates: Vec<PredicateEstimate>,
    /// Which rows of the sample pass; `None` without filters.
    pub mask: Option<BooleanArray>,
    /// The conjuncts that could run.
    running: Vec<Arc<dyn PhysicalExpr>>,
}

impl FilterEstimate {
    /// The same estimate without its bound.
    #[must_use]
    pub fn unbounded(self) -> Self {
        Self { bound: f64::INFINITY, ..self }
    }

    /// Whether every conjunct can run on rows.
    pub(crate) fn runs(&self) -> bool {
        self.running.len() == self.predicates.len()
    }

    /// Which of some rows of the table pass the conjuncts that can run; `None` where all do. `[rows]`
    pub(crate) fn mask_of(&self, rows: &RecordBatch) -> Option<BooleanArray> {
        let masks: Vec<Option<BooleanArray>> = self.running.iter().map(|expr| evaluate(expr, rows)).collect();
        conjunction(masks.iter().map(Option::as_ref))
    }

    /// Which of some rows of the table pass each conjunct that can run, with the columns it reads.
    pub(crate) fn masks_of(&self, rows: &RecordBatch) -> Vec<(&[usize], BooleanArray)> {
        let running = self.predicates.iter().filter(|predicate| predicate.matches.is_some()).zip(&self.running);
        running.filter_map(|(predicate, expr)| Some((predicate.columns.as_slice(), evaluate(expr, rows)?))).collect()
    }

    /// Rows of each key of a sample of the same table that pass the conjuncts that can run. `[keys]`
    pub fn passing(&self, sample: &KeySample) -> Vec<f64> {
        match (&self.mask, &sample.own) {
            (None, _) => sample.counts.clone(),
            (Some(mask), None) => sample.passing(mask),
            (Some(_), Some(own)) => {
                self.mask_of(own).map_or_else(|| sample.counts.clone(), |mask| sample.passing(&mask))
            }
        }
    }
}

/// Matches in the sample from which on the sample speaks alone for the common conjuncts.
const ENOUGH_MATCHES: usize = 24;

/// Weight of the sketches against the sample for conjuncts over one column, in matching rows: the shape of the Gamma
/// distribution. Histograms and common values are counted over the whole table.
const ONE_COLUMN_SHAPE: f64 = 5.0;

/// The same for conjunctions over several columns, whose prior supposes how they are correlated.
const SEVERAL_COLUMNS_SHAPE: f64 = 0.6;

/// Estimates the conjunction of `filters`, whose columns are those of the profiled table, unqualified.
pub fn estimate_filters(profile: &TableProfile, filters: &[Expr]) -> FilterEstimate {
    let sample_rows = profile.sample.num_rows();
    let schema = DFSchema::try_from(profile.schema()).ok();
    let mut masks = Vec::with_capacity(filters.len());
    let mut predicates = Vec::with_capacity(filters.len());
    let mut sketched = Vec::with_capacity(filters.len());
    let mut running = Vec::with_capacity(filters.len());
    for filter in filters {
        let expr = schema.as_ref().and_then(|schema| physical(filter, schema));
        let mask = expr.as_ref().and_then(|expr| evaluate(expr, &profile.sample));
        running.extend(expr.filter(|_| mask.is_some()));
        let matches = mask.as_ref().map(BooleanArray::true_count);
        let from_sketch = Sketched::of(filter, profile);
        let selectivity = combined(from_sketch.selectivity, matches, sample_rows);
        predicates.push(PredicateEstimate {
            kind: from_sketch.kind,
            columns: from_sketch.columns.clone(),
            literals: from_sketch.relative_literals(profile),
            literal_count: from_sketch.literals.len(),
            sketch: from_sketch.selectivity,
            matches,
            selectivity,
        });
        sketched.push(from_sketch);
        masks.push(mask);
    }

    let base_rows = profile.rows;
    let none = contradictory(filters);
    let mut bound = if none { 0.0 } else { base_rows };
    for one in &sketched {
        bound = bound.min(one.bound.unwrap_or(base_rows));
    }
    let independent: f64 = predicates.iter().map(|p| p.selectivity).product();
    let mask = conjunction(masks.iter().map(Option::as_ref));
    let matches = mask.as_ref().map_or(sample_rows, BooleanArray::true_count);
    let every_conjunct_ran = masks.iter().all(Option::is_some);
    let exact = none || (profile.is_complete() && every_conjunct_ran);
    let Prior { selectivity: prior, shape, cap } = prior(profile, &sketched, &masks);
    let selectivity = if filters.is_empty() {
        1.0
    } else if exact {
        matches as f64 / base_rows.max(1.0)
    } else if every_conjunct_ran {
        posterior(prior, shape, matches, sample_rows)
    } else {
        // Some conjunct could not run: the sample speaks for the others only.
        let silent: f64 = predicates.iter().filter(|p| p.matches.is_none()).map(|p| p.selectivity).product();
        posterior(prior / silent.max(1e-12), shape, matches, sample_rows) * silent
    };
    let rows = (base_rows * if exact { selectivity } else { selectivity.min(cap) }).min(bound);
    FilterEstimate {
        base_rows,
        rows,
        bound,
        exact,
        independent,
        prior,
        sample_rows,
        matches,
        predicates,
        mask,
        running,
    }
}

/// Selectivity of a conjunct nothing is known about, DataFusion's own default.
const DEFAULT_SELECTIVITY: f64 = 0.2;

/// Mean of the posterior of a Poisson rate after `matches` in `rows`, under a Gamma prior with mean `prior`.
fn posterior(prior: f64, shape: f64, matches: usize, rows: usize) -> f64 {
    if prior <= 0.0 {
        return if rows == 0 { 0.0 } else { matches as f64 / rows as f64 };
    }
    ((shape + matches as f64) / (shape / prior + rows as f64)).min(1.0)
}

/// Plans a filter; `None` when DataFusion cannot.
pub(crate) fn physical(filter: &Expr, schema: &DFSchema) -> Option<Arc<dyn PhysicalExpr>> {
    create_physical_expr(filter, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default()).ok()
}

/// Runs a filter on sampled rows; `None` when it fails.
fn evaluate(filter: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Option<BooleanArray> {
    let array = filter.evaluate(rows).ok()?.into_array(rows.num_rows()).ok()?;
    let mask = array.as_boolean_opt()?;
    Some(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
}

/// Rows that pass every mask; `None` without masks.
fn conjunction<'a>(masks: impl Iterator<Item = Option<&'a BooleanArray>>) -> Option<BooleanArray> {
    masks.flatten().fold(None, |all, mask| match all {
        None => Some(mask.clone()),
        Some(so_far) => and(&so_far, mask).ok(),
    })
}

/// The joint selectivity before the sample's word on the whole conjunction.
struct Prior {
    selectivity: f64,
    /// Its weight against the sample.
    shape: f64,
    /// The smallest selectivity of any conjunct alone, which the conjunction cannot exceed.
    cap: f64,
}

/// The joint selectivity before the sample's word on the whole conjunction: the sample's on its common conjuncts, the
/// sketches' on the rare ones, which are left out of the sample one by one until enough rows match the rest.
fn prior(profile: &TableProfile, sketched: &[Sketched], masks: &[Option<BooleanArray>]) -> Prior {
    let rows = profile.sample.num_rows();
    let mut cap = 1.0f64;
    let mut groups: Vec<(f64, Option<BooleanArray>)> = interval::groups(sketched, profile)
        .into_iter()
        .map(|group| {
            let mask = conjunction(group.members.iter().map(|&i| masks[i].as_ref()));
            let matches = mask.as_ref().map(BooleanArray::true_count);
            cap = cap.min(combined(group.sketch, matches, rows));
            let unseen = || combined(None, matches, rows);
            (group.sketch.unwrap_or_else(unseen), mask)
        })
        .collect();
    groups.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let [one] = &groups[..] {
        return Prior { selectivity: one.0, shape: ONE_COLUMN_SHAPE, cap };
    }
    let mut rare = 0;
    let common = loop {
        if rare == groups.len() || rows == 0 {
            break 1.0;
        }
        let rest = conjunction(groups[rare..].iter().map(|group| group.1.as_ref()));
        let matches = rest.map_or(rows, |mask| mask.true_count());
        if matches >= ENOUGH_MATCHES {
            break matches as f64 / rows as f64;
        }
        rare += 1;
    };
    let mut factors: Vec<f64> = groups[..rare].iter().map(|group| group.0).chain([common]).collect();
    factors.sort_by(f64::total_cmp);
    // Conjuncts of one query tend to be correlated: the rarest counts in full, the others less and less.
    let mut weight = 1.0;
    let mut selectivity = 1.0;
    for factor in factors {
        selectivity *= factor.powf(weight);
        weight *= 0.75;
    }
    Prior { selectivity, shape: SEVERAL_COLUMNS_SHAPE, cap }
}

/// Selectivity of one conjunct from the sketches and the sample.
fn combined(sketch: Option<f64>, matches: Option<usize>, rows: usize) -> f64 {
    match (sketch, matches) {
        (Some(prior), Some(matches)) => posterior(prior, ONE_COLUMN_SHAPE, matches, rows),
        (Some(prior), None) => prior,
        (None, Some(matches)) => (matches as f64 + 0.5) / (rows as f64 + 1.0),
        (None, None) => DEFAULT_SELECTIVITY,
    }
}

/// A literal in the relative encoding of its column: min-max for numbers, rank for text; slightly outside [0, 1] where the
/// literal is outside the column's range.
pub(crate) fn relative_literal(profile: &TableProfile, column: usize, value: &Value) -> f32 {
    let sketch = &profile.columns[column];
    match (value, &sketch.min, &sketch.max) {
        (Value::Number(v), Some(Value::Number(min)), Some(Value::Number(max))) if max > min => {
            (((v - min) / (max - min)).clamp(-0.25, 1.25)) as f32
        }
        _ => sketch.histogram.share_up_to(value) as f32,
    }
}

/// The comparison with its sides swapped.
fn mirrored(op: Operator) -> Operator {
    op.swap().unwrap_or(op)
}
