//! The importer's own GroupNormalization is taken apart beyond recognition, so ours replaces it: an operator that
//! carries its attributes through to the translation.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `x`, `gamma`, `beta`, as ONNX has them since opset 21: `gamma` and `beta` by channel. Before (opset 18) by group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupNorm {
    pub groups: usize,
    pub eps_bits: u32,
}

impl Op for GroupNorm {
    fn name(&self) -> StaticName {
        "GroupNormalization".into()
    }
    op_as_typed_op!();
}

impl EvalOp for GroupNorm {
    op_out_of_plan!();
    fn eval(&self, _: &EvalContext, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
        bail!("stands for the translation only")
    }
}

impl TypedOp for GroupNorm {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(inputs[0].shape.clone())))
    }
    as_op!();
}

#[derive(Clone, Debug)]
struct Expanded(GroupNorm);

impl Expansion for Expanded {
    fn name(&self) -> StaticName {
        "GroupNormalization".into()
    }
    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)?;
        Ok(())
    }
    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.0.clone(), inputs)
    }
}

/// Builds the operator from its ONNX node.
pub(super) fn group_norm(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let eps: f32 = node.get_attr_opt("epsilon")?.unwrap_or(1e-5);
    let groups: usize = node.get_attr("num_groups")?;
    Ok((
        expand(Expanded(GroupNorm {
            groups,
            eps_bits: eps.to_bits(),
        })),
        vec![],
    ))
}
