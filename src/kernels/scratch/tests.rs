use super::*;

#[test]
fn runs_are_aligned_and_fit_whatever_the_start() {
    let runs = [3, 16, 17, 1];
    let mut buffer = vec![0u8; bytes(&runs) + 63];
    for skip in 0..64 {
        let mut scratch = Scratch::new(&mut buffer[skip..][..bytes(&runs)]);
        for run in runs {
            let slice = scratch.take(run);
            assert_eq!((slice.len(), slice.as_ptr() as usize % ALIGN), (run, 0));
        }
    }
}

#[test]
#[should_panic]
fn more_than_there_is_panics() {
    Scratch::new(&mut [0; 256]).take(65);
}
