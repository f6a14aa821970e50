//! One step: its operands, found for each lane, and its kernel.

mod jobs;

use kiln_kernels::{ArgumentError, Element, F16, Job, Kernels, Residual, Source};
use kiln_package::{DType, Op, Operand, Space, Step};

use super::arena::{self, Arena, ClaimError, Claims, Plain, Scratch};
use super::os::lanes::Lanes;
use super::threads::Pool;

/// Why a step cannot be run, though the package was found valid.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("operand `{0}` is empty")]
    Empty(&'static str),
    #[error("operand `{0}` lies outside the weights or is not aligned")]
    Weights(&'static str),
    #[error("`{0}` is not an activation type")]
    Type(DType),
    #[error("{needed} bytes of scratch needed, {planned} planned")]
    Scratch { needed: usize, planned: usize },
    #[error("the lanes differ in shape")]
    Lanes,
}

/// Where a program's operands are.
pub(super) struct Place<'w> {
    pub lanes: usize,
    pub lane_bytes: usize,
    pub weights: &'w [u8],
}

/// Runs a step on all lanes.
pub(super) fn run(
    step: &Step<'_>,
    place: &Place<'_>,
    kernels: Kernels,
    arena: &mut Arena,
    pool: &mut Pool,
) -> Result<(), StepError> {
    let out = step.op().slots().iter().position(|slot| slot.name == "out").unwrap_or_default();
    match step.operand(out).dtype {
        DType::F32 => dispatch::<f32>(step, place, kernels, arena, pool),
        DType::F16 => dispatch::<F16>(step, place, kernels, arena, pool),
        other => Err(StepError::Type(other)),
    }
}

fn dispatch<T: Element + Plain>(
    step: &Step<'_>,
    place: &Place<'_>,
    kernels: Kernels,
    arena: &mut Arena,
    pool: &mut Pool,
) -> Result<(), StepError> {
    let (claims, scratch) = arena.parts();
    let launcher = Launcher { step: *step, place, claims, scratch, pool };
    match step.op() {
        Op::Conv2d(op) => launcher.launch(|o| jobs::conv2d::<T>(kernels, op, o)),
        Op::Linear(op) => launcher.launch(|o| jobs::linear::<T>(kernels, op, o)),
        Op::GroupNorm(op) => launcher.launch(|o| jobs::group_norm::<T>(kernels, op, o)),
        Op::LayerNorm(op) => launcher.launch(|o| jobs::layer_norm::<T>(kernels, op, o)),
        Op::Attention(op) => launcher.launch(|o| jobs::attention::<T>(kernels, op, o)),
        Op::Unary(op) => launcher.launch(|o| jobs::unary::<T>(kernels, op, o)),
        Op::Affine(op) => launcher.launch(|o| jobs::affine::<T>(kernels, op, o)),
        Op::Binary(op) => launcher.launch(|o| jobs::binary::<T>(kernels, op, o)),
        Op::Concat(op) => launcher.launch(|o| jobs::concat::<T>(kernels, op, o)),
        Op::Upsample(op) => launcher.launch(|o| jobs::upsample::<T>(kernels, op, o)),
        Op::Embed(op) => launcher.launch(|o| jobs::embed::<T>(kernels, op, o)),
        Op::TimestepEmbedding(op) => launcher.launch(|o| jobs::timestep_embedding::<T>(kernels, op, o)),
        Op::Softmax(op) => launcher.launch(|o| jobs::softmax::<T>(kernels, op, o)),
        Op::Copy(op) => launcher.launch(|o| jobs::copy::<T>(kernels, op, o)),
    }
}

/// What a step is run with.
struct Launcher<'s, 'a> {
    step: Step<'s>,
    place: &'s Place<'a>,
    claims: Claims<'a>,
    scratch: Scratch<'a>,
    pool: &'s mut Pool,
}

impl<'a> Launcher<'_, 'a> {
    /// Builds the step's job for each lane and runs them together.
    fn launch<J: Job>(
        mut self,
        build: impl Fn(&mut Operands<'_, 'a>) -> Result<J, StepError>,
    ) -> Result<(), StepError> {
        let mut lane = |lane: usize| {
            build(&mut Operands {
                step: &self.step,
                base: lane * self.place.lane_bytes,
                weights: self.place.weights,
                claims: &mut self.claims,
            })
        };
        let first = lane(0)?;
        let second = (self.place.lanes > 1).then(|| lane(1)).transpose()?;
        let mut job = Lanes::new(first, second).ok_or(StepError::Lanes)?;
        let (needed, planned) = (job.scratch_bytes(), self.scratch.bytes());
        if needed > planned {
            return Err(StepError::Scratch { needed, planned });
        }
        self.pool.run(&mut job, &self.scratch);
        Ok(())
    }
}

/// The operands of a step in one lane, by the names of their slots.
struct Operands<'c, 'a> {
    step: &'c Step<'c>,
    base: usize,
    weights: &'a [u8],
    claims: &'c mut Claims<'a>,
}

impl<'a> Operands<'_, 'a> {
    fn operand(&self, slot: &'static str) -> Operand {
        let index = self.step.op().slots().iter().position(|candidate| candidate.name == slot);
        index.map_or(Operand::EMPTY, |index| self.step.operand(index))
    }

    fn read<T: Plain>(&mut self, slot: &'static str) -> Result<&'a [T], StepError> {
        self.optional(slot)?.ok_or(StepError::Empty(slot))
    }

    fn optional<T: Plain>(&mut self, slot: &'static str) -> Result<Option<&'a [T]>, StepError> {
        let operand = self.operand(slot);
        let (offset, bytes) = (operand.offset as usize, operand.bytes as usize);
        match operand.space {
            Space::Empty => Ok(None),
            Space::Arena => Ok(Some(self.claims.read(self.base + offset, bytes)?)),
            Space::Weights => {
                let bytes = self.weights.get(offset..).and_then(|rest| rest.get(..bytes));
                Ok(Some(bytes.and_then(arena::cast).ok_or(StepError::Weights(slot))?))
            }
        }
    }

    fn write<T: Plain>(&mut self, slot: &'static str) -> Result<&'a mut [T], StepError> {
        let operand = self.operand(slot);
        if operand.space != Space::Arena {
            return Err(StepError::Empty(slot));
        }
        Ok(self.claims.write(self.base + operand.offset as usize, operand.bytes as usize)?)
    }

    /// The input that may be the output's own buffer.
    fn source<T: Plain>(&mut self, slot: &'static str) -> Result<Source<'a, T>, StepError> {
        match self.operand(slot) == self.operand("out") {
            true => Ok(Source::InPlace),
            false => Ok(Source::Other(self.read(slot)?)),
        }
    }

    /// The residual, which may be the output's own buffer.
    fn residual<T: Plain>(&mut self) -> Result<Residual<'a, T>, StepError> {
        if self.operand("residual") == self.operand("out") {
            return Ok(Residual::InPlace);
        }
        Ok(self.optional("residual")?.map_or(Residual::None, Residual::Other))
    }
}
