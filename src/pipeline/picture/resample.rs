//! Pictures in other sizes.
//!
//! Not by a crate: those that have this filter take the host's sine, which differs from machine to machine.

use core::f64::consts::PI;
use std::borrow::Cow;

/// Bits of a coefficient after the point.
const PRECISION: u32 = 22;
/// Half the filter's width where a picture grows.
const LOBES: f64 = 3.0;

/// A part of a picture: left, top, right and bottom, in pixels.
pub(crate) type Box4 = [f64; 4];

/// A part of a picture in another size, by a Lanczos filter of three lobes: Pillow's `resize(size, LANCZOS, box)` of 8 bits,
/// which diffusers and the WebUI take. Columns first, then rows, in integers. `pixels` is `[height, width, channels]`.
pub(crate) fn lanczos<'p>(
    pixels: &'p [u8],
    channels: usize,
    (width, height): (u32, u32),
    part: Box4,
    (out_width, out_height): (u32, u32),
) -> Cow<'p, [u8]> {
    let [left, top, right, bottom] = part;
    let whole = |from: f64, to: f64, len: u32| from == 0.0 && to == f64::from(len);
    let mut rows = Cow::Borrowed(pixels);
    if out_width != width || !whole(left, right, width) {
        let filters = filters(width, left, right, out_width);
        rows = Cow::Owned(along(&rows, channels, width as usize * channels, &filters));
    }
    let row = out_width as usize * channels;
    if out_height != height || !whole(top, bottom, height) {
        let filters = filters(height, top, bottom, out_height);
        rows = Cow::Owned(along(&rows, row, rows.len(), &filters));
    }
    rows
}

/// What an output is made of: the first input, and a coefficient for it and each that follows.
struct Filter {
    first: usize,
    coefficients: Vec<i64>,
}

/// Pillow's `precompute_coeffs`, of `out` places between `from` and `to` of `len`.
fn filters(len: u32, from: f64, to: f64, out: u32) -> Vec<Filter> {
    let scale = (to - from) / f64::from(out);
    let stretch = scale.max(1.0);
    let support = LOBES * stretch;
    let filter = |i: u32| {
        let center = from + (f64::from(i) + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = (center + support + 0.5).min(f64::from(len)) as usize;
        let weight = |x: usize| window((x as f64 - center + 0.5) / stretch);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| {
            let scaled = weight / sum * f64::from(1 << PRECISION);
            (scaled + 0.5f64.copysign(scaled)) as i64
        };
        Filter {
            first,
            coefficients: weights.iter().map(fixed).collect(),
        }
    };
    (0..out).map(filter).collect()
}

fn window(x: f64) -> f64 {
    let sinc = |x: f64| match x == 0.0 {
        true => 1.0,
        false => libm::sin(x * PI) / (x * PI),
    };
    match (-LOBES..LOBES).contains(&x) {
        true => sinc(x) * sinc(x / LOBES),
        false => 0.0,
    }
}

/// Filters blocks of `line` bytes along their units of `unit` bytes.
fn along(pixels: &[u8], unit: usize, line: usize, filters: &[Filter]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / line.max(1) * filters.len() * unit);
    for block in pixels.chunks_exact(line.max(1)) {
        for filter in filters {
            for place in 0..unit {
                let inputs = block[filter.first * unit + place..].iter().step_by(unit);
                let sum: i64 = inputs
                    .zip(&filter.coefficients)
                    .map(|(byte, coefficient)| i64::from(*byte) * coefficient)
                    .sum();
                let rounded = (sum + (1 << (PRECISION - 1))) >> PRECISION;
                out.push(rounded.clamp(0, 255) as u8);
            }
        }
    }
    out
}

/// Planes of `[height, width]` in another size, linear between the centers of pixels: torch's `interpolate` in mode
/// `bilinear`.
pub(in crate::pipeline) fn bilinear(
    planes: &[f32],
    [height, width]: [usize; 2],
    [out_height, out_width]: [usize; 2],
) -> Vec<f32> {
    // The two neighbours of an output and the second one's share.
    let place = |i: usize, len: usize, out: usize| {
        let scale = len as f32 / out as f32;
        let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let low = (at as usize).min(len - 1);
        (low, (low + 1).min(len - 1), at - low as f32)
    };
    let columns: Vec<_> = (0..out_width).map(|x| place(x, width, out_width)).collect();
    let mut out = Vec::with_capacity(planes.len() / (height * width) * out_height * out_width);
    for plane in planes.chunks_exact(height * width) {
        for y in 0..out_height {
            let (above, below, down) = place(y, height, out_height);
            for &(left, right, along) in &columns {
                let row = |y: usize| {
                    (1.0 - along) * plane[y * width + left] + along * plane[y * width + right]
                };
                out.push((1.0 - down) * row(above) + down * row(below));
            }
        }
    }
    out
}
