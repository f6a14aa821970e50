//! Every exporter's dialect gives the same program, and the program computes what the model does.

use super::*;
use crate::graph::Tensor;
use crate::passes;
use safetensors::SafeTensors;
use std::path::PathBuf;
use tract_onnx::prelude::{IntoRunnable, IntoTValue, IntoTensor, TVec};

const PARTS: [&str; 4] = ["text_encoder", "unet", "vae_decoder", "vae_encoder"];
const VARIANTS: [&str; 5] = ["ts14", "ts17", "dyn18", "dyn20", "old14"];

pub(in crate::frontend) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// One part of a fixture's folder, imported at a latent of `size`.
fn import_part(variant: &str, name: &str, size: [usize; 2]) -> Imported {
    try_import(&fixtures().join("tiny").join(variant), name, size).unwrap_or_else(|e| panic!("{e}"))
}

fn try_import(path: &Path, name: &str, size: [usize; 2]) -> Result<Imported, OnnxError> {
    let mut folder = Folder::open(path)?;
    let ports = match name {
        "text_encoder" => &TEXT_ENCODER,
        "unet" => &UNET,
        "vae_decoder" => &VAE_DECODER,
        _ => &VAE_ENCODER,
    };
    part(&mut folder, name, ports, &|i, _, rank| {
        Ok(match (name, i, rank) {
            ("text_encoder", ..) => vec![1, 77],
            ("unet", 1, Some(0)) => vec![],
            ("unet", 1, _) => vec![1],
            ("unet", 2, _) => vec![1, 77, 32],
            ("vae_encoder", ..) => vec![1, 3, size[0] * 2, size[1] * 2],
            _ => vec![1, 4, size[0], size[1]],
        })
    })
}

pub(in crate::frontend) fn fused(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    passes::run(&mut graph, None, &mut |_, _| ()).unwrap_or_else(|e| panic!("{e}"));
    graph
}

/// One part of a fixture's folder, imported and fused.
pub(in crate::frontend) fn imported(variant: &str, name: &str) -> Graph {
    fused(&import_part(variant, name, [16, 16]).graph)
}

/// A stored tensor, its integers as `f32`.
pub(in crate::frontend) fn stored(file: &SafeTensors<'_>, key: &str) -> Tensor {
    let view = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
    let data = match view.dtype() {
        safetensors::Dtype::F32 => view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        safetensors::Dtype::I64 => view
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32)
            .collect(),
        other => panic!("{key} is {other:?}"),
    };
    Tensor {
        shape: view.shape().to_vec(),
        data,
    }
}

fn transposed(x: &Tensor, order: [usize; 3], shape: [usize; 3]) -> Tensor {
    let mut data = Vec::with_capacity(x.data.len());
    let out = order.map(|o| shape[o]);
    let strides = [shape[1] * shape[2], shape[2], 1];
    for i in 0..out[0] {
        for j in 0..out[1] {
            for k in 0..out[2] {
                data.push(
                    x.data[i * strides[order[0]] + j * strides[order[1]] + k * strides[order[2]]],
                );
            }
        }
    }
    Tensor {
        shape: out.to_vec(),
        data,
    }
}

/// From outside a program to inside: no batch axis, channels last.
pub(in crate::frontend) fn inside(x: &Tensor) -> Tensor {
    match x.shape.as_slice() {
        [1, c, h, w] => transposed(x, [1, 2, 0], [*c, *h, *w]),
        [1, rest @ ..] if !rest.is_empty() => Tensor {
            shape: rest.to_vec(),
            data: x.data.clone(),
        },
        [] => Tensor {
            shape: vec![1],
            data: x.data.clone(),
        },
        shape => Tensor {
            shape: shape.to_vec(),
            data: x.data.clone(),
        },
    }
}

pub(in crate::frontend) fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.shape, expected.shape, "{what}");
    let largest = expected.data.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = found
        .data
        .iter()
        .zip(&expected.data)
        .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(
        worst <= 1e-4 * largest,
        "{what}: off by {worst:e}, the largest is {largest}"
    );
}

fn ports_of_part(part: &str) -> (Vec<&'static str>, &'static str) {
    match part {
        "text_encoder" => (vec!["input_ids"], "last_hidden_state"),
        "unet" => (
            vec!["sample", "timestep", "encoder_hidden_states"],
            "out_sample",
        ),
        "vae_decoder" => (vec!["latents"], "sample"),
        _ => (vec!["image"], "moments"),
    }
}

#[test]
fn text_encoders_without_their_last_layer_are_transformers() {
    let read = |name: &str| std::fs::read(fixtures().join("tiny").join(name)).unwrap();
    let (references, skips) = (read("reference.safetensors"), read("clip_skip.safetensors"));
    let references = SafeTensors::deserialize(&references).unwrap();
    let skips = SafeTensors::deserialize(&skips).unwrap();
    for (variant, key) in [
        ("ts17", "text_encoder"),
        ("dyn18", "text_encoder"),
        ("old14", "text_encoder"),
        ("ts17gelu", "text_encoder_gelu"),
    ] {
        let whole = fused(&import_part(variant, "text_encoder", [16, 16]).graph);
        let forms = passes::clip_skip::forms(&whole);
        assert_eq!(forms.len(), 2, "{variant}");
        assert_eq!(forms[0].to_string(), whole.to_string());
        let ids = [inside(&stored(&references, &format!("{key}.input_ids")))];
        let found = forms[1].interpret(&ids).unwrap();
        let expected = inside(&stored(&skips, &format!("{key}.2")));
        assert_close(&found[0], &expected, variant);
    }
}

/// Compares a fused graph with the stored reference of `key`.
pub(in crate::frontend) fn assert_reference(graph: &Graph, part: &str, key: &str) {
    let bytes = std::fs::read(fixtures().join("tiny/reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (inputs, output) = ports_of_part(part);
    let inputs: Vec<Tensor> = inputs
        .iter()
        .map(|i| inside(&stored(&file, &format!("{key}.{i}"))))
        .collect();
    let found = graph.interpret(&inputs).unwrap();
    assert_close(
        &found[0],
        &inside(&stored(&file, &format!("{key}.{output}"))),
        key,
    );
}

#[test]
fn every_exporter_gives_the_same_program() {
    for part in PARTS {
        let first = fused(&import_part(VARIANTS[0], part, [16, 16]).graph).structure();
        for variant in &VARIANTS[1..] {
            let other = fused(&import_part(variant, part, [16, 16]).graph).structure();
            let difference = first.lines().zip(other.lines()).find(|(a, b)| a != b);
            assert!(
                first == other,
                "{part}: {} and {variant} differ: {difference:?}",
                VARIANTS[0]
            );
        }
    }
    let scalar = fused(&import_part("ts17scalar", "unet", [16, 16]).graph);
    assert_eq!(
        scalar.structure(),
        fused(&import_part("ts17", "unet", [16, 16]).graph).structure()
    );
    let sampled = fused(&import_part("sampled", "vae_encoder", [16, 16]).graph);
    assert_eq!(
        sampled.structure(),
        fused(&import_part("old14", "vae_encoder", [16, 16]).graph).structure()
    );
    let [a, b] = ["ts17gelu", "dyn18gelu"]
        .map(|v| fused(&import_part(v, "text_encoder", [16, 16]).graph).structure());
    assert_eq!(a, b);
    for part in ["vae_encoder", "vae_decoder"] {
        let symbolic = fused(&import_part("dyn18sym", part, [16, 16]).graph).structure();
        assert_eq!(
            symbolic,
            fused(&import_part("ts17", part, [16, 16]).graph).structure()
        );
    }
}

#[test]
fn programs_compute_what_pytorch_does() {
    for variant in VARIANTS {
        for part in PARTS {
            assert_reference(
                &fused(&import_part(variant, part, [16, 16]).graph),
                part,
                part,
            );
        }
    }
    assert_reference(
        &fused(&import_part("ts17scalar", "unet", [16, 16]).graph),
        "unet",
        "unet",
    );
    assert_reference(
        &fused(&import_part("sampled", "vae_encoder", [16, 16]).graph),
        "vae_encoder",
        "vae_encoder",
    );
    assert_reference(
        &fused(&import_part("ts17linear", "unet", [16, 16]).graph),
        "unet",
        "unet_linear",
    );
    for variant in ["ts17gelu", "dyn18gelu"] {
        let graph = fused(&import_part(variant, "text_encoder", [16, 16]).graph);
        assert_reference(&graph, "text_encoder", "text_encoder_gelu");
    }
}

#[test]
fn programs_of_other_sizes_come_from_one_import() {
    for (variant, part, key) in [
        ("dyn18", "unet", "unet"),
        ("ts17linear", "unet", "unet_linear"),
        ("ts14", "vae_decoder", "vae_decoder"),
        ("dyn20", "vae_encoder", "vae_encoder"),
    ] {
        let graph = fused(&import_part(variant, part, [16, 16]).graph);
        for [h, w] in [[10, 14], [9, 13]] {
            let factor = if part == "vae_encoder" { 2 } else { 1 };
            let resized = graph
                .resized([h * factor, w * factor])
                .unwrap_or_else(|e| panic!("{e}"));
            resized.verify().unwrap();
            assert_reference(&resized, part, &format!("{key}@{h}x{w}"));
        }
        let factor = if part == "vae_encoder" { 2 } else { 1 };
        let there_and_back = graph
            .resized([9 * factor, 13 * factor])
            .and_then(|g| g.resized([16 * factor; 2]))
            .unwrap();
        assert_eq!(there_and_back.to_string(), graph.to_string());
    }
}

/// The second witness: what the importer's own runtime computes of the same graph, against the source operators and
/// the fused ones.
#[test]
fn programs_compute_what_the_importer_does() {
    for (variant, part) in [
        ("dyn18", "unet"),
        ("old14", "text_encoder"),
        ("ts14", "vae_decoder"),
        ("dyn20", "vae_encoder"),
    ] {
        let imported = import_part(variant, part, [16, 16]);
        let bytes = std::fs::read(fixtures().join("tiny/reference.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (names, _) = ports_of_part(part);
        let inputs: Vec<Tensor> = names
            .iter()
            .map(|n| stored(&file, &format!("{part}.{n}")))
            .collect();
        let facts: Vec<_> = imported
            .typed
            .inputs
            .iter()
            .map(|o| imported.typed.outlet_fact(*o).unwrap().clone())
            .collect();
        let values: TVec<_> = inputs
            .iter()
            .zip(facts)
            .map(|(x, fact)| {
                let tensor = tract_core::internal::Tensor::from_shape(&x.shape, &x.data).unwrap();
                tensor
                    .cast_to_dt(fact.datum_type)
                    .unwrap()
                    .into_owned()
                    .into_tvalue()
            })
            .collect();
        let witness = imported
            .typed
            .clone()
            .into_runnable()
            .unwrap()
            .run(values)
            .unwrap();
        let witness = witness[0].clone().into_tensor();
        let data = witness
            .try_as_plain_ram()
            .unwrap()
            .as_slice::<f32>()
            .unwrap()
            .to_vec();
        let witness = Tensor {
            shape: witness.shape().to_vec(),
            data,
        };
        let source = imported.graph.interpret(&inputs).unwrap();
        assert_close(&source[0], &witness, "source operators");
        let inner: Vec<Tensor> = inputs.iter().map(inside).collect();
        let found = fused(&imported.graph).interpret(&inner).unwrap();
        assert_close(&found[0], &inside(&witness), "fused operators");
    }
}

#[test]
fn operators_that_nobody_knows_are_named() {
    let model = Model::load(&fixtures().join("refused/unsupported/model.onnx")).unwrap();
    let error = import::import(&model, &|_, _, _| Ok(vec![1, 4, 8, 8]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/out_sample/Det") && error.contains("(Det)"),
        "{error}"
    );
}

#[test]
fn unsuitable_models_are_refused_with_the_reason() {
    for (name, expected) in [
        ("qdq", "quantized"),
        ("qoperator", "quantized"),
        ("dynamic_quantization", "quantized"),
        ("fp16", "float16"),
        ("opset23", "opset 23"),
        ("control_flow", "control flow"),
        ("lstm", "recurrent"),
    ] {
        let error = Model::load(&fixtures().join("refused").join(name).join("model.onnx"))
            .err()
            .map(|e| e.to_string());
        let error = error.unwrap_or_else(|| panic!("{name} was not refused"));
        assert!(
            error.contains(expected) && error.contains("node"),
            "{name}: {error}"
        );
    }
}

/// Models written here rather than exported.
mod small {
    use super::*;
    use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
    use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
    use tract_onnx::pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
        StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
        attribute_proto, type_proto,
    };

    fn value(name: &str, shape: &[i64]) -> ValueInfoProto {
        let dim = shape.iter().map(|n| Dimension {
            value: Some(dimension::Value::DimValue(*n)),
            ..Default::default()
        });
        let shape = Some(TensorShapeProto { dim: dim.collect() });
        let tensor = type_proto::Tensor {
            elem_type: DataType::Float as i32,
            shape,
        };
        let r#type = Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        });
        ValueInfoProto {
            name: name.into(),
            r#type,
            ..Default::default()
        }
    }

    fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
        NodeProto {
            op_type: op.into(),
            name: format!("node_{output}"),
            input: inputs.iter().map(|i| (*i).into()).collect(),
            output: vec![output.into()],
            attribute,
            ..Default::default()
        }
    }

    fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto {
            name: name.into(),
            i,
            r#type: attribute_proto::AttributeType::Int as i32,
            ..Default::default()
        }
    }

    fn weight(name: &str, data_type: DataType, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
        TensorProto {
            name: name.into(),
            data_type: data_type as i32,
            dims: dims.to_vec(),
            raw_data,
            ..Default::default()
        }
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn model(
        opset: i64,
        shape: &[i64],
        node: Vec<NodeProto>,
        initializer: Vec<TensorProto>,
    ) -> ModelProto {
        let (input, output) = (vec![value("x", shape)], vec![value("y", shape)]);
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: opset,
            }],
            graph: Some(GraphProto {
                node,
                initializer,
                input,
                output,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn translated(proto: ModelProto, shape: &[usize]) -> Graph {
        let path = Path::new("/model.onnx");
        let model = Model::new(path, path, proto).unwrap();
        let typed =
            import::import(&model, &|_, _, _| Ok(shape.to_vec())).unwrap_or_else(|e| panic!("{e}"));
        translate::translate(&typed, "small", path, &model.layer_names())
            .unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn bfloat16_weights_are_widened() {
        let raw = [1.5f32, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes()[2..].to_vec())
            .collect();
        let w = weight("w", DataType::Bfloat16, &[2], raw);
        let nodes = vec![
            node(
                "Cast",
                &["w"],
                "wide",
                vec![int("to", DataType::Float as i64)],
            ),
            node("Mul", &["x", "wide"], "y", vec![]),
        ];
        let graph = translated(model(17, &[1, 2], nodes, vec![w]), &[1, 2]);
        let found = graph
            .interpret(&[Tensor {
                shape: vec![1, 2],
                data: vec![10.0, 1.0],
            }])
            .unwrap();
        assert_eq!(found[0].data, [15.0, -2.0]);
    }

    #[test]
    fn the_group_norm_of_opset_21_stays_whole() {
        let scale = weight(
            "norm.weight",
            DataType::Float,
            &[4],
            floats(&[1.0, 2.0, 3.0, 4.0]),
        );
        let bias = weight(
            "norm.bias",
            DataType::Float,
            &[4],
            floats(&[0.0, 0.5, -0.5, 1.0]),
        );
        let nodes = vec![node(
            "GroupNormalization",
            &["x", "norm.weight", "norm.bias"],
            "y",
            vec![int("num_groups", 2)],
        )];
        let graph = fused(&translated(
            model(21, &[1, 4, 2, 2], nodes, vec![scale, bias]),
            &[1, 4, 2, 2],
        ));
        assert_eq!(graph.summary(), "group_norm 1");
        assert!(graph.to_string().contains("group_norm \"norm\""), "{graph}");
        let x = Tensor {
            shape: vec![2, 2, 4],
            data: (0..16).map(|i| i as f32).collect(),
        };
        let found = graph.interpret(&[x]).unwrap();
        // Channels 0 and 1 hold 0, 1, 4, 5, 8, 9, 12, 13: mean 6.5, variance 20.25.
        let normal = |v: f32| (v - 6.5) / 20.250_01f32.sqrt();
        assert!((found[0].data[0] - normal(0.0)).abs() < 1e-5);
        assert!((found[0].data[5] - (normal(5.0) * 2.0 + 0.5)).abs() < 1e-5);
    }

    #[test]
    fn what_the_compiler_does_not_know_is_named() {
        let nodes = vec![
            node("Mul", &["x", "x"], "square", vec![]),
            node("Tan", &["square"], "y", vec![]),
        ];
        let path = Path::new("/model.onnx");
        let model = Model::new(path, path, model(17, &[1, 2], nodes, vec![])).unwrap();
        let typed = import::import(&model, &|_, _, _| Ok(vec![1, 2])).unwrap();
        let error = translate::translate(&typed, "small", path, &model.layer_names())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("node_y") && error.contains("Tan") && error.contains("/model.onnx"),
            "{error}"
        );
    }

    #[test]
    fn external_weights_stay_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("model");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(folder.path().join("outside.data"), floats(&[1.0, 2.0])).unwrap();
        std::fs::write(inside.join("w.data"), floats(&[1.0, 2.0])).unwrap();
        let path = inside.join("model.onnx");
        let load = |location: &str, offset: &str| {
            let mut w = weight("w", DataType::Float, &[2], vec![]);
            w.data_location = Some(DataLocation::External as i32);
            for (key, value) in [("location", location), ("offset", offset), ("length", "8")] {
                w.external_data.push(StringStringEntryProto {
                    key: key.into(),
                    value: value.into(),
                });
            }
            let proto = model(
                17,
                &[1, 2],
                vec![node("Mul", &["x", "w"], "y", vec![])],
                vec![w],
            );
            Model::new(&path, &path, proto).map(|m| m.files)
        };
        assert_eq!(
            load("w.data", "0").unwrap(),
            [path.clone(), inside.join("w.data")]
        );
        let outside = folder.path().join("outside.data");
        for (location, offset, expected) in [
            ("../outside.data", "0", "outside the model's folder"),
            (outside.to_str().unwrap(), "0", "outside the model's folder"),
            ("missing.data", "0", "missing.data: not found"),
            ("w.data", "4", "byte 4 of 8"),
            ("w.data", "18446744073709551615", "of 8"),
            ("w.data", "first", "offset is \"first\""),
        ] {
            let error = load(location, offset).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

/// Dynamo's exports name a layer by its weights alone, and not where it has folded those.
#[test]
fn layers_have_the_names_of_the_checkpoint() {
    let everywhere = [
        "conv2d \"conv_in\"",
        "linear \"down_blocks.0.resnets.0.time_emb_proj\"",
        "conv2d \"down_blocks.0.resnets.0.conv1\"",
        "linear \"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0\"",
        "layer_norm \"down_blocks.0.attentions.0.transformer_blocks.0.norm1\"",
        "weight \"down_blocks.0.resnets.0.conv1.bias\"",
        "\"out_sample\"",
    ];
    let by_path = [
        "group_norm \"down_blocks.0.resnets.0.norm1\"",
        "attention \"down_blocks.0.attentions.0.transformer_blocks.0.attn1\"",
        "linear \"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q\"",
    ];
    for (variant, names) in [
        ("ts17", [&everywhere[..], &by_path].concat()),
        ("dyn18", everywhere.to_vec()),
        ("dyn20", everywhere.to_vec()),
    ] {
        let text = fused(&import_part(variant, "unet", [16, 16]).graph).to_string();
        for name in names {
            assert!(text.contains(name), "{variant}: {name}");
        }
    }
}

#[test]
fn damaged_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let whole = std::fs::read(fixtures().join("tiny/ts17/unet/model.onnx")).unwrap();
    for bytes in [&b"no model"[..], &whole[..whole.len() / 2], &[]] {
        std::fs::write(&path, bytes).unwrap();
        let error = Model::load(&path)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert!(error.contains("model.onnx"), "{error}");
    }
}
