use std::fmt;

#[cfg(test)]
mod tests;

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// The references themselves, on any CPU.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX2 with dot products of bytes in its own encoding (AVX-VNNI), as CPUs without AVX-512 have them.
    AvxVnni,
    /// AVX-512 (F, BW, DQ, VL, VNNI) with FMA and F16C.
    Avx512Vnni,
    /// Advanced SIMD of AArch64, which every such CPU has.
    Neon,
    /// The same with dot products of bytes (`SDOT`), as Cortex-A76 has.
    NeonDot,
    /// The same with matrix products of bytes (`USMMLA`).
    NeonI8mm,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: &'static [Isa] = &[
        Isa::Scalar,
        Isa::Neon,
        Isa::NeonDot,
        Isa::NeonI8mm,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512Vnni,
    ];

    /// The name that `KILN_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neondot",
            Isa::NeonI8mm => "neoni8mm",
        }
    }

    /// Whether this build has kernels for it and this CPU can run them.
    pub fn available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                Isa::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Isa::Neon => cfg!(target_arch = "aarch64"),
            // What the kernel says at the first call (`getauxval`), and the same from then on.
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => {
                Isa::NeonDot.available() && std::arch::is_aarch64_feature_detected!("i8mm")
            }
            #[cfg(not(target_arch = "aarch64"))]
            Isa::NeonDot | Isa::NeonI8mm => false,
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => false,
        }
    }

    /// The fastest that is available.
    pub fn detect() -> Isa {
        Self::ALL
            .iter()
            .copied()
            .rev()
            .find(|isa| isa.available())
            .unwrap_or(Isa::Scalar)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An instruction set was asked for that this build or CPU has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    name: String,
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no kernels for instruction set `{}` here; available:",
            self.name
        )?;
        Isa::ALL
            .iter()
            .filter(|isa| isa.available())
            .try_for_each(|isa| write!(f, " {isa}"))
    }
}

impl std::error::Error for IsaError {}

/// The kernels of one instruction set. That a value exists is the proof that this CPU has the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    isa: Isa,
}

impl Kernels {
    /// The kernels of `isa`, if it is available.
    pub fn new(isa: Isa) -> Result<Self, IsaError> {
        if isa.available() {
            Ok(Self { isa })
        } else {
            Err(IsaError {
                name: isa.name().into(),
            })
        }
    }

    /// The fastest kernels available.
    pub fn detect() -> Self {
        Self { isa: Isa::detect() }
    }

    /// The kernels of the instruction set of this name.
    pub fn by_name(name: &str) -> Result<Self, IsaError> {
        Isa::ALL
            .iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| IsaError { name: name.into() })
            .and_then(|isa| Self::new(*isa))
    }

    /// The kernels that the environment variable `KILN_ISA` names, or the fastest where it is not set.
    pub fn from_env() -> Result<Self, IsaError> {
        match std::env::var_os("KILN_ISA") {
            None => Ok(Self::detect()),
            Some(name) => Self::by_name(&name.to_string_lossy()),
        }
    }

    /// The kernels of every available instruction set, slowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        Isa::ALL.iter().filter_map(|isa| Self::new(*isa).ok())
    }

    /// The instruction set.
    #[inline(always)]
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// The same value as a constant that the compiler can see through.
    ///
    /// # Safety
    /// This CPU must have `isa`.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) unsafe fn assume(isa: Isa) -> Self {
        Self { isa }
    }
}
