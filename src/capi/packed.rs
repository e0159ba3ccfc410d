//! Packed weights with a header that says what they are.

use core::hash::{Hash, Hasher};

use super::check::{Extents, finish, input, output, slice, slice_mut};
use super::error::{Fault, convrelu_error, convrelu_status};
use super::plan::{Convolution, with_plan};
use super::types::*;
use crate::error::Error;
use crate::isa::Isa;
use crate::pass::{Layer, Packer};
use crate::weight::PackedWeight;

/// The first word of packed weights: "CvRW".
const PACKED: u32 = 0x5752_7643;

/// Elements of the header of packed weights.
const HEADER: usize = 16;

/// The hash FNV-1a with 64 bits (Fowler, Noll, Vo). Headers of packed weights hold such hashes.
struct Fnv(u64);

impl Fnv {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    fn of(value: &impl Hash) -> u64 {
        let mut hasher = Self::EMPTY;
        value.hash(&mut hasher);
        hasher.0
    }

    /// The hash of elements. Each step takes a whole element, not a byte.
    fn of_elements(elements: &[f32]) -> u64 {
        elements.iter().fold(Self::EMPTY, |hash, element| hash.then(element.to_bits())).0
    }

    fn then(self, unit: impl Into<u64>) -> Self {
        Self((self.0 ^ unit.into()).wrapping_mul(0x0100_0000_01b3))
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            *self = Self(self.0).then(byte);
        }
    }
}

/// Elements of packed weights with their header.
pub(super) fn packed_len(packer: &Packer<'_>) -> usize {
    packer.len().saturating_add(HEADER)
}

/// A pass that has packed weights, by its number in their header.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Packs {
    Forward = 0,
    BackwardInput = 1,
    TransposedForward = 2,
    TransposedBackwardInput = 3,
}

impl Packs {
    pub(super) fn forward(layer: Convolution<'_>) -> Self {
        match layer {
            Convolution::Plain(_) => Self::Forward,
            Convolution::Transposed(..) => Self::TransposedForward,
        }
    }

    pub(super) fn backward_input(layer: Convolution<'_>) -> Self {
        match layer {
            Convolution::Plain(_) => Self::BackwardInput,
            Convolution::Transposed(..) => Self::TransposedBackwardInput,
        }
    }

    fn of(pass: u32, layer: Convolution<'_>) -> Result<Self, Fault> {
        match pass {
            CONVRELU_FORWARD | CONVRELU_FORWARD_PACKED => Ok(Self::forward(layer)),
            CONVRELU_BACKWARD_INPUT | CONVRELU_BACKWARD_INPUT_PACKED => Ok(Self::backward_input(layer)),
            _ => Err(Fault::InvalidValue { argument: "pass", value: pass as usize }),
        }
    }

    /// The packer of the weight for this pass. `layer` is the mirrored one if the layer is a transposed convolution.
    pub(super) fn packer(self, layer: Layer<'_>) -> Packer<'_> {
        layer.packer(match self {
            Self::Forward | Self::TransposedBackwardInput => layer.plan_forward().packing,
            Self::BackwardInput | Self::TransposedForward => layer.plan_backward_input().packing,
        })
    }
}

/// The header of packed weights: what they are, where their elements begin, a hash of the elements and a hash of the header.
fn header(packer: &Packer<'_>, pass: Packs, skipped: usize, elements: u64) -> [u32; HEADER] {
    let halves = |value: u64| [value as u32, (value >> 32) as u32];
    let [layer_low, layer_high] = halves(Fnv::of(&packer.identity()));
    let [elements_low, elements_high] = halves(elements);
    let version = CONVRELU_VERSION_MAJOR << 16 | CONVRELU_VERSION_MINOR << 8 | CONVRELU_VERSION_PATCH;
    let mut header = [0; HEADER];
    header[..9].copy_from_slice(&[
        PACKED,
        version,
        number_of(packer.isa()),
        pass as u32,
        // Fits: it is less than a vector.
        skipped as u32,
        layer_low,
        layer_high,
        elements_low,
        elements_high,
    ]);
    header[HEADER - 1] = Fnv::of(&header[..HEADER - 1].as_ref()) as u32;
    header
}

/// The packed weights behind a header, and the hash that their elements must have.
pub(super) fn packed<'a>(
    packer: &Packer<'_>,
    pass: Packs,
    buffer: &'a [f32],
) -> Result<(PackedWeight<'a>, u64), Fault> {
    let required = packed_len(packer);
    let Some((found, elements)) = buffer.split_first_chunk::<HEADER>() else {
        return Err(Error::BufferTooShort { argument: "weight", len: buffer.len(), required }.into());
    };
    let found = found.map(f32::to_bits);
    if found[0] != PACKED || found[HEADER - 1] != Fnv::of(&found[..HEADER - 1].as_ref()) as u32 {
        return Err(Fault::NotPacked);
    }
    let hash = u64::from(found[7]) | u64::from(found[8]) << 32;
    let skipped = found[4] as usize;
    if found != header(packer, pass, skipped, hash) {
        let packed = isa_of(found[2]).unwrap_or(Isa::Scalar);
        return Err(Error::PackedElsewhere { packed, plan: packer.isa() }.into());
    }
    if buffer.len() < required {
        return Err(Error::BufferTooShort { argument: "weight", len: buffer.len(), required }.into());
    }
    // In the header of `convrelu_pack_weight`, `skipped` is less than a vector. A forged header may hold any number.
    let elements = elements.get(skipped..).unwrap_or_default();
    let weight = packer.packed_before(elements).ok_or(Fault::NotPacked)?;
    Ok((weight, hash))
}

/// Packs a weight for many calls of `convrelu_forward` (`CONVRELU_FORWARD`) or `convrelu_backward_input`
/// (`CONVRELU_BACKWARD_INPUT`). A header names the layer, the pass, the instruction set and the version.
///
/// `buffer` holds at least `convrelu_lens.packed_weight` or `packed_weight_transposed` elements. You may move them. Plans of the
/// same layer can use them for any batch, and for any image size with which they read weights in the same order; other plans
/// refuse them.
///
/// # Safety
///
/// `plan` and `error` are **Struct pointers**, `weight` and `buffer` **Buffer pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_pack_weight(
    plan: *const convrelu_plan,
    pass: u32,
    weight: convrelu_input,
    buffer: convrelu_output,
    error: *mut convrelu_error,
) -> convrelu_status {
    let pack = |layer: Convolution<'_>| {
        let pass = Packs::of(pass, layer)?;
        let packer = pass.packer(layer.layer());
        Extents::new([input("weight", weight), output("buffer", buffer)]).check()?;
        // SAFETY: **Buffer pointer**; they lie apart.
        let (weight, buffer) = unsafe { (slice(weight, "weight")?, slice_mut(buffer, "buffer")?) };
        let (len, required) = (buffer.len(), packed_len(&packer));
        let short = Error::BufferTooShort { argument: "buffer", len, required };
        if len < required {
            return Err(short.into());
        }
        let (head, rest) = buffer.split_first_chunk_mut::<HEADER>().ok_or(short)?;
        let first = rest.as_ptr();
        let packed = packer.pack(weight, rest)?;
        let skipped = (packed.data.as_ptr().addr() - first.addr()) / size_of::<f32>();
        *head = header(&packer, pass, skipped, Fnv::of_elements(packed.data)).map(f32::from_bits);
        Ok(())
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, pack), error) }
}

/// Checks that a buffer holds the weights that `convrelu_pack_weight` packed for this plan and pass. It looks at every element.
/// The calls that use the weights check only the header.
///
/// # Safety
///
/// `plan` and `error` are **Struct pointers**, `buffer` is a **Buffer pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_check_packed_weight(
    plan: *const convrelu_plan,
    pass: u32,
    buffer: convrelu_input,
    error: *mut convrelu_error,
) -> convrelu_status {
    let check = |layer: Convolution<'_>| {
        // SAFETY: **Buffer pointer**; nothing is written.
        let buffer = unsafe { slice(buffer, "weight")? };
        let pass = Packs::of(pass, layer)?;
        let (weight, hash) = packed(&pass.packer(layer.layer()), pass, buffer)?;
        if Fnv::of_elements(weight.data) == hash { Ok(()) } else { Err(Fault::NotPacked) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, check), error) }
}
