//! Provable upper bounds of the rows of joined relations.
//!
//! A join has at most the rows of one relation times, for every other one in an order in which each shares a key with those
//! before it, the rows of its most frequent key; for the first two, the degree sequences of their key joined rank by rank
//! instead. Every relation is tried as the first. Simple forms of the bounds of Deeds, Suciu, Balazinska ("SafeBound", SIGMOD
//! 2023): what is known of a key under filters is the rows that pass them, and, of a table that is complete in its sample,
//! everything. Nothing here believes a declared key.

use std::collections::HashMap;

use datafusion::arrow::datatypes::DataType;
use datafusion_expr::Expr;
use smallvec::SmallVec;

use crate::join_graph::RelationSet;
use crate::sketch::{DegreeSequence, Domain};

/// Relations beyond which a set is bounded along its decomposition only.
const MOST_RELATIONS: usize = 20;

/// One key of one relation.
#[derive(Debug)]
pub(crate) struct BoundedKey<'a> {
    /// The relation.
    pub(crate) relation: usize,
    /// Rows of its most frequent value at most.
    pub(crate) max: f64,
    /// Its degree sequence, where that is known.
    pub(crate) sequence: Option<&'a DegreeSequence>,
}

/// The bounds of the sets of one join graph.
#[derive(Debug, Default)]
pub(crate) struct JoinBounds {
    /// Rows of each relation at most.
    rows: Vec<f64>,
    /// Relation and largest degree of the keys of each class.
    classes: Vec<Vec<(usize, f64)>>,
    /// Rows of two relations joined, the smaller index first.
    pairs: HashMap<[usize; 2], f64>,
}

impl JoinBounds {
    /// Bounds from the rows of each relation and the keys of each class.
    pub(crate) fn new(rows: Vec<f64>, classes: &[Vec<BoundedKey<'_>>]) -> Self {
        let mut pairs: HashMap<[usize; 2], f64> = HashMap::new();
        if rows.len() <= MOST_RELATIONS {
            for class in classes {
                for (place, one) in class.iter().enumerate() {
                    for other in class[place + 1..].iter().filter(|other| other.relation != one.relation) {
                        let (Some(a), Some(b)) = (one.sequence, other.sequence) else { continue };
                        let bound = a.join_bound(rows[one.relation], b, rows[other.relation]);
                        let pair = [one.relation.min(other.relation), one.relation.max(other.relation)];
                        pairs.entry(pair).and_modify(|known| *known = known.min(bound)).or_insert(bound);
                    }
                }
            }
        }
        let max = |class: &Vec<BoundedKey<'_>>| class.iter().map(|key| (key.relation, key.max)).collect();
        Self { rows, classes: classes.iter().map(max).collect(), pairs }
    }

    /// Rows of `set` at most.
    pub(crate) fn set(&self, set: RelationSet) -> f64 {
        if self.rows.len() > MOST_RELATIONS {
            return f64::INFINITY;
        }
        set.iter().map(|first| self.from(first, set)).fold(f64::INFINITY, f64::min)
    }

    /// The bound that begins with `first` and goes on with the relation that multiplies the rows least.
    fn from(&self, first: usize, set: RelationSet) -> f64 {
        let mut bound = self.rows[first];
        let mut left: SmallVec<[(usize, f64); 16]> =
            set.iter().filter(|relation| *relation != first).map(|relation| (relation, self.rows[relation])).collect();
        let mut last = first;
        while !left.is_empty() && bound > 0.0 {
            // What the relation added last offers the others.
            for class in self.classes.iter().filter(|class| class.iter().any(|(relation, _)| *relation == last)) {
                for (relation, factor) in &mut left {
                    for (_, max) in class.iter().filter(|(member, _)| member == relation) {
                        *factor = factor.min(*max);
                    }
                }
            }
            let factor =
                |relation: usize, factor: f64| match self.pairs.get(&[first.min(relation), first.max(relation)]) {
                    Some(pair) if last == first => factor.min(pair / bound),
                    _ => factor,
                };
            let least = left
                .iter()
                .map(|&(relation, own)| factor(relation, own))
                .enumerate()
                .min_by(|a, b| a.1.total_cmp(&b.1));
            let Some((place, least)) = least else { break };
            bound *= least;
            last = left.remove(place).0;
        }
        bound
    }

    /// How many times the rows of `set` its join with `relation` has at most.
    pub(crate) fn factor(&self, set: RelationSet, relation: usize) -> f64 {
        let joined = self.classes.iter().filter(|class| class.iter().any(|(member, _)| set.contains(*member)));
        let own = joined.flatten().filter(|(member, _)| *member == relation).map(|(_, max)| *max);
        own.fold(self.rows[relation], f64::min)
    }
}

/// Integers up to this size are all 64-bit floats.
const EXACT_FLOATS: f64 = (1u64 << 53) as f64;

/// The domain of a key over a column of `domain` and `range`, where different values of the column are different keys; `None`
/// where a cast may make them equal, as that of a fraction to an integer or of a time to a date.
pub(crate) fn keeps_values(key: &Expr, domain: Domain, range: Option<(f64, f64)>) -> Option<Domain> {
    let (inner, target) = match key {
        Expr::Column(_) => return Some(domain),
        Expr::Alias(alias) => return keeps_values(&alias.expr, domain, range),
        Expr::Cast(cast) => (&cast.expr, &cast.field),
        Expr::TryCast(cast) => (&cast.expr, &cast.field),
        _ => return None,
    };
    let exact = target.data_type() == &DataType::Float64
        && range.is_none_or(|(low, high)| low.abs().max(high.abs()) <= EXACT_FLOATS);
    match (keeps_values(inner, domain, range)?, Domain::of(target.data_type())) {
        (Domain::Integer | Domain::Boolean, Domain::Float) if exact => Some(Domain::Float),
        (Domain::Integer | Domain::Boolean, Domain::Integer) => Some(Domain::Integer),
        (Domain::Integer | Domain::Boolean | Domain::Text, Domain::Text) => Some(Domain::Text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::TimeUnit;
    use datafusion_expr::{cast, col, try_cast};

    use super::*;

    #[test]
    fn casts_that_make_values_equal_are_known() {
        let key = |target| cast(col("k"), target);
        let keeps = |key: &Expr, domain| keeps_values(key, domain, Some((-5.0, 1e6)));
        let float = key(DataType::Float64);
        assert_eq!(keeps(&float, Domain::Integer), Some(Domain::Float));
        assert_eq!(keeps_values(&float, Domain::Integer, Some((0.0, 1e17))), None, "large integers are rounded");
        assert_eq!(keeps(&col("k"), Domain::Time), Some(Domain::Time));
        assert_eq!(keeps(&key(DataType::Int64).alias("x"), Domain::Integer), Some(Domain::Integer));
        assert_eq!(keeps(&key(DataType::Utf8View), Domain::Text), Some(Domain::Text));
        assert_eq!(keeps(&key(DataType::Int64), Domain::Float), None, "1.2 and 1.7 are one integer");
        assert_eq!(keeps(&key(DataType::Int64), Domain::Text), None, "01 and 1 are one integer");
        assert_eq!(keeps(&key(DataType::Date32), Domain::Time), None, "a day has many times");
        let seconds = DataType::Timestamp(TimeUnit::Second, None);
        assert_eq!(keeps(&try_cast(key(seconds), DataType::Utf8), Domain::Time), None);
    }

    fn sequence(degrees: &[u64]) -> DegreeSequence {
        DegreeSequence::new(degrees.iter().map(|degree| (*degree, 1)).collect())
    }

    fn key(relation: usize, sequence: &DegreeSequence) -> BoundedKey<'_> {
        BoundedKey { relation, max: sequence.max(), sequence: Some(sequence) }
    }

    fn set(relations: &[usize]) -> RelationSet {
        relations.iter().fold(RelationSet::default(), |set, one| set.union(RelationSet::single(*one)))
    }

    #[test]
    fn a_chain_takes_the_best_first_relation() {
        // 0 -< 1 >- 2, a fact of 10 rows with two parents, and a relation 3 of 4 rows that shares no key.
        let (parent, fact, other) = (sequence(&[1; 5]), sequence(&[6, 2, 1, 1]), sequence(&[5, 5]));
        let (rest, second) = (sequence(&[1, 1]), vec![]);
        let classes = [vec![key(0, &parent), key(1, &fact)], vec![key(1, &other), key(2, &rest)], second];
        let bounds = JoinBounds::new(vec![5.0, 10.0, 2.0, 4.0], &classes);
        assert_eq!(bounds.set(set(&[0, 1])), 10.0);
        assert_eq!(bounds.set(set(&[0, 1, 2])), 10.0);
        assert_eq!(bounds.set(set(&[0, 1, 2, 3])), 40.0);
        assert_eq!(bounds.set(set(&[3])), 4.0);
        // One parent row passes its filter: it has six children at most; then five rows per second parent.
        let bounds = JoinBounds::new(vec![1.0, 10.0, 1.0, 4.0], &classes);
        assert_eq!((bounds.set(set(&[0, 1])), bounds.set(set(&[1, 2])), bounds.set(set(&[0, 1, 2]))), (6.0, 5.0, 5.0));
        assert_eq!(
            (bounds.factor(set(&[1]), 0), bounds.factor(set(&[0]), 1), bounds.factor(set(&[0]), 3)),
            (1.0, 6.0, 4.0)
        );
    }

    #[test]
    fn frequent_keys_meet_rank_by_rank() {
        let (one, other) = (sequence(&[9, 1, 1, 1]), sequence(&[2, 2, 2, 2]));
        let classes = [vec![key(0, &one), key(1, &other)]];
        let bounds = JoinBounds::new(vec![12.0, 8.0], &classes);
        assert_eq!(bounds.set(set(&[0, 1])), 24.0, "not 12 x 2 rows of the largest degree but all of them");
        let bounds = JoinBounds::new(vec![12.0, 3.0], &classes);
        assert_eq!(bounds.set(set(&[0, 1])), 19.0, "three rows meet the frequent value twice and another once");
        let bounds = JoinBounds::new(vec![0.0, 8.0], &classes);
        assert_eq!(bounds.set(set(&[0, 1])), 0.0);
    }
}
