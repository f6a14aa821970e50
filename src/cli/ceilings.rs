//! The memory that drawings take at most, for `kiln info`.

use std::fmt::Write;

use kiln::pipeline::{Init, Kiln, Promise, Raster, Request};
use kiln::runtime::{Model, SessionOptions};
use serde_json::{Value, json};

/// A way to draw, and what it takes.
struct Ceiling {
    size: (u32, u32),
    guided: bool,
    begun: bool,
    promise: Promise,
}

/// Each size with and without guidance, and the first of these with a picture to begin with. What cannot be drawn is left
/// out.
fn ceilings(model: &Model) -> Vec<Ceiling> {
    // A package of other things than drawing has no ceilings.
    let Ok(kiln) = Kiln::from_model(model.clone()) else {
        return Vec::new();
    };
    let ways = [(true, false), (false, false), (true, true)];
    let ceiling = |size: (u32, u32), guided: bool, begun: bool| {
        let mut request = Request::new("").size(size.0, size.1);
        request = request.guidance_scale(if guided { 7.5 } else { 1.0 });
        if begun {
            let pixels = vec![0; 3 * size.0 as usize * size.1 as usize];
            request = request.init(Init::new(Raster::new(size.0, size.1, pixels)?));
        }
        let settings = kiln.settings(&request).ok()?;
        let promise = kiln.promise(&settings).ok()?;
        Some(Ceiling {
            size,
            guided,
            begun,
            promise,
        })
    };
    let sizes = kiln.sizes().into_iter();
    sizes
        .flat_map(|size| ways.map(|(guided, begun)| ceiling(size, guided, begun)))
        .flatten()
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
        "{:<13} {:<22} {:>9} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8}",
        "size", "", "at most", "arena", "scratch", "tensors", "picture", "tokenizer", "program"
    );
    for ceiling in ceilings(model) {
        let how = match (ceiling.guided, ceiling.begun) {
            (true, false) => "with guidance",
            (false, false) => "without guidance",
            (_, true) => "from a picture",
        };
        let promise = ceiling.promise;
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let _ = writeln!(
            text,
            "{:<13} {how:<22} {:>9} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8}",
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
                "guidance": ceiling.guided,
                "picture": ceiling.begun,
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
