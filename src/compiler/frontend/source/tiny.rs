//! Names of tiny autoencoders (TAESD): as their makers published them, encoder and decoder apart, and as diffusers has them.

use super::ldm::{Named, any, below};

/// The tensors under diffusers' names; `None` if they are those of no tiny autoencoder.
///
/// The makers' decoder begins with a module of no parameters that diffusers does not count, so its numbers are one
/// higher; the two halves are told apart by their first convolution.
pub(super) fn tensors(tensors: &Named) -> Option<Named> {
    if any(tensors, "decoder.layers.") || any(tensors, "encoder.layers.") {
        return Some(tensors.clone());
    }
    if any(tensors, "taesd_decoder.") || any(tensors, "taesd_encoder.") {
        let mut both = shifted(&below(tensors, "taesd_decoder."), "decoder", 1)?;
        both.append(&mut shifted(
            &below(tensors, "taesd_encoder."),
            "encoder",
            0,
        )?);
        return Some(both);
    }
    let convolution = |name: &str| tensors.get(name).is_some_and(|w| w.shape().len() == 4);
    match (convolution("0.weight"), convolution("1.weight")) {
        (true, false) => shifted(tensors, "encoder", 0),
        (false, true) => shifted(tensors, "decoder", 1),
        _ => None,
    }
}

fn shifted(tensors: &Named, half: &str, by: usize) -> Option<Named> {
    tensors
        .iter()
        .map(|(name, weight)| {
            let (number, rest) = name.split_once('.')?;
            let number = number.parse::<usize>().ok()?.checked_sub(by)?;
            Some((format!("{half}.layers.{number}.{rest}"), weight.clone()))
        })
        .collect()
}
