use super::*;

#[test]
fn an_available_set_is_found_by_its_name() {
    for kernels in Kernels::all() {
        assert_eq!(Kernels::by_name(kernels.isa().name()), Ok(kernels));
        assert_eq!(Kernels::new(kernels.isa()), Ok(kernels));
    }
    assert!(Kernels::all().any(|kernels| kernels == Kernels::detect()));
}

#[test]
fn another_set_is_an_error_that_lists_those_there_are() {
    let missing = Isa::ALL.iter().filter(|isa| !isa.available());
    let missing: Vec<&str> = missing.map(|isa| isa.name()).collect();
    let foreign = if cfg!(target_arch = "x86_64") {
        "neon"
    } else {
        "avx2"
    };
    assert!(missing.contains(&foreign), "{missing:?}");
    for name in [&missing[..], &["avx", "sse", ""]].concat() {
        let message = Kernels::by_name(name).unwrap_err().to_string();
        assert!(
            message.contains(&format!("`{name}`")) && message.contains("available: scalar"),
            "{message}"
        );
    }
}

/// The emulator is asked for a CPU by name; what is detected must be what that CPU has.
#[cfg(target_arch = "aarch64")]
#[test]
fn an_emulated_cpu_has_its_sets() {
    let Ok(cpu) = std::env::var("ARM_CPU") else {
        return;
    };
    let best = match cpu.as_str() {
        "cortex-a53" | "cortex-a72" => Isa::Neon,
        "cortex-a76" => Isa::NeonDot,
        "max" => Isa::NeonI8mm,
        _ => return,
    };
    assert_eq!(Isa::detect(), best, "{cpu}");
}
