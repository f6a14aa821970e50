//! One kernel on one problem, for an emulator to count its instructions: `count KERNEL SHAPE TIMES`. What it executes beyond
//! `count KERNEL SHAPE 0` are the kernel's runs. Prints the work of a run: multiplications, or elements of the output.
//! `KILN_ISA` chooses the instruction set. On x86-64 the least ticks of the time-stamp counter that a run took follow: where an
//! emulator ticks once for each instruction (Bochs does), that is how many it executed.
//!
//! | kernel | shape |
//! |---|---|
//! | `gemm` | `ROWSxKxN`: a linear layer of codes, a pair a row, f16 out |
//! | `conv` | `HxWxINxOUT`: a 3x3 convolution of codes of a square picture, f16 out |
//! | a row of the registry, such as `softmax` | its element types, `f16` or `f32`; its typical problem |

use std::{env, error::Error, process::exit};

use kiln_kernels::Kernels;
use kiln_kernels::registry::{self, Layer, Problem, Random, Size};

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
    let times: usize = times.parse()?;
    let kernels = Kernels::from_env()?;
    let mut problem = problem(kernel, shape)?;
    let mut least = None;
    for _ in 0..times {
        let start = ticks();
        problem.run(kernels, 1);
        let run = ticks()
            .zip(start)
            .map(|(end, start)| end.wrapping_sub(start));
        least = least.into_iter().chain(run).min();
    }
    match least {
        None => println!("{}", problem.work()),
        Some(ticks) => println!("{} {ticks}", problem.work()),
    }
    Ok(())
}

/// The time-stamp counter, where there is one.
#[cfg(target_arch = "x86_64")]
fn ticks() -> Option<u64> {
    // SAFETY: every such CPU has it, and Linux lets programs read it.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> Option<u64> {
    None
}

fn problem(kernel: &str, shape: &str) -> Result<Box<dyn Problem>, Box<dyn Error>> {
    let mut random = Random::new(1);
    let layer = match kernel {
        "gemm" => {
            let [rows, k, n] = sizes(shape)?;
            Layer::linear("gemm", rows, k, n)
        }
        "conv" => match sizes(shape)? {
            [h, w, in_c, out_c] if h == w => Layer::conv("conv", h, in_c, out_c),
            _ => return Err(format!("`{shape}` is no square picture").into()),
        },
        op => {
            let row = registry::TABLE
                .iter()
                .find(|row| row.op == op && row.types == shape)
                .ok_or_else(|| format!("no kernel `{op}` for `{shape}`"))?;
            return Ok(row.problem(&mut random, Size::Typical));
        }
    };
    Ok(layer.problem(&mut random))
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
