//! What follows an order: shipments and reviews.

use std::sync::Arc;

use arrow::array::{
    BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};

use super::goods::Products;
use super::orders::{GUEST, Items, Orders};
use super::people::Customers;
use super::words::{OPINIONS, REMARKS};
use super::{DAY, END_DAY, PriorError, Random, Season, SyntheticTable, TableBuilder, refer};
use crate::prior::calendar::time_of_day;
use crate::prior::columns::build_text;
use crate::prior::random::{Alias, exp};
use crate::prior::text::write_number;

const CARRIERS: [[&str; 3]; 6] = [
    ["Europost", "Swiftline", "Bluevan"],
    ["Coastal Express", "Swiftline", "Prairie Parcel"],
    ["Andes Cargo", "Swiftline", "Rio Rapid"],
    ["Silk Road Post", "Pacific Air", "Swiftline"],
    ["Savanna Freight", "Swiftline", "Nile Courier"],
    ["Pacific Air", "Reef Mail", "Swiftline"],
];
const WAREHOUSES: [[&str; 2]; 6] = [
    ["EU-ROTTERDAM", "EU-LEIPZIG"],
    ["NA-MEMPHIS", "NA-RENO"],
    ["SA-SANTOS", "NA-MEMPHIS"],
    ["AS-SHENZHEN", "AS-SINGAPORE"],
    ["AF-LAGOS", "EU-ROTTERDAM"],
    ["OC-SYDNEY", "AS-SINGAPORE"],
];

/// One parcel, at times two, of the orders that got so far.
pub(super) fn shipments(
    orders: &Orders,
    customers: &Customers,
    random: &mut Random,
) -> Result<SyntheticTable, PriorError> {
    let expected = orders.day.len();
    let (mut order_ids, mut shipped_at) = (Vec::with_capacity(expected), Vec::with_capacity(expected));
    let (mut delivered, mut cost) = (Vec::with_capacity(expected), Vec::with_capacity(expected));
    let (mut carriers, mut warehouses) = (Vec::with_capacity(expected), Vec::with_capacity(expected));
    for (order, &status) in orders.status.iter().enumerate() {
        if !(2..=4).contains(&status) {
            continue;
        }
        let customer = orders.customer[order] as usize;
        let guest = orders.customer[order] == GUEST;
        let region = if guest { 1 } else { customers.region(customer) };
        let business = !guest && customers.segment[customer] == 3;
        for _ in 0..=i32::from(random.chance(if business { 0.3 } else { 0.03 })) {
            let carrier = random.below(3).min(random.below(3));
            let shipped = i64::from(orders.day[order]) + 1 + random.exponential(1.5) as i64;
            // Far regions wait longer, and one carrier is slow.
            let days = [2.0, 4.0, 8.0, 6.0, 10.0, 9.0][region] * [1.0, 0.7, 2.0][carrier] * random.between(0.5, 2.0);
            let arrived = status != 2 && !random.chance(0.01);
            order_ids.push(order as i64 + 1);
            carriers.push((region, carrier));
            warehouses.push(WAREHOUSES[region][usize::from(random.chance(0.25))]);
            shipped_at.push(shipped * DAY + time_of_day(random));
            delivered.push(arrived.then_some((shipped + 1 + days as i64) as i32));
            cost.push(((3.0 + days) * exp(0.4 * f64::from(random.normal())) * 100.0).round() / 100.0);
        }
    }
    let rows = order_ids.len();
    let tracking = build_text(rows, None, |row, code| {
        let (region, carrier) = carriers[row];
        code.push_str(CARRIERS[region][carrier].get(..2).unwrap_or_default());
        code.make_ascii_uppercase();
        write_number((shipped_at[row] / DAY) as usize, 5, code);
        code.push('-');
        write_number(random.below(1_000_000_000), 9, code);
    });
    let mut table = TableBuilder::new("shipments");
    table.key("shipment_id", Arc::new(Int64Array::from_iter_values(1..=rows as i64)));
    table.column("order_id", Arc::new(Int64Array::from(order_ids)));
    table.column(
        "carrier",
        Arc::new(StringArray::from_iter_values(carriers.iter().map(|&(region, carrier)| CARRIERS[region][carrier]))),
    );
    table.column("warehouse", Arc::new(StringArray::from(warehouses)));
    table.column("shipped_at", Arc::new(TimestampMicrosecondArray::from(shipped_at)));
    table.column("delivered_on", Arc::new(Date32Array::from(delivered)));
    table.column("cost", Arc::new(Float64Array::from(cost)));
    table.column("tracking_code", tracking);
    refer(&mut table, "order_id", "orders", "order_id", 1.0, 0.0);
    table.finish()
}

/// Reviews, most by somebody who bought the product. A few authors have deleted their accounts.
pub(super) fn reviews(
    customers: &Customers,
    products: &Products,
    orders: &Orders,
    items: &Items,
    rows: usize,
    season: &Season,
    random: &mut Random,
) -> Result<SyntheticTable, PriorError> {
    // What everyone talks about is more concentrated than what everyone buys.
    let talk: Vec<f64> = products.popularity.iter().map(|popularity| popularity * popularity.sqrt().sqrt()).collect();
    let talk = Alias::new(&talk);
    let accounts = customers.segment.len();
    let (mut product_ids, mut customer_ids) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let (mut ratings, mut verified) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let (mut reviewed, mut votes) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut gone = 0usize;
    for _ in 0..rows {
        let item = random.below(items.order.len());
        let order = items.order[item] as usize;
        let bought = orders.customer[order] != GUEST && random.chance(0.75);
        let (product, customer, day) = if bought {
            let day = orders.day[order] + 5 + random.exponential(20.0) as i32;
            (items.product[item] as usize, orders.customer[order] as usize, day)
        } else {
            (talk.draw(random), customers.activity.draw(random), season.day(random.uniform()) as i32)
        };
        let complaint = if bought && items.returned[item] { -2.0 } else { 0.0 };
        let rating = 4.1 + 0.8 * products.quality[product] + complaint + 0.8 * random.normal();
        let deleted = random.chance(0.005);
        gone += usize::from(deleted);
        product_ids.push(product as i64 + 1);
        customer_ids.push(if deleted { (accounts + 1 + random.below(100)) as i64 } else { customer as i64 + 1 });
        ratings.push(rating.round().clamp(1.0, 5.0) as i32);
        verified.push(bought);
        reviewed.push(day.min(END_DAY as i32 - 1));
        // Anger is read.
        let read = random.chance(if rating < 2.5 { 0.7 } else { 0.25 });
        votes.push(if read { exp(1.0 + 1.4 * f64::from(random.normal())) as i32 } else { 0 });
    }
    let titled: BooleanBuffer =
        ratings.iter().map(|&rating| !random.chance(if rating == 3 { 0.35 } else { 0.12 })).collect();
    let titles = build_text(rows, Some(&NullBuffer::new(titled)), |row, title| {
        title.push_str(random.pick(&OPINIONS[(ratings[row] - 1) as usize]));
        if random.chance(0.6) {
            title.push(' ');
            title.push_str(random.pick(&REMARKS));
        }
    });
    let mut table = TableBuilder::new("reviews");
    table.key("review_id", Arc::new(Int64Array::from_iter_values(1..=rows as i64)));
    table.column("product_id", Arc::new(Int64Array::from(product_ids)));
    table.column("customer_id", Arc::new(Int64Array::from(customer_ids)));
    table.column("rating", Arc::new(Int32Array::from(ratings)));
    table.column("title", titles);
    table.column("reviewed_on", Arc::new(Date32Array::from(reviewed)));
    table.column("helpful_votes", Arc::new(Int32Array::from(votes)));
    table.column("is_verified", Arc::new(BooleanArray::from(verified)));
    refer(&mut table, "product_id", "products", "product_id", 1.0, 0.0);
    refer(&mut table, "customer_id", "customers", "customer_id", 1.0 - gone as f64 / rows as f64, 0.0);
    table.finish()
}
