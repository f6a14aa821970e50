//! How faithful int8 is: a package against the same model's in f32.
//!
//! ```text
//! cargo bench --bench fidelity [-- INT8.kiln F32.kiln] [-- --test]
//! ```
//!
//! Without packages, models/emoji is compiled into both. For each timestep the UNet's output over 8 prompts, signal to
//! noise in dB, its inputs being the f32 model's pictures in latents with as much noise as the schedule says; then 32
//! pictures of 20 steps of DDIM with guidance 4, each with the same prompt and seed, peak signal to noise in dB. Fails when
//! a figure is below its bound. Then the same pictures with the package's own defaults, without a bound: an ancestral
//! sampler and less guidance let a picture that the model is unsure of become another one for next to nothing. `--test`
//! does less of everything.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use kiln::pipeline::samplers::SamplerKind;
use kiln::pipeline::{Noise, Tensor, run_graph};
use kiln::runtime::SessionOptions;
use kiln::{Kiln, Picture, Progress, Request};
use kiln_package::GraphKind;
use ndarray::{ArrayD, IxDyn};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Timesteps and the least that is good enough at each, in dB.
const TIMESTEPS: [(usize, f64); 8] = [
    (981, 35.0),
    (801, 35.0),
    (601, 35.0),
    (401, 35.0),
    (201, 35.0),
    (101, 26.0),
    (20, 26.0),
    (1, 20.0),
];

/// The least that is good enough of pictures, in dB: in the median, and of the worst.
const PICTURES: (f64, f64) = (36.0, 30.0);

/// Pictures that do not differ at all count so much.
const EQUAL: f64 = 99.0;

const STEPS: usize = 20;

const PROMPTS: [&str; 32] = [
    "red apple, 3d style",
    "grinning face, 3d style, blue background",
    "cat face, flat style",
    "panda",
    "tree",
    "house, 3d style",
    "red heart",
    "star, flat style",
    "sun, 3d style, orange background",
    "full moon",
    "fire, flat style",
    "snowman",
    "rocket, 3d style",
    "automobile, flat style",
    "bicycle",
    "sailboat, 3d style",
    "airplane, blue background",
    "umbrella",
    "birthday cake, 3d style",
    "pizza, flat style",
    "hamburger",
    "banana, 3d style, green background",
    "strawberry",
    "mushroom, flat style",
    "dog face, 3d style",
    "owl",
    "fish, flat style",
    "butterfly, 3d style",
    "crown",
    "guitar, flat style, pink background",
    "soccer ball, 3d style",
    "light bulb",
];

/// How much is done.
struct Extent {
    timesteps: usize,
    prompts: usize,
    pictures: usize,
}

fn main() -> ExitCode {
    let mut paths = Vec::new();
    let mut extent = Extent {
        timesteps: 1,
        prompts: 8,
        pictures: PROMPTS.len(),
    };
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            // What cargo says to every benchmark.
            "--bench" => {}
            "--test" => {
                extent = Extent {
                    timesteps: 4,
                    prompts: 1,
                    pictures: 2,
                }
            }
            path => paths.push(PathBuf::from(path)),
        }
    }
    match packages(&paths).and_then(|models| compare(&models, &extent)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("fidelity: below the bound");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("fidelity: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The packages to compare, int8 and f32.
fn packages(paths: &[PathBuf]) -> Result<[Kiln; 2]> {
    match paths {
        [int8, reference] => Ok([Kiln::open(int8)?, Kiln::open(reference)?]),
        [] => compiled(),
        _ => Err("expected two packages, int8 and f32, or none".into()),
    }
}

#[cfg(feature = "onnx")]
fn compiled() -> Result<[Kiln; 2]> {
    use kiln_compiler::plan::Precision;
    let folder = tempfile::tempdir()?;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/models/emoji");
    let compile = |precision: Precision| -> Result<Kiln> {
        let path = folder.path().join(format!("{precision}.kiln"));
        let options = kiln_compiler::CompileOptions {
            precision,
            ..kiln_compiler::CompileOptions::new(source, &path)
        };
        kiln_compiler::compile(&options, &mut |_| ())?;
        Ok(Kiln::open(path)?)
    };
    Ok([compile(Precision::Int8)?, compile(Precision::F32)?])
}

#[cfg(not(feature = "onnx"))]
fn compiled() -> Result<[Kiln; 2]> {
    Err("this build cannot compile a model: name two packages".into())
}

/// A picture with what it was made of.
struct Drawing {
    picture: Picture,
    context: Vec<f32>,
    latents: Vec<f32>,
}

/// What pictures are drawn with.
#[derive(Clone, Copy, PartialEq)]
enum Settings {
    /// DDIM, guidance 4.
    Deterministic,
    /// The package's own.
    Defaults,
}

fn draw(kiln: &Kiln, number: usize, settings: Settings) -> Result<Drawing> {
    let mut request = Request::new(PROMPTS[number])
        .seed(number as u64)
        .steps(STEPS);
    if settings == Settings::Deterministic {
        request = request.sampler(SamplerKind::Ddim).guidance_scale(4.0);
    }
    let (mut both, mut last) = (Vec::new(), Vec::new());
    let picture = kiln.draw(&request, &mut |progress| {
        match progress {
            Progress::Encoded { context } => both = context.to_vec(),
            Progress::Denoised { latents, .. } => last = latents.to_vec(),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    // Under guidance, the prompt's context follows the negative prompt's.
    let lanes = if picture.settings().guidance_scale > 1.0 {
        2
    } else {
        1
    };
    let context = both.split_off(both.len() / lanes * (lanes - 1));
    Ok(Drawing {
        picture,
        context,
        latents: last,
    })
}

/// Prints both tables; whether all is good enough.
fn compare([int8, reference]: &[Kiln; 2], extent: &Extent) -> Result<bool> {
    let drawings = (0..extent.pictures)
        .map(|number| draw(reference, number, Settings::Deterministic))
        .collect::<Result<Vec<_>>>()?;
    let mut good = true;

    println!("UNet, signal to noise over {} prompts", extent.prompts);
    println!("{:>9} {:>9} {:>9}", "timestep", "dB", "at least");
    for (timestep, bound) in TIMESTEPS.into_iter().step_by(extent.timesteps) {
        let (mut signal, mut noise) = (0.0, 0.0);
        for (number, drawing) in drawings[..extent.prompts].iter().enumerate() {
            let inputs = inputs(reference, drawing, number, timestep)?;
            let [found, expected] = [int8, reference].map(|kiln| evaluate(kiln, &inputs));
            for (found, expected) in found?.iter().zip(&expected?) {
                signal += f64::from(*expected).powi(2);
                noise += (f64::from(*expected) - f64::from(*found)).powi(2);
            }
        }
        let decibels = 10.0 * libm::log10(signal / noise);
        good &= decibels >= bound;
        println!(
            "{timestep:>9} {decibels:>9.2} {bound:>9.1}{}",
            mark(decibels, bound)
        );
    }

    println!("\npictures of {STEPS} steps of DDIM with guidance 4, peak signal to noise");
    let [median, worst] = pictures(int8, &drawings, Settings::Deterministic)?;
    println!("\n{:>9} {:>9} {:>9}", "pictures", "dB", "at least");
    for (name, decibels, bound) in [("median", median, PICTURES.0), ("worst", worst, PICTURES.1)] {
        good &= decibels >= bound;
        println!(
            "{name:>9} {decibels:>9.2} {bound:>9.1}{}",
            mark(decibels, bound)
        );
    }

    println!("\npictures of {STEPS} steps with the defaults, peak signal to noise; no bound");
    let drawings = (0..extent.pictures)
        .map(|number| draw(reference, number, Settings::Defaults))
        .collect::<Result<Vec<_>>>()?;
    let [median, worst] = pictures(int8, &drawings, Settings::Defaults)?;
    println!("\n   median {median:>9.2}\n    worst {worst:>9.2}");
    Ok(good)
}

/// Draws all of the pictures again and prints how near each is; the median and the worst.
fn pictures(kiln: &Kiln, drawings: &[Drawing], settings: Settings) -> Result<[f64; 2]> {
    let mut all = Vec::new();
    for (number, expected) in drawings.iter().enumerate() {
        let found = draw(kiln, number, settings)?;
        let decibels = peak(found.picture.pixels(), expected.picture.pixels());
        println!("{decibels:>9.2}  {}", PROMPTS[number]);
        all.push(decibels);
    }
    all.sort_by(f64::total_cmp);
    let median = f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2]);
    Ok([median, all[0]])
}

fn mark(decibels: f64, bound: f64) -> &'static str {
    if decibels >= bound { "" } else { "  below" }
}

/// The UNet's inputs at a timestep: a finished picture's latents under noise.
fn inputs(
    kiln: &Kiln,
    drawing: &Drawing,
    number: usize,
    timestep: usize,
) -> Result<BTreeMap<String, Tensor>> {
    let settings = drawing.picture.settings();
    let unet = kiln
        .model()
        .find(GraphKind::Unet, settings.height, settings.width)?;
    let signal = kiln.schedule().alphas_cumprod()[timestep];
    let mut sample = vec![0.0; drawing.latents.len()];
    Noise::new(1000 + number as u64).fill(&mut sample);
    for (sample, latent) in sample.iter_mut().zip(&drawing.latents) {
        *sample = signal.sqrt() * latent + (1.0 - signal).sqrt() * *sample;
    }
    let mut tensors = BTreeMap::new();
    for port in kiln
        .model()
        .inputs(unet)
        .map(|port| port.at_chunks(1, kiln.model().max_chunks(unet)))
    {
        let values = match port.name {
            "sample" => sample.clone(),
            "timestep" => vec![timestep as f32],
            "encoder_hidden_states" => drawing.context.clone(),
            other => return Err(format!("the UNet takes `{other}`").into()),
        };
        let shape: Vec<usize> = port.shape().iter().map(|&size| size as usize).collect();
        tensors.insert(
            port.name.to_owned(),
            Tensor::F32(ArrayD::from_shape_vec(IxDyn(&shape), values)?),
        );
    }
    Ok(tensors)
}

fn evaluate(kiln: &Kiln, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<f32>> {
    let mut outputs = run_graph(
        kiln.model(),
        GraphKind::Unet,
        inputs,
        &SessionOptions::default(),
    )?;
    let output = outputs
        .remove("out_sample")
        .ok_or("the UNet gives no out_sample")?;
    Ok(output.into_iter().collect())
}

fn peak(found: &[u8], expected: &[u8]) -> f64 {
    let squares: f64 = found
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2))
        .sum();
    let mean = squares / expected.len() as f64;
    (10.0 * libm::log10(255.0 * 255.0 / mean)).min(EQUAL)
}
