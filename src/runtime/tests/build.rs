//! Programs and packages for tests.

use std::io::Write;

use kiln_kernels::{Element, F16};
use kiln_package::{
    Activation, DType, GraphKind, Layout, Linear, Op, Operand, PackageWriter, PortRecord,
    ProgramRecord, Stage, StepRecord,
};

use crate::Model;

/// Numbers of any kind, the same for the same seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Between -1 and 1, exact in f16.
    pub(super) fn number(&mut self) -> f32 {
        F16::store((self.bits() % 2001) as f32 / 1000.0 - 1.0).load()
    }

    pub(super) fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }
}

/// A program being written, with the weights it reads. Nothing in its arena is used twice.
pub(super) struct Build {
    pub(super) program: ProgramRecord,
    pub(super) weights: Vec<u8>,
}

impl Build {
    pub(super) fn new(graph: GraphKind, height: u32, width: u32) -> Self {
        Build {
            program: ProgramRecord {
                graph,
                stage: Stage::Whole,
                height,
                width,
                clip_skip: u32::from(graph == GraphKind::TextEncoder),
                arena_bytes: 0,
                thread_scratch_bytes: 1 << 20,
                pinned_bytes: 0,
                shared_bytes: 0,
                max_chunks: 1,
                inputs: Vec::new(),
                outputs: Vec::new(),
                steps: Vec::new(),
            },
            weights: Vec::new(),
        }
    }

    /// A step of one row of `x` with a square matrix and a bias of its own, both at random, the former divided by `by`.
    pub(super) fn square(&mut self, random: &mut Random, by: f32, [x, out]: [Operand; 2]) {
        let width = (x.bytes / 4) as usize;
        let numbers = random.numbers(width * width);
        let scaled: Vec<f32> = numbers.iter().map(|w| w / by).collect();
        let weight = self.weight(DType::F32, &scaled);
        let bias = self.weight(DType::F32, &random.numbers(width));
        let op = Op::Linear(Linear {
            rows: 1,
            k: width as u32,
            k2: 0,
            n: width as u32,
            activation: Activation::None,
        });
        let slots = op.slots().iter().map(|slot| match slot.name {
            "x" => x,
            "weight" => weight,
            "bias" => bias,
            "out" => out,
            _ => Operand::EMPTY,
        });
        let operands: Vec<Operand> = slots.collect();
        let name = format!("layer {}", self.program.steps.len());
        self.step(&name, op, &operands);
    }

    /// A buffer in the arena.
    pub(super) fn buffer(&mut self, dtype: DType, elements: usize) -> Operand {
        let bytes = (elements * dtype.size()) as u64;
        let operand = Operand::arena(dtype, self.program.arena_bytes, bytes);
        self.program.arena_bytes = (operand.offset + bytes).next_multiple_of(64);
        operand
    }

    /// Weights of type `f32` or `f16`.
    pub(super) fn weight(&mut self, dtype: DType, values: &[f32]) -> Operand {
        self.weights
            .resize(self.weights.len().next_multiple_of(64), 0);
        let offset = self.weights.len() as u64;
        for value in values {
            match dtype {
                DType::F32 => self.weights.extend(value.to_le_bytes()),
                _ => self
                    .weights
                    .extend(F16::store(*value).to_bits().to_le_bytes()),
            }
        }
        Operand::weights(dtype, offset, self.weights.len() as u64 - offset)
    }

    /// Weights of another type, little-endian.
    pub(super) fn bytes(&mut self, dtype: DType, bytes: &[u8]) -> Operand {
        self.weights
            .resize(self.weights.len().next_multiple_of(64), 0);
        let offset = self.weights.len() as u64;
        self.weights.extend(bytes);
        Operand::weights(dtype, offset, bytes.len() as u64)
    }

    fn port(name: &str, shape: &[u32], layout: Layout, operand: Operand) -> PortRecord {
        PortRecord {
            name: name.to_owned(),
            dtype: operand.dtype,
            layout,
            shape: shape.to_vec(),
            offset: operand.offset,
            bytes: operand.bytes,
            per_chunk: false,
        }
    }

    pub(super) fn input(
        &mut self,
        name: &str,
        shape: &[u32],
        layout: Layout,
        dtype: DType,
    ) -> Operand {
        let operand = self.buffer(dtype, shape.iter().product::<u32>() as usize);
        self.program
            .inputs
            .push(Self::port(name, shape, layout, operand));
        operand
    }

    /// An input that an earlier stage has made.
    pub(super) fn pinned(&mut self, name: &str, shape: &[u32], operand: Operand, per_chunk: bool) {
        let port = Self::port(name, shape, Layout::RowMajor, operand);
        self.program.inputs.push(PortRecord { per_chunk, ..port });
    }

    pub(super) fn output(&mut self, name: &str, shape: &[u32], layout: Layout, operand: Operand) {
        self.program
            .outputs
            .push(Self::port(name, shape, layout, operand));
    }

    pub(super) fn step(&mut self, name: &str, op: Op, operands: &[Operand]) {
        self.program.steps.push(StepRecord {
            op,
            operands: operands.to_vec(),
            name: name.to_owned(),
            per_chunk: false,
            joined: false,
        });
    }

    pub(super) fn model(self) -> Model {
        model(&package(vec![self.program], &self.weights))
    }
}

pub(super) fn package(programs: Vec<ProgramRecord>, weights: &[u8]) -> Vec<u8> {
    let writer = PackageWriter {
        card: "{}".into(),
        scheduler: "{}".into(),
        programs,
        ..PackageWriter::default()
    };
    writer.to_vec(weights).expect("a valid package")
}

/// The model in a file of those bytes.
pub(super) fn model(bytes: &[u8]) -> Model {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room");
    Model::open(file.path()).expect("a valid package")
}
