//! From a frontend's source operators to the operators of a program: one list of passes, each of which may fire any
//! number of times and leaves a graph that verifies.

mod activation;
mod affine;
mod attention;
mod channels_last;
pub mod clip_skip;
mod concat;
mod embed;
mod epilogue;
mod geglu;
mod group_norm;
mod layer_norm;
mod matching;
mod matmul;
mod names;
mod residual;
mod shift;
pub mod staging;
mod timestep_embedding;
mod upsample;

#[cfg(test)]
mod tests;

use crate::graph::{BuildError, Graph, VerifyError};

type Pass = fn(&mut Graph) -> Result<usize, BuildError>;

/// A rewriting of a graph that gives how often it fired.
#[derive(Clone, Copy)]
pub enum Runs {
    /// Again and again, until it does not fire.
    UntilStill(Pass),
    /// Once: it changes what every value is.
    Once(Pass),
}
use Runs::{Once, UntilStill};

/// The passes in the order in which they run.
pub fn list() -> [(&'static str, Runs); 15] {
    [
        // On source operators.
        ("fuse-activation", UntilStill(activation::fuse)),
        ("fuse-layer-norm", UntilStill(layer_norm::fuse)),
        ("fuse-group-norm", UntilStill(group_norm::fuse)),
        ("lower-matmul", UntilStill(matmul::lower)),
        ("fuse-attention", UntilStill(attention::fuse)),
        ("fuse-geglu", UntilStill(geglu::fuse)),
        (
            "fuse-timestep-embedding",
            UntilStill(timestep_embedding::fuse),
        ),
        ("fuse-embed", UntilStill(embed::fuse)),
        ("channels-last", Once(channels_last::convert)),
        // On kiln operators.
        ("fold-affine", UntilStill(affine::fold)),
        ("fuse-shift", UntilStill(shift::fuse)),
        ("fuse-epilogue", UntilStill(epilogue::fuse)),
        ("fuse-residual", UntilStill(residual::fuse)),
        ("fuse-upsample", UntilStill(upsample::fuse)),
        ("eliminate-concat", UntilStill(concat::eliminate)),
    ]
}

/// What hears of every pass: its name, how it went, and the graph after it.
pub type Observer<'a> = &'a mut dyn FnMut(&PassReport, &Graph);

/// How a pass went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassReport {
    /// The pass.
    pub name: &'static str,
    /// How often it fired.
    pub fired: usize,
    /// Nodes of the graph after it.
    pub nodes: usize,
}

/// Why the passes could not make a program of a graph.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A pass built a node that breaks its operator's rules.
    #[error("compiler bug: pass {pass} on graph {graph:?}: {source}")]
    Build {
        /// The pass.
        pass: &'static str,
        /// The graph's name.
        graph: String,
        /// The broken rule.
        source: BuildError,
    },
    /// The graph does not verify: after a pass, or as the frontend gave it.
    #[error("compiler bug: after {pass}: {source}")]
    Verify {
        /// The pass, or `the frontend`.
        pass: &'static str,
        /// The broken rule.
        source: VerifyError,
    },
    /// Nodes that no pass could turn into operators of a program.
    #[error("graph {graph:?}: no program can hold {}", .nodes.join(", "))]
    Unsupported {
        /// The graph's name.
        graph: String,
        /// Operator and name of each.
        nodes: Vec<String>,
    },
}

/// Runs the first `stop_after` passes (all of them without it), verifying the graph after each. Without `stop_after`
/// whatever is left must be operators of a program.
pub fn run(
    graph: &mut Graph,
    stop_after: Option<usize>,
    observe: Observer<'_>,
) -> Result<Vec<PassReport>, PassError> {
    let verify = |graph: &Graph, pass| {
        graph
            .verify()
            .map_err(|source| PassError::Verify { pass, source })
    };
    verify(graph, "the frontend")?;
    let outputs: Vec<String> = graph
        .outputs
        .iter()
        .map(|id| graph.value(*id).name.clone())
        .collect();
    let mut reports = Vec::new();
    for (name, pass) in list().into_iter().take(stop_after.unwrap_or(usize::MAX)) {
        let (UntilStill(step) | Once(step)) = pass;
        let mut fired = 0;
        loop {
            let part = graph.name.clone();
            let again = step(graph).map_err(|source| PassError::Build {
                pass: name,
                graph: part,
                source,
            })?;
            graph.tidy();
            fired += again;
            if again == 0 || matches!(pass, Once(_)) {
                break;
            }
        }
        verify(graph, name)?;
        let report = PassReport {
            name,
            fired,
            nodes: graph.node_count(),
        };
        observe(&report, graph);
        reports.push(report);
    }
    if stop_after.is_none() {
        let left = graph.iter_nodes().filter(|(_, n)| !n.op.is_kiln());
        let nodes: Vec<String> = left
            .map(|(_, n)| format!("{} {:?}", n.op.name(), n.name))
            .collect();
        if !nodes.is_empty() {
            return Err(PassError::Unsupported {
                graph: graph.name.clone(),
                nodes,
            });
        }
        names::name_weights(graph);
        // A fusion names its value after its layer; callers know the outputs by the names that the frontend gave them.
        for (id, name) in graph.outputs.clone().into_iter().zip(outputs) {
            graph.value_mut(id).name = name;
        }
    }
    Ok(reports)
}
