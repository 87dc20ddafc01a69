//! What the embeddings of a table must not depend on: names, the order of rows, the scale of numbers.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;
use relata_experts::TableEmbedding;
use relata_experts::data::DataExpert;
use relata_experts::data::context::RowContext;
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::relative::{RowSample, TableInput};

type Row = (i64, u8, Option<i16>);

/// A table of `rows` in `order`: a number, a number that follows from it, a text and a sparse number.
fn table(rows: &[Row], order: &[usize], names: [&str; 4], scale: f64, shift: f64) -> RecordBatch {
    let of = |index: &usize| rows[*index];
    let numbers = order.iter().map(|i| of(i).0 as f64 * scale + shift);
    let following = order.iter().map(|i| of(i).0.div_euclid(8));
    let texts = order.iter().map(|i| format!("label {:02}", of(i).1));
    let sparse = order.iter().map(|i| of(i).2.map(|value| f64::from(value) * scale - shift));
    let columns: [ArrayRef; 4] = [
        Arc::new(Float64Array::from_iter_values(numbers)),
        Arc::new(Int64Array::from_iter_values(following)),
        Arc::new(StringArray::from_iter_values(texts)),
        Arc::new(Float64Array::from_iter(sparse)),
    ];
    RecordBatch::try_from_iter_with_nullable(names.into_iter().zip(columns).map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn profile(batch: &RecordBatch) -> TableProfile {
    TableProfile::of_batches(batch.schema(), std::slice::from_ref(batch), &ProfileConfig::default()).unwrap()
}

fn embed(expert: &DataExpert, profile: &TableProfile) -> TableEmbedding {
    expert.embed(&TableInput::new(profile)).unwrap()
}

fn distance(left: &TableEmbedding, right: &TableEmbedding) -> f32 {
    assert_eq!((left.rows, left.columns.dim()), (right.rows, right.columns.dim()));
    let numbers = |embedding: &TableEmbedding| {
        let own = [&embedding.table, &embedding.slots, &embedding.shares].map(Vec::as_slice);
        let columns = embedding.columns.iter().copied();
        own.concat().into_iter().chain(columns).collect::<Vec<f32>>()
    };
    let pairs = numbers(left).into_iter().zip(numbers(right));
    pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn embeddings_ignore_names_row_order_and_scale(
        rows in prop::collection::vec((-400i64..400, 0u8..30, prop::option::of(-50i16..50)), 2..300),
        shuffle in any::<u64>(),
        power in -4i32..8,
        shift in -64i32..64,
    ) {
        let expert = DataExpert::pretrained().unwrap();
        let straight: Vec<usize> = (0..rows.len()).collect();
        let mut shuffled = straight.clone();
        shuffled.sort_by_key(|&i| (i as u64 ^ shuffle).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let original = profile(&table(&rows, &straight, ["a", "b", "c", "d"], 1.0, 0.0));
        let names = ["price", "Größe", "c c", "0"];
        let changed = profile(&table(&rows, &shuffled, names, 2f64.powi(power), f64::from(shift)));
        let (left, right) = (embed(&expert, &original), embed(&expert, &changed));
        prop_assert!(distance(&left, &right) < 1e-3, "{}", distance(&left, &right));

        // Rows are encoded alike, too.
        let contexts = [&original, &changed].map(|profile| RowContext::new(RowSample::new(profile, 4096)));
        let row = [0.25, f32::NAN, 0.5, 0.75];
        let restored = contexts.map(|context| {
            let relevance = expert.relevance(&context, 1);
            expert.distribution(&expert.embed_row(&context, &relevance, &row).unwrap())
        });
        for (left, right) in restored[0].iter().zip(&restored[1]) {
            prop_assert!((left - right).abs() < 1e-2, "{} {}", left, right);
        }
    }

    #[test]
    fn restored_histograms_hold_the_rows_of_the_table(
        rows in prop::collection::vec((-400i64..400, 0u8..30, prop::option::of(-50i16..50)), 20..300),
    ) {
        let expert = DataExpert::pretrained().unwrap();
        let order: Vec<usize> = (0..rows.len()).collect();
        let embedding = embed(&expert, &profile(&table(&rows, &order, ["a", "b", "c", "d"], 1.0, 0.0)));
        let factors = expert.factors(&embedding);
        for column in 0..4 {
            let total: f32 = expert.restore(&embedding, &factors, &[column]).unwrap().iter().sum();
            prop_assert!((total / rows.len() as f32 - 1.0).abs() < 1e-2, "{} of {}", total, rows.len());
        }
    }
}
