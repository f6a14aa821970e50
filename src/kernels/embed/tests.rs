use super::*;
use crate::{F16, run_alone};

const PARAMS: EmbedParams = EmbedParams {
    rows: 2,
    dim: 2,
    vocab: 3,
};

#[test]
fn rows_are_looked_up_and_moved() {
    let table = [0.0, 1.0, 10.0, 11.0, 20.0, 21.0].map(F16::from_f32);
    let positions = [0.5, 0.5, 0.25, 0.25].map(F16::from_f32);
    let mut out = [0.0f32; 4];
    let mut job = Embed::new(
        Kernels::detect(),
        PARAMS,
        &[2, 0],
        &table,
        Some(&positions),
        &mut out,
    )
    .unwrap();
    run_alone(&mut job, &mut []);
    assert_eq!(out, [20.5, 21.5, 0.25, 1.25]);
}

#[test]
fn an_id_outside_the_table_is_an_error() {
    for id in [3, -1, i32::MAX] {
        let error = Embed::new(
            Kernels::detect(),
            PARAMS,
            &[0, id],
            &[0.0f32; 6],
            None,
            &mut [0.0f32; 4],
        )
        .err();
        assert_eq!(
            error,
            Some(ArgumentError::Id {
                row: 1,
                id,
                vocab: 3
            })
        );
    }
}
