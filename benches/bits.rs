//! What every operator computes with the instruction set that `KILN_ISA` names: a line for each row of the registry, with a
//! hash of each problem's result. `bits [PROBLEMS]`. Two instruction sets print the same, also on different machines, so an
//! emulator need not run the slow reference (`.ci/avx512`).

use std::{env, process::exit};

use kiln_kernels::Kernels;
use kiln_kernels::registry::{self, Random, Size};

fn main() {
    if let Err(error) = bits() {
        eprintln!("bits: {error}");
        exit(1);
    }
}

fn bits() -> Result<(), Box<dyn std::error::Error>> {
    let problems = env::args().nth(1).map_or(Ok(60), |arg| arg.parse())?;
    let kernels = Kernels::from_env()?;
    for row in registry::TABLE {
        let mut line = format!("{} {}", row.op, row.types);
        for seed in 0..problems {
            let mut problem = row.problem(&mut Random::new(seed), Size::Awkward);
            problem.run(kernels, 1);
            line += &format!(" {:08x}", hash(&problem.bits()));
        }
        println!("{line}");
    }
    Ok(())
}

/// FNV-1a over words.
fn hash(bits: &[u32]) -> u32 {
    let hash = bits.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, bits| {
        (hash ^ u64::from(*bits)).wrapping_mul(0x100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}
