//! The rule, the nodes, and what it does to the model that the command carries.

use super::*;
use std::path::Path;

#[test]
fn explore() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let start = std::time::Instant::now();
    let mut model = crate::frontend::onnx::open(&root.join("models/emoji"), &mut |_| ()).unwrap();
    for graph in
        [&mut model.text_encoder, &mut model.unet, &mut model.vae_decoder].into_iter().chain(model.vae_encoder.as_mut())
    {
        crate::passes::run(graph, None, &mut |_, _| ()).unwrap();
    }
    eprintln!("read {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let reports = quantize(&mut model, &mut |p| eprintln!("{p} {:?}", start.elapsed())).unwrap();
    eprintln!("done {:?}", start.elapsed());
    for r in &reports {
        eprintln!("== {} {:?}", r.graph, r.decibels);
        for l in &r.layers {
            eprintln!(
                "{:>5} {:>5} {:>9} {:>10} {:<16} {:?} {} {}",
                l.inputs,
                l.outputs,
                l.bytes,
                l.macs,
                l.reason.to_string(),
                l.decibels,
                l.op,
                l.name
            );
        }
    }
}
