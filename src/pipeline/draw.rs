//! Drawing, from top to bottom.

use std::ops::ControlFlow;

use kiln_package::{GraphKind, Port};

use crate::runtime::{Data, ProgramId, Session, Silent, memory};

use super::checkpoint::{Checkpoint, Keeper, Position, State};
use super::contexts::{Chunked, Contexts};
use super::error::SectionError;
use super::guidance::{guide, rescale};
use super::init::{Begun, Canvas, Source, Upscaler};
use super::picture::{bilinear, to_rgb8};
use super::samplers::{Evaluation, Run, Sampler, ScheduleError};
use super::{Error, Kiln, Picture, RequestError, Settings, Watch};

/// A part of a drawing that is done.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The prompts are encoded.
    Encoded {
        /// What the UNet attends to: that of the negative prompt, if there is guidance, then that of the prompt. One that
        /// says several texts in turn has as many, one after another.
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

/// The programs of a pass.
pub(super) struct Programs {
    pub(super) text_encoder: ProgramId,
    pub(super) unet: ProgramId,
    /// Whether the UNet takes a mask and a picture's latents.
    pub(super) inpaints: bool,
    pub(super) vae_decoder: ProgramId,
    /// Of an inpainting model, or where there is a picture to begin with.
    pub(super) vae_encoder: Option<ProgramId>,
    /// 2 under guidance: the negative prompt, then the prompt.
    pub(super) lanes: usize,
}

/// A way from noise, or a picture under noise, to latents.
pub(super) struct Pass {
    /// Its number, from 0.
    number: usize,
    /// Width and height in pixels.
    pub(super) size: (u32, u32),
    /// Steps of the sampler.
    steps: usize,
    /// The first that is taken.
    pub(super) start: usize,
    pub(super) programs: Programs,
    /// Steps and evaluations of the pass before.
    before: (usize, usize),
    /// Steps that all passes take.
    all: usize,
}

impl Pass {
    /// Steps of the sampler, and the first that is taken.
    pub(super) fn run(&self) -> (usize, usize) {
        (self.steps, self.start)
    }
}

/// What a pass begins with.
struct Begin<'a> {
    settings: &'a Settings,
    contexts: &'a Contexts,
    source: Source<'a>,
    /// The latents that the pass before has left.
    before: &'a [f32],
}

/// The programs of some passes, each with the lanes that it runs with.
pub(super) fn lanes(passes: &[Pass]) -> Vec<(ProgramId, usize)> {
    let programs = passes.iter().map(|pass| &pass.programs);
    programs
        .flat_map(|programs| {
            let lanes = programs.lanes;
            [
                Some((programs.text_encoder, lanes)),
                Some((programs.unet, lanes)),
                Some((programs.vae_decoder, 1)),
                programs.vae_encoder.map(|encoder| (encoder, 1)),
            ]
        })
        .flatten()
        .collect()
}

impl Kiln {
    /// Draws a picture with settings that [`Kiln::settings`] gave. `progress` is told of each part that is done, and may
    /// break off.
    pub fn draw_settings(
        &self,
        settings: &Settings,
        progress: &mut Watch<'_>,
    ) -> Result<Picture, Error> {
        self.draw_and_keep(settings, None, progress)
    }

    /// As [`Kiln::draw_settings`], and writes to the checkpoint's file when the drawing begins and after each step. Goes on
    /// from what the file held when it was opened, if it was, with the picture of a drawing that was never disturbed; then
    /// `progress` is told of the steps that are still done. The file stays when the drawing has ended, however it did: whoever
    /// has the picture safe removes it.
    pub fn draw_kept(
        &self,
        settings: &Settings,
        checkpoint: &Checkpoint,
        progress: &mut Watch<'_>,
    ) -> Result<Picture, Error> {
        let keeper = Keeper::new(checkpoint, self, settings)?;
        self.draw_and_keep(settings, Some(keeper), progress)
    }

    fn draw_and_keep(
        &self,
        settings: &Settings,
        mut keeper: Option<Keeper<'_>>,
        progress: &mut Watch<'_>,
    ) -> Result<Picture, Error> {
        let passes = self.passes(settings)?;
        let chunked = self.chunked(settings, &passes)?;
        // The tokenizer takes many times its file's size while it is there.
        memory::give_back();
        let cut = chunked.cut();
        let mut options = self.options.clone();
        // What is allocated around the session is not there yet.
        let around = self.promise(settings)?.around();
        options.ram = options.ram.map(|ram| ram.saturating_sub(around));
        let mut session = Session::new(&self.model, &lanes(&passes), &options)?;

        let Programs {
            text_encoder,
            lanes,
            ..
        } = passes[0].programs;
        let contexts = self.contexts(&mut session, text_encoder, lanes, chunked)?;
        report(
            progress,
            Progress::Encoded {
                context: contexts.values(),
            },
        )?;
        let init = settings.init.as_ref();
        let given = init.map(|init| Canvas::new(init, passes[0].size));
        let mut enlarged;
        let mut source = match &given {
            Some(canvas) => Source::Canvas(canvas),
            None => Source::Nothing,
        };
        let mut latents = Vec::new();
        for (index, pass) in passes.iter().enumerate() {
            let begin = Begin {
                settings,
                contexts: &contexts,
                source,
                before: &latents,
            };
            let (len, _) = sizes(&self.output(pass.programs.unet, "out_sample")?);
            let left = match &keeper {
                Some(keeper) => keeper.left_by(index, passes.len(), len)?,
                None => None,
            };
            latents = match left {
                Some(left) => left,
                None => self.denoise(&mut session, pass, begin, &mut keeper, progress)?,
            };
            let (Some(next), Some(hires)) = (passes.get(index + 1), settings.hires) else {
                break;
            };
            source = match hires.upscaler {
                Upscaler::Latent => Source::Latents(self.enlarge(&latents, pass, next)?),
                Upscaler::Lanczos => {
                    let pixels = rgb8(&self.decode(&mut session, pass, &mut latents.clone())?);
                    enlarged = Canvas::of_pixels(pixels, pass.size, next.size);
                    Source::Canvas(&enlarged)
                }
            };
        }
        let last = &passes[passes.len() - 1];
        let planes = self.decode(&mut session, last, &mut latents)?;
        report(progress, Progress::Decoded { planes: &planes })?;
        let drawn = rgb8(&planes);
        let (size, pixels) = match &given {
            Some(canvas) => canvas.put_back(drawn),
            None => (last.size, drawn),
        };
        Ok(Picture {
            size,
            pixels,
            settings: settings.clone(),
            model: self.card.model_name(),
            cut,
        })
    }

    /// The passes of a drawing: one, or two where the first one's picture is drawn again in a larger size.
    pub(super) fn passes(&self, settings: &Settings) -> Result<Vec<Pass>, Error> {
        let Settings {
            width,
            height,
            steps,
            ..
        } = *settings;
        let mut passes = vec![Pass {
            number: 0,
            size: (width, height),
            steps,
            start: steps - settings.taken_at_first(),
            programs: self.programs(settings, (width, height), settings.init.is_some())?,
            before: (0, 0),
            all: settings.taken(),
        }];
        if let Some(hires) = settings.hires {
            let evaluations = self.sampler(settings, (steps, 0), 0)?.evaluations().len();
            let size = hires.size((width, height));
            let again = hires.steps.unwrap_or(steps);
            let encodes = hires.upscaler == Upscaler::Lanczos;
            passes.push(Pass {
                number: 1,
                size,
                steps: again,
                start: again - hires.taken(steps),
                programs: self.programs(settings, size, encodes)?,
                before: (steps, evaluations),
                all: settings.taken(),
            });
        }
        Ok(passes)
    }

    /// The latents of a pass as large as those of the next.
    fn enlarge(&self, latents: &[f32], pass: &Pass, next: &Pass) -> Result<Vec<f32>, Error> {
        let sides = |pass: &Pass| {
            let (_, shape) = sizes(&self.output(pass.programs.unet, "out_sample")?);
            match shape[..] {
                [.., height, width] => Ok([height, width]),
                _ => Err(self.unusable(format!("{} has no planes", GraphKind::Unet))),
            }
        };
        Ok(bilinear(latents, sides(pass)?, sides(next)?))
    }

    /// The programs for a size, and whether they fit each other. `encodes` is whether a picture is to begin with.
    fn programs(
        &self,
        settings: &Settings,
        (width, height): (u32, u32),
        encodes: bool,
    ) -> Result<Programs, Error> {
        let unet = self.model.find(GraphKind::Unet, height, width)?;
        let inpaints = self.inpaints(unet)?;
        let vae_encoder = match self.model.find(GraphKind::VaeEncoder, height, width) {
            Ok(encoder) => (encodes || inpaints).then_some(encoder),
            Err(error) if inpaints => return Err(error.into()),
            Err(_) if encodes => return Err(RequestError::NoEncoder { width, height }.into()),
            Err(_) => None,
        };
        // As in diffusers, a scale below 1 is no guidance either.
        let guided = settings.guidance_scale > 1.0 && !self.embeds_guidance(unet);
        let programs = Programs {
            text_encoder: self.text_encoder(settings.clip_skip)?,
            unet,
            vae_decoder: self.model.find(GraphKind::VaeDecoder, height, width)?,
            vae_encoder,
            inpaints,
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

    /// The prompt of each lane in chunks. The tokenizer lives no longer than this.
    fn chunked(&self, settings: &Settings, passes: &[Pass]) -> Result<Chunked, Error> {
        let tokenizer = self.tokenizer()?;
        let mut prompts = settings.prompts(self.evaluations(settings)?)?;
        prompts.drain(..2 - passes[0].programs.lanes);
        let chunks = |pass: &Pass| self.model.max_chunks(pass.programs.unet) as usize;
        let most = passes.iter().map(chunks).min().unwrap_or(1);
        Chunked::new(prompts, settings.prompt_style, &tokenizer, most)
            .map_err(|source| self.section(source))
    }

    /// From noise to latents. Nothing is allocated between the first step and the last.
    fn denoise(
        &self,
        session: &mut Session,
        pass: &Pass,
        begin: Begin<'_>,
        keeper: &mut Option<Keeper<'_>>,
        progress: &mut Watch<'_>,
    ) -> Result<Vec<f32>, Error> {
        let programs = &pass.programs;
        let Begin {
            settings,
            contexts,
            source,
            before,
        } = begin;
        let (_, sample_shape) = sizes(&self.input(programs.unet, "sample")?);
        let (len, _) = sizes(&self.output(programs.unet, "out_sample")?);
        let (_, mut context_shape) = sizes(&self.input(programs.unet, "encoder_hidden_states")?);
        // The port tells the most rows there can be.
        if let [_, rows, dim] = &mut context_shape[..] {
            *rows = contexts.len() / (*dim).max(1);
        }
        let mut sampler = self.sampler(settings, pass.run(), len)?;
        let mut prediction = vec![0.0; len];
        let mut conditional = vec![0.0; len];

        let Begun {
            mut latents,
            mut noise,
            inputs: given,
            kept,
        } = self.begin(session, pass, settings, source, &*sampler)?;
        // What the UNet takes: the latents, and what stays the same behind them.
        let mut input = latents.clone();
        input.extend(&given.channels);
        let (steps_before, evaluations_before) = pass.before;
        let mut position = Position {
            pass: pass.number,
            index: 0,
            step: steps_before,
            steps: pass.all,
        };
        if let Some(keeper) = keeper {
            keeper.make_room(len, before.len(), sampler.state().len());
            match keeper.go_on(position, &mut latents, &mut noise, &mut *sampler)? {
                Some(saved) => position = saved,
                None => keeper.save(&State {
                    position,
                    noise: &noise,
                    latents: &latents,
                    before,
                    sampler: sampler.state(),
                })?,
            }
        }
        for index in position.index..sampler.evaluations().len() {
            let Evaluation {
                timestep,
                sigma,
                step,
            } = sampler.evaluations()[index];
            let timestep = [timestep];
            let step = steps_before + step - pass.start + 1;
            let said = evaluations_before + index;
            // Where there is no guidance the prompt's lane, the last, is alone.
            let lanes = if settings.guides(sigma) {
                programs.lanes
            } else {
                1
            };
            sampler.scale_input(index, &latents, &mut input[..len]);
            let mut evaluation = session.prepare(programs.unet, lanes)?;
            let is_new = evaluation.needs("encoder_hidden_states") || contexts.change_at(said);
            for lane in 0..lanes {
                evaluation
                    .input(lane, "sample", &sample_shape, Data::F32(&input))?
                    .input(lane, "timestep", &[1], Data::F32(&timestep))?;
                if is_new {
                    let prompt = programs.lanes - lanes + lane;
                    let context = Data::F32(contexts.at(prompt, said));
                    evaluation.input(lane, "encoder_hidden_states", &context_shape, context)?;
                }
                if let Some(cond) = &given.timestep_cond {
                    let values = Data::F32(&cond.values);
                    evaluation.input(lane, "timestep_cond", &cond.shape, values)?;
                }
            }
            let mut outputs = evaluation.run(&mut Silent)?;
            outputs.read(0, "out_sample", &mut prediction)?;
            if lanes == 2 {
                outputs.read(1, "out_sample", &mut conditional)?;
                guide(&mut prediction, &conditional, settings.guidance_scale);
                rescale(&mut prediction, &conditional, settings.guidance_rescale);
            }
            if !prediction.iter().all(|x| x.is_finite()) {
                return Err(Error::NotFinite {
                    graph: GraphKind::Unet,
                    step: Some(step),
                });
            }
            sampler.step(index, &prediction, &mut latents, &mut noise);
            if sampler.completes_step(index) {
                if let Some(kept) = &kept {
                    kept.restore(sampler.mixture(index + 1), &mut latents);
                }
                (position.index, position.step) = (index + 1, step);
                if let Some(keeper) = keeper {
                    keeper.save(&State {
                        position,
                        noise: &noise,
                        latents: &latents,
                        before,
                        sampler: sampler.state(),
                    })?;
                }
                report(
                    progress,
                    Progress::Denoised {
                        step,
                        steps: pass.all,
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
        pass: &Pass,
        latents: &mut [f32],
    ) -> Result<Vec<f32>, Error> {
        let programs = &pass.programs;
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

    /// Evaluations of the UNet as the WebUI counts them for a prompt's schedule: one or two in each step, the last step's and
    /// a sampler's first ones not looked at.
    pub(super) fn evaluations(&self, settings: &Settings) -> Result<usize, Error> {
        let taken = settings.taken_at_first();
        let run = (settings.steps, settings.steps - taken);
        let count = self.sampler(settings, run, 0)?.evaluations().len();
        let in_a_step = (count + taken / 2) / taken.max(1);
        Ok(taken * in_a_step.max(1))
    }

    /// The sampler for so many steps from `start` on, and `latents` elements.
    pub(super) fn sampler(
        &self,
        settings: &Settings,
        (steps, start): (usize, usize),
        latents: usize,
    ) -> Result<Box<dyn Sampler + Send>, Error> {
        let run = Run {
            start,
            schedule: settings.schedule,
            spacing: settings.spacing,
            eta: settings.eta,
            ..Run::new(steps, latents)
        };
        settings
            .sampler
            .prepare(&self.schedule, &run)
            .map_err(|error| match error {
                ScheduleError::Steps { steps, most } => RequestError::Steps { steps, most }.into(),
                error if error.is_of_request() => RequestError::Sampler(error).into(),
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
        self.section(SectionError {
            section: "programs",
            reason,
        })
    }
}

/// A port's elements and its shape.
pub(super) fn sizes(port: &Port<'_>) -> (usize, Vec<usize>) {
    (
        port.elements() as usize,
        port.shape().iter().map(|&size| size as usize).collect(),
    )
}

/// Planes as the bytes of a picture.
fn rgb8(planes: &[f32]) -> Vec<u8> {
    let mut pixels = vec![0; planes.len()];
    to_rgb8(planes, &mut pixels);
    pixels
}

fn report(progress: &mut Watch<'_>, part: Progress<'_>) -> Result<(), Error> {
    match progress(part) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}
