//! Samplers: from noise to latents in a few evaluations of the UNet.
//!
//! Each has the arithmetic of diffusers, or of k-diffusion where diffusers has no such sampler, in `f32` and in its order, so
//! that the same noise and the same predictions give the same latents. README.md in this folder has their names elsewhere and
//! what differs. A run is
//!
//! ```text
//! latents = noise * sampler.initial_sigma()
//! for (i, evaluation) in sampler.evaluations():
//!     input = sampler.scale_input(i, latents)
//!     prediction = unet(input, evaluation.timestep)
//!     sampler.step(i, prediction, latents, noise)
//! ```
//!
//! Most samplers evaluate the UNet once in a step, some twice: then the latents are on their way between the two.
//!
//! The tree:
//!
//! - `kind`, `names`: which there are; `run`: what they are prepared for; `course`: the evaluations that come of it.
//! - `schedule`: the noise schedule of a model; `sigmas` and `levels`: what a run makes of it; `beta`: one distribution for it.
//! - `predict`, `history`: what several samplers compute and remember.
//! - everything else: a sampler each.

mod beta;
mod course;
mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpm2_ancestral;
mod dpmpp_2m;
mod dpmpp_2m_sde;
mod dpmpp_2s_ancestral;
mod dpmpp_3m_sde;
mod dpmpp_sde;
mod euler;
mod euler_ancestral;
mod heun;
mod history;
mod ipndm;
mod kind;
mod lcm;
mod levels;
mod lms;
mod names;
mod pndm;
mod predict;
mod run;
mod schedule;
mod sigmas;
mod tcd;
mod unipc;

pub use course::{Course, Evaluation, Space};
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use deis::Deis;
pub use dpm2::Dpm2;
pub use dpm2_ancestral::Dpm2Ancestral;
pub use dpmpp_2m::Dpmpp2m;
pub use dpmpp_2m_sde::Dpmpp2mSde;
pub use dpmpp_2s_ancestral::Dpmpp2sAncestral;
pub use dpmpp_3m_sde::Dpmpp3mSde;
pub use dpmpp_sde::DpmppSde;
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use heun::Heun;
pub use ipndm::Ipndm;
pub use kind::{SamplerKind, ScheduleKind};
pub use lcm::Lcm;
pub use lms::Lms;
pub use names::{UnknownSampler, UnknownSchedule};
pub use pndm::Pndm;
pub use run::Run;
pub use schedule::{Prediction, Schedule, ScheduleError, Spacing};
pub use tcd::Tcd;
pub use unipc::Unipc;

use super::noise::Noise;

/// A sampler with its coefficients for a run. None of its methods allocates.
pub trait Sampler {
    /// The evaluations of the run.
    fn course(&self) -> &Course;

    /// Goes on from evaluation `index` in place: `prediction` is the UNet's output, of the length of `latents`. Evaluations
    /// are taken in order, from the first or from where [`Sampler::state`] was saved. A sampler that adds noise draws it
    /// from `noise`, `latents.len()` numbers at a time.
    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise);

    /// What the sampler remembers from one evaluation to the next: buffers of as many elements as the latents. With the
    /// latents, the noise and the index of the next evaluation they are all that a run depends on; whoever writes them
    /// into a sampler that was prepared in the same way goes on as if there had been no break.
    fn state(&mut self) -> &mut [Vec<f32>] {
        &mut []
    }

    /// The evaluations of the UNet, in order.
    fn evaluations(&self) -> &[Evaluation] {
        &self.course().evaluations
    }

    /// Whether a step is done with evaluation `index`.
    fn completes_step(&self, index: usize) -> bool {
        let evaluations = self.evaluations();
        evaluations
            .get(index + 1)
            .is_none_or(|next| next.step != evaluations[index].step)
    }

    /// The standard deviation of the latents before the first evaluation of a run that begins with nothing but noise.
    fn initial_sigma(&self) -> f32 {
        self.course().initial_sigma
    }

    /// Adds `noise`, of deviation 1, to a picture's latents, so that a run can begin with its first evaluation.
    fn add_noise(&self, latents: &mut [f32], noise: &[f32]) {
        let (signal, deviation) = self.mixture(0);
        for (x, n) in latents.iter_mut().zip(noise) {
            *x = signal * *x + deviation * n;
        }
    }

    /// How much of a picture and how much noise of deviation 1 there are in the latents before evaluation `index`; after the
    /// last there is the picture alone.
    fn mixture(&self, index: usize) -> (f32, f32) {
        let course = self.course();
        let Some(evaluation) = course.evaluations.get(index) else {
            return (1.0, 0.0);
        };
        let sigma = evaluation.sigma;
        match course.space {
            // Under zero terminal SNR nothing is left of the picture.
            Space::Scaled if sigma.is_infinite() => (0.0, 1.0),
            Space::Scaled => {
                let signal = 1.0 / libm::sqrtf(sigma * sigma + 1.0);
                (signal, sigma * signal)
            }
            Space::Unscaled => (1.0, sigma),
        }
    }

    /// Writes the UNet's input for evaluation `index` into `input`, which has the length of `latents`.
    fn scale_input(&self, index: usize, latents: &[f32], input: &mut [f32]) {
        let course = self.course();
        match course.space {
            Space::Scaled => input.copy_from_slice(latents),
            // To the variance that the UNet was trained with.
            Space::Unscaled => {
                let sigma = course.evaluations[index].sigma;
                let deviation = libm::sqrtf(sigma * sigma + 1.0);
                for (out, x) in input.iter_mut().zip(latents) {
                    *out = x / deviation;
                }
            }
        }
    }
}
