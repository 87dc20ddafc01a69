//! What is considered in the ordering of joins, for those who ask why.

use std::cell::{Cell, RefCell};

use datafusion::logical_expr::LogicalPlan;
use relata_featurize::join_graph::RelationSet;

use super::enumerate::JoinTree;
use super::graph::JoinHypergraph;
use crate::estimate::Estimate;

/// A set of a region's nodes that was estimated, or an order of all of them.
#[derive(Debug)]
pub(crate) struct Considered {
    /// Regions are counted from one.
    pub(crate) region: usize,
    pub(crate) kind: &'static str,
    /// The names of the nodes; of an order the joins in brackets, build sides first.
    pub(crate) relations: String,
    pub(crate) estimate: Estimate,
    /// Of an order, and of a set that the chosen order joins before others.
    pub(crate) cost: Option<f64>,
    pub(crate) chosen: bool,
}

/// Takes notes of the regions that are ordered.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The sets of the next region that were estimated so far.
    sets: RefCell<Vec<(RelationSet, Estimate)>>,
    regions: Cell<usize>,
    considered: RefCell<Vec<Considered>>,
}

impl Notes {
    /// A set of the next region was estimated.
    pub(super) fn set(&self, set: RelationSet, estimate: Estimate) {
        self.sets.borrow_mut().push((set, estimate));
    }

    /// The next region was ordered: the query's own tree and the cheapest one, as far as they were looked for, and whether the
    /// cheapest was chosen.
    pub(super) fn region(
        &self,
        graph: &JoinHypergraph,
        own: Option<&JoinTree>,
        best: Option<&JoinTree>,
        reordered: bool,
    ) {
        let region = self.regions.get() + 1;
        self.regions.set(region);
        let names: Vec<String> = (0..graph.len()).map(|node| name(graph.plan(node))).collect();
        let mut costs = vec![];
        if let Some(chosen) = if reordered { best } else { own } {
            collect(chosen, &mut costs);
        }
        let mut considered = self.considered.borrow_mut();
        let mut sets = self.sets.take();
        sets.sort_by_key(|(set, _)| (set.len(), set.0));
        sets.dedup_by_key(|(set, _)| *set);
        for &(set, estimate) in &sets {
            let relations = set.iter().map(|node| names[node].as_str()).collect::<Vec<_>>().join(", ");
            let cost = costs.iter().find(|(other, _)| *other == set).map(|(_, cost)| *cost);
            let (kind, chosen) = ("sub-plan", cost.is_some());
            considered.push(Considered { region, kind, relations, estimate, cost, chosen });
        }
        let Some((_, all)) = sets.last() else { return };
        for (kind, tree, chosen) in [("order of the query", own, !reordered), ("cheapest order", best, reordered)] {
            if let Some(tree) = tree {
                let (relations, cost) = (joins(tree, &names), Some(tree.cost));
                considered.push(Considered { region, kind, relations, estimate: *all, cost, chosen });
            }
        }
    }

    pub(super) fn into_considered(self) -> Vec<Considered> {
        self.considered.into_inner()
    }
}

/// What the query calls a node.
fn name(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => alias.alias.to_string(),
        LogicalPlan::TableScan(scan) => scan.table_name.to_string(),
        plan => match plan.inputs()[..] {
            [input] => name(input),
            _ => plan.display().to_string(),
        },
    }
}

fn joins(tree: &JoinTree, names: &[String]) -> String {
    match &tree.sides {
        Some(sides) => format!("({} JOIN {})", joins(&sides.0, names), joins(&sides.1, names)),
        None => tree.set.iter().map(|node| names[node].as_str()).collect(),
    }
}

fn collect(tree: &JoinTree, costs: &mut Vec<(RelationSet, f64)>) {
    costs.push((tree.set, tree.cost));
    if let Some(sides) = &tree.sides {
        collect(&sides.0, costs);
        collect(&sides.1, costs);
    }
}
