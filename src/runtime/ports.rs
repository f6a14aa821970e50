//! Tensors as callers see them, into the arena and out of it.

use kiln_kernels::Element;
use kiln_package::{Layout, Op, Port, Program, Space};

use super::RuntimeError;
use super::error::Shape;

/// The elements of a tensor, row-major; a picture-shaped one is `[1, channels, height, width]`.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Real numbers, rounded to what the program stores.
    F32(&'a [f32]),
    /// Token ids.
    I32(&'a [i32]),
    /// Token ids.
    I64(&'a [i64]),
}

impl Data<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(data) => data.len(),
            Data::I32(data) => data.len(),
            Data::I64(data) => data.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Data::F32(_) => "f32",
            Data::I32(_) => "i32",
            Data::I64(_) => "i64",
        }
    }
}

/// Which ports of a program are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Input,
    Output,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Direction::Input => "input",
            Direction::Output => "output",
        }
    }
}

fn ports<'a>(program: &Program<'a>, direction: Direction) -> impl Iterator<Item = Port<'a>> {
    match direction {
        Direction::Input => program.inputs(),
        Direction::Output => program.outputs(),
    }
}

/// The port of that name and its index.
pub(super) fn find<'a>(
    program: &Program<'a>,
    direction: Direction,
    name: &str,
) -> Result<(usize, Port<'a>), RuntimeError> {
    let found = ports(program, direction).enumerate().find(|(_, port)| port.name == name);
    found.ok_or_else(|| unknown(program, direction, name))
}

pub(super) fn unknown(program: &Program<'_>, direction: Direction, name: &str) -> RuntimeError {
    RuntimeError::UnknownTensor {
        graph: program.graph(),
        direction: direction.name(),
        name: name.to_owned(),
        available: ports(program, direction).map(|port| port.name.to_owned()).collect(),
    }
}

/// The port's shape outside.
pub(super) fn shape(port: &Port<'_>) -> Shape {
    Shape(port.shape().iter().map(|&size| size as usize).collect())
}

/// Checks a tensor that is to go in, or the number of elements that are to come out.
pub(super) fn check(port: &Port<'_>, given: Option<&[usize]>, elements: usize) -> Result<(), RuntimeError> {
    let name = || port.name.to_owned();
    if let Some(given) = given
        && !given.iter().copied().eq(port.shape().iter().map(|&size| size as usize))
    {
        return Err(RuntimeError::Shape { name: name(), expected: shape(port), found: Shape::from(given) });
    }
    let expected = port.elements() as usize;
    if elements != expected {
        return Err(RuntimeError::Length { name: name(), expected, found: elements });
    }
    Ok(())
}

/// Channels of a port whose channels move, and 1 for one that stays as it is.
fn channels(port: &Port<'_>) -> usize {
    match port.layout {
        Layout::RowMajor => 1,
        Layout::ChannelsLast => port.dims[1].max(1) as usize,
    }
}

/// Stores `data`, which is as long as `inside`.
pub(super) fn store<T: Element>(port: &Port<'_>, data: &[f32], inside: &mut [T]) {
    let channels = channels(port);
    let pixels = inside.len() / channels;
    for (pixel, values) in inside.chunks_exact_mut(channels).enumerate() {
        for (channel, value) in values.iter_mut().enumerate() {
            *value = T::store(data[channel * pixels + pixel]);
        }
    }
}

/// Loads into `data`, which is as long as `inside`.
pub(super) fn load<T: Element>(port: &Port<'_>, inside: &[T], data: &mut [f32]) {
    let channels = channels(port);
    let pixels = inside.len() / channels;
    for (pixel, values) in inside.chunks_exact(channels).enumerate() {
        for (channel, value) in values.iter().enumerate() {
            data[channel * pixels + pixel] = value.load();
        }
    }
}

/// Stores ids, each of which must be in the vocabulary of every embedding that reads the port.
pub(super) fn store_ids<I: Copy + Into<i64>>(
    program: &Program<'_>,
    port: &Port<'_>,
    ids: &[I],
    inside: &mut [i32],
) -> Result<(), RuntimeError> {
    let vocabulary = vocabulary(program, port);
    for (position, (id, inside)) in ids.iter().zip(inside).enumerate() {
        let id: i64 = (*id).into();
        let valid = i32::try_from(id).ok().filter(|_| vocabulary.is_none_or(|size| (0..i64::from(size)).contains(&id)));
        *inside = valid.ok_or_else(|| RuntimeError::TokenId {
            name: port.name.to_owned(),
            id,
            position,
            vocabulary: vocabulary.unwrap_or(i32::MAX as u32),
        })?;
    }
    Ok(())
}

/// Rows of the smallest table that the port's ids are looked up in.
fn vocabulary(program: &Program<'_>, port: &Port<'_>) -> Option<u32> {
    let tables = program.steps().filter_map(|step| match step.op() {
        Op::Embed(embed) => {
            let ids = step.operand(0);
            (ids.space == Space::Arena && ids.overlaps(&port.operand())).then_some(embed.vocab)
        }
        _ => None,
    });
    tables.min()
}
