//! Classes of equal columns, and the join tree of a set of relations.

use super::Edge;
use super::subsets::{holds, inside, members};

/// The classes of columns that the edges make equal, transitively: the vertices of the join's hypergraph, of which each
/// relation is an edge.
#[derive(Debug, Clone)]
pub(crate) struct Classes {
    /// Relation and column of each member, ascending. `[classes][members]`
    members: Vec<Vec<(usize, usize)>>,
    /// Classes that two relations both have a column in. `[relations * relations]`
    shared: Vec<Vec<usize>>,
    relations: usize,
}

impl Classes {
    pub(crate) fn new(relations: usize, edges: &[Edge]) -> Self {
        let members = partition(edges.iter());
        let mut shared = vec![vec![]; relations * relations];
        for (class, columns) in members.iter().enumerate() {
            for &(left, _) in columns {
                for &(right, _) in columns {
                    let place: &mut Vec<usize> = &mut shared[left * relations + right];
                    if left != right && place.last() != Some(&class) {
                        place.push(class);
                    }
                }
            }
        }
        Self { members, shared, relations }
    }

    /// The classes that both relations have a column in.
    pub(crate) fn shared(&self, left: usize, right: usize) -> &[usize] {
        &self.shared[left * self.relations + right]
    }

    /// The first column of a relation in a class it belongs to.
    pub(crate) fn column(&self, relation: usize, class: usize) -> usize {
        let columns = &self.members[class];
        columns[columns.partition_point(|&(member, _)| member < relation)].1
    }

    /// Pairs of columns of one relation that have to be equal: relation, first column, other column.
    pub(crate) fn within(&self) -> Vec<(usize, usize, usize)> {
        let mut pairs = vec![];
        for (class, columns) in self.members.iter().enumerate() {
            for &(relation, column) in columns {
                let first = self.column(relation, class);
                if column != first {
                    pairs.push((relation, first, column));
                }
            }
        }
        pairs
    }

    /// Whether the edges within `subset` alone make equal what the classes say about its columns.
    pub(crate) fn implied_by(&self, subset: u128, edges: &[Edge]) -> bool {
        let local = partition(edges.iter().filter(|edge| inside(subset, edge)));
        self.members.iter().all(|columns| {
            let inner: Vec<_> = columns.iter().filter(|(relation, _)| holds(subset, *relation)).collect();
            match inner.as_slice() {
                [] | [_] => true,
                [first, ..] => local.iter().any(|class| class.contains(first) && class.len() == inner.len()),
            }
        })
    }

    /// Number of relations of `subset` in each class, less one; summed.
    fn links(&self, subset: u128) -> usize {
        let relations = |columns: &Vec<(usize, usize)>| {
            columns.iter().fold(0_u128, |set, (relation, _)| set | 1 << relation) & subset
        };
        self.members.iter().map(|columns| (relations(columns).count_ones() as usize).saturating_sub(1)).sum()
    }
}

/// The columns that edges connect, class by class, members ascending.
fn partition<'a>(edges: impl Iterator<Item = &'a Edge>) -> Vec<Vec<(usize, usize)>> {
    let mut classes: Vec<Vec<(usize, usize)>> = vec![];
    for edge in edges {
        for &(left, right) in &edge.keys {
            let (left, right) = ((edge.left, left), (edge.right, right));
            let mut merged = vec![left, right];
            classes.retain_mut(|class| {
                let touched = class.contains(&left) || class.contains(&right);
                if touched {
                    merged.append(class);
                }
                !touched
            });
            merged.sort_unstable();
            merged.dedup();
            classes.push(merged);
        }
    }
    classes.sort_unstable();
    classes
}

/// A tree over relations in which the relations of every class are connected.
#[derive(Debug)]
pub(crate) struct JoinTree {
    subset: u128,
    /// Pairs of adjacent relations.
    links: Vec<(usize, usize)>,
}

impl JoinTree {
    /// The join tree of a connected set of at least two relations, `None` if the set is cyclic.
    ///
    /// A spanning tree of most shared classes is a join tree if there is any (Bernstein and Goodman, "Power of natural
    /// semijoins", SIAM J. Comput. 1981), and it is one if its links account for every class.
    pub(crate) fn new(subset: u128, classes: &Classes) -> Option<Self> {
        let mut outside: Vec<usize> = members(subset).collect();
        let mut reached = vec![outside.remove(0)];
        let mut links = vec![];
        let mut weight = 0;
        while !outside.is_empty() {
            let candidates = outside.iter().flat_map(|&new| reached.iter().map(move |&old| (old, new)));
            let shared = |(old, new): (usize, usize)| classes.shared(old, new).len();
            // The first of the best, so that ties give stars around early relations.
            let best = candidates.reduce(|best, link| if shared(link) > shared(best) { link } else { best })?;
            if shared(best) == 0 {
                return None;
            }
            weight += shared(best);
            outside.retain(|&relation| relation != best.1);
            reached.push(best.1);
            links.push(best);
        }
        (weight == classes.links(subset)).then_some(Self { subset, links })
    }

    /// The relation with the most neighbours, the first of them.
    pub(crate) fn hub(&self) -> usize {
        let degree = |relation| self.links.iter().filter(|&&(a, b)| a == relation || b == relation).count();
        let hub = members(self.subset).reduce(|best, next| if degree(next) > degree(best) { next } else { best });
        hub.unwrap_or_default()
    }

    /// The last neighbour of `root` and the set of relations behind it.
    pub(crate) fn last_branch(&self, root: usize) -> (usize, u128) {
        let ends = |&(a, b): &(usize, usize)| {
            if a == root {
                Some(b)
            } else if b == root {
                Some(a)
            } else {
                None
            }
        };
        let child = self.links.iter().filter_map(ends).max().unwrap_or(root);
        let mut branch: u128 = 1 << child;
        // Links were found outwards from the start, so repeated passes reach everything within the depth of the tree.
        loop {
            let grown =
                self.links.iter().filter(|&&(a, b)| a != root && b != root).fold(branch, |set, &(a, b)| {
                    if holds(set, a) || holds(set, b) { set | 1 << a | 1 << b } else { set }
                });
            if grown == branch {
                return (child, branch);
            }
            branch = grown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(left: usize, right: usize, keys: &[(usize, usize)]) -> Edge {
        Edge { left, right, keys: keys.to_vec() }
    }

    #[test]
    fn a_triangle_over_one_class_is_acyclic() {
        let edges = [edge(0, 1, &[(0, 0)]), edge(1, 2, &[(0, 0)]), edge(0, 2, &[(0, 0)])];
        let classes = Classes::new(3, &edges);
        let tree = JoinTree::new(0b111, &classes).unwrap();
        assert_eq!(tree.hub(), 0);
        assert_eq!(tree.last_branch(0), (2, 0b100));
        assert!(classes.implied_by(0b110, &edges));
        assert!(!classes.implied_by(0b110, &edges[..1]));
    }

    #[test]
    fn a_triangle_over_three_classes_is_cyclic() {
        let edges = [edge(0, 1, &[(0, 0)]), edge(1, 2, &[(1, 0)]), edge(0, 2, &[(1, 1)])];
        let classes = Classes::new(3, &edges);
        assert!(JoinTree::new(0b111, &classes).is_none());
        assert!(JoinTree::new(0b011, &classes).is_some());
    }

    #[test]
    fn equal_columns_of_one_relation() {
        let classes = Classes::new(2, &[edge(0, 1, &[(3, 0), (5, 0)])]);
        assert_eq!(classes.within(), [(0, 3, 5)]);
        assert_eq!(classes.shared(0, 1).len(), 1);
    }
}
