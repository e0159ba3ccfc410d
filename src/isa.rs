//! Instruction sets: their names, and the best one that a build can rely on. `kernel/detect.rs` finds out which of them a machine
//! offers.

use core::fmt;
use core::str::FromStr;

/// An instruction set that the kernels are built for.
///
/// The order is that of preference: [`Isa::detect`] returns the greatest one available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, on every target.
    Scalar,
    /// Sixteen lanes of plain Rust: vectors as long as those of AVX-512, in smaller tiles. Tests use it on x86-64, whose machines
    /// may lack AVX-512. Detection never finds it.
    #[cfg(feature = "internal-testing")]
    #[doc(hidden)]
    Emulated512,
    /// WebAssembly's 128-bit SIMD, 4 lanes; in builds with the target feature `simd128`.
    Simd128,
    /// AArch64 Advanced SIMD, 4 lanes.
    Neon,
    /// x86-64 AVX2 with FMA, 8 lanes.
    Avx2,
    /// x86-64 AVX-512 (F, BW, CD, DQ, VL), 16 lanes.
    Avx512,
}

/// Every instruction set that detection may find, least preferred first.
pub(crate) const DETECTABLE: [Isa; 5] = [Isa::Scalar, Isa::Simd128, Isa::Neon, Isa::Avx2, Isa::Avx512];

/// Whether the build has NEON. Every AArch64 target with hardware floating point has it.
pub(crate) const NEON: bool = cfg!(all(target_arch = "aarch64", target_feature = "neon"));

/// Whether the build has WebAssembly's SIMD. There is nothing to detect at run time: an engine that lacks an instruction refuses
/// the whole module.
pub(crate) const SIMD128: bool = cfg!(all(target_arch = "wasm32", target_feature = "simd128"));

impl Isa {
    /// The best instruction set that every machine of the build's target has: what the target (and `-C target-feature`,
    /// `-C target-cpu`) promises the compiler.
    pub const BASELINE: Self = {
        // The features that `pulp` requires for its instruction sets.
        const AVX2: bool = cfg!(all(
            target_arch = "x86_64",
            target_feature = "avx2",
            target_feature = "bmi1",
            target_feature = "bmi2",
            target_feature = "fma",
            target_feature = "lzcnt",
            target_feature = "popcnt",
        ));
        const AVX512: bool = cfg!(all(
            target_feature = "avx512bw",
            target_feature = "avx512cd",
            target_feature = "avx512dq",
            target_feature = "avx512f",
            target_feature = "avx512vl",
        ));
        if AVX2 && AVX512 {
            Self::Avx512
        } else if AVX2 {
            Self::Avx2
        } else if NEON {
            Self::Neon
        } else if SIMD128 {
            Self::Simd128
        } else {
            Self::Scalar
        }
    };

    /// Lower-case name: `scalar`, `simd128`, `neon`, `avx2`, `avx512`. The inverse of [`FromStr`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(feature = "internal-testing")]
            Self::Emulated512 => "emulated512",
            Self::Simd128 => "simd128",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no [`Isa`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIsaError;

impl fmt::Display for ParseIsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an instruction set is one of scalar, simd128, neon, avx2, avx512")
    }
}

impl core::error::Error for ParseIsaError {}

impl FromStr for Isa {
    type Err = ParseIsaError;

    fn from_str(name: &str) -> Result<Self, ParseIsaError> {
        DETECTABLE.into_iter().find(|isa| isa.name().eq_ignore_ascii_case(name)).ok_or(ParseIsaError)
    }
}
