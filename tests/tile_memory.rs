//! What decoding in tiles takes besides the arena. A process of its own: everything that it allocates is counted.

#[allow(dead_code)]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicIsize, Ordering};

use common::toy;
use kiln::Kiln;
use kiln::pipeline::{Init, Progress, Raster, Request, Tile};
use serde_json::json;

/// The system's allocator, counting what is held, and the most that was.
struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() as isize;
        MOST.fetch_max(
            HELD.fetch_add(size, Ordering::SeqCst) + size,
            Ordering::SeqCst,
        );
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A model whose VAE has programs for tiles alone.
fn model(folder: &Path, tile: u32, unets: &[(u32, u32)]) -> Kiln {
    let path = folder.join("toy.kiln");
    let bytes = toy::package_with(&json!({"tile": tile}), &json!({}), [unets, &[(tile, tile)]]);
    fs::write(&path, bytes).expect("a file");
    let kiln = Kiln::open(&path).expect("a package");
    kiln.threads(NonZeroUsize::new(2).expect("two"))
}

/// The picture itself and one row of tiles, at the largest size that is promised. The compiler gives a tile's arena 20 MB, so
/// with 18 MB more it is less than 40. Then the way back: the picture, and what its tiles become.
#[test]
fn a_picture_of_2048_by_2048_takes_18_mb_besides_the_arena() {
    const SIDE: usize = 2048;
    let size = (SIDE as u32, SIDE as u32);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kiln = model(folder.path(), 136, &[size]);
    let latents = vec![0.5; 4 * (SIDE / 8) * (SIDE / 8)];
    let held = HELD.load(Ordering::SeqCst);
    MOST.store(held, Ordering::SeqCst);
    let pixels = kiln.decode(latents, size, None, Some(Tile::Auto));
    let most = MOST.load(Ordering::SeqCst) - held;
    let pixels = pixels.expect("a picture");
    assert_eq!(pixels.len(), SIDE * SIDE * 3);
    // The picture's bytes are among it, so something was counted.
    println!("decoding: {most} bytes");
    assert!((12_582_912..18_000_000).contains(&most), "{most}");

    let picture = Raster::new(size.0, size.1, pixels).expect("its bytes");
    let request = Request::new("a red apple")
        .size(size.0, size.1)
        .steps(2)
        .tile(Tile::Auto)
        .init(Init::new(picture));
    let settings = kiln.settings(&request).expect("settings");
    let arena = kiln.memory(&settings).expect("a plan").allocated_bytes();
    drop(settings);
    // The picture is there already, and counts.
    let held = HELD.load(Ordering::SeqCst) - (3 * SIDE * SIDE) as isize;
    MOST.store(0, Ordering::SeqCst);
    let mut encoded = None;
    let drawn = kiln.draw(&request, &mut |progress| {
        if let Progress::Denoised { .. } = progress {
            encoded.get_or_insert(MOST.load(Ordering::SeqCst) - held);
        }
        ControlFlow::Continue(())
    });
    drawn.expect("a picture");
    let most = encoded.expect("a step") - arena as isize;
    println!("encoding: {most} bytes");
    assert!((12_582_912..20_000_000).contains(&most), "{most}");
}
