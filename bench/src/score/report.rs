//! Figures of estimates, and the table they are read in.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::{Contender, Estimated};
use crate::metrics::{Summary, summarize};

/// One row of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The database; `None` over all of them.
    pub database: Option<String>,
    /// The kind of query, the number of tables, or `all`.
    pub group: String,
    /// Who estimated.
    pub contender: Contender,
    /// How well.
    #[serde(flatten)]
    pub summary: Summary,
}

/// The figures of every group and contender, over all databases and for each of them.
pub fn figures(estimates: &[Estimated]) -> Vec<Figure> {
    let mut databases: Vec<&str> = estimates.iter().map(|estimated| estimated.database.as_str()).collect();
    databases.dedup();
    let everywhere = std::iter::once(None);
    everywhere.chain(databases.into_iter().map(Some)).flat_map(|database| figures_of(estimates, database)).collect()
}

fn figures_of(estimates: &[Estimated], database: Option<&str>) -> Vec<Figure> {
    let here: Vec<&Estimated> =
        estimates.iter().filter(|estimated| database.is_none_or(|name| estimated.database == name)).collect();
    let mut groups = groups(&here);
    if groups.len() > 1 {
        groups.push("all".to_owned());
    }
    let mut figures = vec![];
    for group in groups {
        for contender in Contender::ALL {
            let scored: Vec<_> = here
                .iter()
                .filter(|estimated| group == "all" || estimated.group == group)
                .map(|estimated| estimated.scored(contender))
                .collect();
            figures.extend(summarize(&scored).map(|summary| Figure {
                database: database.map(str::to_owned),
                group: group.clone(),
                contender,
                summary,
            }));
        }
    }
    figures
}

/// Kinds in the order of the corpus, numbers of tables ascending.
pub(super) fn groups(estimates: &[&Estimated]) -> Vec<String> {
    const KINDS: [&str; 3] = ["seed", "hard", "group"];
    let mut groups: Vec<String> = estimates.iter().map(|estimated| estimated.group.clone()).collect();
    groups.sort_by_key(|group| (KINDS.iter().position(|kind| kind == group), group.clone()));
    groups.dedup();
    groups
}

/// The figures over all databases as a table.
pub fn print(figures: &[Figure]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "group",
        "contender",
        "n",
        "missing",
        "median",
        "90%",
        "95%",
        "99%",
        "max",
        "geo-mean",
        "under",
        "coverage",
        "width",
    ]);
    let mut last = "";
    for figure in figures.iter().filter(|figure| figure.database.is_none()) {
        let Summary { n, missing, median, p90, p95, p99, max, geometric_mean, under, coverage, width } = figure.summary;
        let mut row = vec![if figure.group == last { String::new() } else { figure.group.clone() }];
        row.extend([figure.contender.name().to_owned(), n.to_string(), missing.to_string()]);
        row.extend([median, p90, p95, p99, max, geometric_mean].map(short));
        row.push(format!("{:.0}%", 100.0 * under));
        row.push(coverage.map_or_else(|| "-".to_owned(), |coverage| format!("{:.1}%", 100.0 * coverage)));
        row.push(width.map_or_else(|| "-".to_owned(), short));
        table.add_row(row);
        last = &figure.group;
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// A q-error with as many digits as one can use.
fn short(value: f64) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if value.is_infinite() {
        "inf".to_owned()
    } else if value >= 1e5 {
        format!("{value:.1e}")
    } else if value >= 1000.0 {
        format!("{value:.0}")
    } else if value >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [1.0, 12.345, 123.45, 1234.5, 123_456.0, f64::INFINITY].map(short);
        assert_eq!(texts, ["1.00", "12.35", "123.5", "1234", "1.2e5", "inf"]);
    }
}
