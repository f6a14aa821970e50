//! The sigmas of a run: the ratios of noise to signal that it passes through on its way down.

use super::beta;
use super::{Run, Schedule, ScheduleError, ScheduleKind, Spacing};

/// Sigmas, falling, with one more at the end, and the timestep of each but the last.
pub(super) struct Sigmas {
    pub(super) timesteps: Vec<f64>,
    pub(super) values: Vec<f32>,
    /// The step that the first belongs to.
    pub(super) start: usize,
    /// The standard deviation of unscaled latents before step 0.
    pub(super) initial: f32,
    pub(super) kind: ScheduleKind,
}

/// What the sigmas of a run are taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// diffusers' Euler, Heun, LMS and KDPM2: of `steps` timesteps, not rounded; karras and the like keep their ends.
    Derivative,
    /// diffusers' DPM-Solver, UniPC and DEIS: of `steps + 1` whole timesteps but the last; karras and the like go from the
    /// training's largest sigma to its smallest.
    Exponential,
}

/// The sigma after the last step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Zero,
    /// The training's smallest.
    Smallest,
    /// The run's smallest once more; the training's under [`ScheduleKind::Normal`].
    Own,
}

/// NVIDIA's sigmas for Stable Diffusion 1 (Sabour et al., "Align Your Steps"), as diffusers has them, and the last before 0.
const ALIGN_YOUR_STEPS: [f64; 11] = [
    14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029,
];

/// Karras et al., equation 5.
const RHO: f64 = 7.0;

impl Sigmas {
    pub(super) fn new(
        schedule: &Schedule,
        run: &Run,
        family: Family,
        kind: ScheduleKind,
        last: Last,
    ) -> Result<Self, ScheduleError> {
        let steps = run.steps;
        let spacing = schedule.spacing(run).unwrap_or(Spacing::Linspace);
        let spaced: Vec<f64> = match family {
            Family::Derivative => schedule.timesteps(spacing, steps)?,
            Family::Exponential => schedule.inner_timesteps(spacing, steps)?,
        }
        .into_iter()
        .map(|t| f64::from(t as f32))
        .collect();
        let training = Training::new(schedule);
        let count = training.sigmas.len();
        let (largest, smallest) = match family {
            Family::Derivative => (
                training.sigma(spaced[0]),
                training.sigma(spaced[spaced.len() - 1]),
            ),
            Family::Exponential => (
                f64::from(training.sigmas[count - 1]),
                f64::from(training.sigmas[0]),
            ),
        };
        let sigmas: Vec<f64> = match kind {
            ScheduleKind::Normal => spaced.iter().map(|&t| training.sigma(t)).collect(),
            ScheduleKind::Karras => {
                let root = |sigma| libm::pow(sigma, 1.0 / RHO);
                let (high, low) = (root(largest), root(smallest));
                let sigma = |ramp| libm::pow(high + ramp * (low - high), RHO);
                linspace(0.0, 1.0, steps).map(sigma).collect()
            }
            ScheduleKind::Exponential => linspace(libm::log(largest), libm::log(smallest), steps)
                .map(libm::exp)
                .collect(),
            ScheduleKind::Beta => linspace(0.0, 1.0, steps)
                .map(|ramp| smallest + beta::quantile(1.0 - ramp, 0.6) * (largest - smallest))
                .collect(),
            ScheduleKind::SgmUniform => linspace((count - 1) as f64, 0.0, steps + 1)
                .take(steps)
                .map(|t| training.sigma_between(t))
                .collect(),
            ScheduleKind::Simple => {
                let stride = count as f64 / steps as f64;
                let at = |i: usize| count - 1 - (i as f64 * stride) as usize;
                (0..steps)
                    .map(|i| f64::from(training.sigmas[at(i)]))
                    .collect()
            }
            ScheduleKind::AlignYourSteps => linspace(0.0, 10.0, steps + 1)
                .take(steps)
                .map(|at| {
                    let low = (at as usize).min(9);
                    let (from, to) = (ALIGN_YOUR_STEPS[low], ALIGN_YOUR_STEPS[low + 1]);
                    let share = at - low as f64;
                    libm::exp((1.0 - share) * libm::log(from) + share * libm::log(to))
                })
                .collect(),
        };
        let mut timesteps = match kind {
            ScheduleKind::Normal => spaced,
            _ => sigmas.iter().map(|&s| training.timestep(s)).collect(),
        };
        if family == Family::Exponential {
            for t in &mut timesteps {
                *t = match kind {
                    // As diffusers has it.
                    ScheduleKind::Exponential | ScheduleKind::Beta => libm::trunc(*t),
                    _ => libm::rint(*t),
                };
            }
        }
        let mut values: Vec<f32> = sigmas.iter().map(|&sigma| sigma as f32).collect();
        let largest = values.iter().copied().fold(0.0, f32::max);
        values.push(match last {
            Last::Zero => 0.0,
            Last::Own if kind != ScheduleKind::Normal => values[steps - 1],
            Last::Own | Last::Smallest => training.sigmas[0],
        });
        Ok(Self {
            timesteps: timesteps[run.start..].to_vec(),
            values: values[run.start..].to_vec(),
            start: run.start,
            initial: match spacing {
                Spacing::Leading => libm::sqrtf(largest * largest + 1.0),
                Spacing::Trailing | Spacing::Linspace => largest,
            },
            kind,
        })
    }

    /// The sigma of step `index`, counted from the first there is, and that of the next.
    pub(super) fn step(&self, index: usize) -> (f32, f32) {
        (self.values[index], self.values[index + 1])
    }

    /// How many steps there are.
    pub(super) fn steps(&self) -> usize {
        self.timesteps.len()
    }
}

/// numpy's `linspace`.
fn linspace(from: f64, to: f64, count: usize) -> impl Iterator<Item = f64> {
    let step = (to - from) / count.saturating_sub(1).max(1) as f64;
    (0..count).map(move |i| match i + 1 == count && count > 1 {
        true => to,
        false => i as f64 * step + from,
    })
}

/// The sigmas of the training's timesteps and their logarithms, rising.
pub(super) struct Training {
    sigmas: Vec<f32>,
    logs: Vec<f32>,
}

impl Training {
    pub(super) fn new(schedule: &Schedule) -> Self {
        let sigmas = schedule.training_sigmas();
        Self {
            logs: sigmas.iter().map(|&sigma| libm::logf(sigma)).collect(),
            sigmas,
        }
    }

    /// The sigma of a timestep, linear between the training's.
    fn sigma(&self, timestep: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        if timestep >= last as f64 {
            return f64::from(self.sigmas[last]);
        }
        let low = timestep as usize;
        let (from, to) = (
            f64::from(self.sigmas[low]),
            f64::from(self.sigmas[low + 1]),
        );
        (to - from) * (timestep - low as f64) + from
    }

    /// The sigma of a timestep, its logarithm linear between the training's: k-diffusion's `t_to_sigma`.
    fn sigma_between(&self, timestep: f64) -> f64 {
        let last = self.logs.len() - 1;
        let low = (timestep as usize).min(last);
        let share = timestep - low as f64;
        let (from, to) = (
            f64::from(self.logs[low]),
            f64::from(self.logs[(low + 1).min(last)]),
        );
        libm::exp((1.0 - share) * from + share * to)
    }

    /// The timestep of a sigma, linear in its logarithm: diffusers' `_sigma_to_t`.
    pub(super) fn timestep(&self, sigma: f64) -> f64 {
        if self.logs.len() < 2 {
            return 0.0;
        }
        let log = libm::log(sigma.max(1e-10));
        let above = self.logs.partition_point(|&l| f64::from(l) <= log);
        let low = above.saturating_sub(1).min(self.logs.len() - 2);
        let (from, to) = (f64::from(self.logs[low]), f64::from(self.logs[low + 1]));
        let share = ((from - log) / (from - to)).clamp(0.0, 1.0);
        (1.0 - share) * low as f64 + share * (low + 1) as f64
    }
}
