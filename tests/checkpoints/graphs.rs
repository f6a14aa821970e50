//! Single graphs against PyTorch's answers.

use std::collections::BTreeMap;
use std::path::Path;

use kiln::pipeline::{Tensor, run_graph};
use kiln::runtime::{Model, SessionOptions};
use kiln_package::GraphKind;
use ndarray::{ArrayD, IxDyn};

use super::common::{self, relative_error};
use super::model::TinyModel;
use super::weights::{example, example_ids};

/// How far an answer may be off, as a share of the largest number in it.
const TOLERANCE: f32 = 1e-4;
/// Heights and widths of latents, and a timestep for each.
const SIZES: [(usize, usize, f32); 2] = [(8, 8, 981.0), (9, 13, 21.0)];

/// Compares every graph at both sizes.
pub fn compare(model: &TinyModel, package: &Path) {
    let graphs = Graphs {
        kiln: Model::open(package).expect("a package"),
        expected: common::Tensors::read("checkpoints/reference.safetensors"),
    };
    graphs.text_encoder(&model.text_encoder.key);
    for (height, width, timestep) in SIZES {
        graphs.unet(&model.unet.key, height, width, timestep);
        graphs.vae(&model.vae.key, height, width);
    }
}

/// Compares a decoder, under whatever name the package has it.
pub fn decoder(package: &Path, graph: GraphKind, part: &str) {
    let graphs = Graphs {
        kiln: Model::open(package).expect("a package"),
        expected: common::Tensors::read("checkpoints/reference.safetensors"),
    };
    for (height, width, _) in SIZES {
        graphs.decoder(graph, part, height, width);
    }
}

struct Graphs {
    kiln: Model,
    expected: common::Tensors,
}

impl Graphs {
    fn run<const N: usize>(&self, graph: GraphKind, inputs: [(&str, Tensor); N]) -> ArrayD<f32> {
        let inputs: BTreeMap<_, _> = inputs
            .into_iter()
            .map(|(name, tensor)| (name.to_owned(), tensor))
            .collect();
        let outputs = run_graph(&self.kiln, graph, &inputs, &SessionOptions::default());
        let mut outputs = outputs.unwrap_or_else(|e| panic!("{graph}: {e}"));
        assert_eq!(outputs.len(), 1, "{graph}");
        outputs.pop_first().expect("an output").1
    }

    fn check(&self, key: &str, found: ArrayD<f32>) {
        let (shape, expected) = self.expected.get(key);
        assert_eq!(found.shape(), shape, "{key}");
        let found: Vec<f32> = found.iter().copied().collect();
        let error = relative_error(&found, &expected);
        assert!(error < TOLERANCE, "{key}: {error:e}");
        println!("{key}: {error:.1e}");
    }

    fn text_encoder(&self, part: &str) {
        let ids = ArrayD::from_shape_vec(IxDyn(&[1, 77]), example_ids()).expect("77 ids");
        let found = self.run(GraphKind::TextEncoder, [("input_ids", Tensor::I32(ids))]);
        let ends: Vec<usize> = (0..8).chain(69..77).collect();
        let found = found.select(ndarray::Axis(1), &ends);
        self.check(&format!("text_encoder.{part}"), found);
    }

    fn unet(&self, part: &str, height: usize, width: usize, timestep: f32) {
        let at = format!("{height}x{width}");
        let (id, _) = self
            .kiln
            .programs()
            .find(|(_, program)| program.graph() == GraphKind::Unet)
            .expect("a UNet");
        let shape = |name: &str| -> Option<Vec<usize>> {
            let port = self.kiln.inputs(id).find(|port| port.name == name)?;
            Some(port.shape().iter().map(|n| *n as usize).collect())
        };
        let channels = shape("sample").expect("a latent")[1];
        let sample = input(&format!("sample@{at}"), &[1, channels, height, width]);
        let context = input("encoder_hidden_states", &[1, 77, 128]);
        let timestep = ArrayD::from_elem(IxDyn(&[1]), timestep);
        let inputs = [
            ("sample", sample),
            ("timestep", Tensor::F32(timestep)),
            ("encoder_hidden_states", context),
        ];
        let found = match shape("timestep_cond") {
            None => self.run(GraphKind::Unet, inputs),
            Some(shape) => {
                let [sample, timestep, context] = inputs;
                let cond = ("timestep_cond", input("timestep_cond", &shape));
                self.run(GraphKind::Unet, [sample, timestep, context, cond])
            }
        };
        self.check(&format!("unet.{part}@{at}"), found);
    }

    fn decoder(&self, graph: GraphKind, part: &str, height: usize, width: usize) {
        let at = format!("{height}x{width}");
        let latents = input(&format!("latents@{at}"), &[1, 4, height, width]);
        let found = self.run(graph, [("latents", latents)]);
        assert_eq!(found.shape(), [1, 3, 8 * height, 8 * width], "{part}");
        let third = found.slice(ndarray::s![.., .., ..;3, ..;3]);
        self.check(
            &format!("vae_decoder.{part}@{at}"),
            third.to_owned().into_dyn(),
        );
    }

    fn vae(&self, part: &str, height: usize, width: usize) {
        let at = format!("{height}x{width}");
        self.decoder(GraphKind::VaeDecoder, part, height, width);
        let mut image = example(&format!("image@{at}"), &[1, 3, 8 * height, 8 * width]);
        image.iter_mut().for_each(|x| *x /= 2.0);
        let image = ArrayD::from_shape_vec(IxDyn(&[1, 3, 8 * height, 8 * width]), image);
        let image = Tensor::F32(image.expect("a picture"));
        let found = self.run(GraphKind::VaeEncoder, [("image", image)]);
        self.check(&format!("vae_encoder.{part}@{at}"), found);
    }
}

fn input(name: &str, shape: &[usize]) -> Tensor {
    let values = example(name, shape);
    Tensor::F32(ArrayD::from_shape_vec(IxDyn(shape), values).expect("values of the shape"))
}
