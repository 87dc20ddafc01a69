//! The questions of the demo, over the tables of `relata_experts::prior::demo_database`.
//!
//! They are written as an analyst would: the events first, then what they are about, then the small tables that a filter
//! picks a few rows from. DataFusion joins in that order. Each question breaks one of the assumptions behind default
//! estimates: skewed many-to-many joins, filters that imply one another, and fanouts that depend on what is filtered.

/// Where the true number of rows is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is the number of rows of the result.
    Rows,
    /// It is the first value of the only row: the query is an ungrouped `count(*)`, and what is estimated is what it counts.
    Count,
}

/// A query of the demo.
#[derive(Debug)]
pub struct DemoQuery {
    /// What it asks.
    pub question: &'static str,
    /// The query.
    pub sql: &'static str,
    /// Where its true number of rows is found.
    pub answer: Answer,
}

/// The queries, in the order in which they are run.
pub const QUERIES: [DemoQuery; 2] = [
    DemoQuery {
        question: "worst reviews of Icelandic goods, per sale",
        sql: "SELECT count(*) FROM order_items i \
              JOIN reviews r ON i.product_id = r.product_id \
              JOIN products p ON p.product_id = i.product_id \
              JOIN suppliers s ON s.supplier_id = p.supplier_id \
              JOIN countries c ON c.country_id = s.country_id \
              WHERE c.name = 'Iceland' AND r.rating = 1",
        answer: Answer::Count,
    },
    DemoQuery {
        question: "expensive Swiss orders of December by status",
        sql: "SELECT o.status, count(*) AS lines, sum(i.quantity * i.unit_price) AS amount FROM order_items i \
              JOIN orders o ON o.order_id = i.order_id \
              JOIN customers u ON u.customer_id = o.customer_id \
              JOIN cities t ON t.city_id = u.city_id \
              JOIN countries c ON c.country_id = t.country_id \
              JOIN products p ON p.product_id = i.product_id \
              WHERE c.income_level = 'high' AND c.name = 'Switzerland' AND u.country_code = 'CH' \
              AND p.price > 500 AND o.ordered_at >= TIMESTAMP '2024-12-01T00:00:00' \
              GROUP BY o.status ORDER BY o.status",
        answer: Answer::Rows,
    },
];
