//! A weight of the model with a LoRA's change: computed whenever it is read.

use std::borrow::Cow;

use super::delta::Delta;
use crate::graph::{Weight, WeightData};

/// `base + scale * delta`, in the shape of the base.
pub(super) struct Merged {
    pub base: Weight,
    pub delta: Delta,
    pub scale: f32,
}

impl WeightData for Merged {
    fn shape(&self) -> &[usize] {
        self.base.shape()
    }

    fn read(&self) -> Cow<'_, [f32]> {
        let mut elements = self.base.read().into_owned();
        self.delta.add_to(self.scale, &mut elements);
        elements.into()
    }
}
