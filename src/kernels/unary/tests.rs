use super::*;
use crate::run_alone;

#[test]
fn each_element_is_mapped() {
    let x: Vec<f32> = (0..1000).map(|i| i as f32 * 0.02 - 10.0).collect();
    for activation in [
        Activation::None,
        Activation::Silu,
        Activation::Gelu,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Tanh,
    ] {
        let mut out = vec![0.0; 1000];
        let params = UnaryParams {
            len: 1000,
            activation,
        };
        run_alone(
            &mut Unary::new(Kernels::detect(), params, Source::Other(&x), &mut out).unwrap(),
            &mut [],
        );
        assert!(
            out.iter()
                .zip(&x)
                .all(|(out, x)| *out == math::activate(activation, *x))
        );
    }
    let geglu = UnaryParams {
        len: 1,
        activation: Activation::Geglu,
    };
    assert!(Unary::new(Kernels::detect(), geglu, Source::InPlace, &mut [0.0f32]).is_err());
}
