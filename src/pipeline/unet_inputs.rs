//! What some UNets take besides latents, a timestep and the context.

use kiln_package::{GraphKind, Port};

use crate::runtime::{Data, ProgramId, Session, Silent};

use super::draw::{Programs, sizes};
use super::init::Canvas;
use super::noise::Noise;
use super::tile::PictureParts;
use super::{Error, Kiln};

/// The log-variances of a latent's distribution are clamped to this, as in diffusers.
const LOG_VARIANCE: (f32, f32) = (-30.0, 20.0);

/// What a UNet takes at every step alike.
#[derive(Debug, Default, PartialEq)]
pub(super) struct UnetInputs {
    /// Channels after those of the latents: an inpainting model's mask, and the latents of the picture without what is
    /// masked.
    pub(super) channels: Vec<f32>,
    /// The embedded guidance scale, of a model that was distilled with it (LCM).
    pub(super) timestep_cond: Option<Condition>,
}

/// An input and its shape.
#[derive(Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Kiln {
    /// Whether the UNet takes the guidance scale itself: then it runs once for each step, without a negative prompt.
    pub(super) fn embeds_guidance(&self, unet: ProgramId) -> bool {
        self.condition(unet).is_some()
    }

    /// Whether the UNet takes a mask and a picture's latents besides its own.
    pub(super) fn inpaints(&self, unet: ProgramId) -> Result<bool, Error> {
        let channels = |port: &Port<'_>| port.shape().get(1).map_or(0, |&n| n as usize);
        let taken = channels(&self.input(unet, "sample")?);
        let latent = channels(&self.output(unet, "out_sample")?);
        if taken == latent {
            return Ok(false);
        }
        if taken != 2 * latent + 1 {
            let reason = format!(
                "{} takes {taken} channels and gives {latent}; it should take {latent}, or {} to inpaint",
                GraphKind::Unet,
                2 * latent + 1
            );
            return Err(self.unusable(reason));
        }
        Ok(true)
    }

    /// What the UNet takes at every step. An inpainting model without a mask is to paint everything: its mask is 1
    /// everywhere, so the picture has nothing left and is grey. `noise` is drawn from as diffusers does, after the first
    /// latents.
    pub(super) fn unet_inputs(
        &self,
        session: &mut Session,
        programs: &Programs,
        canvas: Option<&Canvas<'_>>,
        guidance_scale: f32,
        noise: &mut Noise,
    ) -> Result<UnetInputs, Error> {
        let unet = programs.unet;
        let mut inputs = UnetInputs::default();
        if let Some(port) = self.condition(unet) {
            let (columns, shape) = sizes(&port);
            inputs.timestep_cond = Some(Condition {
                shape,
                values: guidance_embedding(guidance_scale, columns),
            });
        }
        if let (true, Some(encoder)) = (programs.inpaints, programs.vae_encoder) {
            let (latents, shape) = sizes(&self.output(unet, "out_sample")?);
            let [.., height, width] = shape[..] else {
                return Err(self.unusable(format!("{} has no planes", GraphKind::Unet)));
            };
            let sides = [height, width];
            let kept = |part: [usize; 4]| match canvas {
                Some(canvas) => canvas.unmasked_planes(part),
                None => vec![0.0; 3 * part[2] * part[3]],
            };
            inputs.channels = match canvas {
                Some(canvas) => canvas.latent_mask(sides),
                None => vec![1.0; height * width],
            };
            let kept = self.encode_picture(session, encoder, &kept, (latents, sides), noise)?;
            inputs.channels.extend(kept);
        }
        Ok(inputs)
    }

    /// A picture's latents, scaled, drawn from the distribution that the encoder gives: so many in all, of so many rows and
    /// columns. In its planes -1 is black and 1 is white.
    pub(super) fn encode_picture(
        &self,
        session: &mut Session,
        encoder: ProgramId,
        picture: PictureParts<'_>,
        (latents, sides): (usize, [usize; 2]),
        noise: &mut Noise,
    ) -> Result<Vec<f32>, Error> {
        let (_, shape) = sizes(&self.input(encoder, "image")?);
        let sampled = self.leaves_to_chance(encoder);
        let name = if sampled { "moments" } else { "latents" };
        let (len, answered) = sizes(&self.output(encoder, name)?);
        let mut answer = match (&shape[..], &answered[..]) {
            (&[1, 3, height, width], &[1, _, rows, columns]) if [rows, columns] == sides => {
                let mut answer = vec![0.0; len];
                let planes = picture([0, 0, height, width]);
                let mut evaluation = session.prepare(encoder, 1)?;
                evaluation.input(0, "image", &shape, Data::F32(&planes))?;
                evaluation.run(&mut Silent)?.read(0, name, &mut answer)?;
                answer
            }
            _ => self.encode_tiles(session, encoder, name, picture, sides)?,
        };
        if answer.len() != latents * (1 + usize::from(sampled)) {
            let reason = format!(
                "{} gives {} numbers for {latents} latents",
                GraphKind::VaeEncoder,
                answer.len()
            );
            return Err(self.unusable(reason));
        }
        if !answer.iter().all(|x| x.is_finite()) {
            return Err(Error::NotFinite {
                graph: GraphKind::VaeEncoder,
                step: None,
            });
        }
        if sampled {
            sample(&mut answer, noise);
        }
        let scale = self.card.vae_scaling_factor;
        answer.iter_mut().for_each(|x| *x *= scale);
        Ok(answer)
    }

    /// Whether an encoder gives a distribution of latents.
    fn leaves_to_chance(&self, encoder: ProgramId) -> bool {
        self.output(encoder, "moments").is_ok()
    }

    /// Draws the numbers that encoding another picture would take: diffusers encodes what is not masked also for a UNet that
    /// has no use for it.
    pub(super) fn skip_encoding(&self, encoder: ProgramId, latents: usize, noise: &mut Noise) {
        if self.leaves_to_chance(encoder) {
            noise.fill(&mut vec![0.0; latents]);
        }
    }

    fn condition(&self, unet: ProgramId) -> Option<Port<'_>> {
        self.model
            .inputs(unet)
            .find(|port| port.name == "timestep_cond")
    }
}

/// Draws from the distribution whose means and log-variances are the two halves; the means' half is what is left.
fn sample(moments: &mut Vec<f32>, noise: &mut Noise) {
    let len = moments.len() / 2;
    let (means, log_variances) = moments.split_at_mut(len);
    let mut normal = vec![0.0; len];
    noise.fill(&mut normal);
    for ((x, &log_variance), n) in means.iter_mut().zip(&*log_variances).zip(normal) {
        let (low, high) = LOG_VARIANCE;
        *x += libm::expf(0.5 * log_variance.clamp(low, high)) * n;
    }
    moments.truncate(len);
}

/// The guidance scale as a model distilled with it takes it: sines, then cosines, of `1000 (scale - 1)` times frequencies
/// that fall from 1 to 1/10000. (diffusers' `get_guidance_scale_embedding`; variational diffusion models,
/// <https://github.com/google-research/vdm>.) An odd last column is zero.
///
/// Angles reach thousands, where `f32` has three decimals: they are rounded to it where diffusers rounds.
fn guidance_embedding(scale: f32, columns: usize) -> Vec<f32> {
    let half = columns / 2;
    let w = (scale - 1.0) * 1000.0;
    let rate = libm::log(10000.0) as f32 / (half.max(2) - 1) as f32;
    let frequency = |i: usize| libm::exp(f64::from(i as f32 * -rate)) as f32;
    let angle = |i: usize| f64::from(w * frequency(i));
    let sines = (0..half).map(|i| libm::sin(angle(i)) as f32);
    let cosines = (0..half).map(|i| libm::cos(angle(i)) as f32);
    let mut embedding: Vec<f32> = sines.chain(cosines).collect();
    embedding.resize(columns, 0.0);
    embedding
}

#[cfg(test)]
mod tests;
