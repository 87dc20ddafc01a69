//! SQL functions that relata adds to a session.

mod approx_answer;

pub(crate) use approx_answer::ApproxAnswer;
