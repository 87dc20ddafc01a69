//! A query -> its feature graph with exact counts.

use anyhow::Result;
use datafusion::common::JoinType;
use datafusion::prelude::SessionContext;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use relata_featurize::analytical::JoinEstimator;
use relata_featurize::answer::{AggregateFunction, estimate_answer};
use relata_featurize::join_graph::{JoinGraph, RelationSet};
use relata_featurize::logical::{Tables, log_rows, query_graph};
use relata_featurize::profile::ProfileConfig;
use relata_featurize::relative::TableInput;
use relata_featurize::trace::{LabelledAnswer, LabelledGraph};

use crate::count::{Counter, GraphReader, KeyCodes, aggregate, count_groups, count_outer};
use crate::database::Database;
use crate::planned::{OuterJoin, Planned, labelling_context};
use crate::profiles::DatabaseProfiles;
use crate::queries::{Kind, Query};

/// Larger results are not labelled: nobody asks such queries, and those of the corpus have fewer rows as well.
const MOST_ROWS: f64 = 1e9;

/// Results above this are kept less often.
const LARGE: f64 = 3e6;

/// A group query over several relations is run to count its groups; this many joined rows at most.
const MOST_EXECUTED_ROWS: f64 = 2e6;

/// Share of the queries without a result that are kept: most would teach nothing but the value zero.
const EMPTY_KEPT: f64 = 0.05;

/// Aggregates of fewer rows are not asked for, as in the corpus.
const FEWEST_AGGREGATED: f64 = 20.0;

/// More sets than this are not listed; a query then has the labels of one join order only.
const MOST_LISTED_SETS: usize = 4096;

/// What became of a query.
#[derive(Debug)]
pub enum Outcome {
    /// Its labels.
    Labelled(Box<LabelledQuery>),
    /// Nothing, and why.
    Skipped(Skip),
}

/// A query with exact counts.
#[derive(Debug)]
pub struct LabelledQuery {
    /// The feature graph of its inner joins and groups with the labels of the nodes.
    pub graph: LabelledGraph,
    /// Rows of the inner join of all its relations.
    pub joined: f64,
    /// Rows of its result, or under an aggregate of everything the rows that are aggregated.
    pub rows: f64,
    /// The aggregate of everything, COUNT(*) aside; `None` without one, or where there is no value to aggregate.
    pub answer: Option<f64>,
    /// What a model is to learn of it; the query's index is still to be filled in.
    pub labelled_answer: Option<LabelledAnswer>,
    /// Rows of the inner joins of some of its relations, by their names in the query.
    pub sub_joins: Vec<(Vec<String>, f64)>,
}

/// Why a query has no labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// No rows, and the lot fell on it.
    Empty,
    /// More rows than wanted.
    TooLarge,
    /// Too few rows to aggregate.
    TooSmall,
    /// The plan is no join of base tables, or a count is out of reach.
    Unsupported,
    /// DataFusion could not plan or evaluate it.
    Failed,
    /// The generator found no such query.
    DeadEnd,
}

impl Skip {
    /// Every reason.
    pub const ALL: [Skip; 6] =
        [Skip::Empty, Skip::TooLarge, Skip::TooSmall, Skip::Unsupported, Skip::Failed, Skip::DeadEnd];

    /// The reason in words.
    pub const fn name(self) -> &'static str {
        match self {
            Skip::Empty => "empty",
            Skip::TooLarge => "too large",
            Skip::TooSmall => "too small",
            Skip::Unsupported => "unsupported",
            Skip::Failed => "failed",
            Skip::DeadEnd => "dead ends",
        }
    }
}

/// Labels the queries of one database.
pub struct Labeller<'a> {
    database: &'a Database,
    context: SessionContext,
    reader: GraphReader,
    profiles: DatabaseProfiles,
    keys: KeyCodes,
    tables: Tables,
    random: StdRng,
    most_sets: usize,
}

impl std::fmt::Debug for Labeller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Labeller").field("database", &self.database.name).finish_non_exhaustive()
    }
}

impl<'a> Labeller<'a> {
    /// Profiles the tables of a database as `config` says; graphs have at most `most_sets` labelled sets of relations.
    ///
    /// # Errors
    /// When a table cannot be profiled or registered.
    pub fn new(database: &'a Database, seed: u64, most_sets: usize, config: &ProfileConfig) -> Result<Self> {
        let context = labelling_context();
        database.register(&context)?;
        let profiles = DatabaseProfiles::new(database, config)?;
        Ok(Self {
            database,
            context,
            reader: GraphReader::new(database)?,
            profiles,
            keys: KeyCodes::default(),
            tables: Tables::default(),
            random: StdRng::seed_from_u64(seed),
            most_sets,
        })
    }

    /// Plans a query, counts its result and the sets of relations in it, and writes its feature graph.
    ///
    /// # Errors
    /// When DataFusion cannot plan or run the query or evaluate a filter.
    pub async fn label(&mut self, query: &Query) -> Result<Outcome> {
        let Some(planned) = Planned::new(&self.context, &query.sql).await? else { return skip(Skip::Unsupported) };
        let graph = &planned.graph;
        let Some((relations, edges)) = self.reader.read(self.database, graph)? else { return skip(Skip::Unsupported) };
        let outer_rows = planned.outer.map(|outer| count_outer(&relations, &edges, &mut self.keys, &outer));
        let mut counter = Counter::new(&relations, &edges, &mut self.keys);
        let Some(joined) = counter.count(graph.all().0) else { return skip(Skip::Unsupported) };
        let Some(mut rows) = outer_rows.unwrap_or(Some(joined)) else { return skip(Skip::Unsupported) };
        // Large results get rarer long before the limit, as in the corpus.
        let larger = joined.max(rows);
        if larger > MOST_ROWS || (larger > LARGE && !self.random.random_bool((LARGE / larger).sqrt())) {
            return skip(Skip::TooLarge);
        }
        if rows < 0.5 && !self.random.random_bool(EMPTY_KEPT) {
            return skip(Skip::Empty);
        }
        if query.kind == Kind::Aqp && rows < FEWEST_AGGREGATED {
            return skip(Skip::TooSmall);
        }
        let mut groups = None;
        if let Some(columns) = &planned.groups {
            let columns: Vec<(usize, usize)> = columns.iter().map(|group| (group.relation, group.column)).collect();
            // A semi join keeps every group of the inner join; DISTINCT over a join becomes one.
            let semi = |outer: OuterJoin| matches!(outer.join_type, JoinType::LeftSemi | JoinType::RightSemi);
            let all_groups = planned.outer.is_none_or(semi) && !planned.having;
            let counted = if all_groups { count_groups(&mut counter, graph.all().0, &columns)? } else { None };
            rows = match counted {
                Some(groups) => groups,
                None if larger > MOST_EXECUTED_ROWS => return skip(Skip::TooLarge),
                None => {
                    let batches = self.context.sql(&query.sql).await?.collect().await?;
                    batches.iter().map(|batch| batch.num_rows() as f64).sum()
                }
            };
            groups = all_groups.then_some(rows);
        }
        let answer = match &planned.aggregate {
            Some(_) if planned.outer.is_some() => return skip(Skip::Unsupported),
            Some(aggregation) => match aggregate(&mut counter, graph.all().0, aggregation)? {
                None => return skip(Skip::TooSmall),
                answer => answer,
            },
            None => None,
        };
        rows = planned.limit.map_or(rows, |limit| rows.min(limit as f64));
        let sets = choose_sets(graph, self.most_sets, &mut self.random);
        let estimator = JoinEstimator::new(graph, &self.profiles);
        let Some(written) = query_graph(&estimator, &sets, planned.groups.as_deref(), &mut self.tables) else {
            return skip(Skip::Unsupported);
        };
        let mut labels = vec![None; written.graph.nodes.len()];
        let mut sub_joins = vec![];
        for (set, node) in &written.sets {
            let count = counter.count(set.0);
            labels[*node as usize] = count.map(log_rows);
            let names: Option<Vec<String>> = set.iter().map(|relation| name_of(&graph.relations[relation])).collect();
            sub_joins.extend(names.zip(count));
        }
        if let (Some(node), Some(groups)) = (written.aggregate, groups) {
            labels[node as usize] = Some(log_rows(groups));
        }
        let mut labelled_answer = None;
        if let (Some(aggregation), Some((answer, values))) = (&planned.aggregate, answer) {
            let whole = written.sets.iter().find(|(set, _)| *set == graph.all()).map(|(_, node)| *node);
            let base = whole.and_then(|node| written.graph.nodes[node as usize].base).map(|base| f64::from(base).exp());
            let estimate = base.and_then(|rows| {
                estimate_answer(&estimator, graph.all(), rows, aggregation.function, &aggregation.value)
            });
            let columns = aggregation.value.columns().map(|(relation, column)| {
                let profile = estimator.relations[relation].profile.as_ref()?;
                Some((self.tables.index(profile), column as u32))
            });
            // What is known exactly teaches nothing; a sum is the mean times the values.
            let answer = if aggregation.function == AggregateFunction::Sum { answer / values } else { answer };
            labelled_answer =
                estimate.filter(|estimate| estimate.exact.is_none()).zip(whole).and_then(|(estimate, node)| {
                    Some(LabelledAnswer {
                        query: 0,
                        node,
                        form: estimate.form(),
                        columns: columns.collect::<Option<_>>()?,
                        features: estimate.features().to_vec(),
                        residual: estimate.residual(answer) as f32,
                    })
                });
        }
        let answer = answer.map(|(answer, _)| answer);
        let graph = LabelledGraph { graph: written.graph, labels, relations: graph.relations.len() as u32 };
        Ok(Outcome::Labelled(Box::new(LabelledQuery { graph, joined, rows, answer, labelled_answer, sub_joins })))
    }

    /// The inputs of the data expert for the tables of everything labelled so far.
    pub fn into_tables(self) -> Vec<TableInput> {
        self.tables.profiles.iter().map(|profile| TableInput::new(profile)).collect()
    }
}

/// What a query calls a relation.
fn name_of(relation: &relata_featurize::join_graph::Relation) -> Option<String> {
    let (qualifier, _) = relation.plan.schema().iter().next()?;
    Some(qualifier?.table().to_owned())
}

fn skip(reason: Skip) -> Result<Outcome> {
    Ok(Outcome::Skipped(reason))
}

/// All connected sets if there are few; else the whole, random others, and what their canonical decompositions need.
fn choose_sets(graph: &JoinGraph, most: usize, random: &mut StdRng) -> Vec<RelationSet> {
    let mut listed: Vec<RelationSet> =
        graph.connected_sets(MOST_LISTED_SETS).unwrap_or_default().into_iter().filter(|set| set.len() > 1).collect();
    if listed.len() <= most && !listed.is_empty() {
        return listed;
    }
    listed.shuffle(random);
    let mut chosen: Vec<RelationSet> = vec![];
    for start in std::iter::once(graph.all()).chain(listed) {
        let mut needed = vec![];
        let mut set = start;
        while set.len() > 1 && !chosen.contains(&set) {
            needed.push(set);
            set = set.minus(RelationSet::single(graph.last(set)));
        }
        if chosen.is_empty() || chosen.len() + needed.len() <= most {
            chosen.extend(needed);
        }
        if chosen.len() >= most {
            break;
        }
    }
    chosen.sort_unstable_by_key(|set| (set.len(), *set));
    chosen
}

#[cfg(test)]
mod tests;
