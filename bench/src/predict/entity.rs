//! A control that knows the examples' labels and whom they are of, and no feature: the mean label of the examples that refer to the
//! same row.

use hashbrown::HashMap;
use relata_experts::in_context::Labels;

use super::Split;
use super::prepare::Prepared;
use super::scores::Score;

/// Name in the results.
const NAME: &str = "constant per entity";

/// The mean label of the examples with the same entity and of one more example that is as all of them are; over several foreign
/// keys, the mean of that.
pub(super) fn score(task: &Prepared, split: &Split) -> Score {
    let targets: Vec<Vec<f64>> = match task.labels_of(&split.examples) {
        Labels::Numbers(labels) => labels.into_iter().map(|label| vec![f64::from(label)]).collect(),
        Labels::Classes { labels, count } => {
            let shares = |label: u32| (0..count).map(|class| f64::from(u8::from(class == label as usize))).collect();
            labels.into_iter().map(shares).collect()
        }
    };
    let outputs = targets.first().map_or(0, Vec::len);
    let all = mean(targets.iter(), &vec![0.0; outputs], 0.0);
    let mut values = vec![vec![0.0; outputs]; split.rows.len()];
    for codes in &task.entities {
        let mut known: HashMap<u32, Vec<&Vec<f64>>> = HashMap::new();
        for (row, target) in split.examples.iter().zip(&targets) {
            if let Some(code) = codes[*row] {
                known.entry(code).or_default().push(target);
            }
        }
        for (row, value) in split.rows.iter().zip(&mut values) {
            let own = codes[*row].and_then(|code| known.get(&code));
            let own = own.map_or_else(|| all.clone(), |own| mean(own.iter().copied(), &all, 1.0));
            let parts = value.iter_mut().zip(own);
            parts.for_each(|(value, own)| *value += own / task.entities.len() as f64);
        }
    }
    if task.entities.is_empty() {
        values.fill(all);
    }
    Score::new(NAME, task, split, &values)
}

/// The mean of some targets and of a prior that counts as much as `weight` of them.
fn mean<'a>(targets: impl Iterator<Item = &'a Vec<f64>>, prior: &[f64], weight: f64) -> Vec<f64> {
    let (mut sum, mut count): (Vec<f64>, f64) = (prior.iter().map(|prior| prior * weight).collect(), weight);
    for target in targets {
        sum.iter_mut().zip(target).for_each(|(sum, target)| *sum += target);
        count += 1.0;
    }
    sum.into_iter().map(|sum| sum / count.max(1.0)).collect()
}

#[cfg(test)]
mod tests {
    use relata_featurize::synthesis::FeatureTable;

    use super::*;

    #[test]
    fn entities_have_the_labels_of_their_examples() {
        let task = Prepared {
            name: "t".to_owned(),
            features: FeatureTable::default(),
            label: Labels::Numbers(vec![1.0, 3.0, 11.0, 3.5, 7.25, 5.0]),
            entities: vec![vec![Some(0), Some(0), Some(1), Some(0), Some(1), None]],
            in_time: false,
        };
        let split = Split { seed: 0, shots: 3, examples: vec![0, 1, 2], rows: vec![3, 4, 5], columns: vec![] };
        // (1 + 3 + 5) / 3 = 3, (11 + 5) / 2 = 8, and 5 for whom nobody knows.
        let score = score(&task, &split);
        let labels = [3.5f64, 7.25, 5.0];
        let centre = labels.iter().sum::<f64>() / 3.0;
        let squares: f64 = labels.iter().zip([3.0, 8.0, 5.0]).map(|(label, value)| (label - value).powi(2)).sum();
        let all: f64 = labels.iter().map(|label| (label - centre).powi(2)).sum();
        assert!((score.score - (1.0 - squares / all)).abs() < 1e-9);
    }
}
