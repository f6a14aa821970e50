//! One step: its operands, found for each lane, and its kernel.

mod jobs;

use kiln_kernels::{ArgumentError, Element, F16, Job, Kernels, Moments, Residual, Source};
use kiln_package::{DType, Op, Operand, Space, Step};

use super::arena::{self, Arena, ClaimError, Claims, Plain, Scratch};
use super::os::lanes::Lanes;
use super::ports::Chunks;
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

/// Where a program's operands are, in which lanes, and how many chunks its context has.
pub(super) struct Place<'w> {
    /// The lanes that the step is run in.
    pub lanes: std::ops::Range<usize>,
    /// Bytes from one lane to the next.
    pub lane_bytes: usize,
    /// Where in a program's arena what all lanes share begins.
    pub border: usize,
    /// Where it begins in the session's: after the last lane.
    pub shared: usize,
    pub chunks: Chunks,
    pub weights: &'w [u8],
    /// Of the step, if it is a norm.
    pub moments: Moments<'w>,
}

/// The operator of a step when the context has so many chunks.
fn operator(step: &Step<'_>, chunks: Chunks) -> Op {
    if step.per_chunk() {
        step.op().at_chunks(chunks.count, chunks.most)
    } else {
        step.op()
    }
}

/// Multiplications with addition of a step when the context has so many chunks.
pub(super) fn macs(step: &Step<'_>, chunks: Chunks) -> u64 {
    operator(step, chunks).macs()
}

/// Runs a step on the lanes of a place.
pub(super) fn run(
    step: &Step<'_>,
    place: &Place<'_>,
    kernels: Kernels,
    arena: &mut Arena,
    pool: &mut Pool,
) -> Result<(), StepError> {
    match named(step, step.op().activation_slot()).dtype {
        _ if step.op().is_of_codes() => dispatch::<F16>(step, place, kernels, arena, pool),
        #[cfg(feature = "f32")]
        DType::F32 => dispatch::<f32>(step, place, kernels, arena, pool),
        DType::F16 => dispatch::<F16>(step, place, kernels, arena, pool),
        other => Err(StepError::Type(other)),
    }
}

/// Whether this program has the kernels for what the step's activations are.
pub(super) fn is_built_in(step: &Step<'_>) -> bool {
    let is_single = named(step, step.op().activation_slot()).dtype == DType::F32;
    cfg!(feature = "f32") || step.op().is_of_codes() || !is_single
}

/// Whether the step is a product of codes.
fn takes_codes(step: &Step<'_>) -> bool {
    step.op().takes_codes() && named(step, "x").dtype == DType::U8
}

/// Whether the step multiplies codes.
pub(super) fn integers(step: &Step<'_>) -> bool {
    takes_codes(step) || matches!(step.op(), Op::Attention(op) if op.integers)
}

/// What stands in the slot of that name.
fn named(step: &Step<'_>, slot: &'static str) -> Operand {
    let index = step
        .op()
        .slots()
        .iter()
        .position(|candidate| candidate.name == slot);
    index.map_or(Operand::EMPTY, |index| step.operand(index))
}

fn dispatch<T: Element + Plain>(
    step: &Step<'_>,
    place: &Place<'_>,
    kernels: Kernels,
    arena: &mut Arena,
    pool: &mut Pool,
) -> Result<(), StepError> {
    let (claims, scratch) = arena.parts();
    let op = operator(step, place.chunks);
    let codes = takes_codes(step);
    let launcher = Launcher {
        step: *step,
        op,
        place,
        claims,
        scratch,
        pool,
    };
    match op {
        Op::Conv2d(op) if codes => launcher.launch(|o| jobs::conv2d_int8::<T>(kernels, op, o)),
        Op::Linear(op) if codes => launcher.launch(|o| jobs::linear_int8::<T>(kernels, op, o)),
        Op::Conv2d(op) => launcher.launch(|o| jobs::conv2d::<T>(kernels, op, o)),
        Op::Linear(op) => launcher.launch(|o| jobs::linear::<T>(kernels, op, o)),
        Op::GroupNorm(op) if op.quantized => {
            launcher.launch(|o| jobs::group_norm_codes::<T>(kernels, op, o))
        }
        Op::GroupNorm(op) => launcher.launch(|o| jobs::group_norm::<T>(kernels, op, o)),
        Op::LayerNorm(op) if op.quantized => {
            launcher.launch(|o| jobs::layer_norm_codes::<T>(kernels, op, o))
        }
        Op::LayerNorm(op) => launcher.launch(|o| jobs::layer_norm::<T>(kernels, op, o)),
        Op::Attention(op) if op.integers => {
            launcher.launch(|o| jobs::attention_int8::<T>(kernels, op, o))
        }
        Op::Attention(op) => launcher.launch(|o| jobs::attention::<T>(kernels, op, o)),
        Op::Unary(op) => launcher.launch(|o| jobs::unary::<T>(kernels, op, o)),
        Op::Affine(op) => launcher.launch(|o| jobs::affine::<T>(kernels, op, o)),
        Op::Binary(op) => launcher.launch(|o| jobs::binary::<T>(kernels, op, o)),
        Op::Concat(op) => launcher.launch(|o| jobs::concat::<T>(kernels, op, o)),
        Op::Upsample(op) => launcher.launch(|o| jobs::upsample::<T>(kernels, op, o)),
        Op::Embed(op) => launcher.launch(|o| jobs::embed::<T>(kernels, op, o)),
        Op::TimestepEmbedding(op) => {
            launcher.launch(|o| jobs::timestep_embedding::<T>(kernels, op, o))
        }
        Op::Softmax(op) => launcher.launch(|o| jobs::softmax::<T>(kernels, op, o)),
        Op::Copy(op) => launcher.launch(|o| jobs::copy::<T>(kernels, op, o)),
        Op::Quantize(op) => launcher.launch(|o| jobs::quantize::<T>(kernels, op, o)),
        Op::GroupNormBlocks(op) => {
            launcher.launch(|o| jobs::group_norm_blocks::<T>(kernels, op, o))
        }
        Op::GroupNormMerge(op) => launcher.launch(|o| jobs::group_norm_merge(kernels, op, o)),
        Op::GroupNormApply(op) if op.quantized => {
            launcher.launch(|o| jobs::group_norm_apply_codes::<T>(kernels, op, o))
        }
        Op::GroupNormApply(op) => launcher.launch(|o| jobs::group_norm_apply::<T>(kernels, op, o)),
        Op::CodesRows(op) => launcher.launch(|o| jobs::codes_rows(kernels, op, o)),
    }
}

/// What a step is run with.
struct Launcher<'s, 'a> {
    step: Step<'s>,
    op: Op,
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
                op: self.op,
                base: lane * self.place.lane_bytes,
                border: self.place.border,
                shared: self.place.shared,
                weights: self.place.weights,
                moments: self.place.moments,
                claims: &mut self.claims,
            })
        };
        let lanes = &self.place.lanes;
        let first = lane(lanes.start)?;
        let second = (lanes.len() > 1)
            .then(|| lane(lanes.start + 1))
            .transpose()?;
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
    /// The step's operator, for as many chunks as there are.
    op: Op,
    base: usize,
    border: usize,
    shared: usize,
    weights: &'a [u8],
    moments: Moments<'a>,
    claims: &'c mut Claims<'a>,
}

impl<'a> Operands<'_, 'a> {
    /// What stands in a slot, or the beginning of it that as many chunks as there are take.
    fn operand(&self, slot: &'static str) -> Operand {
        let operand = named(self.step, slot);
        if !self.step.per_chunk() || operand.space != Space::Arena {
            return operand;
        }
        let activation = named(self.step, self.op.activation_slot()).dtype;
        let required = self
            .op
            .requirement_with(slot, takes_codes(self.step))
            .ok()
            .flatten();
        let bytes = required.and_then(|required| required.bytes(activation));
        Operand {
            bytes: bytes.unwrap_or(operand.bytes).min(operand.bytes),
            ..operand
        }
    }

    /// Where in the session's arena an offset of the program's is.
    fn address(&self, offset: usize) -> usize {
        match offset.checked_sub(self.border) {
            Some(offset) => self.shared + offset,
            None => self.base + offset,
        }
    }

    fn read<T: Plain>(&mut self, slot: &'static str) -> Result<&'a [T], StepError> {
        self.optional(slot)?.ok_or(StepError::Empty(slot))
    }

    fn optional<T: Plain>(&mut self, slot: &'static str) -> Result<Option<&'a [T]>, StepError> {
        let operand = self.operand(slot);
        let (offset, bytes) = (operand.offset as usize, operand.bytes as usize);
        match operand.space {
            Space::Empty => Ok(None),
            Space::Arena => Ok(Some(self.claims.read(self.address(offset), bytes)?)),
            Space::Weights => {
                let bytes = self
                    .weights
                    .get(offset..)
                    .and_then(|rest| rest.get(..bytes));
                Ok(Some(
                    bytes
                        .and_then(arena::cast)
                        .ok_or(StepError::Weights(slot))?,
                ))
            }
        }
    }

    fn write<T: Plain>(&mut self, slot: &'static str) -> Result<&'a mut [T], StepError> {
        let operand = self.operand(slot);
        if operand.space != Space::Arena {
            return Err(StepError::Empty(slot));
        }
        let at = self.address(operand.offset as usize);
        Ok(self.claims.write(at, operand.bytes as usize)?)
    }

    /// The input that may be the output's own buffer.
    fn source<T: Plain>(&mut self, slot: &'static str) -> Result<Source<'a, T>, StepError> {
        match self.operand(slot) == self.operand("out") {
            true => Ok(Source::InPlace),
            false => Ok(Source::Other(self.read(slot)?)),
        }
    }

    /// An attention's `q`; empty if it is the output's own buffer.
    fn queries<T: Plain>(&mut self) -> Result<&'a [T], StepError> {
        match self.operand("q") == self.operand("out") {
            true => Ok(&[]),
            false => self.read("q"),
        }
    }

    /// The residual, which may be the output's own buffer.
    fn residual<T: Plain>(&mut self) -> Result<Residual<'a, T>, StepError> {
        if self.operand("residual") == self.operand("out") {
            return Ok(Residual::InPlace);
        }
        Ok(self
            .optional("residual")?
            .map_or(Residual::None, Residual::Other))
    }
}
