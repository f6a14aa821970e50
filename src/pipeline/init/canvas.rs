//! A picture in the size that is drawn, and what is drawn back into the picture.

use std::borrow::Cow;

use super::{Init, Resize};
use crate::pipeline::picture::{Box4, Raster, lanczos, mixed};

/// A picture in the size that is drawn.
pub(in crate::pipeline) struct Canvas<'a> {
    size: (u32, u32),
    /// RGB, `[height, width, 3]`. Those that were given where they have the size: a large picture is there once.
    pixels: Cow<'a, [u8]>,
    masked: Option<Masked>,
}

struct Masked {
    /// Whether a pixel is repainted.
    repainted: Vec<bool>,
    place: Place,
    /// The share of 255 that a pixel takes from what is drawn, where the place says.
    shares: Vec<u8>,
}

/// Where a drawing is put back.
enum Place {
    /// Over the canvas.
    Canvas,
    /// Over a part of the picture: left, top, width and height.
    Part(Raster, [u32; 4]),
}

impl<'a> Canvas<'a> {
    /// The picture of `init`, which is checked, in the size.
    pub(in crate::pipeline) fn new(init: &'a Init, size: (u32, u32)) -> Self {
        let picture = &init.picture;
        let own = (picture.width(), picture.height());
        let Some(mask) = &init.mask else {
            return Self {
                size,
                pixels: fit(picture.pixels(), 3, own, size, init.resize),
                masked: None,
            };
        };
        let hard = mask.picture.brightness();
        let soft = blurred(&hard, own, mask.blur);
        if let Some(padding) = mask.only_masked {
            // A blur can wipe out what is small.
            let touched: Vec<u8> = soft.iter().zip(&hard).map(|(a, b)| *a.max(b)).collect();
            let part = shaped(around(&touched, own, padding), own, size);
            let [left, top, width, height] = part.map(f64::from);
            let part_box = [left, top, left + width, top + height];
            return Self {
                size,
                pixels: lanczos(picture.pixels(), 3, own, part_box, size),
                masked: Some(Masked {
                    repainted: lanczos(&hard, 1, own, part_box, size)
                        .iter()
                        .map(|&x| x >= 128)
                        .collect(),
                    place: Place::Part(picture.clone(), part),
                    shares: soft,
                }),
            };
        }
        let fitted = |pixels| fit(pixels, 1, own, size, init.resize);
        Self {
            size,
            pixels: fit(picture.pixels(), 3, own, size, init.resize),
            masked: Some(Masked {
                repainted: fitted(&hard).iter().map(|&x| x >= 128).collect(),
                place: Place::Canvas,
                shares: fitted(&soft).into_owned(),
            }),
        }
    }

    /// A whole picture.
    pub(in crate::pipeline) fn of_pixels(
        pixels: Vec<u8>,
        own: (u32, u32),
        size: (u32, u32),
    ) -> Self {
        let pixels = match fit(&pixels, 3, own, size, Resize::Stretch) {
            Cow::Owned(other) => other,
            Cow::Borrowed(_) => pixels,
        };
        Self {
            size,
            pixels: pixels.into(),
            masked: None,
        }
    }

    pub(in crate::pipeline) fn is_masked(&self) -> bool {
        self.masked.is_some()
    }

    /// A part of the picture (top, left, height and width) as the encoder takes it: `[3, height, width]`, -1 is black, 1 is
    /// white.
    pub(in crate::pipeline) fn planes(&self, part: [usize; 4]) -> Vec<f32> {
        self.part(part, |_| false)
    }

    /// The same with grey where the mask is white; all grey if there is no mask.
    pub(in crate::pipeline) fn unmasked_planes(&self, part: [usize; 4]) -> Vec<f32> {
        let masked = self.masked.as_ref();
        self.part(part, |pixel| masked.is_none_or(|m| m.repainted[pixel]))
    }

    fn part(
        &self,
        [top, left, height, width]: [usize; 4],
        is_grey: impl Fn(usize) -> bool,
    ) -> Vec<f32> {
        let own = self.size.0 as usize;
        let value = |i: usize| {
            let (channel, y, x) = (i / (height * width), i / width % height, i % width);
            let pixel = (top + y) * own + left + x;
            match is_grey(pixel) {
                true => 0.0,
                false => 2.0 * (f32::from(self.pixels[pixel * 3 + channel]) / 255.0) - 1.0,
            }
        };
        (0..3 * height * width).map(value).collect()
    }

    /// Which latents are repainted, 1 or 0: each is as the first of its pixels, as in diffusers. All if there is no mask.
    pub(in crate::pipeline) fn latent_mask(&self, [height, width]: [usize; 2]) -> Vec<f32> {
        let Some(masked) = &self.masked else {
            return vec![1.0; height * width];
        };
        let (own_width, own_height) = (self.size.0 as usize, self.size.1 as usize);
        let at = |i: usize| {
            let (y, x) = (
                i / width * own_height / height,
                i % width * own_width / width,
            );
            f32::from(u8::from(masked.repainted[y * own_width + x]))
        };
        (0..height * width).map(at).collect()
    }

    /// What is drawn, put back into the picture: size and RGB.
    pub(in crate::pipeline) fn put_back(&self, drawn: Vec<u8>) -> ((u32, u32), Vec<u8>) {
        let Some(masked) = &self.masked else {
            return (self.size, drawn);
        };
        match &masked.place {
            Place::Canvas => {
                let mut pixels = self.pixels.to_vec();
                lay_over(&mut pixels, drawn.as_chunks::<3>().0, &masked.shares, 0..);
                (self.size, pixels)
            }
            Place::Part(picture, [left, top, width, height]) => {
                let own = (picture.width(), picture.height());
                let whole = [0.0, 0.0, f64::from(self.size.0), f64::from(self.size.1)];
                let drawn = lanczos(&drawn, 3, self.size, whole, (*width, *height));
                let mut pixels = picture.pixels().to_vec();
                let row = *width as usize;
                for (y, line) in (*top as usize..).zip(drawn.as_chunks::<3>().0.chunks_exact(row)) {
                    let first = y * own.0 as usize + *left as usize;
                    lay_over(&mut pixels, line, &masked.shares, first..);
                }
                (own, pixels)
            }
        }
    }
}

/// Mixes pixels into those from `places` on.
fn lay_over(
    pixels: &mut [u8],
    drawn: &[[u8; 3]],
    shares: &[u8],
    places: std::ops::RangeFrom<usize>,
) {
    for (new, place) in drawn.iter().zip(places) {
        for (old, new) in pixels[3 * place..].iter_mut().zip(new) {
            *old = mixed(*new, *old, shares[place]);
        }
    }
}

/// A picture in another size; as it is, if that is its own.
fn fit(
    pixels: &[u8],
    channels: usize,
    own: (u32, u32),
    size: (u32, u32),
    resize: Resize,
) -> Cow<'_, [u8]> {
    let (own_width, own_height) = (f64::from(own.0), f64::from(own.1));
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    let whole = [0.0, 0.0, own_width, own_height];
    match resize {
        Resize::Stretch => lanczos(pixels, channels, own, whole, size),
        Resize::Crop => lanczos(pixels, channels, own, middle(own, size), size),
        Resize::Pad => {
            let scale = (width / own_width).min(height / own_height);
            let side = |own: f64, most: u32| ((own * scale + 0.5) as u32).clamp(1, most);
            let inner = (side(own_width, size.0), side(own_height, size.1));
            let small = lanczos(pixels, channels, own, whole, inner);
            let (left, top) = ((size.0 - inner.0) / 2, (size.1 - inner.1) / 2);
            let mut out = Vec::with_capacity(size.0 as usize * size.1 as usize * channels);
            for y in 0..size.1 {
                let y = y.saturating_sub(top).min(inner.1 - 1) as usize;
                for x in 0..size.0 {
                    let x = x.saturating_sub(left).min(inner.0 - 1) as usize;
                    let at = (y * inner.0 as usize + x) * channels;
                    out.extend_from_slice(&small[at..at + channels]);
                }
            }
            out.into()
        }
    }
}

/// The largest part in the middle that has the shape of `size`.
fn middle(own: (u32, u32), size: (u32, u32)) -> Box4 {
    let (own_width, own_height) = (f64::from(own.0), f64::from(own.1));
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    if width * own_height > own_width * height {
        let tall = own_width * height / width;
        let top = (own_height - tall) / 2.0;
        [0.0, top, own_width, top + tall]
    } else {
        let wide = own_height * width / height;
        let left = (own_width - wide) / 2.0;
        [left, 0.0, left + wide, own_height]
    }
}

/// A mask under a Gaussian of that deviation, cut off where the WebUI does; beyond its edges it is mirrored.
fn blurred(mask: &[u8], (width, height): (u32, u32), deviation: f32) -> Vec<u8> {
    let reach = (2.5 * deviation + 0.5) as i64;
    if reach == 0 {
        return mask.to_vec();
    }
    let deviation = f64::from(deviation);
    let weight = |i: i64| libm::exp(-((i * i) as f64) / (2.0 * deviation * deviation));
    let weights: Vec<f64> = (-reach..=reach).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    // Lines of `len` pixels that lie `step` apart.
    let pass = |pixels: &[u8], len: usize, step: usize| {
        let mut out = vec![0; pixels.len()];
        let mut line = vec![0.0; len + 2 * reach as usize];
        for n in 0..pixels.len() / len {
            let start = n / step * step * len + n % step;
            for (x, at) in line.iter_mut().zip(-reach..) {
                *x = f64::from(pixels[start + mirrored(at, len as i64) * step]);
            }
            for (i, window) in line.windows(weights.len()).enumerate() {
                let total: f64 = window.iter().zip(&weights).map(|(x, w)| x * w).sum();
                out[start + i * step] = libm::rint(total / sum) as u8;
            }
        }
        out
    };
    let rows = pass(mask, width as usize, 1);
    pass(&rows, height as usize, width as usize)
}

/// A place beyond the ends, mirrored at the first and the last.
fn mirrored(at: i64, len: i64) -> usize {
    let period = (2 * (len - 1)).max(1);
    let at = at.rem_euclid(period);
    at.min(period - at).min(len - 1) as usize
}

/// The part that holds everything of a mask that is not black, and `padding` pixels more: left, top, width and height. There
/// is something.
fn around(mask: &[u8], (width, height): (u32, u32), padding: u32) -> [u32; 4] {
    let row = width as usize;
    let (mut left, mut top, mut right, mut bottom) = (width, height, 0, 0);
    for (y, line) in (0..height).zip(mask.chunks_exact(row)) {
        let (Some(first), Some(last)) = (
            line.iter().position(|&x| x > 0),
            line.iter().rposition(|&x| x > 0),
        ) else {
            continue;
        };
        left = left.min(first as u32);
        right = right.max(last as u32 + 1);
        top = top.min(y);
        bottom = y + 1;
    }
    let (left, top) = (left.saturating_sub(padding), top.saturating_sub(padding));
    let right = right.saturating_add(padding).min(width);
    let bottom = bottom.saturating_add(padding).min(height);
    [
        left,
        top,
        right.saturating_sub(left),
        bottom.saturating_sub(top),
    ]
}

/// The part grown to the shape of `size`, as far as the picture reaches: on both sides alike, or on one where the other ends.
fn shaped([left, top, width, height]: [u32; 4], own: (u32, u32), size: (u32, u32)) -> [u32; 4] {
    let grown = |side: u32, other: u32, of: u32, to: u32, most: u32| {
        let wanted = (u64::from(other) * u64::from(of)).div_ceil(u64::from(to));
        side.max(wanted.min(u64::from(most)) as u32)
    };
    let wide = grown(width, height, size.0, size.1, own.0);
    let tall = grown(height, width, size.1, size.0, own.1);
    let moved = |from: u32, side: u32, grown: u32, most: u32| {
        from.saturating_sub((grown - side) / 2).min(most - grown)
    };
    [
        moved(left, width, wide, own.0),
        moved(top, height, tall, own.1),
        wide,
        tall,
    ]
}
