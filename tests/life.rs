//! Drawings that are broken off, also by SIGKILL, and gone on with: the picture is that of an undisturbed run, bit for bit.

#[allow(dead_code)]
mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::command::{fails, folder, names, succeeds};
use common::toy;
use kiln::pipeline::samplers::SamplerKind;
use kiln::pipeline::{Checkpoint, Hires, Init, Mask, Raster, Rng, Upscaler};
use kiln::{Error, Kiln, Progress, Request};
use serde_json::json;

/// Draws until so many steps are done, then breaks off; goes on from the file each time.
fn in_pieces(kiln: &Kiln, request: &Request, path: &Path, pieces: &[usize]) -> Vec<u8> {
    let settings = kiln.settings(request).expect("a request");
    let mut checkpoint = Checkpoint::new(path).note("a note");
    for &piece in pieces {
        let broken = kiln.draw_kept(&settings, &checkpoint, &mut |progress| match progress {
            Progress::Denoised { step, .. } if step == piece => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(broken, Err(Error::Cancelled)), "{broken:?}");
        checkpoint = Checkpoint::open(path).expect("was written");
        assert_eq!(checkpoint.progress(), Some((piece, settings.taken())));
        assert_eq!(checkpoint.read_note(), "a note");
    }
    let again = checkpoint.request().unwrap_or_else(|| request.clone());
    let again = match &settings.init {
        Some(init) if !pieces.is_empty() => {
            assert_eq!(checkpoint.needs(), (true, init.mask.is_some()));
            let mask = init.mask.as_ref().map(|mask| mask.picture.clone());
            checkpoint.begin_with(again, init.picture.clone(), mask)
        }
        _ => again,
    };
    let again = kiln.settings(&again).expect("as before");
    assert_eq!(again, settings);
    let mut seen = Vec::new();
    let picture = kiln.draw_kept(&again, &checkpoint, &mut |progress| {
        if let Progress::Denoised { step, .. } = progress {
            seen.push(step);
        }
        ControlFlow::Continue(())
    });
    let first = pieces.last().map_or(1, |last| last + 1);
    assert_eq!(seen, (first..=settings.taken()).collect::<Vec<_>>());
    checkpoint.remove().expect("it is there");
    assert!(!path.exists());
    picture.expect("a picture").pixels().to_vec()
}

fn undisturbed(kiln: &Kiln, request: &Request) -> Vec<u8> {
    let picture = kiln.draw(request, &mut |_| ControlFlow::Continue(()));
    picture.expect("a picture").pixels().to_vec()
}

#[test]
fn every_sampler_goes_on_where_it_was() {
    let folder = folder();
    let kiln = Kiln::open(toy::write(folder.path())).expect("a package");
    let path = folder.path().join("kept");
    for sampler in SamplerKind::ALL {
        // What is said changes on the way, and 0.1 and 0.7 have no short binary form.
        let request = Request::new("a [red:blue:0.4] (apple:1.2)\n")
            .negative("\"blue\" \\ ")
            .steps(7)
            .seed(u64::MAX - 5)
            .sampler(sampler)
            .guidance_scale(0.1 + 3.0)
            .guidance_rescale(0.7)
            .subseed(3, 0.1);
        let request = match sampler {
            SamplerKind::Lcm | SamplerKind::EulerAncestral => request.rng(Rng::Philox),
            _ => request,
        };
        let whole = undisturbed(&kiln, &request);
        for pieces in [&[][..], &[1], &[3, 4], &[1, 2, 3, 4, 5, 6, 7]] {
            assert!(
                in_pieces(&kiln, &request, &path, pieces) == whole,
                "{sampler}, broken off after {pieces:?}"
            );
        }
    }
}

#[test]
fn pictures_masks_and_second_passes_go_on_too() {
    let folder = folder();
    let kiln = Kiln::open(toy::write(folder.path())).expect("a package");
    let path = folder.path().join("kept");
    let raster = |size: u32, seed: u32| {
        let bytes = (0..size * size * 3).map(|i| (i.wrapping_mul(seed) >> 7) as u8);
        Raster::new(size, size, bytes.collect::<Vec<_>>()).expect("a picture")
    };
    let init = Init {
        strength: 0.7,
        ..Init::new(raster(80, 2_654_435_761))
    };
    let masked = Init {
        mask: Some(Mask {
            blur: 1.3,
            only_masked: Some(4),
            ..Mask::new(raster(80, 40_503))
        }),
        ..init.clone()
    };
    let hires = |upscaler| Hires {
        upscaler,
        steps: Some(6),
        ..Hires::new(1.5)
    };
    let request = Request::new("a red apple")
        .steps(8)
        .seed(5)
        .sampler(SamplerKind::Dpmpp2mSde);
    for request in [request.clone().init(init), request.clone().init(masked)] {
        let whole = undisturbed(&kiln, &request);
        for pieces in [&[1][..], &[2, 5]] {
            assert!(
                in_pieces(&kiln, &request, &path, pieces) == whole,
                "{pieces:?}"
            );
        }
    }
    let package = toy::package_of(&[(64, 64), (96, 96)], &json!({}), &json!({}));
    let larger = folder.path().join("larger.kiln");
    fs::write(&larger, package).expect("written");
    let kiln = Kiln::open(larger).expect("a package");
    for upscaler in Upscaler::ALL {
        let request = request.clone().hires(hires(upscaler));
        let whole = undisturbed(&kiln, &request);
        // The first pass has eight steps, of the second's six four are taken.
        for pieces in [&[3][..], &[8], &[9], &[2, 8, 10, 12]] {
            assert!(
                in_pieces(&kiln, &request, &path, pieces) == whole,
                "{upscaler}, {pieces:?}"
            );
        }
    }
}

/// Numbers that look like chance and are always the same.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005) + 1_442_695_040_888_963_407;
        (self.0 >> 33) % end
    }
}

fn start(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_kiln"))
        .current_dir(folder)
        .args(arguments)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs")
}

/// Kills a drawing by SIGKILL some microseconds after a step, or in the midst of one.
fn kill_after(folder: &Path, arguments: &[&str], step: usize, then: Duration) {
    let mut child = start(folder, arguments);
    let begin = Instant::now();
    loop {
        // Whatever the moment, what is there is whole.
        let path = folder.join("kept");
        if path.exists() {
            let there = Checkpoint::open(&path).expect("a whole file at every moment");
            if there.progress().expect("of a drawing").0 >= step {
                break;
            }
        }
        assert!(child.try_wait().expect("a child").is_none(), "ended before");
        assert!(begin.elapsed() < Duration::from_secs(300), "too slow");
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(then);
    child.kill().expect("it runs");
    let status = child.wait().expect("a child");
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
}

/// Draws undisturbed, then again with kills after some steps.
fn survives(folder: &Path, options: &[&str], kills: &[(usize, Duration)]) {
    let with =
        |more: &[&'static str]| [&["draw", "a [red|blue] apple", "-q"], options, more].concat();
    succeeds(folder, &with(&["-o", "whole.png"]));
    let (first, others) = kills.split_first().expect("some");
    let begin = with(&["-o", "kept.png", "--checkpoint", "kept"]);
    kill_after(folder, &begin, first.0, first.1);
    let go_on = ["draw", "--resume", "kept", "-q"];
    for (step, then) in others {
        kill_after(folder, &go_on, *step, *then);
    }
    assert!(!folder.join("kept.png").exists());
    succeeds(folder, &go_on);
    let read = |name: &str| fs::read(folder.join(name)).expect("a picture");
    assert!(
        read("whole.png") == read("kept.png"),
        "{options:?}, {kills:?}"
    );
    let left: Vec<String> = names(folder)
        .into_iter()
        .filter(|name| name.starts_with("kept"))
        .collect();
    assert_eq!(left, ["kept.png"]);
    fs::remove_file(folder.join("kept.png")).expect("it is there");
}

/// Ten kills: stochastic samplers, multi-step ones, some with two evaluations in a step.
#[test]
fn a_drawing_survives_kills() {
    let mut chance = Chance(7);
    let folder = folder();
    toy::write(folder.path());
    for sampler in ["euler-a", "dpmpp-2m-sde", "unipc", "dpm2-a"] {
        let first = 1 + chance.below(150) as usize;
        let second = first + 1 + chance.below(150) as usize;
        let kills = [first, second].map(|step| (step, Duration::from_micros(chance.below(3000))));
        let options = [
            "-m",
            "toy.kiln",
            "--steps",
            "900",
            "--seed",
            "3",
            "--sampler",
            sampler,
        ];
        survives(folder.path(), &options, &kills);
    }
}

/// The same with a model that takes its time.
#[cfg(any(feature = "embedded-model", feature = "prebuilt-model"))]
#[test]
fn a_drawing_of_the_model_in_the_program_survives_kills() {
    let mut chance = Chance(11);
    let folder = folder();
    let options = ["--steps", "6", "--seed", "3", "--sampler", "dpmpp-3m-sde"];
    let kills = [1, 3].map(|step| (step, Duration::from_millis(chance.below(120))));
    survives(folder.path(), &options, &kills);
}

#[test]
fn what_cannot_be_gone_on_with_is_refused() {
    let folder = folder();
    let here = folder.path();
    toy::write(here);
    let begin = [
        "draw",
        "a",
        "-m",
        "toy.kiln",
        "--steps",
        "900",
        "-o",
        "x.png",
        "--checkpoint",
        "kept",
    ];
    kill_after(here, &begin, 5, Duration::ZERO);
    let _ = fs::remove_file(here.join("kept.part"));
    let good = fs::read(here.join("kept")).expect("there");
    let with = |more: &[&'static str]| [&["draw", "--resume", "kept"], more].concat();

    fails(
        here,
        &begin,
        1,
        &["kept: holds a drawing at step", "of 900", "--resume kept"],
    );
    fails(here, &with(&["--steps", "3"]), 2, &["--resume", "--steps"]);
    fails(here, &with(&["a prompt"]), 2, &["--resume"]);
    fails(
        here,
        &["draw", "--resume", "nothing"],
        1,
        &["nothing: No such file"],
    );
    fails(
        here,
        &with(&["--checkpoint", "nowhere/kept"]),
        1,
        &["nowhere/kept: No such file"],
    );
    fails(
        here,
        &[
            "draw",
            "a",
            "-n",
            "2",
            "-m",
            "toy.kiln",
            "--checkpoint",
            "new",
        ],
        2,
        &["--checkpoint", "one drawing"],
    );
    fails(
        here,
        &["draw", "a", "--checkpoint", "toy.kiln"],
        1,
        &["toy.kiln: is there already"],
    );
    fails(
        here,
        &["draw", "--resume", "toy.kiln"],
        1,
        &["toy.kiln: is no checkpoint"],
    );
    #[cfg(any(feature = "embedded-model", feature = "prebuilt-model"))]
    {
        // Another model of the same name is another one.
        let other = toy::package(&json!({"description": "another"}), &json!({}));
        fs::write(here.join("other.kiln"), other).expect("written");
        fails(
            here,
            &with(&["-m", "other.kiln"]),
            1,
            &["kept: was made with another model than other.kiln"],
        );
    }

    for (at, parts) in [
        (0, &["kept: is no checkpoint of a drawing"][..]),
        (8, &["kept: is of version", "this Kiln knows version 1"]),
        (13, &["kept: is damaged: its checksum is wrong"]),
        (17, &["kept: is damaged: it has"]),
        (40, &["kept: is damaged"]),
        (good.len() - 1, &["kept: is damaged: its checksum is wrong"]),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(here.join("kept"), &bad).expect("written");
        fails(here, &with(&[]), 1, parts);
    }
    for len in [0, 5, 20, 100, good.len() - 1] {
        fs::write(here.join("kept"), &good[..len]).expect("written");
        fails(here, &with(&[]), 1, &["kept: is"]);
    }
    fs::write(here.join("kept"), &good).expect("written");
    succeeds(here, &with(&["-q", "-o", "y.png"]));
    assert!(here.join("y.png").exists() && !here.join("x.png").exists());
}

/// SIGINT stops in the midst of a step, keeps the file and says how to go on.
#[cfg(unix)]
#[test]
fn an_interrupted_drawing_says_how_to_go_on() {
    let folder = folder();
    let here = folder.path();
    toy::write(here);
    let child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .current_dir(here)
        .args([
            "draw",
            "a",
            "-m",
            "toy.kiln",
            "--steps",
            "900",
            "-q",
            "--checkpoint",
            "a checkpoint",
        ])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    while !here.join("a checkpoint").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupted.expect("it runs").success());
    let output = child.wait_with_output().expect("a child");
    assert_eq!(output.status.code(), Some(130));
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        line.trim(),
        "kiln: cancelled; go on with: kiln draw --resume 'a checkpoint'"
    );
    succeeds(here, &["draw", "--resume", "a checkpoint", "-q"]);
    assert_eq!(names(here), ["a.png", "toy.kiln"]);
}
