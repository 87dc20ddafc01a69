use super::*;
use crate::fixture::Noise;

fn predictor(seed: u64) -> InContextPredictor {
    let config = InContextConfig { width: 16, heads: 2, layers: 3, hidden: 24, thinking: 3 };
    let flat = Noise::new(seed).vector(config.parameter_count()).iter().map(|value| 0.4 * value).collect();
    InContextPredictor::from_parameters(&config, flat).unwrap()
}

fn columns(noise: &mut Noise, rows: usize) -> Vec<Column> {
    let mut numbers = || Column::Number(noise.vector(rows));
    let mut columns = vec![numbers(), numbers(), numbers()];
    let codes = noise.vector(rows).into_iter().map(|x| (x > -0.8).then_some((x.abs() * 4.0) as u32));
    columns.push(Column::Category(codes.collect()));
    columns
}

fn labels(rows: usize, classes: bool) -> Labels {
    match classes {
        true => Labels::Classes { labels: (0..rows as u32).map(|row| row * row % 3).collect(), count: 3 },
        false => Labels::Numbers((0..rows).map(|row| (row * row % 17) as f32).collect()),
    }
}

fn reordered(columns: &[Column], order: &[usize]) -> Vec<Column> {
    let reorder = |column: &Column| match column {
        Column::Number(values) => Column::Number(order.iter().map(|row| values[*row]).collect()),
        Column::Category(codes) => Column::Category(order.iter().map(|row| codes[*row]).collect()),
    };
    columns.iter().map(reorder).collect()
}

fn numbers(predictions: &[Prediction]) -> Vec<f32> {
    let numbers = |prediction: &Prediction| match prediction {
        Prediction::Classes(shares) => shares.clone(),
        Prediction::Numbers(quantiles) => quantiles.to_vec(),
    };
    predictions.iter().flat_map(numbers).collect()
}

#[test]
fn predictions_depend_on_no_order() {
    let (predictor, mut noise) = (predictor(1), Noise::new(2));
    let (examples, rows) = (columns(&mut noise, 40), columns(&mut noise, 130));
    for classes in [true, false] {
        let labels = labels(40, classes);
        let expected = predictor.prefill(&examples, &labels).unwrap().predict(&rows).unwrap();
        assert_eq!(expected.len(), 130);
        let close = |other: &[Prediction], order: &[usize]| {
            let (a, b) = (numbers(other), numbers(&order.iter().map(|row| expected[*row].clone()).collect::<Vec<_>>()));
            a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-3 * (1.0 + b.abs()))
        };
        // Examples in another order.
        let order: Vec<usize> = (0..40).map(|row| (row * 7 + 3) % 40).collect();
        let shuffled = match &labels {
            Labels::Classes { labels, count } => {
                Labels::Classes { labels: order.iter().map(|row| labels[*row]).collect(), count: *count }
            }
            Labels::Numbers(labels) => Labels::Numbers(order.iter().map(|row| labels[*row]).collect()),
        };
        let prefilled = predictor.prefill(&reordered(&examples, &order), &shuffled).unwrap();
        let all: Vec<usize> = (0..130).collect();
        assert!(close(&prefilled.predict(&rows).unwrap(), &all));
        // Rows in another order, and alone.
        let order: Vec<usize> = (0..130).rev().collect();
        assert!(close(&prefilled.predict(&reordered(&rows, &order)).unwrap(), &order));
        assert!(close(&prefilled.predict(&reordered(&rows, &[5])).unwrap(), &[5]));
        // Features in another order.
        let swap = |columns: &[Column]| [2, 3, 0, 1].map(|column: usize| columns[column].clone()).to_vec();
        let swapped = predictor.prefill(&swap(&examples), &labels).unwrap().predict(&swap(&rows)).unwrap();
        assert!(close(&swapped, &all));
    }
}

#[test]
fn predictions_are_distributions() {
    let (predictor, mut noise) = (predictor(4), Noise::new(5));
    let (examples, rows) = (columns(&mut noise, 20), columns(&mut noise, 9));
    for prediction in predictor.prefill(&examples, &labels(20, true)).unwrap().predict(&rows).unwrap() {
        let Prediction::Classes(shares) = &prediction else { panic!("not a class") };
        assert!(shares.len() == 3 && (shares.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(prediction.class().is_some_and(|class| shares.iter().all(|share| *share <= shares[class])));
    }
    let prefilled = predictor.prefill(&examples, &labels(20, false)).unwrap();
    assert_eq!(prefilled.memory(), 4 * 16 * (5 + 5 + 1) * 23);
    for prediction in prefilled.predict(&rows).unwrap() {
        let Prediction::Numbers(quantiles) = &prediction else { panic!("not a number") };
        assert!(quantiles.is_sorted() && prediction.mean().is_some_and(f32::is_finite));
    }
    assert_eq!(prefilled.predict(&columns(&mut noise, 0)).unwrap(), []);
}

#[test]
fn nonsense_is_refused_or_survived() {
    let (predictor, mut noise) = (predictor(6), Noise::new(7));
    let (examples, rows) = (columns(&mut noise, 20), columns(&mut noise, 4));
    assert!(matches!(predictor.prefill(&[], &labels(20, true)), Err(ExpertsError::Context(_))));
    assert!(matches!(predictor.prefill(&examples, &labels(19, true)), Err(ExpertsError::Shape { .. })));
    let prefilled = predictor.prefill(&examples, &labels(20, true)).unwrap();
    assert!(matches!(prefilled.predict(&rows[1..]), Err(ExpertsError::Shape { .. })));
    let kinds: Vec<Column> = rows.iter().rev().cloned().collect();
    assert!(prefilled.predict(&kinds).unwrap_err().to_string().contains("another kind"));
    let empty = vec![Column::Number(vec![f32::NAN; 20]), Column::Category(vec![None; 20])];
    let unknown = vec![Column::Number(vec![f32::INFINITY, 1.0]), Column::Category(vec![None, Some(3)])];
    let prefilled = predictor.prefill(&empty, &labels(20, false)).unwrap();
    assert!(numbers(&prefilled.predict(&unknown).unwrap()).iter().all(|number| number.is_finite()));
}
