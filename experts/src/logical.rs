//! The logical-plan expert: typed message passing over a plan, from its tables to its root.
//!
//! One MLP per kind of node combines the node's features, the data expert's embedding and the states of its inputs, summed
//! per role, into the node's state (seed paper, section 3.1; figure 4). Differences: inputs of different roles (the two
//! sides of a join and its keys) are kept apart instead of summed together, states are normalised to a root mean square of 1
//! so that plans deeper than the training plans stay in range, and the MLPs are residual and shallower than six layers.

use relata_featurize::graph::NodeKind;

use crate::Result;
use crate::config::{ExpertConfig, Module};
use crate::error::{check_finite, check_length};
use crate::message_passing::{Group, Schedule};
use crate::mlp::{Mlp, normalise};

/// The models of the logical-plan expert.
#[derive(Debug, Clone)]
pub struct LogicalExpert {
    width: usize,
    embedding: usize,
    nodes: [Mlp; NodeKind::ALL.len()],
}

impl LogicalExpert {
    /// Takes its models out of a stack of sizes `config`; `mlp` builds one of them.
    pub(crate) fn new(config: &ExpertConfig, mlp: impl Fn(Module) -> Mlp) -> Self {
        Self {
            width: config.width,
            embedding: config.embedding,
            nodes: NodeKind::ALL.map(|kind| mlp(Module::Node(kind))),
        }
    }

    /// The flat parameters of its models, in the order of [`NodeKind::ALL`].
    pub(crate) fn parameters(&self) -> impl Iterator<Item = f32> {
        self.nodes.iter().flat_map(Mlp::parameters)
    }

    fn mlp(&self, kind: NodeKind) -> &Mlp {
        &self.nodes[kind as usize]
    }

    /// The state of one node.
    ///
    /// # Shapes
    ///
    /// `features: [F]`, `embedding` of the data expert's width (zero if absent; ignored unless the kind is embedded), `roles: [roles][D]`, each
    /// the sum of the states of that role's inputs -> `out: [D]`.
    ///
    /// # Errors
    ///
    /// [`crate::ExpertsError::Shape`] for wrong lengths, [`crate::ExpertsError::NotFinite`] if an input or the state is not
    /// finite.
    pub fn step(
        &self,
        kind: NodeKind,
        features: &[f32],
        embedding: Option<&[f32]>,
        roles: &[&[f32]],
        out: &mut [f32],
    ) -> Result<()> {
        check_length("features of a node", kind.features(), features.len())?;
        check_length("roles of a node", kind.roles(), roles.len())?;
        check_length("state of a node", self.width, out.len())?;
        let mlp = self.mlp(kind);
        let mut input = Vec::with_capacity(mlp.input());
        input.extend_from_slice(features);
        if kind.embedded() {
            if let Some(embedding) = embedding {
                check_length("embedding of a node", self.embedding, embedding.len())?;
                input.extend_from_slice(embedding);
            } else {
                input.resize(features.len() + self.embedding, 0.0);
            }
        }
        for role in roles {
            check_length("state of a role", self.width, role.len())?;
            input.extend_from_slice(role);
        }
        // The activation would turn NaN into 0 and hide it.
        check_finite("the input of a node", &input)?;
        mlp.forward(&input, out);
        normalise(out);
        check_finite("the state of a node", out)
    }

    /// The states of all nodes of a schedule, in its order.
    ///
    /// # Shapes
    ///
    /// `embedding: row ->` an embedding of the data expert (None is zero) -> `[N, D]`
    ///
    /// # Errors
    ///
    /// [`crate::ExpertsError::NotFinite`] if a state is not finite.
    pub fn forward<'a>(&self, schedule: &Schedule, embedding: impl Fn(u32) -> Option<&'a [f32]>) -> Result<Vec<f32>> {
        let mut states = vec![0.0; schedule.nodes * self.width];
        for group in &schedule.groups {
            let input = self.gather(group, &states, &embedding); // [rows, input]
            let out = &mut states[group.first * self.width..(group.first + group.rows) * self.width];
            self.mlp(group.kind).forward(&input, out);
            out.chunks_exact_mut(self.width).for_each(normalise);
        }
        check_finite("the states of a plan", &states)?;
        Ok(states)
    }

    /// `[rows, input]`: features ++ embedding ++ sum per role.
    fn gather<'a>(&self, group: &Group, states: &[f32], embedding: impl Fn(u32) -> Option<&'a [f32]>) -> Vec<f32> {
        let (width, features) = (self.width, group.kind.features());
        let stride = self.mlp(group.kind).input();
        let mut input = vec![0.0; group.rows * stride];
        for (row, input) in input.chunks_exact_mut(stride).enumerate() {
            input[..features].copy_from_slice(&group.features[row * features..(row + 1) * features]);
            if let Some(values) = group.embeddings.get(row).and_then(|&index| embedding(index)) {
                input[features..features + self.embedding].copy_from_slice(values);
            }
        }
        let mut column = features + usize::from(group.kind.embedded()) * self.embedding;
        for role in &group.roles {
            for (&source, &target) in role.sources.iter().zip(&role.targets) {
                let (source, target) = (source as usize * width, target as usize * stride + column);
                let sum = &mut input[target..target + width];
                sum.iter_mut().zip(&states[source..source + width]).for_each(|(sum, state)| *sum += state);
            }
            column += width;
        }
        input
    }
}
