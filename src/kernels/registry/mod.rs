//! Every kernel by name, each with problems to test it on and to time it by.

mod codes_problems;
mod layers;
mod problems;
mod random;
#[cfg(test)]
mod tests;

use std::fmt;

use codes_problems::*;
pub use layers::{LAYERS, Layer};
use problems::*;
pub use random::Random;

use crate::{ArgumentError, Element, Isa, Job, Kernels, Launch, run_alone};

/// Which problem a row of the table makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Small, of odd shapes and now and then of extreme values, for tests.
    Awkward,
    /// One of the size that pictures need, for benchmarks.
    Typical,
}

/// A row of the table: an operator for some element types.
pub struct Row {
    /// The operator.
    pub op: &'static str,
    /// Types of the activations and, where they differ, of the weights.
    pub types: &'static str,
    /// Rows and columns of the tile kept in registers, where there is one.
    tile: fn(Isa) -> Option<&'static str>,
    problem: fn(&mut Random, Size) -> Box<dyn Problem>,
}

impl Row {
    /// A problem for these kernels.
    pub fn problem(&self, random: &mut Random, size: Size) -> Box<dyn Problem> {
        (self.problem)(random, size)
    }
}

/// A row of the table for one instruction set that this CPU has.
pub struct Kernel {
    /// The row.
    pub row: &'static Row,
    /// The instruction set's kernels.
    pub kernels: Kernels,
}

/// Its name, such as `linear-f16-6x16-avx2`.
impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-", self.row.op, self.row.types)?;
        if let Some(tile) = (self.row.tile)(self.kernels.isa()) {
            write!(f, "{tile}-")?;
        }
        write!(f, "{}", self.kernels.isa())
    }
}

/// Every kernel that this CPU can run.
pub fn kernels() -> impl Iterator<Item = Kernel> {
    Kernels::all().flat_map(|kernels| TABLE.iter().map(move |row| Kernel { row, kernels }))
}

/// Operands of one operator, with its output.
pub trait Problem {
    /// Multiplications of a GEMM or an attention; for other operators the elements of the output.
    fn work(&self) -> u64;
    /// Fills the output with what it held at first.
    fn reset(&mut self);
    /// Runs the operator with so many threads.
    fn run(&mut self, kernels: Kernels, threads: usize);
    /// The output, each number as the bits of an `f32`, every NaN as one; each byte as itself.
    fn bits(&self) -> Vec<u32>;
}

/// What a problem's output consists of.
trait Bits: std::marker::Copy + 'static {
    /// As [`Problem::bits`] has it.
    fn bits(self) -> u32;
}

impl<T: Element> Bits for T {
    fn bits(self) -> u32 {
        let x = self.load();
        if x.is_nan() {
            f32::NAN.to_bits()
        } else {
            x.to_bits()
        }
    }
}

/// A byte's bits are themselves, not a float's.
impl Bits for u8 {
    fn bits(self) -> u32 {
        self.into()
    }
}

/// A problem whose output is `T` and whose operator `run` makes and executes.
struct Case<T, F> {
    work: u64,
    before: Vec<T>,
    out: Vec<T>,
    scratch: Scratches,
    run: F,
}

/// Scratch of each thread.
struct Scratches(Vec<Vec<u8>>);

fn case<T: Bits>(
    work: usize,
    out: Vec<T>,
    run: impl Fn(Kernels, &mut [T], &mut Scratches) + 'static,
) -> Box<dyn Problem> {
    Box::new(Case {
        work: work as u64,
        before: out.clone(),
        out,
        scratch: Scratches(Vec::new()),
        run,
    })
}

impl<T: Bits, F: Fn(Kernels, &mut [T], &mut Scratches)> Problem for Case<T, F> {
    fn work(&self) -> u64 {
        self.work
    }
    fn reset(&mut self) {
        self.out.clone_from(&self.before);
    }
    fn run(&mut self, kernels: Kernels, threads: usize) {
        self.scratch.0.resize_with(threads, Vec::new);
        (self.run)(kernels, &mut self.out, &mut self.scratch);
    }
    fn bits(&self) -> Vec<u32> {
        self.out.iter().map(|x| x.bits()).collect()
    }
}

impl Scratches {
    /// Runs a job with as many threads as there are scratches. Problems are made right, so there is a job.
    fn execute<J: Job>(&mut self, job: Result<J, ArgumentError>) {
        let mut job =
            job.unwrap_or_else(|error| panic!("a problem of the registry is wrong: {error}"));
        for scratch in &mut self.0 {
            scratch.resize(job.scratch_bytes(), 0);
        }
        match &mut self.0[..] {
            [scratch] => run_alone(&mut job, scratch),
            scratches => {
                let launch = Launch::new(&mut job);
                std::thread::scope(|scope| {
                    for scratch in scratches {
                        scope.spawn(|| launch.help(scratch));
                    }
                });
            }
        }
    }
}

/// Multiplications with addition in a second that one thread of these kernels' instruction set can do at all in integers:
/// what a loop of independent products does that touches no memory. `None` where nobody has written that loop.
pub fn peak(kernels: Kernels) -> Option<f64> {
    let best = (0..5).map(|_| {
        let start = std::time::Instant::now();
        let products = crate::arch::products(kernels, 1 << 18)?;
        Some(products as f64 / start.elapsed().as_secs_f64())
    });
    best.flatten().reduce(f64::max)
}

fn no_tile(_: Isa) -> Option<&'static str> {
    None
}

fn gemm_tile(isa: Isa) -> Option<&'static str> {
    match isa {
        Isa::Scalar => None,
        Isa::Avx2 | Isa::AvxVnni | Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => Some("6x16"),
        Isa::Avx512Vnni => Some("12x32"),
    }
}

fn int8_tile(isa: Isa) -> Option<&'static str> {
    match isa {
        Isa::Scalar => None,
        Isa::Neon => Some("2x16"),
        Isa::NeonI8mm => Some("4x16"),
        Isa::Avx2 | Isa::AvxVnni | Isa::NeonDot => Some("6x16"),
        Isa::Avx512Vnni => Some("12x32"),
    }
}

macro_rules! table {
    ($($op:literal $tile:ident $problem:ident;)*) => {
        &[$(
            Row { op: $op, types: "f32", tile: $tile, problem: $problem::<f32> },
            Row { op: $op, types: "f16", tile: $tile, problem: $problem::<crate::F16> },
        )*]
    };
}

/// Every operator for `f32` and for `f16`; those on codes have these as their other operands.
pub static TABLE: &[Row] = table! {
    "linear" gemm_tile linear;
    "conv2d" gemm_tile conv2d;
    "attention" gemm_tile attention;
    "linear_int8" int8_tile linear_int8;
    "conv2d_int8" int8_tile conv2d_int8;
    "attention_int8" int8_tile attention_int8;
    "quantize" no_tile quantize;
    "group_norm_codes" no_tile group_norm_codes;
    "layer_norm_codes" no_tile layer_norm_codes;
    "group_norm" no_tile group_norm;
    "layer_norm" no_tile layer_norm;
    "softmax" no_tile softmax;
    "unary" no_tile unary;
    "affine" no_tile affine;
    "binary" no_tile binary;
    "concat" no_tile concat;
    "upsample" no_tile upsample;
    "copy" no_tile copy;
    "embed" no_tile embed;
    "embed_int8" no_tile embed_int8;
    "timestep_embedding" no_tile timestep_embedding;
};
