use super::*;
use crate::quantize::Reason;

fn example() -> [Quantized; 1] {
    let layer = |name: &str, reason, decibels: &[f64]| Layer {
        name: name.into(),
        op: "conv2d",
        inputs: 36,
        outputs: 64,
        reason,
        decibels: decibels.to_vec(),
        noise: decibels.iter().map(|db| db / 1000.0).collect(),
        bytes: 4608,
        macs: 100,
    };
    [Quantized {
        graph: "unet".into(),
        inputs: vec!["timestep 901".into(), "timestep 21".into()],
        layers: vec![
            layer("conv_in", Reason::FewInputs, &[]),
            layer("conv1", Reason::Accurate, &[41.23, 35.5]),
        ],
        decibels: vec![40.0, 30.25],
    }]
}

#[test]
fn the_text_has_a_line_for_each_layer_and_the_graphs_at_the_end() {
    let text = report(Path::new("report.txt"), &example());
    let line = |name: &str| {
        text.lines()
            .find(|line| line.ends_with(name))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        line("conv2d conv_in"),
        [
            "f16", "-", "-", "few", "inputs", "36", "64", "4608", "100", "conv2d", "conv_in"
        ]
    );
    assert_eq!(
        line("conv2d conv1"),
        [
            "int8", "35.5", "3.8", "accurate", "36", "64", "4608", "100", "conv2d", "conv1"
        ]
    );
    assert!(
        text.contains("1 of 2 layers int8, 50.0 % of 200 MACs; 9216 bytes of weights"),
        "{text}"
    );
    assert!(text.trim_end().ends_with("30.2 dB"), "{text}");
}

#[test]
fn the_name_decides_the_form() {
    let json: serde_json::Value =
        serde_json::from_str(&report(Path::new("a.JSON"), &example())).unwrap();
    let layer = &json["graphs"][0]["layers"][1];
    assert_eq!(layer["precision"], "int8");
    assert_eq!(layer["decibels"], serde_json::json!([41.23, 35.5]));
    assert_eq!(json["graphs"][0]["decibels"][1], 30.25);
}

#[test]
fn the_worst_layers_of_all_graphs_come_first() {
    let mut graphs = vec![example()[0].clone(), example()[0].clone()];
    graphs[1].graph = "vae_decoder".into();
    graphs[1].layers[1].decibels = vec![50.0, 28.75];
    let text = to_text(&graphs);
    let listed: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "The worst layers")
        .skip(1)
        .take(2)
        .collect();
    assert_eq!(
        listed,
        [
            " int8   28.8  vae_decoder   conv2d conv1",
            " int8   35.5  unet          conv2d conv1"
        ]
    );
    let json = to_json(&graphs);
    assert_eq!(json["worst"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["worst"][0]["graph"], "vae_decoder");
    assert_eq!(json["worst"][0]["decibels"], 28.75);
}
