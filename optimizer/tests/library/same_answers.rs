//! Queries over the shop with and without relata.

use tempfile::tempdir;

use crate::{Sessions, pretrained, sources};

/// A few queries that touch every table, for the sources beyond the first.
const CORE: [&str; 6] = [
    "SELECT c.name, t.name, r.label FROM customer c JOIN town t ON c.town = t.id JOIN region r ON t.region = r.id",
    "SELECT r.label, i.kind, COUNT(*), SUM(o.amount) FROM orders o, customer c, town t, region r, item i
     WHERE o.customer = c.id AND c.town = t.id AND t.region = r.id AND o.item = i.id AND c.age > 30 AND i.price < 40
     GROUP BY r.label, i.kind",
    "SELECT o.id, i.kind, c.name FROM orders o LEFT JOIN item i ON o.item = i.id LEFT JOIN customer c ON o.customer = c.id
     WHERE o.amount > 20",
    "SELECT t.name FROM town t WHERE EXISTS (SELECT 1 FROM customer c JOIN orders o ON o.customer = c.id
     JOIN item i ON i.id = o.item WHERE c.town = t.id AND i.kind = 'toy')",
    "SELECT COUNT(*) FROM orders o JOIN item i ON o.item = i.id JOIN customer c ON o.customer = c.id
     WHERE o.day BETWEEN DATE '2022-01-20' AND DATE '2022-02-20' AND c.name LIKE 'customer 1%'",
    "SELECT * FROM region r JOIN town t ON t.region = r.id JOIN customer c ON c.town = t.id WHERE t.region IS NOT NULL",
];

const JOINS: [&str; 15] = [
    // Outer joins above, below and between inner ones.
    "SELECT c.id, t.name, r.label FROM customer c RIGHT JOIN town t ON c.town = t.id JOIN region r ON t.region = r.id",
    "SELECT c.id, t.id, r.label FROM customer c FULL JOIN town t ON c.town = t.id LEFT JOIN region r ON t.region = r.id",
    "SELECT o.id, x.tid FROM orders o JOIN item i ON o.item = i.id JOIN
     (SELECT c.id AS cid, t.id AS tid FROM customer c LEFT JOIN town t ON c.town = t.id AND t.name > 'town 05') x
     ON o.customer = x.cid WHERE i.price > 10",
    "SELECT t.name, x.n FROM town t LEFT JOIN (SELECT c.town, COUNT(*) AS n FROM customer c JOIN orders o
     ON o.customer = c.id JOIN item i ON o.item = i.id GROUP BY c.town) x ON x.town = t.id",
    // Semi and anti joins.
    "SELECT c.id FROM customer c LEFT SEMI JOIN orders o ON o.customer = c.id JOIN town t ON c.town = t.id
     JOIN region r ON t.region = r.id",
    "SELECT c.id, t.name FROM customer c LEFT ANTI JOIN orders o ON o.customer = c.id AND o.amount > 5
     JOIN town t ON c.town = t.id JOIN region r ON r.id = t.region",
    "SELECT i.id, i.kind FROM orders o RIGHT SEMI JOIN item i ON o.item = i.id",
    // A projection hides one of two columns of a name.
    "SELECT COUNT(*), SUM(amount) FROM (SELECT orders.amount FROM orders JOIN customer ON orders.customer = customer.id
     JOIN item ON item.id = orders.item) LEFT SEMI JOIN customer ON orders.amount = customer.age AND customer.id > orders.amount",
    // Self joins.
    "SELECT a.id, b.id, d.id FROM customer a JOIN customer b ON a.name = b.name JOIN customer d ON b.town = d.town
     WHERE a.id < b.id AND d.age > 40",
    // Two columns of a relation equal to one of another, so equal to each other as well.
    "SELECT c.id, t.id, r.id FROM customer c, town t, region r WHERE t.id = r.id AND t.region = r.id AND c.town = t.id",
    "SELECT o.id, i.id, c.id FROM orders o, item i, customer c WHERE o.item = i.id AND o.customer = i.id
     AND o.customer = c.id",
    // Transitive keys, and keys of different types.
    "SELECT c.id, t.id, o.id, i.id FROM customer c, town t, orders o, item i
     WHERE c.town = t.id AND t.id = o.item AND o.item = i.id AND o.amount < 5",
    "SELECT a.id, b.id, i.id FROM customer a, customer b, item i WHERE a.age = b.age AND b.id = i.id AND a.town = i.id",
    // Expressions as keys, conditions over two and three relations.
    "SELECT c.id, t.id, o.id FROM customer c, town t, orders o WHERE c.town + 1 = t.id AND o.customer = c.id
     AND o.amount > t.id * 2 AND o.id + c.id > t.id + 100",
    "SELECT t.id, r.id, i.id FROM town t, region r, item i WHERE t.id > r.id + 3 AND i.price < t.id + r.id + 5",
];

const SUBQUERIES: [&str; 9] = [
    "SELECT c.id FROM customer c JOIN town t ON c.town = t.id JOIN region r ON t.region = r.id
     WHERE c.id IN (SELECT customer FROM orders WHERE amount > 30)",
    "SELECT c.id FROM customer c JOIN town t ON c.town = t.id JOIN region r ON t.region = r.id
     WHERE c.id NOT IN (SELECT customer FROM orders WHERE customer IS NOT NULL AND amount > 30)",
    "SELECT c.id FROM customer c, town t, region r WHERE c.town = t.id AND t.region = r.id
     AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id AND o.amount > t.id)",
    "SELECT i.id, i.price FROM item i JOIN orders o ON o.item = i.id JOIN customer c ON o.customer = c.id
     WHERE i.price > (SELECT AVG(price) FROM item)",
    "SELECT o.id, i.kind, c.name FROM orders o JOIN item i ON o.item = i.id JOIN customer c ON c.id = o.customer
     WHERE o.amount > (SELECT AVG(p.amount) FROM orders p WHERE p.item = o.item)",
    "SELECT t.name, (SELECT COUNT(*) FROM customer c JOIN orders o ON o.customer = c.id WHERE c.town = t.id) AS n
     FROM town t",
    "SELECT c.id FROM customer c JOIN town t ON c.town = t.id
     WHERE c.age > 60 OR c.id IN (SELECT o.customer FROM orders o JOIN item i ON o.item = i.id WHERE i.kind = 'book')",
    "WITH spent AS (SELECT c.id, c.town, SUM(o.amount) AS total FROM customer c JOIN orders o ON o.customer = c.id
     JOIN item i ON o.item = i.id GROUP BY c.id, c.town)
     SELECT a.id, b.id, t.name FROM spent a JOIN spent b ON a.town = b.town JOIN town t ON t.id = a.town
     WHERE a.total > b.total",
    "SELECT c.id, t.name FROM customer c JOIN town t ON c.town = t.id JOIN region r ON t.region = r.id WHERE c.age < 40
     UNION ALL SELECT o.id, i.kind FROM orders o JOIN item i ON o.item = i.id JOIN customer c ON o.customer = c.id
     UNION SELECT id, name FROM town",
];

const SHAPES: [&str; 6] = [
    "SELECT t.name, COUNT(*) AS n, MAX(o.amount) FROM orders o JOIN customer c ON o.customer = c.id
     JOIN town t ON c.town = t.id GROUP BY t.name HAVING COUNT(*) > 5",
    "SELECT DISTINCT i.kind, t.region FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id
     JOIN item i ON o.item = i.id",
    "SELECT COUNT(DISTINCT c.town), COUNT(c.age), MIN(o.day) FROM orders o JOIN customer c ON o.customer = c.id
     JOIN item i ON o.item = i.id",
    "SELECT 1 FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id",
    "SELECT o.*, c.*, t.* FROM orders o JOIN customer c USING (id) JOIN town t USING (id)",
    "SELECT a.id AS x, a.id + t.id AS id, t.name || a.name AS name FROM customer a JOIN town t ON a.town = t.id
     JOIN region r ON t.region = r.id WHERE r.label IS NULL OR CASE WHEN a.age > 30 THEN 1 ELSE 0 END = 1",
];

const ORDERED: [&str; 4] = [
    "SELECT o.id, c.name, t.name FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id
     ORDER BY t.name DESC, o.id LIMIT 7",
    "SELECT o.id, i.kind FROM orders o JOIN item i ON o.item = i.id JOIN customer c ON o.customer = c.id
     ORDER BY o.id LIMIT 5 OFFSET 11",
    "SELECT i.kind, SUM(o.amount) AS total FROM orders o JOIN item i ON o.item = i.id JOIN customer c ON o.customer = c.id
     GROUP BY i.kind ORDER BY total DESC, i.kind",
    "SELECT c.id, ROW_NUMBER() OVER (PARTITION BY t.id ORDER BY c.id) AS n FROM customer c JOIN town t ON c.town = t.id
     JOIN region r ON t.region = r.id ORDER BY c.id",
];

async fn shop_in_memory() -> Sessions {
    let sessions = Sessions::new(pretrained());
    sources::memory(&sessions);
    let reports = sessions.relata.profile(&sessions.learned).await.unwrap();
    assert_eq!(reports.len(), 5);
    assert!(reports.iter().all(|report| report.error.is_none() && report.rows > 0), "{reports:?}");
    sessions
}

/// Every query of a list with and without relata; at least `reordered` regions must have gone through the rewrite.
async fn check(sessions: &Sessions, queries: &[&str], reordered: u64) {
    let before = sessions.relata.counters().reordered;
    for sql in queries {
        assert!(sessions.same(sql).await > 0, "no rows, so nothing is tested: {sql}");
    }
    sessions.assert_untroubled();
    let seen = sessions.relata.counters().reordered - before;
    assert!(seen >= reordered, "{seen} regions reordered: {:?}", sessions.relata.counters());
}

#[tokio::test]
async fn joins() {
    check(&shop_in_memory().await, &JOINS, 8).await;
}

#[tokio::test]
async fn subqueries() {
    check(&shop_in_memory().await, &SUBQUERIES, 5).await;
}

#[tokio::test]
async fn shapes() {
    check(&shop_in_memory().await, &SHAPES, 5).await;
}

#[tokio::test]
async fn orders_and_limits() {
    let sessions = shop_in_memory().await;
    for sql in ORDERED {
        sessions.same_in_order(sql).await;
    }
    sessions.assert_untroubled();
}

#[tokio::test]
async fn a_limit_without_an_order() {
    let sessions = shop_in_memory().await;
    let from = "FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id";
    for ctx in sessions.both() {
        assert_eq!(crate::rows(ctx, &format!("SELECT o.id {from} LIMIT 9")).await.unwrap().len(), 1 + 9);
    }
}

#[tokio::test]
async fn tables_in_memory() {
    check(&shop_in_memory().await, &CORE, 4).await;
}

#[tokio::test]
async fn custom_tables_profiled_lazily() {
    let sessions = Sessions::new(pretrained());
    sources::custom(&sessions);
    check(&sessions, &CORE, 4).await;
}

#[tokio::test]
async fn parquet_files_profiled_lazily() {
    let (sessions, directory) = (Sessions::new(pretrained()), tempdir().unwrap());
    sources::parquet(&sessions, directory.path()).await;
    check(&sessions, &CORE, 4).await;
}

#[tokio::test]
async fn csv_files() {
    let (sessions, directory) = (Sessions::new(pretrained()), tempdir().unwrap());
    sources::csv(&sessions, directory.path()).await;
    sessions.relata.profile(&sessions.learned).await.unwrap();
    check(&sessions, &CORE, 4).await;
}

#[tokio::test]
async fn every_switch_off_and_on() {
    let sessions = shop_in_memory().await;
    for name in ["enabled", "join_reordering", "statistics", "lazy_profiling"] {
        for value in ["false", "true"] {
            let before = sessions.relata.counters();
            sessions.learned.sql(&format!("SET relata.{name} = {value}")).await.unwrap().collect().await.unwrap();
            sessions.same(CORE[1]).await;
            let after = sessions.relata.counters();
            assert_eq!(after.planned > before.planned, name != "enabled" || value == "true", "{name} {value}");
            let reorders = value == "true" || !["enabled", "join_reordering"].contains(&name);
            assert_eq!(after.reordered > before.reordered, reorders, "{name} {value}");
        }
    }
    assert!(sessions.learned.sql("SET relata.no_such = 1").await.is_err());
}

#[tokio::test]
async fn explain_statements() {
    let sessions = shop_in_memory().await;
    for verb in ["EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN ANALYZE", "EXPLAIN FORMAT TREE"] {
        let text = crate::rows(&sessions.learned, &format!("{verb} {}", CORE[1])).await.unwrap().join("\n");
        assert!(text.contains("HashJoin"), "{verb}: {text}");
    }
    sessions.assert_untroubled();
}

#[tokio::test]
async fn statements_that_are_no_queries() {
    let sessions = shop_in_memory().await;
    let create = "CREATE TABLE copied AS SELECT c.id, t.name FROM customer c JOIN town t ON c.town = t.id
        JOIN region r ON t.region = r.id";
    for ctx in sessions.both() {
        ctx.sql(create).await.unwrap().collect().await.unwrap();
        let insert = "INSERT INTO copied SELECT o.id, c.name FROM orders o JOIN customer c ON o.customer = c.id
            JOIN town t ON c.town = t.id";
        ctx.sql(insert).await.unwrap().collect().await.unwrap();
    }
    sessions.same("SELECT * FROM copied").await;
    sessions.same("SELECT a.id, t.id FROM copied a JOIN copied b ON a.id = b.id JOIN town t ON t.name = b.name").await;
}
