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
        Table::Plain(&table),
        Some(&positions),
        &mut out,
    )
    .unwrap();
    run_alone(&mut job, &mut []);
    assert_eq!(out, [20.5, 21.5, 0.25, 1.25]);
}

#[test]
fn codes_stand_for_multiples_of_their_rows_scale() {
    let codes = [0, 1, 10, -127, 127, 3];
    let scale = [0.5, 2.0, 0.1];
    let table = Table::Codes {
        codes: &codes,
        scale: &scale,
    };
    let positions = [0.25f32, 0.5, 0.75, 1.0];
    let look_up = |positions| {
        let mut out = [0.0f32; 4];
        let job = Embed::new(
            Kernels::detect(),
            PARAMS,
            &[2, 1],
            table,
            positions,
            &mut out,
        );
        run_alone(&mut job.unwrap(), &mut []);
        out
    };
    assert_eq!(look_up(None), [127.0 * 0.1, 3.0 * 0.1, 20.0, -254.0]);
    assert_eq!(
        look_up(Some(&positions)),
        [
            127f32.mul_add(0.1, 0.25),
            3f32.mul_add(0.1, 0.5),
            20.75,
            -253.0
        ]
    );
    let short: Table<f32> = Table::Codes {
        codes: &codes,
        scale: &scale[..2],
    };
    assert!(
        Embed::new(
            Kernels::detect(),
            PARAMS,
            &[0, 0],
            short,
            None,
            &mut [0.0f32; 4]
        )
        .is_err()
    );
}

#[test]
fn an_id_outside_the_table_is_an_error() {
    for id in [3, -1, i32::MAX] {
        let error = Embed::new(
            Kernels::detect(),
            PARAMS,
            &[0, id],
            Table::Plain(&[0.0f32; 6]),
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
