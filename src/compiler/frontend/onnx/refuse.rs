//! Graphs that are better refused than compiled: what the importer would compute wrongly without a word, or at a
//! hundredth of the speed.

use super::OnnxError;
use std::collections::HashSet;
use std::path::Path;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, type_proto};

const QUANTIZED: &str =
    "the model is quantized; export it in float32, `kiln compile` quantizes by itself";
const HALF: &str = "the model computes in float16; export it in float32 (float16 may only be how weights are stored)";
const ATTENTION: &str =
    "the Attention operator of opset 23 is not supported; export with opset 14 to 20";
const CONTROL_FLOW: &str = "control flow is not supported; export with fixed conditions";
const RECURRENT: &str = "recurrent operators are not part of Stable Diffusion";
const DOMAIN: &str = "operators outside the standard ONNX set are not supported; export without an optimizer's fusions";

/// What a weight stored in 16 bits may pass on its way to the Cast.
const MOVEMENT: [&str; 5] = ["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze"];

fn reason(node: &NodeProto) -> Option<&'static str> {
    let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
    match node.op_type.as_str() {
        "QuantizeLinear"
        | "DequantizeLinear"
        | "DynamicQuantizeLinear"
        | "MatMulInteger"
        | "ConvInteger" => Some(QUANTIZED),
        op if op.starts_with("QLinear") || op.starts_with("DynamicQuantize") => Some(QUANTIZED),
        op if op.starts_with("QGemm") || op.starts_with("QAttention") || op == "MatMulNBits" => {
            Some(QUANTIZED)
        }
        _ if !standard => Some(DOMAIN),
        "Attention" => Some(ATTENTION),
        "If" | "Loop" | "Scan" => Some(CONTROL_FLOW),
        "LSTM" | "GRU" | "RNN" => Some(RECURRENT),
        _ => None,
    }
}

fn is_half(data_type: i32) -> bool {
    data_type == DataType::Float16 as i32 || data_type == DataType::Bfloat16 as i32
}

/// Refuses a model by its operators and types, naming the first node that shows why.
pub(super) fn check(model: &ModelProto, path: &Path) -> Result<(), OnnxError> {
    let malformed = || OnnxError::Malformed {
        path: path.to_owned(),
        reason: "holds no graph".into(),
    };
    let graph = model.graph.as_ref().ok_or_else(malformed)?;
    let refuse = |node: &NodeProto, reason| {
        let (node, op) = (node.name.clone(), node.op_type.clone());
        Err(OnnxError::Refused {
            path: path.to_owned(),
            node,
            op,
            reason,
        })
    };
    let half = half_values(graph);
    for node in &graph.node {
        if let Some(reason) = reason(node) {
            return refuse(node, reason);
        }
        let moves = node.op_type == "Cast" || MOVEMENT.contains(&node.op_type.as_str());
        if !moves && node.input.iter().any(|i| half.contains(i.as_str())) {
            return refuse(node, HALF);
        }
    }
    Ok(())
}

/// Names of the graph's inputs and initializers of 16 bits, and of what only moves them.
fn half_values(graph: &GraphProto) -> HashSet<&str> {
    let input_type =
        |i: &tract_onnx::pb::ValueInfoProto| match i.r#type.as_ref().and_then(|t| t.value.as_ref())
        {
            Some(type_proto::Value::TensorType(t)) => t.elem_type,
            None => 0,
        };
    let inputs = graph
        .input
        .iter()
        .filter(|i| is_half(input_type(i)))
        .map(|i| i.name.as_str());
    let initializers = graph
        .initializer
        .iter()
        .filter(|t| is_half(t.data_type))
        .map(|t| t.name.as_str());
    let mut half: HashSet<&str> = inputs.chain(initializers).collect();
    for node in graph
        .node
        .iter()
        .filter(|n| MOVEMENT.contains(&n.op_type.as_str()))
    {
        if node
            .input
            .first()
            .is_some_and(|i| half.contains(i.as_str()))
        {
            half.extend(node.output.iter().map(String::as_str));
        }
    }
    half
}
