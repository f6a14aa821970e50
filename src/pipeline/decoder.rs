//! Which of a package's decoders makes the picture.

use std::fmt;
use std::str::FromStr;

use kiln_package::GraphKind;

use super::error::{RequestError, SectionError};
use super::{Error, Kiln};

/// What makes a picture of latents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decoder {
    /// The model's own autoencoder.
    #[default]
    Vae,
    /// A tiny autoencoder: many times faster and smaller, and less faithful.
    Taesd,
}

impl Decoder {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Vae, Self::Taesd];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vae => "vae",
            Self::Taesd => "taesd",
        }
    }
}

impl fmt::Display for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no decoder has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown decoder `{0}`, there are: vae, taesd")]
pub struct UnknownDecoder(pub String);

impl FromStr for Decoder {
    type Err = UnknownDecoder;

    fn from_str(name: &str) -> Result<Self, UnknownDecoder> {
        let found = Self::ALL.into_iter().find(|decoder| decoder.name() == name);
        found.ok_or_else(|| UnknownDecoder(name.into()))
    }
}

impl Kiln {
    /// The decoders that the package has, the one that draws unless another is asked for first.
    pub fn decoders(&self) -> Vec<Decoder> {
        let own = match self.card.has_tiny_vae() {
            true => Decoder::Taesd,
            false => Decoder::Vae,
        };
        let has = |graph| self.model.sizes(graph).next().is_some();
        let mut decoders = Vec::new();
        if has(GraphKind::VaeDecoder) {
            decoders.push(own);
        }
        if has(GraphKind::TaesdDecoder) && !decoders.contains(&Decoder::Taesd) {
            decoders.push(Decoder::Taesd);
        }
        decoders
    }

    /// The decoder that is asked for, or the one that draws if none is.
    pub(super) fn decoder(&self, asked: Option<Decoder>) -> Result<Decoder, Error> {
        let available = self.decoders();
        let Some(decoder) = asked else {
            return Ok(available.first().copied().unwrap_or_default());
        };
        match available.contains(&decoder) {
            true => Ok(decoder),
            false => Err(RequestError::Decoder { decoder, available }.into()),
        }
    }

    /// The graph of a decoder.
    pub(super) fn decoder_graph(&self, decoder: Decoder) -> GraphKind {
        match decoder {
            Decoder::Taesd if !self.card.has_tiny_vae() => GraphKind::TaesdDecoder,
            _ => GraphKind::VaeDecoder,
        }
    }

    /// What latents are divided by before a graph decodes them.
    pub(super) fn scaling_factor(&self, graph: GraphKind) -> Result<f32, Error> {
        if graph != GraphKind::TaesdDecoder {
            return Ok(self.card.vae_scaling_factor);
        }
        self.card.taesd_scaling_factor.ok_or_else(|| {
            self.section(SectionError {
                section: "card",
                reason: "taesd_scaling_factor is missing".into(),
            })
        })
    }
}
