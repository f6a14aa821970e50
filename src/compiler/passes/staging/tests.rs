use super::*;
use crate::graph::{Graph, Tensor};

const UNET: &str = r#"graph "unet" {
  input %0 "sample" [4, 4, 8]
  input %1 "timestep" [1]
  input %2 "encoder_hidden_states" [5, 8]
  %3 = weight "frequencies" [4]
  %4 = timestep_embedding "time_proj" (timestep: %1, frequencies: %3) {cos_first: true}
  %5 = weight "time.weight" [8, 8]
  %6 = linear "time" (x: %4, weight: %5) {activation: silu}
  %7 = weight "conv.weight" [8, 8, 3, 3]
  %8 = conv2d "conv" (x: %0, weight: %7, shift: %6) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}
  %9 = quantize "context" (x: %2) {per_row: true}
  %10 = weight "to_k.weight" [8, 8]
  %11 = linear "attn" (x: %9, weight: %10) {activation: none}
  %12 = weight "to_v.weight" [8, 8]
  %13 = linear "attn" (x: %9, weight: %12) {activation: none}
  %14 = attention "attn2" (q: %8, k: %11, v: %13) {heads: 2, scale: 0.5, causal: false}
  output %14 "out_sample"
}
"#;

fn inputs(graph: &Graph) -> Vec<Tensor> {
    let tensor = |id: &ValueId| {
        let value = graph.value(*id);
        let data = crate::graph::random(value.name.len() as u64, value.len());
        Tensor {
            shape: value.shape.clone(),
            data,
        }
    };
    graph.inputs.iter().map(tensor).collect()
}

/// Runs the stages one after another, handing on what crosses by name.
fn put_back(stages: &Stages, whole: &Graph) -> Vec<Tensor> {
    let named = |graph: &Graph, ids: &[ValueId], tensors: Vec<Tensor>| -> Vec<(String, Tensor)> {
        ids.iter()
            .map(|id| graph.value(*id).name.clone())
            .zip(tensors)
            .collect()
    };
    let mut known = named(whole, &whole.inputs, inputs(whole));
    let mut last = Vec::new();
    for stage in [
        stages.prompt.as_ref(),
        stages.timestep.as_ref(),
        Some(&stages.step),
    ]
    .into_iter()
    .flatten()
    {
        stage.verify().unwrap();
        let take = |id: &ValueId| {
            let name = &stage.value(*id).name;
            let mut found = known.iter().filter(|(other, _)| other == name);
            let (_, tensor) = found.next().unwrap();
            assert!(
                found.next().is_none(),
                "{name} is not the name of one value"
            );
            tensor.clone()
        };
        last = stage
            .interpret(&stage.inputs.iter().map(take).collect::<Vec<_>>())
            .unwrap();
        known.extend(named(stage, &stage.outputs, last.clone()));
    }
    last
}

fn names(graph: &Graph, ids: &[ValueId]) -> Vec<String> {
    ids.iter().map(|id| graph.value(*id).name.clone()).collect()
}

#[test]
fn stages_put_back_compute_the_same_bits() {
    let mut whole = Graph::parse(UNET).unwrap();
    whole.tidy();
    whole.verify().unwrap();
    let stages = split(&whole);
    let (prompt, timestep) = (
        stages.prompt.as_ref().unwrap(),
        stages.timestep.as_ref().unwrap(),
    );
    assert_eq!(prompt.summary(), "linear 2, quantize 1");
    assert_eq!(names(prompt, &prompt.inputs), ["encoder_hidden_states"]);
    // Both layers have one name, their values have not.
    assert_eq!(names(prompt, &prompt.outputs), ["attn", "attn.2"]);
    assert_eq!(timestep.summary(), "linear 1, timestep_embedding 1");
    assert_eq!(names(timestep, &timestep.inputs), ["timestep"]);
    assert_eq!(stages.step.summary(), "attention 1, conv2d 1");
    assert_eq!(
        names(&stages.step, &stages.step.inputs),
        ["sample", "time", "attn", "attn.2"]
    );
    assert_eq!(names(&stages.step, &stages.step.outputs), ["out_sample"]);
    assert_eq!(
        put_back(&stages, &whole),
        whole.interpret(&inputs(&whole)).unwrap()
    );
}

#[test]
fn codes_stay_with_their_readers() {
    // A product of the step reads the context's codes as well.
    let text = UNET.replace(
        "output %14",
        "%15 = weight \"w\" [8, 8]\n  %16 = linear \"both\" (x: %9, weight: %15, residual: %2) {activation: none}\n  \
         %17 = attention \"more\" (q: %14, k: %16, v: %16) {heads: 2, scale: 0.5, causal: false}\n  \
         %18 = quantize \"q\" (x: %17) {per_row: true}\n  \
         %19 = linear \"last\" (x: %18, weight: %15) {activation: none}\n  output %19",
    );
    let whole = Graph::parse(&text).unwrap();
    whole.verify().unwrap();
    let stages = split(&whole);
    assert_eq!(
        stages.prompt.as_ref().unwrap().summary(),
        "linear 3, quantize 1"
    );
    assert_eq!(
        put_back(&stages, &whole),
        whole.interpret(&inputs(&whole)).unwrap()
    );
}

#[test]
fn without_what_crosses_there_is_one_stage() {
    let whole = Graph::parse(
        "graph \"unet\" {\ninput %0 \"sample\" [4, 8]\n%1 = layer_norm \"n\" (x: %0) {eps: 1e-5}\noutput %1 \"y\"\n}",
    )
    .unwrap();
    let stages = split(&whole);
    assert!(stages.prompt.is_none() && stages.timestep.is_none() && !stages.follows_context());
    assert_eq!(stages.step.to_string(), whole.to_string());
    let timestep = Graph::parse(&UNET.replace("shift: %6", "").replace(", )", ")")).unwrap();
    let stages = split(&timestep);
    assert!(stages.timestep.is_none() && stages.prompt.is_some());
}

#[test]
fn the_context_may_have_more_rows() {
    let whole = Graph::parse(UNET).unwrap();
    assert!(split(&whole).follows_context());
    let grown = whole.with_rows("encoder_hidden_states", 15).unwrap();
    grown.verify().unwrap();
    let stages = split(&grown);
    let prompt = stages.prompt.as_ref().unwrap();
    assert_eq!(prompt.shape(prompt.outputs[0]), [15, 8]);
    assert_eq!(grown.shape(grown.outputs[0]), [4, 4, 8]);
    // Rows that are not treated one by one, a mask over them, or a product with them do not follow.
    for (from, to) in [
        (
            "linear \"attn\" (x: %9, weight: %12)",
            "group_norm \"attn\" (x: %2)",
        ),
        ("v: %13)", "v: %13, mask: %20)"),
        (
            "(x: %0, weight: %7, shift: %6)",
            "(x: %21, weight: %7, shift: %6)",
        ),
    ] {
        let to = to.replace("group_norm \"attn\" (x: %2)", "group_norm \"attn\" (x: %2) {groups: 2, eps: 1e-5, activation: none}\n %99 = linear \"unused\" (x: %9, weight: %12)");
        let text = UNET.replace(from, &to).replace(
            "  %3 = weight",
            "  %20 = weight \"mask\" [16, 5]\n  %22 = copy \"c\" (x: %2) {shape: [4, 4, 8], strides: [0, 0, 1], offset: 0}\n  \
             %21 = binary \"mix\" (a: %0, b: %22) {kind: add}\n  %3 = weight",
        );
        let mut whole = Graph::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        whole.tidy();
        whole.verify().unwrap();
        assert!(!split(&whole).follows_context(), "{text}");
    }
    let copied = "input %0 \"encoder_hidden_states\" [2, 3]\n%1 = copy \"turn\" (x: %0) {shape: [3, 2], strides: [1, 3], offset: 0}\noutput %1";
    let error = Graph::parse(copied)
        .unwrap()
        .with_rows("encoder_hidden_states", 4)
        .unwrap_err()
        .to_string();
    assert!(error.contains("turn"), "{error}");
}

#[test]
fn the_embedding_of_guidance_belongs_to_the_timestep() {
    let text = UNET.replace(
        "%4 = timestep_embedding",
        "input %15 \"timestep_cond\" [8]\n  %16 = weight \"cond_proj.weight\" [8, 8]\n  \
         %17 = linear \"cond_proj\" (x: %15, weight: %16) {activation: none}\n  %18 = timestep_embedding",
    );
    let text = text.replace(
        "  %5 = weight",
        "  %4 = binary \"add\" (a: %18, b: %17) {kind: add}\n  %5 = weight",
    );
    let mut graph = Graph::parse(&text).unwrap();
    graph.tidy();
    graph.verify().unwrap();
    let stages = split(&graph);
    let names = |graph: &Graph| {
        let name = |id: &ValueId| graph.value(*id).name.clone();
        graph.inputs.iter().map(name).collect::<Vec<_>>()
    };
    let timestep = stages.timestep.unwrap();
    assert_eq!(names(&timestep), ["timestep", "timestep_cond"]);
    assert!(!names(&stages.step).contains(&"timestep_cond".to_owned()));
}
