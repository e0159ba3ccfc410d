//! AdaReLU as an elementwise operation, against eq. 4 to 6 written out.

use convrelu::{Accumulation, adarelu};
use proptest::prelude::*;

use crate::common::{Rng, Values};
use crate::strategy;

proptest! {
    #![proptest_config(strategy::config(4))]

    /// Integers make every sum exact; one in five elements ties with its threshold.
    #[test]
    fn matches_the_formulas(
        count in 1..20usize,
        inner in 1..20usize,
        repeats in 0..4usize,
        excess in 0..3usize,
        seed in any::<u64>(),
    ) {
        let len = count * inner * repeats;
        let mut rng = Rng(seed);
        let mut draw = |len| rng.values(Values::Integers, len);
        let (mut x, theta, g) = (draw(len), draw(count), draw(len + excess));
        if let Some(x) = x.first_mut() {
            *x = f32::NAN;
        }
        let owner = |e: usize| (e / inner) % count;

        let mut y = vec![9.0; len + excess];
        adarelu::forward(&x, &theta, inner, &mut y).unwrap();
        let prior = draw(len + excess);
        for accumulation in [Accumulation::Overwrite, Accumulation::Add] {
            let adds = f32::from(u8::from(accumulation == Accumulation::Add));
            let (mut dx, mut dtheta) = (prior.clone(), vec![1.0; count + excess]);
            adarelu::backward(&x, &theta, inner, &g, &mut dx, &mut dtheta, accumulation).unwrap();
            let mut want = vec![adds; count];
            for e in 0..len {
                let theta = theta[owner(e)];
                if x[e].is_nan() {
                    assert!(y[e].is_nan());
                } else {
                    assert_eq!(y[e], x[e].max(theta));
                }
                assert_eq!(dx[e], adds * prior[e] + if x[e] > theta { g[e] } else { 0.0 });
                want[owner(e)] += if x[e] <= theta { g[e] } else { 0.0 };
            }
            assert_eq!(dtheta[..count], want);
            assert_eq!((&dx[len..], &dtheta[count..]), (&prior[len..], &vec![1.0; excess][..]));
        }
        assert_eq!(y[len..], vec![9.0; excess]);
    }
}
