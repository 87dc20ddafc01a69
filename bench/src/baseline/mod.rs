//! A linear model on the features of the plan expert: the contender that says what learning is worth without a network.
//!
//! Per kind of node (filter, join, aggregate) a ridge regression of the log-residual of the analytical estimate on a flat
//! vector: the node's own features and the sums of the filters' and joins' features below it. It is fitted on the traces
//! that the experts are trained on, by `relata-bench baseline`; the coefficients are a small file in the
//! repository.

pub mod fit;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use datafusion::prelude::SessionContext;
use relata_featurize::analytical::JoinEstimator;
use relata_featurize::graph::{FeatureGraph, LAYOUT_VERSION, NodeKind};
use relata_featurize::join_graph::RelationSet;
use relata_featurize::logical::{Tables, query_graph};
use relata_featurize::profile::ProfileConfig;
use serde::{Deserialize, Serialize};

use crate::corpus::CorpusQuery;
use crate::database::Database;
use crate::planned::{Planned, labelling_context};
use crate::profiles::DatabaseProfiles;
use crate::score::contender::{Contender, Prediction};

/// The coefficients in the repository.
const STORED: &str = include_str!("../../baseline/linear.json");

/// The largest correction of the analytical estimate, in ln space; relata's own.
const LARGEST_CORRECTION: f32 = 14.0;

/// A regression of the log-residual of one kind of node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// The residual where all features have their mean.
    pub intercept: f32,
    /// Mean of each feature among the fitted nodes.
    pub means: Vec<f32>,
    /// Residual per unit of each feature.
    pub slopes: Vec<f32>,
    /// Nodes it was fitted on.
    pub nodes: usize,
    /// Root of the mean square residual before and after.
    pub deviation: (f32, f32),
}

/// The regressions of all kinds, and where they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// Version of the features.
    pub layout: u32,
    /// The command that fitted it.
    pub command: String,
    /// Commit of the source it was fitted with.
    pub commit: Option<String>,
    /// Number of databases in the traces.
    pub databases: usize,
    /// The ridge's penalty per node.
    pub penalty: f64,
    /// By the kind of node: filter, join, aggregate.
    pub regressions: [Option<Regression>; 3],
}

impl Linear {
    /// The coefficients in the repository.
    ///
    /// # Errors
    /// When they belong to another layout of the features.
    pub fn stored() -> Result<Self> {
        Self::parse(STORED).context("baseline/linear.json")
    }

    /// The coefficients in a file.
    ///
    /// # Errors
    /// When the file cannot be read, or belongs to another layout of the features.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let linear: Self = serde_json::from_str(text)?;
        ensure!(
            linear.layout == LAYOUT_VERSION,
            "the linear baseline has feature layout {}, this build {LAYOUT_VERSION}: run relata-bench baseline",
            linear.layout
        );
        Ok(linear)
    }

    /// Rows of the last node of a graph; `None` where its kind was not fitted.
    fn rows(&self, graph: &FeatureGraph) -> Option<f64> {
        let node = graph.nodes.len().checked_sub(1)?;
        let regression = self.regressions[place(graph.nodes[node].kind)?].as_ref()?;
        let features = flat(graph).pop()??;
        let terms = features.iter().zip(&regression.means).zip(&regression.slopes);
        let residual: f32 = regression.intercept + terms.map(|((x, mean), slope)| (x - mean) * slope).sum::<f32>();
        let residual = residual.clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION);
        Some(f64::from(graph.nodes[node].base? + residual).exp())
    }
}

/// The place of a kind among the regressions.
fn place(kind: NodeKind) -> Option<usize> {
    [NodeKind::Filter, NodeKind::Join, NodeKind::Aggregate].iter().position(|known| *known == kind)
}

/// Of every node that has an estimate, its features, the sum of the filters' features below it and of the joins', and its
/// analytical estimate. `[N][F]`
fn flat(graph: &FeatureGraph) -> Vec<Option<Vec<f32>>> {
    let (filter, join) = (NodeKind::Filter.features(), NodeKind::Join.features());
    let mut sums: Vec<Vec<f32>> = Vec::with_capacity(graph.nodes.len());
    let mut all = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let mut sum = vec![0.0; filter + join];
        for edge in &node.inputs {
            // Columns and predicates have no sums.
            sum.iter_mut().zip(&sums[edge.input as usize]).for_each(|(sum, value)| *sum += value);
        }
        let features = place(node.kind).map(|_| {
            node.features.iter().chain(&sum).copied().chain([node.base.unwrap_or(0.0) / 10.0]).collect::<Vec<f32>>()
        });
        match node.kind {
            NodeKind::Filter => sum[..filter].iter_mut().zip(&node.features).for_each(|(sum, value)| *sum += value),
            NodeKind::Join => sum[filter..].iter_mut().zip(&node.features).for_each(|(sum, value)| *sum += value),
            _ => {}
        }
        sums.push(sum);
        all.push(features);
    }
    all
}

/// The linear model over one database.
pub(crate) struct LinearContender {
    linear: Linear,
    context: SessionContext,
    profiles: DatabaseProfiles,
}

impl LinearContender {
    /// Profiles the tables of a folder.
    ///
    /// # Errors
    /// When the folder cannot be read or a table cannot be profiled.
    pub(crate) fn new(linear: Linear, folder: &Path) -> Result<Self> {
        let database = Database::from_folder(folder)?;
        let context = labelling_context();
        database.register(&context)?;
        let profiles = DatabaseProfiles::new(&database, &ProfileConfig::default())?;
        Ok(Self { linear, context, profiles })
    }
}

#[async_trait]
impl Contender for LinearContender {
    fn name(&self) -> &str {
        "linear"
    }

    async fn estimate(&self, query: &CorpusQuery) -> Result<Option<Prediction>> {
        let Some(planned) = Planned::new(&self.context, &query.sql).await? else { return Ok(None) };
        let graph = &planned.graph;
        let estimator = JoinEstimator::new(graph, &self.profiles);
        // The whole and the rest of each canonical decomposition, smaller sets first.
        let mut sets = vec![];
        let mut set = graph.all();
        while set.len() > 1 {
            sets.push(set);
            set = set.minus(RelationSet::single(graph.last(set)));
        }
        sets.reverse();
        let written = query_graph(&estimator, &sets, planned.groups.as_deref(), &mut Tables::default());
        let rows = written.and_then(|written| self.linear.rows(&written.graph));
        Ok(rows.map(|rows| Prediction { rows, interval: None, planning_us: None }))
    }
}

#[cfg(test)]
mod tests {
    use relata_featurize::graph::{Edge, EmbeddingRef, Node};
    use smallvec::smallvec;

    use super::*;

    /// A join of two filters.
    fn graph() -> FeatureGraph {
        let mut graph = FeatureGraph::default();
        let node = |kind: NodeKind, inputs| Node {
            kind,
            features: std::iter::repeat_n(1.0, kind.features()).collect(),
            inputs,
            embedding: EmbeddingRef::None,
            base: Some(2.0),
        };
        graph.push(node(NodeKind::Filter, smallvec![]));
        graph.push(node(NodeKind::Filter, smallvec![]));
        graph.push(node(NodeKind::Join, smallvec![Edge { input: 0, role: 0 }, Edge { input: 1, role: 1 }]));
        graph
    }

    #[test]
    fn nodes_sum_what_is_below_them() {
        let flat = flat(&graph());
        let (own, filters) = (NodeKind::Join.features(), NodeKind::Filter.features());
        let join = flat[2].as_ref().unwrap();
        assert_eq!(join.len(), own + filters + own + 1);
        assert!(join[own..own + filters].iter().all(|sum| (sum - 2.0).abs() < 1e-6));
        assert!(join[own + filters..own + filters + own].iter().all(|sum| sum.abs() < 1e-6));
    }

    #[test]
    fn coefficients_of_another_layout_are_refused() {
        let stored: Linear = serde_json::from_str(STORED).unwrap();
        let of = |layout| serde_json::to_string(&Linear { layout, ..stored.clone() }).unwrap();
        let refused = Linear::parse(&of(LAYOUT_VERSION + 1)).unwrap_err().to_string();
        assert!(refused.contains("run relata-bench baseline"), "{refused}");
        let linear = Linear::parse(&of(LAYOUT_VERSION)).unwrap();
        let regressions: Vec<&Regression> = linear.regressions.iter().flatten().collect();
        assert_eq!(regressions.len(), 3);
        assert!(regressions.iter().all(|r| r.means.len() == r.slopes.len() && r.nodes > 0));
        assert!(linear.rows(&graph()).is_some_and(f64::is_finite));
    }
}
