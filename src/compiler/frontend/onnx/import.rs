//! ONNX to a typed, decluttered graph with every shape known.

use super::proto::Model;
use super::{OnnxError, hook};
use tract_core::optim::Optimizer;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::{GenericFactoid, InferenceModelExt};

/// These split or reorder what the passes want to see whole.
const UNWANTED: [&str; 4] = [
    "PushSliceUp",
    "PushSplitDown",
    "ConcatThenEinsum",
    "ChangeAxes",
];

/// An input's shape at batch 1, by its name and the rank that the file gives it.
pub(super) type ShapeOf<'a> = &'a dyn Fn(usize, &str, Option<usize>) -> Result<Vec<usize>, String>;

/// Imports the model with every input's shape fixed.
pub(super) fn import(model: &Model, shape_of: ShapeOf<'_>) -> Result<TypedModel, OnnxError> {
    let failed = |reason: String| OnnxError::Import {
        path: model.path.clone(),
        reason,
    };
    let tract = |e: TractError| failed(format!("{e:#}"));
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    onnx.op_register
        .insert("GroupNormalization", hook::group_norm);
    if let Some(node) = model
        .graph()
        .node
        .iter()
        .find(|n| !onnx.op_register.0.contains_key(&n.op_type))
    {
        let (path, node, op) = (model.path.clone(), node.name.clone(), node.op_type.clone());
        return Err(OnnxError::Operator {
            path,
            node,
            op,
            reason: "the operator is not supported".into(),
        });
    }
    let parsed = onnx.parse(&model.proto, Some(&model.root)).map_err(tract)?;
    if let Some(name) = parsed.unresolved_inputs.first() {
        return Err(failed(format!("nothing computes {name:?}")));
    }
    let mut inference = parsed.model;
    for i in 0..inference.inputs.len() {
        let name = inference.node(inference.inputs[i].node).name.clone();
        let fact = inference.input_fact(i).map_err(tract)?.clone();
        let rank = match fact.shape.rank() {
            GenericFactoid::Only(rank) => usize::try_from(rank).ok(),
            GenericFactoid::Any => None,
        };
        let shape = shape_of(i, &name, rank).map_err(failed)?;
        let datum = fact
            .datum_type()
            .ok_or_else(|| failed(format!("input {name:?} has no type")))?;
        inference
            .set_input_fact(i, InferenceFact::dt_shape(datum, &shape))
            .map_err(tract)?;
    }
    for i in 0..inference.outputs.len() {
        inference
            .set_output_fact(i, InferenceFact::default())
            .map_err(tract)?;
    }
    let mut typed = inference.into_typed().map_err(tract)?;
    let mut declutter = Optimizer::declutter();
    declutter.passes.retain(|pass| {
        let name = format!("{pass:?}");
        !UNWANTED.iter().any(|unwanted| name.starts_with(unwanted))
    });
    declutter.optimize(&mut typed).map_err(tract)?;
    Ok(typed)
}
