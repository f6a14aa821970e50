//! The steps of a drawing allocate nothing, whatever the sampler, also where each is written to a file.

#[allow(dead_code)]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::toy;
use kiln::pipeline::samplers::SamplerKind;
use kiln::pipeline::{Checkpoint, Init, Mask, Raster};
use kiln::{Kiln, Progress, Request};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test in this file: another one would allocate meanwhile.
#[test]
fn steps_allocate_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    check(
        Kiln::open(toy::write(folder.path())).expect("a package"),
        &SamplerKind::ALL,
    );
    check(
        Kiln::open(toy::write_in_turns(folder.path())).expect("a package"),
        &[SamplerKind::EulerAncestral, SamplerKind::Heun],
    );
    // In 8 bits and in stages. Not with every sampler: after a minute libtest says that the test runs, which allocates.
    #[cfg(any(feature = "embedded-model", feature = "prebuilt-model"))]
    check(
        Kiln::embedded().expect("a package"),
        &[SamplerKind::EulerAncestral, SamplerKind::Heun],
    );
}

fn check(kiln: Kiln, samplers: &[SamplerKind]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kept = folder.path().join("kept");
    let kiln = kiln.threads(NonZeroUsize::new(2).expect("two"));
    for &sampler in samplers {
        // What is said changes on the way.
        let request = Request::new("a [red|blue] (apple:1.2)")
            .steps(8)
            .seed(1)
            .sampler(sampler)
            .guidance_rescale(0.5)
            .guidance_until(1.0);
        let raster = |byte| Raster::new(16, 16, vec![byte; 768]).expect("a picture");
        let init = Init {
            strength: 1.0,
            mask: Some(Mask::new(raster(255))),
            ..Init::new(raster(99))
        };
        for request in [request.clone(), request.init(init)] {
            let settings = kiln.settings(&request).expect("a request");
            for checkpoint in [None, Some(Checkpoint::new(&kept))] {
                let mut counts = [0; 8];
                let mut watch = |progress: Progress<'_>| {
                    if let Progress::Denoised { step, .. } = progress {
                        counts[step - 1] = ALLOCATIONS.load(Ordering::SeqCst);
                    }
                    ControlFlow::Continue(())
                };
                let picture = match &checkpoint {
                    Some(checkpoint) => kiln.draw_kept(&settings, checkpoint, &mut watch),
                    None => kiln.draw_settings(&settings, &mut watch),
                };
                picture.expect("a picture");
                assert!(counts[0] > 0);
                assert_eq!(counts, [counts[0]; 8], "{sampler}");
            }
        }
    }
}
