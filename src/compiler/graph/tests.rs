//! The text form, the rules, the meaning of views, and other sizes.

use super::verify::infer;
use super::view::View;
use super::*;
use proptest::prelude::*;

const TEXT: &str = r#"graph "unet" {
  input %0 "sample" [4, 4, 2]
  input %1 "temb" [1, 3]
  %2 = weight "conv_in.weight" [3, 2, 3, 3]
  %3 = weight "conv_in.bias" [3] = [0.5, -1.0, inf]
  %4 = conv2d "conv_in" (x: %0, weight: %2, bias: %3, shift: %1) {stride: 2, pad: [0, 0, 1, 1], up: none, activation: silu} [2, 2, 3]
  %5 = copy "turn" (x: %4) {shape: [3, 4], strides: [1, 3], offset: 0} [3, 4]
  %7 = source_binary "half" (a: %5, b: 0.5) {kind: mul} [3, 4]
  %8 = weight "w" [5, 3]
  %9 = einsum "sum" (a: %7, b: %8) {equation: "km,nk->mn"} [4, 5]
  %10 = source_concat "thrice" (x: %9, x: %9, x: %9) {axis: 1} [4, 15]
  output %10 "out"
}
"#;

#[test]
fn the_text_form_prints_what_it_parses() {
    let graph = Graph::parse(TEXT).unwrap();
    graph.verify().unwrap();
    assert_eq!(graph.to_string(), TEXT);
    let mut tidy = graph.clone();
    assert_eq!(tidy.tidy(), 0);
    assert_eq!(
        Graph::parse(&tidy.to_string()).unwrap().to_string(),
        tidy.to_string()
    );
    assert!(!graph.structure().contains("conv_in"));
}

#[test]
fn parsed_weights_depend_on_name_and_shape_alone() {
    let read = |text: &str| {
        let graph = Graph::parse(text).unwrap();
        graph
            .iter_values()
            .find_map(|(_, v)| Some(v.weight()?.read().into_owned()))
            .unwrap()
    };
    let a = read("%0 = weight \"a\" [4]");
    assert_eq!(a, read("%5 = weight \"a\" [4]"));
    assert_ne!(a, read("%0 = weight \"b\" [4]"));
    assert!(a.iter().all(|v| v.abs() <= 1.0));
}

#[test]
fn text_errors_name_the_line() {
    for (text, expected) in [
        (
            "input %0 \"x\" [2]\n%1 = nothing (x: %0)",
            "line 2: no operator is called \"nothing\"",
        ),
        (
            "%1 = affine (x: %0) {scale: 1, offset: 0}",
            "line 1: %0 is not defined",
        ),
        (
            "input %0 \"x\" [2]\n%1 = affine (x: %0) {scale: 1}",
            "affine needs the attribute offset",
        ),
        (
            "input %0 \"x\" [2]\n%1 = affine (y: %0) {scale: 1, offset: 0}",
            "affine has no slot y",
        ),
        (
            "input %0 \"x\" [2]\n%1 = unary (x: %0) {activation: soft}",
            "unary's activation cannot be soft",
        ),
        (
            "input %0 \"x\" [2]\n%1 = reshape (x: %0) {shape: [3]}",
            "not as many elements",
        ),
        (
            "input %0 \"x\" [2]\n%1 = affine (x: %0) {scale: 1, offset: 0} [3]",
            "the shape is [2], not [3]",
        ),
        (
            "input %0 \"x\" [2]\n%0 = weight \"\" [1]",
            "%0 is defined twice",
        ),
        ("%0 = weight \"\" [2] = [1]", "1 elements for [2]"),
        ("what %0", "\"what\" begins no line"),
        ("input %0 \"x", "does not end"),
    ] {
        let error = Graph::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn broken_graphs_do_not_verify() {
    let text = "input %0 \"x\" [2, 3]\n%1 = layer_norm \"a\" (x: %0) {eps: 1e-5}\n%2 = softmax \"b\" (x: %1)\noutput %2";
    let graph = Graph::parse(text).unwrap();
    let break_it = |change: &dyn Fn(&mut Graph)| {
        let mut graph = graph.clone();
        change(&mut graph);
        graph.verify().unwrap_err().to_string()
    };
    assert!(break_it(&|g| g.nodes.swap(0, 1)).contains("does not compute it"));
    assert!(break_it(&|g| g.values[1].shape = vec![3, 2]).contains("should be [2, 3]"));
    assert!(
        break_it(&|g| g.nodes[0].inputs[0] = Some(ValueId(2))).contains("before it is computed")
    );
    assert!(break_it(&|g| g.nodes[0].inputs[0] = None).contains("x is empty"));
    assert!(
        break_it(&|g| g.nodes[0].inputs[0] = Some(ValueId(9))).contains("no value of the graph")
    );
    assert!(break_it(&|g| g.outputs[0] = ValueId(9)).contains("no value of the graph"));
    assert!(break_it(&|g| g.values[0].shape = vec![0]).contains("no element"));
    assert!(break_it(&|g| g.inputs.clear()).contains("no input"));
    assert!(
        break_it(&|g| {
            g.nodes[0].inputs.pop();
        })
        .contains("operand slots")
    );
}

#[test]
fn operators_refuse_operands_that_do_not_fit() {
    let linear = Op::Linear {
        activation: Activation::None,
    };
    let geglu = Op::Linear {
        activation: Activation::Geglu,
    };
    let conv = Op::Conv2d {
        stride: 1,
        pad: [0; 4],
        up: None,
        activation: Activation::None,
    };
    let norm = Op::GroupNorm {
        groups: 3,
        eps: 1e-5,
        activation: Activation::None,
        quantized: false,
    };
    let attention = |heads, causal| Op::Attention {
        heads,
        scale: 1.0,
        causal,
        integers: false,
    };
    let copy = Op::Copy {
        shape: vec![2],
        strides: vec![3],
        offset: 1,
    };
    type Operands<'a> = &'a [Option<&'a [usize]>];
    let cases: [(Op, Operands<'_>, &str); 11] = [
        (
            linear.clone(),
            &[Some(&[2, 3]), None, Some(&[4, 5]), None, None, None],
            "x has 3 columns",
        ),
        (
            linear.clone(),
            &[
                Some(&[2, 3]),
                Some(&[3, 1]),
                Some(&[4, 4]),
                None,
                None,
                None,
            ],
            "x2 is [3, 1]",
        ),
        (
            linear,
            &[Some(&[2, 3]), None, Some(&[4, 3]), Some(&[3]), None, None],
            "bias is [3]",
        ),
        (
            geglu,
            &[Some(&[2, 3]), None, Some(&[5, 3]), None, None, None],
            "even number",
        ),
        (
            conv.clone(),
            &[Some(&[2, 2, 3]), Some(&[4, 3, 3, 3]), None, None, None],
            "larger than the padded",
        ),
        (
            conv,
            &[
                Some(&[4, 4, 3]),
                Some(&[4, 3, 3, 3]),
                None,
                None,
                Some(&[4, 4, 4]),
            ],
            "residual is [4, 4, 4]",
        ),
        (norm, &[Some(&[2, 4]), None, None, None], "3 groups of 4"),
        (
            attention(3, false),
            &[Some(&[2, 4]), Some(&[2, 4]), Some(&[2, 4]), None],
            "3 heads of 4",
        ),
        (
            attention(2, true),
            &[Some(&[2, 4]), Some(&[3, 4]), Some(&[3, 4]), None],
            "causal with 2 and 3",
        ),
        (
            Op::Binary {
                kind: BinaryKind::Add,
            },
            &[Some(&[2, 4]), Some(&[2])],
            "neither",
        ),
        (copy, &[Some(&[4])], "element 4 of 4"),
    ];
    for (op, shapes, expected) in cases {
        let error = infer(&op, shapes).unwrap_err();
        assert!(error.contains(expected), "{}: {error}", op.name());
    }
}

#[test]
fn inputs_must_be_those_of_the_graph() {
    let graph = Graph::parse("input %0 \"x\" [2]\noutput %0").unwrap();
    let wrong = Tensor {
        shape: vec![3],
        data: vec![0.0; 3],
    };
    assert!(
        graph
            .interpret(&[wrong])
            .unwrap_err()
            .to_string()
            .contains("[3]")
    );
    assert!(graph.interpret(&[]).is_err());
    let table = "input %0 \"ids\" [1]\n%1 = weight \"t\" [4, 2]\n%2 = embed \"e\" (ids: %0, table: %1)\noutput %2";
    let id = Tensor {
        shape: vec![1],
        data: vec![4.0],
    };
    assert!(
        Graph::parse(table)
            .unwrap()
            .interpret(&[id])
            .unwrap_err()
            .to_string()
            .contains("row 4 of a table of 4")
    );
}

#[test]
fn sizes_follow_and_odd_halves_meet_their_skips() {
    let text = "input %0 \"x\" [8, 8, 2]\ninput %1 \"c\" [7, 2]\n%2 = weight \"w\" [2, 2, 3, 3]\n\
        %3 = conv2d \"down\" (x: %0, weight: %2) {stride: 2, pad: [1, 1, 1, 1], up: none, activation: none}\n\
        %4 = attention \"attn\" (q: %3, k: %1, v: %1) {heads: 1, scale: 1, causal: false}\n\
        %5 = conv2d \"up\" (x: %4, weight: %2) {stride: 1, pad: [1, 1, 1, 1], up: [8, 8], activation: none}\n\
        %6 = group_norm \"norm\" (x: %5, x2: %0) {groups: 2, eps: 1e-5, activation: silu}\noutput %6";
    let graph = Graph::parse(text).unwrap();
    for size in [[8, 8], [9, 13], [3, 20]] {
        let resized = graph.resized(size).unwrap();
        resized.verify().unwrap();
        assert_eq!(resized.shape(resized.outputs[0]), [size[0], size[1], 4]);
    }
    assert_eq!(
        graph
            .resized([9, 13])
            .unwrap()
            .resized([8, 8])
            .unwrap()
            .to_string(),
        graph.to_string()
    );
    let copied = "input %0 \"x\" [2, 2, 3]\n%1 = copy \"turn\" (x: %0) {shape: [3, 4], strides: [1, 3], offset: 0}\noutput %1";
    let error = Graph::parse(copied)
        .unwrap()
        .resized([4, 4])
        .unwrap_err()
        .to_string();
    assert!(error.contains("turn") && error.contains("4x4"), "{error}");
    assert_eq!(
        Graph::parse(copied)
            .unwrap()
            .resized([2, 2])
            .unwrap()
            .to_string(),
        Graph::parse(copied).unwrap().to_string()
    );
}

/// Reshapes, transpositions and slices that fit a shape, as seeds.
fn moves() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop::collection::vec((0u8..3, 0usize..1000), 0..6)
}

proptest! {
    /// A view moves the elements as the movements it stands for.
    #[test]
    fn views_are_their_movements(shape in prop::collection::vec(1usize..5, 1..5), moves in moves()) {
        let len: usize = shape.iter().product();
        let base: Vec<f32> = (0..len).map(|i| i as f32).collect();
        let (mut view, mut moved) = (View::dense(&shape), base.clone());
        for (kind, seed) in moves {
            let now = view.shape.clone();
            let (next, step) = match kind {
                0 => {
                    let mut perm: Vec<usize> = (0..now.len()).collect();
                    perm.rotate_left(seed % now.len());
                    (Some(view.transpose(&perm)), View::dense(&now).transpose(&perm))
                }
                1 => {
                    let axis = seed % now.len();
                    let start = (seed / 7) % now[axis];
                    let end = start + 1 + (seed / 31) % (now[axis] - start);
                    (Some(view.slice(axis, start, end)), View::dense(&now).slice(axis, start, end))
                }
                _ => {
                    let axis = seed % now.len();
                    let mut shape = now.clone();
                    if seed % 2 == 0 && axis + 1 < now.len() {
                        shape[axis] *= shape.remove(axis + 1);
                    } else {
                        let factor = (1..=now[axis]).filter(|f| now[axis] % f == 0).nth(seed % 2).unwrap_or(1);
                        shape[axis] /= factor;
                        shape.insert(axis + 1, factor);
                    }
                    (view.reshape(&shape), View::dense(&now).reshape(&shape).unwrap())
                }
            };
            let Some(next) = next else { continue };
            view = next;
            moved = step.gather(&moved);
            prop_assert_eq!(view.gather(&base), moved.clone());
        }
        prop_assert_eq!(view.is_dense() && view.len() == len, view.len() == len && moved == base);
    }
}
