//! The exact number of rows of an outer, semi or anti join.

use datafusion::arrow::array::{BooleanArray, BooleanBufferBuilder};
use datafusion::common::JoinType;
use relata_featurize::join_graph::RelationSet;

use super::{Counter, Edge, KeyCodes, Relation};
use crate::planned::OuterJoin;

/// Rows of `join`, whose sides are inner joins of `relations` and whose keys are among `edges`. `None` where a side
/// cannot be counted.
pub fn count_outer(relations: &[Relation], edges: &[Edge], keys: &mut KeyCodes, join: &OuterJoin) -> Option<f64> {
    let (left, right) = (join.left, join.right);
    let mut count = |set: RelationSet| Counter::new(relations, &within(edges, set), keys).count(set.0);
    let (all_left, all_right) = (count(left)?, count(right)?);
    let inner = Counter::new(relations, edges, keys).count(left.union(right).0)?;
    let mut matched = |side, other| {
        let holder = if side == left { join.left_key } else { join.right_key };
        count_matched(relations, edges, keys, side, holder, other)
    };
    Some(match join.join_type {
        JoinType::Inner => inner,
        JoinType::LeftSemi => matched(left, right)?,
        JoinType::RightSemi => matched(right, left)?,
        JoinType::LeftAnti => all_left - matched(left, right)?,
        JoinType::RightAnti => all_right - matched(right, left)?,
        JoinType::Left => inner + all_left - matched(left, right)?,
        JoinType::Right => inner + all_right - matched(right, left)?,
        JoinType::Full => inner + all_left - matched(left, right)? + all_right - matched(right, left)?,
        JoinType::LeftMark => all_left,
        JoinType::RightMark => all_right,
    })
}

/// Rows of the join of `side` that have a match in the join of `other`: a semi-join reduction of `holder`, the relation
/// that holds the keys.
fn count_matched(
    relations: &[Relation],
    edges: &[Edge],
    keys: &mut KeyCodes,
    side: RelationSet,
    holder: usize,
    other: RelationSet,
) -> Option<f64> {
    let joined = other.union(RelationSet::single(holder));
    let (rows, weights) = Counter::new(relations, &within(edges, joined), keys).occurrences(joined.0, holder)?;
    let batch = &relations[holder].batch;
    let mut mask = BooleanBufferBuilder::new(batch.num_rows());
    mask.append_n(batch.num_rows(), false);
    for (row, weight) in rows.iter().zip(weights.iter()) {
        mask.set_bit(*row as usize, *weight > 0.0);
    }
    let mut reduced = relations.to_vec();
    reduced[holder].mask = Some(BooleanArray::new(mask.finish(), None));
    Counter::new(&reduced, &within(edges, side), keys).count(side.0)
}

fn within(edges: &[Edge], set: RelationSet) -> Vec<Edge> {
    edges.iter().filter(|edge| set.contains(edge.left) && set.contains(edge.right)).cloned().collect()
}
