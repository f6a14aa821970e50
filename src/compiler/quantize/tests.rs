//! The rule, the nodes, and what it does to the model that the command carries.

mod emoji;
mod share;

use super::choose::{by_error, carriers, excluded, products};
use super::evaluate::{Error, Evaluator, Numbers};
use super::insert::{fuse, insert, integer_attention};
use super::*;

const BLOCK: &str = r#"graph "unet" {
  input %0 "sample" [4, 4, 16]
  input %1 "timestep" [1]
  input %2 "encoder_hidden_states" [5, 8]
  %3 = weight "frequencies" [4]
  %4 = timestep_embedding "time_proj" (timestep: %1, frequencies: %3) {cos_first: true}
  %5 = weight "time_emb_proj.weight" [16, 8]
  %6 = linear "time_emb_proj" (x: %4, weight: %5) {activation: none}
  %7 = weight "norm.weight" [16]
  %8 = group_norm "norm1" (x: %0, gamma: %7) {groups: 4, eps: 1e-5, activation: silu}
  %9 = weight "conv1.weight" [16, 16, 3, 3]
  %10 = conv2d "conv1" (x: %8, weight: %9, shift: %6) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}
  %11 = layer_norm "norm2" (x: %10) {eps: 1e-5}
  %12 = weight "to_q.weight" [16, 16]
  %13 = linear "to_q" (x: %11, weight: %12) {activation: none}
  %14 = weight "to_k.weight" [16, 8]
  %15 = linear "to_k" (x: %2, weight: %14) {activation: none}
  %16 = weight "to_v.weight" [16, 8]
  %17 = linear "to_v" (x: %2, weight: %16) {activation: none}
  %18 = attention "attn2" (q: %13, k: %15, v: %17) {heads: 2, scale: 0.5, causal: false}
  %19 = weight "shortcut.weight" [16, 32]
  %20 = linear "shortcut" (x: %18, x2: %0, weight: %19) {activation: none}
  %21 = weight "conv_out.weight" [4, 16, 3, 3]
  %22 = conv2d "conv_out" (x: %20, weight: %21) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}
  output %22 "out_sample"
}
"#;

/// What the text form of a graph's nodes says but for shapes and weights.
fn nodes(graph: &Graph) -> Vec<String> {
    let text = graph.to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.contains("= weight") && line.starts_with('%'));
    lines
        .map(|line| line.split_once(" = ").unwrap().1.to_owned())
        .collect()
}

fn inputs(graph: &Graph) -> Vec<Tensor> {
    let tensor = |id: &crate::graph::ValueId| {
        let value = graph.value(*id);
        let mut data = crate::graph::random(value.name.len() as u64, value.len());
        data.iter_mut().for_each(|v| {
            *v = if value.name == "timestep" {
                321.0
            } else {
                *v * 2.0
            }
        });
        Tensor {
            shape: value.shape.clone(),
            data,
        }
    };
    graph.inputs.iter().map(tensor).collect()
}

fn block() -> Graph {
    let mut graph = Graph::parse(BLOCK).unwrap();
    graph.tidy();
    graph.verify().unwrap();
    graph
}

#[test]
fn the_rule_says_which_products_cannot_be_of_integers() {
    let graph = block();
    let found: Vec<_> = products(&graph)
        .into_iter()
        .map(|id| (graph.node(id).name.clone(), excluded(&graph, id)))
        .collect();
    let expected = [
        ("time_emb_proj", None),
        ("conv1", None),
        ("to_q", None),
        ("to_k", None),
        ("to_v", None),
        ("shortcut", None),
        ("conv_out", Some(Reason::FewOutputs)),
    ];
    assert_eq!(
        found,
        expected.map(|(name, reason)| (name.to_owned(), reason))
    );
    let thin = "input %0 \"sample\" [4, 4, 4]\n%1 = weight \"w\" [16, 4, 3, 3]\n\
        %2 = conv2d \"conv_in\" (x: %0, weight: %1) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}\n\
        %3 = linear \"computed\" (x: %0, weight: %4) {activation: none}\noutput %2";
    let thin = thin.replace("%3 = linear", "input %4 \"w2\" [16, 4]\n%3 = linear");
    let graph = Graph::parse(&thin).unwrap();
    let reasons: Vec<_> = products(&graph)
        .into_iter()
        .map(|id| excluded(&graph, id))
        .collect();
    assert_eq!(reasons, [Some(Reason::FewInputs), Some(Reason::Form)]);
    for (least, carries) in [(LEAST_DECIBELS, false), (LEAST_OF_STREAM, true)] {
        assert_eq!(by_error(&[least, 40.0], carries), Reason::Accurate);
        assert_eq!(by_error(&[40.0, least - 0.1], carries), Reason::Inaccurate);
    }
}

#[test]
fn a_shortcut_carries_the_stream() {
    let resnet = "input %0 \"sample\" [4, 4, 16]\n%1 = weight \"w1\" [16, 16, 3, 3]\n\
        %2 = conv2d \"conv1\" (x: %0, weight: %1) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: silu}\n\
        %3 = weight \"w\" [16, 16]\n%4 = linear \"shortcut\" (x: %0, weight: %3) {activation: none}\n\
        %5 = weight \"w2\" [16, 16, 3, 3]\n\
        %6 = conv2d \"conv2\" (x: %2, weight: %5, residual: %4) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}\n\
        %7 = weight \"w3\" [16, 16]\n%8 = linear \"to_out\" (x: %6, weight: %7, residual: %6) {activation: none}\noutput %8";
    let graph = Graph::parse(resnet).unwrap();
    let names: Vec<_> = carriers(&graph)
        .into_iter()
        .map(|id| graph.node(id).name.clone())
        .collect();
    // `to_out` adds to what `conv2` said, which has added itself.
    assert_eq!(names, ["shortcut"]);
}

#[test]
fn products_share_codes_and_norms_give_them() {
    let graph = block();
    let chosen = products(&graph)
        .into_iter()
        .filter(|id| excluded(&graph, *id).is_none())
        .collect();
    let quantized = insert(&graph, &chosen).unwrap();
    quantized.verify().unwrap();
    let text = nodes(&quantized).join("\n");
    assert!(
        text.contains("{groups: 4, eps: 1e-5, activation: silu, quantized: true}"),
        "{text}"
    );
    assert!(text.contains("{eps: 1e-5, quantized: true}"), "{text}");
    // The context once for both of its readers, the shortcut's two sources together, and the timestep's embedding.
    assert_eq!(text.matches("quantize \"").count(), 3, "{text}");
    assert!(
        text.contains("quantize \"encoder_hidden_states\""),
        "{text}"
    );
    let (_, shortcut) = quantized
        .iter_nodes()
        .find(|(_, node)| node.name == "shortcut")
        .unwrap();
    assert!(shortcut.input("x2").is_none());
    assert_eq!(quantized.shape(shortcut.input("x").unwrap()), [4, 4, 32]);
    // Products keep their order, which is how one is found again.
    let names = |graph: &Graph| {
        products(graph)
            .iter()
            .map(|id| graph.node(*id).name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&graph), names(&quantized));
    Graph::parse(&quantized.to_string())
        .unwrap()
        .verify()
        .unwrap();
}

#[test]
fn a_norm_that_somebody_reads_as_numbers_stays() {
    let text = "input %0 \"x\" [4, 16]\n%1 = layer_norm \"norm\" (x: %0) {eps: 1e-5}\n\
        %2 = quantize \"norm\" (x: %1) {per_row: true}\n%3 = weight \"w\" [16, 16]\n\
        %4 = linear \"a\" (x: %2, weight: %3, residual: %1) {activation: none}\noutput %4";
    let mut graph = Graph::parse(text).unwrap();
    assert_eq!(fuse(&mut graph), 0);
    let mut graph = Graph::parse(&text.replace(", residual: %1", "")).unwrap();
    assert_eq!(fuse(&mut graph), 1);
    graph.tidy();
    graph.verify().unwrap();
    assert_eq!(graph.summary(), "layer_norm 1, linear 1");
    // Codes of the whole tensor are not those of a row.
    let group = "input %0 \"x\" [4, 16]\n%1 = group_norm \"norm\" (x: %0) {groups: 4, eps: 1e-5, activation: none}\n\
        %2 = quantize \"norm\" (x: %1) {per_row: true}\n%3 = weight \"w\" [16, 16]\n\
        %4 = linear \"a\" (x: %2, weight: %3) {activation: none}\noutput %4";
    assert_eq!(fuse(&mut Graph::parse(group).unwrap()), 0);
}

#[test]
fn only_large_self_attention_is_of_integers() {
    let text = |q: usize, k: usize, rest: &str| {
        format!(
            "input %0 \"q\" [{q}, 16]\ninput %1 \"k\" [{k}, 16]\ninput %2 \"mask\" [{q}, {k}]\n\
             %3 = attention \"a\" (q: %0, k: %1, v: %1{rest}, causal: false}}\noutput %3"
        )
    };
    let plain = ") {heads: 2, scale: 0.5";
    for (q, k, rest, expected) in [
        (1024, 1024, plain, 1),
        (1023, 1023, plain, 0),
        (1024, 77, plain, 0),
        (1024, 1024, ", mask: %2) {heads: 2, scale: 0.5", 0),
    ] {
        let mut graph = Graph::parse(&text(q, k, rest)).unwrap();
        assert_eq!(integer_attention(&mut graph), expected, "{q} {k} {rest}");
        graph.verify().unwrap();
    }
}

/// One set of inputs through a graph.
fn run(
    evaluator: &Evaluator,
    graph: &Graph,
    inputs: &[Tensor],
    numbers: Numbers<'_>,
) -> Vec<Tensor> {
    evaluator.run(graph, inputs, numbers).unwrap()
}

#[test]
fn inputs_that_go_through_together_are_alone() {
    let graph = block();
    let chosen = products(&graph)
        .into_iter()
        .filter(|id| excluded(&graph, *id).is_none())
        .collect();
    let quantized = insert(&graph, &chosen).unwrap();
    let sets: Vec<Vec<Tensor>> = [1.0, -0.3, 7.5]
        .map(|factor| {
            let mut inputs = inputs(&graph);
            let data = inputs.iter_mut().flat_map(|input| &mut input.data);
            data.for_each(|v| *v *= factor);
            inputs
        })
        .to_vec();
    let evaluator = Evaluator::with(kiln_kernels::Kernels::detect(), 3);
    let mut heard = Vec::new();
    let mut hear = |id, error: Error| heard.push((id, error));
    let mut read = 0;
    let exact = evaluator
        .run_all(&quantized, &sets, Numbers::Compared(&mut hear), &mut |n| {
            read += n
        })
        .unwrap();
    let stored = evaluator
        .run_all(&quantized, &sets, Numbers::Stored, &mut |_| ())
        .unwrap();
    let matrices = quantized
        .iter_nodes()
        .filter_map(|(_, node)| evaluate::product_weight(&quantized, node));
    let elements: usize = matrices.map(|weight| weight.len()).sum();
    assert_eq!(read, elements);
    for (index, set) in sets.iter().enumerate() {
        let mut own = Vec::new();
        let mut hear = |id, error: Error| own.push((id, error));
        assert_eq!(
            run(&evaluator, &quantized, set, Numbers::Compared(&mut hear)),
            exact[index]
        );
        assert_eq!(
            run(&evaluator, &quantized, set, Numbers::Stored),
            stored[index]
        );
        let together: Vec<_> = heard.iter().skip(index).step_by(3).copied().collect();
        assert_eq!(own, together);
    }
    assert_ne!(exact[0], exact[1]);
}

#[test]
fn a_table_is_in_8_bits_if_its_rows_allow_it() {
    let text = "graph \"text_encoder\" {\n input %0 \"input_ids\" [3]\n %1 = weight \"token\" [9, 16]\n \
                %2 = weight \"position\" [3, 16]\n %3 = embed \"embeddings\" (ids: %0, table: %1, positions: %2) {}\n \
                output %3\n}";
    let mut graph = Graph::parse(text).unwrap();
    graph.tidy();
    let ids = vec![vec![Tensor {
        shape: vec![3],
        data: vec![0.0, 8.0, 4.0],
    }]];
    let evaluator = Evaluator::new();
    let (found, exact) = measure::measure(&graph, &ids, &evaluator, &mut |_| ()).unwrap();
    let [table] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(table.reason, Reason::Accurate);
    assert_eq!(table.decibels.len(), 1);
    assert!((35.0..60.0).contains(&table.decibels[0]), "{table:?}");
    let chosen = [table.node].into_iter().collect();
    let quantized = insert(&graph, &chosen).unwrap();
    quantized.verify().unwrap();
    assert!(nodes(&quantized)[0].contains("{quantized: true}"));
    let meant = quantized.interpret(&ids[0]).unwrap();
    let stored = run(&evaluator, &quantized, &ids[0], Numbers::Stored);
    let db = |a: &[Tensor], b: &[Tensor]| Error::between(&a[0].data, &b[0].data).decibels();
    assert!((35.0..70.0).contains(&db(&exact[0], &meant)));
    assert!(db(&meant, &stored) > 55.0, "{}", db(&meant, &stored));
    // The report's bytes: codes, and a scale for each row.
    let layer = layer(&graph, table);
    assert_eq!(
        (layer.bytes, layer.macs, layer.op),
        (9 * 16 + 4 * 9, 0, "embed")
    );
}

#[test]
fn the_evaluator_means_what_the_graph_means() {
    let graph = block();
    let chosen = products(&graph)
        .into_iter()
        .filter(|id| excluded(&graph, *id).is_none())
        .collect();
    let quantized = insert(&graph, &chosen).unwrap();
    let inputs = inputs(&graph);
    let evaluator = Evaluator::new();
    let exact = run(&evaluator, &graph, &inputs, Numbers::Exact);
    let db = |a: &[Tensor], b: &[Tensor]| Error::between(&a[0].data, &b[0].data).decibels();
    assert!(db(&graph.interpret(&inputs).unwrap(), &exact) > 90.0);
    // Without codes the same numbers, and what is heard is each product's own error.
    let mut heard = Vec::new();
    let mut hear =
        |id, error: Error| heard.push((quantized.node(id).name.clone(), error.decibels()));
    assert_eq!(
        run(
            &evaluator,
            &quantized,
            &inputs,
            Numbers::Compared(&mut hear)
        ),
        exact
    );
    assert_eq!(
        heard
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["time_emb_proj", "conv1", "to_q", "to_k", "to_v", "shortcut"]
    );
    assert!(
        heard.iter().all(|(_, db)| (30.0..60.0).contains(db)),
        "{heard:?}"
    );
    // The graph's own meaning has the codes, but neither sixteen bits nor the kernels' order of sums.
    let stored = run(&evaluator, &quantized, &inputs, Numbers::Stored);
    let meant = quantized.interpret(&inputs).unwrap();
    assert!(
        (25.0..60.0).contains(&db(&exact, &meant)),
        "{}",
        db(&exact, &meant)
    );
    assert!(db(&meant, &stored) > 36.0, "{}", db(&meant, &stored));
    // Whatever the threads and the instruction set.
    let scalar = Evaluator::with(kiln_kernels::Kernels::by_name("scalar").unwrap(), 3);
    assert_eq!(run(&scalar, &quantized, &inputs, Numbers::Stored), stored);
}

#[test]
fn decibels_are_finite() {
    let db = |expected: &[f32], found: &[f32]| Error::between(expected, found).decibels();
    assert_eq!(db(&[1.0, 1.0], &[1.0, 1.1]).round(), 23.0);
    assert_eq!(db(&[1.0], &[1.0]), 200.0);
    assert_eq!(db(&[0.0], &[0.0]), 200.0);
    assert_eq!(db(&[0.0], &[1.0]), 0.0);
    assert_eq!(db(&[1.0], &[f32::NAN]), 0.0);
}

#[test]
fn alphas_are_the_schedulers() {
    let alphas = calibrate::alphas_cumprod(
        r#"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}"#,
    );
    assert_eq!(alphas.len(), 1000);
    // diffusers' DDIMScheduler
    assert!(
        (alphas[0] - 0.99915).abs() < 1e-6 && (alphas[999] - 0.004660).abs() < 1e-5,
        "{} {}",
        alphas[0],
        alphas[999]
    );
    let linear = calibrate::alphas_cumprod(
        r#"{"beta_start": 0.1, "beta_end": 0.3, "beta_schedule": "linear", "num_train_timesteps": 3}"#,
    );
    assert!((linear[2] - 0.9 * 0.8 * 0.7).abs() < 1e-12);
}
