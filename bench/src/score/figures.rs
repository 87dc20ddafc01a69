//! Figures of estimates, and the table they are read in.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use super::Estimated;
use super::contender::RELATA;
use crate::corpus::SUBPLAN;
use crate::metrics::{Side, Summary, summarize};

/// A set of queries that are judged together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Sub-joins of the hard queries instead of whole queries.
    pub subplans: bool,
    /// The kind or the number of tables; `all` for both.
    pub name: String,
}

impl Group {
    /// Whether a query belongs to it.
    pub fn contains(&self, query: &Estimated) -> bool {
        let inside = self.name == "all" || self.name == query.kind || self.name == tables(query.tables);
        inside && self.subplans == (query.kind == SUBPLAN)
    }

    /// Every group that has queries: kinds in the order of the corpus, then numbers of tables, then all.
    pub fn all(estimates: &[Estimated]) -> Vec<Group> {
        let mut groups: Vec<Group> = vec![];
        for subplans in [false, true] {
            let kinds = if subplans { &[][..] } else { &["seed", "hard", "group", "aqp"] };
            let most = estimates.iter().map(|query| query.tables).max().unwrap_or(0);
            let names = kinds.iter().map(|&kind| kind.to_owned()).chain((1..=most).map(tables));
            groups.extend(names.chain(["all".to_owned()]).map(|name| Group { subplans, name }));
        }
        groups.retain(|group| estimates.iter().any(|query| group.contains(query)));
        groups
    }
}

/// The name of the group of queries with so many tables.
pub fn tables(tables: usize) -> String {
    format!("{tables} table{}", if tables == 1 { "" } else { "s" })
}

/// One row of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The database; `None` over all of them.
    pub database: Option<String>,
    /// Which queries.
    #[serde(flatten)]
    pub group: Group,
    /// Who estimated.
    pub contender: String,
    /// How well.
    #[serde(flatten)]
    pub summary: Summary,
}

/// The figures of every contender: of every group over all databases, and of all whole queries of each database.
pub fn figures(estimates: &[Estimated], contenders: &[String]) -> Vec<Figure> {
    let mut databases: Vec<&str> = estimates.iter().map(|estimated| estimated.database.as_str()).collect();
    databases.dedup();
    let groups = Group::all(estimates);
    let everywhere = groups.iter().map(|group| (None, group));
    let all = groups.iter().filter(|group| group.name == "all" && !group.subplans);
    let each = all.flat_map(|group| databases.iter().map(move |database| (Some(*database), group)));
    everywhere
        .chain(each)
        .flat_map(|(database, group)| {
            let here: Vec<&Estimated> = estimates
                .iter()
                .filter(|query| database.is_none_or(|name| query.database == name) && group.contains(query))
                .collect();
            contenders.iter().filter_map(move |contender| {
                let scored: Vec<_> = here.iter().map(|query| query.scored(contender)).collect();
                let summary = summarize(&scored)?;
                let (database, contender) = (database.map(str::to_owned), contender.clone());
                Some(Figure { database, group: group.clone(), contender, summary })
            })
        })
        .collect()
}

/// The columns of the table of figures.
pub const COLUMNS: [&str; 15] = [
    "queries",
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
    "their 90%",
    "their 90%",
    "coverage",
    "width",
];

/// The cells of a figure under [`COLUMNS`]; shares of under- and overestimates with the 90% percentile of each side.
pub fn cells(figure: &Figure) -> Vec<String> {
    let Summary { n, missing, median, p90, p95, p99, max, geometric_mean, under, over, coverage, width, .. } =
        &figure.summary;
    let side = |side: &Option<Side>| side.as_ref().map_or_else(|| "-".to_owned(), |side| short(side.p90));
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", 100.0 * share));
    let mut row = vec![figure.group.name.clone(), figure.contender.clone(), n.to_string(), missing.to_string()];
    row.extend([median, p90, p95, p99, max, geometric_mean].map(|value| short(*value)));
    row.extend([share(Some(under.as_ref().map_or(0.0, |under| under.share))), side(under), side(over)]);
    row.extend([share(*coverage), width.map_or_else(|| "-".to_owned(), short)]);
    row
}

/// The figures over all databases as tables, whole queries first.
pub fn print(figures: &[Figure]) -> String {
    let mut text = String::new();
    for (subplans, title) in [(false, "whole queries"), (true, "connected sub-joins of the hard queries")] {
        let rows: Vec<Vec<String>> = figures
            .iter()
            .filter(|figure| figure.database.is_none() && figure.group.subplans == subplans)
            .map(cells)
            .collect();
        if !rows.is_empty() {
            let header = ["", "", "", "", "", "", "", "", "", "", "", "under", "over", "", ""];
            text += &format!("{title}\n{}\n\n", table(&[&header, &COLUMNS], rows));
        }
    }
    if let Some(intervals) = Intervals::of(figures, RELATA) {
        text += &format!("{}\n{}\n\n", intervals.summary(), table(&[&INTERVAL_COLUMNS], intervals.cells()));
    }
    text
}

/// The 90% intervals of a contender, over all whole queries and by database.
#[derive(Debug, Clone, PartialEq)]
pub struct Intervals {
    /// Over all databases: the share of the truths inside.
    pub coverage: f64,
    /// Mean of `ln` of upper over lower end.
    pub log_width: f64,
    /// Each database with both.
    pub databases: Vec<(String, f64, f64)>,
}

impl Intervals {
    /// Those of a contender; `None` where it gives none.
    pub fn of(figures: &[Figure], contender: &str) -> Option<Self> {
        let whole =
            |figure: &&Figure| figure.contender == contender && figure.group.name == "all" && !figure.group.subplans;
        let both = |figure: &Figure| figure.summary.coverage.zip(figure.summary.log_width);
        let of_all = figures.iter().filter(whole).find(|figure| figure.database.is_none())?;
        let (coverage, log_width) = both(of_all)?;
        let databases = figures.iter().filter(whole).filter_map(|figure| {
            let (coverage, log_width) = both(figure)?;
            Some((figure.database.clone()?, coverage, log_width))
        });
        Some(Self { coverage, log_width, databases: databases.collect() })
    }

    /// In one sentence.
    pub fn summary(&self) -> String {
        let inside = |(_, coverage, _): &&(String, f64, f64)| (0.85..=0.95).contains(coverage);
        format!(
            "90% intervals of whole queries cover {:.1}% of the truths, 85% to 95% on {} of {} databases; mean ln width {:.2}",
            100.0 * self.coverage,
            self.databases.iter().filter(inside).count(),
            self.databases.len(),
            self.log_width,
        )
    }

    /// The rows of a table: database, coverage, mean ln width.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let row = |(name, coverage, width): &(String, f64, f64)| {
            vec![name.clone(), format!("{:.1}%", 100.0 * coverage), format!("{width:.2}")]
        };
        self.databases.iter().map(row).collect()
    }
}

/// The columns of the table of intervals by database.
pub const INTERVAL_COLUMNS: [&str; 3] = ["database", "coverage", "ln width"];

/// Rows under header lines; a first cell that repeats is left out, and numbers stand to the right.
pub fn table(header: &[&[&str]], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for line in header {
        table.add_row(line.iter().copied());
    }
    let mut last = String::new();
    for mut row in rows {
        if row[0] == last {
            row[0].clear();
        } else {
            last.clone_from(&row[0]);
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// A q-error with as many digits as one can use.
pub fn short(value: f64) -> String {
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
