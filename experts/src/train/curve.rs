//! The learning curve of a run, as CSV and as a plot.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;

use crate::Result;
use crate::error::ExpertsError;

/// One step on the curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The step.
    pub step: u64,
    /// Training loss of the step.
    pub loss: f32,
    /// Learning rate.
    pub learning_rate: f32,
    /// Error on the held-out databases, where it was measured; see [`crate::train::evaluate::score`] and
    /// [`crate::train::pretrain::evaluate::score`].
    pub held_out: Option<f32>,
}

/// The points as CSV with a header.
pub fn to_csv(points: &[Point]) -> String {
    let mut text = String::from("step,loss,learning_rate,held_out\n");
    for Point { step, loss, learning_rate, held_out } in points {
        let held_out = held_out.map(|score| score.to_string()).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{step},{loss},{learning_rate},{held_out}");
    }
    text
}

/// The points of [`to_csv`]; lines that are damaged are left out.
pub fn from_csv(text: &str) -> Vec<Point> {
    let point = |line: &str| {
        let mut fields = line.split(',');
        let mut next = || fields.next();
        Some(Point {
            step: next()?.parse().ok()?,
            loss: next()?.parse().ok()?,
            learning_rate: next()?.parse().ok()?,
            held_out: next()?.parse().ok(),
        })
    };
    text.lines().skip(1).filter_map(point).collect()
}

/// What the curves of training on plans show: the loss, and the error on the held-out databases.
pub const PLANS: [&str; 2] = ["training loss (pinball)", "held-out ln q-error"];

/// What the curves of training the answer head show.
pub const ANSWERS: [&str; 2] = ["training loss (pinball)", "held-out loss"];

/// What the curves of training the physical-plan expert show.
pub const RUNTIMES: [&str; 2] = ["training loss (pinball)", "held-out ln q-error"];

/// What the curves of training the in-context predictor show.
pub const TASKS: [&str; 2] = ["training loss", "held-out loss over that of the labels' distribution"];

/// What the curves of the pre-training of the data expert show.
pub const TABLES: [&str; 2] =
    ["training loss (buckets + cells)", "held out: ln error of buckets + share of cells missed"];

/// Plots training loss and held-out error over steps as SVG; `labels` say what they are.
///
/// # Errors
///
/// [`ExpertsError::Training`] if the file cannot be drawn.
pub fn plot(points: &[Point], labels: [&str; 2], path: &Path) -> Result<()> {
    draw(points, labels, path)
        .map_err(|error| ExpertsError::Training(format!("cannot plot {}: {error}", path.display())))
}

fn draw(points: &[Point], labels: [&str; 2], path: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let losses: Vec<(f64, f64)> = points.iter().map(|point| (point.step as f64, f64::from(point.loss))).collect();
    let scores: Vec<(f64, f64)> =
        points.iter().filter_map(|point| Some((point.step as f64, f64::from(point.held_out?)))).collect();
    let last = points.last().map_or(1.0, |point| point.step.max(1) as f64);
    let highest = losses.iter().chain(&scores).map(|point| point.1).filter(|y| y.is_finite()).fold(1e-3, f64::max);
    let root = SVGBackend::new(path, (900, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(20)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..last, 0.0..highest * 1.05)?;
    chart.configure_mesh().x_desc("step").y_desc("ln").draw()?;
    chart
        .draw_series(LineSeries::new(losses, &BLUE))?
        .label(labels[0])
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE));
    chart
        .draw_series(LineSeries::new(scores, &RED))?
        .label(labels[1])
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], RED));
    chart.configure_series_labels().border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_is_written_as_csv_and_svg() {
        let point = |step, held_out| Point { step, loss: 1.0 / step as f32, learning_rate: 0.1, held_out };
        let points = [point(1, None), point(2, Some(0.5)), point(3, None)];
        assert_eq!(to_csv(&points).lines().nth(2), Some("2,0.5,0.1,0.5"));
        assert_eq!(from_csv(&to_csv(&points)), points);
        assert_eq!(from_csv("step,loss\n1,oops,\n"), []);
        let path = std::env::temp_dir().join(format!("relata-curve-{}.svg", std::process::id()));
        plot(&points, PLANS, &path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("</svg>"));
        plot(&[], TABLES, &path).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
