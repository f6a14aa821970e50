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
    let foreign = if cfg!(target_arch = "x86_64") {
        "neon"
    } else {
        "avx2"
    };
    for name in [foreign, "neoni8mm", "avxvnni", "sse", ""] {
        let message = Kernels::by_name(name).unwrap_err().to_string();
        assert!(
            message.contains(&format!("`{name}`")) && message.contains("available: scalar"),
            "{message}"
        );
    }
}
