//! `relata-bench ablations`: what the parts of relata are worth, from measurements that `bench/ablations` makes.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::report::{plot, provenance, section};
use crate::score::figures::{COLUMNS, Figure, cells};
use crate::score::{FIGURES, ScoreReport};

/// Kinds of queries that the pages are about.
const KINDS: [&str; 4] = ["seed", "hard", "group", "all"];

/// What the name of weights that were trained on a part of the databases ends with, behind their number.
const DATABASES: &str = " databases";

/// Write the page of ablations
#[derive(Debug, Clone, Args)]
pub struct AblationsOptions {
    /// Folder that `relata-bench estimate --output` wrote; of every one but the first, the folder's name is added to the
    /// contenders'
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    pub estimates: Vec<PathBuf>,
    /// Folder of the page
    #[arg(long)]
    pub output: PathBuf,
}

/// Writes `README.md` and `scaling.svg`.
///
/// # Errors
/// When a measurement cannot be read or a file cannot be written.
pub fn run(options: &AblationsOptions) -> Result<()> {
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut figures: Vec<Figure> = vec![];
    let mut page = String::from(
        "# Ablations\n\nEvery model here is trained with the same short schedule, so that its figures are not those of the shipped \
         weights; `bench/ablations CORPUS` makes them all. The databases measured on are the same as in \
         [the evaluation](../evaluation/README.md), and none was trained on.\n\n",
    );
    for (place, folder) in options.estimates.iter().enumerate() {
        let report = ScoreReport::read(folder)?;
        page += &provenance(&report.provenance);
        page.push('\n');
        let baselines = ["postgres", "duckdb"];
        let mine = report.figures.into_iter().filter(|figure| {
            figure.database.is_none() && !figure.group.subplans && !baselines.contains(&figure.contender.as_str())
        });
        figures.extend(mine.filter(|figure| place == 0 || figure.contender != "datafusion").map(|mut figure| {
            if place > 0 {
                figure.contender = format!("{}, {}", figure.contender, name(folder));
            }
            figure
        }));
    }
    ensure!(!figures.is_empty(), "no figures: {FIGURES} holds no whole queries");
    page += "*linear* is a ridge regression on the same features instead of the network.\n\n";
    for kind in KINDS {
        let rows = figures.iter().filter(|figure| figure.group.name == kind).map(cells).collect();
        section(&mut page, &format!("Whole queries: {kind}"), &COLUMNS, rows);
    }
    std::fs::create_dir_all(&options.output).with_context(|| options.output.display().to_string())?;
    let scaling: Vec<(&str, Vec<Point>)> = KINDS.iter().map(|kind| (*kind, points(&figures, kind))).collect();
    if scaling.iter().any(|(_, points)| points.len() > 1) {
        plot::scaling(&scaling, &options.output.join("scaling.svg"))?;
        let _ = writeln!(page, "![q-error by the number of training databases](scaling.svg)");
    }
    let path = options.output.join("README.md");
    std::fs::write(&path, page.trim_end().to_owned() + "\n").with_context(|| path.display().to_string())
}

/// A number of training databases with the 50th, 90th, 95th and 99th percentile of the q-error.
pub(crate) type Point = (f64, [f64; 4]);

/// By number of databases, ascending.
fn points(figures: &[Figure], kind: &str) -> Vec<Point> {
    let of_kind = figures.iter().filter(|figure| figure.group.name == kind);
    let mut points: Vec<Point> = of_kind
        .filter_map(|figure| {
            let databases = figure.contender.strip_suffix(DATABASES)?.parse().ok()?;
            let summary = &figure.summary;
            Some((databases, [summary.median, summary.p90, summary.p95, summary.p99]))
        })
        .collect();
    points.sort_by(|left, right| left.0.total_cmp(&right.0));
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::contender::{Prediction, RELATA};
    use crate::score::{Estimated, ScoreReport, figures};

    #[test]
    fn contenders_of_further_folders_carry_their_names() {
        let root = tempfile::tempdir().unwrap();
        let names = ["datafusion", RELATA, "8 databases", "128 databases"].map(str::to_owned);
        for folder in ["all", "without bounds"] {
            let prediction = |rows| Prediction { rows, interval: None, planning_us: Some(5) };
            let estimates = vec![Estimated {
                id: "q".to_owned(),
                database: "a".to_owned(),
                kind: "seed".to_owned(),
                tables: 1,
                truth: 10.0,
                predictions: names.iter().map(|name| (name.clone(), prediction(name.len() as f64))).collect(),
                errors: Default::default(),
            }];
            ScoreReport::of_estimates(estimates, names.to_vec()).write(&root.path().join(folder)).unwrap();
        }
        let estimates = ["all", "without bounds"].map(|folder| root.path().join(folder)).to_vec();
        let options = AblationsOptions { estimates, output: root.path().join("page") };
        run(&options).unwrap();
        let page = std::fs::read_to_string(options.output.join("README.md")).unwrap();
        assert!(page.contains("| relata, without bounds |") && !page.contains("datafusion, "), "{page}");
        let svg = std::fs::read_to_string(options.output.join("scaling.svg")).unwrap();
        assert!(svg.contains("99%"), "{svg}");
        let figures = figures(&ScoreReport::read(&options.estimates[0]).unwrap().estimates, &names);
        let found = points(&figures, "seed");
        assert_eq!(found.iter().map(|point| point.0).collect::<Vec<_>>(), [8.0, 128.0]);
    }
}
