//! The memory that drawings take at most, for `kiln info`.

use std::fmt::Write;

use kiln::pipeline::{Decoder, Init, Kiln, Promise, Raster, Request, Tile};
use kiln::runtime::{Model, SessionOptions};
use serde_json::{Value, json};

/// A way to draw.
#[derive(Clone, Copy)]
struct Way {
    guided: bool,
    begun: bool,
    /// Where another one draws unless it is asked for.
    decoder: Option<Decoder>,
    tiled: bool,
}

impl Way {
    fn text(self) -> String {
        let mut text = match (self.guided, self.begun) {
            (true, false) => "with guidance",
            (false, false) => "without guidance",
            (_, true) => "from a picture",
        }
        .to_owned();
        if let Some(decoder) = self.decoder {
            let _ = write!(text, ", {decoder}");
        }
        text + if self.tiled { ", --tile" } else { "" }
    }
}

/// What a way to draw takes.
struct Ceiling {
    size: (u32, u32),
    way: Way,
    promise: Promise,
}

/// Each size with and without guidance, and the first of these with a picture to begin with, with another decoder and in
/// tiles. What cannot be drawn is left out.
fn ceilings(model: &Model) -> Vec<Ceiling> {
    // A package of other things than drawing has no ceilings.
    let Ok(kiln) = Kiln::from_model(model.clone()) else {
        return Vec::new();
    };
    let side = kiln.card().tile;
    let ceiling = |size: (u32, u32), way: Way| {
        // A picture that is no larger than a tile is decoded as it is.
        if way.tiled && side.is_none_or(|side| side >= size.0.max(size.1)) {
            return None;
        }
        let mut request = Request::new("").size(size.0, size.1);
        request = request.guidance_scale(if way.guided { 7.5 } else { 1.0 });
        if let Some(decoder) = way.decoder {
            request = request.decoder(decoder);
        }
        if way.tiled {
            request = request.tile(Tile::Auto);
        }
        if way.begun {
            let pixels = vec![0; 3 * size.0 as usize * size.1 as usize];
            request = request.init(Init::new(Raster::new(size.0, size.1, pixels)?));
        }
        let settings = kiln.settings(&request).ok()?;
        let promise = kiln.promise(&settings).ok()?;
        Some(Ceiling { size, way, promise })
    };
    let plain = Way {
        guided: true,
        begun: false,
        decoder: None,
        tiled: false,
    };
    let mut ways = vec![
        plain,
        Way {
            guided: false,
            ..plain
        },
        Way {
            begun: true,
            ..plain
        },
        Way {
            tiled: true,
            ..plain
        },
    ];
    for decoder in kiln.decoders().into_iter().skip(1) {
        let decoder = Some(decoder);
        ways.extend([false, true].map(|tiled| Way {
            decoder,
            tiled,
            ..plain
        }));
    }
    let sizes = kiln.sizes_with(side).into_iter();
    sizes
        .flat_map(|size| ways.iter().map(move |&way| (size, way)))
        .filter_map(|(size, way)| ceiling(size, way))
        .collect()
}

/// The ceilings as a table.
pub fn as_text(model: &Model) -> String {
    let mut text = format!(
        "\nmemory of its own that a drawing takes at most, in MB, with {} threads; weights are not in it\n",
        SessionOptions::default().thread_count()
    );
    let _ = writeln!(
        text,
        "{:<13} {:<30} {:>9} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8}",
        "size", "", "at most", "arena", "scratch", "tensors", "picture", "tokenizer", "program"
    );
    for ceiling in ceilings(model) {
        let how = ceiling.way.text();
        let promise = ceiling.promise;
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let _ = writeln!(
            text,
            "{:<13} {how:<30} {:>9} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8}",
            format!("{}x{}", ceiling.size.0, ceiling.size.1),
            megabytes(promise.total_bytes()),
            megabytes(promise.arena_bytes),
            megabytes(promise.scratch_bytes),
            megabytes(promise.tensor_bytes),
            megabytes(promise.picture_bytes),
            megabytes(promise.tokenizer_bytes),
            megabytes(promise.program_bytes),
        );
    }
    text.push_str("the tokenizer is gone before arena, scratch, tensors and picture are there\n");
    text
}

/// The ceilings in bytes.
pub fn as_json(model: &Model) -> Value {
    ceilings(model)
        .iter()
        .map(|ceiling| {
            let promise = ceiling.promise;
            json!({
                "width": ceiling.size.0,
                "height": ceiling.size.1,
                "guidance": ceiling.way.guided,
                "picture": ceiling.way.begun,
                "decoder": ceiling.way.decoder.map(Decoder::name),
                "tile": ceiling.way.tiled,
                "total_bytes": promise.total_bytes(),
                "arena_bytes": promise.arena_bytes,
                "scratch_bytes": promise.scratch_bytes,
                "tensor_bytes": promise.tensor_bytes,
                "picture_bytes": promise.picture_bytes,
                "tokenizer_bytes": promise.tokenizer_bytes,
                "program_bytes": promise.program_bytes,
            })
        })
        .collect()
}
