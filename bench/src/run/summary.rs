//! What many timed queries come to.

use super::{DEFAULT, QueryRun, RunReport, Timing};

/// Queries that take so many times as long as by default are slower,
pub const SLOWER: f64 = 1.2;
/// much slower, or much faster the other way round.
pub const MUCH: f64 = 2.0;
/// Planning is weighed against execution in queries that take more than these seconds.
const WEIGHED: f64 = 0.05;

/// A query that stands out.
#[derive(Debug, Clone, PartialEq)]
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

/// Shares of the queries that an optimizer makes slower than the default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slower {
    /// By more than [`SLOWER`],
    pub slower: f64,
    /// and by more than [`MUCH`].
    pub much_slower: f64,
}

/// One optimizer against the default; times are those of the fastest repetition, the limit where it was exceeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The database; `None` over all of them.
    pub database: Option<String>,
    /// Milliseconds that the queries take at least by default; `None` for all queries.
    pub above: Option<f64>,
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
    /// Planning's share of the time of queries that take more than 50 ms under the optimizer; `None` without such queries.
    pub planning_share: Option<f64>,
    /// By the fastest repetition.
    pub slower: Slower,
    /// By the median of the confirming repetitions, where a run has them; what did not look slower is not.
    pub confirmed: Option<Slower>,
    /// Share of the queries that take less than half as long.
    pub much_faster: f64,
    /// The query with the smallest speed-up.
    pub worst: Option<Extreme>,
    /// The query with the largest.
    pub best: Option<Extreme>,
}

/// The summary of `optimizer` over the queries of a database, or over those that take more than `above` milliseconds.
pub fn summarize(report: &RunReport, database: Option<&str>, above: Option<f64>, optimizer: &str) -> Summary {
    let limit = report.settings.timeout;
    let here = report.queries.iter().filter(|query| database.is_none_or(|name| query.database == name));
    let slow = |timing: &Timing| {
        above.is_none_or(|above| timing.best(limit).is_some_and(|(planning, rest)| 1e3 * (planning + rest) > above))
    };
    let pairs: Vec<(&QueryRun, &Timing, &Timing)> = here
        .filter_map(|query| Some((query, query.optimizers.get(DEFAULT)?, query.optimizers.get(optimizer)?)))
        .filter(|(_, default, _)| slow(default))
        .collect();
    let timed: Vec<Timed<'_>> = pairs.iter().filter_map(|pair| Timed::new(pair, limit)).collect();
    let n = timed.len();
    let sum = |of: fn(&Timed<'_>) -> f64| timed.iter().map(of).sum::<f64>();
    let share =
        |of: &dyn Fn(&Timed<'_>) -> bool| timed.iter().filter(|query| of(query)).count() as f64 / n.max(1) as f64;
    let count = |of: &dyn Fn(&Timing, &Timing) -> bool| pairs.iter().filter(|(_, one, other)| of(one, other)).count();
    let by_speedup = |left: &&Timed<'_>, right: &&Timed<'_>| left.speedup().total_cmp(&right.speedup());
    let seconds = |(planning, execution): (f64, f64)| planning + execution;
    let weighed = || timed.iter().map(|query| query.other).filter(|&other| seconds(other) > WEIGHED);
    let confirmable = report.settings.confirm > 0 && optimizer == super::RELATA;
    let slowdown = |query: &Timed<'_>| query.run.confirmed_slowdown(optimizer, limit).unwrap_or(1.0);
    Summary {
        database: database.map(str::to_owned),
        above,
        optimizer: optimizer.to_owned(),
        n,
        failed: pairs.len() - n,
        default_timeouts: count(&|default, _| default.timeout),
        timeouts: count(&|_, other| other.timeout),
        different: count(&|default, other| {
            let known = !default.digest.is_empty() && !other.digest.is_empty();
            known && (default.unstable || other.unstable || default.digest != other.digest)
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
        planning_share: (weighed().count() > 0)
            .then(|| weighed().map(|other| other.0).sum::<f64>() / weighed().map(seconds).sum::<f64>()),
        slower: Slower {
            slower: share(&|query| query.speedup() * SLOWER < 1.0),
            much_slower: share(&|query| query.speedup() * MUCH < 1.0),
        },
        confirmed: confirmable.then(|| Slower {
            slower: share(&|query| slowdown(query) > SLOWER),
            much_slower: share(&|query| slowdown(query) > MUCH),
        }),
        much_faster: share(&|query| query.speedup() > MUCH),
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
    run: &'a QueryRun,
    default: (f64, f64),
    other: (f64, f64),
}

impl<'a> Timed<'a> {
    fn new((run, default, other): &(&'a QueryRun, &Timing, &Timing), limit: Option<f64>) -> Option<Self> {
        Some(Self { run, default: default.best(limit)?, other: other.best(limit)? })
    }

    fn speedup(&self) -> f64 {
        (self.default.0 + self.default.1).max(1e-9) / (self.other.0 + self.other.1).max(1e-9)
    }

    fn extreme(&self) -> Extreme {
        Extreme {
            id: self.run.id.clone(),
            speedup: self.speedup(),
            default_seconds: self.default.0 + self.default.1,
            seconds: self.other.0 + self.other.1,
        }
    }
}

impl QueryRun {
    /// How many times as long as by default the query takes, by the medians of the confirming repetitions; `None` without.
    fn confirmed_slowdown(&self, optimizer: &str, limit: Option<f64>) -> Option<f64> {
        let median = |name: &str| self.confirmed.get(name)?.median(limit);
        Some(median(optimizer)? / median(DEFAULT)?.max(1e-9))
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

    /// Median of the seconds of the repetitions; one that was given up took the limit.
    fn median(&self, limit: Option<f64>) -> Option<f64> {
        let repetitions = self.planning_us.iter().zip(&self.execution_us);
        let seconds = repetitions.map(|(planning, execution)| (planning + execution) as f64 / 1e6);
        let mut seconds: Vec<f64> = seconds.chain(limit.filter(|_| self.timeout)).collect();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied()
    }
}
