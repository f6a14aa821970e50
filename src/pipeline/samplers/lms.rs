//! The linear multi-step method on the probability-flow ODE. diffusers' `LMSDiscreteScheduler`, k-diffusion's `sample_lms`.

use super::history::History;
use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError, Space};

/// The most derivatives that a step is made of.
const ORDER: usize = 4;

/// `x += integral from sigma to sigma' of D`, with `D` the polynomial through the last four derivatives `(x - x0) / sigma`.
pub struct Lms {
    course: Course,
    sigmas: Sigmas,
    /// The weights of the derivatives in each step, the newest first.
    weights: Vec<[f32; ORDER]>,
    prediction: Prediction,
    derivatives: History<ORDER>,
}

impl Lms {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        run.refuse_eta("lms")?;
        let kind = schedule.kind(run);
        let sigmas = Sigmas::new(schedule, run, Family::Derivative, kind, Last::Zero)?;
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Unscaled),
            weights: (0..sigmas.steps())
                .map(|i| std::array::from_fn(|j| weight(&sigmas.values, i, j)))
                .collect(),
            sigmas,
            prediction: schedule.prediction,
            derivatives: History::new(run.latents),
        })
    }
}

/// The integral over step `i` of the Lagrange polynomial that is 1 at sigma `i - j` and 0 at the other sigmas known. Its
/// degree is 3 at most, for which two points of Gauss and Legendre are exact.
fn weight(sigmas: &[f32], i: usize, j: usize) -> f32 {
    let known = ORDER.min(i + 1);
    if j >= known {
        return 0.0;
    }
    let at = |k: usize| f64::from(sigmas[k]);
    let polynomial = |x: f64| {
        (0..known)
            .filter(|&k| k != j)
            .map(|k| (x - at(i - k)) / (at(i - j) - at(i - k)))
            .product::<f64>()
    };
    let (middle, half) = ((at(i + 1) + at(i)) / 2.0, (at(i + 1) - at(i)) / 2.0);
    let point = half / libm::sqrt(3.0);
    (half * (polynomial(middle - point) + polynomial(middle + point))) as f32
}

impl Sampler for Lms {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let (sigma, _) = self.sigmas.step(index);
        let picture = unscaled(self.prediction, sigma);
        self.derivatives
            .push(latents, prediction, |x, p| (x - picture(x, p)) / sigma);
        let (known, weights) = (self.derivatives.tensors(), &self.weights[index]);
        for (i, x) in latents.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (derivative, weight) in known.iter().zip(weights).take(index + 1) {
                sum += weight * derivative[i];
            }
            *x += sum;
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        self.derivatives.state()
    }
}
