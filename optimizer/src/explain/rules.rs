//! The physical rules that end in a plan whose nodes show their estimates.
//!
//! The leaves of the initial physical plan are those of the logical plan, in the same order. `join_selection` swaps the inputs
//! of joins and leaves the leaves as they are, the rules after it rewrite leaves and swap nothing: followed once after it and
//! once at the end, every leaf of the final plan is known.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use smallvec::SmallVec;

use super::exec::EstimatedExec;
use super::places::{Operator, PlaceEstimates, keeps_rows, limited};
use super::show_runtime;
use crate::estimate::Estimate;
use crate::runtime::{Clock, EstimatedPlan};
use crate::statistics::Place;

/// The rule that swaps the inputs of joins.
const SWAPS_INPUTS: &str = "join_selection";

/// A list of physical rules.
pub(super) type Rules = Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>;

/// These rules with those that show the estimates among them.
pub(super) fn showing(
    estimates: PlaceEstimates,
    clock: Option<Clock>,
    memory_limit: Option<usize>,
    rules: Rules,
) -> Rules {
    let shared = Arc::new(Shared { estimates, clock, memory_limit, ties: Mutex::default() });
    let rule = |name, step| Arc::new(Rule { name, step, shared: Arc::clone(&shared) }) as Arc<_>;
    let mut all: Rules = vec![rule("relata_explain_scans", Step::Identify)];
    for one in rules {
        let swaps = one.name() == SWAPS_INPUTS;
        all.push(one);
        if swaps {
            all.push(rule("relata_explain_joins", Step::Follow));
        }
    }
    all.push(rule("relata_explain", Step::Show));
    all
}

/// A leaf of the physical plan, and which of the logical plan it is.
type Tie = (Arc<dyn ExecutionPlan>, Option<usize>);

#[derive(Debug)]
struct Shared {
    estimates: PlaceEstimates,
    clock: Option<Clock>,
    memory_limit: Option<usize>,
    /// From the left. The plans are kept so that no address is used twice.
    ties: Mutex<Vec<Tie>>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Identify,
    Follow,
    Show,
}

#[derive(Debug)]
struct Rule {
    name: &'static str,
    step: Step,
    shared: Arc<Shared>,
}

impl PhysicalOptimizerRule for Rule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        match self.step {
            Step::Identify => self.shared.identify(&plan),
            Step::Follow => drop(self.shared.follow(&plan)),
            Step::Show => {
                let ties = self.shared.follow(&plan);
                let shown = self.shared.show(&plan, false, &mut ties.into_iter()).plan;
                return Ok(self.shared.time(shown, config));
            }
        }
        Ok(plan)
    }

    fn name(&self) -> &str {
        self.name
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A node with what is known of it.
struct Shown {
    plan: Arc<dyn ExecutionPlan>,
    place: Option<Place>,
    estimate: Option<Estimate>,
}

impl Shared {
    fn identify(&self, plan: &Arc<dyn ExecutionPlan>) {
        let mut found = Vec::new();
        leaves(plan, &mut found);
        let expected = &self.estimates.leaves;
        let same = |plan: &Arc<dyn ExecutionPlan>, columns: &[String]| {
            plan.schema().fields().iter().map(|field| field.name()).eq(columns)
        };
        if found.len() == expected.len() && found.iter().zip(expected).all(|(leaf, one)| same(leaf, &one.columns)) {
            let tied = found.into_iter().enumerate().map(|(index, leaf)| (leaf, Some(index)));
            *self.ties.lock().unwrap_or_else(PoisonError::into_inner) = tied.collect();
        }
    }

    /// Ties the leaves of a plan that a rule has made of the one before: those that are the same, then the others in order, as
    /// far as they are of the same kind. None is tied where their number has changed.
    fn follow(&self, plan: &Arc<dyn ExecutionPlan>) -> Vec<Option<usize>> {
        let mut found = Vec::new();
        leaves(plan, &mut found);
        let mut ties = self.ties.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *ties);
        if found.len() != before.len() {
            return vec![None; found.len()];
        }
        let mut same = Vec::new();
        for leaf in &found {
            let known = before.iter().position(|(other, _)| Arc::ptr_eq(leaf, other));
            same.push(known.map(|known| before.remove(known)));
        }
        let mut others = before.into_iter();
        for (leaf, known) in found.into_iter().zip(same) {
            let (other, tie) = known.or_else(|| others.next()).unwrap_or_else(|| (Arc::clone(&leaf), None));
            let tie = tie.filter(|_| other.name() == leaf.name());
            ties.push((leaf, tie));
        }
        ties.iter().map(|(_, tie)| *tie).collect()
    }

    /// Adds how long the operators of a wrapped plan take.
    fn time(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Arc<dyn ExecutionPlan> {
        if let Some(clock) = &self.clock {
            let estimated = EstimatedPlan::new(Arc::clone(&plan), config, self.memory_limit);
            if let Some(runtime) = clock.runtime(&estimated) {
                show_runtime(plan.as_ref(), &runtime);
            }
        }
        plan
    }

    /// Wraps a plan, whose leaves have the next `ties`; no more of them, and it is a subquery, whose rows nobody estimated.
    fn show(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        below_filter: bool,
        ties: &mut dyn Iterator<Item = Option<usize>>,
    ) -> Shown {
        let operator = Operator::of_physical(plan.as_ref());
        let below_filter_here = operator == Some(Operator::Filter) || below_filter && keeps_rows(plan.as_ref());
        let mut inputs: SmallVec<[Shown; 2]> = SmallVec::new();
        for (index, input) in plan.children().into_iter().enumerate() {
            let ties: &mut dyn Iterator<Item = _> =
                if is_subquery(plan.as_ref(), index) { &mut std::iter::empty() } else { &mut *ties };
            inputs.push(self.show(input, below_filter_here, ties));
        }
        let (place, estimate) = if inputs.is_empty() {
            match ties.next() {
                Some(Some(leaf)) => {
                    (Some(Place::scan(leaf)), Some(self.estimates.leaves[leaf].rows(plan.as_ref(), below_filter)))
                }
                // What DataFusion answers from statistics is one row.
                Some(None) if plan.is::<PlaceholderRowExec>() => (None, Some(Estimate::exact(1.0))),
                Some(None) => (None, Some(Estimate::fallback("scan not identified"))),
                None => (None, None),
            }
        } else {
            self.node(plan.as_ref(), operator, &inputs)
        };
        let estimate = estimate.map(|estimate| limited(plan.as_ref(), estimate));
        let inputs = inputs.into_iter().map(|input| input.plan).collect();
        Shown { plan: Arc::new(EstimatedExec::new(Arc::clone(plan), inputs, estimate)), place, estimate }
    }

    fn node(
        &self,
        plan: &dyn ExecutionPlan,
        operator: Option<Operator>,
        inputs: &[Shown],
    ) -> (Option<Place>, Option<Estimate>) {
        if keeps_rows(plan) {
            return (inputs[0].place, inputs[0].estimate);
        }
        let places: Option<SmallVec<[Place; 2]>> = inputs.iter().map(|input| input.place).collect();
        let place = places.map(|places| Place::over(&places, operator == Some(Operator::Aggregate)));
        let estimate = place.zip(operator).and_then(|(place, operator)| self.estimates.of(place, operator));
        (place, estimate)
    }
}

/// The leaves of a plan from the left, those of its scalar subqueries left out: they are no inputs of the logical plan.
fn leaves(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<Arc<dyn ExecutionPlan>>) {
    let inputs = plan.children();
    if inputs.is_empty() {
        found.push(Arc::clone(plan));
    }
    for (index, input) in inputs.into_iter().enumerate() {
        if !is_subquery(plan.as_ref(), index) {
            leaves(input, found);
        }
    }
}

fn is_subquery(plan: &dyn ExecutionPlan, input: usize) -> bool {
    input > 0 && plan.is::<ScalarSubqueryExec>()
}
