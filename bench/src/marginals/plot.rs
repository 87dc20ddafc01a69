//! Distribution functions of the corpus and of the prior, a panel per statistic.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::statistic::{Distribution, Measured, Statistic};

/// Size of one panel in pixels.
const PANEL: (u32, u32) = (320, 230);

const COLUMNS: usize = 4;

/// Points of a curve.
const STEPS: u32 = 200;

/// Colours that stay apart for the colour-blind (Okabe and Ito, 2008).
const SIDES: [(&str, RGBColor); 2] = [("corpus", RGBColor(0, 114, 178)), ("prior", RGBColor(213, 94, 0))];

/// Draws one panel per statistic.
///
/// # Errors
/// When the picture cannot be written.
pub(super) fn draw(corpus: &[Measured], prior: &[Measured], path: &Path) -> Result<()> {
    let rows = Statistic::ALL.len().div_ceil(COLUMNS);
    let size = (PANEL.0 * COLUMNS as u32, PANEL.1 * rows as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    for (area, statistic) in root.split_evenly((rows, COLUMNS)).iter().zip(Statistic::ALL) {
        let both = [Distribution::new(corpus, statistic), Distribution::new(prior, statistic)];
        if both.iter().all(|side| !side.is_empty()) {
            panel(area, statistic, &both).map_err(|error| failed(&error))?;
        }
    }
    root.present().map_err(|error| failed(&error))
}

type PlotResult<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    statistic: Statistic,
    both: &[Distribution; 2],
) -> PlotResult<'a> {
    // Logarithmic panels are drawn over the exponent: plotters' own logarithmic axis labels every decade twice.
    let logarithmic = statistic.is_logarithmic();
    let place = |value: f64| if logarithmic { value.max(1e-6).log10() } else { value };
    let low = both.iter().map(|side| place(side.quantile(0.0))).fold(f64::INFINITY, f64::min);
    let high = both.iter().map(|side| place(side.quantile(1.0))).fold(f64::NEG_INFINITY, f64::max);
    let margin = (high - low).max(1e-3) * 0.02;
    let mut chart = ChartBuilder::on(area)
        .caption(statistic.name(), ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(30)
        .build_cartesian_2d(low - margin..high + margin, 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|x| if logarithmic { short(10f64.powf(*x)) } else { format!("{x:.1}") })
        .y_label_formatter(&|y| format!("{y:.1}"))
        .light_line_style(WHITE)
        .draw()?;
    for (side, (name, color)) in both.iter().zip(SIDES) {
        let style = color.stroke_width(2);
        let points = (0..=STEPS).map(|step| {
            let share = f64::from(step) / f64::from(STEPS);
            (place(side.quantile(share)), share)
        });
        let series = chart.draw_series(LineSeries::new(points, style))?;
        if statistic == Statistic::Tables {
            series.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
    }
    if statistic == Statistic::Tables {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE)
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    Ok(())
}

/// A number of at most a few characters: 0.03, 30, 3k, 3M.
fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{:.0}M", value / 1e6),
        _ if value >= 1e3 => format!("{:.0}k", value / 1e3),
        _ if value >= 1.0 => format!("{value:.0}"),
        _ => format!("{value:.5}").trim_end_matches('0').to_owned(),
    }
}
