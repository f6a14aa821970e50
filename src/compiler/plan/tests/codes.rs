//! Products of codes: their operands, and their weights unpacked by what the format says.

use super::*;
use kiln_package::Op;

/// Every way to make codes and to read them.
const CODES: &str = r#"graph "unet" {
  input %0 "sample" [40, 40, 20]
  %1 = weight "norm.gamma" [20]
  %2 = group_norm "norm" (x: %0, gamma: %1) {groups: 4, eps: 1e-5, activation: silu, quantized: true}
  %3 = weight "conv.weight" [20, 20, 3, 3]
  %4 = weight "conv.bias" [20]
  %5 = weight "shift.weight" [20, 20]
  %6 = copy "pixel" (x: %0) {shape: [1, 20], strides: [20, 1], offset: 0}
  %7 = linear "shift" (x: %6, weight: %5) {activation: none}
  %8 = conv2d "conv" (x: %2, weight: %3, bias: %4, shift: %7, residual: %0) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}
  %9 = layer_norm "ln" (x: %8, gamma: %1) {eps: 1e-5, quantized: true}
  %10 = weight "q.weight" [20, 20]
  %11 = linear "q" (x: %9, weight: %10) {activation: none}
  %12 = weight "k.weight" [20, 20]
  %13 = linear "k" (x: %9, weight: %12) {activation: none}
  %14 = attention "attn" (q: %11, k: %13, v: %13) {heads: 4, scale: 0.5, integers: true}
  %15 = quantize "codes" (x: %14) {per_row: true}
  %16 = weight "ff.weight" [70, 20]
  %17 = weight "ff.bias" [70]
  %18 = linear "ff" (x: %15, weight: %16, bias: %17) {activation: geglu}
  %19 = quantize "picture" (x: %18, x2: %14)
  %20 = weight "out.weight" [3, 55, 3, 3]
  %21 = conv2d "out" (x: %19, weight: %20) {stride: 2, pad: [1, 1, 1, 1], up: [80, 80], activation: none}
  %22 = quantize "again" (x: %14) {per_row: true}
  %23 = linear "residual" (x: %22, weight: %5, residual: %14) {activation: none}
  output %21
  output %23
}"#;

#[test]
fn products_of_codes() {
    let part = part(CODES);
    let plan = plan(CODES, Precision::Int8).unwrap();
    check_dataflow(&part.graph, &plan.programs[0]);
    let types = |name: &str| {
        step(&plan, name)
            .operands
            .iter()
            .map(|o| o.dtype)
            .collect::<Vec<_>>()
    };
    use DType::*;
    assert_eq!(types("conv"), [U8, I8, F32, I32, F32, F16, F16, F16]);
    assert_eq!(operand(&plan, "conv", "x"), operand(&plan, "norm", "out"));
    assert_eq!(operand(&plan, "norm", "out").bytes, 64 + 1600 * 20);
    assert_eq!(operand(&plan, "q", "x").bytes, 8 * 1600 + 1600 * 20);
    assert_eq!(operand(&plan, "picture", "out").bytes, 64 + 1600 * 55);
    assert_eq!(operand(&plan, "ff", "scale").bytes, 70 * 4);
    assert!(operand(&plan, "ff", "x2").is_empty() && operand(&plan, "attn", "mask").is_empty());
    let codes = kiln_package::attention_codes_len(1600, 4, 5).unwrap();
    assert_eq!(operand(&plan, "attn", "codes").bytes, 4 * codes);
    // The one with the same weight in floats and in codes.
    assert_eq!(operand(&plan, "shift", "weight").dtype, F16);
    assert_eq!(operand(&plan, "residual", "weight").dtype, I8);
    // In place as ever; codes never are.
    assert_eq!(
        operand(&plan, "residual", "residual"),
        operand(&plan, "residual", "out")
    );

    let mut file = Cursor::new(Vec::new());
    plan.write(&mut file, &mut |_| ()).unwrap();
    let package = Package::open(file.get_ref()).unwrap();
    package.verify_all().unwrap();
    check_codes(&part.graph, &package);

    let mut again = Cursor::new(Vec::new());
    emit(parts(vec![part]), Precision::Int8, &mut again, &mut |_| ()).unwrap();
    assert_eq!(file.get_ref(), again.get_ref());
}

/// Where in a checkpoint's weights the element of a column and a step of the product lies.
type Place = Box<dyn Fn(usize, usize) -> usize>;

/// Compares the weights of every product of codes with the graph's.
fn check_codes(graph: &Graph, package: &Package) {
    let program = package.program(0).unwrap();
    let bytes =
        |operand: Operand| &package.weights()[operand.offset as usize..][..operand.bytes as usize];
    let mut compared = 0;
    for ((_, node), step) in graph.iter_nodes().zip(program.steps()) {
        let op = step.op();
        let operand = |name| step.operand(op.slots().iter().position(|s| s.name == name).unwrap());
        let (n, k, geglu, at): (usize, usize, bool, Place) = match op {
            Op::Conv2d(op) => {
                let [o, c, h, w] =
                    [op.out_c, op.in_c, op.kernel_h, op.kernel_w].map(|n| n as usize);
                let at =
                    move |column, k: usize| ((column * c + k % c) * h + k / c / w) * w + k / c % w;
                (o, h * w * c, false, Box::new(at))
            }
            Op::Linear(op) => {
                let (n, k) = (op.n as usize, op.k as usize);
                let geglu = op.activation == package::Activation::Geglu;
                (
                    if geglu { 2 * n } else { n },
                    k,
                    geglu,
                    Box::new(move |column, i| column * k + i),
                )
            }
            _ => continue,
        };
        if operand("weight").dtype != DType::I8 {
            continue;
        }
        let Some(ValueKind::Weight(weight)) =
            node.input("weight").map(|value| &graph.value(value).kind)
        else {
            panic!("{}", step.name());
        };
        let values = weight.read();
        let panels = bytes(operand("weight"));
        let (scales, sums) = (
            bytes(operand("scale")).as_chunks::<4>().0,
            bytes(operand("sums")).as_chunks::<4>().0,
        );
        assert_eq!((scales.len(), sums.len()), (n, n));
        let depth = k.next_multiple_of(8);
        let mut used = vec![false; panels.len()];
        for column in 0..n {
            let largest = (0..k)
                .map(|i| values[at(column, i)].abs())
                .fold(0.0, f32::max);
            let scale = largest / 127.0;
            assert_eq!(
                f32::from_le_bytes(scales[column]),
                scale,
                "{} {column}",
                step.name()
            );
            let placed = match geglu {
                true => column % (n / 2) / 16 * 32 + column / (n / 2) * 16 + column % (n / 2) % 16,
                false => column,
            };
            let mut sum = 0;
            for i in 0..k {
                let place = ((placed / 16 * (depth / 4) + i / 4) * 16 + placed % 16) * 4 + i % 4;
                let code = panels[place] as i8;
                let expected = (values[at(column, i)] / scale).round_ties_even();
                assert_eq!(f32::from(code), expected, "{} {column} {i}", step.name());
                used[place] = true;
                sum += i32::from(code);
            }
            assert_eq!(
                i32::from_le_bytes(sums[column]),
                sum,
                "{} {column}",
                step.name()
            );
        }
        let padding = used.iter().zip(panels).filter(|(used, _)| !**used);
        assert!(padding.clone().all(|(_, byte)| *byte == 0) && padding.count() > 0);
        compared += 1;
    }
    assert_eq!(compared, 6);
}

#[test]
fn codes_need_halves_around_them() {
    let error = plan(CODES, Precision::F32).unwrap_err().to_string();
    assert_eq!(
        error,
        "graph \"unet\", node \"conv\" (conv2d): operand `out` has the wrong type"
    );
    assert_eq!(Precision::Int8.to_string(), "int8");
    let scale = Weights::default()
        .place(
            "w",
            &weight(&[1, 1], vec![1.0]),
            Form::Plain,
            (DType::I8, 1),
        )
        .unwrap_err();
    assert!(
        scale
            .to_string()
            .starts_with("weight \"w\": cannot be stored as i8"),
        "{scale}"
    );
}

fn weight(shape: &[usize], values: Vec<f32>) -> crate::graph::Weight {
    crate::graph::Weight::new(crate::graph::Literal {
        shape: shape.to_vec(),
        values,
    })
}

/// A column of zeros, one whose largest element is negative, and what lies halfway between two codes.
#[test]
fn corners_of_weights() {
    let values = vec![0.0, -0.0, 0.0, -254.0, 1.0, 127.0, 127.0, 0.5, 1.5];
    let weight = weight(&[3, 3], values);
    let mut weights = Weights::default();
    let mut place = |form, dtype, bytes| {
        let place = weights.place("w", &weight, form, (dtype, bytes));
        place.unwrap()
    };
    let [codes, scales, sums] = [
        place(
            Form::Panels(pack::Matrix::Linear { n: 3, k: 3 }),
            DType::I8,
            128,
        ),
        place(Form::Scales { n: 3, k: 3 }, DType::F32, 12),
        place(Form::Sums { n: 3, k: 3 }, DType::I32, 12),
    ];
    let mut bytes = Vec::new();
    weights.write(&mut bytes, 1, |_| ()).unwrap();
    let at = |operand: Operand| &bytes[operand.offset as usize..][..operand.bytes as usize];
    let words: Vec<f32> = at(scales)
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    assert_eq!(words, [0.0, 2.0, 1.0]);
    let words: Vec<i32> = at(sums)
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b))
        .collect();
    assert_eq!(words, [0, -127 + 64, 127 + 2]);
    let column = |n: usize| {
        at(codes)[4 * n..4 * n + 4]
            .iter()
            .map(|b| *b as i8)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        [column(0), column(1), column(2)],
        [[0, 0, 0, 0], [-127, 0, 64, 0], [127, 0, 2, 0]].map(Vec::from)
    );
}
