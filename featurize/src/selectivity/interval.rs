//! Conjuncts that bound one column from both sides, as the simplifier leaves a BETWEEN, count as one range.

use std::cmp::Ordering;

use datafusion::common::tree_node::TreeNode;
use datafusion_expr::Expr;
use smallvec::{SmallVec, smallvec};

use super::PredicateKind;
use super::sketched::{Limit, Sketched, tighter};
use crate::profile::TableProfile;
use crate::sketch::{Domain, Value};

/// Conjuncts that are estimated as one.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// Their indices.
    pub(super) members: SmallVec<[usize; 2]>,
    /// Their joint selectivity by the sketches, where these know it.
    pub(super) sketch: Option<f64>,
    range: Option<(Option<Limit>, Option<Limit>)>,
}

/// One group per column that is bounded by ranges, one per other conjunct.
pub(super) fn groups(conjuncts: &[Sketched], profile: &TableProfile) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(conjuncts.len());
    for (index, conjunct) in conjuncts.iter().enumerate() {
        let same_column = |group: &&mut Group| {
            group.range.is_some()
                && conjuncts[group.members[0]].columns == conjunct.columns
                && conjunct.columns.len() == 1
        };
        match (&conjunct.range, groups.iter_mut().find(same_column)) {
            (Some((low, high)), Some(group)) => {
                group.members.push(index);
                let (old_low, old_high) = group.range.take().unwrap_or_default();
                let low = tighter(old_low, low.clone(), Ordering::Greater);
                let high = tighter(old_high, high.clone(), Ordering::Less);
                group.sketch = Some(share(profile, conjunct.columns[0], low.as_ref(), high.as_ref()));
                group.range = Some((low, high));
            }
            _ => groups.push(Group {
                members: smallvec![index],
                sketch: conjunct.selectivity,
                range: conjunct.range.clone(),
            }),
        }
    }
    groups
}

/// Share of the rows between two limits by the histogram; limits that exclude each other leave nothing.
fn share(profile: &TableProfile, column: usize, low: Option<&Limit>, high: Option<&Limit>) -> f64 {
    let sketch = &profile.columns[column];
    let above = low.map_or(0.0, |low| sketch.below(&low.value, !low.inclusive));
    let up_to = high.map_or(1.0 - sketch.null_share(), |high| sketch.below(&high.value, high.inclusive));
    (up_to - above).max(0.0)
}

/// The smallest and the largest number of a column that can pass these filters; provable, infinite where nothing bounds it.
pub(crate) fn number_limits(profile: &TableProfile, filters: &[Expr], column: usize) -> (f64, f64) {
    let sketch = &profile.columns[column];
    let counted = sketch.number_range().filter(|_| sketch.non_finite <= 0.0);
    let (mut least, mut most) = counted.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
    let step = if sketch.domain == Domain::Integer { 1.0 } else { 0.0 };
    for filter in filters {
        let conjunct = Sketched::of(filter, profile);
        // A cast may pass other values.
        let casts = filter.exists(|expr| Ok(matches!(expr, Expr::Cast(_) | Expr::TryCast(_)))).unwrap_or(true);
        if conjunct.columns != [column] || casts {
            continue;
        }
        let number = |value: &Value| match value {
            Value::Number(number) => Some(*number),
            Value::Text(_) => None,
        };
        let end = |limit: &Option<Limit>, inwards: f64| {
            let limit = limit.as_ref()?;
            Some(number(&limit.value)? + if limit.inclusive { 0.0 } else { inwards })
        };
        let of_list = conjunct.kind == PredicateKind::Equal
            || (conjunct.kind == PredicateKind::InList && conjunct.bound.is_some());
        if let Some((low, high)) = &conjunct.range {
            least = end(low, step).map_or(least, |low| least.max(low));
            most = end(high, -step).map_or(most, |high| most.min(high));
        } else if of_list && !conjunct.literals.is_empty() {
            let literals = || conjunct.literals.iter().filter_map(number);
            least = least.max(literals().fold(f64::INFINITY, f64::min));
            most = most.min(literals().fold(f64::NEG_INFINITY, f64::max));
        }
    }
    (least, most)
}
