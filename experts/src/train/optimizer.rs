//! AdamW with gradient clipping and an exponential moving average, over one flat parameter vector.
//!
//! burn's optimizer clips each tensor by its own norm and keys its state by random parameter ids. One flat vector is clipped
//! by its global norm, averaged, checkpointed and resumed in a few lines, and costs under a millisecond a step.

use crate::config::{Module, ParameterShape};
use crate::fixture::Noise;

/// Settings of [`AdamW`].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct AdamWConfig {
    /// Highest learning rate.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Decoupled weight decay of weights; biases have none.
    pub weight_decay: f32,
    /// Largest global norm of a gradient.
    pub clip: f32,
    /// Decay of the moving average of the parameters.
    pub average: f32,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { learning_rate: 2e-3, beta_1: 0.9, beta_2: 0.99, weight_decay: 1e-2, clip: 1.0, average: 0.998 }
    }
}

/// The parameters of a run and the state of their optimizer (Loshchilov & Hutter, ICLR 2019).
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    /// Steps taken.
    pub step: u64,
    /// Parameters.
    pub parameters: Vec<f32>,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// Moving average of the parameters: what is evaluated and exported.
    pub average: Vec<f32>,
    /// Whether a parameter decays.
    decays: Vec<bool>,
}

impl AdamW {
    /// A run that starts at `parameters`.
    pub fn new(shapes: &[ParameterShape], parameters: Vec<f32>) -> Self {
        let zero = vec![0.0; parameters.len()];
        let mut decays = Vec::with_capacity(parameters.len());
        for shape in shapes {
            decays.extend(std::iter::repeat_n(shape.shape.len() > 1, shape.len()));
        }
        Self { step: 0, average: parameters.clone(), parameters, first: zero.clone(), second: zero, decays }
    }

    /// Takes a step down `gradient` at learning rate `rate`; a gradient that is not finite is skipped. Returns its norm.
    pub fn update(&mut self, config: &AdamWConfig, rate: f32, gradient: &[f32]) -> f32 {
        let norm = gradient.iter().map(|value| value * value).sum::<f32>().sqrt();
        self.step += 1;
        if !norm.is_finite() {
            return norm;
        }
        let clip = if norm > config.clip { config.clip / norm } else { 1.0 };
        let time = self.step.min(1 << 20) as i32;
        let (bias_1, bias_2) = (1.0 - config.beta_1.powi(time), 1.0 - config.beta_2.powi(time));
        // The average follows quickly at first, and forgets the random start.
        let average = config.average.min((1 + self.step) as f32 / (10 + self.step) as f32);
        for (index, slope) in gradient.iter().enumerate() {
            let slope = slope * clip;
            let first = config.beta_1 * self.first[index] + (1.0 - config.beta_1) * slope;
            let second = config.beta_2 * self.second[index] + (1.0 - config.beta_2) * slope * slope;
            let decay = if self.decays[index] { config.weight_decay * self.parameters[index] } else { 0.0 };
            let parameter =
                self.parameters[index] - rate * (first / bias_1 / ((second / bias_2).sqrt() + 1e-8) + decay);
            (self.first[index], self.second[index], self.parameters[index]) = (first, second, parameter);
            self.average[index] = average * self.average[index] + (1.0 - average) * parameter;
        }
        norm
    }
}

/// Learning rate of step `step` of `steps`: linear warm-up over the first 4% (at most 500 steps), then a cosine to 1%.
pub fn learning_rate(highest: f32, step: u64, steps: u64) -> f32 {
    let warm_up = (steps / 25).clamp(1, 500);
    if step < warm_up {
        return highest * (step + 1) as f32 / warm_up as f32;
    }
    let progress = (step - warm_up) as f32 / (steps - warm_up).max(1) as f32;
    highest * (0.01 + 0.99 * 0.5 * (1.0 + (std::f32::consts::PI * progress.min(1.0)).cos()))
}

/// Random parameters to start from: He-uniform weights (He et al., ICCV 2015), zero biases, and last layers of the `quiet`
/// modules close to zero, so that untrained heads repeat what they correct.
pub fn initial_parameters(shapes: &[ParameterShape], quiet: &[Module], seed: u64) -> Vec<f32> {
    let mut noise = Noise::new(seed);
    let mut parameters = Vec::new();
    for shape in shapes {
        let is_quiet = || quiet.iter().any(|module| shape.name.starts_with(&format!("{}.", module.name())));
        let scale = match shape.shape[..] {
            [_] => 0.0,
            _ if shape.last && is_quiet() => 1e-3,
            [input, ..] => (3.0 / input as f32).sqrt(),
            [] => 0.0,
        };
        parameters.extend(noise.vector(shape.len()).into_iter().map(|value| value * scale));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ExpertConfig;

    #[test]
    fn finds_the_minimum_of_a_parabola() {
        let config = ExpertConfig::with_width(2);
        let mut run = AdamW::new(&config.parameters(), vec![1.0; config.parameter_count()]);
        let settings = AdamWConfig { weight_decay: 0.0, clip: f32::MAX, ..AdamWConfig::default() };
        for step in 0..1000 {
            let gradient: Vec<f32> = run.parameters.iter().map(|value| 2.0 * (value - 3.0)).collect();
            run.update(&settings, learning_rate(0.1, step, 1000), &gradient);
        }
        assert!(run.parameters.iter().all(|value| (value - 3.0).abs() < 1e-2));
        assert!(run.average.iter().all(|value| (value - 3.0).abs() < 1e-1));
    }

    #[test]
    fn skips_gradients_that_are_not_finite() {
        let config = ExpertConfig::with_width(2);
        let mut run = AdamW::new(&config.parameters(), vec![1.0; config.parameter_count()]);
        let before = run.parameters.clone();
        run.update(&AdamWConfig::default(), 0.1, &vec![f32::NAN; before.len()]);
        assert_eq!(run.parameters, before);
    }

    #[test]
    fn rate_warms_up_and_falls() {
        let rates: Vec<f32> = (0..1000).map(|step| learning_rate(1.0, step, 1000)).collect();
        assert!(rates[..40].is_sorted());
        assert!(rates[40..].is_sorted_by(|left, right| left >= right));
        assert!((rates[40] - 1.0).abs() < 1e-3 && rates[999] < 0.02);
        assert!(learning_rate(1.0, 0, 0).is_finite());
    }
}
