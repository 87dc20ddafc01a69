//! Features, labels and splits as files for models in other languages.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use relata_experts::in_context::Labels;
use relata_featurize::synthesis::FeatureValues;
use serde_json::json;

use super::Split;
use super::prepare::Prepared;

/// Writes `features.csv` (numbers, and categories as codes; empty is missing, the last column is the label) and `splits.json` to
/// `FOLDER/export/DATABASE-TASK`.
pub(super) fn write(folder: &Path, task: &Prepared, splits: &[Split]) -> Result<()> {
    let folder = folder.join("export").join(task.name.replace('/', "-"));
    std::fs::create_dir_all(&folder)?;
    let mut text = String::new();
    for row in 0..task.features.rows.len() {
        for column in &task.features.columns {
            match &column.values {
                FeatureValues::Number(values) if values[row].is_finite() => write!(text, "{}", values[row])?,
                FeatureValues::Category { codes, .. } => {
                    if let Some(code) = codes[row] {
                        write!(text, "{code}")?;
                    }
                }
                FeatureValues::Number(_) => {}
            }
            text.push(',');
        }
        match &task.label {
            Labels::Classes { labels, .. } => writeln!(text, "{}", labels[row])?,
            Labels::Numbers(labels) => writeln!(text, "{}", labels[row])?,
        }
    }
    let file = folder.join("features.csv");
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    let is_category = |values: &FeatureValues| matches!(values, FeatureValues::Category { .. });
    let categories: Vec<bool> = task.features.columns.iter().map(|column| is_category(&column.values)).collect();
    let description = json!({"task": task.name, "classes": task.classes(), "categories": categories, "splits": splits});
    std::fs::write(folder.join("splits.json"), description.to_string())?;
    Ok(())
}
