//! What the layers of a package are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use kiln::runtime::Model;
use kiln_package::{DType, Op, Program};

/// Layers of a kind.
#[derive(Default)]
pub struct Use {
    /// How many there are.
    pub count: usize,
    /// Bytes of their weights.
    pub bytes: u64,
}

/// The products and attentions of a package, those of several sizes once.
#[derive(Default)]
pub struct Layers {
    /// Products by the precision of their weights.
    pub products: BTreeMap<&'static str, Use>,
    /// All attentions.
    pub attentions: usize,
    /// Those in integers.
    pub integer_attentions: usize,
}

impl Layers {
    /// The layers of a model.
    pub fn of(model: &Model) -> Self {
        let mut layers = Layers::default();
        let (mut weights, mut attentions) = (BTreeSet::new(), BTreeMap::new());
        for step in model
            .package()
            .programs()
            .flat_map(|program| program.steps().map(move |step| (program.graph(), step)))
        {
            let (graph, step) = step;
            let op = step.op();
            if let Op::Attention(op) = op {
                *attentions.entry((graph, step.name())).or_insert(false) |= op.integers;
            }
            if !op.takes_codes() {
                continue;
            }
            let weight = op
                .slots()
                .iter()
                .position(|slot| slot.name == "weight")
                .map(|slot| step.operand(slot));
            let Some(weight) = weight.filter(|weight| weights.insert(weight.offset)) else {
                continue;
            };
            let used = layers.products.entry(precision(weight.dtype)).or_default();
            used.count += 1;
            used.bytes += weight.bytes;
        }
        layers.attentions = attentions.len();
        layers.integer_attentions = attentions.values().filter(|integers| **integers).count();
        layers
    }
}

/// A precision's name, as the option of `kiln compile`.
fn precision(dtype: DType) -> &'static str {
    match dtype {
        DType::I8 => "int8",
        other => other.name(),
    }
}

/// Multiplications with addition of a program when the context has so many chunks.
pub fn macs(program: &Program<'_>, chunks: u32) -> u64 {
    program.steps().fold(0, |sum, step| {
        let op = if step.per_chunk() {
            step.op().at_chunks(chunks, program.max_chunks())
        } else {
            step.op()
        };
        sum.saturating_add(op.macs())
    })
}

/// A program's operators, as in `3 Linear, 1 Unary`.
pub fn kinds(program: &Program<'_>) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for step in program.steps() {
        *kinds.entry(step.op().name()).or_default() += 1;
    }
    kinds.iter().fold(String::new(), |mut text, (name, count)| {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{count} {name}");
        text
    })
}
