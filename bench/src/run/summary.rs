//! What many timed queries come to.

use serde::{Deserialize, Serialize};

use super::{DEFAULT, QueryRun, Timing};

/// A query that stands out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extreme {
    /// The query.
    pub id: String,
    /// Default time over the optimizer's.
    pub speedup: f64,
    /// Seconds by default.
    pub default_seconds: f64,
    /// Seconds under the optimizer.
    pub seconds: f64,
}

/// One optimizer against the default; times are those of the fastest repetition, the limit where it was exceeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The database; `None` over all of them.
    pub database: Option<String>,
    /// The optimizer.
    pub optimizer: String,
    /// Queries timed under both.
    pub n: usize,
    /// Queries that failed under either; in no other figure.
    pub failed: usize,
    /// Queries over the limit by default,
    pub default_timeouts: usize,
    /// and under the optimizer.
    pub timeouts: usize,
    /// Queries whose results differ from the default's or from one run to the next.
    pub different: usize,
    /// Queries with a known answer that the default,
    pub default_wrong: usize,
    /// and that the optimizer missed.
    pub wrong: usize,
    /// Planning seconds by default,
    pub default_planning: f64,
    /// and under the optimizer.
    pub planning: f64,
    /// Execution seconds by default,
    pub default_execution: f64,
    /// and under the optimizer.
    pub execution: f64,
    /// Total time by default over total time under the optimizer.
    pub total_speedup: f64,
    /// Geometric mean of the queries' speed-ups.
    pub geometric_mean: f64,
    /// Share of the queries that take over 1.1 times as long as by default,
    pub slower: f64,
    /// over twice as long,
    pub much_slower: f64,
    /// less than 1 / 1.1,
    pub faster: f64,
    /// less than half.
    pub much_faster: f64,
    /// The query with the smallest speed-up.
    pub worst: Option<Extreme>,
    /// The query with the largest.
    pub best: Option<Extreme>,
}

/// The summary of `optimizer` over `queries`.
pub fn summarize(queries: &[&QueryRun], database: Option<&str>, optimizer: &str, limit: Option<f64>) -> Summary {
    let pairs: Vec<(&QueryRun, &Timing, &Timing)> = queries
        .iter()
        .filter_map(|query| Some((*query, query.optimizers.get(DEFAULT)?, query.optimizers.get(optimizer)?)))
        .collect();
    let timed: Vec<Timed<'_>> = pairs.iter().filter_map(|pair| Timed::new(pair, limit)).collect();
    let n = timed.len();
    let sum = |of: fn(&Timed<'_>) -> f64| timed.iter().map(of).sum::<f64>();
    let share =
        |of: &dyn Fn(f64) -> bool| timed.iter().filter(|query| of(query.speedup())).count() as f64 / n.max(1) as f64;
    let count = |of: &dyn Fn(&Timing, &Timing) -> bool| pairs.iter().filter(|(_, one, other)| of(one, other)).count();
    let by_speedup = |left: &&Timed<'_>, right: &&Timed<'_>| left.speedup().total_cmp(&right.speedup());
    Summary {
        database: database.map(str::to_owned),
        optimizer: optimizer.to_owned(),
        n,
        failed: pairs.len() - n,
        default_timeouts: count(&|default, _| default.timeout),
        timeouts: count(&|_, other| other.timeout),
        different: count(&|default, other| {
            let complete = !default.execution_us.is_empty() && !other.execution_us.is_empty();
            complete && (default.unstable || other.unstable || default.digest != other.digest)
        }),
        default_wrong: count(&|default, _| default.wrong),
        wrong: count(&|_, other| other.wrong),
        default_planning: sum(|query| query.default.0),
        planning: sum(|query| query.other.0),
        default_execution: sum(|query| query.default.1),
        execution: sum(|query| query.other.1),
        total_speedup: sum(|query| query.default.0 + query.default.1)
            / sum(|query| query.other.0 + query.other.1).max(1e-9),
        geometric_mean: (sum(|query| query.speedup().ln()) / n.max(1) as f64).exp(),
        slower: share(&|speedup| speedup * 1.1 < 1.0),
        much_slower: share(&|speedup| speedup * 2.0 < 1.0),
        faster: share(&|speedup| speedup > 1.1),
        much_faster: share(&|speedup| speedup > 2.0),
        worst: timed.iter().min_by(by_speedup).map(Timed::extreme),
        best: timed.iter().max_by(by_speedup).map(Timed::extreme),
    }
}

/// A query's speed-up under `optimizer`; `None` where it failed.
pub fn speedup(query: &QueryRun, optimizer: &str, limit: Option<f64>) -> Option<f64> {
    let pair = (query, query.optimizers.get(DEFAULT)?, query.optimizers.get(optimizer)?);
    Some(Timed::new(&pair, limit)?.speedup())
}

/// Seconds of planning and of execution under the default and under another optimizer.
struct Timed<'a> {
    id: &'a str,
    default: (f64, f64),
    other: (f64, f64),
}

impl<'a> Timed<'a> {
    fn new((query, default, other): &(&'a QueryRun, &Timing, &Timing), limit: Option<f64>) -> Option<Self> {
        Some(Self { id: &query.id, default: default.best(limit)?, other: other.best(limit)? })
    }

    fn speedup(&self) -> f64 {
        (self.default.0 + self.default.1).max(1e-9) / (self.other.0 + self.other.1).max(1e-9)
    }

    fn extreme(&self) -> Extreme {
        Extreme {
            id: self.id.to_owned(),
            speedup: self.speedup(),
            default_seconds: self.default.0 + self.default.1,
            seconds: self.other.0 + self.other.1,
        }
    }
}

impl Timing {
    /// Seconds of planning and of execution of the fastest repetition; the limit where there is none within it, and `None`
    /// where the query failed.
    pub fn best(&self, limit: Option<f64>) -> Option<(f64, f64)> {
        let repetitions = self.planning_us.iter().zip(&self.execution_us);
        let best = repetitions.min_by_key(|(planning, execution)| *planning + *execution);
        match best {
            _ if self.error.is_some() => None,
            Some((planning, execution)) => Some((*planning as f64 / 1e6, *execution as f64 / 1e6)),
            None => limit.filter(|_| self.timeout).map(|limit| (0.0, limit)),
        }
    }
}
