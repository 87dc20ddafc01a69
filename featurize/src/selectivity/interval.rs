//! Conjuncts that say which values one column can have count as one: both ends of a range, as the simplifier leaves a BETWEEN,
//! and lists of values, which a join may bring from the other side. `k = 3 AND k IN (3, 5)` is `k = 3`.

use std::cmp::Ordering;

use datafusion::common::tree_node::TreeNode;
use datafusion_expr::Expr;
use smallvec::{SmallVec, smallvec};

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
    /// What they leave of the column, where they are of one.
    left: Option<Left>,
}

/// The values that are left of a column.
#[derive(Debug, Clone, Default)]
struct Left {
    low: Option<Limit>,
    high: Option<Limit>,
    /// The values that it is compared with.
    values: Option<Vec<Value>>,
}

impl Left {
    fn of(conjunct: &Sketched) -> Option<Self> {
        if conjunct.columns.len() != 1 {
            return None;
        }
        let (low, high) = conjunct.range.clone().unwrap_or_default();
        let values = conjunct.is_list().then(|| conjunct.literals.clone());
        (low.is_some() || high.is_some() || values.is_some()).then_some(Self { low, high, values })
    }

    /// What both leave.
    fn and(self, other: Self) -> Self {
        let values = match (self.values, other.values) {
            (Some(mut one), Some(other)) => {
                one.retain(|value| other.iter().any(|kept| kept.order(value).is_eq()));
                Some(one)
            }
            (one, other) => one.or(other),
        };
        Self {
            low: tighter(self.low, other.low, Ordering::Greater),
            high: tighter(self.high, other.high, Ordering::Less),
            values,
        }
    }

    /// Share of the rows by the sketches; limits that exclude each other leave nothing.
    fn share(&self, profile: &TableProfile, column: usize) -> f64 {
        let Some(values) = &self.values else { return share(profile, column, self.low.as_ref(), self.high.as_ref()) };
        let beyond = |value: &Value, limit: &Option<Limit>, side: Ordering| {
            limit.as_ref().is_some_and(|limit| match value.order(&limit.value) {
                Ordering::Equal => !limit.inclusive,
                order => order == side,
            })
        };
        let within = values
            .iter()
            .filter(|value| !beyond(value, &self.low, Ordering::Less) && !beyond(value, &self.high, Ordering::Greater));
        within.map(|value| profile.columns[column].equality(value)).sum::<f64>().min(1.0)
    }
}

/// One group per column of which conjuncts say what is left, one per other conjunct.
pub(super) fn groups(conjuncts: &[Sketched], profile: &TableProfile) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(conjuncts.len());
    for (index, conjunct) in conjuncts.iter().enumerate() {
        let own = Left::of(conjunct);
        let same_column =
            |group: &&mut Group| group.left.is_some() && conjuncts[group.members[0]].columns == conjunct.columns;
        match (own, groups.iter_mut().find(same_column)) {
            (Some(own), Some(group)) => {
                group.members.push(index);
                let left = group.left.take().unwrap_or_default().and(own);
                group.sketch = Some(left.share(profile, conjunct.columns[0]));
                group.left = Some(left);
            }
            (left, _) => groups.push(Group { members: smallvec![index], sketch: conjunct.selectivity, left }),
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
        if let Some((low, high)) = &conjunct.range {
            least = end(low, step).map_or(least, |low| least.max(low));
            most = end(high, -step).map_or(most, |high| most.min(high));
        } else if conjunct.is_list() && !conjunct.literals.is_empty() {
            let literals = || conjunct.literals.iter().filter_map(number);
            least = least.max(literals().fold(f64::INFINITY, f64::min));
            most = most.min(literals().fold(f64::NEG_INFINITY, f64::max));
        }
    }
    (least, most)
}
