//! Detection of the instruction sets that can run here. Kernels run only with the proof that this module makes ([`Available`]).

use crate::isa::{DETECTABLE, Isa, NEON, SIMD128};

impl Isa {
    /// The best instruction set of this CPU under this operating system.
    ///
    /// The first call asks the CPU. Later calls load the stored answer.
    pub fn detect() -> Self {
        Available::best().isa()
    }

    /// All instruction sets that this CPU, operating system and build offer, least preferred first.
    pub fn available() -> impl Iterator<Item = Self> {
        DETECTABLE.into_iter().filter(|isa| isa.is_available())
    }

    /// Whether kernels of this instruction set can run here.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(feature = "internal-testing")]
            Self::Emulated512 => cfg!(target_arch = "x86_64"),
            Self::Simd128 => SIMD128,
            Self::Neon => NEON,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx512 => x86::features().contains(self),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }
}

/// Whether a vector maximum occupies a unit of this CPU that could multiply. Intel's CPUs execute both on the same ports. AMD's
/// CPUs have other ports for maxima.
pub(super) fn maxima_cost_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::features().maxima_cost_products();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether this CPU computes and loads a vector of 512 bits as two halves, as AMD's Zen 4 does, so that a half costs half as much.
/// Other CPUs with AVX-512 have no more units for halves than for whole vectors, or have not been measured.
pub(super) fn splits_long_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::features().splits_long_vectors();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// An instruction set whose kernels can run here. Only this file makes such values, and only after it has checked.
#[derive(Clone, Copy)]
pub(super) struct Available(Isa);

impl Available {
    /// The instruction set that every machine of the build's target has.
    pub(super) const BASELINE: Self = Self(Isa::BASELINE);

    /// The instruction set, if it is available.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        isa.is_available().then_some(Self(isa))
    }

    /// The greatest of those available that detection may find.
    pub(super) fn best() -> Self {
        // Scalar is always there, so the iterator is never empty.
        DETECTABLE.into_iter().filter_map(Self::new).next_back().unwrap_or(Self(Isa::Scalar))
    }

    pub(super) const fn isa(self) -> Isa {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! On virtual machines, CPUID traps to the hypervisor and takes microseconds. So its answer is stored.

    use core::arch::x86_64::{__cpuid, _xgetbv, CpuidResult};
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::Isa;

    const KNOWN: u8 = 1;
    const AVX2: u8 = 2;
    const AVX512: u8 = 4;
    const INTEL: u8 = 8;
    const ZEN4: u8 = 16;

    /// The stored answer, or 0 before the first question. If several threads ask at once, they write the same value.
    static CACHE: AtomicU8 = AtomicU8::new(0);

    #[derive(Clone, Copy)]
    pub(super) struct Features(u8);

    impl Features {
        pub(super) fn contains(self, isa: Isa) -> bool {
            let bit = match isa {
                Isa::Avx2 => AVX2,
                Isa::Avx512 => AVX512,
                _ => 0,
            };
            self.0 & bit != 0
        }

        pub(super) fn maxima_cost_products(self) -> bool {
            self.0 & INTEL != 0
        }

        pub(super) fn splits_long_vectors(self) -> bool {
            self.0 & ZEN4 != 0
        }
    }

    #[inline]
    pub(super) fn features() -> Features {
        match CACHE.load(Ordering::Relaxed) {
            0 => ask(),
            known => Features(known),
        }
    }

    #[cold]
    fn ask() -> Features {
        let mut cpu = 0;
        // The features that pulp's tokens require.
        if pulp::x86::V3::try_new().is_some() {
            cpu |= AVX2;
        }
        if pulp::x86::V4::try_new().is_some() {
            cpu |= AVX512;
        }
        let leaf1 = __cpuid(1);
        let usable = usable(cpu, leaf1.ecx, xcr0);
        let found = KNOWN | usable | model(usable, __cpuid(0), leaf1.eax);
        CACHE.store(found, Ordering::Relaxed);
        Features(found)
    }

    /// What the kernels know of the CPU's model. Leaf 0 of CPUID has the vendor's name, EAX of leaf 1 the family (Intel SDM, volume 2,
    /// CPUID; AMD64 APM, volume 3, E.3.2). Zen 3 and Zen 4 are family 19h. Of these, Zen 4 alone has AVX-512.
    fn model(usable: u8, CpuidResult { ebx, ecx, edx, .. }: CpuidResult, leaf1: u32) -> u8 {
        let name = [ebx, edx, ecx].map(u32::to_le_bytes);
        let [base, extended] = [leaf1 >> 8 & 0xf, leaf1 >> 20 & 0xff];
        match name.as_flattened() {
            b"GenuineIntel" => INTEL,
            b"AuthenticAMD" if base == 0xf && base + extended == 0x19 && usable & AVX512 != 0 => ZEN4,
            _ => 0,
        }
    }

    /// The features of the CPU that can be used. If the operating system does not save a feature's registers, its instructions
    /// fault (Intel SDM, volume 1, 13.3 and 14.3). Without `std`, pulp does not check that.
    ///
    /// `leaf1` is ECX of CPUID leaf 1. `xcr0` is called only if `leaf1` says that the register can be read.
    fn usable(cpu: u8, leaf1: u32, xcr0: impl FnOnce() -> u64) -> u8 {
        const OSXSAVE: u32 = 1 << 27;
        const XMM_YMM: u64 = 0b110;
        const OPMASK_ZMM: u64 = 0b1110_0000;
        let saved = if leaf1 & OSXSAVE == 0 { 0 } else { xcr0() };
        if saved & XMM_YMM != XMM_YMM {
            0
        } else if saved & OPMASK_ZMM != OPMASK_ZMM {
            cpu & AVX2
        } else {
            cpu
        }
    }

    /// XCR0: the register states that the operating system saves.
    fn xcr0() -> u64 {
        #[target_feature(enable = "xsave")]
        fn read() -> u64 {
            // SAFETY: the caller has seen the OSXSAVE bit, so XGETBV is enabled, and XCR0 always exists.
            unsafe { _xgetbv(0) }
        }

        // SAFETY: `usable` calls this only if OSXSAVE is set. Then the CPU has XSAVE, and the operating system has enabled it.
        unsafe { read() }
    }

    #[cfg(test)]
    mod tests {
        use super::{AVX2, AVX512, CpuidResult, INTEL, ZEN4, model, usable};

        /// The bit OSXSAVE alone. `DISABLED` is every other bit.
        const ENABLED: u32 = 1 << 27;
        const DISABLED: u32 = !ENABLED;

        #[test]
        fn only_registers_that_are_saved_are_used() {
            const BOTH: u8 = AVX2 | AVX512;
            for (xcr0, expected) in [
                (0, 0),
                (0b001, 0),             // x87
                (0b011, 0),             // and xmm
                (0b101, 0),             // ymm without xmm
                (0b1110_0011, 0),       // everything but ymm
                (0b111, AVX2),          // xmm and ymm
                (0b0010_0111, AVX2),    // and opmask
                (0b0110_0111, AVX2),    // and the upper halves of zmm 0 to 15
                (0b1100_0111, AVX2),    // zmm without opmask
                (0b1110_0111, BOTH),    // everything
                (0b10_1110_0111, BOTH), // and protection keys
            ] {
                assert_eq!(usable(BOTH, ENABLED, || xcr0), expected, "XCR0 = {xcr0:#b}");
            }
        }

        /// XGETBV faults there.
        #[test]
        fn xcr0_is_not_read_where_the_system_has_not_enabled_it() {
            assert_eq!(usable(AVX2 | AVX512, DISABLED, || unreachable!("XGETBV")), 0);
        }

        #[test]
        fn models_are_known_by_name_and_family() {
            let leaf = |name: &[u8; 12]| {
                let [ebx, edx, ecx] = [0, 4, 8].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|byte| name[at + byte])));
                CpuidResult { eax: 13, ebx, ecx, edx }
            };
            let (intel, amd) = (leaf(b"GenuineIntel"), leaf(b"AuthenticAMD"));
            let both = AVX2 | AVX512;
            for (usable, vendor, signature, expected) in [
                (both, intel, 0x000c_06f2, INTEL), // Emerald Rapids
                (AVX2, intel, 0x000a_0671, INTEL),
                (both, intel, 0x00a1_0f11, INTEL), // the family that Zen 4 has
                (both, amd, 0x00a1_0f11, ZEN4),    // Genoa
                (AVX2, amd, 0x00a1_0f11, 0),       // whose system does not save the long registers
                (AVX2, amd, 0x00a2_0f12, 0),       // Zen 3
                (both, amd, 0x00b0_0f21, 0),       // Zen 5
                (both, amd, 0x0000_0f19, 0),
                (both, leaf(b"CentaurHauls"), 0x00a1_0f11, 0),
            ] {
                assert_eq!(model(usable, vendor, signature), expected, "{usable}, {vendor:?}, {signature:#x}");
            }
        }

        #[test]
        fn saved_registers_are_no_instructions() {
            assert_eq!(usable(0, ENABLED, || u64::MAX), 0);
            assert_eq!(usable(AVX2, ENABLED, || u64::MAX), AVX2);
        }
    }
}
