//! Embeddings of synthetic columns whose distributions are known, in the plane.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use linfa::Dataset;
use linfa::traits::{Fit, Predict};
use linfa_reduction::Pca;
use ndarray::Array2;
use plotters::prelude::*;
use relata_experts::data::DataExpert;
use relata_experts::prior::{Family, family_column};
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::relative::TableInput;

/// Columns in the picture.
const COLUMNS: u64 = 900;

/// Rows of each.
const ROWS: usize = 3000;

/// Colours that stay apart for the colour-blind (Okabe and Ito, 2008), one per family.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
];

/// The families of `columns` synthetic columns and the first two principal components of their embeddings `[columns, 2]`.
///
/// # Errors
/// When the expert refuses a column, or the components cannot be found.
pub fn components(expert: &DataExpert, columns: u64) -> Result<(Vec<Family>, Array2<f64>)> {
    let (mut families, mut embeddings) = (vec![], vec![]);
    for seed in 0..columns {
        let (family, array) = family_column(ROWS, seed);
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![array])?;
        let profile = TableProfile::of_batches(schema, &[batch], &ProfileConfig::default())?;
        let embedding = expert.embed(&TableInput::new(&profile))?;
        embeddings.extend(embedding.column(0).context("a table of one column")?.iter().copied().map(f64::from));
        families.push(family);
    }
    let embeddings = Array2::from_shape_vec((families.len(), expert.config().width), embeddings)?;
    let dataset = Dataset::from(embeddings);
    let pca = Pca::params(2).fit(&dataset).map_err(|error| anyhow!("{error}"))?;
    Ok((families, pca.predict(&dataset)))
}

/// Draws the columns, coloured by family.
///
/// # Errors
/// When the components cannot be found or the picture cannot be written.
pub(super) fn draw(expert: &DataExpert, path: &Path) -> Result<()> {
    let (families, points) = components(expert, COLUMNS)?;
    paint(&families, &points, path).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn paint(
    families: &[Family],
    points: &Array2<f64>,
    path: &Path,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let range = |axis: usize| {
        let values = points.column(axis);
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        let margin = 0.05 * (high - low).max(1e-9);
        low - margin..high + margin
    };
    let root = SVGBackend::new(path, (820, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Embeddings of synthetic columns by the family of their distribution", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(range(0), range(1))?;
    chart.configure_mesh().x_desc("first principal component").y_desc("second").light_line_style(WHITE).draw()?;
    for (family, color) in Family::ALL.into_iter().zip(COLORS) {
        let own = families.iter().zip(points.rows()).filter(|(other, _)| **other == family);
        let dots = own.map(|(_, point)| Circle::new((point[0], point[1]), 3, color.mix(0.7).filled()));
        chart.draw_series(dots)?.label(family.name()).legend(move |(x, y)| Circle::new((x + 8, y), 4, color.filled()));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}
