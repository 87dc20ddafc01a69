//! What a damaged or foreign weight file is told.

use super::*;
use crate::fixture;
use crate::in_context::InContextPredictor;
use crate::stack::ExpertStack;

fn config() -> ExpertConfig {
    ExpertConfig::with_width(8)
}

/// Name and shape of each tensor of a file.
type Shapes = Vec<(String, Vec<usize>)>;

/// A good weight file and its manifest.
fn files(parameters: &[f32]) -> (Vec<u8>, Manifest) {
    let weights = to_bytes(&config().parameters(), parameters).unwrap();
    let manifest = Manifest {
        sha256: sha256(&weights),
        layout_version: LAYOUT_VERSION,
        data_sha256: sha256(DATA_WEIGHTS),
        config: config(),
        seed: 1,
        steps: 0,
        command: "test".to_owned(),
        commit: None,
        begun: None,
        corpus: Corpus::default(),
        conformal: Vec::new(),
        held_out: Vec::new(),
        left_out_coverage: None,
    };
    (weights, manifest)
}

fn read(weights: &[u8], manifest: &Manifest) -> Result<ExpertStack> {
    ExpertStack::from_bytes(weights, &serde_json::to_vec(manifest).unwrap())
}

#[test]
fn what_is_written_is_read_back() {
    let parameters = fixture::parameters(&config().parameters(), 4);
    let (weights, manifest) = files(&parameters);
    let (found, read) = load(&weights, &serde_json::to_vec(&manifest).unwrap()).unwrap();
    assert_eq!(found, manifest);
    assert_eq!(read, parameters);
    assert_eq!(weights, to_bytes(&config().parameters(), &parameters).unwrap(), "the same weights make the same file");
}

#[test]
fn half_the_bytes_hold_the_nearest_numbers() {
    let shapes = config().parameters();
    let parameters = fixture::parameters(&shapes, 4);
    let weights = to_f16_bytes(&shapes, &parameters).unwrap();
    assert!(weights.len() < to_bytes(&shapes, &parameters).unwrap().len() * 2 / 3);
    let read = verified(&weights, &sha256(&weights), &shapes).unwrap();
    assert!(parameters.iter().zip(&read).all(|(a, b)| (a - b).abs() <= a.abs() / 2048.0 + 1e-7));
    assert_eq!(weights, to_f16_bytes(&shapes, &read).unwrap(), "what is rounded stays");
    let beyond = vec![1e6; parameters.len()];
    let weights = to_f16_bytes(&shapes, &beyond).unwrap();
    assert!(matches!(verified(&weights, &sha256(&weights), &shapes), Err(ExpertsError::NotFinite { .. })));
}

#[test]
fn refuses_a_truncated_file() {
    let (weights, manifest) = files(&fixture::parameters(&config().parameters(), 4));
    for length in [0, 7, 100, weights.len() - 1] {
        assert!(matches!(read(&weights[..length], &manifest), Err(ExpertsError::Weights(_))), "{length} bytes");
    }
}

#[test]
fn refuses_another_checksum() {
    let (mut weights, manifest) = files(&fixture::parameters(&config().parameters(), 4));
    *weights.last_mut().unwrap() ^= 1;
    assert!(matches!(read(&weights, &manifest), Err(ExpertsError::Checksum { .. })));
}

#[test]
fn refuses_another_layout() {
    let (weights, mut manifest) = files(&fixture::parameters(&config().parameters(), 4));
    manifest.layout_version += 1;
    let error = read(&weights, &manifest).unwrap_err();
    assert!(matches!(error, ExpertsError::Layout { .. }));
    assert!(error.to_string().contains(&LAYOUT_VERSION.to_string()));
}

#[test]
fn refuses_another_data_expert() {
    let (weights, mut manifest) = files(&fixture::parameters(&config().parameters(), 4));
    manifest.data_sha256 = sha256(b"another");
    assert!(matches!(read(&weights, &manifest), Err(ExpertsError::Checksum { .. })));
}

#[test]
fn refuses_a_damaged_manifest() {
    let (weights, _) = files(&fixture::parameters(&config().parameters(), 4));
    assert!(matches!(ExpertStack::from_bytes(&weights, b"{"), Err(ExpertsError::Manifest(_))));
}

#[test]
fn refuses_missing_misshaped_and_superfluous_tensors() {
    let (_, mut manifest) = files(&fixture::parameters(&config().parameters(), 4));
    let rewrite = |change: fn(&mut Shapes)| {
        let mut shapes: Shapes = config().parameters().into_iter().map(|shape| (shape.name, shape.shape)).collect();
        change(&mut shapes);
        let bytes = vec![0u8; 4 * 100_000];
        let views = shapes.iter().map(|(name, shape)| {
            let length = 4 * shape.iter().product::<usize>();
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), &bytes[..length]).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    };
    let changes: [fn(&mut Shapes); 3] = [
        |shapes| drop(shapes.remove(3)),
        |shapes| shapes[0].1.reverse(),
        |shapes| shapes.push(("physical.scan.0.weight".to_owned(), vec![2])),
    ];
    for change in changes {
        let weights = rewrite(change);
        manifest.sha256 = sha256(&weights);
        assert!(matches!(read(&weights, &manifest), Err(ExpertsError::Tensor { .. })));
    }
}

#[test]
fn refuses_weights_that_are_not_finite() {
    for value in [f32::NAN, f32::INFINITY] {
        let mut parameters = fixture::parameters(&config().parameters(), 4);
        parameters[77] = value;
        let (weights, manifest) = files(&parameters);
        assert!(matches!(read(&weights, &manifest), Err(ExpertsError::NotFinite { .. })));
    }
}

/// The committed weights still say what they said when they were trained.
#[test]
fn golden_forward_pass() {
    let stack = ExpertStack::pretrained().unwrap();
    let golden: fixture::Golden = serde_json::from_str(include_str!("../../weights/golden.json")).unwrap();
    assert!(golden.distance(&fixture::golden(&stack).unwrap()) < 1e-3);
}

/// So does the in-context predictor.
#[test]
fn golden_predictions() {
    let (manifest, _) = load_in_context(IN_CONTEXT_WEIGHTS, IN_CONTEXT_MANIFEST).unwrap();
    let found = fixture::golden_predictions(&InContextPredictor::pretrained().unwrap()).unwrap();
    assert_eq!(found.len(), manifest.golden.len());
    assert!(found.iter().zip(&manifest.golden).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?}");
}

#[test]
fn refuses_damaged_weights_of_the_in_context_predictor() {
    let mut weights = IN_CONTEXT_WEIGHTS.to_vec();
    let last = weights.len() - 1;
    weights[last] ^= 1;
    let refused = InContextPredictor::from_bytes(&weights, IN_CONTEXT_MANIFEST);
    assert!(matches!(refused, Err(ExpertsError::Checksum { .. })));
    assert!(InContextPredictor::from_bytes(&weights[..100], IN_CONTEXT_MANIFEST).is_err());
    assert!(matches!(InContextPredictor::from_bytes(&weights, b"{"), Err(ExpertsError::Manifest(_))));
}
