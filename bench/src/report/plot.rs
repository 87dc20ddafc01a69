//! The pictures of a report, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::ablations::Point;
use crate::metrics::{percentile, q_error, sorted};
use crate::run::RunReport;
use crate::run::summary::speedup;
use crate::score::contender::RELATA;
use crate::score::figures::Group;
use crate::score::p_error::{WRITTEN, ratio};
use crate::score::{Estimated, ScoreReport};

/// Size of one panel in pixels.
const PANEL: (u32, u32) = (420, 340);
/// Beyond this the curves leave the picture.
const MOST: f64 = 1e6;
/// Bins of the two-dimensional histogram per factor of ten.
const BINS: f64 = 2.0;
/// Powers of ten that the two-dimensional histogram shows.
const DECADES: f64 = 10.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// A line of a panel.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    /// Whether it is drawn thin and left out of the legend.
    thin: bool,
}

/// What the axes of a panel show.
struct Axes<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    width: std::ops::Range<f64>,
    height: std::ops::Range<f64>,
}

/// q-error over its percentile for every kind, and P-error.
///
/// # Errors
/// When the picture cannot be written.
pub(super) fn percentiles(report: &ScoreReport, path: &Path) -> Result<()> {
    let line = |name: &str, errors: Vec<f64>| {
        let errors = sorted(errors);
        let point = |step: i32| (f64::from(step), percentile(&errors, f64::from(step)).clamp(1.0, MOST));
        let points = if errors.is_empty() { vec![] } else { (0..=100).map(point).collect() };
        Line { name: name.to_owned(), points, thin: false }
    };
    let groups = Group::all(&report.estimates);
    let groups = groups.iter().filter(|group| !group.name.contains("table") && (group.subplans || group.name != "all"));
    let mut panels: Vec<(String, &str, Vec<Line>)> = groups
        .map(|group| {
            let lines = report.contenders.iter().map(|name| line(name, q_errors(&report.estimates, group, name)));
            let title = if group.subplans { "sub-joins".to_owned() } else { group.name.clone() };
            (title, "q-error", lines.collect())
        })
        .collect();
    if !report.plans.is_empty() {
        let errors = |name: &str| {
            report.plans.iter().filter_map(|plan| Some(ratio(*plan.costs.get(name)?, plan.best))).collect::<Vec<f64>>()
        };
        let names = [WRITTEN].into_iter().chain(report.contenders.iter().map(String::as_str));
        panels.push(("join orders".to_owned(), "P-error", names.map(|name| line(name, errors(name))).collect()));
    }
    draw(path, panels.len(), |area, index| {
        let (title, y, lines) = &panels[index];
        let axes = Axes { title, x: "percentile of the queries", y, width: 0.0..100.0, height: 1.0..MOST };
        curves(area, &axes, lines)
    })
}

/// Median (thick) and 95th percentile (thin) of the q-error over the number of joined tables.
///
/// # Errors
/// When the picture cannot be written.
pub(super) fn by_tables(report: &ScoreReport, path: &Path) -> Result<()> {
    let panels = [(false, "whole queries"), (true, "sub-joins of the hard queries")];
    draw(path, panels.len(), |area, index| {
        let (subplans, title) = panels[index];
        let mut lines = vec![];
        for (thin, name) in report.contenders.iter().flat_map(|name| [(false, name), (true, name)]) {
            let points = report.figures.iter().filter_map(|figure| {
                let here = figure.database.is_none() && figure.group.subplans == subplans && figure.contender == *name;
                let tables: f64 = figure.group.name.split_once(" table").filter(|_| here)?.0.parse().ok()?;
                let value = if thin { figure.summary.p95 } else { figure.summary.median };
                Some((tables, value.clamp(1.0, MOST)))
            });
            lines.push(Line { name: name.clone(), points: points.collect(), thin });
        }
        let most = lines.iter().flat_map(|line| &line.points).fold(2.0_f64, |most, point| most.max(point.0));
        let axes = Axes {
            title,
            x: "tables",
            y: "q-error: median, 95% (thin)",
            width: if subplans { 2.0 } else { 1.0 }..most,
            // Room for the legend.
            height: 1.0..100.0 * MOST,
        };
        curves(area, &axes, &lines)
    })
}

/// Estimated over true rows of all queries and sub-joins: darker cells hold more of them.
///
/// # Errors
/// When the picture cannot be written.
pub(super) fn predicted(report: &ScoreReport, path: &Path) -> Result<()> {
    let cells = (BINS * DECADES) as usize;
    let known = |name: &&String| report.estimates.iter().any(|query| query.predictions.contains_key(*name));
    let contenders: Vec<&String> = report.contenders.iter().filter(known).collect();
    draw(path, contenders.len(), |area, index| {
        let name = contenders[index];
        let bin = |rows: f64| ((rows.max(1.0).log10() * BINS) as usize).min(cells - 1);
        let mut counts = vec![0u32; cells * cells];
        for query in &report.estimates {
            if let Some(scored) = query.scored(name) {
                counts[bin(scored.truth) * cells + bin(scored.estimate)] += 1;
            }
        }
        let most = f64::from(counts.iter().copied().max().unwrap_or(1).max(1)).ln_1p();
        let axes = Axes {
            title: name,
            x: "true rows, powers of ten",
            y: "estimate",
            width: 0.0..DECADES,
            height: 0.0..DECADES,
        };
        let mut chart = chart(area, &axes).build_cartesian_2d(axes.width.clone(), axes.height.clone())?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(axes.x).y_desc(axes.y).disable_mesh().draw()?;
        let occupied = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        chart.draw_series(occupied.map(|(cell, count)| {
            let (x, y) = ((cell / cells) as f64 / BINS, (cell % cells) as f64 / BINS);
            let depth = 0.1 + 0.9 * f64::from(*count).ln_1p() / most;
            let shade = |full: u8| (255.0 - depth * (255.0 - f64::from(full))) as u8;
            let color = color(name, index);
            let color = RGBColor(shade(color.0), shade(color.1), shade(color.2));
            Rectangle::new([(x, y), (x + 1.0 / BINS, y + 1.0 / BINS)], color.filled())
        }))?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (DECADES, DECADES)], BLACK.mix(0.5)))?;
        Ok(())
    })
}

/// The speed-ups of all queries in ascending order, a line per optimizer.
///
/// # Errors
/// When the picture cannot be written.
pub(super) fn speedups(report: &RunReport, path: &Path) -> Result<()> {
    let mut lines: Vec<Line> = report
        .optimizers
        .iter()
        .map(|name| {
            let speedups = report.queries.iter().filter_map(|query| speedup(query, name, report.settings.timeout));
            let points = sorted(speedups.collect()).into_iter().enumerate();
            let points = points.map(|(place, value)| (place as f64, value.clamp(0.05, 100.0))).collect();
            Line { name: name.clone(), points, thin: false }
        })
        .collect();
    let most = lines.iter().map(|line| line.points.len()).max().unwrap_or(1).max(2) as f64;
    lines.push(Line { name: "default".to_owned(), points: vec![(0.0, 1.0), (most, 1.0)], thin: true });
    draw(path, 1, |area, _| {
        let axes = Axes {
            title: "speed-up over DataFusion's default",
            x: "queries, sorted",
            y: "default time / time",
            width: 0.0..most,
            height: 0.05..100.0,
        };
        curves(area, &axes, &lines)
    })
}

/// Percentiles of the q-error over the number of training databases, a panel per kind of queries.
///
/// # Errors
/// When the picture cannot be written.
pub(crate) fn scaling(kinds: &[(&str, Vec<Point>)], path: &Path) -> Result<()> {
    draw(path, kinds.len(), |area, index| {
        let (title, points) = &kinds[index];
        let lines = ["50%", "90%", "95%", "99%"].iter().enumerate().map(|(place, name)| Line {
            name: (*name).to_owned(),
            points: points
                .iter()
                .map(|(databases, errors)| (databases.log2(), errors[place].clamp(1.0, MOST)))
                .collect(),
            thin: false,
        });
        let lines: Vec<Line> = lines.collect();
        let most = points.last().map_or(1.0, |point| point.0.log2());
        let axes = Axes {
            title,
            x: "training databases, powers of two",
            y: "q-error",
            width: points.first().map_or(0.0, |point| point.0.log2()).min(most - 1.0)..most,
            height: 1.0..MOST,
        };
        curves(area, &axes, &lines)
    })
}

fn q_errors(estimates: &[Estimated], group: &Group, contender: &str) -> Vec<f64> {
    let scored = estimates.iter().filter(|query| group.contains(query)).filter_map(|query| query.scored(contender));
    scored.map(|scored| q_error(scored.estimate, scored.truth)).collect()
}

/// Draws panels in rows of three.
fn draw(path: &Path, panels: usize, mut panel: impl for<'a> FnMut(&Area<'a>, usize) -> Drawn<'a>) -> Result<()> {
    let columns = panels.clamp(1, 3);
    let rows = panels.div_ceil(columns).max(1);
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    let mut svg = String::new();
    {
        let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(|error| failed(&error))?;
        for (index, area) in root.split_evenly((rows, columns)).iter().enumerate().take(panels) {
            panel(area, index).map_err(|error| failed(&error))?;
        }
        root.present().map_err(|error| failed(&error))?;
    }
    // Both are the defaults, and a quarter of the text.
    let svg = svg.replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", "");
    std::fs::write(path, svg).map_err(|error| failed(&error))
}

fn chart<'a, 'b>(area: &'b Area<'a>, axes: &Axes<'_>) -> ChartBuilder<'b, 'b, SVGBackend<'a>> {
    let mut chart = ChartBuilder::on(area);
    chart.caption(axes.title, ("sans-serif", 18)).margin(12).x_label_area_size(34).y_label_area_size(52);
    chart
}

/// Lines over a logarithmic axis.
fn curves<'a>(area: &Area<'a>, axes: &Axes<'_>, lines: &[Line]) -> Drawn<'a> {
    let mut chart = chart(area, axes).build_cartesian_2d(axes.width.clone(), axes.height.clone().log_scale())?;
    let span = (axes.width.end - axes.width.start) as usize;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        // Few whole numbers are all labelled, each once.
        .x_labels(if span <= 10 { span + 1 } else { 11 })
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| match *y {
            y if y < 1.0 => format!("{y:.2}"),
            y if y < 1e4 => format!("{y:.0}"),
            y => format!("{y:.0e}"),
        })
        .max_light_lines(0)
        .draw()?;
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| !line.points.is_empty()) {
        let width = match (line.thin, line.name == RELATA) {
            (true, _) => 1,
            (false, true) => 3,
            (false, false) => 2,
        };
        let style = color(&line.name, index).stroke_width(width);
        let drawn = chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        if !line.thin {
            drawn.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// Colours that stay apart for the colour-blind (Okabe and Ito, 2008; those of the others also after Tol, 2021).
fn color(name: &str, index: usize) -> RGBColor {
    const OTHERS: [RGBColor; 4] =
        [RGBColor(240, 228, 66), RGBColor(110, 110, 110), RGBColor(20, 20, 20), RGBColor(136, 34, 85)];
    match name {
        "datafusion" | "registry" => RGBColor(230, 159, 0),
        "analytical" => RGBColor(86, 180, 233),
        RELATA => RGBColor(213, 94, 0),
        "postgres" => RGBColor(0, 114, 178),
        "duckdb" => RGBColor(0, 158, 115),
        "linear" | "oracle" => RGBColor(204, 121, 167),
        WRITTEN | "default" => RGBColor(150, 150, 150),
        _ => OTHERS[index % OTHERS.len()],
    }
}
