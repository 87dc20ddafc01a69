//! `relata-bench report`: the figures of `estimate` and `run` as a page of tables and pictures.

pub(crate) mod plot;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::machine::Provenance;
use crate::metrics::q_error;
use crate::run::summary::speedup;
use crate::run::table::{self, cells};
use crate::run::{self, DEFAULT, RunReport};
use crate::score::contender::{NamedPath, RELATA};
use crate::score::figures::{self, Figure, INTERVAL_COLUMNS, Intervals, short};
use crate::score::{ESTIMATES, FIGURES, PLANS, ScoreReport, p_error};

/// Queries in the lists of the worst and the best.
const LISTED: usize = 8;

/// Write tables and pictures of measurements
#[derive(Debug, Clone, Args)]
pub struct ReportOptions {
    /// Folder that `relata-bench estimate --output` wrote
    #[arg(long, value_name = "DIR", required_unless_present = "runs")]
    pub estimates: Option<PathBuf>,
    /// Files that `relata-bench run --output` wrote
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub runs: Vec<PathBuf>,
    /// Milliseconds: times are also summed up over the queries that take more by default
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10.0)]
    pub above: f64,
    /// Another system's times of the queries of a run, from the JSON lines of `bench/anchors/duckdb-times`
    #[arg(long, value_name = "NAME=FILE")]
    pub beside: Vec<NamedPath>,
    /// Folder of the report
    #[arg(long)]
    pub output: PathBuf,
}

/// Writes the report: `README.md`, its pictures, and the figures and repetitions as JSON.
///
/// # Errors
/// When a measurement cannot be read or a file cannot be written.
pub fn run(options: &ReportOptions) -> Result<()> {
    std::fs::create_dir_all(&options.output).with_context(|| options.output.display().to_string())?;
    let name = options.output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut page = format!("# {name}\n\n");
    if let Some(folder) = &options.estimates {
        let report = ScoreReport::read(folder)?;
        copy(&folder.join(FIGURES), &options.output.join(FIGURES))?;
        estimates(&report, &options.output, &mut page)?;
    }
    let mut used = vec![false; options.beside.len()];
    for file in &options.runs {
        let mut report = RunReport::read(file)?;
        for (system, used) in options.beside.iter().zip(&mut used) {
            *used |= report.beside(system)?;
        }
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        copy(file, &options.output.join(format!("{stem}.jsonl")))?;
        runs(&report, &stem, options, &mut page)?;
    }
    for (system, used) in options.beside.iter().zip(used) {
        ensure!(used, "{} has no query of the runs over tables read in the same way", system.path.display());
    }
    let path = options.output.join("README.md");
    std::fs::write(&path, page.trim_end().to_owned() + "\n").with_context(|| path.display().to_string())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let same = from.canonicalize().ok() == to.canonicalize().ok();
    if !same {
        std::fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

fn estimates(report: &ScoreReport, folder: &Path, page: &mut String) -> Result<()> {
    let seconds: f64 = report.profile_seconds.iter().map(|(_, seconds)| seconds).sum();
    *page += "## Estimates\n\n";
    *page += &provenance(&report.provenance);
    *page += &format!(
        "- median time from SQL to relata's estimate: {:.0} us; all {} databases profiled in {seconds:.1} s\n\
         - `{FIGURES}` beside this page holds the figures; every estimate is in `{ESTIMATES}` and every join order in \
         `{PLANS}` of the folder that the command writes\n\n",
        report.median_planning_us,
        report.profile_seconds.len(),
    );
    *page += "q-errors clip both sides at one row. *under* is the share of estimates below the truth; the two columns after it \
              are the 90th percentile of the q-error among the under- and among the overestimates. *coverage* is the share \
              of truths inside the 90% interval, *width* the median of upper over lower end.\n\n";
    for (subplans, tables, title) in [
        (false, false, "Whole queries by kind"),
        (false, true, "Whole queries by number of tables"),
        (true, true, "Connected sub-joins of the hard queries"),
    ] {
        let rows: Vec<Vec<String>> = report
            .figures
            .iter()
            .filter(|figure| figure.database.is_none() && figure.group.subplans == subplans)
            .filter(|figure| figure.group.name.contains("table") == tables || (subplans && figure.group.name == "all"))
            .map(figures::cells)
            .collect();
        section(page, title, &figures::COLUMNS, rows);
    }
    if !report.estimates.is_empty() {
        plot::percentiles(report, &folder.join("percentiles.svg"))?;
        plot::by_tables(report, &folder.join("tables.svg"))?;
        plot::predicted(report, &folder.join("predicted.svg"))?;
        *page += "![q-error and P-error by percentile](percentiles.svg)\n\n![q-error by number of tables](tables.svg)\n\n\
                  ![estimated and true rows](predicted.svg)\n\n";
    }
    let rows: Vec<Vec<String>> = report.p_errors.iter().map(p_error::cells).collect();
    if !rows.is_empty() {
        *page += "P-error (Han et al., VLDB 2022): the cost of the join order chosen from a contender's estimates of all \
                  connected sub-joins, under true cardinalities, over the cost of the best order. Rows of single tables are \
                  exact for everyone. *as written* is the order of the query's FROM; *total* is the sum of all costs over \
                  the sum of the best.\n\n";
        section(page, "Join orders", &p_error::COLUMNS, rows);
    }
    section(page, "Databases: q-error at 50% / 95% over all queries", &database_columns(report), databases(report));
    if let Some(intervals) = Intervals::of(&report.figures, RELATA) {
        section(page, "Databases: intervals", &INTERVAL_COLUMNS, intervals.cells());
        *page += &format!("{}.\n\n", intervals.summary());
    }
    worst_estimates(report, page);
    Ok(())
}

fn database_columns(report: &ScoreReport) -> Vec<&str> {
    ["database"].into_iter().chain(report.contenders.iter().map(String::as_str)).collect()
}

fn databases(report: &ScoreReport) -> Vec<Vec<String>> {
    let of = |figure: &&Figure| !figure.group.subplans && figure.group.name == "all";
    let row = |(database, _): &(String, f64)| {
        let mut row = vec![database.clone()];
        row.extend(report.contenders.iter().map(|name| {
            let mut figures = report.figures.iter().filter(of);
            let found = figures.find(|f| f.database.as_ref() == Some(database) && f.contender == *name);
            found.map_or_else(String::new, |f| format!("{} / {}", short(f.summary.median), short(f.summary.p95)))
        }));
        row
    };
    report.profile_seconds.iter().map(row).collect()
}

fn worst_estimates(report: &ScoreReport, page: &mut String) {
    let whole = report.estimates.iter().filter(|query| query.kind != crate::corpus::SUBPLAN);
    let mut scored: Vec<_> = whole
        .filter_map(|query| query.scored(RELATA).map(|scored| (q_error(scored.estimate, scored.truth), query, scored)))
        .collect();
    scored.sort_by(|left, right| right.0.total_cmp(&left.0));
    let rows = scored.iter().take(LISTED).map(|(error, query, scored)| {
        let rows = |rows: f64| if rows < 1e6 { format!("{rows:.0}") } else { format!("{rows:.1e}") };
        vec![query.id.clone(), query.tables.to_string(), rows(scored.truth), rows(scored.estimate), short(*error)]
    });
    section(page, "relata's worst estimates", &["query", "tables", "rows", "estimate", "q-error"], rows.collect());
}

fn runs(report: &RunReport, name: &str, options: &ReportOptions, page: &mut String) -> Result<()> {
    let settings = &report.settings;
    let _ = writeln!(page, "## Times: {name}\n");
    *page += &provenance(&settings.provenance);
    let limit = settings.timeout.map_or_else(|| "no limit".to_owned(), |limit| format!("given up after {limit} s"));
    *page += &format!(
        "- {} repetitions, {limit}; the optimizers take turns within every repetition, and a query counts with its \
         fastest; every repetition is in `{name}.jsonl`\n",
        settings.repeat
    );
    if settings.confirm > 0 {
        let more = settings.confirm;
        *page += &format!("- queries that look more than 1.2x slower under relata are repeated {more} times\n");
    }
    let _ = writeln!(page, "\n{}\n", table::LEGEND);
    section(page, "Summary", &table::COLUMNS, report.summaries(options.above).iter().map(cells).collect());
    plot::speedups(report, &options.output.join(format!("{name}.svg")))?;
    let _ = writeln!(page, "![speed-up per query, sorted]({name}.svg)\n");
    for optimizer in &report.optimizers {
        let mut queries: Vec<(f64, &run::QueryRun)> = report
            .queries
            .iter()
            .filter_map(|query| Some((speedup(query, optimizer, settings.timeout)?, query)))
            .collect();
        queries.sort_by(|left, right| left.0.total_cmp(&right.0));
        let row = |(speedup, query): &(f64, &run::QueryRun)| {
            let time = |name: &str| {
                let timing = query.optimizers.get(name);
                let best = timing.and_then(|timing| timing.best(settings.timeout));
                best.map_or_else(
                    || "-".to_owned(),
                    |(planning, execution)| format!("{:.1}", 1e3 * (planning + execution)),
                )
            };
            vec![query.id.clone(), time(DEFAULT), time(optimizer), format!("{}x", short(*speedup))]
        };
        let columns = ["query", "default, ms", optimizer.as_str(), "speed-up"];
        let worst = queries.iter().take(LISTED).map(row).collect();
        section(page, &format!("{optimizer}: slowest against the default"), &columns, worst);
        let best = queries.iter().rev().take(LISTED).map(row).collect();
        section(page, &format!("{optimizer}: fastest against the default"), &columns, best);
    }
    Ok(())
}

pub(crate) fn provenance(provenance: &Provenance) -> String {
    let Provenance { commit, relata, datafusion, weights, processor, threads, system, release, command } = provenance;
    let unknown = || "unknown".to_owned();
    let build = if *release { "" } else { ", not optimized by the compiler" };
    format!(
        "- `{command}`\n- commit {}, relata {relata}, DataFusion {datafusion}{build}\n- weights {}\n\
         - {}, {threads} threads, {system}\n",
        commit.clone().unwrap_or_else(unknown),
        weights.clone().unwrap_or_else(unknown),
        processor.clone().unwrap_or_else(unknown),
    )
}

/// A Markdown table under a title; a first cell that repeats is left out.
pub(crate) fn section(page: &mut String, title: &str, columns: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(page, "### {title}\n\n| {} |", columns.join(" | "));
    let _ = writeln!(
        page,
        "|{}",
        columns.iter().enumerate().map(|(i, _)| if i < 2 { "---|" } else { "---:|" }).collect::<String>()
    );
    let mut last = String::new();
    for mut row in rows {
        if row[0] == last {
            row[0].clear();
        } else {
            last.clone_from(&row[0]);
        }
        let _ = writeln!(page, "| {} |", row.join(" | "));
    }
    page.push('\n');
}
