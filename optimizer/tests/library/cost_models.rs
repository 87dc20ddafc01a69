//! The cost model decides the order, never the answer.

use std::sync::Arc;

use relata::join_order::{CostModel, ExecutionTime, JoinMethod, JoinShape, JoinSide, OutputCost};

use crate::{Sessions, pretrained, sources};

const SQL: &str = "SELECT o.id, c.name, t.name, r.label FROM orders o JOIN customer c ON o.customer = c.id
    JOIN town t ON c.town = t.id JOIN region r ON t.region = r.id WHERE t.name < 'town 03'";

/// Likes what the others avoid.
#[derive(Debug)]
struct Largest;

impl CostModel for Largest {
    fn join(&self, _: JoinMethod, join: &JoinShape) -> f64 {
        1e9 / (1.0 + join.output.rows)
    }

    fn scan(&self, output: JoinSide, _: usize) -> f64 {
        output.rows
    }
}

/// The tables in the order of the plan, from the left.
async fn order(model: Arc<dyn CostModel>) -> Vec<String> {
    let sessions = Sessions::new(pretrained().with_cost_model(model));
    sources::memory(&sessions);
    assert!(sessions.same(SQL).await > 0);
    assert_eq!(sessions.relata.counters().reordered, 1);
    let text = sessions.relata.explain(&sessions.learned, SQL).await.unwrap();
    let tables = text.lines().filter_map(|line| line.trim_start().strip_prefix("TableScan: "));
    tables.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn another_cost_model_gives_another_order() {
    let (default, output, largest) = (
        order(Arc::new(ExecutionTime::default())).await,
        order(Arc::new(OutputCost)).await,
        order(Arc::new(Largest)).await,
    );
    for order in [&default, &output, &largest] {
        let mut tables = order.clone();
        tables.sort();
        assert_eq!(tables, ["customer", "orders", "region", "town"]);
    }
    // The few towns meet the orders early where rows cost, and last where they are liked.
    let place = |order: &[String], table: &str| order.iter().position(|one| one == table);
    assert_ne!(default, largest);
    assert!(place(&output, "town") < place(&output, "orders"), "{output:?}");
}
