//! The comparison as a page to read.

use std::fmt::Write;

use super::MarginalsReport;

/// The report as Markdown, with the command that makes it.
pub fn markdown(report: &MarginalsReport) -> String {
    let mut page = String::from("# The relational prior beside real databases\n\n");
    let first = report.seed;
    let last = report.seed.wrapping_add(report.draws as u64 - 1);
    let _ = write!(
        page,
        "{} databases of the corpus (role `train`: {}) and {} draws of the prior with its defaults, seeds {first} to \
         {last}. Each database weighs the same. Made by\n\n    \
         relata-bench marginals --corpus ../shared/corpus --draws {} --seed {first} --output bench/reports/prior\n\n\
         ![Distribution functions of every statistic](marginals.svg)\n\n",
        report.databases.len(),
        report.databases.join(", "),
        report.draws,
        report.draws,
    );
    page.push_str(
        "KS is the largest difference between the two distribution functions. Beside it, the median and the 95th \
         percentile of that distance between as many draws as there are real databases and all draws: what chance \
         alone would make of it. Columns are those that are no keys, of tables of at least 50 rows; references those \
         of tables of at least 200.\n\n\
         | quartiles | corpus | prior | KS | by chance |\n|---|---|---|---|---|\n",
    );
    for row in &report.statistics {
        let quartiles = |values: &[f64; 3]| values.map(number).join(", ");
        let _ = writeln!(
            page,
            "| {} | {} | {} | {:.2} | {:.2}, {:.2} |",
            row.statistic.name(),
            quartiles(&row.corpus),
            quartiles(&row.prior),
            row.distance,
            row.expected[0],
            row.expected[1]
        );
    }
    page.push_str(
        "\nShares are means over the databases; by chance: 5th and 95th percentile of as many draws as there are real \
         databases.\n\n| share | corpus | prior | by chance |\n|---|---|---|---|\n",
    );
    for row in &report.shares {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} to {} |",
            row.share.name(),
            percent(row.corpus),
            percent(row.prior),
            percent(row.expected[0]),
            percent(row.expected[1])
        );
    }
    page
}

/// Two digits for shares, none for large numbers.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 20.0 => 0,
        size if size >= 1.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
