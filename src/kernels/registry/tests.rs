use super::*;

/// Problems of each row.
const PROBLEMS: u64 = 60;

#[test]
fn every_kernel_gives_the_bits_of_the_scalar_reference() {
    let scalar = Kernels::new(Isa::Scalar).unwrap();
    let fast: Vec<Kernels> = Kernels::all()
        .filter(|kernels| kernels.isa() != Isa::Scalar)
        .collect();
    for row in TABLE {
        for seed in 0..PROBLEMS {
            let mut problem = row.problem(&mut Random::new(seed), Size::Awkward);
            problem.run(scalar, 1);
            let expected = problem.bits();
            for kernels in &fast {
                problem.reset();
                problem.run(*kernels, 1);
                let found = problem.bits();
                if let Some(at) = (0..expected.len()).find(|i| expected[*i] != found[*i]) {
                    let [e, f] = [expected[at], found[at]].map(f32::from_bits);
                    panic!(
                        "{}, seed {seed}: element {at} is {f:e}, not {e:e}",
                        Kernel {
                            row,
                            kernels: *kernels
                        }
                    );
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for kernel in kernels().filter(|kernel| kernel.kernels.isa() != Isa::Scalar) {
        for seed in 100..110 {
            let mut problem = kernel.row.problem(&mut Random::new(seed), Size::Awkward);
            problem.run(kernel.kernels, 1);
            let expected = problem.bits();
            for threads in [2, 3] {
                problem.reset();
                problem.run(kernel.kernels, threads);
                assert_eq!(
                    problem.bits(),
                    expected,
                    "{kernel} with {threads} threads, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<String> = kernels().map(|kernel| kernel.to_string()).collect();
    assert!(
        names.contains(&"linear-f32-scalar".to_string()),
        "{names:?}"
    );
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// The references' results for all of [`TABLE`], so that a machine with other instruction sets can be held to the same.
/// A change of a definition or of the problems changes it; the failing test prints the new value.
const REFERENCE_HASH: u64 = 0x6432_d17d_dac3_8187;

#[test]
fn references_give_the_same_bits_on_every_machine() {
    let scalar = Kernels::new(Isa::Scalar).unwrap();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for row in TABLE {
        for seed in 1000..1008 {
            let mut problem = row.problem(&mut Random::new(seed), Size::Awkward);
            problem.run(scalar, 1);
            for byte in problem.bits().into_iter().flat_map(u32::to_le_bytes) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
    }
    assert_eq!(hash, REFERENCE_HASH, "the hash is {hash:#018x}");
}
