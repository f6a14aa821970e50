//! UniPC (Zhao et al., "UniPC: A Unified Predictor-Corrector Framework", algorithms 5 to 8, predicting the picture). diffusers'
//! `UniPCMultistepScheduler`.

use super::levels::{Level, levels};
use super::predict::Scaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError, Space};

/// The most predictions that a step is made of.
const ORDER: usize = 3;

/// With `h` the step in lambda, `m` the pictures predicted, and `B = exp(-h) - 1` (`bh2`) or `-h` (`bh1`):
/// ```text
/// x = noise' / noise x - signal' (exp(-h) - 1) m0 - signal' B (sum of p_k (m_k - m0) / r_k)
/// ```
/// Once the picture at the end of the step is known, the step is taken again from its begin with it in the sum; so every
/// evaluation but the first corrects the step before.
pub struct Unipc {
    course: Course,
    steps: Vec<Coefficients>,
    /// The latents at the begin of the step before, then the pictures, the newest first: one more than a step is made of,
    /// for the corrector also has that at its end.
    state: [Vec<f32>; ORDER + 2],
}

struct Coefficients {
    predict: Scaled,
    corrector: Option<Update>,
    predictor: Update,
}

/// A step from the pictures that are known at its begin and, in a corrector, at its end.
struct Update {
    latents: f32,
    /// `signal' (exp(-h) - 1)`.
    picture: f32,
    /// `signal' B`.
    differences: f32,
    /// `r_k` and `p_k` of the pictures before the newest.
    before: [(f32, f32); ORDER - 1],
    order: usize,
    /// The weight of the picture at the end.
    end: Option<f32>,
}

impl Unipc {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("unipc")?;
        run.refuse_eta("unipc")?;
        if !schedule.predict_x0 {
            return Err(ScheduleError::Unsupported {
                key: "predict_x0",
                sampler: "unipc",
            });
        }
        let last = match schedule.final_sigma_min {
            true => Last::Own,
            false => Last::Zero,
        };
        let kind = schedule.kind(run);
        let sigmas = Sigmas::new(schedule, run, Family::Exponential, kind, last)?;
        let levels = levels(&sigmas);
        let count = sigmas.steps();
        let order = |i: usize| schedule.solver_order.min(count - i).min(i + 1);
        let update = |i: usize, corrects: bool| {
            Update::new(&levels[..=i + 1], order(i), schedule.bh1, corrects)
        };
        let coefficients = |i: usize| Coefficients {
            predict: levels[i].predict(schedule.prediction),
            corrector: i.checked_sub(1).map(|before| update(before, true)),
            predictor: update(i, false),
        };
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Scaled),
            steps: (0..count).map(coefficients).collect(),
            state: std::array::from_fn(|_| vec![0.0; run.latents]),
        })
    }
}

impl Update {
    /// The step to the last of some levels, of which `order` before it are made use of.
    fn new(levels: &[Level], order: usize, bh1: bool, corrects: bool) -> Self {
        let last = levels.len() - 1;
        let (from, to) = (levels[last - 1], levels[last]);
        let h = to.lambda - from.lambda;
        let phi1 = libm::expm1f(-h);
        let b = if bh1 { -h } else { phi1 };
        let mut rates = [1.0; ORDER];
        for k in 1..order {
            rates[k - 1] = (levels[last - 1 - k].lambda - from.lambda) / h;
        }
        // The picture at the end has the rate 1, and is the last unknown.
        rates[order - 1] = 1.0;
        let unknown = if corrects { order } else { order - 1 };
        let weights = match (unknown, order, corrects) {
            (1, ..) => [0.5, 0.0, 0.0],
            _ => solve(&rates[..unknown], &moments(h, b)),
        };
        let mut before = [(0.0, 0.0); ORDER - 1];
        for k in 1..order {
            before[k - 1] = (rates[k - 1], weights[k - 1]);
        }
        Self {
            latents: to.noise / from.noise,
            picture: to.signal * phi1,
            differences: to.signal * b,
            before,
            order,
            end: corrects.then(|| weights[order - 1]),
        }
    }

    /// The latents after the step from `x`, with the pictures known at its begin, the newest first, and the one at its end.
    fn step(&self, x: f32, known: [f32; ORDER], end: f32) -> f32 {
        let newest = known[0];
        let mut x = self.latents * x - self.picture * newest;
        if self.order > 1 || self.end.is_some() {
            let mut sum = 0.0;
            for (m, (rate, weight)) in known[1..self.order].iter().zip(self.before) {
                sum += weight * ((m - newest) / rate);
            }
            if let Some(weight) = self.end {
                sum += weight * (end - newest);
            }
            x -= self.differences * sum;
        }
        x
    }
}

/// What the weighted powers of the rates must sum to: `phi_(k+1)(-h) k! / B`.
fn moments(h: f32, b: f32) -> [f32; ORDER] {
    let mut phi = libm::expm1f(-h) / -h - 1.0;
    let mut factorial = 1.0;
    std::array::from_fn(|k| {
        let moment = phi * factorial / b;
        factorial *= (k + 2) as f32;
        phi = phi / -h - 1.0 / factorial;
        moment
    })
}

/// The weights for which the sum of `weight * rate^k` is `moments[k]`, by elimination with the largest pivot.
fn solve(rates: &[f32], moments: &[f32; ORDER]) -> [f32; ORDER] {
    let count = rates.len();
    let mut rows = [[0.0f64; ORDER + 1]; ORDER];
    let mut power = [1.0f32; ORDER];
    for (row, &moment) in rows.iter_mut().zip(moments).take(count) {
        for ((cell, power), &rate) in row.iter_mut().zip(&mut power).zip(rates) {
            *cell = f64::from(*power);
            *power *= rate;
        }
        row[ORDER] = f64::from(moment);
    }
    for column in 0..count {
        let pivot = (column..count)
            .max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))
            .unwrap_or(column);
        rows.swap(column, pivot);
        let head = rows[column];
        for (i, row) in rows.iter_mut().enumerate().take(count) {
            if i != column {
                let share = row[column] / head[column];
                row.iter_mut().zip(head).for_each(|(x, h)| *x -= share * h);
            }
        }
    }
    let mut weights = [0.0; ORDER];
    for (i, weight) in weights.iter_mut().enumerate().take(count) {
        *weight = (rows[i][ORDER] / rows[i][i]) as f32;
    }
    weights
}

impl Sampler for Unipc {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let step = &self.steps[index];
        self.state[1..].rotate_right(1);
        let [begin, m, m1, m2, m3] = &mut self.state;
        for ((m, x), &p) in m.iter_mut().zip(&*latents).zip(prediction) {
            *m = step.predict.picture(*x, p);
        }
        for (i, (x, begin)) in latents.iter_mut().zip(begin).enumerate() {
            if let Some(corrector) = &step.corrector {
                *x = corrector.step(*begin, [m1[i], m2[i], m3[i]], m[i]);
            }
            *begin = *x;
            *x = step.predictor.step(*x, [m[i], m1[i], m2[i]], 0.0);
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}
