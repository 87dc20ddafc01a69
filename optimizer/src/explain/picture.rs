//! A plan as a picture (SVG): a box per node, and edges whose width is the logarithm of the estimated rows that go along them.

use std::fmt::Write;

use super::{interval, rows_of, short};
use crate::estimate::PlanEstimate;

/// Width and height of a box, and the space between two.
const BOX: (f64, f64) = (250.0, 58.0);
const SPACE: (f64, f64) = (18.0, 34.0);
/// Characters that fit into a box.
const CHARACTERS: usize = 38;

/// A node with its box: the middle of it, and the level from the top.
struct Placed<'p> {
    node: &'p PlanEstimate,
    middle: f64,
    level: usize,
    /// The index of the node above.
    above: Option<usize>,
}

/// The picture of a plan.
pub(crate) fn svg(plan: &PlanEstimate) -> String {
    let nodes = placed(plan);
    let levels = nodes.iter().map(|placed| placed.level + 1).max().unwrap_or(0);
    let right = nodes.iter().map(|placed| placed.middle).fold(0.0, f64::max) + 0.5 * BOX.0;
    let (width, height) = (right + SPACE.0, top(levels));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for placed in &nodes {
        if let Some(above) = placed.above.and_then(|above| nodes.get(above)) {
            edge(&mut svg, placed, above);
        }
    }
    nodes.iter().for_each(|placed| node(&mut svg, placed));
    svg.push_str("</svg>\n");
    svg
}

/// Every node, those above first: leaves side by side, the others over the middle of their inputs.
fn placed(plan: &PlanEstimate) -> Vec<Placed<'_>> {
    let mut nodes = vec![Placed { node: plan, middle: 0.0, level: 0, above: None }];
    let mut stack = vec![0];
    let mut leaves = 0;
    while let Some(index) = stack.pop() {
        let (node, level) = (nodes[index].node, nodes[index].level);
        if node.inputs.is_empty() {
            nodes[index].middle = SPACE.0 + 0.5 * BOX.0 + f64::from(leaves) * (BOX.0 + SPACE.0);
            leaves += 1;
        }
        let first = nodes.len();
        nodes.extend(node.inputs.iter().map(|node| Placed { node, middle: 0.0, level: level + 1, above: Some(index) }));
        stack.extend((first..nodes.len()).rev());
    }
    let mut ends = vec![(f64::INFINITY, f64::NEG_INFINITY); nodes.len()];
    for index in (0..nodes.len()).rev() {
        if !nodes[index].node.inputs.is_empty() {
            nodes[index].middle = 0.5 * (ends[index].0 + ends[index].1);
        }
        if let Some(above) = nodes[index].above {
            let middle = nodes[index].middle;
            ends[above] = (ends[above].0.min(middle), ends[above].1.max(middle));
        }
    }
    nodes
}

fn top(level: usize) -> f64 {
    SPACE.1 + level as f64 * (BOX.1 + SPACE.1)
}

fn edge(svg: &mut String, from: &Placed<'_>, to: &Placed<'_>) {
    let estimate = &from.node.estimate;
    let rows = if estimate.is_known() { estimate.rows.clamp(0.0, f64::MAX) } else { 0.0 };
    let _ = writeln!(
        svg,
        "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"#7a8ca0\" stroke-width=\"{:.1}\"/>",
        from.middle,
        top(from.level),
        to.middle,
        top(to.level) + BOX.1,
        1.0 + 0.6 * rows.ln_1p(),
    );
}

fn node(svg: &mut String, placed: &Placed<'_>) {
    let PlanEstimate { node, estimate, .. } = placed.node;
    let (operator, details) = node.split_once(':').unwrap_or((node, ""));
    let fill = if estimate.is_known() { "#eef4fb" } else { "#f4f0e8" };
    let rows = format!("rows {}{} {}", rows_of(estimate), interval(estimate), estimate.origin);
    let (left, top) = (placed.middle - 0.5 * BOX.0, top(placed.level));
    let _ = writeln!(
        svg,
        "<g><title>{}</title><rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\" rx=\"4\" fill=\"{fill}\" stroke=\"#7a8ca0\"/>",
        escaped(node),
        BOX.0,
        BOX.1,
    );
    for (line, style, text) in [(0, " font-weight=\"bold\"", operator), (1, "", details), (2, "", rows.as_str())] {
        let (x, y) = (left + 8.0, top + 17.0 + 17.0 * f64::from(line));
        let _ =
            writeln!(svg, "<text x=\"{x}\" y=\"{y}\"{style}>{}</text>", escaped(&short(text.trim_start(), CHARACTERS)));
    }
    svg.push_str("</g>\n");
}

/// A text as XML has it, which knows no control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::Estimate;

    fn node(text: &str, estimate: Estimate, inputs: Vec<PlanEstimate>) -> PlanEstimate {
        PlanEstimate { node: text.to_owned(), estimate, inputs }
    }

    fn leaf(text: &str, rows: f64) -> PlanEstimate {
        node(text, Estimate::exact(rows), vec![])
    }

    #[test]
    fn boxes_do_not_overlap_and_edges_grow_with_rows() {
        let few = node("Filter: a", Estimate::exact(3.0), vec![leaf("TableScan: few", 10.0)]);
        let join = node("Inner Join: x = y", Estimate::fallback("no profile"), vec![few, leaf("TableScan: many", 1e9)]);
        let nodes = placed(&join);
        for (index, one) in nodes.iter().enumerate() {
            for other in &nodes[index + 1..] {
                assert!(one.level != other.level || (one.middle - other.middle).abs() >= BOX.0);
            }
        }
        let svg = svg(&join);
        assert_eq!((svg.matches("<rect x").count(), svg.matches("<line").count()), (4, 3));
        assert!(svg.contains("rows unknown fallback: no profile") && svg.contains("TableScan"), "{svg}");
        let widths = svg.lines().filter_map(|line| line.strip_suffix("\"/>")?.rsplit_once("stroke-width=\""));
        let widths: Vec<f64> = widths.map(|(_, width)| width.parse().unwrap()).collect();
        assert!(
            widths.len() == 3 && widths.iter().all(|width| *width > 1.0) && widths.iter().any(|width| *width > 10.0)
        );
    }

    #[test]
    fn texts_are_escaped() {
        let svg = svg(&leaf("Filter: a < 1 AND b = \"x\" & c = '\u{1}\n</text>\u{ffff}'", 1.0));
        assert!(svg.contains("a &lt; 1 AND b = &quot;x&quot; &amp; c"), "{svg}");
        assert_eq!((svg.matches("</text>").count(), svg.matches("<text").count()), (3, 3), "{svg}");
        assert!(svg.chars().all(|character| character == '\n' || !character.is_control()) && !svg.contains('\u{ffff}'));
    }

    #[test]
    fn large_plans_are_drawn() {
        let mut wide =
            node("Union", Estimate::exact(0.0), (0..2000).map(|i| leaf(&format!("TableScan: t{i}"), 1.0)).collect());
        for _ in 0..500 {
            wide = node(&"Projection: x".repeat(50), Estimate::exact(f64::INFINITY), vec![wide]);
        }
        let svg = svg(&wide);
        assert_eq!(svg.matches("<rect x").count(), 2501);
        assert!(!svg.contains("inf\"") && !svg.contains("NaN"), "numbers");
    }
}
