//! The figures of a run as a table.

use super::RunReport;
use super::summary::{Slower, Summary};
use crate::score::figures::{short, table};

/// The columns of the table of summaries.
pub const COLUMNS: [&str; 16] = [
    "database",
    "optimizer",
    "queries",
    "n",
    "failed",
    "timeouts",
    "different",
    "wrong",
    "planning",
    "execution",
    "total",
    "geo-mean",
    "planning share",
    "> 1.2x slower",
    "> 2x slower",
    "> 2x faster",
];

/// What the columns mean, for a page.
pub const LEGEND: &str = "Planning is from SQL to physical plan. Pairs are DataFusion's default / the optimizer. *registry* is \
    DataFusion with its own statistics providers, *analytical* relata without its experts, *oracle* relata with true \
    cardinalities, *random* with random ones. *different* are results that are not the same under both or change from run \
    to run, *wrong* those that are not the known answer. *total* and *geo-mean* are speed-ups over the default. *planning \
    share* is that of the queries that take more than 50 ms under the optimizer. In brackets: slower by the median of \
    further repetitions of those that looked slower.";

/// The cells of a summary under [`COLUMNS`]; pairs are default / optimizer.
pub fn cells(summary: &Summary) -> Vec<String> {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let seconds = |default: f64, other: f64| format!("{default:.2} / {other:.2} s");
    let slower = |of: fn(&Slower) -> f64| {
        let confirmed = summary.confirmed.as_ref().map(|confirmed| format!(" ({})", percent(of(confirmed))));
        percent(of(&summary.slower)) + &confirmed.unwrap_or_default()
    };
    // Other systems do not say what planning took.
    let share = summary.planning_share.filter(|_| summary.planning > 0.0);
    vec![
        summary.database.clone().unwrap_or_else(|| "all".to_owned()),
        summary.optimizer.clone(),
        summary.above.map_or_else(|| "all".to_owned(), |above| format!("> {above} ms")),
        summary.n.to_string(),
        summary.failed.to_string(),
        format!("{} / {}", summary.default_timeouts, summary.timeouts),
        summary.different.to_string(),
        format!("{} / {}", summary.default_wrong, summary.wrong),
        seconds(summary.default_planning, summary.planning),
        seconds(summary.default_execution, summary.execution),
        format!("{:.2}x", summary.total_speedup),
        format!("{:.2}x", summary.geometric_mean),
        share.map_or_else(|| "-".to_owned(), percent),
        slower(|slower| slower.slower),
        slower(|slower| slower.much_slower),
        percent(summary.much_faster),
    ]
}

/// The summaries as a table, with the best and worst query of each optimizer.
pub fn print(report: &RunReport, above: f64) -> String {
    let summaries = report.summaries(above);
    let mut text = table(&[&COLUMNS], summaries.iter().map(cells).collect());
    for summary in summaries.iter().filter(|summary| summary.database.is_none() && summary.above.is_none()) {
        for (label, extreme) in [("worst", &summary.worst), ("best", &summary.best)] {
            if let Some(extreme) = extreme {
                let (default, other) = (1e3 * extreme.default_seconds, 1e3 * extreme.seconds);
                text += &format!(
                    "\n{}, {label}: {} default {default:.1} ms, {other:.1} ms: {}x",
                    summary.optimizer,
                    extreme.id,
                    short(extreme.speedup)
                );
            }
        }
    }
    text + "\n"
}
