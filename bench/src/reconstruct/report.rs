//! The figures as a page to read.

use std::fmt::Write;

use super::{BucketFigure, CellFigure, EXPERT, ReconstructReport};

/// What the seed paper reports (Tables 1 and 2): median and 95th percentile of the q-error,
const PAPER_BUCKETS: [(&str, [f64; 2]); 3] =
    [("1-d", [1.89, 78.68]), ("2-5-d", [2.32, 193.85]), ("all", [1.97, 90.06])];

/// and the accuracy on an unseen database.
const PAPER_CELLS: [(&str, f64); 2] = [("high", 0.80), ("low", 0.77)];

/// The report as Markdown, with the command that makes it.
pub fn markdown(report: &ReconstructReport) -> String {
    let mut page = String::from("# What the data expert restores\n\n");
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "On {} databases of the corpus that nothing is trained on (role `eval`: {}). Made by\n\n    relata-bench \
         reconstruct --corpus ../shared/corpus --output bench/reports/reconstruct\n\n",
        report.databases.len(),
        report.databases.join(", ")
    );
    page.push_str(
        "## Histograms\n\nRows of buckets, restored from the embeddings of columns and table; q-error with both sides \
         clipped at one row. One column: 10 buckets of equal width in the relative encoding; two: 5 per column; three to \
         five: 4 per column; one more per column for NULL. Truth is counted on all rows of the table. All histograms over \
         one column that has more than one value, and ten random ones per table over two, three, four and five. Median / \
         95th percentile over the buckets that have rows or are restored to half a row or more: mean over the databases \
         (the paper: averages over 19), and over all buckets; last, over all buckets that have rows. The paper does not \
         say how it cuts buckets, so its figures are no exact yardstick.\n\n\
         | histograms | restored by | mean over databases | all buckets | buckets with rows | buckets |\n\
         |---|---|---|---|---|---|\n",
    );
    let ends = |[median, high]: [f64; 2]| format!("{} / {}", number(median), number(high));
    for (group, paper) in PAPER_BUCKETS {
        for figure in report.histograms.iter().filter(|figure| figure.group == group) {
            let BucketFigure { contender, per_database, pooled, with_rows, buckets, .. } = figure;
            let (per_database, pooled, with_rows) = (ends(*per_database), ends(*pooled), ends(*with_rows));
            let _ = writeln!(page, "| {group} | {contender} | {per_database} | {pooled} | {with_rows} | {buckets} |");
        }
        let _ = writeln!(page, "| {group} | seed paper | {} | | | |", ends(paper));
    }
    page.push_str(
        "\n\"Groups, untrained\" is the expert with all weights zero: a mixture of products over the groups of similar \
         rows, pulled to the columns' own distributions. \"Column embedding alone\" is the vector that the logical expert \
         reads. The linear model corrects independence; it is fitted to the databases of role `train`.\n\n\
         ## Masked cells\n\nRows that the profile has not seen, one cell masked; right is a value within 0.1 of the actual \
         one in the relative encoding, NULL for NULL. High: a visible column has |Pearson| > 0.8 with the masked one. Low: \
         none, but |Pearson|, |Spearman| or the adjusted correlation ratio (in place of RDC) is above 0.75.\n\n\
         | correlation | restored by | mean over databases | all cells | cells | columns |\n|---|---|---|---|---|---|\n",
    );
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    for (group, paper) in PAPER_CELLS {
        for figure in report.cells.iter().filter(|figure| figure.group == group) {
            let CellFigure { contender, per_database, pooled, cells, columns, .. } = figure;
            let (per_database, pooled) = (percent(*per_database), percent(*pooled));
            let _ = writeln!(page, "| {group} | {contender} | {per_database} | {pooled} | {cells} | {columns} |");
        }
        let _ = writeln!(page, "| {group} | seed paper, unseen database | {} | | | |", percent(paper));
    }
    let [median, high] = report.embedding_us;
    let _ = write!(
        page,
        "\nTo embed a table from its profile takes {median:.0} us (median of the tables, 90th percentile {high:.0} us; with \
         other work beside it).\n\n\
         ## Embeddings of columns\n\nSynthetic columns of known distributions (`relata_experts::prior::family_column`), \
         embedded by the {EXPERT} and projected to their first two principal components (linfa):\n\n\
         ![Columns by family](columns.svg)\n"
    );
    page
}

/// Two digits below a hundred.
fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}
