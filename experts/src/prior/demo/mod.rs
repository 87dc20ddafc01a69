//! The fixed retail database of `relata demo`: readable, skewed and correlated.
//!
//! ```text
//! countries <- cities <- customers <- orders <- order_items -> products -> categories (-> categories)
//!     ^                      ^            ^                        ^  \
//!     |                      |        shipments                    |   -> suppliers -> countries
//!     +----------------------|-------------------------------------|--------+
//!                            +------------- reviews ---------------+
//! ```
//!
//! It is made so that the usual assumptions fail. Few products and customers have most of the rows, and the popular
//! products are the same in `order_items` and in `reviews`, so their many-to-many join over `product_id` is far larger
//! than uniformity says. A customer's country decides the currency and the income, these the segment, and the segment
//! which prices are bought, from suppliers of which region; `country_code`, `city_id` and the country's name say the
//! same thing three times. An order's date decides its status, its status whether there is a shipment. Countries,
//! categories and suppliers are small, end up last in a natural FROM clause, and a filter on them removes almost
//! everything:
//!
//! ```sql
//! SELECT count(*) FROM order_items i JOIN reviews r ON i.product_id = r.product_id
//!   JOIN products p ON p.product_id = i.product_id JOIN suppliers s ON s.supplier_id = p.supplier_id
//!   JOIN countries c ON c.country_id = s.country_id
//! WHERE c.name = 'Iceland' AND r.rating = 1;
//!
//! SELECT o.status, count(*) FROM order_items i JOIN orders o ON o.order_id = i.order_id
//!   JOIN customers u ON u.customer_id = o.customer_id JOIN cities t ON t.city_id = u.city_id
//!   JOIN countries c ON c.country_id = t.country_id JOIN products p ON p.product_id = i.product_id
//! WHERE c.income_level = 'high' AND u.country_code = 'CH' AND p.price > 100 AND o.ordered_at >= DATE '2024-12-20'
//! GROUP BY o.status;
//! ```

mod aftermath;
mod goods;
mod orders;
mod people;
mod words;

use super::calendar::{DAY, Season};
use super::database::{ForeignKey, SyntheticDatabase, TableBuilder};
use super::random::Random;
use super::{PriorError, database::SyntheticTable};

/// From 2019-01-01 until before 2025-01-01.
const FIRST_DAY: i64 = 17_897;
const DAYS: usize = 2_192;
const END_DAY: i64 = FIRST_DAY + DAYS as i64;

/// Fewest rows of the demo database.
const LEAST_ROWS: usize = 2_000;

/// Builds the demo database: ten tables with about `total_rows` rows together.
///
/// The tables are `countries`, `cities`, `customers`, `categories`, `suppliers`, `products`, `orders`, `order_items`,
/// `shipments` and `reviews`. `relata demo` uses a million rows.
///
/// # Errors
///
/// [`PriorError::InvalidConfig`] where `total_rows` is not within 2,000 to 2^30.
pub fn demo_database(seed: u64, total_rows: usize) -> Result<SyntheticDatabase, PriorError> {
    if !(LEAST_ROWS..=1 << 30).contains(&total_rows) {
        return Err(PriorError::InvalidConfig("total_rows must be within 2000..=2^30"));
    }
    let random = Random::new(seed);
    let share = |of_total: f64| ((total_rows as f64 * of_total) as usize).max(10);
    let mut months = [1.0; 12];
    (months[0], months[6], months[10], months[11]) = (0.7, 0.8, 1.8, 2.6);
    let season = Season::new(FIRST_DAY, DAYS, 4.0, &months, 1.2);

    let (countries, countries_table) = people::countries(&mut random.fork(0))?;
    let (cities, cities_table) = people::cities(&countries, share(0.01).min(1_200), &mut random.fork(1))?;
    let (customers, customers_table) = people::customers(&cities, share(0.05), &season, &mut random.fork(2))?;
    let (categories, categories_table) = goods::categories(&mut random.fork(3))?;
    let (suppliers, suppliers_table) = goods::suppliers(&countries, share(0.0008).max(20), &mut random.fork(4))?;
    let (products, products_table) = goods::products(&categories, &suppliers, share(0.012), &mut random.fork(5))?;
    let (orders, items) = orders::orders(&customers, &products, share(0.168), &season, &mut random.fork(6));
    let shipments_table = aftermath::shipments(&orders, &customers, &mut random.fork(7))?;
    let reviews_table =
        aftermath::reviews(&customers, &products, &orders, &items, share(0.08), &season, &mut random.fork(8))?;

    Ok(SyntheticDatabase {
        name: "retail_demo".to_owned(),
        tables: vec![
            countries_table,
            cities_table,
            customers_table,
            categories_table,
            suppliers_table,
            products_table,
            orders.table()?,
            items.table()?,
            shipments_table,
            reviews_table,
        ],
    })
}

/// Declares that `column` of `table` refers to the key of `parent`.
fn refer(table: &mut TableBuilder, column: &str, parent: &str, parent_column: &str, matched: f64, null: f64) {
    table.reference(ForeignKey {
        columns: vec![column.to_owned()],
        references_table: parent.to_owned(),
        references_columns: vec![parent_column.to_owned()],
        match_fraction: matched,
        null_fraction: null,
    });
}
