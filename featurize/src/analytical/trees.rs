//! The foreign-key joins of a join graph that a synopsis covers, and what its rows say of them.
//!
//! A tree is one relation, the root, with relations that it refers to, and those that they refer to. Every filter runs once on
//! the synopsis' rows; which root rows find a passing partner is a mask, and the rows of any part of the tree that holds
//! the root are the conjunction of its masks.

use std::sync::{Arc, OnceLock, PoisonError};

use datafusion::arrow::array::BooleanArray;
use datafusion_expr::Expr;
use smallvec::SmallVec;

use super::{JoinEstimator, Profiles, SetEstimate, key_selectivity};
use crate::join_graph::RelationSet;
use crate::key_sample::KeyCorrelation;
use crate::sketch::Domain;
use crate::synopsis::{JoinSynopsis, NO_PARTNER, SynopsisParent};

#[cfg(test)]
mod tests;

/// One bit per sampled root row.
type Mask = Vec<u64>;

/// Places of members of a tree.
type Members = SmallVec<[usize; 8]>;

/// The classes of keys between a set and a relation.
#[derive(Debug, Default)]
pub(super) struct Classes {
    /// The set.
    pub(super) set: RelationSet,
    /// Each with the share of the pairs of rows that it lets through.
    pub(super) shares: SmallVec<[(usize, f64); 4]>,
    /// The share that all of them let through together.
    pub(super) together: f64,
}

impl Classes {
    /// The share of the pairs of rows that some of the classes let through.
    fn selectivity_of(&self, classes: &[usize]) -> f64 {
        if classes.len() == self.shares.len() {
            return self.together;
        }
        self.shares.iter().filter(|(class, _)| classes.contains(class)).map(|(_, share)| share).product()
    }
}

/// What a tree says of a relation and a set.
#[derive(Debug)]
pub(super) struct TreeEvidence<'t> {
    /// The tree.
    pub(super) tree: &'t Tree,
    /// How they go together.
    pub(super) correlation: KeyCorrelation,
    /// The relations of the set whose filters are seen.
    pub(super) relations: RelationSet,
}

/// A relation and the relations above it that its synopsis knows.
#[derive(Debug)]
pub(super) struct Tree {
    root: usize,
    synopsis: Arc<JoinSynopsis>,
    /// Each after the one that refers to it.
    members: Vec<Member>,
    /// Root rows that pass the root's filters.
    mask: OnceLock<Mask>,
}

/// A relation that another one of the tree refers to.
#[derive(Debug)]
struct Member {
    relation: usize,
    /// The relation that refers to it.
    from: usize,
    /// Its place among the synopsis' parents.
    parent: usize,
    /// The classes of its key.
    classes: SmallVec<[usize; 2]>,
    /// Root rows whose partner passes the filters.
    mask: OnceLock<Mask>,
}

impl JoinEstimator<'_> {
    /// The trees of the graph, one for each relation whose synopsis covers another one.
    pub(super) fn find_trees(&self, profiles: &dyn Profiles) -> Vec<Tree> {
        (0..self.relations.len()).filter_map(|root| self.tree(root, profiles)).collect()
    }

    fn tree(&self, root: usize, profiles: &dyn Profiles) -> Option<Tree> {
        let synopsis = profiles.synopsis(self.graph.relations[root].scan.as_ref()?)?;
        if !Arc::ptr_eq(self.relations[root].profile.as_ref()?, synopsis.root()) || !self.runs(root) {
            return None;
        }
        // Relations and their places among the parents.
        let mut reached: Vec<(usize, Option<usize>)> = vec![(root, None)];
        let mut members = vec![];
        let mut next = 0;
        while let Some(&(from, place)) = reached.get(next) {
            for (parent, of) in synopsis.parents().iter().enumerate().filter(|(_, parent)| parent.from == place) {
                for relation in 0..self.relations.len() {
                    let is_table = |p: &Arc<_>| Arc::ptr_eq(p, &of.table);
                    let new = reached.iter().all(|(known, _)| *known != relation);
                    if new && self.relations[relation].profile.as_ref().is_some_and(is_table) && self.runs(relation) {
                        let pairs = of.columns.iter().zip(&of.referenced);
                        let classes = pairs.map(|(own, theirs)| self.class_of((from, *own), (relation, *theirs)));
                        if let Some(classes) = classes.collect() {
                            members.push(Member { relation, from, parent, classes, mask: OnceLock::new() });
                            reached.push((relation, Some(parent)));
                        }
                    }
                }
            }
            next += 1;
        }
        (!members.is_empty()).then_some(Tree { root, synopsis, members, mask: OnceLock::new() })
    }

    /// Whether every filter of a relation can run on sampled rows.
    fn runs(&self, relation: usize) -> bool {
        self.relations[relation].filter.as_ref().is_some_and(|filter| filter.runs())
    }

    /// The class that makes two columns equal, given as relation and column of its table.
    fn class_of(&self, own: (usize, usize), theirs: (usize, usize)) -> Option<usize> {
        self.graph.classes.iter().position(|class| {
            let has = |(relation, column): (usize, usize)| {
                class.members.iter().any(|member| {
                    // Other values may become equal in another type.
                    let as_it_is = || {
                        let profile = self.relations[relation].profile.as_ref();
                        matches!(member.expr, Expr::Column(_))
                            || profile.is_some_and(|profile| profile.columns[column].domain == Domain::Integer)
                    };
                    member.relation == relation && member.column == Some(column) && as_it_is()
                })
            };
            has(own) && has(theirs)
        })
    }

    /// How `relation` goes together with the relations of `set` that a tree joins it with, in the tree that has most rows to
    /// tell it.
    pub(super) fn tree_evidence(&self, set: RelationSet, relation: usize, keys: &Classes) -> Option<TreeEvidence<'_>> {
        let evidence = self.trees.iter().filter_map(|tree| self.evidence_of(tree, set, relation, keys));
        evidence.max_by(|a, b| a.correlation.strength().total_cmp(&b.correlation.strength()))
    }

    /// The same in one tree; `None` where it does not join the two.
    pub(super) fn evidence_of<'t>(
        &self,
        tree: &'t Tree,
        set: RelationSet,
        relation: usize,
        keys: &Classes,
    ) -> Option<TreeEvidence<'t>> {
        let relations = |members: &[usize]| {
            let relations = members.iter().map(|place| RelationSet::single(tree.members[*place].relation));
            relations.fold(RelationSet::default(), RelationSet::union)
        };
        if tree.root == relation {
            let (members, rows) = self.below_root(tree, set)?;
            let first: Members = members.iter().copied().filter(|m| tree.members[*m].from == tree.root).collect();
            let selectivity = self.selectivity_in(tree, &first, relations(&members), relation, keys);
            let expected = self.count(tree, &[]) * rows * selectivity;
            let correlation = KeyCorrelation::new(self.count(tree, &members), expected);
            return Some(TreeEvidence { tree, correlation, relations: relations(&members) });
        }
        let last = tree.members.iter().position(|member| member.relation == relation)?;
        let member = &tree.members[last];
        let mut members = tree.cover(set)?;
        let known = relations(&members).union(RelationSet::single(tree.root));
        if !known.contains(member.from) {
            return None;
        }
        let selectivity = self.selectivity_in(tree, &[last], known, relation, keys);
        let expected = self.count(tree, &members) * self.single(relation).rows * selectivity;
        members.push(last);
        let correlation = KeyCorrelation::new(self.count(tree, &members), expected);
        Some(TreeEvidence { tree, correlation, relations: known })
    }

    /// The share of pairs that the keys of some members let through, with no more filters on the keys than the tree sees in
    /// the relations `known` and `relation`.
    fn selectivity_in(
        &self,
        tree: &Tree,
        members: &[usize],
        known: RelationSet,
        relation: usize,
        keys: &Classes,
    ) -> f64 {
        let members = || members.iter().map(|place| &tree.members[*place]);
        let classes: SmallVec<[usize; 4]> = members().flat_map(|member| member.classes.iter().copied()).collect();
        let unseen = |class: &usize| {
            self.shared_filter(*class, known, relation).is_none()
                && self.shared_filter(*class, keys.set, relation).is_some()
        };
        if !classes.iter().any(unseen) {
            return keys.selectivity_of(&classes);
        }
        let plain = |member: &Member| self.plain_selectivity(tree, member);
        members().map(plain).product()
    }

    fn plain_selectivity(&self, tree: &Tree, member: &Member) -> f64 {
        let parent = &tree.synopsis.parents()[member.parent];
        let pairs = parent.columns.iter().zip(&parent.referenced);
        let share = |(own, theirs): (&usize, &usize)| {
            let sketch =
                |relation: usize, column: usize| self.relations[relation].profile.as_ref()?.columns.get(column);
            let pair = sketch(member.from, *own).zip(sketch(member.relation, *theirs));
            pair.map_or(1.0, |(own, theirs)| key_selectivity(own, theirs))
        };
        pairs.map(share).product()
    }

    /// What the root of a tree is joined with in `set`: the members, and their rows.
    fn below_root(&self, tree: &Tree, set: RelationSet) -> Option<(Members, f64)> {
        let covered = tree.cover(set.union(RelationSet::single(tree.root)))?;
        let mut members = Members::new();
        let mut classes: SmallVec<[usize; 4]> = SmallVec::new();
        let mut rows = 1.0;
        for &place in &covered {
            let member = &tree.members[place];
            if member.from != tree.root || member.classes.iter().any(|class| classes.contains(class)) {
                continue;
            }
            let mut branch = RelationSet::single(member.relation);
            members.push(place);
            for &above in covered.iter().filter(|above| **above > place) {
                if branch.contains(tree.members[above].from) {
                    branch = branch.union(RelationSet::single(tree.members[above].relation));
                    members.push(above);
                }
            }
            classes.extend_from_slice(&member.classes);
            rows *= self.canonical(branch).rows;
        }
        (!members.is_empty()).then_some((members, rows))
    }

    /// The rows of `set` where they are counted: every row of a tree over just these relations is there.
    pub(super) fn counted(&self, set: RelationSet) -> Option<f64> {
        let tree = self.trees.iter().find(|tree| tree.synopsis.is_complete() && self.is_all_of(tree, set))?;
        Some(self.count(tree, &tree.cover(set)?))
    }

    /// Whether a tree joins the relations of `set` by all the conditions among them.
    pub(super) fn is_all_of(&self, tree: &Tree, set: RelationSet) -> bool {
        let Some(covered) = tree.cover(set).filter(|covered| covered.len() + 1 == set.len()) else { return false };
        let classes = self.graph.classes.iter().enumerate().all(|(index, class)| {
            let members = class.members.iter().filter(|member| set.contains(member.relation)).count();
            let edges = covered.iter().filter(|place| tree.members[**place].classes.contains(&index)).count();
            members <= edges + 1
        });
        classes && self.graph.residuals.iter().all(|residual| !residual.relations.is_subset(set))
    }

    /// The estimate of a connected set by its canonical decomposition.
    fn canonical(&self, set: RelationSet) -> SetEstimate {
        if set.len() <= 1 {
            return self.single(set.iter().next().unwrap_or(0));
        }
        let known = || self.canonical.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(estimate) = known().get(&set).copied() {
            return estimate;
        }
        let relation = self.graph.last(set);
        let rest = set.minus(RelationSet::single(relation));
        let (estimate, _) = self.extend(rest, &self.canonical(rest), relation);
        known().insert(set, estimate);
        estimate
    }

    /// Root rows of a tree that pass the root's filters and whose partners in these members pass theirs.
    fn count(&self, tree: &Tree, members: &[usize]) -> f64 {
        let root = tree.mask.get_or_init(|| {
            let filter = self.relations[tree.root].filter.as_ref();
            let passing = filter.and_then(|filter| filter.mask.as_ref());
            mask((0..tree.synopsis.rows()).map(|row| passes(passing, row)), tree.synopsis.rows())
        });
        let masks: SmallVec<[&Mask; 8]> = members.iter().map(|place| self.mask(tree, &tree.members[*place])).collect();
        let words = root.iter().enumerate();
        let rows = words.map(|(word, bits)| masks.iter().fold(*bits, |bits, mask| bits & mask[word]).count_ones());
        f64::from(rows.sum::<u32>())
    }

    fn mask<'t>(&self, tree: &'t Tree, member: &'t Member) -> &'t Mask {
        member.mask.get_or_init(|| {
            let parent = &tree.synopsis.parents()[member.parent];
            let filter = self.relations[member.relation].filter.as_ref();
            let passing = filter.filter(|filter| filter.mask.is_some()).and_then(|filter| {
                if parent.is_whole_table() { filter.mask.clone() } else { filter.mask_of(parent.rows()) }
            });
            let bit = |link: &u32| *link != NO_PARTNER && passes(passing.as_ref(), *link as usize);
            mask(parent.links().iter().map(bit), parent.links().len())
        })
    }
}

impl Tree {
    /// The relation whose rows are sampled.
    pub(super) fn root(&self) -> usize {
        self.root
    }

    /// The rows.
    pub(super) fn synopsis(&self) -> &JoinSynopsis {
        &self.synopsis
    }

    /// The relations that hang together with the root in `set` and their partners; `None` where the root is not in it.
    pub(super) fn members_in(&self, set: RelationSet) -> Option<impl Iterator<Item = (usize, &SynopsisParent)>> {
        let members = self.cover(set)?.into_iter().map(|place| &self.members[place]);
        Some(members.map(|member| (member.relation, &self.synopsis.parents()[member.parent])))
    }

    /// The members that hang together with the root in `set`; `None` where the root is not in it.
    fn cover(&self, set: RelationSet) -> Option<Members> {
        let mut covered = RelationSet::single(self.root).intersection(set);
        let mut members = Members::new();
        if covered.is_empty() {
            return None;
        }
        for (place, member) in self.members.iter().enumerate() {
            if set.contains(member.relation) && covered.contains(member.from) {
                covered = covered.union(RelationSet::single(member.relation));
                members.push(place);
            }
        }
        Some(members)
    }
}

fn passes(mask: Option<&BooleanArray>, row: usize) -> bool {
    mask.is_none_or(|mask| row < mask.len() && mask.value(row))
}

fn mask(bits: impl Iterator<Item = bool>, rows: usize) -> Mask {
    let mut words = vec![0u64; rows.div_ceil(64)];
    for (row, bit) in bits.enumerate() {
        words[row / 64] |= u64::from(bit) << (row % 64);
    }
    words
}
