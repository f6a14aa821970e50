use super::{Axis, Tile, tile_size};

#[test]
fn the_shares_of_all_tiles_are_one() {
    for (len, tile) in [
        (8, 8),
        (9, 8),
        (16, 8),
        (29, 16),
        (64, 17),
        (256, 17),
        (257, 18),
        (100, 32),
    ] {
        for scale in [1, 2, 8] {
            let axis = Axis::overlapping(len, tile);
            let mut sums = vec![0.0; len * scale];
            for (index, start) in axis.starts().iter().enumerate() {
                let shares = axis.shares(index, scale);
                assert_eq!(shares.len(), tile * scale);
                for (sum, share) in sums[start * scale..].iter_mut().zip(&shares) {
                    *sum += share;
                }
                // What lies beside the picture's edge is nobody else's; elsewhere an edge has no share.
                let (first, last) = (shares[0], shares[shares.len() - 1]);
                assert_eq!(first, f32::from(*start == 0), "{len} {tile} {index}");
                assert_eq!(last, f32::from(start + tile == len), "{len} {tile} {index}");
            }
            for sum in sums {
                assert!((sum - 1.0).abs() < 1e-6, "{len} {tile} {scale}: {sum}");
            }
        }
    }
}

#[test]
fn few_tiles_cover_a_side() {
    assert_eq!(Axis::covering(16, 8).starts(), [0, 8]);
    assert_eq!(Axis::covering(17, 8).starts(), [0, 5, 9]);
    assert_eq!(Axis::covering(8, 8).starts(), [0]);
    assert_eq!(Axis::overlapping(16, 8).starts(), [0, 4, 8]);
    assert_eq!(Axis::overlapping(8, 8).starts(), [0]);
    for axis in [Axis::covering(131, 17), Axis::overlapping(131, 17)] {
        let starts = axis.starts();
        assert_eq!((starts[0], starts[starts.len() - 1]), (0, 131 - 17));
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= 17));
    }
}

#[test]
fn tiles_are_no_larger_than_the_picture() {
    assert_eq!(tile_size((512, 64), Some(128)), (128, 64));
    assert_eq!(tile_size((512, 64), None), (512, 64));
    assert_eq!("auto".parse(), Ok(Tile::Auto));
    assert_eq!("256".parse(), Ok(Tile::Side(256)));
    assert!("0".parse::<Tile>().is_err() && "big".parse::<Tile>().is_err());
}
