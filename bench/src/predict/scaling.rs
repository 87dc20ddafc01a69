//! How predictions get better the more synthetic tasks the weights were trained on.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use super::scores::{Score, means, shown};

/// The tasks that weights have seen, with their scores.
pub(super) type Stages = BTreeMap<u64, Vec<Score>>;

/// Mean AUC and R2 over the tasks seen, for each number of examples.
pub(super) fn print(stages: &Stages) -> String {
    let mut rows = vec![];
    for (seen, scores) in stages {
        for (shots, [area, r2]) in means(scores) {
            rows.push(vec![seen.to_string(), shots.to_string(), shown(area, 4), shown(r2, 4)]);
        }
    }
    crate::score::figures::table(&[&["synthetic tasks seen", "examples", "AUC", "R2"]], rows)
}

/// A picture of it.
pub(super) fn plot(stages: &Stages, path: &Path) -> Result<()> {
    draw(stages, path).map_err(|error| anyhow::anyhow!("cannot plot {}: {error}", path.display()))
}

fn draw(stages: &Stages, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut lines: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    for (seen, scores) in stages {
        for (shots, [area, _]) in means(scores) {
            lines.entry(shots).or_default().push((*seen as f64 / 1000.0, area));
        }
    }
    let points = || lines.values().flatten();
    let (low, high) = points().fold((1.0f64, 0.5f64), |(low, high), (_, area)| (low.min(*area), high.max(*area)));
    let last = points().fold(1.0f64, |last, (seen, _)| last.max(*seen));
    let root = SVGBackend::new(path, (900, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(20)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..1.1 * last, (low - 0.01)..(high + 0.01))?;
    chart.configure_mesh().x_desc("thousands of synthetic tasks seen").y_desc("mean AUC").draw()?;
    for (place, (shots, line)) in lines.into_iter().enumerate() {
        let color = Palette99::pick(place).to_rgba();
        let dots: Vec<_> = line.iter().map(|point| Circle::new(*point, 4, color.filled())).collect();
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(format!("{shots} examples"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
        chart.draw_series(dots)?;
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}
