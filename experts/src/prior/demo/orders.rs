//! What is bought: orders and their items.

use std::sync::Arc;

use arrow::array::{BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};

use super::goods::Products;
use super::people::Customers;
use super::words::{COUNTRIES, DEPARTMENTS, REGIONS, SEGMENTS};
use super::{DAY, END_DAY, PriorError, Random, Season, SyntheticTable, TableBuilder, refer};
use crate::prior::calendar::{civil, time_of_day};
use crate::prior::columns::build_text;
use crate::prior::random::Alias;
use crate::prior::text::write_number;

const STATUSES: [&str; 6] = ["pending", "processing", "shipped", "delivered", "returned", "cancelled"];
const CHANNELS: [&str; 4] = ["web", "mobile", "store", "phone"];
const PAYMENTS: [&str; 5] = ["card", "wallet", "invoice", "bank_transfer", "cash_on_delivery"];
/// In place of a customer: an order without an account.
pub(super) const GUEST: u32 = u32::MAX;

/// The columns of `orders`.
#[derive(Default)]
pub(super) struct Orders {
    /// Row of the customer, or [`GUEST`].
    pub(super) customer: Vec<u32>,
    pub(super) day: Vec<i32>,
    at: Vec<i64>,
    /// Index into [`STATUSES`].
    pub(super) status: Vec<u8>,
    /// Index into [`CHANNELS`].
    channel: Vec<u8>,
    /// Index into [`PAYMENTS`].
    payment: Vec<u8>,
    /// Month and year of the campaign.
    coupon: Vec<Option<(u32, i32)>>,
    total: Vec<f64>,
}

/// The columns of `order_items`.
#[derive(Default)]
pub(super) struct Items {
    pub(super) order: Vec<u32>,
    line: Vec<i32>,
    pub(super) product: Vec<u32>,
    quantity: Vec<i32>,
    unit_price: Vec<f64>,
    discount: Vec<f64>,
    pub(super) returned: Vec<bool>,
}

/// What decides an order and its items.
struct Buyer {
    /// Index into [`SEGMENTS`].
    segment: usize,
    /// Index into [`REGIONS`].
    region: usize,
    /// Index into the levels of income.
    income: usize,
}

/// Which products a segment in a region buys: what is popular, at its prices, rather from its own region.
fn tastes(products: &Products) -> Vec<Alias> {
    let preference = |segment: usize, price: f64| {
        let class = [20.0, 60.0, 200.0].iter().filter(|&&limit| price > limit).count();
        [[3.0, 1.0, 0.3, 0.05], [1.0, 1.2, 1.0, 0.4], [0.5, 1.0, 2.0, 3.0], [0.6, 0.8, 1.5, 2.0]][segment][class]
    };
    let mut tastes = Vec::with_capacity(SEGMENTS.len() * REGIONS.len());
    for segment in 0..SEGMENTS.len() {
        for region in 0..REGIONS.len() {
            let weights: Vec<f64> = (0..products.price.len())
                .map(|product| {
                    let near = if usize::from(products.origin[product]) == region { 2.5 } else { 1.0 };
                    let office = if segment == 3 && products.department[product] == 0 { 3.0 } else { 1.0 };
                    products.popularity[product] * preference(segment, products.price[product]) * near * office
                })
                .collect();
            tastes.push(Alias::new(&weights));
        }
    }
    tastes
}

/// Orders in the order of their time, and the items of each.
pub(super) fn orders(
    customers: &Customers,
    products: &Products,
    rows: usize,
    season: &Season,
    random: &mut Random,
) -> (Orders, Items) {
    let tastes = tastes(products);
    let (mut orders, mut items) = (Orders::default(), Items::default());
    for order in 0..rows {
        let day = season.day((order as f64 + random.uniform()) / rows as f64);
        let (year, month, _) = civil(day);
        let sale = month >= 11;
        // Whoever has signed up by then; early orders are more often without an account.
        let customer = (0..3).map(|_| customers.activity.draw(random)).find(|&c| i64::from(customers.signup[c]) <= day);
        let segment = customer.map_or(1, |customer| usize::from(customers.segment[customer]));
        let country = &COUNTRIES[customer.map_or(0, |customer| usize::from(customers.country[customer]))];
        let buyer = Buyer { segment, region: country.2, income: country.4 };
        let taste = &tastes[segment * REGIONS.len() + buyer.region];
        let total = items.add(order, &buyer, taste, products, (day, year, sale), random);
        let payment = draw_payment(&buyer, random);
        let coupon_used = random.chance(if sale { 0.3 } else { 0.07 } * [1.8, 1.0, 0.5, 0.1][segment]);
        orders.customer.push(customer.map_or(GUEST, |customer| customer as u32));
        orders.day.push(day as i32);
        orders.at.push(day * DAY + time_of_day(random));
        orders.channel.push(draw_channel(&buyer, year, random));
        orders.status.push(draw_status(&buyer, payment, END_DAY - day, random));
        orders.payment.push(payment);
        orders.coupon.push(coupon_used.then_some((month, year)));
        orders.total.push(total);
    }
    (orders, items)
}

/// The telephone gains on the desk over the years, except with firms.
fn draw_channel(buyer: &Buyer, year: i32, random: &mut Random) -> u8 {
    let mobile = (0.15 + 0.08 * f64::from(year - 2019)) * [1.5, 1.0, 0.9, 0.2][buyer.segment];
    match random.uniform() {
        u if u < mobile => 1,
        u if u > 0.94 => 2,
        _ if buyer.segment == 3 && random.chance(0.3) => 3,
        _ => 0,
    }
}

/// Firms pay invoices, and poorer countries on delivery.
fn draw_payment(buyer: &Buyer, random: &mut Random) -> u8 {
    match (buyer.segment, buyer.income) {
        (3, _) if random.chance(0.75) => 2,
        (_, 2 | 3) if random.chance(0.55) => 4,
        _ => random.pick(&[0, 0, 0, 1, 1, 3]),
    }
}

/// What became of an order of that age in days: the date says almost everything.
fn draw_status(buyer: &Buyer, payment: u8, age: i64, random: &mut Random) -> u8 {
    let cancelled = if payment == 4 { 0.16 } else { 0.05 };
    let returned = [0.08, 0.05, 0.04, 0.02][buyer.segment];
    match random.uniform() {
        u if age < 3 => u8::from(u < 0.6),
        u if age < 10 => 2 + u8::from(u > 0.75),
        u if u < cancelled => 5,
        u if u > 1.0 - returned => 4,
        _ => 3,
    }
}

impl Items {
    /// Adds the items of an order and returns what they cost together.
    fn add(
        &mut self,
        order: usize,
        buyer: &Buyer,
        taste: &Alias,
        products: &Products,
        (day, year, sale): (i64, i32, bool),
        random: &mut Random,
    ) -> f64 {
        let more = random.exponential([0.7, 1.1, 1.9, 4.5][buyer.segment]).min(60.0) as i32;
        let mut total = 0.0;
        for line in 1..=more + 1 {
            let mut product = taste.draw(random);
            if i64::from(products.launched[product]) > day {
                product = taste.draw(random);
            }
            let department = usize::from(products.department[product]);
            let extra = random.exponential([0.25, 0.3, 0.3, 4.0][buyer.segment]) as i32;
            let quantity = 1 + extra + i32::from(department == 7 && random.chance(0.5));
            // Prices rise with the years; fashion is reduced more often.
            let price = cents(products.price[product] * (1.0 + 0.03 * f64::from(year - 2024)));
            let reduced = random.chance(if sale { 0.45 } else { 0.08 } * if department == 2 { 1.8 } else { 1.0 });
            let discount =
                if reduced { cents(random.pick(&[0.05, 0.1, 0.15, 0.2]) + if sale { 0.1 } else { 0.0 }) } else { 0.0 };
            let annoyance = if products.quality[product] < -1.0 { 2.5 } else { 0.8 };
            total += f64::from(quantity) * price * (1.0 - discount);
            self.order.push(order as u32);
            self.line.push(line);
            self.product.push(product as u32);
            self.quantity.push(quantity);
            self.unit_price.push(price);
            self.discount.push(discount);
            self.returned.push(random.chance(DEPARTMENTS[department].2 * annoyance));
        }
        cents(total)
    }

    pub(super) fn table(&self) -> Result<SyntheticTable, PriorError> {
        let ids = |rows: &[u32]| Arc::new(Int64Array::from_iter_values(rows.iter().map(|&row| i64::from(row) + 1)));
        let mut table = TableBuilder::new("order_items");
        table.key("order_id", ids(&self.order));
        table.key("line_number", Arc::new(Int32Array::from(self.line.clone())));
        table.column("product_id", ids(&self.product));
        table.column("quantity", Arc::new(Int32Array::from(self.quantity.clone())));
        table.column("unit_price", Arc::new(Float64Array::from(self.unit_price.clone())));
        table.column("discount", Arc::new(Float64Array::from(self.discount.clone())));
        table.column("is_returned", Arc::new(BooleanArray::from(self.returned.clone())));
        refer(&mut table, "order_id", "orders", "order_id", 1.0, 0.0);
        refer(&mut table, "product_id", "products", "product_id", 1.0, 0.0);
        table.finish()
    }
}

impl Orders {
    pub(super) fn table(&self) -> Result<SyntheticTable, PriorError> {
        let rows = self.day.len();
        let customers: Int64Array =
            self.customer.iter().map(|&customer| (customer != GUEST).then_some(i64::from(customer) + 1)).collect();
        let guests = self.customer.iter().filter(|&&customer| customer == GUEST).count() as f64 / rows as f64;
        let labels = |names: &'static [&'static str], codes: &[u8]| {
            Arc::new(StringArray::from_iter_values(codes.iter().map(|&code| names[usize::from(code)])))
        };
        let used = NullBuffer::new(self.coupon.iter().map(Option::is_some).collect::<BooleanBuffer>());
        let coupons = build_text(rows, Some(&used), |order, text| {
            let (month, year) = self.coupon[order].unwrap_or_default();
            text.push_str(match month {
                11 => "BLACKFRIDAY",
                12 => "HOLIDAY",
                6..=8 => "SUMMER",
                3..=5 => "SPRING",
                _ => "WELCOME",
            });
            write_number((year % 100) as usize, 2, text);
        });
        let mut table = TableBuilder::new("orders");
        table.key("order_id", Arc::new(Int64Array::from_iter_values(1..=rows as i64)));
        table.column("customer_id", Arc::new(customers));
        table.column("ordered_at", Arc::new(TimestampMicrosecondArray::from(self.at.clone())));
        table.column("status", labels(&STATUSES, &self.status));
        table.column("channel", labels(&CHANNELS, &self.channel));
        table.column("payment_method", labels(&PAYMENTS, &self.payment));
        table.column("coupon_code", coupons);
        table.column("total_amount", Arc::new(Float64Array::from(self.total.clone())));
        refer(&mut table, "customer_id", "customers", "customer_id", 1.0, guests);
        table.finish()
    }
}

fn cents(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}
