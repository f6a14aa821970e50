//! Parts of the noise.

use super::super::apart::Lane;
use super::super::share::{Group, MOST_MACS, groups, reached, shares, worth};
use super::*;

#[test]
fn each_product_alone_makes_its_own_part_of_the_noise() {
    let graph = block();
    let products: Vec<_> = products(&graph)
        .into_iter()
        .filter(|id| excluded(&graph, *id).is_none())
        .collect();
    let quantized = insert(&graph, &products.iter().copied().collect()).unwrap();
    let candidates: Vec<_> = super::products(&quantized)
        .into_iter()
        .take(products.len())
        .collect();
    let inputs = inputs(&graph);
    let evaluator = Evaluator::new();
    let exact = run(&evaluator, &graph, &inputs, Numbers::Exact).remove(0);

    // A product alone is the graph with that one product in integers; all together the graph with all.
    let lanes = [
        Lane::All,
        Lane::One(candidates[1]),
        Lane::One(candidates[4]),
    ];
    let sets = vec![inputs.clone(); 1 + lanes.len()];
    let outputs = evaluator
        .run_all(&quantized, &sets, Numbers::Apart(&lanes), &mut |_| ())
        .unwrap();
    assert_eq!(outputs[0][0], exact);
    let noise = |found: &Tensor| Error::between(&exact.data, &found.data).noise;
    let mut alone = Vec::new();
    for product in &products {
        let one = insert(&graph, &[*product].into_iter().collect()).unwrap();
        let coded = run_coded(&evaluator, &one, &inputs);
        alone.push(noise(&coded));
    }
    assert_eq!(noise(&outputs[2][0]), alone[1]);
    assert_eq!(noise(&outputs[3][0]), alone[4]);
    let all = noise(&run_coded(&evaluator, &quantized, &inputs));
    assert_eq!(noise(&outputs[1][0]), all);

    let mut read = 0;
    let found = shares(
        &quantized,
        &candidates,
        &[inputs.clone(), inputs],
        &evaluator,
        &mut |n| read += n,
    )
    .unwrap();
    let matrices = quantized
        .iter_nodes()
        .filter_map(|(_, node)| evaluate::product_weight(&quantized, node));
    assert_eq!(read, matrices.map(|weight| weight.len()).sum::<usize>());
    for (shares, alone) in found.iter().zip(alone) {
        assert_eq!(shares[..], [(alone / all).min(1.0); 2]);
        assert!(shares[0] > 0.0);
    }
}

/// The graph's result with all that reads codes computed from them, in `f32`.
fn run_coded(evaluator: &Evaluator, graph: &Graph, inputs: &[Tensor]) -> Tensor {
    let sets = vec![inputs.to_vec(); 2];
    let outputs = evaluator
        .run_all(graph, &sets, Numbers::Apart(&[Lane::All]), &mut |_| ())
        .unwrap();
    outputs[1][0].clone()
}

#[test]
fn the_last_products_are_reached() {
    assert_eq!(reached(&[5, 5, 5], 3), 3);
    // From the last back: 1, then 1 + 4, then 1 + 4 + 6 tenths of what is allowed.
    let tenth = MOST_MACS / 10;
    assert_eq!(reached(&[6 * tenth, 4 * tenth, tenth], 1), 2);
    assert_eq!(reached(&[6 * tenth, 4 * tenth, tenth], 2), 1);
    assert_eq!(reached(&[2 * MOST_MACS], 1), 0);
    assert_eq!(reached(&[], 3), 0);
}

#[test]
fn what_costs_less_than_its_noise_is_worth_it() {
    let group = |products: &[usize], noise: &[f64], cost| Group {
        products: products.to_vec(),
        noise: noise.to_vec(),
        cost,
    };
    let all = [
        group(&[0, 3], &[0.5, 0.1], 0.1),
        group(&[1], &[0.02, 0.04], 0.01),
        group(&[2], &[0.1, 0.1], 0.2),
        // Was not reached.
        group(&[4], &[], 0.01),
    ];
    assert_eq!(worth(&all, 2.9), [0, 3, 1]);
    assert_eq!(worth(&all, 3.1), [0; 0]);
    assert_eq!(worth(&all, 0.6), [0, 3, 1]);
    assert_eq!(worth(&all, 0.4), [0, 3, 1, 2]);
    assert_eq!(worth(&[], 1.0), [0; 0]);
}

#[test]
fn products_of_the_same_codes_go_together() {
    let graph = block();
    let products = products(&graph);
    let nodes = products.iter().map(|id| graph.node(*id)).enumerate();
    // `to_k` and `to_v` read the context.
    assert_eq!(
        groups(nodes),
        [vec![0], vec![1], vec![2], vec![3, 4], vec![5], vec![6]]
    );
}
