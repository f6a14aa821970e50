//! The quantiles of a symmetric beta distribution.

/// The regularized incomplete beta function of `x` with both parameters `a`, by its continued fraction (DLMF 8.17.22), which
/// converges fast below the middle; the other half is its mirror.
fn cumulative(x: f64, a: f64) -> f64 {
    if x > 0.5 {
        return 1.0 - cumulative(1.0 - x, a);
    }
    if x <= 0.0 {
        return 0.0;
    }
    // Lentz's method.
    let (mut c, mut d) = (1.0, 1.0 / (1.0 - 2.0 * a * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..200 {
        let m = f64::from(m);
        let even = m * (a - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (2.0 * a + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for term in [even, odd] {
            d = 1.0 / (1.0 + term * d);
            c = 1.0 + term / c;
            fraction *= c * d;
        }
        if fraction == before {
            break;
        }
    }
    let log = a * (libm::log(x) + libm::log1p(-x)) + libm::lgamma(2.0 * a) - 2.0 * libm::lgamma(a);
    libm::exp(log) / a * fraction
}

/// The number below which a share `p` of the distribution lies; `p` in 0..=1, `a` the value of both parameters. By
/// bisection: a run asks for few.
pub(super) fn quantile(p: f64, a: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    // In the lower half, where floating-point numbers are dense.
    if p > 0.5 {
        return 1.0 - quantile(1.0 - p, a);
    }
    let (mut low, mut high) = (0.0, 0.5);
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return middle;
        }
        match cumulative(middle, a) < p {
            true => low = middle,
            false => high = middle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quantile;

    /// scipy 1.17, `scipy.stats.beta.ppf(p, 0.6, 0.6)`.
    #[test]
    fn agrees_with_scipy() {
        for (p, expected) in [
            (0.0, 0.0),
            (0.001, 1.855873851745199e-05),
            (0.1, 0.03958440558878085),
            (0.25, 0.17568037865269498),
            (0.4, 0.3627009907532143),
            (0.5, 0.5),
            (0.7, 0.7659829961247643),
            (0.9, 0.9604155944112192),
            (0.999, 0.9999814412614826),
            (1.0, 1.0),
        ] {
            let error: f64 = quantile(p, 0.6) - expected;
            assert!(error.abs() <= 1e-12 * expected, "{p}: {error:e}");
        }
    }
}
