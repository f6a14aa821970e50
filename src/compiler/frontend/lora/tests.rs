//! LoRAs against what diffusers, PEFT and LyCORIS make of them, and LoRAs that are refused.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::frontend::uniform::uniform;
use crate::graph::Literal;

type Shapes = BTreeMap<String, Vec<usize>>;

#[derive(Deserialize)]
struct Fixture {
    model: BTreeMap<String, Shapes>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    files: Vec<File>,
    changed: BTreeMap<String, BTreeMap<String, [f64; 4]>>,
}

#[derive(Deserialize)]
struct File {
    weight: f32,
    tensors: Shapes,
    numbers: BTreeMap<String, f32>,
    metadata: BTreeMap<String, String>,
}

fn literal(shape: &[usize], values: Vec<f32>) -> Weight {
    Weight::new(Literal {
        shape: shape.to_vec(),
        values,
    })
}

fn tensors(shapes: &Shapes) -> Tensors {
    let mut tensors = Tensors::default();
    for (name, shape) in shapes {
        let values = uniform(name, shape.iter().product());
        let weight = literal(shape, values);
        tensors.by_name.insert(name.clone(), weight);
    }
    tensors
}

impl File {
    fn tensors(&self) -> Tensors {
        let mut tensors = tensors(&self.tensors);
        for (name, number) in &self.numbers {
            let weight = literal(&[], vec![*number]);
            tensors.by_name.insert(name.clone(), weight);
        }
        tensors.metadata = self.metadata.clone();
        tensors
    }
}

fn fixture() -> Fixture {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/lora/index.json"
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The model of the fixture: UNet and text encoder.
fn model(fixture: &Fixture) -> (Tensors, Tensors) {
    let part = |name: &str| tensors(&fixture.model[name]);
    (part("unet"), part("text_encoder"))
}

/// The fixture's digest.
fn digest(values: &[f32]) -> [f64; 4] {
    let probe = uniform("probe", values.len());
    let sum = values
        .iter()
        .zip(&probe)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    let at = |i: usize| f64::from(values[i]);
    [sum, at(0), at(values.len() / 2), at(values.len() - 1)]
}

#[test]
fn merges_as_diffusers_peft_and_lycoris_do() {
    let fixture = fixture();
    assert!(fixture.cases.len() >= 17);
    for case in &fixture.cases {
        let (mut unet, mut text_encoder) = model(&fixture);
        let before = (unet.clone(), text_encoder.clone());
        let mut changed = Vec::new();
        for file in &case.files {
            let applied = apply(&mut unet, &mut text_encoder, &file.tensors(), file.weight)
                .unwrap_or_else(|e| panic!("{}: {e}", case.name));
            assert_eq!(applied.unmatched, [""; 0], "{}", case.name);
            changed.extend(applied.changed);
        }
        for (part, name, tensors, before) in [
            (Part::Unet, "unet", &unet, &before.0),
            (Part::TextEncoder, "text_encoder", &text_encoder, &before.1),
        ] {
            let expected = case.changed.get(name);
            for (parameter, weight) in &tensors.by_name {
                let label = format!("{}: {name}.{parameter}", case.name);
                let Some(expected) = expected.and_then(|e| e.get(parameter)) else {
                    assert!(weight.same(&before.by_name[parameter]), "{label}");
                    continue;
                };
                assert!(changed.contains(&(part, parameter.clone())), "{label}");
                let found = weight.read();
                assert_eq!(weight.shape(), before.by_name[parameter].shape());
                let largest = found.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let limit = 1e-6 * f64::from(largest);
                let [sum, samples @ ..] = digest(&found);
                let [expected_sum, expected @ ..] = *expected;
                for (found, expected) in samples.into_iter().zip(expected) {
                    assert!(
                        (found - expected).abs() <= limit,
                        "{label}: {found} {expected}"
                    );
                }
                // Independent roundings of so many elements, each times 0.06 on average.
                let limit = limit * 0.1 * (found.len() as f64).sqrt();
                assert!(
                    (sum - expected_sum).abs() <= limit,
                    "{label}: {sum} {expected_sum}"
                );
            }
        }
    }
}

/// A UNet of one cross-attention, one convolution and one norm, and no text encoder.
fn small() -> Tensors {
    named(&[
        ("conv_in.weight", &[4, 3, 3, 3]),
        ("conv_in.bias", &[4]),
        (ATTN2_TO_K, &[4, 768]),
        ("down_blocks.0.attentions.0.proj_in.weight", &[4, 4, 1, 1]),
        ("conv_norm_out.weight", &[4]),
        ("conv_norm_out.bias", &[4]),
    ])
}

const ATTN2_TO_K: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight";
const KOHYA: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k";

fn named(tensors: &[(&str, &[usize])]) -> Tensors {
    let shapes = tensors.iter();
    self::tensors(&shapes.map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect())
}

fn one(lora: &Tensors, weight: f32) -> Result<(Tensors, Applied), LoraError> {
    let mut unet = small();
    let applied = apply(&mut unet, &mut Tensors::default(), lora, weight)?;
    Ok((unet, applied))
}

/// The error for a LoRA of these tensors.
fn refused(tensors: &[(&str, &[usize])]) -> String {
    match one(&named(tensors), 1.0) {
        Ok(_) => panic!("{tensors:?} are merged"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn whole_differences_are_added() {
    let lora = named(&[
        ("lora_unet_conv_in.diff", &[4, 3, 3, 3]),
        ("lora_unet_conv_in.diff_b", &[4]),
        ("lora_unet_conv_norm_out.w_norm", &[4]),
        ("lora_unet_conv_norm_out.b_norm", &[4]),
        ("lora_unet_elsewhere.diff", &[4]),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.diff_b", &[4]),
        ("state", &[1]),
    ]);
    let (unet, applied) = one(&lora, -0.5).unwrap();
    for (parameter, difference) in [
        ("conv_in.weight", "lora_unet_conv_in.diff"),
        ("conv_in.bias", "lora_unet_conv_in.diff_b"),
        ("conv_norm_out.weight", "lora_unet_conv_norm_out.w_norm"),
        ("conv_norm_out.bias", "lora_unet_conv_norm_out.b_norm"),
    ] {
        let found = unet.by_name[parameter].read().into_owned();
        let base = uniform(parameter, found.len());
        let difference = uniform(difference, found.len());
        let sum = base.iter().zip(difference).map(|(b, d)| b + -0.5 * d);
        assert_eq!(found, sum.collect::<Vec<_>>(), "{parameter}");
    }
    assert_eq!(applied.changed.len(), 4);
    assert_eq!(
        applied.unmatched,
        [
            "lora_unet_down_blocks_0_attentions_0_proj_in.diff_b",
            "lora_unet_elsewhere.diff",
            "state",
        ]
    );
}

/// PEFT's `lora_bias`, an adapter's name in the names, and a scale of its own.
#[test]
fn biases_adapters_and_scales() {
    let lora = named(&[
        ("unet.conv_in.lora_A.default.weight", &[2, 3, 3, 3]),
        ("unet.conv_in.lora_B.default.weight", &[4, 2, 1, 1]),
        ("unet.conv_in.lora_B.default.bias", &[4]),
    ]);
    let (unet, _) = one(&lora, 0.5).unwrap();
    let bias = unet.by_name["conv_in.bias"].read();
    let difference = uniform("unet.conv_in.lora_B.default.bias", 4);
    for ((found, base), difference) in bias.iter().zip(uniform("conv_in.bias", 4)).zip(difference) {
        assert_eq!(*found, base + 0.5 * difference);
    }
    let mut scaled = lora.clone();
    let number = |value| literal(&[1], vec![value]);
    for (name, value) in [("unet.conv_in.alpha", 100.0), ("unet.conv_in.scale", 0.5)] {
        scaled.by_name.insert(name.into(), number(value));
    }
    let (other, _) = one(&scaled, 1.0).unwrap();
    for parameter in ["conv_in.weight", "conv_in.bias"] {
        let read = |model: &Tensors| model.by_name[parameter].read().into_owned();
        assert_eq!(read(&unet), read(&other), "{parameter}");
    }
}

#[test]
fn alphas_of_an_adapter_config() {
    let mut lora = named(&[
        ("base_model.model.conv_in.lora_A.weight", &[2, 3, 3, 3]),
        ("base_model.model.conv_in.lora_B.weight", &[4, 2, 1, 1]),
    ]);
    let (plain, _) = one(&lora, 3.0).unwrap();
    with_adapter_config(&mut lora, r#"{"r": 2, "lora_alpha": 6}"#).unwrap();
    let (configured, _) = one(&lora, 1.0).unwrap();
    let read = |model: &Tensors| model.by_name["conv_in.weight"].read().into_owned();
    assert_eq!(read(&plain), read(&configured));
    for json in ["[]", "{"] {
        assert!(with_adapter_config(&mut lora, json).is_err());
    }
    for (json, expected) in [
        (r#"{"lora_alpha": "much"}"#, "is no number"),
        (r#"{"lora_alpha": 1, "use_dora": true}"#, "DoRA"),
        (
            r#"{"lora_alpha": 1, "alpha_pattern": {"conv.*": 2}}"#,
            "is no module",
        ),
    ] {
        with_adapter_config(&mut lora, json).unwrap();
        let error = one(&lora, 1.0).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Names of the blocks as latent-diffusion numbers them, in the model of Stable Diffusion 1's shape of the fixture.
#[test]
fn original_names_follow_the_models_blocks() {
    let (unet, text_encoder) = model(&fixture());
    let index = Index::new(&unet, &text_encoder);
    for (original, module) in [
        ("input_blocks_0_0", "conv_in"),
        (
            "input_blocks_1_0_in_layers_2",
            "down_blocks.0.resnets.0.conv1",
        ),
        (
            "input_blocks_2_0_emb_layers_1",
            "down_blocks.0.resnets.1.time_emb_proj",
        ),
        (
            "input_blocks_2_1_proj_in",
            "down_blocks.0.attentions.1.proj_in",
        ),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        (
            "input_blocks_4_0_skip_connection",
            "down_blocks.1.resnets.0.conv_shortcut",
        ),
        (
            "input_blocks_5_0_out_layers_3",
            "down_blocks.1.resnets.1.conv2",
        ),
        ("middle_block_0_in_layers_0", "mid_block.resnets.0.norm1"),
        ("middle_block_1_proj_out", "mid_block.attentions.0.proj_out"),
        ("middle_block_2_out_layers_0", "mid_block.resnets.1.norm2"),
        (
            "output_blocks_2_0_in_layers_2",
            "up_blocks.0.resnets.2.conv1",
        ),
        ("output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks_5_1_norm", "up_blocks.1.attentions.2.norm"),
        ("time_embed_2", "time_embedding.linear_2"),
        ("out_2", "conv_out"),
    ] {
        let found = index.find(&format!("lora_unet_{original}"));
        assert_eq!(found, Some((Part::Unet, module)), "{original}");
        let dotted = original.replace('_', ".").replace("in.layers", "in_layers");
        let dotted = format!("model.diffusion_model.{dotted}");
        assert_eq!(index.find(&dotted), Some((Part::Unet, module)), "{dotted}");
    }
    for other in [
        "input_blocks_3_1_proj_in",
        "output_blocks_6_0_in_layers_2",
        "conv",
    ] {
        assert_eq!(index.find(&format!("lora_unet_{other}")), None, "{other}");
    }
    let text = [
        "encoder.layers.0.mlp.fc1",
        "text_model.encoder.layers.0.mlp.fc1",
    ];
    for name in text {
        let found = index.find(&format!("text_encoder.{name}"));
        assert_eq!(found, Some((Part::TextEncoder, text[1])));
    }
}

#[test]
fn other_kinds_are_refused_by_name() {
    for (tensor, kind) in [
        ("dora_scale", "DoRA"),
        ("lora_magnitude_vector.weight", "DoRA"),
        ("oft_blocks", "OFT"),
        ("on_input", "IA3"),
        ("a1.weight", "GLoRA"),
    ] {
        let name = format!("{KOHYA}.{tensor}");
        let error = refused(&[(name.as_str(), &[4])]);
        assert!(error.contains(&name) && error.contains(kind), "{error}");
    }
}

#[test]
fn loras_of_other_families_are_refused() {
    let (down, up) = (
        format!("{KOHYA}.lora_down.weight"),
        format!("{KOHYA}.lora_up.weight"),
    );
    let error = refused(&[(&down, &[2, 1024]), (&up, &[4, 2])]);
    assert!(
        error.contains(&down)
            && error.contains("[4, 1024]")
            && error.contains(&format!("{ATTN2_TO_K} is [4, 768]"))
            && error.contains("for Stable Diffusion 2, the model is Stable Diffusion 1"),
        "{error}"
    );
    let error = refused(&[(&down, &[2, 2048]), (&up, &[4, 2])]);
    assert!(error.contains("for Stable Diffusion XL"), "{error}");
    let second = "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight";
    let error = refused(&[(second, &[4, 2])]);
    assert!(
        error.contains(second) && error.contains("Stable Diffusion XL"),
        "{error}"
    );
    let flux = "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight";
    let error = refused(&[(flux, &[4, 2])]);
    assert!(
        error.contains("none of the LoRA's 1 tensors") && error.contains("Flux"),
        "{error}"
    );
    assert!(refused(&[]).contains("none of the LoRA's 0 tensors"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let at = |role: &str| format!("{KOHYA}.{role}");
    let (down, up, mid) = (
        at("lora_down.weight"),
        at("lora_up.weight"),
        at("lora_mid.weight"),
    );
    let error = refused(&[(&down, &[2, 768])]);
    assert_eq!(
        error,
        format!("tensor {down}: its up (lora_up, lora_B) is missing")
    );
    let error = refused(&[(&up, &[4, 2])]);
    assert_eq!(
        error,
        format!("tensor {up}: its down (lora_down, lora_A) is missing")
    );
    let error = refused(&[(&down, &[3, 768]), (&up, &[4, 2])]);
    assert_eq!(
        error,
        format!("tensors {up} [4, 2] and {down} [3, 768] do not fit each other")
    );
    let error = refused(&[(&down, &[2, 768]), (&up, &[4])]);
    assert!(
        error.contains("is no factor") && error.contains(&up),
        "{error}"
    );
    let error = refused(&[(&down, &[0, 768]), (&up, &[4, 0])]);
    assert!(error.contains("is no factor"), "{error}");
    let error = refused(&[(&down, &[2, 768]), (&up, &[4, 2]), (&mid, &[2, 2])]);
    assert!(error.contains(&mid), "{error}");
    let error = refused(&[(&down, &[2, 768]), (&up, &[4, 2]), (&mid, &[2, 3, 1, 1])]);
    assert!(error.contains(&mid) && error.contains(&down), "{error}");
    let alpha = at("alpha");
    let error = refused(&[(&down, &[2, 768]), (&up, &[4, 2]), (&alpha, &[2])]);
    assert_eq!(error, format!("tensor {alpha} is [2], expected one number"));
    let peft = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight";
    let error = refused(&[(&down, &[2, 768]), (&up, &[4, 2]), (peft, &[2, 768])]);
    assert!(error.contains(&down) && error.contains(peft), "{error}");

    let [w1a, w1b, w2a, w2b, t1] = [
        "hada_w1_a",
        "hada_w1_b",
        "hada_w2_a",
        "hada_w2_b",
        "hada_t1",
    ]
    .map(at);
    let (a, b): (&[usize], &[usize]) = (&[4, 2], &[2, 768]);
    let error = refused(&[(&w1a, a), (&w1b, b), (&w2a, a)]);
    assert_eq!(error, format!("tensor {w2a}: its hada_w2_b is missing"));
    let error = refused(&[(&w1a, a), (&w1b, b)]);
    assert_eq!(error, format!("tensor {w1a}: its hada_w2_a is missing"));
    let error = refused(&[
        (&w1a, a),
        (&w1b, b),
        (&w2a, a),
        (&w2b, b),
        (&t1, &[2, 2, 1, 1]),
    ]);
    assert_eq!(error, format!("tensor {t1}: its hada_t2 is missing"));
    let error = refused(&[(&w1a, a), (&w1b, b), (&w2a, &[3, 2]), (&w2b, b)]);
    assert!(error.contains(&w1a) && error.contains(&w2a), "{error}");

    let [k1, k2, k2a] = ["lokr_w1", "lokr_w2", "lokr_w2_a"].map(at);
    let error = refused(&[(&k1, &[2, 2])]);
    assert_eq!(error, format!("tensor {k1}: its lokr_w2 is missing"));
    let error = refused(&[(&k1, &[2, 2]), (&k2a, &[2, 1])]);
    assert_eq!(error, format!("tensor {k2a}: its lokr_w2_b is missing"));
    let error = refused(&[(&k1, &[2, 2]), (&k2, &[2, 383])]);
    assert!(
        error.contains("[4, 766]") && error.contains("[4, 768]"),
        "{error}"
    );
    let [k1a, k1b, k2b] = ["lokr_w1_a", "lokr_w1_b", "lokr_w2_b"].map(at);
    let wide: (&[usize], &[usize]) = (&[1, 1 << 13], &[1, 1 << 13]);
    let error = refused(&[
        (&k1a, &[2, 1]),
        (&k1b, wide.0),
        (&k2a, &[2, 1]),
        (&k2b, wide.1),
    ]);
    assert!(error.contains("[4, 67108864]"), "{error}");
}

#[test]
fn numbers_that_are_none_are_refused() {
    let (down, up) = (
        format!("{KOHYA}.lora_down.weight"),
        format!("{KOHYA}.lora_up.weight"),
    );
    let shapes: &[(&str, &[usize])] = &[(&down, &[2, 768]), (&up, &[4, 2])];
    for bad in [f32::NAN, f32::INFINITY] {
        let mut lora = named(shapes);
        let mut values = uniform("up", 8);
        values[5] = bad;
        lora.by_name.insert(up.clone(), literal(&[4, 2], values));
        let error = one(&lora, 1.0).map(drop).unwrap_err();
        assert_eq!(error, LoraError::NotFinite(up.clone()));
        let error = one(&named(shapes), bad).map(drop).unwrap_err();
        assert!(matches!(error, LoraError::Weight(_)));
    }
    // Numbers whose product is none, and a product that only could have been.
    for (large, overflows) in [(3e37, true), (1e30, false)] {
        let mut lora = named(shapes);
        let values = vec![large; 8];
        lora.by_name.insert(up.clone(), literal(&[4, 2], values));
        let values = vec![10.0; 2 * 768];
        lora.by_name
            .insert(down.clone(), literal(&[2, 768], values));
        match one(&lora, 1.0).map(drop) {
            Err(LoraError::Overflow { tensor, parameter }) if overflows => {
                assert_eq!((tensor, parameter), (down.clone(), ATTN2_TO_K.to_owned()));
            }
            Ok(()) if !overflows => {}
            other => panic!("{large}: {other:?}"),
        }
    }
}

/// An error leaves the model as it was, and a weight of 0 too.
#[test]
fn nothing_changes_by_halves() {
    let lora = named(&[
        ("lora_unet_conv_in.diff", &[4, 3, 3, 3]),
        ("lora_unet_conv_norm_out.diff", &[5]),
    ]);
    let mut unet = small();
    let before = unet.clone();
    let same = |unet: &Tensors| {
        let mut tensors = before.by_name.iter();
        tensors.all(|(name, weight)| weight.same(&unet.by_name[name]))
    };
    assert!(apply(&mut unet, &mut Tensors::default(), &lora, 1.0).is_err());
    assert!(same(&unet));
    let lora = named(&[("lora_unet_conv_in.diff", &[4, 3, 3, 3])]);
    apply(&mut unet, &mut Tensors::default(), &lora, 0.0).unwrap();
    assert!(same(&unet));
    apply(&mut unet, &mut Tensors::default(), &lora, 0.1).unwrap();
    assert!(!same(&unet));
}

#[test]
fn arguments_have_a_file_and_perhaps_a_weight() {
    let parse = |text: &str| text.parse::<LoraArgument>();
    for (text, file, weight) in [
        ("style.safetensors", "style.safetensors", 1.0),
        ("style.safetensors:0.6", "style.safetensors", 0.6),
        ("a:b/style:-1", "a:b/style", -1.0),
        ("C:\\style.safetensors", "C:\\style.safetensors", 1.0),
        ("C:\\style.safetensors:.5", "C:\\style.safetensors", 0.5),
        ("style:v2", "style:v2", 1.0),
        ("style:", "style:", 1.0),
    ] {
        let file = file.into();
        assert_eq!(parse(text), Ok(LoraArgument { file, weight }), "{text}");
    }
    assert_eq!(parse(""), Err(ArgumentError::NoFile));
    assert_eq!(parse(":0.5"), Err(ArgumentError::NoFile));
    assert_eq!(parse("a:inf"), Err(ArgumentError::Weight("inf".into())));
    assert_eq!(parse("a:1e99"), Err(ArgumentError::Weight("1e99".into())));
}
