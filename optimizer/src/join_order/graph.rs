//! The joins of a plan, inner and other, as a hypergraph, and a plan from one of its trees.
//!
//! The inner joins are relations with keys and conditions between them ([`JoinGraph`]). A left outer, semi, anti or mark join
//! is a function of the rows of its left side: it adds columns, repeats rows or drops them, each by itself. So it commutes
//! with every inner join and every other such join that reads none of its columns (Galindo-Legaria and Rosenthal, "Outerjoin
//! simplification and reordering for query optimization", TODS 1997), and its right side becomes a node of its own, a
//! [`Dependent`], that joins any set with the nodes it reads. A full join, and whatever else is no join, is a relation.

use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, JoinConstraint};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
};
use relata_featurize::join_graph::{JoinGraph, RelationSet, is_volatile};
use relata_featurize::physical::row_width;

use super::enumerate::JoinTree;

/// The right side of a left outer, semi, anti or mark join.
#[derive(Debug, Clone)]
pub(crate) struct Dependent {
    /// The side whose rows are looked up.
    pub(crate) plan: LogicalPlan,
    /// `Left`, `LeftSemi`, `LeftAnti` or `LeftMark`.
    pub(crate) join_type: JoinType,
    /// The nodes that the condition reads, with what those require in turn.
    pub(crate) base: RelationSet,
    /// The plans of `base` and `plan` with all conditions among them, as inner joins.
    pub(crate) matches: Arc<JoinGraph>,
    /// The join; its sides are not used.
    join: Join,
}

impl Dependent {
    /// Whether it is joined on equal keys.
    pub(crate) fn is_keyed(&self) -> bool {
        !self.join.on.is_empty()
    }
}

/// A condition above the joins that reads columns of a dependent.
#[derive(Debug, Clone)]
struct Condition {
    reads: RelationSet,
    expr: Expr,
}

/// A hypergraph: nodes 0..n are the relations of the inner joins, those above are the dependents.
#[derive(Debug, Clone)]
pub(crate) struct JoinHypergraph {
    /// The inner joins.
    pub(crate) inner: Arc<JoinGraph>,
    /// The other joins, in the order in which the plan makes them.
    pub(crate) dependents: Vec<Dependent>,
    conditions: Vec<Condition>,
    /// Neighbours of each node along edges between two nodes.
    neighbours: Vec<RelationSet>,
    /// Edges between sets of nodes.
    hyperedges: Vec<(RelationSet, RelationSet)>,
    /// The plan's own tree.
    pub(super) shape: Shape,
    /// The plan's nodes, by address, with what they join.
    pub(crate) plan_nodes: Vec<(usize, RelationSet)>,
}

/// The tree of a plan over the nodes of its graph.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Node(usize),
    Join(Box<(Shape, Shape)>),
}

/// The address of a plan's node; no other node has it while the plan is borrowed.
pub(crate) fn address(plan: &LogicalPlan) -> usize {
    std::ptr::from_ref(plan) as usize
}

impl JoinHypergraph {
    /// The graph of a plan; `None` when it has more nodes than [`RelationSet::CAPACITY`].
    pub(crate) fn from_plan(plan: &LogicalPlan) -> Option<Self> {
        let mut blocked = Vec::new();
        loop {
            let mut parts = Parts { blocked: &blocked, ..Parts::default() };
            let (shape, _) = parts.flatten(plan);
            match parts.into_graph(shape) {
                Ok(graph) => return Some(graph),
                Err(Failure::IsRelation(join)) => blocked.push(join),
                Err(Failure::TooLarge) => return None,
            }
        }
    }

    /// Whether [`Self::from_plan`] looks through this node into its inputs.
    pub(crate) fn looks_into(plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::Join(join) => JoinGraph::is_transparent(plan) || preserved_side(join).is_some(),
            LogicalPlan::Filter(filter) => !is_volatile(&filter.predicate) && Self::looks_into(&filter.input),
            LogicalPlan::Projection(projection) => {
                projection.expr.iter().all(|e| matches!(e, Expr::Column(_))) && Self::looks_into(&projection.input)
            }
            _ => false,
        }
    }

    /// Number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.inner.relations.len() + self.dependents.len()
    }

    /// Every node.
    pub(crate) fn all(&self) -> RelationSet {
        RelationSet::all(self.len())
    }

    /// The relations of the inner joins in `set`.
    pub(crate) fn relations(&self, set: RelationSet) -> RelationSet {
        set.intersection(self.inner.all())
    }

    /// The dependents in `set`.
    pub(crate) fn dependents(&self, set: RelationSet) -> impl Iterator<Item = &Dependent> {
        let first = self.inner.relations.len();
        set.minus(self.inner.all()).iter().map(move |node| &self.dependents[node - first])
    }

    /// The dependent that is all of `set`.
    pub(crate) fn dependent(&self, set: RelationSet) -> Option<&Dependent> {
        if set.len() == 1 { self.dependents(set).next() } else { None }
    }

    /// Nodes outside `set` and `excluded` that an edge leads to; of an edge to several nodes the lowest stands for all.
    pub(super) fn neighbours(&self, set: RelationSet, excluded: RelationSet) -> RelationSet {
        let taken = set.union(excluded);
        let simple = set.iter().fold(RelationSet::default(), |all, node| all.union(self.neighbours[node])).minus(taken);
        let directed = self.hyperedges.iter().flat_map(|&(one, other)| [(one, other), (other, one)]);
        directed.fold(simple, |all, (from, to)| {
            let leads = from.is_subset(set) && to.intersection(taken).is_empty() && to.intersection(all).is_empty();
            match to.iter().next().filter(|_| leads) {
                Some(lowest) => all.union(RelationSet::single(lowest)),
                None => all,
            }
        })
    }

    /// Whether there are edges between more than two nodes.
    pub(super) fn has_hyperedges(&self) -> bool {
        !self.hyperedges.is_empty()
    }

    /// The plan of a node.
    pub(super) fn plan(&self, node: usize) -> &LogicalPlan {
        match self.inner.relations.get(node) {
            Some(relation) => &relation.plan,
            None => &self.dependents[node - self.inner.relations.len()].plan,
        }
    }

    /// Bytes that a node adds to a row.
    pub(super) fn width(&self, node: usize) -> f64 {
        match self.dependent(RelationSet::single(node)) {
            Some(dependent) if dependent.join_type != JoinType::Left => 0.0,
            _ => row_width(self.plan(node).schema().as_arrow()) as f64,
        }
    }

    /// Whether an edge joins two sets.
    pub(super) fn joins(&self, one: RelationSet, other: RelationSet) -> bool {
        one.iter().any(|node| !self.neighbours[node].intersection(other).is_empty())
            || self
                .hyperedges
                .iter()
                .any(|&(a, b)| a.is_subset(one) && b.is_subset(other) || a.is_subset(other) && b.is_subset(one))
    }

    /// Whether a join of two sets has equal keys.
    pub(super) fn is_keyed(&self, one: RelationSet, other: RelationSet) -> bool {
        match self.dependent(other).or_else(|| self.dependent(one)) {
            Some(dependent) => dependent.is_keyed(),
            None => !self.inner.neighbours(self.relations(one)).intersection(other).is_empty(),
        }
    }

    /// Whether every condition is over two relations or more, as [`Self::into_plan`] needs it.
    pub(super) fn is_orderable(&self) -> bool {
        self.len() > 2 && self.inner.residuals.iter().all(|residual| residual.relations.len() > 1)
    }

    /// The same graph over other plans of its nodes.
    ///
    /// # Errors
    /// Those of `plan`.
    pub(super) fn map_plans(mut self, mut plan: impl FnMut(LogicalPlan) -> Result<LogicalPlan>) -> Result<Self> {
        let inner = Arc::make_mut(&mut self.inner);
        for own in inner.relations.iter_mut().map(|relation| &mut relation.plan) {
            *own = plan(own.clone())?;
        }
        for own in self.dependents.iter_mut().map(|dependent| &mut dependent.plan) {
            *own = plan(own.clone())?;
        }
        Ok(self)
    }

    /// The plan of a tree, with the columns of `schema` in its order.
    ///
    /// # Errors
    /// When DataFusion refuses one of the nodes.
    pub(super) fn into_plan(self, tree: &JoinTree, schema: &DFSchemaRef) -> Result<LogicalPlan> {
        let joined = self.node(tree)?;
        if joined.schema() == schema {
            return Ok(joined);
        }
        Ok(LogicalPlan::Projection(Projection::new_from_schema(Arc::new(joined), Arc::clone(schema))))
    }

    fn node(&self, tree: &JoinTree) -> Result<LogicalPlan> {
        let Some(sides) = &tree.sides else { return self.leaf(tree.set) };
        let (build, probe) = (&sides.0, &sides.1);
        let joined = match (self.dependent(build.set), self.dependent(probe.set)) {
            (_, Some(dependent)) => dependent.join_to(self.node(build)?)?,
            (Some(dependent), None) => dependent.join_to(self.node(probe)?)?,
            (None, None) => self.inner_join(build, probe)?,
        };
        // A condition on a dependent's columns stands where it has all that it reads, above the dependent's join.
        let below = |side: RelationSet, reads: RelationSet| reads.is_subset(side) && self.dependent(side).is_none();
        let conditions = self.conditions.iter().filter(|Condition { reads, .. }| {
            reads.is_subset(tree.set) && !below(build.set, *reads) && !below(probe.set, *reads)
        });
        match conjunction(conditions.map(|condition| condition.expr.clone())) {
            Some(condition) => LogicalPlanBuilder::from(joined).filter(condition)?.build(),
            None => Ok(joined),
        }
    }

    fn inner_join(&self, build: &JoinTree, probe: &JoinTree) -> Result<LogicalPlan> {
        let set = build.set.union(probe.set);
        let keys = self.inner.keys_between(build.set, probe.set);
        let (left, right): (Vec<Expr>, Vec<Expr>) = keys.iter().map(|(l, r)| (l.expr.clone(), r.expr.clone())).unzip();
        // A condition over several relations stands at the first join that has them all.
        let residuals = self.inner.residuals.iter();
        let residuals = residuals.filter(|residual| {
            first_at(residual.relations, self.relations(set), self.relations(build.set), self.relations(probe.set))
        });
        let filter = conjunction(residuals.map(|residual| residual.expr.clone()));
        let (build, probe) = (LogicalPlanBuilder::from(self.node(build)?), self.node(probe)?);
        if left.is_empty() && filter.is_none() {
            return build.cross_join(probe)?.build();
        }
        build.join_with_expr_keys(probe, JoinType::Inner, (left, right), filter)?.build()
    }

    /// A relation under the filters that stood above it; two members of one key class within it are equal.
    fn leaf(&self, set: RelationSet) -> Result<LogicalPlan> {
        if let Some(dependent) = self.dependent(set) {
            return Ok(dependent.plan.clone());
        }
        let index = set.iter().next().ok_or_else(|| DataFusionError::Internal("a tree without relations".into()))?;
        let relation = &self.inner.relations[index];
        let mut filters = relation.filters.clone();
        for class in &self.inner.classes {
            let own: Vec<&Expr> = class.members.iter().filter(|m| m.relation == index).map(|m| &m.expr).collect();
            filters.extend(own.windows(2).map(|pair| pair[0].clone().eq(pair[1].clone())));
        }
        match conjunction(filters) {
            Some(filter) => LogicalPlanBuilder::from(relation.plan.clone()).filter(filter)?.build(),
            None => Ok(relation.plan.clone()),
        }
    }
}

/// Whether what is read comes together in `set`, the union of two others.
fn first_at(reads: RelationSet, set: RelationSet, one: RelationSet, other: RelationSet) -> bool {
    reads.is_subset(set) && !reads.is_subset(one) && !reads.is_subset(other)
}

impl Dependent {
    /// Its join with a plan of everything it reads.
    fn join_to(&self, left: LogicalPlan) -> Result<LogicalPlan> {
        let Join { on, filter, null_equality, null_aware, .. } = self.join.clone();
        let (left, right) = (Arc::new(left), Arc::new(self.plan.clone()));
        let join =
            Join::try_new(left, right, on, filter, self.join_type, JoinConstraint::On, null_equality, null_aware)?;
        Ok(LogicalPlan::Join(join))
    }
}

/// The side of a join each of whose rows it looks up, with the type it has as the left one; `None` for other joins, and where
/// the condition reads nothing of that side, so that the join has no place among the other nodes, or reads a column of the other
/// side that is one of this side as well once its projections are gone.
fn preserved_side(join: &Join) -> Option<(bool, JoinType)> {
    let moved = join.filter.iter().any(is_volatile) || join.on.iter().any(|(l, r)| is_volatile(l) || is_volatile(r));
    let (left, join_type) = match join.join_type {
        _ if moved => return None,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, join.join_type),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            (false, join.join_type.swap())
        }
        JoinType::Inner | JoinType::Full => return None,
    };
    let (preserved, other) = if left { (&join.left, &join.right) } else { (&join.right, &join.left) };
    let mut read = join.filter.iter().flat_map(Expr::column_refs).filter(|column| other.schema().has_column(column));
    if read.any(|column| is_hidden(preserved, column)) {
        return None;
    }
    let keys = join.on.iter().flat_map(|(l, r)| if left { l.column_refs() } else { r.column_refs() });
    let filter = join.filter.iter().flat_map(Expr::column_refs);
    keys.chain(filter).any(|column| preserved.schema().has_column(column)).then_some((left, join_type))
}

/// Whether a column is somewhere in a region but not in its result.
fn is_hidden(plan: &LogicalPlan, column: &Column) -> bool {
    match plan {
        LogicalPlan::Join(_) | LogicalPlan::Filter(_) | LogicalPlan::Projection(_) => {
            plan.inputs().iter().any(|input| input.schema().has_column(column) || is_hidden(input, column))
        }
        _ => false,
    }
}

/// Whether the preserved side of a join is its right one.
pub(super) fn is_turned(join: &Join) -> bool {
    matches!(preserved_side(join), Some((false, _)))
}

#[derive(Debug, Default)]
struct Parts<'p> {
    /// Joins, by address, that are taken as relations.
    blocked: &'p [usize],
    leaves: Vec<Leaf<'p>>,
    conditions: Vec<Expr>,
    /// Every node with the leaves below it.
    nodes: Vec<(usize, RelationSet)>,
}

impl<'p> Parts<'p> {
    /// Collects the leaves, from the left, and the conditions between them.
    fn flatten(&mut self, plan: &'p LogicalPlan) -> (Shape, RelationSet) {
        if self.blocked.contains(&address(plan)) || !JoinHypergraph::looks_into(plan) {
            return self.leaf(Leaf::Relation(plan));
        }
        let (shape, set) = match plan {
            LogicalPlan::Join(join) => {
                let (left, right) = match preserved_side(join) {
                    None => {
                        let sides = (self.flatten(&join.left), self.flatten(&join.right));
                        self.conditions.extend(join.on.iter().map(|(l, r)| l.clone().eq(r.clone())));
                        self.conditions.extend(join.filter.iter().flat_map(split_conjunction).cloned());
                        sides
                    }
                    Some((true, join_type)) => {
                        let left = self.flatten(&join.left);
                        (
                            left,
                            self.leaf(Leaf::Dependent {
                                node: plan,
                                join: join.clone(),
                                join_type,
                                right: &join.right,
                            }),
                        )
                    }
                    Some((false, join_type)) => {
                        let left = self.flatten(&join.right);
                        let on = join.on.iter().map(|(l, r)| (r.clone(), l.clone())).collect();
                        let turned = Join { on, ..join.clone() };
                        (left, self.leaf(Leaf::Dependent { node: plan, join: turned, join_type, right: &join.left }))
                    }
                };
                (Shape::Join(Box::new((left.0, right.0))), left.1.union(right.1))
            }
            LogicalPlan::Filter(filter) => {
                let below = self.flatten(&filter.input);
                self.conditions.extend(split_conjunction(&filter.predicate).into_iter().cloned());
                below
            }
            LogicalPlan::Projection(projection) => self.flatten(&projection.input),
            _ => return self.leaf(Leaf::Relation(plan)),
        };
        self.nodes.push((address(plan), set));
        (shape, set)
    }

    fn leaf(&mut self, leaf: Leaf<'p>) -> (Shape, RelationSet) {
        self.leaves.push(leaf);
        (Shape::Node(self.leaves.len() - 1), single(self.leaves.len() - 1))
    }

    fn into_graph(self, shape: Shape) -> Result<JoinHypergraph, Failure> {
        if self.leaves.len() > RelationSet::CAPACITY {
            return Err(Failure::TooLarge);
        }
        let owners = Owners::new(&self.leaves);
        let (mut inner_conditions, mut outer_conditions) = (Vec::new(), Vec::new());
        for condition in self.conditions {
            let reads = owners.of(condition.column_refs());
            match reads.and_then(|reads| reads.intersection(owners.dependents).iter().next().zip(Some(reads))) {
                None => inner_conditions.push((reads, condition)),
                // Keys between a dependent's columns and other nodes would be lost as such.
                Some((leaf, reads)) if reads.len() > 1 && is_equality(&condition) => {
                    return Err(Failure::IsRelation(self.leaves[leaf].address()));
                }
                Some((_, reads)) => outer_conditions.push((reads, condition)),
            }
        }
        let mut requires = vec![RelationSet::default(); self.leaves.len()];
        for (index, leaf) in self.leaves.iter().enumerate() {
            if let Leaf::Dependent { join, right, .. } = leaf {
                let required = owners.required(join, right).filter(|required| !required.is_empty());
                requires[index] = required.ok_or(Failure::IsRelation(leaf.address()))?;
            }
        }

        let relations = self.leaves.iter().filter_map(Leaf::relation);
        let conditions = inner_conditions.iter().map(|(_, condition)| condition.clone()).collect();
        let inner = Arc::new(JoinGraph::new(relations, conditions).ok_or(Failure::TooLarge)?);
        let nodes = Nodes::new(&self.leaves, &inner);

        let mut dependents = Vec::new();
        for (index, leaf) in self.leaves.iter().enumerate() {
            let Leaf::Dependent { join, join_type, right, .. } = leaf else { continue };
            let base = with_required(requires[index], &requires);
            let plans = base.union(single(index)).iter().map(|leaf| self.leaves[leaf].plan());
            let within = |reads: &Option<RelationSet>| reads.is_some_and(|reads| reads.is_subset(base));
            let conditions = inner_conditions.iter().filter(|(reads, _)| within(reads)).map(|(_, expr)| expr.clone());
            let joins = base.union(single(index)).iter().flat_map(|leaf| self.leaves[leaf].conditions());
            let matches = JoinGraph::new(plans, conditions.chain(joins).collect()).ok_or(Failure::TooLarge)?;
            dependents.push(Dependent {
                plan: (*right).clone(),
                join_type: *join_type,
                base: nodes.of(base),
                matches: Arc::new(matches),
                join: join.clone(),
            });
        }

        let leaf_nodes = self.leaves.iter().enumerate();
        let leaf_nodes = leaf_nodes.filter_map(|(index, leaf)| Some((address(leaf.relation()?), nodes.0[index])));
        // The region's filters above a relation are not its plan's.
        let leaf_nodes = leaf_nodes.filter(|(_, node)| {
            let relation = &inner.relations[*node];
            relation.scan.is_some() && relation.filters.is_empty()
        });
        let plan_nodes = self.nodes.iter().map(|&(address, leaves)| (address, nodes.of(leaves)));
        let plan_nodes = plan_nodes.chain(leaf_nodes.map(|(address, node)| (address, RelationSet::single(node))));
        let plan_nodes = plan_nodes.collect();
        let conditions = outer_conditions.into_iter().map(|(reads, expr)| Condition { reads: nodes.of(reads), expr });
        let conditions = conditions.collect();
        let (neighbours, hyperedges) = edges(&inner, &dependents);
        let shape = nodes.shape(shape);
        Ok(JoinHypergraph { inner, dependents, conditions, neighbours, hyperedges, shape, plan_nodes })
    }
}

/// Why there is no graph.
enum Failure {
    /// More leaves than a set holds.
    TooLarge,
    /// The join at this address has to be taken as a relation.
    IsRelation(usize),
}

fn single(leaf: usize) -> RelationSet {
    // Of too many leaves there will be no graph.
    RelationSet(1u128.checked_shl(leaf as u32).unwrap_or(0))
}

fn is_equality(condition: &Expr) -> bool {
    matches!(condition, Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }))
}

/// `set` with everything that its members require.
fn with_required(set: RelationSet, requires: &[RelationSet]) -> RelationSet {
    let grown = set.iter().fold(set, |all, leaf| all.union(requires[leaf]));
    if grown == set { set } else { with_required(grown, requires) }
}

/// Something with columns that is joined.
#[derive(Debug)]
enum Leaf<'p> {
    Relation(&'p LogicalPlan),
    /// A join with its preserved side on the left, and the side that is not.
    Dependent {
        node: &'p LogicalPlan,
        join: Join,
        join_type: JoinType,
        right: &'p LogicalPlan,
    },
}

impl<'p> Leaf<'p> {
    fn address(&self) -> usize {
        match self {
            Leaf::Relation(plan) => address(plan),
            Leaf::Dependent { node, .. } => address(node),
        }
    }

    fn relation(&self) -> Option<&'p LogicalPlan> {
        match self {
            Leaf::Relation(plan) => Some(plan),
            Leaf::Dependent { .. } => None,
        }
    }

    fn plan(&self) -> &'p LogicalPlan {
        match self {
            Leaf::Relation(plan) => plan,
            Leaf::Dependent { right, .. } => right,
        }
    }

    /// What its join asks of a pair of rows.
    fn conditions(&self) -> Vec<Expr> {
        match self {
            Leaf::Relation(_) => Vec::new(),
            Leaf::Dependent { join, .. } => {
                let keys = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
                keys.chain(join.filter.iter().flat_map(split_conjunction).cloned()).collect()
            }
        }
    }

    /// Whether a column of the joined plan is one of its own.
    fn has(&self, column: &Column) -> bool {
        match self {
            Leaf::Relation(plan) => plan.schema().has_column(column),
            Leaf::Dependent { join_type: JoinType::Left, right, .. } => right.schema().has_column(column),
            Leaf::Dependent { join_type: JoinType::LeftMark, join, .. } => {
                let mark = join.schema.iter().last().map(|(qualifier, field)| Column::from((qualifier, field)));
                mark.is_some_and(|mark| mark == *column)
            }
            Leaf::Dependent { .. } => false,
        }
    }
}

/// Which leaf a column belongs to.
struct Owners<'a, 'p> {
    leaves: &'a [Leaf<'p>],
    dependents: RelationSet,
}

impl<'a, 'p> Owners<'a, 'p> {
    fn new(leaves: &'a [Leaf<'p>]) -> Self {
        let dependents = leaves.iter().enumerate().filter(|(_, leaf)| leaf.relation().is_none());
        let dependents = dependents.fold(RelationSet::default(), |all, (index, _)| all.union(single(index)));
        Self { leaves, dependents }
    }

    /// The leaves that columns belong to; `None` when one belongs to none.
    fn of<'c>(&self, columns: impl IntoIterator<Item = &'c Column>) -> Option<RelationSet> {
        columns.into_iter().try_fold(RelationSet::default(), |all, column| {
            Some(all.union(single(self.leaves.iter().position(|leaf| leaf.has(column))?)))
        })
    }

    /// The leaves that a join's condition reads beside its right side.
    fn required(&self, join: &Join, right: &LogicalPlan) -> Option<RelationSet> {
        let keys = join.on.iter().flat_map(|(left, _)| left.column_refs());
        let filter = join.filter.iter().flat_map(Expr::column_refs).filter(|c| !right.schema().has_column(c));
        self.of(keys.chain(filter))
    }
}

/// The node of each leaf.
struct Nodes(Vec<usize>);

impl Nodes {
    fn new(leaves: &[Leaf<'_>], inner: &JoinGraph) -> Self {
        let mut by_position = vec![0; inner.relations.len()];
        inner.relations.iter().enumerate().for_each(|(index, relation)| by_position[relation.position] = index);
        let (mut relations, mut dependents) = (by_position.into_iter(), inner.relations.len()..);
        let node = |leaf: &Leaf<'_>| if leaf.relation().is_some() { relations.next() } else { dependents.next() };
        Self(leaves.iter().map(node).map(Option::unwrap_or_default).collect())
    }

    fn of(&self, leaves: RelationSet) -> RelationSet {
        leaves.iter().fold(RelationSet::default(), |all, leaf| all.union(RelationSet::single(self.0[leaf])))
    }

    fn shape(&self, shape: Shape) -> Shape {
        match shape {
            Shape::Node(leaf) => Shape::Node(self.0[leaf]),
            Shape::Join(sides) => Shape::Join(Box::new((self.shape(sides.0), self.shape(sides.1)))),
        }
    }
}

/// Edges between two nodes, as the neighbours of each, and between sets of nodes.
fn edges(inner: &JoinGraph, dependents: &[Dependent]) -> (Vec<RelationSet>, Vec<(RelationSet, RelationSet)>) {
    let relations = inner.relations.len();
    let mut neighbours: Vec<RelationSet> = (0..relations).map(|r| inner.neighbours(RelationSet::single(r))).collect();
    neighbours.resize(relations + dependents.len(), RelationSet::default());
    let mut connect = |one: usize, other: usize| {
        neighbours[one] = neighbours[one].union(RelationSet::single(other));
        neighbours[other] = neighbours[other].union(RelationSet::single(one));
    };
    let mut hyperedges = Vec::new();
    for (index, dependent) in dependents.iter().enumerate() {
        let node = relations + index;
        // Two dependents alone are no join: the rows that both are looked up for belong to it.
        match dependent.base.iter().next() {
            Some(only) if dependent.base.len() == 1 => connect(only, node),
            _ => hyperedges.push((dependent.base, RelationSet::single(node))),
        }
    }
    // What no key connects is joined by another condition, or else as a cross product of everything that hangs together.
    let mut parts = inner.components();
    for residual in inner.residuals.iter().filter(|residual| residual.relations.len() == 2) {
        let ends: Vec<usize> = residual.relations.iter().collect();
        let part_of = |relation: usize| parts.iter().position(|part| part.contains(relation));
        if let (Some(one), Some(other)) = (part_of(ends[0]), part_of(ends[1]))
            && one != other
        {
            connect(ends[0], ends[1]);
            let joined = parts.swap_remove(one.max(other));
            let kept = one.min(other);
            parts[kept] = parts[kept].union(joined);
        }
    }
    for (index, part) in parts.iter().enumerate() {
        hyperedges.extend(parts[..index].iter().map(|other| (*other, *part)));
    }
    (neighbours, hyperedges)
}
