//! Which parameter of the model a tensor of a LoRA changes, and what part of the change it is.
//!
//! A tensor's name is `[prefix]module<role>`. The prefixes name the model part, the roles are the table below, and what is
//! between is a module in one of many spellings. Dots and underscores cannot be told apart (`lora_unet_` names have
//! underscores only), so nothing is translated back: every spelling of each of the model's own modules is put into one
//! index, with underscores for dots.

use std::collections::{BTreeMap, HashMap};

use crate::frontend::tensors::Tensors;

/// A model part that a LoRA changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The UNet.
    Unet,
    /// The text encoder.
    TextEncoder,
}

/// What a tensor is to the change of its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Role {
    /// `[out, rank]`, or `[out, rank, 1, 1]`
    Up,
    /// `[rank, in]`, or `[rank, in, kernel_h, kernel_w]`
    Down,
    /// `[rank, rank, kernel_h, kernel_w]`
    Mid,
    /// The bias of the layer that `Up` is.
    UpBias,
    /// One number; the change is scaled by it over the rank.
    Alpha,
    /// One number, in place of alpha over the rank.
    Scale,
    /// LoHa's factors: `1 a` is the first product's left side.
    HadaA(u8),
    /// The right side.
    HadaB(u8),
    /// The core between them.
    HadaCore(u8),
    /// LoKr: the whole of one side of the Kronecker product.
    Kron(u8),
    /// The left factor of one side.
    KronA(u8),
    /// The right factor of one side.
    KronB(u8),
    /// The core between the factors of the second side.
    KronCore,
    /// The whole difference of a weight.
    Diff,
    /// The whole difference of a bias.
    DiffBias,
    /// Something that cannot be merged; what it is called.
    Refused(&'static str),
}

impl Role {
    /// How the role is called in an error.
    pub fn what(self) -> &'static str {
        match self {
            Role::Up => "up (lora_up, lora_B)",
            Role::Down => "down (lora_down, lora_A)",
            Role::HadaA(1) => "hada_w1_a",
            Role::HadaA(_) => "hada_w2_a",
            Role::HadaB(1) => "hada_w1_b",
            Role::HadaB(_) => "hada_w2_b",
            Role::HadaCore(1) => "hada_t1",
            Role::HadaCore(_) => "hada_t2",
            Role::Kron(1) => "lokr_w1",
            Role::Kron(_) => "lokr_w2",
            Role::KronA(1) => "lokr_w1_a",
            Role::KronA(_) => "lokr_w2_a",
            Role::KronB(1) => "lokr_w1_b",
            Role::KronB(_) => "lokr_w2_b",
            Role::KronCore => "lokr_t2",
            Role::Mid => "mid",
            Role::UpBias => "bias",
            Role::Alpha => "alpha",
            Role::Scale => "scale",
            Role::Diff => "diff",
            Role::DiffBias => "diff_b",
            Role::Refused(what) => what,
        }
    }
}

/// How the roles are written, the longer of two that end alike first.
const ROLES: &[(&str, Role)] = &[
    (".lora_up.weight", Role::Up),
    (".lora_down.weight", Role::Down),
    (".lora_mid.weight", Role::Mid),
    (".lora_up.bias", Role::UpBias),
    (".lora_B.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.bias", Role::UpBias),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    (".lora_linear_layer.alpha", Role::Alpha),
    (".lora.alpha", Role::Alpha),
    ("_lora.alpha", Role::Alpha),
    (".alpha", Role::Alpha),
    (".scale", Role::Scale),
    (".hada_w1_a", Role::HadaA(1)),
    (".hada_w1_b", Role::HadaB(1)),
    (".hada_w2_a", Role::HadaA(2)),
    (".hada_w2_b", Role::HadaB(2)),
    (".hada_t1", Role::HadaCore(1)),
    (".hada_t2", Role::HadaCore(2)),
    (".lokr_w1", Role::Kron(1)),
    (".lokr_w2", Role::Kron(2)),
    (".lokr_w1_a", Role::KronA(1)),
    (".lokr_w1_b", Role::KronB(1)),
    (".lokr_w2_a", Role::KronA(2)),
    (".lokr_w2_b", Role::KronB(2)),
    (".lokr_t2", Role::KronCore),
    (".diff", Role::Diff),
    (".diff_b", Role::DiffBias),
    (".w_norm", Role::Diff),
    (".b_norm", Role::DiffBias),
    (".dora_scale", Role::Refused("DoRA")),
    (".lora_magnitude_vector", Role::Refused("DoRA")),
    (".lora_magnitude_vector.weight", Role::Refused("DoRA")),
    (".oft_blocks", Role::Refused("OFT")),
    (".oft_diag", Role::Refused("OFT")),
    (".oft_R.weight", Role::Refused("OFT")),
    (".oft_r", Role::Refused("OFT")),
    (".boft_R", Role::Refused("BOFT")),
    (".on_input", Role::Refused("IA3")),
    (".ia3_l", Role::Refused("IA3")),
    (".a1.weight", Role::Refused("GLoRA")),
    (".a2.weight", Role::Refused("GLoRA")),
    (".b1.weight", Role::Refused("GLoRA")),
    (".b2.weight", Role::Refused("GLoRA")),
    (".set_weight", Role::Refused("a replaced weight")),
    (".reshape_weight", Role::Refused("a reshaped weight")),
];

/// What names of a part begin with. A name may have several of them, such as `unet.base_model.model.`.
const PREFIXES: &[(&str, Option<Part>)] = &[
    ("lora_unet_", Some(Part::Unet)),
    ("lora_te_", Some(Part::TextEncoder)),
    ("lora_te1_", Some(Part::TextEncoder)),
    ("lora_unet.", Some(Part::Unet)),
    ("lora_te.", Some(Part::TextEncoder)),
    ("unet.", Some(Part::Unet)),
    ("text_encoder.", Some(Part::TextEncoder)),
    ("diffusion_model.", Some(Part::Unet)),
    ("model.diffusion_model.", Some(Part::Unet)),
    ("cond_stage_model.transformer.", Some(Part::TextEncoder)),
    ("base_model.model.", None),
];

/// A module's name in the LoRA and the role of one tensor of it; `None` for a name without a known role.
pub(super) fn split(name: &str) -> Option<(&str, Role)> {
    let listed = ROLES
        .iter()
        .find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)));
    listed.or_else(|| adapter(name))
}

/// PEFT's names with the adapter's: `module.lora_A.default.weight`, `module.hada_w1_a.default`.
fn adapter(name: &str) -> Option<(&str, Role)> {
    ROLES.iter().find_map(|(end, role)| {
        let (key, kind) = match end.rsplit_once('.')? {
            (key, kind @ ("weight" | "bias")) if key.starts_with(".lora_") => (key, Some(kind)),
            _ => (*end, None),
        };
        let peft = matches!(key, ".lora_A" | ".lora_B" | ".lora_magnitude_vector")
            || key.starts_with(".hada_")
            || key.starts_with(".lokr_")
            || key.starts_with(".oft_")
            || key.starts_with(".boft_")
            || key.starts_with(".ia3_");
        if !peft {
            return None;
        }
        let name = match kind {
            Some(kind) => name.strip_suffix(kind)?.strip_suffix('.')?,
            None => name,
        };
        let (module, adapter) = name.rsplit_once('.')?;
        let known = !adapter.is_empty() && module.ends_with(key);
        known.then(|| (&module[..module.len() - key.len()], *role))
    })
}

/// The modules of a model by every spelling of their names.
pub(super) struct Index(BTreeMap<Part, HashMap<String, String>>);

impl Index {
    /// The modules of which the model has a weight or a bias.
    pub fn new(unet: &Tensors, text_encoder: &Tensors) -> Self {
        let mut parts = BTreeMap::new();
        let modules = modules(unet);
        let layout = Layout::of(&modules);
        let mut index = HashMap::new();
        for module in &modules {
            let old = module.strip_suffix(".to_out.0");
            let spellings = [Some((*module).to_owned()), layout.original(module)]
                .into_iter()
                .chain([old.map(|attention| format!("{attention}.to_out"))]);
            insert(&mut index, module, spellings.flatten());
        }
        parts.insert(Part::Unet, index);

        let mut index = HashMap::new();
        for module in self::modules(text_encoder) {
            // diffusers' first names for all attentions were those of its own.
            let old = [("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v")]
                .into_iter()
                .chain([("out_proj", "to_out")])
                .find_map(|(new, old)| Some(format!("{}{old}", module.strip_suffix(new)?)));
            let spellings = [Some(module.to_owned()), old].into_iter().flatten();
            // transformers dropped `text_model` in its fifth version.
            let spellings: Vec<_> = spellings
                .flat_map(|name| {
                    let short = name.strip_prefix("text_model.").map(str::to_owned);
                    let long = short.is_none().then(|| format!("text_model.{name}"));
                    [Some(name), short, long].into_iter().flatten()
                })
                .collect();
            insert(&mut index, module, spellings);
        }
        parts.insert(Part::TextEncoder, index);
        Index(parts)
    }

    /// The model's module that a LoRA's module is for. A name that says no part is looked for in both.
    pub fn find(&self, name: &str) -> Option<(Part, &str)> {
        let (mut rest, mut part) = (name, None);
        while let Some((tail, named)) = PREFIXES
            .iter()
            .find_map(|(prefix, named)| Some((rest.strip_prefix(prefix)?, *named)))
        {
            (rest, part) = (tail, named.or(part));
        }
        let spelling = key(&rest.replace(".processor", ""));
        let within = |part: Part| Some((part, self.0.get(&part)?.get(&spelling)?.as_str()));
        match part {
            Some(part) => within(part),
            None => within(Part::Unet).or_else(|| within(Part::TextEncoder)),
        }
    }
}

fn key(name: &str) -> String {
    name.replace('.', "_")
}

/// The model's own spelling comes first and stays.
fn insert(
    index: &mut HashMap<String, String>,
    module: &str,
    spellings: impl IntoIterator<Item = String>,
) {
    for spelling in spellings {
        index
            .entry(key(&spelling))
            .or_insert_with(|| module.to_owned());
    }
}

fn modules(tensors: &Tensors) -> Vec<&str> {
    let names = tensors.by_name.keys();
    let mut modules: Vec<&str> = names
        .filter_map(|n| {
            n.strip_suffix(".weight")
                .or_else(|| n.strip_suffix(".bias"))
        })
        .collect();
    modules.dedup();
    modules
}

/// A UNet's blocks as far as they decide the numbers in its original names: residual blocks, whether there is an attention
/// and whether there is a convolution that halves or doubles, of each level in the order of `down_blocks` and `up_blocks`.
struct Layout {
    down: Vec<Level>,
    up: Vec<Level>,
}

#[derive(Clone, Copy, Default)]
struct Level {
    resnets: usize,
    attention: bool,
    sampler: bool,
}

/// Levels and layers that a name may say: more is no UNet.
const MOST: usize = 64;

impl Layout {
    fn of(modules: &[&str]) -> Self {
        let levels = |side: &str| {
            let mut levels: Vec<Level> = Vec::new();
            for module in modules {
                let Some((i, kind, j)) = block(module, side) else {
                    continue;
                };
                if levels.len() <= i {
                    levels.resize(i + 1, Level::default());
                }
                match kind {
                    "resnets" => levels[i].resnets = levels[i].resnets.max(j + 1),
                    "attentions" => levels[i].attention = true,
                    _ => levels[i].sampler = true,
                }
            }
            levels
        };
        Layout {
            down: levels("down_blocks"),
            up: levels("up_blocks"),
        }
    }

    /// The module's name in latent-diffusion's layout, such as `input_blocks.1.1.proj_in`.
    fn original(&self, module: &str) -> Option<String> {
        let simple = [
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("conv_norm_out", "out.0"),
            ("conv_out", "out.2"),
        ];
        if let Some((_, original)) = simple.into_iter().find(|(name, _)| *name == module) {
            return Some(original.to_owned());
        }
        let parts: Vec<&str> = module.split('.').collect();
        if let ["mid_block", kind, j, rest @ ..] = parts.as_slice() {
            let j: usize = j.parse().ok().filter(|j| *j < MOST)?;
            let number = 2 * j + usize::from(*kind == "attentions");
            return Some(format!("middle_block.{number}.{}", inner(kind, rest)));
        }
        if let Some((i, kind, j)) = block(module, "down_blocks") {
            let before = self.down[..i].iter();
            let start = 1 + before
                .map(|l| l.resnets + usize::from(l.sampler))
                .sum::<usize>();
            return Some(match kind {
                "downsamplers" => format!("input_blocks.{}.0.op", start + self.down[i].resnets),
                _ => {
                    let column = usize::from(kind == "attentions");
                    let rest = inner(kind, &parts[4..]);
                    format!("input_blocks.{}.{column}.{rest}", start + j)
                }
            });
        }
        let (i, kind, j) = block(module, "up_blocks")?;
        let start = self.up[..i].iter().map(|l| l.resnets).sum::<usize>();
        let level = self.up[i];
        Some(match kind {
            "upsamplers" => format!(
                "output_blocks.{}.{}.conv",
                (start + level.resnets).checked_sub(1)?,
                1 + usize::from(level.attention)
            ),
            _ => {
                let column = usize::from(kind == "attentions");
                let rest = inner(kind, &parts[4..]);
                format!("output_blocks.{}.{column}.{rest}", start + j)
            }
        })
    }
}

/// The level, the kind and the number of `{side}.{level}.{kind}.{number}.`.
fn block<'m>(module: &'m str, side: &str) -> Option<(usize, &'m str, usize)> {
    let mut parts = module.strip_prefix(side)?.strip_prefix('.')?.split('.');
    let level = parts.next()?.parse().ok().filter(|n| *n < MOST)?;
    let kind = parts.next()?;
    let known = ["resnets", "attentions", "downsamplers", "upsamplers"];
    let number = parts.next()?.parse().ok().filter(|n| *n < MOST)?;
    parts.next()?;
    known.contains(&kind).then_some((level, kind, number))
}

/// What follows a block's number: attentions have kept their names.
fn inner(kind: &str, rest: &[&str]) -> String {
    let rest = rest.join(".");
    if kind != "resnets" {
        return rest;
    }
    let renamed = [
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    ];
    let original = renamed.into_iter().find(|(name, _)| *name == rest);
    original.map_or(rest, |(_, original)| original.to_owned())
}
