//! Table functions that relata adds to a session.

mod approx_answer;
mod maintenance;

use std::sync::Arc;

use datafusion::catalog::{TableFunction, TableFunctionImpl};

use crate::Relata;
use approx_answer::ApproxAnswer;
pub(crate) use maintenance::is_action;
use maintenance::{Action, Maintenance};

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
