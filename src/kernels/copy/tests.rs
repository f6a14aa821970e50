use proptest::prelude::*;

use super::*;
use crate::run_alone;

proptest! {
    #[test]
    fn each_element_comes_from_its_index(
        d in prop::array::uniform4(1usize..6), s in prop::array::uniform4(0usize..9), offset in 0usize..5,
    ) {
        let reach = offset + (0..4).map(|i| (d[i] - 1) * s[i]).sum::<usize>() + 1;
        let x: Vec<f32> = (0..reach).map(|i| i as f32).collect();
        let mut out = vec![0.0; d.iter().product()];
        let params = CopyParams { d, s, offset };
        run_alone(&mut Copy::new(Kernels::detect(), params, &x, &mut out).unwrap(), &mut []);
        for (at, out) in out.iter().enumerate() {
            let index = [at / d[3] / d[2] / d[1], at / d[3] / d[2] % d[1], at / d[3] % d[2], at % d[3]];
            prop_assert_eq!(*out, (offset + (0..4).map(|i| index[i] * s[i]).sum::<usize>()) as f32);
        }
        prop_assert!(Copy::new(Kernels::detect(), params, &x[1..], &mut vec![0.0; d.iter().product()]).is_err());
    }
}
