//! What the UNet attends to: the text encoder's answers to the prompts.

use std::collections::HashMap;

use kiln_package::GraphKind;

use crate::runtime::{Data, ProgramId, Session, Silent};

use super::prompt::{Answers, Chunk, Chunks, Prompt, PromptStyle, weigh};
use super::{Error, Kiln, Tokenizer};

/// The prompts of a drawing in chunks.
pub(super) struct Chunked {
    style: PromptStyle,
    /// For each lane, its prompt and the chunks of each of its texts.
    lanes: Vec<(Prompt, Vec<Chunks>)>,
    /// The chunk of the empty text.
    empty: Chunk,
}

impl Chunked {
    /// Reads the lanes' prompts. `most` is the number of chunks that the UNet can attend to.
    pub(super) fn new(
        prompts: Vec<Prompt>,
        style: PromptStyle,
        tokenizer: &Tokenizer,
        most: usize,
    ) -> Result<Self, super::SectionError> {
        let mut lanes = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let chunks = prompt.chunks(tokenizer, most)?;
            lanes.push((prompt, chunks));
        }
        let ids = tokenizer.encode("")?.ids;
        let mut chunked = Chunked {
            style,
            lanes,
            empty: Chunk {
                weights: vec![1.0; ids.len()],
                ids,
                len: 0,
            },
        };
        chunked.level(most);
        Ok(chunked)
    }

    /// Gives all texts as many chunks. Those of one prompt are filled up with empty ones, as in the WebUI. A prompt whose
    /// number divides the other's is repeated, which changes nothing about what is attended to; otherwise that of fewer
    /// chunks is filled up too.
    fn level(&mut self, most: usize) {
        let longest =
            |lane: &(Prompt, Vec<Chunks>)| lane.1.iter().map(|text| text.chunks.len()).max();
        let counts: Vec<usize> = self.lanes.iter().filter_map(longest).collect();
        let largest = counts.iter().copied().max().unwrap_or(1);
        let common = (largest..=most.max(largest))
            .find(|count| counts.iter().all(|own| count.is_multiple_of(*own)));
        let total = common.unwrap_or(largest);
        for ((_, texts), own) in self.lanes.iter_mut().zip(counts) {
            let filled = if common.is_some() { own } else { total };
            for text in texts {
                text.chunks.resize(filled, self.empty.clone());
                let once = text.chunks.clone();
                while text.chunks.len() < total {
                    text.chunks.extend_from_slice(&once);
                }
            }
        }
    }

    /// The words of the prompt, then of the negative prompt, that found no room.
    pub(super) fn cut(&self) -> Vec<String> {
        let lanes = self.lanes.iter().rev();
        let mut cut: Vec<String> = Vec::new();
        for (_, texts) in lanes {
            // The texts of a prompt end alike.
            if let Some(longest) = texts.iter().max_by_key(|text| text.cut.len()) {
                cut.extend_from_slice(&longest.cut);
            }
        }
        cut
    }

    fn count(&self) -> usize {
        self.lanes[0].1[0].chunks.len()
    }
}

/// The contexts of a drawing.
pub(super) struct Contexts {
    /// One after another: those of the first lane's texts, then those of the second's.
    values: Vec<f32>,
    /// Numbers of one of them.
    len: usize,
    prompts: Vec<Prompt>,
}

impl Contexts {
    /// All of them.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Numbers of one of them.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What a lane attends to at an evaluation, from 0.
    pub(super) fn at(&self, lane: usize, evaluation: usize) -> &[f32] {
        let before: usize = self.prompts[..lane].iter().map(|p| p.texts().count()).sum();
        let index = before + self.prompts[lane].text_at(evaluation);
        &self.values[index * self.len..][..self.len]
    }

    /// Whether a lane attends to something else than at the evaluation before.
    pub(super) fn change_at(&self, evaluation: usize) -> bool {
        evaluation == 0
            || self
                .prompts
                .iter()
                .any(|prompt| prompt.text_at(evaluation) != prompt.text_at(evaluation - 1))
    }
}

impl Kiln {
    /// Runs the text encoder, `lanes` chunks at a time, on every chunk that there is, each once.
    pub(super) fn contexts(
        &self,
        session: &mut Session,
        text_encoder: ProgramId,
        lanes: usize,
        chunked: Chunked,
    ) -> Result<Contexts, Error> {
        let answers = self.answers(session, text_encoder, lanes, &chunked)?;
        let len = answers.len * chunked.count();
        let texts: usize = chunked.lanes.iter().map(|(_, texts)| texts.len()).sum();
        let mut values = vec![0.0; len * texts];
        let mut rest = &mut values[..];
        for (prompt, texts) in &chunked.lanes {
            let (own, others) = rest.split_at_mut(len * texts.len());
            rest = others;
            // How often the WebUI's list has each text.
            let mut times = vec![0; texts.len()];
            for (_, text) in prompt.schedule() {
                times[*text] += 1;
            }
            for place in 0..chunked.count() {
                let chunks: Vec<_> = texts
                    .iter()
                    .map(|text| &text.chunks[place])
                    .zip(times.iter().copied())
                    .collect();
                let mut outs: Vec<_> = own
                    .chunks_exact_mut(len)
                    .map(|text| &mut text[place * answers.len..][..answers.len])
                    .collect();
                weigh(chunked.style, &answers, &chunks, &chunked.empty, &mut outs);
            }
        }
        Ok(Contexts {
            values,
            len,
            prompts: chunked
                .lanes
                .into_iter()
                .map(|(prompt, _)| prompt)
                .collect(),
        })
    }

    fn answers(
        &self,
        session: &mut Session,
        text_encoder: ProgramId,
        lanes: usize,
        chunked: &Chunked,
    ) -> Result<Answers, Error> {
        let len = self.output(text_encoder, "last_hidden_state")?.elements() as usize;
        let texts = chunked.lanes.iter().flat_map(|(_, texts)| texts);
        let chunks = texts.flat_map(|text| &text.chunks);
        let is_comfy = chunked.style == PromptStyle::Comfy;
        let mut index = HashMap::new();
        let mut asked: Vec<&[i32]> = Vec::new();
        for chunk in chunks.chain(is_comfy.then_some(&chunked.empty)) {
            index.entry(chunk.ids.clone()).or_insert_with(|| {
                asked.push(&chunk.ids);
                asked.len() - 1
            });
        }
        let mut values = vec![0.0; len * asked.len()];
        for (asked, answers) in asked
            .chunks(lanes)
            .zip(values.chunks_mut((len * lanes).max(1)))
        {
            let mut evaluation = session.prepare(text_encoder, asked.len())?;
            for (lane, ids) in asked.iter().enumerate() {
                evaluation.input(lane, "input_ids", &[1, ids.len()], Data::I32(ids))?;
            }
            let mut outputs = evaluation.run(&mut Silent)?;
            for (lane, answer) in answers.chunks_exact_mut(len.max(1)).enumerate() {
                outputs.read(lane, "last_hidden_state", answer)?;
            }
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite {
                graph: GraphKind::TextEncoder,
                step: None,
            });
        }
        Ok(Answers { index, values, len })
    }
}
