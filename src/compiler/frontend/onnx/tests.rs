//! Every exporter's dialect gives the same program, and the program computes what the model does.

use super::*;
use crate::graph::Tensor;
use crate::passes;
use std::path::PathBuf;
use tract_onnx::prelude::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// One part of a fixture's folder, imported at a latent of `size`.
fn import_part(path: &Path, name: &str, size: [usize; 2]) -> Result<Imported, OnnxError> {
    let mut folder = Folder::open(path)?;
    let dim = 32;
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
            ("unet", 2, _) => vec![1, 77, dim],
            ("vae_encoder", ..) => vec![1, 3, size[0] * 2, size[1] * 2],
            _ => vec![1, 4, size[0], size[1]],
        })
    })
}

fn fused(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    passes::run(&mut graph, None, &mut |_, _| ()).unwrap_or_else(|e| panic!("{e}"));
    graph
}

#[test]
fn dump() {
    for variant in ["ts14", "ts17", "dyn18", "dyn20", "old14"] {
        for name in ["text_encoder", "unet", "vae_decoder", "vae_encoder"] {
            let imported = import_part(&fixtures().join("tiny").join(variant), name, [16, 16]).unwrap();
            let mut graph = imported.graph.clone();
            std::fs::write(format!("/tmp/fp/d/{variant}.{name}.source"), graph.to_string()).unwrap();
            if let Err(e) = passes::run(&mut graph, None, &mut |r, g| { if r.fired == 0 { println!("  {r:?}"); } let _ = g; }) {
                println!("{variant} {name}: {e}");
            }
            std::fs::write(format!("/tmp/fp/d/{variant}.{name}.fused"), graph.to_string()).unwrap();
            std::fs::write(format!("/tmp/fp/d/{variant}.{name}.structure"), graph.structure()).unwrap();
            println!("{variant} {name}: {}", graph.summary());
        }
    }
}
