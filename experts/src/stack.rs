//! The stacked experts: the whole forward path on one page.
//!
//! table input -> data expert -> table and column embeddings -> logical expert -> node states -> cardinality head.
//! The physical expert ([`crate::physical`]) reads the cardinalities, not the states.

use ndarray::Array2;
use relata_featurize::graph::{EmbeddingRef, FeatureGraph, NodeKind};
use relata_featurize::relative::TableInput;

use crate::Result;
use crate::config::{ExpertConfig, Module};
use crate::data::{DataExpert, TableEmbedding};
use crate::error::{ExpertsError, check_finite, check_length};
use crate::heads::{CardinalityHead, CardinalityQuantiles, ConformalOffset, calibration_bucket};
use crate::logical::LogicalExpert;
use crate::message_passing::{self, Schedule};
use crate::mlp::Mlp;
use crate::tuned::TunedManifest;
use crate::weights::{self, Manifest};

/// The experts with their weights.
///
/// It is immutable and shared freely between threads; the same weights and inputs give the same numbers on one machine.
#[derive(Debug, Clone)]
pub struct ExpertStack {
    config: ExpertConfig,
    manifest: Option<Manifest>,
    data: DataExpert,
    logical: LogicalExpert,
    cardinality: CardinalityHead,
    pub(crate) tuned: Option<TunedManifest>,
}

/// What the stack says about a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanEstimates {
    /// The state of each node: `[N, D]`.
    pub states: Array2<f32>,
    /// The cardinality of each node that has one, relative to its analytical estimate: `[N]`.
    pub cardinalities: Vec<Option<CardinalityQuantiles>>,
}

impl ExpertStack {
    /// The stack with the weights that ship with this crate.
    ///
    /// # Errors
    ///
    /// See [`Self::from_bytes`]; a released crate has none.
    pub fn pretrained() -> Result<Self> {
        Self::from_bytes(weights::PRETRAINED_WEIGHTS, weights::PRETRAINED_MANIFEST)
    }

    /// The stack of a weight file and its manifest, above the data expert that ships with this crate.
    ///
    /// # Errors
    ///
    /// Whatever makes the weights unusable: damage, another checksum than the manifest's, another feature layout, training
    /// above another data expert, tensors that do not fit the configuration or are not finite.
    pub fn from_bytes(weights: &[u8], manifest: &[u8]) -> Result<Self> {
        Self::above(DataExpert::pretrained()?, weights, manifest)
    }

    /// The stack of a weight file and its manifest, above a data expert.
    ///
    /// # Errors
    ///
    /// See [`Self::from_bytes`].
    pub fn above(data: DataExpert, weights: &[u8], manifest: &[u8]) -> Result<Self> {
        let (manifest, parameters) = weights::load(weights, manifest)?;
        let found = data.manifest().map_or_else(String::new, |data| data.sha256.clone());
        if found != manifest.data_sha256 {
            return Err(ExpertsError::Checksum { expected: manifest.data_sha256, found });
        }
        let mut stack = Self::from_parameters(data, &manifest.config, &parameters, &manifest.conformal)?;
        stack.manifest = Some(manifest);
        Ok(stack)
    }

    /// The stack of a data expert and a flat parameter vector, in the order of [`ExpertConfig::parameters`].
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`], [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`].
    pub fn from_parameters(
        data: DataExpert,
        config: &ExpertConfig,
        parameters: &[f32],
        conformal: &[ConformalOffset],
    ) -> Result<Self> {
        config.validate()?;
        check_length("embeddings of the data expert", config.embedding, data.config().width)?;
        check_length("parameters", config.parameter_count(), parameters.len())?;
        check_finite("the parameter vector", parameters)?;
        let shapes = config.shapes();
        let mlp = |module: Module| Mlp::of(module, &shapes, parameters);
        Ok(Self {
            config: config.clone(),
            manifest: None,
            tuned: None,
            data,
            logical: LogicalExpert::new(config, mlp),
            cardinality: CardinalityHead::new(mlp(Module::Cardinality), conformal),
        })
    }

    /// The flat parameter vector above the data expert, as [`Self::from_parameters`] takes it.
    pub fn parameters(&self) -> Vec<f32> {
        self.logical.parameters().chain(self.cardinality.parameters()).collect()
    }

    /// The calibration of its intervals, per [`calibration_bucket`].
    pub fn conformal(&self) -> &[ConformalOffset] {
        self.cardinality.conformal()
    }

    /// The sizes.
    pub fn config(&self) -> &ExpertConfig {
        &self.config
    }

    /// The data expert.
    pub fn data(&self) -> &DataExpert {
        &self.data
    }

    /// D: length of states.
    pub fn width(&self) -> usize {
        self.config.width
    }

    /// Where the weights come from, if they were loaded from a file.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Embeds a table and its columns; see [`DataExpert::embed`].
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`] for a malformed input.
    pub fn embed_table(&self, input: &TableInput) -> Result<TableEmbedding> {
        self.data.embed(input)
    }

    /// The state of one node from the summed states of its roles, for use during enumeration; see [`LogicalExpert::step`].
    ///
    /// # Shapes
    ///
    /// `features: [F]`, `embedding` of the data expert's width, `roles: [roles][D]` -> `out: [D]`
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`].
    pub fn step(
        &self,
        kind: NodeKind,
        features: &[f32],
        embedding: Option<&[f32]>,
        roles: &[&[f32]],
        out: &mut [f32],
    ) -> Result<()> {
        self.logical.step(kind, features, embedding, roles, out)
    }

    /// The cardinality of a node of this kind above `joins` joins, relative to its analytical estimate: `state: [D]`.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Shape`] if the state has another length, [`ExpertsError::NotFinite`] if it or the result is not finite.
    pub fn cardinality(&self, kind: NodeKind, state: &[f32], joins: usize) -> Result<CardinalityQuantiles> {
        check_length("state of a node", self.width(), state.len())?;
        check_finite("the state of a node", state)?;
        let quantiles = self.cardinality.quantiles(state, calibration_bucket(kind, joins));
        check_finite("a cardinality", &quantiles.values())?;
        Ok(quantiles)
    }

    /// A whole plan at once, batched by level and kind; `tables` are the embeddings that the graph's
    /// [`EmbeddingRef`]s index.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Graph`] if the graph is malformed or refers to a table or column that is not there, [`ExpertsError::Shape`]
    /// or [`ExpertsError::NotFinite`] if an embedding is not the data expert's.
    pub fn forward(&self, graph: &FeatureGraph, tables: &[TableEmbedding]) -> Result<PlanEstimates> {
        let mut embeddings: Vec<Option<&[f32]>> = Vec::new();
        let schedule = Schedule::new([graph], |_, reference| {
            let embedding = embedding(tables, reference)?;
            if let Some(embedding) = embedding {
                check_length("embedding of a node", self.config.embedding, embedding.len())?;
                check_finite("the embedding of a node", embedding)?;
            }
            embeddings.push(embedding);
            Ok(embeddings.len() as u32 - 1)
        })?;
        let states = self.logical.forward(&schedule, |row| embeddings.get(row as usize).copied().flatten())?;
        self.estimates(graph, &schedule.positions[0], &states)
    }

    /// The head on every estimated node, and the states in the order of the graph.
    fn estimates(&self, graph: &FeatureGraph, positions: &[u32], states: &[f32]) -> Result<PlanEstimates> {
        let width = self.width();
        let state = |node: usize| &states[positions[node] as usize * width..][..width];
        let estimated: Vec<usize> = (0..graph.nodes.len()).filter(|&node| graph.nodes[node].kind.estimated()).collect();
        let joins = message_passing::joins(graph);
        let bucket = |&node: &usize| calibration_bucket(graph.nodes[node].kind, joins[node] as usize);
        let buckets: Vec<usize> = estimated.iter().map(bucket).collect();
        let head_states: Vec<f32> = estimated.iter().flat_map(|&node| state(node)).copied().collect();
        let mut cardinalities = vec![None; graph.nodes.len()];
        for (&node, quantiles) in estimated.iter().zip(self.cardinality.quantiles_batch(&head_states, &buckets)) {
            check_finite("a cardinality", &quantiles.values())?;
            cardinalities[node] = Some(quantiles);
        }
        let ordered = (0..graph.nodes.len()).flat_map(state).copied().collect();
        let states = Array2::from_shape_vec((graph.nodes.len(), width), ordered)
            .map_err(|error| ExpertsError::Graph(error.to_string()))?;
        Ok(PlanEstimates { states, cardinalities })
    }
}

/// The embedding that `reference` names.
pub(crate) fn embedding(tables: &[TableEmbedding], reference: EmbeddingRef) -> Result<Option<&[f32]>> {
    let table = |table: u32| {
        tables
            .get(table as usize)
            .ok_or_else(|| ExpertsError::Graph(format!("no table {table} among {}", tables.len())))
    };
    match reference {
        EmbeddingRef::None => Ok(None),
        EmbeddingRef::Table { table: index } => Ok(Some(table(index)?.table.as_slice())),
        EmbeddingRef::Column { table: index, column } => match table(index)?.column(column as usize) {
            Some(embedding) => Ok(Some(embedding)),
            None => Err(ExpertsError::Graph(format!("table {index} has no column {column}"))),
        },
    }
}

#[cfg(test)]
mod tests;
