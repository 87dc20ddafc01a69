//! Nothing from the cutoff on changes a feature, and neither does the order of rows.

use proptest::prelude::*;

use super::*;

/// A row: key, key of the parent, value, day.
type Row = (i64, Option<i64>, i64, Option<i64>);

#[derive(Debug, Clone)]
struct Database {
    users: Vec<Row>,
    orders: Vec<Row>,
    items: Vec<Row>,
}

const DAYS: i64 = 6;

fn rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    let row = (prop::option::weighted(0.9, 0i64..4), -3i64..4, prop::option::weighted(0.9, 0..DAYS));
    prop::collection::vec(row, 0..most).prop_map(|rows| {
        rows.into_iter().zip(0..).map(|((parent, value, day), key)| (key, parent, value, day)).collect()
    })
}

fn databases() -> impl Strategy<Value = Database> {
    (rows(5), rows(8), rows(12)).prop_map(|(users, orders, items)| Database { users, orders, items })
}

impl Database {
    /// Users refer to users, orders to users, items (which have no time) to orders.
    fn relations(&self) -> Relations {
        let table = |name: &str, rows: &[Row], timed: bool| {
            let numbers =
                |of: fn(&Row) -> Option<i64>| Arc::new(Int64Array::from_iter(rows.iter().map(of))) as ArrayRef;
            let kinds = rows.iter().map(|row| (row.2 != 0).then(|| format!("kind {}", row.2 % 2)));
            let days = rows.iter().map(|row| row.3.map(|day| day * DAY));
            let mut columns = vec![
                ("id", numbers(|row| Some(row.0))),
                ("parent", numbers(|row| row.1)),
                ("value", numbers(|row| Some(row.2))),
                ("label", numbers(|row| Some(row.2 * 7))),
                ("kind", Arc::new(StringArray::from_iter(kinds)) as ArrayRef),
            ];
            if timed {
                columns.push(("day", Arc::new(TimestampSecondArray::from_iter(days))));
            }
            relation(name, columns, &["id"], timed.then_some("day"))
        };
        Relations {
            tables: vec![
                table("users", &self.users, true),
                table("orders", &self.orders, true),
                table("items", &self.items, false),
            ],
            references: vec![
                refers(0, &["parent"], 0, &["id"]),
                refers(1, &["parent"], 0, &["id"]),
                refers(2, &["parent"], 1, &["id"]),
            ],
        }
    }

    fn table(&mut self, table: usize) -> &mut Vec<Row> {
        [&mut self.users, &mut self.orders, &mut self.items].into_iter().nth(table).unwrap()
    }

    fn time(&self, table: usize, row: &Row) -> Option<i64> {
        match table {
            2 => self.orders.iter().find(|order| Some(order.0) == row.1)?.3,
            _ => row.3,
        }
    }

    /// Everything from the cutoff on is gone, but the entity's own row.
    fn without_future(&self, entity: (usize, i64), cutoff: i64) -> Self {
        let mut past = self.clone();
        for table in 0..3 {
            let seen = |row: &Row| (table, row.0) == entity || self.time(table, row).is_some_and(|time| time < cutoff);
            past.table(table).retain(seen);
        }
        past
    }

    /// Other rows from the cutoff on: other values, other parents, and some new ones.
    fn other_future(&self, entity: (usize, i64), cutoff: i64, shift: i64) -> Self {
        let mut other = self.clone();
        for table in 0..3 {
            let times: Vec<Option<i64>> = self.clone().table(table).iter().map(|row| self.time(table, row)).collect();
            for (row, time) in other.table(table).iter_mut().zip(times) {
                if (table, row.0) != entity && time.is_none_or(|time| time >= cutoff) {
                    row.2 += shift;
                    // An item's time is that of its order.
                    if table < 2 {
                        row.1 = Some(shift % 4);
                        row.3 = row.3.map(|time| time + shift);
                    }
                }
            }
            if table < 2 {
                other.table(table).push((100 + shift, Some(shift % 4), shift, Some(cutoff)));
            }
        }
        // Of the new order.
        other.items.push((200, Some(100 + shift), shift, None));
        other
    }

    fn shuffled(&self, by: usize) -> Self {
        let mut shuffled = self.clone();
        for table in 0..3 {
            let rows = shuffled.table(table);
            rows.reverse();
            let middle = by % rows.len().max(1);
            rows.rotate_left(middle);
        }
        shuffled
    }

    fn features(&self, entity: (usize, i64), cutoff: Option<i64>, hidden: &[(usize, &str)]) -> Table {
        let mut columns = vec![("row", whole([0])), ("id", whole([entity.1]))];
        columns.extend(cutoff.map(|day| ("at", times([Some(day)]))));
        let entities = entities(columns, &["id"], cutoff.map(|_| "at"));
        run(&self.relations(), &task(entity.0, &["id"], hidden), &entities, NEAREST)
    }
}

const NEAREST: SynthesisConfig = SynthesisConfig { depth: 3, max_features: 80 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn the_future_changes_nothing(
        database in databases(), table in 0usize..3, id in 0i64..4, cutoff in 0..=DAYS, shift in 1i64..4,
    ) {
        let entity = (table, id);
        let hidden = [(0, "label"), (1, "label")];
        let found = database.features(entity, Some(cutoff), &hidden);
        prop_assert_eq!(&found, &database.without_future(entity, cutoff).features(entity, Some(cutoff), &hidden));
        prop_assert_eq!(&found, &database.other_future(entity, cutoff, shift).features(entity, Some(cutoff), &hidden));
    }

    #[test]
    fn the_hidden_value_of_the_row_changes_nothing(
        database in databases(), table in 0usize..3, id in 0i64..4, cutoff in prop::option::of(0..=DAYS),
    ) {
        let entity = (table, id);
        // Own values are hidden altogether, so that they can be changed by the row.
        let hidden = [(table, "label"), (table, "value"), (table, "kind")];
        let mut other = database.clone();
        for row in other.table(table) {
            if row.0 == id || cutoff.is_none() {
                row.2 += 1;
            }
        }
        prop_assert_eq!(database.features(entity, cutoff, &hidden), other.features(entity, cutoff, &hidden));
    }

    #[test]
    fn the_order_of_rows_changes_nothing(
        database in databases(), table in 0usize..3, id in 0i64..4, cutoff in prop::option::of(0..=DAYS), by in 0usize..12,
    ) {
        let entity = (table, id);
        let found = database.features(entity, cutoff, &[]);
        prop_assert_eq!(found, database.shuffled(by).features(entity, cutoff, &[]));
    }

    #[test]
    fn entities_do_not_see_each_other(
        database in databases(), table in 0usize..3, ids in prop::array::uniform3(0i64..4),
        cutoffs in prop::option::of(prop::array::uniform3(0..=DAYS)),
    ) {
        let mut columns = vec![("row", whole([0, 1, 2])), ("id", whole(ids))];
        columns.extend(cutoffs.map(|days| ("at", times(days.map(Some)))));
        let all = entities(columns, &["id"], cutoffs.map(|_| "at"));
        let all = run(&database.relations(), &task(table, &["id"], &[]), &all, NEAREST);
        for row in 0..3 {
            let alone = database.features((table, ids[row]), cutoffs.map(|days| days[row]), &[]);
            let same = all.iter().map(|(name, values)| (name.clone(), vec![values[row].clone()])).collect::<Table>();
            prop_assert_eq!(same, alone);
        }
    }
}
