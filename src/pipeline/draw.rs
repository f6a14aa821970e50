//! Drawing, from top to bottom.

use std::ops::ControlFlow;

use kiln_package::{GraphKind, Port};

use crate::runtime::{Data, ProgramId, Session, Silent};

use super::error::SectionError;
use super::noise::Noise;
use super::picture::to_rgb8;
use super::samplers::{Run, Sampler, ScheduleError};
use super::{Error, Kiln, Picture, RequestError, Settings, Tokenizer, Watch};

/// A part of a drawing that is done.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The prompts are encoded.
    Encoded {
        /// The text encoder's answers, one after another: the negative prompt's, if there is guidance, and the prompt's.
        context: &'a [f32],
    },
    /// A step of the sampler is done.
    Denoised {
        /// How many steps are done.
        step: usize,
        /// How many there are.
        steps: usize,
        /// The latents, `[channels, height, width]`.
        latents: &'a [f32],
    },
    /// The latents are decoded.
    Decoded {
        /// The decoder's output, `[3, height, width]`; -1 is black, 1 is white.
        planes: &'a [f32],
    },
}

/// The programs of a drawing.
pub(super) struct Programs {
    text_encoder: ProgramId,
    unet: ProgramId,
    vae_decoder: ProgramId,
    /// Of an inpainting model only.
    vae_encoder: Option<ProgramId>,
    /// 2 under guidance: the negative prompt, then the prompt.
    lanes: usize,
}

impl Programs {
    /// Each with the lanes that it runs with.
    pub(super) fn lanes(&self) -> Vec<(ProgramId, usize)> {
        let mut programs = vec![
            (self.text_encoder, self.lanes),
            (self.unet, self.lanes),
            (self.vae_decoder, 1),
        ];
        programs.extend(self.vae_encoder.map(|encoder| (encoder, 1)));
        programs
    }
}

impl Kiln {
    /// Draws a picture with settings that [`Kiln::settings`] gave. `progress` is told of each part that is done, and may
    /// break off.
    pub fn draw_settings(
        &self,
        settings: &Settings,
        progress: &mut Watch<'_>,
    ) -> Result<Picture, Error> {
        let programs = self.programs(settings)?;
        let (ids, cut) = self.encode(settings, programs.lanes)?;
        let mut session = Session::new(&self.model, &programs.lanes(), &self.options)?;

        let context = self.run_text_encoder(&mut session, &programs, &ids)?;
        report(progress, Progress::Encoded { context: &context })?;
        let mut latents = self.denoise(&mut session, &programs, settings, &context, progress)?;
        let planes = self.decode(&mut session, &programs, &mut latents)?;
        report(progress, Progress::Decoded { planes: &planes })?;

        let mut pixels = vec![0; planes.len()];
        to_rgb8(&planes, &mut pixels);
        Ok(Picture {
            pixels,
            settings: settings.clone(),
            model: self.card.name.clone(),
            cut,
        })
    }

    /// The programs for a picture's size, and whether they fit each other.
    pub(super) fn programs(&self, settings: &Settings) -> Result<Programs, Error> {
        let (height, width) = (settings.height, settings.width);
        let unet = self.model.find(GraphKind::Unet, height, width)?;
        // As in diffusers, a scale below 1 is no guidance either.
        let guided = settings.guidance_scale > 1.0 && !self.embeds_guidance(unet);
        let programs = Programs {
            text_encoder: self.text_encoder(settings.clip_skip)?,
            unet,
            vae_decoder: self.model.find(GraphKind::VaeDecoder, height, width)?,
            vae_encoder: self.picture_encoder(unet, height, width)?,
            lanes: if guided { 2 } else { 1 },
        };
        let decoded = self.output(programs.vae_decoder, "sample")?;
        if decoded.shape() != [1, 3, height, width] {
            let reason = format!(
                "{} gives {:?} for {width}x{height}",
                GraphKind::VaeDecoder,
                decoded.shape()
            );
            return Err(self.unusable(reason));
        }
        let ids = self.input(programs.text_encoder, "input_ids")?;
        if ids.elements() != self.card.text.max_length as u64 {
            let reason = format!(
                "{} takes {} tokens, the card says {}",
                GraphKind::TextEncoder,
                ids.elements(),
                self.card.text.max_length
            );
            return Err(self.unusable(reason));
        }
        Ok(programs)
    }

    /// The text encoder without its last layers.
    pub(super) fn text_encoder(&self, clip_skip: u32) -> Result<ProgramId, Error> {
        let whole = self.model.find(GraphKind::TextEncoder, 0, 0)?;
        if clip_skip == 1 {
            return Ok(whole);
        }
        let found = self
            .model
            .text_encoders()
            .find(|(skip, _)| *skip == clip_skip);
        found.map(|(_, id)| id).ok_or_else(|| {
            let available = self.model.text_encoders().map(|(skip, _)| skip);
            let available = available.collect();
            RequestError::ClipSkip {
                clip_skip,
                available,
            }
            .into()
        })
    }

    /// The token ids for each lane, and the words that were cut off. The tokenizer lives no longer than this.
    fn encode(
        &self,
        settings: &Settings,
        lanes: usize,
    ) -> Result<(Vec<Vec<i32>>, Vec<String>), Error> {
        let section = |source| Error::Section {
            origin: self.model.origin().into(),
            source,
        };
        let package = self.model.package();
        let tokenizer =
            Tokenizer::from_json(package.tokenizer(), self.card.text).map_err(section)?;
        let mut tokens = vec![tokenizer.encode(&settings.prompt).map_err(section)?];
        if lanes == 2 {
            tokens.push(tokenizer.encode(&settings.negative).map_err(section)?);
        }
        let cut = tokens
            .iter_mut()
            .flat_map(|tokens| std::mem::take(&mut tokens.cut))
            .collect();
        Ok((
            tokens.into_iter().rev().map(|tokens| tokens.ids).collect(),
            cut,
        ))
    }

    /// The context of each lane, one after another.
    fn run_text_encoder(
        &self,
        session: &mut Session,
        programs: &Programs,
        ids: &[Vec<i32>],
    ) -> Result<Vec<f32>, Error> {
        let len = self
            .output(programs.text_encoder, "last_hidden_state")?
            .elements() as usize;
        let mut context = vec![0.0; len * ids.len()];
        let mut evaluation = session.prepare(programs.text_encoder, ids.len())?;
        for (lane, ids) in ids.iter().enumerate() {
            evaluation.input(lane, "input_ids", &[1, ids.len()], Data::I32(ids))?;
        }
        let mut outputs = evaluation.run(&mut Silent)?;
        for (lane, context) in context.chunks_exact_mut(len.max(1)).enumerate() {
            outputs.read(lane, "last_hidden_state", context)?;
        }
        Ok(context)
    }

    /// From noise to latents. Nothing is allocated between the first step and the last.
    fn denoise(
        &self,
        session: &mut Session,
        programs: &Programs,
        settings: &Settings,
        context: &[f32],
        progress: &mut Watch<'_>,
    ) -> Result<Vec<f32>, Error> {
        let (_, sample_shape) = sizes(&self.input(programs.unet, "sample")?);
        let (len, _) = sizes(&self.output(programs.unet, "out_sample")?);
        let (_, mut context_shape) = sizes(&self.input(programs.unet, "encoder_hidden_states")?);
        // The port tells the most rows there can be.
        if let [_, rows, dim] = &mut context_shape[..] {
            *rows = context.len() / programs.lanes / (*dim).max(1);
        }
        let mut sampler = self.sampler(settings, len)?;
        let mut noise = Noise::new(settings.seed);
        let mut latents = vec![0.0; len];
        let mut prediction = vec![0.0; len];
        let mut conditional = vec![0.0; len];

        noise.fill(&mut latents);
        let graphs = (programs.unet, programs.vae_encoder);
        let given = self.unet_inputs(session, graphs, settings.guidance_scale, &mut noise)?;
        // What the UNet takes: the latents, and what stays the same behind them.
        let mut input = latents.clone();
        input.extend(&given.channels);
        let sigma = sampler.initial_sigma();
        latents.iter_mut().for_each(|x| *x *= sigma);
        for index in 0..sampler.evaluations().len() {
            let step = sampler.evaluations()[index].step + 1;
            sampler.scale_input(index, &latents, &mut input[..len]);
            let timestep = [sampler.evaluations()[index].timestep];
            let mut evaluation = session.prepare(programs.unet, programs.lanes)?;
            for (lane, context) in context
                .chunks_exact((context.len() / programs.lanes).max(1))
                .enumerate()
            {
                evaluation
                    .input(lane, "sample", &sample_shape, Data::F32(&input))?
                    .input(lane, "timestep", &[1], Data::F32(&timestep))?;
                if evaluation.needs("encoder_hidden_states") {
                    evaluation.input(
                        lane,
                        "encoder_hidden_states",
                        &context_shape,
                        Data::F32(context),
                    )?;
                }
                if let Some(cond) = &given.timestep_cond {
                    let values = Data::F32(&cond.values);
                    evaluation.input(lane, "timestep_cond", &cond.shape, values)?;
                }
            }
            let mut outputs = evaluation.run(&mut Silent)?;
            outputs.read(0, "out_sample", &mut prediction)?;
            if programs.lanes == 2 {
                outputs.read(1, "out_sample", &mut conditional)?;
                guide(&mut prediction, &conditional, settings.guidance_scale);
            }
            if !prediction.iter().all(|x| x.is_finite()) {
                return Err(Error::NotFinite {
                    graph: GraphKind::Unet,
                    step: Some(step),
                });
            }
            sampler.step(index, &prediction, &mut latents, &mut noise);
            if sampler.completes_step(index) {
                report(
                    progress,
                    Progress::Denoised {
                        step,
                        steps: settings.steps,
                        latents: &latents,
                    },
                )?;
            }
        }
        Ok(latents)
    }

    /// From latents to planes of red, green and blue. Scales the latents.
    fn decode(
        &self,
        session: &mut Session,
        programs: &Programs,
        latents: &mut [f32],
    ) -> Result<Vec<f32>, Error> {
        let (_, shape) = sizes(&self.input(programs.vae_decoder, "latents")?);
        let (len, _) = sizes(&self.output(programs.vae_decoder, "sample")?);
        let mut planes = vec![0.0; len];
        latents
            .iter_mut()
            .for_each(|x| *x /= self.card.vae_scaling_factor);
        let mut evaluation = session.prepare(programs.vae_decoder, 1)?;
        evaluation.input(0, "latents", &shape, Data::F32(latents))?;
        let mut outputs = evaluation.run(&mut Silent)?;
        outputs.read(0, "sample", &mut planes)?;
        match planes.iter().all(|x| x.is_finite()) {
            true => Ok(planes),
            false => Err(Error::NotFinite {
                graph: GraphKind::VaeDecoder,
                step: None,
            }),
        }
    }

    /// The sampler for `latents` elements.
    pub(super) fn sampler(
        &self,
        settings: &Settings,
        latents: usize,
    ) -> Result<Box<dyn Sampler + Send>, Error> {
        settings
            .sampler
            .prepare(&self.schedule, &Run::new(settings.steps, latents))
            .map_err(|error| match error {
                ScheduleError::Steps { steps, most } => RequestError::Steps { steps, most }.into(),
                source => Error::Schedule {
                    origin: self.model.origin().into(),
                    source,
                },
            })
    }

    pub(super) fn input(&self, program: ProgramId, name: &str) -> Result<Port<'_>, Error> {
        let graph = self.model.program(program).graph();
        let found = self.model.inputs(program).find(|port| port.name == name);
        found.ok_or_else(|| self.unusable(format!("{graph} has no input `{name}`")))
    }

    pub(super) fn output(&self, program: ProgramId, name: &str) -> Result<Port<'_>, Error> {
        let program = self.model.program(program);
        program
            .output(name)
            .ok_or_else(|| self.unusable(format!("{} has no output `{name}`", program.graph())))
    }

    pub(super) fn unusable(&self, reason: String) -> Error {
        Error::Section {
            origin: self.model.origin().into(),
            source: SectionError {
                section: "programs",
                reason,
            },
        }
    }
}

/// A port's elements and its shape.
pub(super) fn sizes(port: &Port<'_>) -> (usize, Vec<usize>) {
    (
        port.elements() as usize,
        port.shape().iter().map(|&size| size as usize).collect(),
    )
}

/// Classifier-free guidance: `u + scale * (c - u)`, in place of `u`.
fn guide(unconditional: &mut [f32], conditional: &[f32], scale: f32) {
    for (u, c) in unconditional.iter_mut().zip(conditional) {
        *u += scale * (c - *u);
    }
}

fn report(progress: &mut Watch<'_>, part: Progress<'_>) -> Result<(), Error> {
    match progress(part) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}
