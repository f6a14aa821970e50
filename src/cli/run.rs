//! `kiln run`: one graph on given tensors.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use kiln::pipeline::{Tensor, run_graph};
use kiln::runtime::{Cancellation, Model, SessionOptions, cancel_on_signal};
use kiln_package::{DType, GraphKind, Port};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::error::CliError;
use super::output::Target;
use super::{model, values};

/// Run one graph of a package on given tensors
///
/// The program is the one that takes the tensors' shapes. Pictures and latents are [1, channels, height, width]; a context
/// may be of several chunks of 77 rows.
#[derive(clap::Args)]
pub struct Args {
    /// The package [default: the built-in model]
    file: Option<PathBuf>,
    /// text_encoder, unet, vae_decoder or vae_encoder
    #[arg(long, value_name = "NAME", value_parser = values::graph)]
    graph: GraphKind,
    /// The inputs, by name
    #[arg(long, value_name = "FILE.safetensors")]
    inputs: PathBuf,
    /// Where the outputs go; replaces what is there
    #[arg(long, value_name = "FILE.safetensors")]
    output: PathBuf,
    /// Threads [default: as many as there are physical cores]
    #[arg(long, value_name = "N", value_parser = values::threads)]
    threads: Option<NonZeroUsize>,
}

/// The input that is an integer for exporters and a real number for us.
const TIMESTEP: &str = "timestep";

pub fn run(args: &Args) -> Result<(), CliError> {
    let model = model::open(args.file.as_deref())?;
    let target = Target::Replace(args.output.clone());
    target.probe()?;
    let mut inputs = read(&args.inputs)?;
    if let Some(timestep) = inputs.get_mut(TIMESTEP) {
        *timestep = Tensor::F32(real(timestep));
    }
    let cancellation = Cancellation::new();
    cancel_on_signal(&cancellation)
        .map_err(|error| CliError::Failure(format!("signals: {error}")))?;
    let options = SessionOptions {
        threads: args.threads,
        cancellation,
        ..SessionOptions::default()
    };
    let outputs = run_graph(&model, args.graph, &inputs, &options).map_err(|error| {
        match CliError::from(error) {
            CliError::Failure(what) => {
                CliError::Failure(format!("{what}; {}", signature(&model, args.graph)))
            }
            other => other,
        }
    })?;
    let bytes = write(&outputs)
        .map_err(|error| CliError::Failure(format!("{}: {error}", args.output.display())))?;
    target.write(|file| file.write_all(&bytes))?;
    Ok(())
}

fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, CliError> {
    let bytes = fs::read(path).map_err(|error| CliError::file(path, &error))?;
    let failure = |what: String| CliError::Failure(format!("{}: {what}", path.display()));
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| failure(format!("not a safetensors file: {error}")))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let tensor = tensor(&view).ok_or_else(|| {
            failure(format!(
                "`{name}` has elements of {:?}, expected F32, F16, I32 or I64",
                view.dtype()
            ))
        })?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

fn tensor(view: &TensorView<'_>) -> Option<Tensor> {
    let (bytes, shape) = (view.data(), IxDyn(view.shape()));
    let array = |values: Vec<f32>| {
        ArrayD::from_shape_vec(shape.clone(), values)
            .ok()
            .map(Tensor::F32)
    };
    match view.dtype() {
        Dtype::F32 => array(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
        ),
        Dtype::F16 => array(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half::f16::from_le_bytes(*b).to_f32())
                .collect(),
        ),
        Dtype::I32 => {
            let values = bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| i32::from_le_bytes(*b))
                .collect();
            ArrayD::from_shape_vec(shape, values).ok().map(Tensor::I32)
        }
        Dtype::I64 => {
            let values = bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b))
                .collect();
            ArrayD::from_shape_vec(shape, values).ok().map(Tensor::I64)
        }
        _ => None,
    }
}

/// The same numbers as `f32`.
fn real(tensor: &Tensor) -> ArrayD<f32> {
    match tensor {
        Tensor::F32(array) => array.clone(),
        Tensor::I32(array) => array.mapv(|x| x as f32),
        Tensor::I64(array) => array.mapv(|x| x as f32),
    }
}

fn write(outputs: &BTreeMap<String, ArrayD<f32>>) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let bytes: Vec<(&String, &[usize], Vec<u8>)> = outputs
        .iter()
        .map(|(name, array)| {
            (
                name,
                array.shape(),
                array.iter().flat_map(|x| x.to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    safetensors::serialize(views, None)
}

/// What the graph takes, in each of its sizes.
fn signature(model: &Model, graph: GraphKind) -> String {
    let programs: Vec<String> = model
        .programs()
        .filter(|(_, program)| program.graph() == graph && program.clip_skip() <= 1)
        .map(|(id, _)| {
            model
                .inputs(id)
                .map(|port| port_text(&port, model.max_chunks(id)))
                .collect::<Vec<_>>()
                .join(", ")
        })
        .collect();
    match programs.is_empty() {
        true => format!("graphs: {}", graphs(model).join(", ")),
        false => format!("{graph} takes {}", programs.join(" or ")),
    }
}

fn port_text(port: &Port<'_>, most: u32) -> String {
    let dtype = match port.dtype {
        DType::I32 => "i32 or i64",
        _ if port.name == TIMESTEP => "f32, i32 or i64",
        _ => "f32",
    };
    let least = if port.per_chunk { 1 } else { most };
    let shapes: Vec<_> = (least..=most)
        .map(|n| format!("{:?}", port.at_chunks(n, most).shape()))
        .collect();
    format!("{} {} {dtype}", port.name, shapes.join(" or "))
}

fn graphs(model: &Model) -> Vec<&'static str> {
    let mut names: Vec<_> = model
        .programs()
        .map(|(_, program)| program.graph().name())
        .collect();
    names.dedup();
    names
}
