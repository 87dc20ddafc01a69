//! q-error percentiles per contender, a panel per group.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::report::groups;
use super::{Contender, Estimated};
use crate::metrics::{percentile, q_error, sorted};

/// Size of one panel in pixels.
const PANEL: (u32, u32) = (420, 340);

/// Beyond this the curves leave the picture.
const MOST: f64 = 1e6;

/// Draws the q-error over its percentile, one line per contender.
///
/// # Errors
/// When the picture cannot be written.
pub(super) fn draw(estimates: &[Estimated], path: &Path) -> Result<()> {
    let all: Vec<&Estimated> = estimates.iter().collect();
    let groups = groups(&all);
    let columns = groups.len().clamp(1, 3);
    let rows = groups.len().div_ceil(columns).max(1);
    let root = SVGBackend::new(path, (PANEL.0 * columns as u32, PANEL.1 * rows as u32)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    for (area, group) in root.split_evenly((rows, columns)).iter().zip(&groups) {
        let lines: Vec<(Contender, Vec<f64>)> =
            Contender::ALL.iter().map(|&contender| (contender, errors(&all, group, contender))).collect();
        panel(area, group, &lines).map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))
}

fn errors(estimates: &[&Estimated], group: &str, contender: Contender) -> Vec<f64> {
    let here = estimates.iter().filter(|estimated| estimated.group == group);
    let scored = here.filter_map(|estimated| estimated.scored(contender));
    sorted(scored.map(|scored| q_error(scored.estimate, scored.truth)).collect())
}

type PlotResult<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    group: &str,
    lines: &[(Contender, Vec<f64>)],
) -> PlotResult<'a> {
    let mut chart = ChartBuilder::on(area)
        .caption(group, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..100.0, (1.0..MOST).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile of the queries")
        .y_desc("q-error")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (contender, errors) in lines.iter().filter(|(_, errors)| !errors.is_empty()) {
        let style = color(*contender).stroke_width(if *contender == Contender::Relata { 3 } else { 2 });
        let points = (0..=400).map(|step| {
            let p = f64::from(step) / 4.0;
            (p, percentile(errors, p).clamp(1.0, MOST))
        });
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(contender.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// Colours that stay apart for the colour-blind (Okabe and Ito, 2008).
fn color(contender: Contender) -> RGBColor {
    match contender {
        Contender::DataFusion => RGBColor(230, 159, 0),
        Contender::Analytical => RGBColor(86, 180, 233),
        Contender::Relata => RGBColor(213, 94, 0),
        Contender::Postgres => RGBColor(0, 114, 178),
        Contender::DuckDb => RGBColor(0, 158, 115),
    }
}
