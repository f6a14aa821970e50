//! The words that the compiler and the runtime share.

use core::fmt;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $code:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant = $code,)* }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value's name in text.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The number that stands for the value in a package.
            pub const fn code(self) -> u32 {
                self as u32
            }

            /// The value that a number stands for.
            pub const fn from_code(code: u32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

codes! {
    /// The type of a buffer's elements.
    DType {
        /// IEEE 754 binary32.
        F32 = 0 "f32",
        /// IEEE 754 binary16.
        F16 = 1 "f16",
        /// Signed byte.
        I8 = 2 "i8",
        /// Unsigned byte.
        U8 = 3 "u8",
        /// Signed 32-bit integer.
        I32 = 4 "i32",
    }
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 => 2,
            DType::I8 | DType::U8 => 1,
        }
    }
}

codes! {
    /// Where an operand lies.
    Space {
        /// Nowhere: the slot is empty.
        Empty = 0 "empty",
        /// In the arena of the program's run.
        Arena = 1 "arena",
        /// In the package's weights.
        Weights = 2 "weights",
    }
}

codes! {
    /// One of a model's graphs.
    GraphKind {
        /// Token ids to context.
        TextEncoder = 0 "text_encoder",
        /// One evaluation of the denoiser.
        Unet = 1 "unet",
        /// Latents to a picture.
        VaeDecoder = 2 "vae_decoder",
        /// A picture to latents' moments.
        VaeEncoder = 3 "vae_encoder",
        /// Latents to a picture, by a tiny autoencoder that comes beside the VAE.
        TaesdDecoder = 4 "taesd_decoder",
    }
}

codes! {
    /// How often a program of a graph runs.
    Stage {
        /// At every evaluation; the graph has no other programs.
        Whole = 0 "whole",
        /// Once per prompt.
        Prompt = 1 "prompt",
        /// Once per timestep, both lanes together.
        Timestep = 2 "timestep",
        /// At every evaluation, after the others.
        Step = 3 "step",
    }
}

codes! {
    /// How a port's tensor lies in the arena.
    Layout {
        /// As outside, row-major.
        RowMajor = 0 "row-major",
        /// Outside `[1, c, h, w]`, inside `[h, w, c]`.
        ChannelsLast = 1 "channels-last",
    }
}

/// What stands in one slot of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Where it lies.
    pub space: Space,
    /// The type of its elements.
    pub dtype: DType,
    /// Bytes from the beginning of its space; a multiple of 64.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Operand {
    /// The empty slot.
    pub const EMPTY: Operand = Operand {
        space: Space::Empty,
        dtype: DType::F32,
        offset: 0,
        bytes: 0,
    };

    /// A buffer in the arena.
    pub const fn arena(dtype: DType, offset: u64, bytes: u64) -> Operand {
        Operand {
            space: Space::Arena,
            dtype,
            offset,
            bytes,
        }
    }

    /// A tensor among the weights.
    pub const fn weights(dtype: DType, offset: u64, bytes: u64) -> Operand {
        Operand {
            space: Space::Weights,
            dtype,
            offset,
            bytes,
        }
    }

    /// Whether the slot is empty.
    pub fn is_empty(&self) -> bool {
        self.space == Space::Empty
    }

    /// Whether both operands have a byte in common.
    pub fn overlaps(&self, other: &Operand) -> bool {
        self.space == other.space
            && !self.is_empty()
            && self.offset < other.offset.saturating_add(other.bytes)
            && other.offset < self.offset.saturating_add(self.bytes)
    }
}
