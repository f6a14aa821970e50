//! The weights of the tiny models, which no file holds: each is a function of its tensor's name. The same functions are in
//! `tests/fixtures/make_checkpoints.py`.

/// SplitMix64 from the FNV-1a hash of the name.
pub fn hashes(name: &str) -> impl Iterator<Item = u64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (1u64..).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Integers from -128 to 127.
fn integers(name: &str, shape: &[usize]) -> impl Iterator<Item = i8> {
    hashes(name)
        .map(|hash| (hash >> 56) as u8 as i8)
        .take(shape.iter().product())
}

/// A parameter. All are exact in `f16` and `bf16`, so that files of any type hold the same model.
///
/// Biases lie within 1/8 of 0 and norms' scales within 1/8 of 1; all others within `2^-k`, the largest such power that is
/// at most `sqrt(3 / terms)`, `terms` being the terms in a sum of its layer.
pub fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let numbers = integers(name, shape);
    if name.ends_with(".bias") {
        return numbers.map(|n| f32::from(n) / 1024.0).collect();
    }
    if shape.len() == 1 {
        return numbers.map(|n| 1.0 + f32::from(n >> 3) / 128.0).collect();
    }
    let terms: usize = shape[1..].iter().product();
    let k = (0..32)
        .find(|k| 3 << (2 * k) >= terms)
        .expect("a layer with fewer terms");
    let scale = 128.0 * (1u64 << k) as f32;
    numbers.map(|n| f32::from(n) / scale).collect()
}

/// An input: multiples of 1/64 from -2 to 2.
pub fn example(name: &str, shape: &[usize]) -> Vec<f32> {
    integers(name, shape).map(|n| f32::from(n) / 64.0).collect()
}

/// Token ids of a prompt: begin, 59 words, and the end to the end.
pub fn example_ids() -> Vec<i32> {
    let words = hashes("input_ids").map(|hash| (hash % 598) as i32);
    let mut ids: Vec<i32> = words.take(77).collect();
    ids[0] = 598;
    ids[60..].fill(599);
    ids
}
