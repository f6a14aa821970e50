//! Normally distributed numbers from a seed: those of PyTorch, from either of its generators.

mod philox;
mod seeds;
mod torch;

use std::fmt;
use std::str::FromStr;

use philox::Philox;
use torch::Torch;

pub use seeds::Seeds;

/// A generator of PyTorch. A seed gives other numbers with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rng {
    /// That of `torch.randn` on the CPU, which diffusers and ComfyUI take: MT19937.
    #[default]
    Torch,
    /// That of `torch.randn` on an NVIDIA GPU, which the WebUI takes: Philox-4x32-10.
    Philox,
}

impl Rng {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Torch, Self::Philox];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torch => "torch",
            Self::Philox => "philox",
        }
    }
}

impl fmt::Display for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no generator has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown generator `{0}`, there are: torch, philox")]
pub struct UnknownRng(pub String);

impl FromStr for Rng {
    type Err = UnknownRng;

    fn from_str(name: &str) -> Result<Self, UnknownRng> {
        Self::ALL
            .into_iter()
            .find(|rng| rng.name() == name)
            .ok_or_else(|| UnknownRng(name.into()))
    }
}

/// A stream of normally distributed numbers, mean 0 and deviation 1.
#[derive(Clone, PartialEq)]
pub struct Noise {
    stream: Stream,
    fills: u64,
}

#[derive(Clone, PartialEq)]
enum Stream {
    Torch(Box<Torch>),
    Philox(Philox),
}

impl fmt::Debug for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Noise")
            .field("fills", &self.fills)
            .finish_non_exhaustive()
    }
}

impl Noise {
    /// The stream of `torch.Generator().manual_seed(seed)`. As there, only the low 32 bits count.
    pub fn new(seed: u64) -> Self {
        Self::from_rng(Rng::Torch, seed)
    }

    /// The stream of a generator. Of the seed [`Rng::Torch`] takes the low 32 bits, [`Rng::Philox`] all 64.
    pub fn from_rng(rng: Rng, seed: u64) -> Self {
        Self {
            stream: match rng {
                Rng::Torch => Stream::Torch(Box::new(Torch::new(seed))),
                Rng::Philox => Stream::Philox(Philox::new(seed)),
            },
            fills: 0,
        }
    }

    /// Fills `out` as `torch.randn(out.len())` would. Nothing is drawn for an empty `out`.
    pub fn fill(&mut self, out: &mut [f32]) {
        if out.is_empty() {
            return;
        }
        match &mut self.stream {
            Stream::Torch(torch) => torch.fill(out),
            Stream::Philox(philox) => philox.fill(out),
        }
        self.fills += 1;
    }

    /// The most words of [`Noise::save`].
    pub(super) const MAX_WORDS: usize = 3 + Torch::WORDS;

    /// Writes where the stream is to `words` and returns those that are filled.
    pub(super) fn save<'a>(&self, words: &'a mut [u32; Self::MAX_WORDS]) -> &'a [u32] {
        let (kind, state) = words.split_at_mut(3);
        kind[1] = self.fills as u32;
        kind[2] = (self.fills >> 32) as u32;
        let len = match &self.stream {
            Stream::Torch(torch) => {
                kind[0] = 0;
                torch.save(state);
                Torch::WORDS
            }
            Stream::Philox(philox) => {
                kind[0] = 1;
                state[..Philox::WORDS].copy_from_slice(&philox.save());
                Philox::WORDS
            }
        };
        &words[..3 + len]
    }

    /// The stream that [`Noise::save`] has written.
    pub(super) fn load(mut words: impl Iterator<Item = u32>) -> Option<Self> {
        let (kind, low, high) = (words.next()?, words.next()?, words.next()?);
        let state: Vec<u32> = words.take(Self::MAX_WORDS).collect();
        Some(Self {
            stream: match kind {
                0 => Stream::Torch(Box::new(Torch::load(&state)?)),
                1 => Stream::Philox(Philox::load(&state)?),
                _ => return None,
            },
            fills: u64::from(low) | u64::from(high) << 32,
        })
    }

    /// How often numbers were drawn. A new stream that is drawn from as often, with as many numbers each time, goes on with
    /// the same numbers.
    pub fn fills(&self) -> u64 {
        self.fills
    }
}
