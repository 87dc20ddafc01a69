//! Table functions and relations that relata adds to a session.

mod approx_answer;
mod maintenance;
mod predict;
mod predicted;

use std::sync::Arc;

use datafusion::catalog::{TableFunction, TableFunctionImpl, TableProvider};

use crate::Relata;
use approx_answer::ApproxAnswer;
use maintenance::{Action, ActionTable, Maintenance};
pub(crate) use predict::Predict;
use predicted::PredictedTable;

/// Whether a table is what a function or relation returns: whoever scans it has that do its work.
pub(crate) fn is_action(table: &Arc<dyn TableProvider>) -> bool {
    table.downcast_ref::<ActionTable>().is_some() || table.downcast_ref::<PredictedTable>().is_some()
}

/// The functions, each with its name.
pub(crate) fn functions(relata: &Relata) -> Vec<TableFunction> {
    let approx_answer = Arc::new(ApproxAnswer { relata: relata.clone() });
    let mut functions = vec![TableFunction::new("approx_answer".to_owned(), approx_answer)];
    for action in [Action::Analyze, Action::Profiles, Action::Drop, Action::Counters, Action::Explain] {
        let function: Arc<dyn TableFunctionImpl> = Arc::new(Maintenance { relata: relata.clone(), action });
        functions.push(TableFunction::new(action.name().to_owned(), function));
    }
    functions
}
