//! Trajectory consistency distillation (Zheng et al., "Trajectory Consistency Distillation", algorithm 4). diffusers'
//! `TCDScheduler`.

use super::lcm::distilled_timesteps;
use super::predict::Scaled;
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError};

/// ```text
/// s = floor((1 - eta) t')
/// x = sqrt(a_s) picture + sqrt(1 - a_s) epsilon
/// x = sqrt(a' / a_s) x + sqrt(1 - a' / a_s) noise          but not after the last step
/// ```
/// with `t'` the next timestep, 0 after the last, and `a'` its cumulative alpha. `eta` (the paper's gamma) is 0.3 unless said
/// otherwise. The timesteps are [`Lcm`](super::Lcm)'s.
pub struct Tcd {
    course: Course,
    steps: Vec<Coefficients>,
    fresh: Vec<f32>,
}

struct Coefficients {
    predict: Scaled,
    signal: f32,
    noise: f32,
    /// What is kept and how much noise is added.
    again: Option<(f32, f32)>,
}

impl Tcd {
    /// Prepares a run.
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("tcd")?;
        let eta = run.eta_or(0.3)?;
        let timesteps = distilled_timesteps(schedule, run)?;
        let alphas = schedule.alphas_cumprod();
        let coefficients = |(i, &t): (usize, &usize)| {
            let next = timesteps.get(i + 1).copied();
            let low = (1.0 - eta) * next.unwrap_or(0) as f32;
            let low = alphas[low as usize];
            Coefficients {
                predict: Scaled::new(schedule.prediction, alphas[t]),
                signal: libm::sqrtf(low),
                noise: libm::sqrtf(1.0 - low),
                again: next.filter(|_| eta > 0.0).map(|next| {
                    let kept = alphas[next] / low;
                    (libm::sqrtf(kept), libm::sqrtf(1.0 - kept))
                }),
            }
        };
        Ok(Self {
            steps: timesteps.iter().enumerate().map(coefficients).collect(),
            course: Course::of_timesteps(schedule, &timesteps, run.start),
            fresh: vec![0.0; run.latents],
        })
    }
}

impl Sampler for Tcd {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let step = &self.steps[index];
        for (x, &p) in latents.iter_mut().zip(prediction) {
            let predict = &step.predict;
            *x = step.signal * predict.picture(*x, p) + step.noise * predict.epsilon(*x, p);
        }
        if let Some((kept, deviation)) = step.again {
            noise.fill(&mut self.fresh);
            for (x, n) in latents.iter_mut().zip(&self.fresh) {
                *x = kept * *x + deviation * n;
            }
        }
    }
}
