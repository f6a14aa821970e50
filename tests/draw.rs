//! Pictures: their bits, what they say of themselves, and ends before the end.

#[allow(dead_code)]
mod common;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use common::toy;
use kiln::pipeline::samplers::{SamplerKind, ScheduleKind, Spacing};
use kiln::pipeline::{Decoder, PromptStyle, RequestError, Rng, Settings, Watch};
use kiln::runtime::{Cancellation, Model, RuntimeError};
use kiln::{Error, Kiln, Picture, Progress, Request};
use kiln_kernels::{Isa, Kernels};
use kiln_package::GraphKind;
use serde_json::json;
use tempfile::TempDir;

fn toy() -> (TempDir, Kiln) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kiln = Kiln::open(toy::write(folder.path())).expect("a package");
    (folder, kiln)
}

fn on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn apple() -> Request {
    Request::new("a red apple").seed(1)
}

#[test]
fn a_request_takes_the_cards_defaults() {
    let (_folder, kiln) = toy();
    let expected = Settings {
        prompt: "a red apple".into(),
        negative: String::new(),
        prompt_style: PromptStyle::Webui,
        steps: 4,
        seed: 1,
        width: 64,
        height: 64,
        guidance_scale: 3.0,
        sampler: SamplerKind::Ddim,
        schedule: None,
        spacing: None,
        eta: None,
        guidance_rescale: 0.0,
        guidance_from: None,
        guidance_until: None,
        rng: Rng::Torch,
        subseed: None,
        eta_seed_delta: 0,
        clip_skip: 1,
        init: None,
        hires: None,
        decoder: Decoder::Vae,
        tile: None,
    };
    assert_eq!(kiln.settings(&apple()).expect("settings"), expected);
    assert_eq!(kiln.sizes(), toy::SIZES);
    let picture = kiln.draw(&apple(), &mut on).expect("a picture");
    assert_eq!(
        (picture.settings(), picture.model(), picture.cut().len()),
        (&expected, "toy", 0)
    );
    assert_eq!(picture.view().dim(), (64, 64, 3));
    let memory = kiln.memory(&expected).expect("sizes");
    assert!(memory.arena_bytes >= 64 * 64 * 3 * 4 && memory.weight_bytes > 0);
}

#[test]
fn a_text_encoder_can_leave_out_its_last_layer() {
    let (_folder, kiln) = toy();
    let draw = |clip_skip: u32| kiln.draw(&apple().clip_skip(clip_skip), &mut on);
    let (whole, shorter) = (draw(1).expect("a picture"), draw(2).expect("a picture"));
    assert_eq!(
        whole.pixels(),
        kiln.draw(&apple(), &mut on).expect("a picture").pixels()
    );
    assert!(whole.pixels() != shorter.pixels());
    assert_eq!(shorter.settings().clip_skip, 2);
    let error = draw(3).expect_err("no such form").to_string();
    assert_eq!(error, "clip skip 3: the model has 1, 2");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let defaults = json!({
        "steps": 4, "guidance_scale": 3.0, "sampler": "ddim", "width": 64, "height": 64, "clip_skip": 2,
    });
    let path = toy::write_with(folder.path(), &json!({ "defaults": defaults }), &json!({}));
    let kiln = Kiln::open(path).expect("a package");
    let picture = kiln.draw(&apple(), &mut on).expect("a picture");
    assert_eq!(picture.pixels(), shorter.pixels());
}

#[test]
fn a_wide_picture_is_wide() {
    let (_folder, kiln) = toy();
    let picture = kiln
        .draw(&apple().size(96, 64), &mut on)
        .expect("a picture");
    assert_eq!(
        (picture.width(), picture.height(), picture.view().dim()),
        (96, 64, (64, 96, 3))
    );
    assert_eq!(
        picture.view()[[1, 2, 1]],
        picture.pixels()[(96 + 2) * 3 + 1]
    );
}

#[test]
fn every_setting_matters() {
    let (_folder, kiln) = toy();
    let draw = |request: Request| {
        kiln.draw(&request, &mut on)
            .expect("a picture")
            .pixels()
            .to_vec()
    };
    let pictures = [
        apple(),
        apple().seed(2),
        apple().steps(5),
        apple().negative("blue"),
        apple().guidance_scale(1.0),
        apple().guidance_scale(2.0),
        apple().sampler(SamplerKind::Euler),
        apple().sampler(SamplerKind::EulerAncestral),
        apple().clip_skip(2),
        Request::new("a blue apple").seed(1),
        apple().eta(0.5),
        apple().eta(0.5).eta_seed_delta(31337),
        apple().spacing(Spacing::Trailing),
        apple()
            .sampler(SamplerKind::Euler)
            .schedule(ScheduleKind::Karras),
        apple().guidance_rescale(0.7),
        apple().guidance_from(2.0),
        apple().guidance_until(1.0),
        apple().rng(Rng::Philox),
        apple().subseed(2, 0.3),
    ]
    .map(draw);
    for (i, picture) in pictures.iter().enumerate() {
        assert!(
            !pictures[..i].contains(picture),
            "picture {i} is one of those before it"
        );
    }
    // Without guidance the negative prompt has nothing to say, and only the low half of a seed counts.
    assert_eq!(
        draw(apple().guidance_scale(1.0).negative("blue")),
        pictures[4]
    );
    assert_eq!(draw(apple().seed(1 << 32 | 1)), pictures[0]);
    assert_ne!(
        draw(apple().rng(Rng::Philox).seed(1 << 32 | 1)),
        draw(apple().rng(Rng::Philox))
    );
    // An interval of all sigmas changes nothing, one of none is the prompt's prediction alone.
    let all = apple().guidance_from(1e9).guidance_until(0.0);
    assert_eq!(draw(all), pictures[0]);
    let none = apple().guidance_from(1e9).guidance_until(1e9);
    assert_eq!(draw(none), pictures[4]);
    assert_eq!(draw(apple().eta(0.0)), pictures[0]);
    assert_eq!(draw(apple().subseed(2, 0.0)), pictures[0]);
}

/// A sampler of two evaluations tells of each step once, with the latents at its end.
#[test]
fn progress_counts_steps_whatever_the_sampler() {
    let (_folder, kiln) = toy();
    for sampler in SamplerKind::ALL {
        let mut told = Vec::new();
        kiln.draw(&apple().sampler(sampler), &mut |progress| {
            if let Progress::Denoised { step, steps, .. } = progress {
                told.push((step, steps));
            }
            ControlFlow::Continue(())
        })
        .expect("a picture");
        assert_eq!(told, [(1, 4), (2, 4), (3, 4), (4, 4)], "{sampler}");
    }
}

#[test]
fn progress_tells_every_part() {
    let (_folder, kiln) = toy();
    let mut told = Vec::new();
    let picture = kiln.draw(&apple().steps(2), &mut |progress| {
        told.push(match progress {
            Progress::Encoded { context } => format!("encoded {}", context.len()),
            Progress::Denoised {
                step,
                steps,
                latents,
            } => format!("step {step} of {steps}: {}", latents.len()),
            Progress::Decoded { planes } => format!("decoded {}", planes.len()),
            other => panic!("{other:?}"),
        });
        ControlFlow::Continue(())
    });
    assert!(picture.is_ok());
    assert_eq!(
        told,
        [
            "encoded 1232",
            "step 1 of 2: 256",
            "step 2 of 2: 256",
            "decoded 12288"
        ]
    );
}

#[test]
fn breaking_off_ends_it_at_once() {
    let (_folder, kiln) = toy();
    for end in 1..=6 {
        let mut told = 0;
        let result = kiln.draw(&apple(), &mut |_| {
            told += 1;
            if told == end {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(matches!(result, Err(Error::Cancelled)), "at {end}");
        assert_eq!(told, end);
    }
}

#[test]
fn a_cancellation_ends_it_too() {
    let (_folder, kiln) = toy();
    let cancellation = Cancellation::new();
    let kiln = kiln.cancellation(cancellation.clone());
    let cancel: &mut Watch<'_> = &mut |progress| {
        if let Progress::Denoised { step: 2, .. } = progress {
            cancellation.cancel();
        }
        ControlFlow::Continue(())
    };
    assert!(matches!(kiln.draw(&apple(), cancel), Err(Error::Cancelled)));
    assert!(matches!(
        kiln.draw(&apple(), &mut on),
        Err(Error::Cancelled)
    ));
}

#[test]
fn requests_that_cannot_be_met_are_told_before_anything_is_drawn() {
    let (_folder, kiln) = toy();
    let refused = |request: Request| match kiln.draw(&request, &mut |_| panic!("drawn")) {
        Err(Error::Request(error)) => error,
        other => panic!("{other:?}"),
    };
    let available = toy::SIZES.to_vec();
    assert_eq!(
        refused(apple().size(8, 8)),
        RequestError::Size {
            width: 8,
            height: 8,
            available
        }
    );
    assert_eq!(
        refused(apple().steps(0)),
        RequestError::Steps {
            steps: 0,
            most: 1000
        }
    );
    assert_eq!(
        refused(apple().steps(1000)),
        RequestError::Steps {
            steps: 1000,
            most: 999
        }
    );
    assert_eq!(
        refused(apple().guidance_scale(f32::INFINITY)),
        RequestError::GuidanceScale(f32::INFINITY)
    );
    for (request, message) in [
        (
            apple().schedule(ScheduleKind::Karras),
            "schedule karras: the sampler ddim takes normal",
        ),
        (apple().eta(1.5), "eta is 1.5, expected 0 to 1"),
        (
            apple().sampler(SamplerKind::Heun).eta(0.5),
            "eta: the sampler heun has none",
        ),
        (
            apple().sampler(SamplerKind::Lcm).spacing(Spacing::Leading),
            "spacing: the sampler lcm has timesteps of its own",
        ),
        (
            apple().guidance_rescale(2.0),
            "guidance-rescale 2: a number from 0 to 1 expected",
        ),
        (
            apple().subseed(1, f32::NAN),
            "subseed-strength NaN: a number from 0 to 1 expected",
        ),
        (
            apple().guidance_from(1.0).guidance_until(2.0),
            "guidance from sigma 1 until 2: it falls, and is no less than 0",
        ),
    ] {
        assert_eq!(refused(request).to_string(), message);
    }
}

/// Numbers that grow to infinity are an error, not a picture.
#[test]
fn numbers_out_of_range_are_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The largest sigma of these betas is about 1e9.
    let path = toy::write_with(folder.path(), &json!({}), &json!({ "beta_end": 0.1 }));
    let kiln = Kiln::open(path).expect("a package");
    let result = kiln.draw(
        &apple().sampler(SamplerKind::Euler).guidance_scale(f32::MAX),
        &mut on,
    );
    assert!(
        matches!(
            result,
            Err(Error::NotFinite {
                graph: GraphKind::Unet,
                step: Some(_)
            })
        ),
        "{result:?}"
    );
    let path = toy::write_with(
        folder.path(),
        &json!({ "vae_scaling_factor": 1e-40 }),
        &json!({}),
    );
    let result = Kiln::open(path).expect("a package").draw(&apple(), &mut on);
    assert!(
        matches!(
            result,
            Err(Error::NotFinite {
                graph: GraphKind::VaeDecoder,
                step: None
            })
        ),
        "{result:?}"
    );
}

#[test]
fn missing_graphs_are_named() {
    let error = Kiln::open("no such file.kiln").err().expect("an error");
    assert!(matches!(error, Error::Runtime(RuntimeError::Open { .. })));
    assert!(
        error.to_string().starts_with("no such file.kiln: "),
        "{error}"
    );
}

#[test]
fn a_png_gives_the_pixels_back() {
    let (_folder, kiln) = toy();
    let picture = kiln.draw(&apple(), &mut on).expect("a picture");
    let mut bytes = Vec::new();
    picture.encode_png(&mut bytes).expect("memory");
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    assert_eq!((info.width, info.height), (64, 64));
    assert_eq!(
        (info.color_type, info.bit_depth),
        (png::ColorType::Rgb, png::BitDepth::Eight)
    );
    assert_eq!(pixels, picture.pixels());
}

/// What a picture of the toy model is on every machine, with every instruction set and number of threads.
#[test]
fn toy_pictures_have_the_same_bits_everywhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = toy::write(folder.path());
    let requests = SamplerKind::ALL.map(|sampler| apple().sampler(sampler).negative("blue"));
    let count = requests.len();
    golden(
        "toy",
        &requests,
        &[(1, count), (2, count), (3, count)],
        &|| Model::open(&path).expect("a package"),
    );
}

/// The same of the model that the program carries. Scalar kernels take half a minute for the first picture.
#[cfg(any(feature = "embedded-model", feature = "prebuilt-model"))]
#[test]
fn embedded_pictures_have_the_same_bits_everywhere() {
    let requests = [
        Request::new("red apple, 3d style").seed(1).steps(2),
        Request::new("grinning face, 3d style, blue background")
            .seed(2)
            .steps(2)
            .sampler(SamplerKind::EulerAncestral),
        Request::new("cat face, flat style")
            .seed(3)
            .steps(2)
            .guidance_scale(1.0)
            .sampler(SamplerKind::Euler),
    ];
    let open = || {
        kiln::pipeline::embedded_model()
            .expect("a model")
            .expect("a package")
    };
    golden("embedded", &requests, &[(2, 1)], &open);
}

/// Compares with `goldens/NAME.txt`, whose lines are a command and its picture's hash. `KILN_BLESS=1` writes the file anew.
///
/// Each instruction set but the scalar draws everything with 1, 2 and 3 threads. `scalar` is what the scalar draws: a
/// number of threads, and how many of the requests.
fn golden(name: &str, requests: &[Request], scalar: &[(usize, usize)], open: &dyn Fn() -> Model) {
    let path = common::fixture("../goldens").join(format!("{name}.txt"));
    let draw = |isa: Isa, threads: usize, request: &Request| {
        let model = open().with_isa(isa).expect("it was listed");
        let kiln = Kiln::from_model(model)
            .expect("a package")
            .threads(NonZeroUsize::new(threads).expect("some"));
        let picture = kiln.draw(request, &mut on).expect("a picture");
        format!("{} {:016x}", command(&picture), hash(picture.pixels()))
    };
    if std::env::var_os("KILN_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let head = format!("# KILN_BLESS=1 cargo test --release --test draw {name}");
        let lines: Vec<String> = requests
            .iter()
            .map(|request| draw(Isa::detect(), 1, request))
            .collect();
        std::fs::write(&path, format!("{head}\n{}\n", lines.join("\n")))
            .expect("the folder can be written to");
    }
    let file = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let expected: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(expected.len(), requests.len());
    let everything = [
        (1, requests.len()),
        (2, requests.len()),
        (3, requests.len()),
    ];
    for isa in Kernels::all().map(Kernels::isa) {
        for &(threads, count) in if isa == Isa::Scalar {
            scalar
        } else {
            &everything
        } {
            for (request, expected) in requests[..count].iter().zip(&expected) {
                assert_eq!(
                    draw(isa, threads, request),
                    **expected,
                    "{}, {threads} threads",
                    isa.name()
                );
            }
        }
    }
}

/// The command that draws the picture.
fn command(picture: &Picture) -> String {
    let Settings {
        prompt,
        negative,
        steps,
        seed,
        width,
        height,
        guidance_scale,
        sampler,
        ..
    } = picture.settings();
    assert_eq!(picture.settings().chosen(), []);
    format!(
        "kiln draw '{prompt}' --negative '{negative}' --steps {steps} --seed {seed} --size {width}x{height} \
         --guidance-scale {guidance_scale} --sampler {sampler}:"
    )
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
