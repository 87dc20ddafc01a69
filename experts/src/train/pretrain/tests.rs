//! The training forward pass against inference, gradients, and overfitting of both tasks.

use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use relata_featurize::relative::{BINS, RowSample, VALUE_BINS, bin_of};
use relata_featurize::restoration::{CountedHistogram, TableTask};

use super::batch::{BucketBatch, CellBatch, TableBatch};
use super::tasks::{PreparedTable, Tables};
use super::*;
use crate::data::cells::TARGETS;
use crate::data::context::RowContext;
use crate::fixture::{self, Noise};

fn small() -> DataConfig {
    DataConfig { width: 8, slot: BINS, cell_hidden: 12, cell_layers: 2, hidden: 10, layers: 3, kernels: 2 }
}

fn device() -> Device {
    Device::flex().autodiff()
}

/// A table of which a column, its square, noise and a class are sampled; its histograms are those of the sample.
fn table(seed: u64) -> PreparedTable {
    let (rows, mut noise) = (120, Noise::new(seed));
    let x: Vec<f32> = (0..rows).map(|_| noise.unit()).collect();
    let mut values = x.clone();
    values.extend(x.iter().map(|x| x * x));
    values.extend((0..rows).map(|row| if row % 4 == 0 { f32::NAN } else { noise.unit() }));
    values.extend(x.iter().map(|x| (x * 3.0).floor() / 3.0));
    let bins: Vec<Vec<u8>> =
        values.chunks(rows).map(|column| column.iter().map(|&value| bin_of(value) as u8).collect()).collect();
    assert!(bins[2].contains(&(VALUE_BINS as u8)));
    let count = |columns: &[u32]| CountedHistogram::count(columns.to_vec(), &bins);
    let histograms = vec![count(&[1]), count(&[0, 1]), count(&[3, 2, 0]), count(&[0, 1, 2, 3])];
    let mut input = fixture::table(7, 4, seed);
    input.table_statistics[0] = 0.1 * (rows as f32).ln_1p();
    input.table_statistics[2] = input.table_statistics[0];
    let sample = RowSample { rows, columns: 4, values };
    PreparedTable::new(TableTask { input, rows: rows as f64, sample, histograms }).unwrap()
}

#[test]
fn restored_buckets_agree_with_inference() {
    let config = small();
    let parameters = fixture::parameters(&config.parameters(), 5);
    let tables = [table(1), table(2)];
    let members: Vec<&PreparedTable> = tables.iter().collect();
    let batch = TableBatch::new(&[&tables[0].task.input, &tables[1].task.input]);
    let mut random = StdRng::seed_from_u64(1);
    let expert = DataExpert::from_parameters(&config, &parameters).unwrap();
    let training = TrainingDataExpert::new(&config, &parameters, &device());
    // Every bucket of the second table's histograms.
    let buckets = BucketBatch::draw(&members, 4, 10_000, &mut random);
    let embedded = training.embed(&batch);
    let mut restored = training.restore(&batch, &embedded, &buckets).into_data().try_into_vec::<f32>().unwrap();
    let mut expected = vec![];
    for table in &tables {
        let embedding = expert.embed(&table.task.input).unwrap();
        let factors = expert.factors(&embedding);
        for (histogram, empty) in table.task.histograms.iter().zip(&table.empty) {
            let all = expert.restore(&embedding, &factors, &histogram.columns).unwrap();
            let codes = histogram.counts.iter().map(|count| count.0).chain(empty.iter().copied());
            expected.extend(codes.map(|code| all[code as usize].ln_1p()));
        }
    }
    // Buckets were drawn in random order.
    restored.sort_unstable_by(f32::total_cmp);
    expected.sort_unstable_by(f32::total_cmp);
    assert_eq!(restored.len(), expected.len());
    for (left, right) in restored.iter().zip(&expected) {
        assert!((left - right).abs() < 2e-3, "{left} against {right}");
    }
}

#[test]
fn kernels_agree_with_inference() {
    let config = small();
    // All gates the same: what the gate knows of left-out rows differs between training and inference.
    let mut parameters = fixture::parameters(&config.parameters(), 5);
    for shape in config.parameters().iter().filter(|shape| shape.name.starts_with("data.gate")) {
        parameters[shape.range()].fill(0.0);
    }
    let sample = table(1).task.sample;
    let take = |from: usize, to: usize| RowSample {
        rows: to - from,
        columns: 4,
        values: (0..4).flat_map(|column| sample.column(column)[from..to].to_vec()).collect(),
    };
    let (queries, context) = (take(0, 10), RowContext::new(take(10, 120)));
    let batch = CellBatch::new(&context, &queries);
    let training = TrainingDataExpert::new(&config, &parameters, &device());
    let trained = training.distribution(&batch).into_data().try_into_vec::<f32>().unwrap();
    let expert = DataExpert::from_parameters(&config, &parameters).unwrap();
    let relevance = expert.relevance(&context, 0);
    for (query, trained) in trained.chunks(TARGETS).enumerate() {
        let row: Vec<f32> = (0..4).map(|column| queries.column(column)[query]).collect();
        let inferred = expert.distribution(&expert.embed_row(&context, &relevance, &row).unwrap());
        assert!(trained.iter().zip(inferred).all(|(left, right)| (left - right).abs() < 1e-3));
    }
}

#[test]
fn gradients_reach_every_parameter() {
    let config = small();
    let prepared = table(1);
    let batch = TableBatch::new(&[&prepared.task.input]);
    let mut random = StdRng::seed_from_u64(1);
    let buckets = BucketBatch::draw(&[&prepared], 4, 40, &mut random);
    let cells = CellBatch::draw(&prepared, 16, 90, 3, &mut random).unwrap();
    let parameters = fixture::parameters(&config.parameters(), 9);
    let (.., gradient) = TrainingDataExpert::new(&config, &parameters, &device()).step(&batch, &buckets, &[cells]);
    assert_eq!(gradient.len(), config.parameter_count());
    for shape in config.parameters() {
        assert!(gradient[shape.range()].iter().any(|slope| slope.abs() > 0.0), "{}", shape.name);
    }
}

#[test]
fn a_short_run_restores_and_goes_on_where_it_was() {
    let tables = Tables {
        training: vec![vec![table(1), table(2)], vec![table(3)]],
        databases: vec!["a".to_owned()],
        held_out: vec![table(1)],
        held_out_databases: vec!["b".to_owned()],
    };
    let folder = std::env::temp_dir().join(format!("relata-pretrain-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = PretrainConfig {
        data: small(),
        optimizer: AdamWConfig { learning_rate: 1e-2, average: 0.8, ..AdamWConfig::default() },
        steps: 30,
        tables: 2,
        columns: 1,
        evaluate_every: 10,
        checkpoint: Some(folder.join("checkpoint.safetensors")),
        ..PretrainConfig::default()
    };
    let mut losses = vec![];
    let whole = fit(&tables, &config, &device(), |event| {
        if let Event::Step(point, _) = event {
            losses.push(point.loss);
        }
    })
    .unwrap();
    let (first, last): (f32, f32) = (losses[..5].iter().sum(), losses[25..].iter().sum());
    assert!(losses.len() == 30 && last < 0.95 * first, "{losses:?}");
    assert!(whole.restored.buckets.is_finite() && whole.restored.cells > 0.8, "{:?}", whole.restored);
    let resume = PretrainConfig { resume: true, ..config.clone() };
    assert_eq!(
        fit(&tables, &resume, &device(), |_| panic!("all steps were taken")).unwrap().parameters,
        whole.parameters
    );
    // As if it had been killed after the checkpoint of step 12.
    let often = PretrainConfig { checkpoint_every: Duration::ZERO, ..config.clone() };
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fit(&tables, &often, &device(), |event| {
            assert!(!matches!(event, Event::Step(point, _) if point.step == 13), "killed");
        })
    }));
    assert!(killed.is_err());
    let mut taken = 0;
    let resumed = fit(&tables, &resume, &device(), |event| taken += u64::from(matches!(event, Event::Step(..))));
    assert_eq!((resumed.unwrap().parameters, taken), (whole.parameters.clone(), 18));
    let other = Tables { databases: vec!["c".to_owned()], ..tables.clone() };
    assert!(fit(&other, &resume, &device(), |_| ()).is_err());
    let manifest = write(&folder, &tables, &config, &whole, "test".to_owned()).unwrap();
    assert_eq!((manifest.tables, manifest.held_out.len()), (3, 1));
    std::fs::remove_dir_all(folder).unwrap();
}
