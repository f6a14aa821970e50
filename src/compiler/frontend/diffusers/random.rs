//! Parameters that nobody trained: pseudo-random, the same on every machine, made anew whenever they are read.
//!
//! An element is a hash of its index and of its tensor's name, taken as a number from -1 to 1 and scaled. Scales are
//! such that activations stay about 1 through a whole model: by LeCun's rule (a variance of one over the number of terms), half of that
//! where a branch is added to what it came from.

use super::parameters::{ParameterError, Parameters};
use crate::graph::{Weight, WeightData};
use std::borrow::Cow;

/// Gives every parameter that it is asked for, in the shape that is asked for.
pub struct RandomParameters;

impl Parameters for RandomParameters {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight, ParameterError> {
        Ok(Weight::new(RandomWeight::new(name, shape)))
    }
}

/// What ends a branch that is added to something else.
const ENDS: [&str; 7] = [
    ".conv2.weight",
    ".conv.4.weight",
    ".to_out.0.weight",
    ".out_proj.weight",
    ".ff.net.2.weight",
    ".fc2.weight",
    ".proj_out.weight",
];

/// `offset + scale * u` for each `u` of a sequence between -1 and 1.
struct RandomWeight {
    shape: Vec<usize>,
    key: [u32; 2],
    offset: f32,
    scale: f32,
}

impl RandomWeight {
    fn new(name: &str, shape: &[usize]) -> Self {
        let (offset, scale) = match shape {
            // A norm's scale, or any layer's bias.
            [] | [_] if name.ends_with(".weight") => (1.0, 0.1),
            [] | [_] => (0.0, 0.05),
            _ if name.ends_with("_embedding.weight") => (0.0, 0.5),
            [_, terms @ ..] => {
                let terms: usize = terms.iter().product();
                // A uniform distribution of variance 1 reaches the root of 3.
                let scale = (3.0 / terms as f32).sqrt();
                let ends = ENDS.iter().any(|end| name.ends_with(end));
                (0.0, if ends { 0.5 * scale } else { scale })
            }
        };
        RandomWeight {
            shape: shape.to_vec(),
            key: key(name),
            offset,
            scale,
        }
    }
}

/// FNV-1a, in two halves.
fn key(name: &str) -> [u32; 2] {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    [(hash >> 32) as u32, hash as u32]
}

/// A number from -1 to 1 in steps of 2^-23: exact in `f32`. The mixing is "lowbias32" of Chris Wellons' hash prospector.
fn uniform(index: u32, key: [u32; 2]) -> f32 {
    let mut x = index.wrapping_mul(0x9e37_79b9) ^ key[0];
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d) ^ key[1];
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    (x as i32 >> 8) as f32 * (1.0 / 8_388_608.0)
}

impl WeightData for RandomWeight {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read(&self) -> Cow<'_, [f32]> {
        let RandomWeight {
            key, offset, scale, ..
        } = *self;
        // Longer tensors than a `u32` counts begin anew.
        let len = self.shape.iter().product::<usize>();
        (0..len)
            .map(|i| offset + scale * uniform(i as u32, key))
            .collect::<Vec<f32>>()
            .into()
    }
}
