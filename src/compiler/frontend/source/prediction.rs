//! What a UNet of Stable Diffusion 2 predicts, when nothing says so.

use super::Prediction;
use crate::graph::{Graph, Tensor};
use crate::{passes, quantize};

/// Height and width of the latent that it is asked with.
const LATENT: usize = 8;
/// All of the latent and of the context.
const INPUT: f32 = 0.5;
/// The timestep of most noise.
const TIMESTEP: f32 = 999.0;
/// Below it, the mean of what comes out less the latent is that of a velocity.
const LIMIT: f64 = -1.0;

/// Asks the UNet once, as AUTOMATIC1111's web UI does: given nothing but a constant at the last timestep, the noise that a
/// model finds there is near the constant, its velocity far from it.
pub(super) fn of(unet: &Graph) -> Result<Prediction, String> {
    let mut graph = unet.clone();
    passes::run(&mut graph, None, &mut |_, _| ()).map_err(|e| e.to_string())?;
    let graph = graph.resized([LATENT; 2]).map_err(|e| e.to_string())?;
    let input = |id: &crate::graph::ValueId| {
        let value = graph.value(*id);
        let fill = match value.name.as_str() {
            "timestep" => TIMESTEP,
            "sample" | "encoder_hidden_states" => INPUT,
            _ => 0.0,
        };
        Tensor {
            shape: value.shape.clone(),
            data: vec![fill; value.shape.iter().product()],
        }
    };
    let inputs: Vec<Tensor> = graph.inputs.iter().map(input).collect();
    let outputs = quantize::exact(&graph, &inputs).map_err(|e| e.to_string())?;
    let out = outputs.first().map_or(&[][..], |tensor| &tensor.data);
    let sum: f64 = out.iter().map(|x| f64::from(*x) - f64::from(INPUT)).sum();
    Ok(match sum / (out.len().max(1) as f64) < LIMIT {
        true => Prediction::Velocity,
        false => Prediction::Epsilon,
    })
}
