//! One kernel on one problem, for an emulator to count its instructions: `count KERNEL SHAPE TIMES`. What it executes beyond
//! `count KERNEL SHAPE 0` are the kernel's runs. Prints the work of a run: multiplications, or elements of the output.
//! `KILN_ISA` chooses the instruction set.
//!
//! | kernel | shape |
//! |---|---|
//! | `gemm` | `ROWSxKxN`: a linear layer of codes, a pair a row, f16 out |
//! | `conv` | `HxWxINxOUT`: a 3x3 convolution of codes, f16 out |
//! | a row of the registry, such as `softmax` | its element types, `f16` or `f32`; its typical problem |

use std::{env, error::Error, process::exit};

use kiln_kernels::registry::{self, Random, Size};
use kiln_kernels::{
    Activation, Conv2dInt8, Conv2dInt8Operands, Conv2dParams, F16, Job, Kernels, LinearInt8,
    LinearInt8Operands, LinearParams, Residual, codes_bytes, codes_start, pack, run_alone,
};

fn main() {
    if let Err(error) = count() {
        eprintln!("count: {error}");
        exit(1);
    }
}

fn count() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [kernel, shape, times] = &args[..] else {
        return Err("count KERNEL SHAPE TIMES".into());
    };
    let times = times.parse()?;
    let kernels = Kernels::from_env()?;
    let work = match kernel.as_str() {
        "gemm" => gemm(kernels, sizes(shape)?, times)?,
        "conv" => conv(kernels, sizes(shape)?, times)?,
        op => {
            let row = registry::TABLE
                .iter()
                .find(|row| row.op == op && row.types == shape)
                .ok_or_else(|| format!("no kernel `{op}` for `{shape}`"))?;
            let mut problem = row.problem(&mut Random::new(1), Size::Typical);
            for _ in 0..times {
                problem.run(kernels, 1);
            }
            problem.work()
        }
    };
    println!("{work}");
    Ok(())
}

/// `1x2x3` as numbers.
fn sizes<const N: usize>(shape: &str) -> Result<[usize; N], Box<dyn Error>> {
    let sizes = shape
        .split('x')
        .map(str::parse)
        .collect::<Result<Vec<_>, _>>()?;
    sizes
        .try_into()
        .map_err(|_| format!("`{shape}` has not {N} sizes").into())
}

/// Weights of `n` columns with the operands that belong to them.
struct Weights {
    panels: Vec<i8>,
    scale: Vec<f32>,
    sums: Vec<i32>,
}

impl Weights {
    /// Some codes, cheaply made.
    fn new(n: usize, k: usize, pack: impl Fn(&[i8]) -> Vec<i8>) -> Self {
        let codes: Vec<i8> = (0..n * k).map(|i| (i * 7 % 255) as u8 as i8).collect();
        let codes: Vec<i8> = codes.into_iter().map(|code| code.max(-127)).collect();
        Self {
            panels: pack(&codes),
            scale: vec![1e-4; n],
            sums: codes
                .chunks(k)
                .map(|column| column.iter().map(|code| i32::from(*code)).sum())
                .collect(),
        }
    }
}

/// Codes of `rows` rows, with pairs of scale and zero point.
fn codes(rows: usize, c: usize, per_row: bool) -> Vec<u8> {
    let mut codes: Vec<u8> = (0..codes_bytes(rows, c, per_row))
        .map(|i| (i * 5) as u8)
        .collect();
    for pair in codes[..codes_start(rows, per_row)].as_chunks_mut::<8>().0 {
        pair[..4].copy_from_slice(&1e-2f32.to_le_bytes());
        pair[4..].copy_from_slice(&100i32.to_le_bytes());
    }
    codes
}

fn run(job: &mut dyn Job, times: usize) {
    let mut scratch = vec![0; job.scratch_bytes()];
    for _ in 0..times {
        run_alone(job, &mut scratch);
    }
}

fn gemm(kernels: Kernels, [rows, k, n]: [usize; 3], times: usize) -> Result<u64, Box<dyn Error>> {
    let x = codes(rows, k, true);
    let weights = Weights::new(n, k, |codes| pack::pack_i8_panels(n, k, codes));
    let (bias, mut out) = (vec![0.5; n], vec![F16::default(); rows * n]);
    let params = LinearParams {
        rows,
        k,
        k2: 0,
        n,
        activation: Activation::None,
    };
    let operands = LinearInt8Operands {
        x: &x,
        weight: &weights.panels,
        scale: &weights.scale,
        sums: &weights.sums,
        bias: Some(&bias),
        shift: None,
        residual: Residual::None,
        out: &mut out,
    };
    run(&mut LinearInt8::new(kernels, params, operands)?, times);
    Ok((rows * k * n) as u64)
}

fn conv(
    kernels: Kernels,
    [h, w, in_c, out_c]: [usize; 4],
    times: usize,
) -> Result<u64, Box<dyn Error>> {
    let k = 9 * in_c;
    let x = codes(h * w, in_c, false);
    let weights = Weights::new(out_c, k, |codes| {
        pack::pack_i8_conv_panels(out_c, in_c, (3, 3), codes)
    });
    let (bias, mut out) = (vec![0.5; out_c], vec![F16::default(); h * w * out_c]);
    let params = Conv2dParams {
        in_h: h,
        in_w: w,
        in_c,
        up_h: h,
        up_w: w,
        out_h: h,
        out_w: w,
        out_c,
        kernel_h: 3,
        kernel_w: 3,
        stride: 1,
        pad_top: 1,
        pad_left: 1,
        activation: Activation::None,
    };
    let operands = Conv2dInt8Operands {
        x: &x,
        weight: &weights.panels,
        scale: &weights.scale,
        sums: &weights.sums,
        bias: Some(&bias),
        shift: None,
        residual: Residual::None,
        out: &mut out,
    };
    run(&mut Conv2dInt8::new(kernels, params, operands)?, times);
    Ok((h * w * k * out_c) as u64)
}
