//! The inner joins of a logical plan as relations, equi-join keys and filters, whatever the shape of the plan.
//!
//! [`JoinGraph::from_plan`] flattens a tree of inner joins, the filters between them and projections of bare columns. What
//! it cannot look into (aggregates, outer joins, unions, subqueries) becomes a relation of its own. Relations are sorted by
//! what they are, not by where the query names them, so that equivalent queries have the same graph.

use std::collections::BTreeMap;
use std::fmt;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, NullEquality};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{BinaryExpr, Expr, JoinType, LogicalPlan, Operator, Projection, TableScan};
use smallvec::SmallVec;

/// A set of relations of one [`JoinGraph`], by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RelationSet(pub u128);

impl RelationSet {
    /// Relations a graph can hold.
    pub const CAPACITY: usize = 128;

    /// The set of one relation.
    pub fn single(relation: usize) -> Self {
        Self(1 << relation)
    }

    /// The set of the relations 0..n.
    pub fn all(n: usize) -> Self {
        Self(if n >= Self::CAPACITY { u128::MAX } else { (1 << n) - 1 })
    }

    /// Whether the relation is a member.
    pub fn contains(self, relation: usize) -> bool {
        self.0 >> relation & 1 == 1
    }

    /// Number of members.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is no member.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Members of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Members of both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Members of this set that are not in the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every member of this set is in the other.
    pub fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The members in ascending order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = usize> {
        let mut rest = self.0;
        let mut members = SmallVec::<[usize; 16]>::new();
        while rest != 0 {
            members.push(rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
        members.into_iter()
    }
}

/// A relation of the graph.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Its plan, without the filters in `filters` that came from above it.
    pub plan: LogicalPlan,
    /// The scan at its bottom, where it is a base table with filters and renamings only.
    pub scan: Option<TableScan>,
    /// Every conjunct over a base table, the scan's own included, in terms of the table's unqualified columns.
    pub table_filters: Vec<Expr>,
    /// Filters from above `plan` that read this relation alone, as the query wrote them.
    pub filters: Vec<Expr>,
    /// Where it stood in the query, from the left.
    pub position: usize,
    /// Whether the rows of the physical scan are already filtered by everything in `table_filters`.
    pub filters_in_scan: bool,
    /// Columns that a projection within `plan` computes, such as common sub-expressions, over the table's columns.
    computed: Vec<(String, Expr)>,
}

impl Relation {
    /// Index of a column of this relation in the schema of its base table.
    pub fn table_column(&self, column: &Column) -> Option<usize> {
        self.scan.as_ref()?.source.schema().index_of(&column.name).ok()
    }
}

/// One side of an equi-join condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyMember {
    /// The relation.
    pub relation: usize,
    /// The expression, over columns of that relation.
    pub expr: Expr,
    /// The column of the base table, where the expression is a column or a cast of one.
    pub column: Option<usize>,
}

/// Expressions that inner joins make equal: conditions `a = b` and `b = c` give one class of three members.
#[derive(Debug, Clone, Default)]
pub struct KeyClass {
    /// The members, in ascending order of relation.
    pub members: SmallVec<[KeyMember; 4]>,
}

/// A condition over several relations that is not an equi-join key.
#[derive(Debug, Clone)]
pub struct Residual {
    /// The relations it reads.
    pub relations: RelationSet,
    /// The condition.
    pub expr: Expr,
}

/// The inner joins of a plan.
#[derive(Clone)]
pub struct JoinGraph {
    /// The relations in canonical order.
    pub relations: Vec<Relation>,
    /// Equi-join keys.
    pub classes: Vec<KeyClass>,
    /// Other conditions.
    pub residuals: Vec<Residual>,
    neighbours: Vec<RelationSet>,
}

impl fmt::Debug for JoinGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.relations.iter().map(|r| r.plan.display().to_string()).collect();
        f.debug_struct("JoinGraph").field("relations", &names).field("classes", &self.classes).finish_non_exhaustive()
    }
}

impl JoinGraph {
    /// The graph of a plan: an inner join, a filter or projection of bare columns over one, or a single relation. `None`
    /// when it has more relations than [`RelationSet::CAPACITY`].
    pub fn from_plan(plan: &LogicalPlan) -> Option<Self> {
        Self::new([plan], Vec::new())
    }

    /// The graph of `plans` joined by `conditions`; plans of inner joins are looked into. `None` when they have more relations
    /// than [`RelationSet::CAPACITY`]. [`Relation::position`] counts the relations of the plans one after the other.
    pub fn new<'p>(plans: impl IntoIterator<Item = &'p LogicalPlan>, conditions: Vec<Expr>) -> Option<Self> {
        let mut parts = Parts::default();
        plans.into_iter().for_each(|plan| parts.flatten(plan));
        parts.conditions.extend(conditions);
        (parts.leaves.len() <= RelationSet::CAPACITY).then(|| parts.into_graph())
    }

    /// Whether [`Self::from_plan`] looks through this node into its input.
    pub fn is_transparent(plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::Join(join) => {
                join.join_type == JoinType::Inner
                    && join.null_equality == NullEquality::NullEqualsNothing
                    && join.filter.as_ref().is_none_or(|filter| !is_volatile(filter))
                    && join.on.iter().all(|(left, right)| !is_volatile(left) && !is_volatile(right))
            }
            LogicalPlan::Filter(filter) => !is_volatile(&filter.predicate) && Self::is_transparent(&filter.input),
            LogicalPlan::Projection(projection) => {
                projection.expr.iter().all(|e| matches!(e, Expr::Column(_))) && Self::is_transparent(&projection.input)
            }
            _ => false,
        }
    }

    /// Whether a plan is a base table under filters, aliases and projections.
    pub fn is_base_table(plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
            LogicalPlan::Filter(filter) => Self::is_base_table(&filter.input),
            LogicalPlan::SubqueryAlias(alias) => Self::is_base_table(&alias.input),
            LogicalPlan::Projection(projection) => {
                computed_columns(projection).is_some() && Self::is_base_table(&projection.input)
            }
            _ => false,
        }
    }

    /// The graph with one more filter; `None` unless it reads exactly one relation, which is a base table.
    pub fn filtered(&self, filter: Expr) -> Option<Self> {
        let read = relations_of(&filter, &self.relations)?;
        let relation =
            read.iter().next().filter(|relation| read.len() == 1 && self.relations[*relation].scan.is_some())?;
        let mut graph = self.clone();
        graph.relations[relation].add_filter(filter);
        graph.relations[relation].table_filters.sort_by_cached_key(ToString::to_string);
        graph.relations[relation].table_filters.dedup();
        Some(graph)
    }

    /// Every relation.
    pub fn all(&self) -> RelationSet {
        RelationSet::all(self.relations.len())
    }

    /// Relations that share an equi-join key with `set` and are not in it.
    pub fn neighbours(&self, set: RelationSet) -> RelationSet {
        set.iter().fold(RelationSet::default(), |all, r| all.union(self.neighbours[r])).minus(set)
    }

    /// Whether the relations of `set` hang together by equi-join keys among themselves.
    pub fn is_connected(&self, set: RelationSet) -> bool {
        let Some(first) = set.iter().next() else { return false };
        let mut reached = RelationSet::single(first);
        loop {
            let grown = reached.union(self.neighbours(reached).intersection(set));
            if grown == reached {
                return reached == set;
            }
            reached = grown;
        }
    }

    /// The parts of the graph that hang together by equi-join keys.
    pub fn components(&self) -> Vec<RelationSet> {
        let (mut left, mut parts) = (self.all(), Vec::new());
        while let Some(first) = left.iter().next() {
            let mut part = RelationSet::single(first);
            loop {
                let around = self.neighbours(part);
                if around.is_empty() {
                    break;
                }
                part = part.union(around);
            }
            left = left.minus(part);
            parts.push(part);
        }
        parts
    }

    /// The canonical decomposition of a set of two or more relations: the relation to take away, such that the rest stays
    /// connected where that is possible. Depends on the set alone, so that a set has one estimate however it is joined.
    pub fn last(&self, set: RelationSet) -> usize {
        let connected = set.iter().rev().find(|&r| {
            let rest = set.minus(RelationSet::single(r));
            self.is_connected(rest) && !self.neighbours[r].intersection(rest).is_empty()
        });
        connected.or_else(|| set.iter().next_back()).unwrap_or(0)
    }

    /// The pairs of members that join `left` with `right`, one per key class: the first of each side.
    pub fn keys_between(&self, left: RelationSet, right: RelationSet) -> Vec<(&KeyMember, &KeyMember)> {
        let first = |class: &'_ KeyClass, set: RelationSet| class.members.iter().position(|m| set.contains(m.relation));
        self.classes
            .iter()
            .filter_map(|class| Some((&class.members[first(class, left)?], &class.members[first(class, right)?])))
            .collect()
    }

    /// All connected sets of at most `limit` sets, smaller sets first; `None` when there are more.
    pub fn connected_sets(&self, limit: usize) -> Option<Vec<RelationSet>> {
        let mut level: Vec<RelationSet> = (0..self.relations.len()).map(RelationSet::single).collect();
        let mut all = level.clone();
        while !level.is_empty() {
            let mut next = std::collections::BTreeSet::new();
            for set in level {
                for r in self.neighbours(set).iter() {
                    next.insert(set.union(RelationSet::single(r)));
                    if all.len() + next.len() > limit {
                        return None;
                    }
                }
            }
            level = next.into_iter().collect();
            all.extend(&level);
        }
        Some(all)
    }
}

#[derive(Default)]
struct Parts {
    leaves: Vec<LogicalPlan>,
    conditions: Vec<Expr>,
}

impl Parts {
    fn flatten(&mut self, plan: &LogicalPlan) {
        if !JoinGraph::is_transparent(plan) {
            self.leaves.push(plan.clone());
            return;
        }
        match plan {
            LogicalPlan::Join(join) => {
                self.flatten(&join.left);
                self.flatten(&join.right);
                self.conditions.extend(join.on.iter().map(|(l, r)| l.clone().eq(r.clone())));
                self.conditions.extend(join.filter.iter().flat_map(split_conjunction).cloned());
            }
            LogicalPlan::Filter(filter) => {
                self.flatten(&filter.input);
                self.conditions.extend(split_conjunction(&filter.predicate).into_iter().cloned());
            }
            LogicalPlan::Projection(projection) => self.flatten(&projection.input),
            _ => self.leaves.push(plan.clone()),
        }
    }

    fn into_graph(self) -> JoinGraph {
        let mut relations: Vec<Relation> =
            self.leaves.into_iter().enumerate().map(|(position, plan)| relation(plan, position)).collect();
        let mut pairs = Vec::new();
        let mut residuals = Vec::new();
        for condition in self.conditions {
            let read = relations_of(&condition, &relations);
            let members: SmallVec<[usize; 4]> = read.iter().flat_map(|set| set.iter()).collect();
            match (&condition, members.as_slice()) {
                (_, [one]) => relations[*one].add_filter(condition),
                (Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }), [_, _]) => {
                    let side = |e: &Expr| {
                        let set = relations_of(e, &relations)?;
                        (set.len() == 1).then(|| set.iter().next()).flatten()
                    };
                    match (side(left), side(right)) {
                        (Some(l), Some(r)) if l != r => pairs.push(((l, (**left).clone()), (r, (**right).clone()))),
                        _ => residuals.push((read, condition)),
                    }
                }
                _ => residuals.push((read, condition)),
            }
        }

        // Canonical order: by table, and where a table comes more than once by filters, then by the columns it is joined on.
        let names: Vec<String> = relations.iter().map(Relation::sort_name).collect();
        let is_repeated = |relation: usize| names.iter().filter(|name| **name == names[relation]).count() > 1;
        let repeated: Vec<bool> = (0..relations.len()).map(is_repeated).collect();
        let mut joined_on: Vec<Vec<String>> = vec![Vec::new(); relations.len()];
        for ((l, left), (r, right)) in &pairs {
            for (one, key, other) in [(*l, left, *r), (*r, right, *l)] {
                if repeated[one] {
                    joined_on[one].push(format!("{} {}", names[other], unqualified(key)));
                }
            }
        }
        let mut keyed: Vec<(&str, Vec<String>, Vec<String>, usize)> = Vec::with_capacity(relations.len());
        for (i, relation) in relations.iter().enumerate() {
            let filters = relation.table_filters.iter().filter(|_| repeated[i]);
            let mut filters: Vec<String> = filters.map(ToString::to_string).collect();
            filters.sort_unstable();
            let mut joined = std::mem::take(&mut joined_on[i]);
            joined.sort_unstable();
            keyed.push((&names[i], filters, joined, i));
        }
        keyed.sort();
        let mut new_index = vec![0; relations.len()];
        for (new, key) in keyed.iter().enumerate() {
            new_index[key.3] = new;
        }
        relations.sort_by_key(|relation| new_index[relation.position]);

        let mut classes = key_classes(pairs, &new_index, &relations);
        classes.sort_by_cached_key(|class| {
            class.members.iter().map(|m| (m.relation, unqualified(&m.expr))).collect::<Vec<_>>()
        });
        let mut neighbours = vec![RelationSet::default(); relations.len()];
        for class in &classes {
            let members =
                class.members.iter().fold(RelationSet::default(), |s, m| s.union(RelationSet::single(m.relation)));
            for r in members.iter() {
                neighbours[r] = neighbours[r].union(members.minus(RelationSet::single(r)));
            }
        }
        let everything = RelationSet::all(relations.len());
        let residuals = residuals
            .into_iter()
            .map(|(read, expr)| Residual {
                relations: read.map_or(everything, |set| {
                    set.iter().fold(RelationSet::default(), |all, r| all.union(RelationSet::single(new_index[r])))
                }),
                expr,
            })
            .collect();
        JoinGraph { relations, classes, residuals, neighbours }
    }
}

impl Relation {
    fn add_filter(&mut self, filter: Expr) {
        if self.scan.is_some() {
            self.table_filters.push(over_table(filter.clone(), &self.computed));
            self.table_filters.dedup();
        }
        self.filters_in_scan = false;
        self.filters.push(filter);
    }

    fn sort_name(&self) -> String {
        match &self.scan {
            Some(scan) => scan.table_name.to_string(),
            None => self.plan.display().to_string(),
        }
    }
}

/// Reads a leaf: a base table under filters, aliases and projections, or anything else.
fn relation(plan: LogicalPlan, position: usize) -> Relation {
    let mut filters: Vec<Expr> = Vec::new();
    let mut computed: Vec<(String, Expr)> = Vec::new();
    let mut filters_in_scan = true;
    let mut node = &plan;
    let scan = loop {
        match node {
            LogicalPlan::TableScan(scan) => break (scan.fetch.is_none()).then(|| scan.clone()),
            LogicalPlan::Filter(filter) => {
                filters.extend(split_conjunction(&filter.predicate).into_iter().cloned());
                filters_in_scan = false;
                node = &filter.input;
            }
            LogicalPlan::SubqueryAlias(alias) => node = &alias.input,
            LogicalPlan::Projection(projection) => {
                let Some(own) = computed_columns(projection) else { break None };
                filters = filters.into_iter().map(|filter| over_table(filter, &own)).collect();
                computed.iter_mut().for_each(|(_, expr)| *expr = over_table(expr.clone(), &own));
                computed.extend(own);
                node = &projection.input;
            }
            _ => break None,
        }
    };
    // A computed column with the name of another one of the table would be taken for it.
    let scan = scan.filter(|scan| computed.iter().all(|(name, _)| scan.source.schema().index_of(name).is_err()));
    let mut table_filters = Vec::new();
    if let Some(scan) = &scan {
        // A filter that the scan may not apply exactly stands above it as well.
        for filter in scan.filters.iter().flat_map(split_conjunction) {
            if !filters.contains(filter) {
                filters.push(filter.clone());
            }
        }
        for filter in filters {
            let filter = without_qualifiers(filter);
            if !table_filters.contains(&filter) {
                table_filters.push(filter);
            }
        }
        table_filters.sort_by_cached_key(ToString::to_string);
    }
    Relation { plan, scan, table_filters, filters: Vec::new(), position, filters_in_scan, computed }
}

/// The columns of a projection that are not just passed on; `None` when one is renamed or cannot be evaluated twice.
fn computed_columns(projection: &Projection) -> Option<Vec<(String, Expr)>> {
    let computed = projection.expr.iter().filter(|e| !matches!(e, Expr::Column(_)));
    computed
        .map(|e| match e {
            Expr::Alias(alias) if !matches!(*alias.expr, Expr::Column(_)) && !is_volatile(&alias.expr) => {
                Some((alias.name.clone(), (*alias.expr).clone()))
            }
            _ => None,
        })
        .collect()
}

/// The relations whose columns `expr` reads; `None` when a column belongs to none of them.
fn relations_of(expr: &Expr, relations: &[Relation]) -> Option<RelationSet> {
    expr.column_refs().into_iter().try_fold(RelationSet::default(), |set, column| {
        let owner = relations.iter().position(|r| r.plan.schema().has_column(column))?;
        Some(set.union(RelationSet::single(owner)))
    })
}

type Side = (usize, Expr);

/// Joins the equal pairs into classes by their transitive closure.
fn key_classes(pairs: Vec<(Side, Side)>, new_index: &[usize], relations: &[Relation]) -> Vec<KeyClass> {
    let mut ids: BTreeMap<(usize, String), usize> = BTreeMap::new();
    let mut members: Vec<KeyMember> = Vec::new();
    let mut parent: Vec<usize> = Vec::new();
    let mut add = |(relation, expr): Side, parent: &mut Vec<usize>| {
        let relation = new_index[relation];
        *ids.entry((relation, expr.to_string())).or_insert_with(|| {
            let column = column_of(&expr).and_then(|column| relations[relation].table_column(column));
            members.push(KeyMember { relation, expr, column });
            parent.push(parent.len());
            parent.len() - 1
        })
    };
    let find = |parent: &[usize], mut i: usize| {
        while parent[i] != i {
            i = parent[i];
        }
        i
    };
    for (left, right) in pairs {
        let (l, r) = (add(left, &mut parent), add(right, &mut parent));
        let (l, r) = (find(&parent, l), find(&parent, r));
        parent[l.max(r)] = l.min(r);
    }
    let mut classes: BTreeMap<usize, KeyClass> = BTreeMap::new();
    for (i, member) in members.into_iter().enumerate() {
        classes.entry(find(&parent, i)).or_default().members.push(member);
    }
    let mut classes: Vec<KeyClass> = classes.into_values().collect();
    for class in &mut classes {
        class.members.sort_by_cached_key(|m| (m.relation, unqualified(&m.expr)));
    }
    classes
}

/// The column that an expression is, casts aside.
pub fn column_of(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) => column_of(&cast.expr),
        Expr::TryCast(cast) => column_of(&cast.expr),
        Expr::Alias(alias) => column_of(&alias.expr),
        _ => None,
    }
}

/// Whether the casts around a column of this type leave its values and their order as they are.
pub(crate) fn keeps_values_in_order(expr: &Expr, column: &DataType) -> bool {
    fn of_type<'a>(expr: &'a Expr, column: &'a DataType) -> Option<&'a DataType> {
        let (inner, target, or_null) = match expr {
            Expr::Column(_) => return Some(column),
            Expr::Alias(alias) => return of_type(&alias.expr, column),
            Expr::Cast(cast) => (&cast.expr, cast.field.data_type(), false),
            Expr::TryCast(cast) => (&cast.expr, cast.field.data_type(), true),
            _ => return None,
        };
        is_faithful(of_type(inner, column)?, target, or_null).then_some(target)
    }
    of_type(expr, column).is_some()
}

/// Whether a cast keeps values and their order; one that may fail makes them NULL where it is `or_null`.
fn is_faithful(from: &DataType, to: &DataType, or_null: bool) -> bool {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (from, to) {
        _ if from == to => true,
        (DataType::Dictionary(_, values), _) => is_faithful(values, to, or_null),
        (DataType::Boolean, _) => to.is_integer() || to.is_floating(),
        _ if from.is_integer() && to.is_integer() => {
            let wider = to.primitive_width() > from.primitive_width();
            !or_null || (wider && (to.is_signed_integer() || from.is_unsigned_integer()))
        }
        _ if from.is_integer() => to.is_floating() || (to.is_decimal() && !or_null),
        _ if from.is_floating() => to.is_floating() && to.primitive_width() >= from.primitive_width(),
        (
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale),
            DataType::Decimal128(_, kept) | DataType::Decimal256(_, kept),
        ) => kept >= scale && !or_null,
        _ if from.is_decimal() => to.is_floating(),
        (DataType::Date32, DataType::Timestamp(_, None)) => true,
        (DataType::Timestamp(unit, zone), DataType::Timestamp(finer, same)) => finer >= unit && zone == same,
        _ => is_text(from) && is_text(to),
    }
}

/// `expr` with every column unqualified.
fn without_qualifiers(expr: Expr) -> Expr {
    over_table(expr, &[])
}

/// `expr` with every column unqualified and the computed ones replaced by what computes them.
fn over_table(expr: Expr, computed: &[(String, Expr)]) -> Expr {
    let original = expr.clone();
    expr.transform_up(|e| {
        Ok(match e {
            Expr::Column(column) => Transformed::yes(match computed.iter().find(|(name, _)| *name == column.name) {
                Some((_, expr)) => without_qualifiers(expr.clone()),
                None => Expr::Column(Column::new_unqualified(column.name)),
            }),
            other => Transformed::no(other),
        })
    })
    .map_or(original, |transformed| transformed.data)
}

fn unqualified(expr: &Expr) -> String {
    without_qualifiers(expr.clone()).to_string()
}

/// Whether an expression may not be moved or evaluated twice: volatile functions and subqueries.
pub fn is_volatile(expr: &Expr) -> bool {
    let mut found = expr.is_volatile();
    let _ = expr.apply(|e| {
        if matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::OuterReferenceColumn(..))
        {
            found = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
