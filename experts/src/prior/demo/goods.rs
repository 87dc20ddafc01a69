//! What is sold: categories, suppliers, products.

use std::sync::Arc;

use arrow::array::{BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, StringArray};

use super::people::Countries;
use super::words::{COLORS, COUNTRIES, DEPARTMENTS, LAST_NAMES, MODELS};
use super::{DAYS, END_DAY, FIRST_DAY, PriorError, Random, SyntheticTable, TableBuilder, refer};
use crate::prior::columns::build_text;
use crate::prior::random::{Alias, exp, ln, zipf_weights};
use crate::prior::text::write_number;

pub(super) struct Categories {
    ids: Vec<i32>,
    /// Index into [`DEPARTMENTS`].
    department: Vec<usize>,
    price: Vec<f64>,
    /// How much is sold, relative to the others.
    popularity: Vec<f64>,
}

/// Departments first, whose categories refer to them in the same table.
pub(super) fn categories(random: &mut Random) -> Result<(Categories, SyntheticTable), PriorError> {
    let mut categories = Categories { ids: vec![], department: vec![], price: vec![], popularity: vec![] };
    let (mut ids, mut names, mut departments, mut parents, mut prices) = (vec![], vec![], vec![], vec![], vec![]);
    for (d, department) in DEPARTMENTS.iter().enumerate() {
        ids.push(d as i32 + 1);
        names.push(department.0);
        departments.push(department.0);
        parents.push(None);
        prices.push(None);
    }
    let sizes = zipf_weights(DEPARTMENTS.len() * 7, 0.8);
    let order = random.permutation(sizes.len());
    for (d, department) in DEPARTMENTS.iter().enumerate() {
        for name in department.3 {
            let price = department.1 * exp(0.7 * f64::from(random.normal()));
            ids.push(ids.len() as i32 + 1);
            names.push(name);
            departments.push(department.0);
            parents.push(Some(d as i32 + 1));
            prices.push(Some((price * 100.0).round() / 100.0));
            categories.popularity.push(sizes[order[categories.ids.len()] as usize]);
            categories.ids.push(ids.len() as i32);
            categories.department.push(d);
            categories.price.push(price);
        }
    }
    let roots = DEPARTMENTS.len() as f64 / ids.len() as f64;
    let mut table = TableBuilder::new("categories");
    table.key("category_id", Arc::new(Int32Array::from(ids)));
    table.column("name", Arc::new(StringArray::from(names)));
    table.column("department", Arc::new(StringArray::from(departments)));
    table.column("parent_category_id", Arc::new(Int32Array::from(parents)));
    table.column("typical_price", Arc::new(Float64Array::from(prices)));
    refer(&mut table, "parent_category_id", "categories", "category_id", 1.0, roots);
    Ok((categories, table.finish()?))
}

pub(super) struct Suppliers {
    /// Index into [`COUNTRIES`].
    country: Vec<usize>,
    /// The department each delivers to.
    department: Vec<usize>,
}

pub(super) fn suppliers(
    countries: &Countries,
    rows: usize,
    random: &mut Random,
) -> Result<(Suppliers, SyntheticTable), PriorError> {
    // Where the goods of a department come from, by region.
    const ORIGINS: [[f64; 6]; 8] = [
        [1.0, 2.0, 0.1, 20.0, 0.1, 0.1],
        [8.0, 2.0, 1.0, 6.0, 1.0, 0.5],
        [6.0, 1.0, 1.0, 12.0, 2.0, 0.2],
        [9.0, 6.0, 1.0, 0.5, 0.2, 1.0],
        [5.0, 6.0, 0.5, 4.0, 0.1, 0.2],
        [6.0, 3.0, 1.0, 6.0, 0.5, 1.0],
        [4.0, 1.0, 0.2, 14.0, 0.1, 0.1],
        [5.0, 1.0, 8.0, 3.0, 8.0, 2.0],
    ];
    const KINDS: [&str; 5] = ["Trading", "Works", "Imports", "Brothers", "Group"];
    let origins = ORIGINS.map(|weights| Alias::new(&COUNTRIES.map(|country| weights[country.2] * country.5.sqrt())));
    let department: Vec<usize> = (0..rows).map(|row| row % DEPARTMENTS.len()).collect();
    let country: Vec<usize> = department.iter().map(|&department| origins[department].draw(random)).collect();
    let names = build_text(rows, None, |row, name| {
        name.push_str(random.pick(&LAST_NAMES));
        name.push(' ');
        name.push_str(DEPARTMENTS[department[row]].0);
        name.push(' ');
        name.push_str(random.pick(&KINDS));
    });
    let lead_times: Vec<i32> = country
        .iter()
        .map(|&country| ([4.0, 9.0, 18.0, 25.0, 21.0, 30.0][COUNTRIES[country].2] * random.between(0.5, 1.6)) as i32)
        .collect();
    // Slow suppliers have worse ratings; new ones none.
    let ratings: Float64Array = lead_times
        .iter()
        .map(|&days| {
            let rating = 4.6 - 0.04 * f64::from(days) + 0.4 * f64::from(random.normal());
            (!random.chance(0.1)).then_some((rating.clamp(1.0, 5.0) * 10.0).round() / 10.0)
        })
        .collect();
    let since = Date32Array::from_iter_values((0..rows).map(|_| FIRST_DAY as i32 - 2_000 + random.below(4_000) as i32));
    let mut table = TableBuilder::new("suppliers");
    table.key("supplier_id", Arc::new(Int32Array::from_iter_values(1..=rows as i32)));
    table.column("name", names);
    table.column("country_id", Arc::new(Int32Array::from_iter_values(country.iter().map(|&c| countries.ids[c]))));
    table.column("lead_time_days", Arc::new(Int32Array::from(lead_times)));
    table.column("rating", Arc::new(ratings));
    table.column("contract_since", Arc::new(since));
    table.column("is_active", Arc::new(BooleanArray::from_iter((0..rows).map(|_| Some(random.chance(0.93))))));
    refer(&mut table, "country_id", "countries", "country_id", 1.0, 0.0);
    Ok((Suppliers { country, department }, table.finish()?))
}

pub(super) struct Products {
    /// Index into [`DEPARTMENTS`].
    pub(super) department: Vec<u8>,
    pub(super) price: Vec<f64>,
    /// Region of the supplier.
    pub(super) origin: Vec<u8>,
    pub(super) launched: Vec<i32>,
    /// How much each is sold, relative to the others.
    pub(super) popularity: Vec<f64>,
    /// Around 0; what reviews say.
    pub(super) quality: Vec<f32>,
}

pub(super) fn products(
    categories: &Categories,
    suppliers: &Suppliers,
    rows: usize,
    random: &mut Random,
) -> Result<(Products, SyntheticTable), PriorError> {
    // There are more products where more is sold, though not in proportion.
    let assortment =
        Alias::new(&categories.popularity.iter().map(|popularity| popularity.sqrt()).collect::<Vec<f64>>());
    let category: Vec<usize> = (0..rows).map(|_| assortment.draw(random)).collect();
    let department: Vec<u8> = category.iter().map(|&category| categories.department[category] as u8).collect();
    let by_department: Vec<(Vec<usize>, Alias)> = (0..DEPARTMENTS.len())
        .map(|department| {
            let own: Vec<usize> =
                (0..suppliers.department.len()).filter(|&s| suppliers.department[s] == department).collect();
            let weights = zipf_weights(own.len(), 0.8);
            (own, Alias::new(&weights))
        })
        .collect();
    let supplier: Vec<usize> = department
        .iter()
        .map(|&department| {
            let (own, alias) = &by_department[usize::from(department)];
            own[alias.draw(random)]
        })
        .collect();
    let price: Vec<f64> = category
        .iter()
        .map(|&category| (categories.price[category] * exp(0.6 * f64::from(random.normal()))).max(1.0).floor() + 0.99)
        .collect();
    // The rank in sales: the category, the price within it, and luck.
    let scores: Vec<f64> = category
        .iter()
        .zip(&price)
        .map(|(&category, price)| {
            0.5 * ln(categories.popularity[category]) - 0.4 * ln(price / categories.price[category])
                + 1.2 * f64::from(random.normal())
        })
        .collect();
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let zipf = zipf_weights(rows, 1.0);
    let mut popularity = vec![0.0; rows];
    order.iter().zip(zipf).for_each(|(&product, weight)| popularity[product] = weight);

    let brand: Vec<&str> =
        department.iter().map(|&d| DEPARTMENTS[usize::from(d)].4[random.below(5).min(random.below(5))]).collect();
    let names = build_text(rows, None, |row, name| {
        name.push_str(brand[row]);
        name.push(' ');
        name.push_str(random.pick(&MODELS));
        name.push(' ');
        let shelf = DEPARTMENTS[usize::from(department[row])].3;
        name.push_str(shelf[category[row] % shelf.len()]);
        name.push(' ');
        write_number(100 + random.below(900), 3, name);
    });
    let cost: Vec<f64> =
        price.iter().map(|price| (price * random.between(0.45, 0.8) * 100.0).round() / 100.0).collect();
    let launched: Vec<i32> = (0..rows)
        .map(|_| {
            FIRST_DAY as i32
                + if random.chance(0.5) { -1 - random.below(900) as i32 } else { random.below(DAYS - 60) as i32 }
        })
        .collect();
    let weight: Int32Array = price
        .iter()
        .zip(&department)
        .map(|(price, &department)| {
            // Downloads weigh nothing.
            let download = random.chance([0.02, 0.0, 0.0, 0.35, 0.3, 0.0, 0.0, 0.0][usize::from(department)]);
            (!download).then(|| (40.0 * price.sqrt() * exp(0.8 * f64::from(random.normal()))) as i32 + 5)
        })
        .collect();
    let colors = StringArray::from_iter(department.iter().map(|&department| {
        random
            .chance([0.4, 0.7, 0.97, 0.0, 0.1, 0.5, 0.4, 0.0][usize::from(department)])
            .then(|| COLORS[random.below(COLORS.len()).min(random.below(COLORS.len()))])
    }));
    let discontinued =
        launched.iter().map(|&launched| Some(random.chance((END_DAY - i64::from(launched)) as f64 / 9_000.0)));

    let mut table = TableBuilder::new("products");
    table.key("product_id", Arc::new(Int64Array::from_iter_values(1..=rows as i64)));
    table.column("name", names);
    table.column("category_id", Arc::new(Int32Array::from_iter_values(category.iter().map(|&c| categories.ids[c]))));
    table.column("supplier_id", Arc::new(Int32Array::from_iter_values(supplier.iter().map(|&s| s as i32 + 1))));
    table.column("brand", Arc::new(StringArray::from(brand)));
    table.column("price", Arc::new(Float64Array::from(price.clone())));
    table.column("cost", Arc::new(Float64Array::from(cost)));
    table.column("weight_grams", Arc::new(weight));
    table.column("color", Arc::new(colors));
    table.column("launched_on", Arc::new(Date32Array::from(launched.clone())));
    table.column("is_discontinued", Arc::new(BooleanArray::from_iter(discontinued)));
    refer(&mut table, "category_id", "categories", "category_id", 1.0, 0.0);
    refer(&mut table, "supplier_id", "suppliers", "supplier_id", 1.0, 0.0);
    let origin = supplier.iter().map(|&supplier| COUNTRIES[suppliers.country[supplier]].2 as u8).collect();
    let quality = (0..rows).map(|_| random.normal()).collect();
    Ok((Products { department, price, origin, launched, popularity, quality }, table.finish()?))
}
