//! Weights that need no file: a function of a tensor's name and an element's index. `tests/fixtures/uniform.py` is the same.

/// As many elements of the tensor `name`, in [-0.1, 0.1): element i hashes the name's FNV-1a plus i.
pub fn uniform(name: &str, len: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let element = |i: usize| {
        let z = seed
            .wrapping_add(i as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let steps = ((z ^ (z >> 32)) >> 40) as i32 - (1 << 23);
        steps as f32 / (1 << 23) as f32 * 0.1
    };
    (0..len).map(element).collect()
}
