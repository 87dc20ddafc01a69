//! What the embeddings of a table may depend on, and what is refused.

use super::*;
use crate::fixture;

fn expert() -> DataExpert {
    let config = DataConfig { width: 16, ..DataConfig::default() };
    DataExpert::from_parameters(&config, &fixture::parameters(&config.parameters(), 1)).unwrap()
}

fn close(left: &[f32], right: &[f32]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| (left - right).abs() < 1e-4)
}

#[test]
fn order_of_groups_does_not_matter() {
    let table = fixture::table(9, 4, 5);
    let mut reversed = table.clone();
    reversed.cells = table.cells.chunks(4 * CELL_FEATURES).rev().flatten().copied().collect();
    reversed.cells.rotate_right(4 * CELL_FEATURES);
    reversed.shares = table.shares.iter().rev().copied().collect();
    reversed.shares.rotate_right(1);
    let (left, right) = (expert().embed(&table).unwrap(), expert().embed(&reversed).unwrap());
    assert!(close(&left.table, &right.table));
    assert!(close(left.columns.as_slice().unwrap(), right.columns.as_slice().unwrap()));
}

#[test]
fn permuting_columns_permutes_their_embeddings() {
    let table = fixture::table(6, 3, 5);
    let mut reversed = table.clone();
    reversed.cells = table
        .cells
        .chunks(3 * CELL_FEATURES)
        .flat_map(|row| row.chunks(CELL_FEATURES).rev().flatten().copied().collect::<Vec<_>>())
        .collect();
    reversed.column_statistics = table.column_statistics.chunks(COLUMN_STATISTICS).rev().flatten().copied().collect();
    let (left, right) = (expert().embed(&table).unwrap(), expert().embed(&reversed).unwrap());
    assert!(close(&left.table, &right.table));
    for column in 0..3 {
        assert!(close(left.column(column).unwrap(), right.column(2 - column).unwrap()));
    }
    assert!(left.column(3).is_none());
}

#[test]
fn embeds_tables_of_any_size() {
    for (rows, columns) in [(1, 0), (1, 3), (5, 0), (2, 1), (2, 500)] {
        let embedding = expert().embed(&fixture::table(rows, columns, 2)).unwrap();
        assert_eq!(embedding.columns.dim(), (columns, 16));
        assert!(embedding.table.iter().all(|value| value.is_finite()), "{rows} x {columns}");
    }
}

#[test]
fn refuses_what_is_not_finite_or_misshaped() {
    let mut table = fixture::table(3, 2, 2);
    table.cells[4] = f32::NAN;
    assert!(matches!(expert().embed(&table), Err(ExpertsError::NotFinite { .. })));
    let mut table = fixture::table(3, 2, 2);
    table.column_statistics[1] = f32::INFINITY;
    assert!(matches!(expert().embed(&table), Err(ExpertsError::NotFinite { .. })));
    let mut table = fixture::table(3, 2, 2);
    table.rows = 4;
    assert!(matches!(expert().embed(&table), Err(ExpertsError::Shape { .. })));
    let mut table = fixture::table(3, 2, 2);
    table.shares.pop();
    assert!(matches!(expert().embed(&table), Err(ExpertsError::Shape { .. })));
}
