//! Tensors as callers see them, into the arena and out of it.

use kiln_kernels::Element;
use kiln_package::{GraphKind, Layout, Op, Port, Program, Space};

use super::RuntimeError;
use super::error::Shape;

/// The elements of a tensor, row-major; a picture-shaped one is `[1, channels, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq)]
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

/// How many chunks the context of an evaluation has, and how many its programs are planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    pub count: u32,
    pub most: u32,
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

/// The output of that name.
pub(super) fn output<'a>(program: &Program<'a>, name: &str) -> Result<Port<'a>, RuntimeError> {
    program
        .output(name)
        .ok_or_else(|| unknown(program.graph(), Direction::Output, name, program.outputs()))
}

pub(super) fn unknown<'a>(
    graph: GraphKind,
    direction: Direction,
    name: &str,
    ports: impl Iterator<Item = Port<'a>>,
) -> RuntimeError {
    RuntimeError::UnknownTensor {
        graph,
        direction: direction.name(),
        name: name.to_owned(),
        available: ports.map(|port| port.name.to_owned()).collect(),
    }
}

/// The port's shape outside.
pub(super) fn shape(port: &Port<'_>) -> Shape {
    Shape(port.shape().iter().map(|&size| size as usize).collect())
}

/// The port as it is with each number of chunks; as it is, if it does not depend on them.
pub(super) fn variants<'a>(port: Port<'a>, most: u32) -> impl Iterator<Item = (Chunks, Port<'a>)> {
    let least = if port.per_chunk { 1 } else { most };
    (least..=most).map(move |count| (Chunks { count, most }, port.at_chunks(count, most)))
}

/// Whether the port has that shape outside.
pub(super) fn fits(port: &Port<'_>, given: &[usize]) -> bool {
    given
        .iter()
        .copied()
        .eq(port.shape().iter().map(|&size| size as usize))
}

/// Checks the number of elements of a tensor.
pub(super) fn check_len(port: &Port<'_>, found: usize) -> Result<(), RuntimeError> {
    let expected = port.elements() as usize;
    match found == expected {
        true => Ok(()),
        false => Err(RuntimeError::Length {
            name: port.name.to_owned(),
            expected,
            found,
        }),
    }
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

/// Stores ids that [`check_ids`] has found right.
pub(super) fn store_ids<I: Copy + Into<i64>>(ids: &[I], inside: &mut [i32]) {
    for (id, inside) in ids.iter().zip(inside) {
        *inside = (*id).into() as i32;
    }
}

/// Checks ids, each of which must be in the vocabulary of every embedding of the program that reads the input.
pub(super) fn check_ids<I: Copy + Into<i64>>(
    program: &Program<'_>,
    name: &str,
    ids: &[I],
) -> Result<(), RuntimeError> {
    let Some(port) = program.input(name) else {
        return Ok(());
    };
    let vocabulary = vocabulary(program, &port);
    let limit = vocabulary.map_or(i64::from(i32::MAX) + 1, i64::from);
    let least = if vocabulary.is_some() {
        0
    } else {
        i64::from(i32::MIN)
    };
    match ids
        .iter()
        .position(|id| !(least..limit).contains(&(*id).into()))
    {
        None => Ok(()),
        Some(position) => Err(RuntimeError::TokenId {
            name: port.name.to_owned(),
            id: ids[position].into(),
            position,
            vocabulary: vocabulary.unwrap_or(i32::MAX as u32),
        }),
    }
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
