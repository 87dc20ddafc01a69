//! Filters on the keys of a join: one that holds for a key on both sides is one filter, not two.
//!
//! `a.k = b.k AND a.k IN (1, 2) AND b.k IN (1, 2)` keeps the keys 1 and 2 of both tables, and all pairs of rows with one of them
//! are still pairs. Planners add the second condition by themselves. Among filtered rows the share of the pairs that match
//! is therefore one in the number of keys that are left, not of all keys.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion_expr::Expr;
use smallvec::SmallVec;

use super::JoinEstimator;
use crate::join_graph::KeyMember;
use crate::selectivity::{PredicateKind, estimate_filters};

/// Sampled keys that pass from which on their share is believed.
const ENOUGH_KEYS: usize = 8;

/// The keys of one table that pass a filter which the keys of another one have to pass as well.
#[derive(Debug)]
pub(super) struct KeyFilter {
    /// Number of keys that pass.
    pub(super) distinct: f64,
    /// Rows of each sampled key, 0 where it does not pass. `[keys]`
    pub(super) counts: Option<Vec<f64>>,
}

impl JoinEstimator<'_> {
    /// The filters on keys that several members of a class share, by class and member.
    pub(super) fn find_key_filters(&self) -> Vec<Vec<Option<KeyFilter>>> {
        let classes = self.graph.classes.iter();
        classes
            .map(|class| {
                let filters: Vec<SmallVec<[(usize, String); 2]>> =
                    class.members.iter().map(|member| self.filters_of_key(member)).collect();
                let is_shared = |own: usize, text: &String| {
                    let others = filters.iter().enumerate().filter(|(other, _)| *other != own);
                    others.flat_map(|(_, filters)| filters).any(|(_, other)| other == text)
                };
                let members = class.members.iter().enumerate();
                members
                    .map(|(place, member)| {
                        let own = &filters[place];
                        let shared = own.iter().any(|(_, text)| is_shared(place, text));
                        if shared { self.key_filter(member, own) } else { None }
                    })
                    .collect()
            })
            .collect()
    }

    /// The filters of a relation that read nothing but its key, and what they say of it in words.
    fn filters_of_key(&self, member: &KeyMember) -> SmallVec<[(usize, String); 2]> {
        let relation = &self.relations[member.relation];
        let Some((filter, column)) = relation.filter.as_ref().zip(member.column) else { return SmallVec::new() };
        let filters = self.graph.relations[member.relation].table_filters.iter().zip(&filter.predicates).enumerate();
        filters
            .filter(|(_, (_, predicate))| predicate.columns == [column])
            .map(|(place, (expr, _))| (place, of_any_key(expr)))
            .collect()
    }

    fn key_filter(&self, member: &KeyMember, filters: &[(usize, String)]) -> Option<KeyFilter> {
        let relation = &self.relations[member.relation];
        let (profile, filter) = relation.profile.as_ref().zip(relation.filter.as_ref())?;
        let all = &self.graph.relations[member.relation].table_filters;
        let of_key: Vec<Expr> = filters.iter().filter_map(|(place, _)| all.get(*place).cloned()).collect();
        let alone = (of_key.len() < all.len()).then(|| estimate_filters(profile, &of_key));
        let of_key = alone.as_ref().unwrap_or(filter);
        let counts = self.key_sample(member).filter(|_| of_key.runs()).map(|sample| of_key.passing(sample));
        let passing = counts.as_ref().map_or(0, |counts| counts.iter().filter(|rows| **rows > 0.0).count());
        let sketch = profile.columns.get(member.column?)?;
        let share = match &counts {
            Some(counts) if passing >= ENOUGH_KEYS => passing as f64 / counts.len() as f64,
            _ => of_key.rows / (sketch.rows - sketch.nulls).max(1.0),
        };
        // So many keys were named at most.
        let named = of_key.predicates.iter().filter_map(|predicate| match predicate.kind {
            PredicateKind::Equal => Some(1.0),
            PredicateKind::InList => Some(predicate.literal_count as f64),
            _ => None,
        });
        Some(KeyFilter { distinct: named.fold(sketch.distinct() * share, f64::min).max(1.0), counts })
    }
}

/// A filter on a key in words that are the same whatever the key is called.
fn of_any_key(filter: &Expr) -> String {
    let renamed = filter.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(_) => Transformed::yes(Expr::Column(Column::new_unqualified("key"))),
            other => Transformed::no(other),
        })
    });
    renamed.map_or_else(|_| filter.to_string(), |renamed| renamed.data.to_string())
}
