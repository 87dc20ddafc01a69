//! The answer head: its weight file, and that training teaches it.

use relata_experts::AnswerHead;
use relata_experts::answers::AnswerConfig;
use relata_experts::error::ExpertsError;
use relata_experts::weights::{ANSWER_MANIFEST, ANSWER_WEIGHTS, AnswerManifest, PRETRAINED_MANIFEST};
use relata_featurize::answer::{ANSWER_FEATURES, AnswerForm};

const SIZES: AnswerConfig = AnswerConfig { embedding: 2, width: 3, hidden: 8, layers: 3 };

fn input(state: f32) -> Vec<f32> {
    let columns: [&[f32]; 2] = [&[1.0, 3.0], &[3.0, 5.0]];
    AnswerHead::input(&SIZES, &[state; 3], columns.into_iter(), &[0.5; ANSWER_FEATURES])
}

#[test]
fn the_input_is_state_mean_embedding_and_features() {
    let input = input(7.0);
    assert_eq!(input[..5], [7.0, 7.0, 7.0, 2.0, 4.0]);
    assert_eq!(input.len(), 5 + ANSWER_FEATURES);
}

#[test]
fn zero_weights_repeat_the_sample() {
    let head = AnswerHead::from_parameters(&SIZES, &vec![0.0; SIZES.shape().parameter_count()], &[]).unwrap();
    let residual = head.residual(AnswerForm::Mean, &input(1.0)).unwrap();
    assert!(residual.median.abs() < f32::EPSILON && residual.lower < 0.0 && residual.upper > 0.0);
    assert!(matches!(head.residual(AnswerForm::Mean, &[0.0; 3]), Err(ExpertsError::Shape { .. })));
    assert!(matches!(head.residual(AnswerForm::Mean, &input(f32::NAN)), Err(ExpertsError::NotFinite { .. })));
}

#[test]
fn weights_of_other_experts_and_damaged_ones_are_refused() {
    AnswerHead::pretrained().unwrap();
    let mut manifest: AnswerManifest = serde_json::from_slice(ANSWER_MANIFEST).unwrap();
    let mut damaged = ANSWER_WEIGHTS.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let refused = AnswerHead::from_bytes(&damaged, ANSWER_MANIFEST, PRETRAINED_MANIFEST);
    assert!(matches!(refused, Err(ExpertsError::Checksum { .. })));
    manifest.experts_sha256 = "another".to_owned();
    let other = serde_json::to_vec(&manifest).unwrap();
    let refused = AnswerHead::from_bytes(ANSWER_WEIGHTS, &other, PRETRAINED_MANIFEST);
    assert!(matches!(refused, Err(ExpertsError::Checksum { .. })));
}

#[cfg(feature = "train")]
#[test]
fn the_head_learns_what_its_input_says() {
    use burn::tensor::Device;
    use relata_experts::train::answers::{AnswerCorpus, AnswerFitConfig, Sample, Samples, fit};

    // The residual is the state, give or take.
    let sample = |i: usize| {
        let state = (i % 41) as f32 / 20.0 - 1.0;
        let noise = ((i * 7919) % 101) as f32 / 505.0 - 0.1;
        Sample { form: AnswerForm::Mean, input: input(state), residual: state + noise }
    };
    let database =
        |name: usize| Samples { database: name.to_string(), samples: (0..400).map(|i| sample(i * 3 + name)).collect() };
    let corpus = AnswerCorpus { training: (0..4).map(database).collect(), held_out: (4..6).map(database).collect() };
    let config = AnswerFitConfig { steps: 300, batch: 128, evaluate_every: 100, ..AnswerFitConfig::default() };
    let device = Device::default().autodiff();
    let fitted = fit(&corpus, &SIZES, &config, &device, [0.05, 0.5, 0.95], |_| ()).unwrap();
    let [before, after] = fitted.errors[AnswerForm::Mean as usize];
    assert!(after < 0.4 * before, "{before} -> {after}");
    assert!((fitted.left_out_coverage.unwrap() - 0.9).abs() < 0.06, "{:?}", fitted.left_out_coverage);
    let head = AnswerHead::from_parameters(&SIZES, &fitted.parameters, &fitted.conformal).unwrap();
    let residual = head.residual(AnswerForm::Mean, &input(0.5)).unwrap();
    assert!(residual.lower < 0.5 && 0.5 < residual.upper && (residual.median - 0.5).abs() < 0.2, "{residual:?}");
}
