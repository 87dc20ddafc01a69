//! Where the customers are, and who: countries, cities, customers.

use std::sync::Arc;

use arrow::array::{BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, StringArray};

use super::words::{
    CITY_ENDINGS, CITY_PREFIXES, CITY_STEMS, COUNTRIES, FIRST_NAMES, INCOMES, LAST_NAMES, MAIL_PROVIDERS, REGIONS,
    SEGMENTS,
};
use super::{END_DAY, PriorError, Random, Season, SyntheticTable, TableBuilder, refer};
use crate::prior::columns::build_text;
use crate::prior::random::{Alias, exp, zipf_weights};
use crate::prior::text::write_number;

/// Ids of [`COUNTRIES`], in that order.
pub(super) struct Countries {
    pub(super) ids: Vec<i32>,
}

pub(super) fn countries(random: &mut Random) -> Result<(Countries, SyntheticTable), PriorError> {
    // The id says nothing about the size.
    let ids: Vec<i32> = random.permutation(COUNTRIES.len()).iter().map(|&id| id as i32 + 1).collect();
    let text =
        |value: fn(usize) -> &'static str| Arc::new(StringArray::from_iter_values((0..COUNTRIES.len()).map(value)));
    let vat = COUNTRIES.iter().map(|country| [19.0, 7.0, 15.0, 10.0, 14.0, 12.0][country.2] + random.below(5) as f64);
    let mut table = TableBuilder::new("countries");
    table.key("country_id", Arc::new(Int32Array::from(ids.clone())));
    table.column("name", text(|i| COUNTRIES[i].0));
    table.column("iso_code", text(|i| COUNTRIES[i].1));
    table.column("region", text(|i| REGIONS[COUNTRIES[i].2]));
    table.column("currency", text(|i| COUNTRIES[i].3));
    table.column("income_level", text(|i| INCOMES[COUNTRIES[i].4]));
    table.column("population", Arc::new(Int64Array::from_iter_values(COUNTRIES.iter().map(|c| (c.5 * 1e6) as i64))));
    table.column("vat_rate", Arc::new(Float64Array::from_iter_values(vat)));
    Ok((Countries { ids }, table.finish()?))
}

pub(super) struct Cities {
    /// Index into [`COUNTRIES`] of each city.
    country: Vec<usize>,
    /// How many customers live there, relative to the other cities.
    weights: Vec<f64>,
}

pub(super) fn cities(
    countries: &Countries,
    rows: usize,
    random: &mut Random,
) -> Result<(Cities, SyntheticTable), PriorError> {
    let by_size = Alias::new(&COUNTRIES.map(|country| country.5.sqrt()));
    let country: Vec<usize> = (0..rows.max(COUNTRIES.len()))
        .map(|row| if row < COUNTRIES.len() { row } else { by_size.draw(random) })
        .collect();
    let market = zipf_weights(COUNTRIES.len(), 1.1);
    let mut cities_so_far = [0usize; COUNTRIES.len()];
    let (mut weights, mut population) = (vec![], vec![]);
    for &c in &country {
        cities_so_far[c] += 1;
        let share = 1.0 / cities_so_far[c] as f64;
        weights.push(market[c] * share);
        population.push((COUNTRIES[c].5 * 1e5 * share * random.between(0.5, 1.5)) as i64 + 2_000);
    }
    let ids = Int32Array::from_iter_values(1..=country.len() as i32);
    let names = build_text(country.len(), None, |row, name| {
        name.push_str(random.pick(&CITY_PREFIXES));
        name.push_str(random.pick(&CITY_STEMS));
        name.push_str(random.pick(&CITY_ENDINGS[COUNTRIES[country[row]].2]));
    });
    // Latitudes of neighbours in a region resemble each other.
    let latitude = country.iter().map(|&c| {
        let centre = [50.0, 40.0, -15.0, 25.0, 5.0, -30.0][COUNTRIES[c].2];
        ((centre + 7.0 * f64::from(random.normal())) * 1e4).round() / 1e4
    });
    let mut table = TableBuilder::new("cities");
    table.key("city_id", Arc::new(ids));
    table.column("name", names);
    table.column("country_id", Arc::new(Int32Array::from_iter_values(country.iter().map(|&c| countries.ids[c]))));
    table.column("population", Arc::new(Int64Array::from(population)));
    table.column("latitude", Arc::new(Float64Array::from_iter_values(latitude)));
    table.column(
        "is_capital",
        Arc::new(BooleanArray::from_iter((0..country.len()).map(|row| Some(row < COUNTRIES.len())))),
    );
    refer(&mut table, "country_id", "countries", "country_id", 1.0, 0.0);
    Ok((Cities { country, weights }, table.finish()?))
}

pub(super) struct Customers {
    /// Index into [`COUNTRIES`].
    pub(super) country: Vec<u8>,
    /// Index into [`SEGMENTS`].
    pub(super) segment: Vec<u8>,
    pub(super) signup: Vec<i32>,
    /// How much each buys, relative to the others.
    pub(super) activity: Alias,
}

impl Customers {
    pub(super) fn region(&self, customer: usize) -> usize {
        COUNTRIES[usize::from(self.country[customer])].2
    }
}

pub(super) fn customers(
    cities: &Cities,
    rows: usize,
    season: &Season,
    random: &mut Random,
) -> Result<(Customers, SyntheticTable), PriorError> {
    // Shares of SEGMENTS at each level of INCOMES.
    let segments = [[0.18, 0.5, 0.22, 0.1], [0.35, 0.45, 0.12, 0.08], [0.6, 0.3, 0.05, 0.05], [0.8, 0.17, 0.02, 0.01]]
        .map(|weights| Alias::new(&weights));
    let homes = Alias::new(&cities.weights);
    let city: Vec<usize> = (0..rows).map(|_| homes.draw(random)).collect();
    let country: Vec<u8> = city.iter().map(|&city| cities.country[city] as u8).collect();
    let segment: Vec<u8> =
        country.iter().map(|&country| segments[COUNTRIES[usize::from(country)].4].draw(random) as u8).collect();
    // Customers are numbered as they came.
    let signup: Vec<i32> =
        (0..rows).map(|row| season.day((row as f64 + random.uniform()) / rows as f64) as i32).collect();
    let zipf = zipf_weights(rows, 0.9);
    let activity: Vec<f64> = random
        .permutation(rows)
        .iter()
        .zip(&segment)
        .map(|(&rank, &segment)| zipf[rank as usize] * [0.6, 1.0, 2.0, 6.0][usize::from(segment)])
        .collect();

    let first: Vec<usize> = (0..rows).map(|_| random.below(FIRST_NAMES.len())).collect();
    // Family names belong to a part of the world.
    let last: Vec<usize> = country
        .iter()
        .map(|&country| (COUNTRIES[usize::from(country)].2 * 6 + random.below(12)) % LAST_NAMES.len())
        .collect();
    let emails = build_text(rows, None, |row, email| {
        email.push_str(FIRST_NAMES[first[row]]);
        email.push('.');
        email.push_str(LAST_NAMES[last[row]]);
        write_number(random.below(10_000), 1, email);
        email.push('@');
        email.push_str(MAIL_PROVIDERS[(usize::from(country[row]) + random.below(2)) % MAIL_PROVIDERS.len()]);
        email.push('.');
        email.push_str(COUNTRIES[usize::from(country[row])].1);
        email.make_ascii_lowercase();
    });
    let birth_dates: Date32Array = segment
        .iter()
        .map(|&segment| {
            // Firms have none; the premium segment is older.
            let unknown = random.chance([0.12, 0.12, 0.12, 0.93][usize::from(segment)]);
            let age = [28.0, 38.0, 52.0, 40.0][usize::from(segment)] + 11.0 * f64::from(random.normal());
            (!unknown).then_some((END_DAY as f64 - age.max(18.0) * 365.25) as i32)
        })
        .collect();
    let loyalty: Int32Array = segment
        .iter()
        .zip(&signup)
        .map(|(&segment, &signup)| {
            let years = (END_DAY - i64::from(signup)) as f64 / 365.0;
            let member = random.chance([0.15, 0.3, 0.7, 0.02][usize::from(segment)]);
            Some(if member { (years * 80.0 * exp(1.2 * f64::from(random.normal()))) as i32 } else { 0 })
        })
        .collect();
    let opt_in = BooleanArray::from_iter(
        segment
            .iter()
            .map(|&segment| (!random.chance(0.1)).then(|| random.chance([0.7, 0.5, 0.35, 0.1][usize::from(segment)]))),
    );
    let phones: Vec<bool> = (0..rows).map(|_| random.chance(0.6)).collect();
    let text = |names: &'static [&'static str], index: &[usize]| {
        Arc::new(StringArray::from_iter_values(index.iter().map(|&index| names[index])))
    };

    let mut table = TableBuilder::new("customers");
    table.key("customer_id", Arc::new(Int64Array::from_iter_values(1..=rows as i64)));
    table.column("first_name", text(&FIRST_NAMES, &first));
    table.column("last_name", text(&LAST_NAMES, &last));
    table.column("email", emails);
    table.column("city_id", Arc::new(Int32Array::from_iter_values(city.iter().map(|&city| city as i32 + 1))));
    table.column(
        "country_code",
        Arc::new(StringArray::from_iter_values(country.iter().map(|&c| COUNTRIES[usize::from(c)].1))),
    );
    table.column("segment", Arc::new(StringArray::from_iter_values(segment.iter().map(|&s| SEGMENTS[usize::from(s)]))));
    table.column("birth_date", Arc::new(birth_dates));
    table.column("signup_date", Arc::new(Date32Array::from(signup.clone())));
    table.column("marketing_opt_in", Arc::new(opt_in));
    table.column("loyalty_points", Arc::new(loyalty));
    table.column(
        "phone",
        Arc::new(StringArray::from_iter((0..rows).map(|row| {
            phones[row].then(|| {
                let mut phone = String::from("+");
                write_number(usize::from(country[row]) + 20, 2, &mut phone);
                phone.push(' ');
                write_number(random.below(100_000_000), 8, &mut phone);
                phone
            })
        }))),
    );
    refer(&mut table, "city_id", "cities", "city_id", 1.0, 0.0);
    Ok((Customers { country, segment, signup, activity: Alias::new(&activity) }, table.finish()?))
}
