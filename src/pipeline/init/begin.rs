//! What a pass begins with.

use crate::pipeline::draw::{Pass, sizes};
use crate::pipeline::noise::Noise;
use crate::pipeline::samplers::Sampler;
use crate::pipeline::unet_inputs::UnetInputs;
use crate::pipeline::{Error, Kiln, Settings};
use crate::runtime::Session;

use super::Canvas;

/// What the latents are made from, besides noise.
pub(in crate::pipeline) enum Source<'a> {
    Nothing,
    /// A picture, to be encoded.
    Canvas(&'a Canvas<'a>),
    /// Latents, scaled.
    Latents(Vec<f32>),
}

/// Everything before the first evaluation.
pub(in crate::pipeline) struct Begun {
    /// What the first evaluation takes.
    pub(in crate::pipeline) latents: Vec<f32>,
    /// What the sampler's noise is drawn from.
    pub(in crate::pipeline) noise: Noise,
    /// What the UNet takes besides.
    pub(in crate::pipeline) inputs: UnetInputs,
    /// What is kept of a picture, for a UNet that is not told.
    pub(in crate::pipeline) kept: Option<Kept>,
}

/// The latents of a picture, which are put in place of those that are not repainted after each step, under the same noise as
/// the others were at first.
pub(in crate::pipeline) struct Kept {
    picture: Vec<f32>,
    noise: Vec<f32>,
    /// 1 where it is repainted, 0 elsewhere: one plane.
    mask: Vec<f32>,
}

impl Kept {
    /// Puts the picture in place. The shares are [`Sampler::mixture`]'s.
    pub(in crate::pipeline) fn restore(
        &self,
        (signal, deviation): (f32, f32),
        latents: &mut [f32],
    ) {
        let mask = self.mask.iter().cycle();
        let known = self.picture.iter().zip(&self.noise).zip(mask);
        for (x, ((picture, noise), mask)) in latents.iter_mut().zip(known) {
            *x = (1.0 - mask) * (signal * picture + deviation * noise) + mask * *x;
        }
    }
}

impl Kiln {
    /// Makes the first latents. Numbers are drawn in the order of diffusers' pipelines: what the encoder leaves to chance, the
    /// noise, then what it leaves to chance of the picture without what is masked.
    pub(in crate::pipeline) fn begin(
        &self,
        session: &mut Session,
        pass: &Pass,
        settings: &Settings,
        source: Source<'_>,
        sampler: &dyn Sampler,
    ) -> Result<Begun, Error> {
        let programs = &pass.programs;
        let (len, shape) = sizes(&self.output(programs.unet, "out_sample")?);
        let [.., height, width] = shape[..] else {
            return Err(self.unusable("the UNet has no planes".into()));
        };
        let canvas = match &source {
            Source::Canvas(canvas) => Some(*canvas),
            _ => None,
        };
        let is_masked = canvas.is_some_and(Canvas::is_masked);
        let repaints = programs.inpaints || is_masked;
        // As in diffusers' inpainting: nothing of what is repainted is left.
        let from_noise = repaints && pass.start == 0 && canvas.is_some();
        let keeps = is_masked && !programs.inpaints;
        let mut stream = settings.seeds().stream();
        let picture = match (source, programs.vae_encoder) {
            (Source::Latents(latents), _) => Some(latents),
            (Source::Canvas(canvas), Some(encoder)) if keeps || !from_noise => {
                let planes = |part| canvas.planes(part);
                let sides = [height, width];
                Some(self.encode_picture(session, encoder, &planes, (len, sides), &mut stream)?)
            }
            _ => None,
        };
        let mut latents = vec![0.0; len];
        let mut noise = settings
            .seeds()
            .begin_after(stream, &mut latents, [height, width]);
        let inputs = self.unet_inputs(
            session,
            programs,
            canvas,
            settings.guidance_scale,
            &mut noise,
        )?;
        let mut kept = None;
        match picture {
            Some(mut picture) => {
                if let (true, Some(canvas), Some(encoder)) = (keeps, canvas, programs.vae_encoder) {
                    kept = Some(Kept {
                        picture: picture.clone(),
                        noise: latents.clone(),
                        mask: canvas.latent_mask([height, width]),
                    });
                    self.skip_encoding(encoder, len, &mut noise);
                }
                if from_noise {
                    scale(&mut latents, sampler.initial_sigma());
                } else {
                    sampler.add_noise(&mut picture, &latents);
                    latents = picture;
                }
            }
            None => scale(&mut latents, sampler.initial_sigma()),
        }
        Ok(Begun {
            latents,
            noise,
            inputs,
            kept,
        })
    }
}

fn scale(latents: &mut [f32], factor: f32) {
    latents.iter_mut().for_each(|x| *x *= factor);
}
