//! The tensors of a part as a builder takes them, and what is left when it is done.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::error::SourceError;
use super::ldm::Named;
use crate::frontend::diffusers::parameters::{ParameterError, Parameters};
use crate::graph::{Weight, WeightData};

/// A builder that misses more than that is building another model.
const MOST_MISSING: usize = 2000;

/// Gives tensors by name. A missing one is noted and stood in for, so that all that miss can be told at once: who has
/// built calls [`NamedParameters::finish`] before anything is read.
pub(super) struct NamedParameters<'a> {
    tensors: &'a Named,
    taken: BTreeSet<String>,
    missing: Vec<String>,
}

impl<'a> NamedParameters<'a> {
    pub fn new(tensors: &'a Named) -> Self {
        NamedParameters {
            tensors,
            taken: BTreeSet::new(),
            missing: Vec::new(),
        }
    }

    /// Fails if any tensor was missing, or was not taken and is not known to be harmless.
    pub fn finish(self, place: &str, part: &'static str) -> Result<(), SourceError> {
        let surplus: Vec<String> = self
            .tensors
            .keys()
            .filter(|name| !self.taken.contains(*name) && !harmless(name))
            .cloned()
            .collect();
        if self.missing.is_empty() && surplus.is_empty() {
            return Ok(());
        }
        Err(SourceError::Names {
            place: place.to_owned(),
            part,
            missing: self.missing,
            surplus,
        })
    }
}

impl Parameters for NamedParameters<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight, ParameterError> {
        let Some(weight) = self.tensors.get(name) else {
            if self.missing.len() >= MOST_MISSING {
                return Err(ParameterError::Missing(name.to_owned()));
            }
            self.missing.push(name.to_owned());
            return Ok(absent(shape));
        };
        self.taken.insert(name.to_owned());
        if weight.shape() == shape {
            return Ok(weight.clone());
        }
        if pointwise(weight.shape()) == pointwise(shape) && pointwise(shape).is_some() {
            return Ok(Weight::new(Reshaped {
                weight: weight.clone(),
                shape: shape.to_vec(),
            }));
        }
        Err(ParameterError::Shape {
            name: name.to_owned(),
            expected: shape.to_vec(),
            found: weight.shape().to_vec(),
        })
    }
}

/// Outputs and inputs of a Linear or of a 1x1 convolution.
fn pointwise(shape: &[usize]) -> Option<[usize; 2]> {
    match *shape {
        [outputs, inputs] | [outputs, inputs, 1, 1] => Some([outputs, inputs]),
        _ => None,
    }
}

/// Tensors that lie in files of models and that no evaluation needs.
pub(super) fn harmless(name: &str) -> bool {
    if name.starts_with("model_ema.") {
        return true;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let known = [
        "position_ids",
        "num_batches_tracked",
        "logit_scale",
        "text_projection",
        "attn_mask",
    ];
    known.contains(&last) || name.ends_with("text_projection.weight")
}

/// Stands in for a tensor of that shape that is missing.
pub(super) fn absent(shape: &[usize]) -> Weight {
    Weight::new(Absent(shape.to_vec()))
}

/// Stands in for a tensor that is missing. It is never read.
struct Absent(Vec<usize>);

impl WeightData for Absent {
    fn shape(&self) -> &[usize] {
        &self.0
    }
    fn read(&self) -> Cow<'_, [f32]> {
        vec![0.0; self.0.iter().product()].into()
    }
}

struct Reshaped {
    weight: Weight,
    shape: Vec<usize>,
}

impl WeightData for Reshaped {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn read(&self) -> Cow<'_, [f32]> {
        self.weight.read()
    }
}
