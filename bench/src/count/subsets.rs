//! Connected sets of relations as bit sets.

use std::collections::BTreeSet;

use super::Edge;

/// At most `limit` connected sets out of `relations` relations: every single one, the whole if it is connected, then
/// by size. In ascending order of size and bits; none if there are more than 128 relations.
pub fn connected_subsets(relations: usize, edges: &[Edge], limit: usize) -> Vec<u128> {
    if relations == 0 || relations > 128 {
        return vec![];
    }
    let neighbours = neighbours(relations, edges);
    let whole = u128::MAX >> (128 - relations);
    let mut found: Vec<u128> = (0..relations).map(|relation| 1 << relation).collect();
    let closing = usize::from(relations > 1 && components(whole, edges).len() == 1);
    let mut size: BTreeSet<u128> = found.iter().copied().collect();
    while found.len() + closing < limit {
        let mut larger = BTreeSet::new();
        for &set in &size {
            let around = members(set).fold(0, |around, relation| around | neighbours[relation]) & !set;
            larger.extend(members(around).map(|relation| set | 1 << relation));
        }
        larger.remove(&whole);
        if larger.is_empty() {
            break;
        }
        let room = limit - found.len() - closing;
        found.extend(larger.iter().take(room));
        // Every set of the next size grows out of some set of this one; a cut loses only sets beyond the limit.
        size = larger;
    }
    if closing == 1 {
        found.push(whole);
    }
    found.truncate(limit);
    found
}

/// The connected parts of a set, in the order of their lowest relations.
pub(crate) fn components(subset: u128, edges: &[Edge]) -> Vec<u128> {
    let mut parts: Vec<u128> = vec![];
    for relation in members(subset) {
        let mut part = 1 << relation;
        let touches = |part: u128| {
            edges.iter().filter(|edge| inside(subset, edge)).fold(part, |grown, edge| {
                let ends = 1 << edge.left | 1 << edge.right;
                if grown & ends != 0 { grown | ends } else { grown }
            })
        };
        if parts.iter().any(|known| known & part != 0) {
            continue;
        }
        while touches(part) != part {
            part = touches(part);
        }
        parts.push(part);
    }
    parts
}

/// The indices in a set, ascending.
pub(crate) fn members(mut set: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(lowest)
    })
}

/// Whether a set holds an index.
pub(crate) fn holds(set: u128, index: usize) -> bool {
    set >> index & 1 == 1
}

/// Whether both relations of an edge are in a set.
pub(crate) fn inside(set: u128, edge: &Edge) -> bool {
    holds(set, edge.left) && holds(set, edge.right)
}

fn neighbours(relations: usize, edges: &[Edge]) -> Vec<u128> {
    let mut neighbours = vec![0; relations];
    for edge in edges {
        neighbours[edge.left] |= 1 << edge.right;
        neighbours[edge.right] |= 1 << edge.left;
    }
    neighbours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(pairs: &[(usize, usize)]) -> Vec<Edge> {
        pairs.iter().map(|&(left, right)| Edge { left, right, keys: vec![(0, 0)] }).collect()
    }

    #[test]
    fn chains_and_stars() {
        let chain = edges(&[(0, 1), (1, 2)]);
        assert_eq!(connected_subsets(3, &chain, 100), [0b001, 0b010, 0b100, 0b011, 0b110, 0b111]);
        let star = edges(&[(0, 1), (0, 2), (0, 3)]);
        assert_eq!(connected_subsets(4, &star, 100).len(), 3 + 8);
        assert_eq!(connected_subsets(4, &star, 6), [1, 2, 4, 8, 0b0011, 0b1111]);
        assert_eq!(connected_subsets(2, &[], 100), [1, 2]);
        assert!(connected_subsets(129, &[], 100).is_empty());
    }

    #[test]
    fn parts() {
        let pairs = edges(&[(3, 1), (0, 2), (1, 4)]);
        assert_eq!(components(0b11111, &pairs), [0b00101, 0b11010]);
        assert_eq!(components(0b11001, &pairs), [0b00001, 0b01000, 0b10000]);
    }
}
