//! Weights are called after the layer that reads them, as in a checkpoint: `down_blocks.0.resnets.0.conv1.weight`.

use crate::graph::Graph;

/// Names every weight after its first reader and the slot in which it stands.
pub(super) fn name_weights(graph: &mut Graph) {
    for id in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        let node = graph.node(id).clone();
        for (slot, value) in node.op.slots().iter().zip(&node.inputs) {
            let Some(value) = value.filter(|v| graph.value(*v).weight().is_some()) else {
                continue;
            };
            let part = match *slot {
                "gamma" | "table" => "weight",
                "beta" => "bias",
                other => other,
            };
            graph.value_mut(value).name = format!("{}.{part}", node.name);
        }
    }
}
