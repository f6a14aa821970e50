use super::*;
use crate::graph::Tensor;

/// A text encoder of `layers` layers of four channels, after the passes; `add` writes a sum of a product and the stream.
fn encoder(layers: usize, add: fn(&str, usize, usize, usize) -> String) -> Graph {
    let mut text =
        "graph \"text_encoder\" {\n input %0 \"input_ids\" [3]\n %1 = weight \"table\" [9, 8]\n \
        %2 = embed \"embeddings\" (ids: %0, table: %1) {}\n"
            .to_owned();
    let (mut stream, mut next) = (2, 3);
    for layer in 0..layers {
        let n = next;
        text += &format!("%{n} = layer_norm \"norm1.{layer}\" (x: %{stream}) {{eps: 1e-5}}\n");
        text += &format!("%{} = weight \"q.{layer}\" [8, 8]\n", n + 1);
        text += &format!(
            "%{} = linear \"q\" (x: %{n}, weight: %{}) {{activation: none}}\n",
            n + 2,
            n + 1
        );
        text += &format!(
            "%{} = attention \"attn\" (q: %{}, k: %{}, v: %{n}) {{heads: 2, scale: 0.5, causal: true}}\n",
            n + 3,
            n + 2,
            n + 2
        );
        text += &format!("%{} = weight \"out.{layer}\" [8, 8]\n", n + 4);
        text += &add("out", n + 3, n + 4, stream)
            .replace("%?", &format!("%{}", n + 5))
            .replace("%!", &format!("%{}", n + 6));
        let middle = n + 6;
        text += &format!(
            "%{} = layer_norm \"norm2.{layer}\" (x: %{middle}) {{eps: 1e-5}}\n",
            n + 7
        );
        text += &format!("%{} = weight \"fc.{layer}\" [8, 8]\n", n + 8);
        text += &add("fc", n + 7, n + 8, middle)
            .replace("%?", &format!("%{}", n + 9))
            .replace("%!", &format!("%{}", n + 10));
        (stream, next) = (n + 10, n + 11);
    }
    text += &format!(
        "%{next} = layer_norm \"final\" (x: %{stream}) {{eps: 1e-5}}\n output %{next} \"last_hidden_state\"\n}}"
    );
    let mut graph = Graph::parse(&text).unwrap();
    graph.tidy();
    graph.verify().unwrap();
    graph
}

fn fused(name: &str, x: usize, weight: usize, stream: usize) -> String {
    format!(
        "%! = linear \"{name}\" (x: %{x}, weight: %{weight}, residual: %{stream}) {{activation: none}}\n"
    )
}

fn apart(name: &str, x: usize, weight: usize, stream: usize) -> String {
    format!(
        "%? = linear \"{name}\" (x: %{x}, weight: %{weight}) {{activation: none}}\n\
         %! = binary \"sum\" (a: %?, b: %{stream}) {{kind: add}}\n"
    )
}

#[test]
fn a_layer_less_is_the_encoder_of_a_layer_less() {
    let ids = [Tensor {
        shape: vec![3],
        data: vec![2.0, 8.0, 5.0],
    }];
    for add in [fused, apart] {
        let forms = forms(&encoder(4, add));
        assert_eq!(forms.len(), 4);
        for (skipped, form) in forms.iter().enumerate() {
            form.verify().unwrap();
            let whole = encoder(4 - skipped, add);
            assert_eq!(form.to_string(), whole.to_string());
            assert_eq!(
                form.interpret(&ids).unwrap(),
                whole.interpret(&ids).unwrap()
            );
        }
        assert_ne!(
            forms[0].interpret(&ids).unwrap(),
            forms[1].interpret(&ids).unwrap()
        );
    }
}

#[test]
fn there_are_at_most_twelve() {
    assert_eq!(forms(&encoder(14, fused)).len(), MAX_CLIP_SKIP);
}

#[test]
fn a_graph_without_layers_has_one_form() {
    let text = "input %0 \"x\" [4, 8]\n%1 = weight \"w\" [8, 8]\n\
        %2 = linear \"a\" (x: %0, weight: %1, residual: %0) {activation: none}\n";
    let norm = format!("{text}%3 = layer_norm \"norm\" (x: %2) {{eps: 1e-5}}\noutput %3");
    for text in [norm, format!("{text}output %2")] {
        let graph = Graph::parse(&text).unwrap();
        assert_eq!(forms(&graph).len(), 1);
    }
}
