//! LoRAs and their relatives, merged into a model's weights when these are read.
//!
//! - `names`: which parameter a tensor changes: kohya's, diffusers', PEFT's and latent-diffusion's names.
//! - `module`: the tensors of one module, put together and checked against each other.
//! - `delta`: the change as its factors, and the arithmetic. LoRA and LoCon are products, LoHa (Hyeon-Woo et al., "FedPara",
//!   2021) the elementwise product of two, LoKr (Yeh et al., "Navigating Text-To-Image Customization", 2023) a Kronecker
//!   product.
//! - `merged`: a weight of the model with its change.
//! - `config`: alphas that are not in tensors.
//! - `family`: which models a LoRA is for, for errors.
//! - `argument`: `FILE[:WEIGHT]`.

mod argument;
mod config;
mod delta;
mod family;
mod merged;
mod module;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::frontend::tensors::Tensors;
use crate::graph::Weight;

pub use argument::{ArgumentError, LoraArgument};
pub use config::with_adapter_config;
pub use family::Family;
pub use names::Part;

use config::Config;
use delta::Delta;
use merged::Merged;
use module::{Change, Module, Named};
use names::{Index, Role, split};

/// A magnitude that a sum with any weight of a working model is still a number of `f32`.
const SAFE: f64 = 1e30;

/// What [`apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The model's tensors that were changed, sorted.
    pub changed: Vec<(Part, String)>,
    /// The LoRA's tensors that are for nothing in the model, sorted.
    pub unmatched: Vec<String>,
}

/// Why a LoRA cannot be merged. The model is left as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoraError {
    /// The weight asked for is no number.
    #[error("the LoRA's weight is {0}")]
    Weight(f32),
    /// A kind of change that cannot be merged.
    #[error("tensor {0}: {1} cannot be merged")]
    Refused(String, &'static str),
    /// It has a part that no model has that can be compiled.
    #[error("tensor {tensor} is for a text encoder that the model does not have{}", seems(*.family))]
    Foreign {
        /// The tensor.
        tensor: String,
        /// What the LoRA seems to be for.
        family: Option<Family>,
    },
    /// Two tensors say the same thing.
    #[error("tensors {0} and {1} are for the same weight of the model")]
    Twice(String, String),
    /// A tensor of a pair stands alone.
    #[error("tensor {tensor}: its {missing} is missing")]
    Half {
        /// The one that is there.
        tensor: String,
        /// What the other one is.
        missing: &'static str,
    },
    /// Two factors cannot be multiplied.
    #[error("tensors {first} {shape:?} and {second} {other:?} do not fit each other")]
    Factors {
        /// One factor.
        first: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The other.
        second: String,
        /// Its shape.
        other: Vec<usize>,
    },
    /// A tensor has a shape that no factor has.
    #[error("tensor {0} is {1:?}, which is no factor of a weight")]
    Factor(String, Vec<usize>),
    /// An alpha or a scale is not one number.
    #[error("tensor {0} is {1:?}, expected one number")]
    Number(String, Vec<usize>),
    /// The change is not of the weight's shape.
    #[error(
        "tensor {tensor} changes {found:?}, the model's {parameter} is {expected:?}{}",
        clash(*.family, *.model)
    )]
    Shape {
        /// A tensor of the LoRA.
        tensor: String,
        /// The shape that its factors make.
        found: Vec<usize>,
        /// The model's tensor.
        parameter: String,
        /// Its shape.
        expected: Vec<usize>,
        /// What the LoRA seems to be for.
        family: Option<Family>,
        /// What the model seems to be.
        model: Option<Family>,
    },
    /// A number that is none.
    #[error("tensor {0} holds a NaN or an infinity")]
    NotFinite(String),
    /// The sum is beyond what a number can be.
    #[error("tensor {tensor}: the sum with the model's {parameter} is beyond the numbers")]
    Overflow {
        /// A tensor of the LoRA.
        tensor: String,
        /// The model's tensor.
        parameter: String,
    },
    /// Nothing matched.
    #[error("none of the LoRA's {count} tensors is for this model; the first is {first}{}", seems(*.family))]
    Nothing {
        /// How many there are.
        count: usize,
        /// The first one's name.
        first: String,
        /// What the LoRA seems to be for.
        family: Option<Family>,
    },
    /// PEFT's settings cannot be used.
    #[error("{0}: {1}")]
    Config(&'static str, String),
}

fn seems(family: Option<Family>) -> String {
    family.map_or(String::new(), |f| {
        format!(" (the LoRA seems to be for {f})")
    })
}

fn clash(family: Option<Family>, model: Option<Family>) -> String {
    match (family, model) {
        (Some(family), Some(model)) if family != model => {
            format!(" (the LoRA seems to be for {family}, the model is {model})")
        }
        _ => seems(family),
    }
}

/// A change that fits the model.
struct Merge {
    part: Part,
    parameter: String,
    delta: Delta,
    scale: f32,
}

/// Merges `weight` times a LoRA into the two model parts, whose tensors have diffusers' and transformers' names. Their tensors
/// are replaced by ones that compute the sum whenever they are read; a further LoRA adds to it.
///
/// Each tensor of the LoRA that is used is read once, to see that it holds numbers. A module without an alpha has its rank
/// as alpha, as in diffusers.
pub fn apply(
    unet: &mut Tensors,
    text_encoder: &mut Tensors,
    lora: &Tensors,
    weight: f32,
) -> Result<Applied, LoraError> {
    if !weight.is_finite() {
        return Err(LoraError::Weight(weight));
    }
    let config = Config::of(lora)?;
    let mut applied = Applied::default();
    let mut merges = Vec::new();
    let grouped = group(unet, text_encoder, lora, &mut applied.unmatched)?;
    for ((part, name), module) in &grouped {
        let model = match part {
            Part::Unet => &*unet,
            Part::TextEncoder => &*text_encoder,
        };
        let largest = largest(module)?;
        let changes = module.changes()?;
        let lists = [("weight", changes.weight), ("bias", changes.bias)];
        for (kind, change) in lists
            .into_iter()
            .flat_map(|(kind, list)| list.into_iter().map(move |change| (kind, change)))
        {
            let parameter = format!("{name}.{kind}");
            let Some(base) = model.by_name.get(&parameter) else {
                applied.unmatched.push(change.tensor.to_owned());
                continue;
            };
            if !fits(&change.delta.shape(), base.shape()) {
                return Err(LoraError::Shape {
                    tensor: change.tensor.into(),
                    found: change.delta.shape(),
                    expected: base.shape().to_vec(),
                    parameter,
                    family: Family::of(lora),
                    model: Family::of_model(unet),
                });
            }
            let scale = f64::from(weight) * scale(module, &change, &config, (*part, name))?;
            let merge = Merge {
                part: *part,
                parameter,
                delta: change.delta,
                scale: scale as f32,
            };
            check(&merge, base, scale, &largest, change.tensor)?;
            merges.push(merge);
        }
    }
    if merges.is_empty() {
        return Err(LoraError::Nothing {
            count: lora.by_name.len(),
            first: lora.by_name.keys().next().cloned().unwrap_or_default(),
            family: Family::of(lora),
        });
    }
    for merge in merges {
        let model = match merge.part {
            Part::Unet => &mut *unet,
            Part::TextEncoder => &mut *text_encoder,
        };
        let changed = (merge.part, merge.parameter.clone());
        model.by_name.entry(merge.parameter).and_modify(|base| {
            if merge.scale != 0.0 {
                *base = Weight::new(Merged {
                    base: base.clone(),
                    delta: merge.delta,
                    scale: merge.scale,
                });
            }
        });
        applied.changed.push(changed);
    }
    applied.changed.sort();
    applied.changed.dedup();
    applied.unmatched.sort();
    Ok(applied)
}

/// The LoRA's tensors by the model's modules that they are for.
fn group<'t>(
    unet: &Tensors,
    text_encoder: &Tensors,
    lora: &'t Tensors,
    unmatched: &mut Vec<String>,
) -> Result<BTreeMap<(Part, String), Module<'t>>, LoraError> {
    for name in lora.by_name.keys() {
        if let Some((_, Role::Refused(what))) = split(name) {
            return Err(LoraError::Refused(name.clone(), what));
        }
    }
    if let Some(tensor) = lora.by_name.keys().find(|name| Family::is_foreign(name)) {
        return Err(LoraError::Foreign {
            tensor: tensor.clone(),
            family: Family::of(lora),
        });
    }
    let index = Index::new(unet, text_encoder);
    let mut grouped = BTreeMap::<_, Module<'t>>::new();
    for (name, weight) in &lora.by_name {
        let found = split(name).and_then(|(module, role)| Some((index.find(module)?, role)));
        let Some(((part, module), role)) = found else {
            unmatched.push(name.clone());
            continue;
        };
        let module = grouped.entry((part, module.to_owned())).or_default();
        module.insert(role, Named { name, weight })?;
    }
    Ok(grouped)
}

/// The largest magnitude in each of a module's tensors; an error if one is no number.
fn largest<'t>(module: &Module<'t>) -> Result<Vec<(&'t Weight, f64)>, LoraError> {
    let of = |tensor: Named<'t>| {
        let elements = tensor.weight.read();
        if elements.iter().all(|x| x.is_finite()) {
            let largest = elements.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            Ok((tensor.weight, f64::from(largest)))
        } else {
            Err(LoraError::NotFinite(tensor.name.into()))
        }
    };
    module.tensors().map(of).collect()
}

/// Whether a change of that shape is one of the weight. A 1x1 convolution may be a Linear and the reverse, and a kernel may
/// be flattened into the columns.
fn fits(delta: &[usize], base: &[usize]) -> bool {
    // Factors of a hostile file can stand for more elements than can be counted.
    let len = |shape: &[usize]| {
        let mut sizes = shape.iter();
        sizes.try_fold(1usize, |len, size| len.checked_mul(*size))
    };
    let kernels = delta.len() == 4 && base.len() == 4;
    delta.first() == base.first() && len(delta) == len(base) && (!kernels || delta == base)
}

fn scale(
    module: &Module<'_>,
    change: &Change<'_>,
    config: &Config,
    (part, name): (Part, &str),
) -> Result<f64, LoraError> {
    let Some(rank) = change.rank else {
        return Ok(1.0);
    };
    if let Some(scale) = module.number(Role::Scale)? {
        return Ok(scale);
    }
    match module.number(Role::Alpha)? {
        Some(alpha) => Ok(alpha / rank as f64),
        None => Ok(config.scale(part, name, rank)?.unwrap_or(1.0)),
    }
}

/// Whether the sum is of numbers. It is computed only if it could be beyond them.
fn check(
    merge: &Merge,
    base: &Weight,
    scale: f64,
    largest: &[(&Weight, f64)],
    tensor: &str,
) -> Result<(), LoraError> {
    let of = |factor: &Weight| {
        let mut known = largest.iter();
        known
            .find(|(weight, _)| weight.same(factor))
            .map_or(f64::INFINITY, |(_, largest)| *largest)
    };
    // An unscaled Hadamard or Kronecker factor is computed first.
    let bound = merge.delta.bound(of);
    if bound * scale.abs().max(1.0) < SAFE {
        return Ok(());
    }
    let mut sum = base.read().into_owned();
    merge.delta.add_to(merge.scale, &mut sum);
    if merge.scale.is_finite() && sum.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    Err(LoraError::Overflow {
        tensor: tensor.into(),
        parameter: merge.parameter.clone(),
    })
}
