use super::super::noise::Noise;
use super::{guidance_embedding, sample};

/// diffusers 0.42.1, `LatentConsistencyModelPipeline.get_guidance_scale_embedding(torch.tensor([scale - 1]), columns)`.
#[test]
fn embeds_a_guidance_scale_as_diffusers_does() {
    let columns = [0, 1, 2, 50, 127, 128, 129, 200, 255];
    let expected = [
        -0.851_235_87,
        0.842_131_2,
        0.011_876_259,
        -0.988_206_27,
        0.681_638_7,
        -0.524_783_25,
        0.539_272_7,
        -0.939_037_1,
        0.731_688_9,
    ];
    let embedding = guidance_embedding(8.5, 256);
    assert_eq!(embedding.len(), 256);
    for (column, expected) in columns.into_iter().zip(expected) {
        let found: f32 = embedding[column];
        // An angle of 7500 has a rounding of 5e-4 in `f32`, so a frequency that differs in its last bit differs so here.
        assert!(
            (found - expected).abs() < 6e-4,
            "{column}: {found} {expected}"
        );
    }
    let odd = guidance_embedding(3.0, 7);
    let expected = [
        0.930_039_5,
        0.912_945_3,
        0.198_669_3,
        -0.367_459_57,
        0.408_082_07,
        0.980_066_6,
        0.0,
    ];
    for (found, expected) in odd.iter().zip(expected) {
        assert!((found - expected).abs() < 2e-4, "{odd:?}");
    }
    assert_eq!(guidance_embedding(1.0, 2), [0.0, 1.0]);
}

#[test]
fn draws_from_means_and_log_variances() {
    let mut normal = [0.0; 16];
    Noise::new(5).fill(&mut normal);
    let mut moments: Vec<f32> = (0..16).map(|i| i as f32).collect();
    // The first log-variance is clamped to -30, the others are those of a deviation of e.
    moments.push(-1000.0);
    moments.extend([2.0; 15]);
    sample(&mut moments, &mut Noise::new(5));
    assert_eq!(moments.len(), 16);
    assert!(moments[0].abs() < 1e-6);
    for (i, x) in moments.iter().enumerate().skip(1) {
        let expected = i as f32 + core::f32::consts::E * normal[i];
        assert!((x - expected).abs() < 1e-5, "{x} {expected}");
    }
}
