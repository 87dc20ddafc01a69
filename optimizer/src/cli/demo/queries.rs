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
pub const QUERIES: [DemoQuery; 12] = [
    DemoQuery {
        question: "Tents and what sells with them",
        sql: "SELECT q.name, count(*) AS times FROM order_items a \
              JOIN order_items b ON a.order_id = b.order_id \
              JOIN products p ON p.product_id = a.product_id \
              JOIN products q ON q.product_id = b.product_id \
              JOIN categories g ON g.category_id = p.category_id \
              WHERE g.name = 'Tents' AND b.product_id <> a.product_id \
              GROUP BY q.name ORDER BY times DESC, q.name LIMIT 10",
        answer: Answer::Rows,
    },
    DemoQuery {
        question: "Lukewarm reviews of Icelandic goods, by sale",
        sql: "SELECT count(*) FROM order_items i \
              JOIN reviews r ON r.product_id = i.product_id \
              JOIN products p ON p.product_id = i.product_id \
              JOIN suppliers s ON s.supplier_id = p.supplier_id \
              JOIN countries c ON c.country_id = s.country_id \
              WHERE c.name = 'Iceland' AND r.rating = 3",
        answer: Answer::Count,
    },
    DemoQuery {
        question: "Expensive Swiss orders of December",
        sql: "SELECT o.status, count(*) AS lines, sum(i.quantity * i.unit_price) AS amount FROM order_items i \
              JOIN orders o ON o.order_id = i.order_id \
              JOIN customers u ON u.customer_id = o.customer_id \
              JOIN cities t ON t.city_id = u.city_id \
              JOIN countries c ON c.country_id = t.country_id \
              JOIN products p ON p.product_id = i.product_id \
              WHERE c.income_level = 'high' AND c.name = 'Switzerland' AND u.country_code = 'CH' \
              AND p.price > 200 AND o.ordered_at >= TIMESTAMP '2024-12-01T00:00:00' \
              GROUP BY o.status ORDER BY o.status",
        answer: Answer::Rows,
    },
    DemoQuery {
        question: "Bought, disliked and sent back",
        sql: "SELECT count(*) FROM order_items i \
              JOIN orders o ON o.order_id = i.order_id \
              JOIN reviews r ON r.product_id = i.product_id AND r.customer_id = o.customer_id \
              JOIN products p ON p.product_id = i.product_id \
              JOIN categories g ON g.category_id = p.category_id \
              WHERE g.department = 'Fashion' AND i.is_returned AND r.rating <= 2",
        answer: Answer::Count,
    },
    DemoQuery {
        question: "Finns and Norwegians who disagree",
        sql: "SELECT count(*) FROM reviews a \
              JOIN reviews b ON a.product_id = b.product_id \
              JOIN customers u ON u.customer_id = a.customer_id \
              JOIN customers v ON v.customer_id = b.customer_id \
              JOIN cities s ON s.city_id = u.city_id \
              JOIN cities t ON t.city_id = v.city_id \
              JOIN countries c ON c.country_id = s.country_id \
              JOIN countries d ON d.country_id = t.country_id \
              WHERE a.rating <= 3 AND b.rating = 5 AND c.name = 'Finland' AND d.name = 'Norway'",
        answer: Answer::Count,
    },
    DemoQuery {
        question: "Parcels within Africa by carrier",
        sql: "SELECT s.carrier, c.name, count(*) AS parcels, avg(s.cost) AS cost FROM shipments s \
              JOIN orders o ON o.order_id = s.order_id \
              JOIN customers u ON u.customer_id = o.customer_id \
              JOIN cities t ON t.city_id = u.city_id \
              JOIN countries c ON c.country_id = t.country_id \
              WHERE s.warehouse = 'AF-LAGOS' AND s.carrier <> 'Swiftline' AND c.region = 'Africa' \
              GROUP BY s.carrier, c.name ORDER BY parcels DESC, s.carrier, c.name",
        answer: Answer::Rows,
    },
    DemoQuery {
        question: "Black Friday by department",
        sql: "SELECT g.department, count(*) AS lines, sum(i.quantity) AS pieces FROM order_items i \
              JOIN orders o ON o.order_id = i.order_id \
              JOIN products p ON p.product_id = i.product_id \
              JOIN categories g ON g.category_id = p.category_id \
              WHERE o.coupon_code LIKE 'BLACKFRIDAY%' AND i.discount >= 0.2 \
              AND o.ordered_at >= TIMESTAMP '2023-11-01T00:00:00' AND o.ordered_at < TIMESTAMP '2023-12-01T00:00:00' \
              GROUP BY g.department ORDER BY g.department",
        answer: Answer::Rows,
    },
    DemoQuery {
        question: "Reviews by Fijians who cancelled, by order",
        sql: "SELECT count(*) FROM orders o \
              JOIN reviews r ON r.customer_id = o.customer_id \
              JOIN customers u ON u.customer_id = o.customer_id \
              JOIN cities t ON t.city_id = u.city_id \
              JOIN countries c ON c.country_id = t.country_id \
              WHERE c.name = 'Fiji' AND o.status = 'cancelled' AND r.rating >= 3",
        answer: Answer::Count,
    },
    DemoQuery {
        question: "Grocery suppliers of businesses, by phone",
        sql: "SELECT s.name, sum(i.quantity * i.unit_price) AS revenue FROM order_items i \
              JOIN orders o ON o.order_id = i.order_id \
              JOIN customers u ON u.customer_id = o.customer_id \
              JOIN products p ON p.product_id = i.product_id \
              JOIN suppliers s ON s.supplier_id = p.supplier_id \
              JOIN categories g ON g.category_id = p.category_id \
              WHERE u.segment = 'business' AND o.channel = 'phone' AND g.department = 'Grocery' \
              GROUP BY s.supplier_id, s.name ORDER BY revenue DESC, s.name LIMIT 10",
        answer: Answer::Rows,
    },
    DemoQuery {
        question: "Domestic purchases in Oceania",
        sql: "SELECT count(*), sum(i.quantity) FROM order_items i \
              JOIN orders o ON o.order_id = i.order_id \
              JOIN products p ON p.product_id = i.product_id \
              JOIN suppliers s ON s.supplier_id = p.supplier_id \
              JOIN customers u ON u.customer_id = o.customer_id \
              JOIN cities t ON t.city_id = u.city_id AND t.country_id = s.country_id \
              JOIN countries c ON c.country_id = t.country_id \
              WHERE c.region = 'Oceania' AND c.currency = 'AUD'",
        answer: Answer::Count,
    },
    DemoQuery {
        question: "What buyers of kites in stores praise",
        sql: "SELECT count(*) FROM order_items i \
              JOIN orders o ON o.order_id = i.order_id \
              JOIN reviews r ON r.customer_id = o.customer_id \
              JOIN products p ON p.product_id = i.product_id \
              JOIN categories g ON g.category_id = p.category_id \
              WHERE g.name = 'Kites' AND o.channel = 'store' AND r.rating = 4",
        answer: Answer::Count,
    },
    DemoQuery {
        question: "Praise for what premium buyers return",
        sql: "SELECT c.name, count(*) AS times FROM order_items i \
              JOIN reviews r ON r.product_id = i.product_id \
              JOIN orders o ON o.order_id = i.order_id \
              JOIN customers u ON u.customer_id = o.customer_id \
              JOIN cities t ON t.city_id = u.city_id \
              JOIN countries c ON c.country_id = t.country_id \
              JOIN products p ON p.product_id = i.product_id \
              WHERE i.is_returned AND r.rating = 5 AND u.segment = 'premium' AND c.region = 'South America' \
              AND p.price > 100 GROUP BY c.name ORDER BY c.name",
        answer: Answer::Rows,
    },
];
