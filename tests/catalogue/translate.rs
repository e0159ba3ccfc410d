//! What Rust says and how C says it: descriptors, passes, instruction sets, thresholds and errors.

use convrelu::capi::convrelu_status::{self as Status, *};
use convrelu::capi::*;
use convrelu::transposed::ConvTransposeDesc;
use convrelu::{ConvDesc, ConvDescBuilder, Error, Isa, Layout, Pass};

use crate::structs::{good_desc, try_plan};

pub(crate) fn number(pass: Pass) -> u32 {
    match pass {
        Pass::Forward => CONVRELU_FORWARD,
        Pass::ForwardPacked => CONVRELU_FORWARD_PACKED,
        Pass::BackwardInput => CONVRELU_BACKWARD_INPUT,
        Pass::BackwardInputPacked => CONVRELU_BACKWARD_INPUT_PACKED,
        Pass::BackwardWeight => CONVRELU_BACKWARD_WEIGHT,
    }
}

pub(crate) fn isa_number(isa: Isa) -> u32 {
    match isa {
        Isa::Scalar => CONVRELU_ISA_SCALAR,
        Isa::Neon => CONVRELU_ISA_NEON,
        Isa::Avx2 => CONVRELU_ISA_AVX2,
        Isa::Avx512 => CONVRELU_ISA_AVX512,
        Isa::Simd128 => CONVRELU_ISA_SIMD128,
        other => panic!("{other} has no number"),
    }
}

pub(crate) fn c_plan(desc: &convrelu_desc, isa: Isa) -> convrelu_plan {
    try_plan(desc, isa_number(isa)).unwrap()
}

/// How C says a uniform threshold: by its name, if it has one, which needs no number.
pub(crate) fn uniform_kind(theta: f32) -> (u32, f32) {
    if theta == f32::NEG_INFINITY {
        (CONVRELU_THRESHOLDS_LINEAR, f32::NAN)
    } else if theta.to_bits() == 0 {
        (CONVRELU_THRESHOLDS_RELU, f32::NAN)
    } else {
        (CONVRELU_THRESHOLDS_UNIFORM, theta)
    }
}

pub(crate) fn c_desc(desc: &ConvDesc) -> convrelu_desc {
    let rank = desc.rank();
    let axes = |values: [usize; 3], rest| std::array::from_fn(|i| if i < rank { values[3 - rank + i] } else { rest });
    convrelu_desc {
        layout: if desc.layout() == Layout::Nchw { CONVRELU_NCHW } else { CONVRELU_NHWC },
        batch: desc.batch(),
        in_channels: desc.in_channels(),
        out_channels: desc.out_channels(),
        groups: desc.groups(),
        // Entries beyond the rank are ignored, whatever they are.
        size: axes(desc.input_size(), 0),
        kernel: axes(desc.kernel(), usize::MAX),
        stride: axes(desc.stride(), 0),
        dilation: axes(desc.dilation(), 0),
        padding_before: axes(desc.padding_before(), usize::MAX),
        padding_after: axes(desc.padding_after(), usize::MAX),
        output_padding: axes([0; 3], usize::MAX),
        input_pitch: desc.input_pitch(),
        output_pitch: desc.output_pitch(),
        ..good_desc(rank, CONVRELU_NCHW)
    }
}

/// The descriptor that Rust makes of C's.
pub(crate) fn rust_desc(c: &convrelu_desc) -> Result<ConvDesc, Error> {
    fn build<const R: usize>(builder: ConvDescBuilder<R>, c: &convrelu_desc) -> Result<ConvDesc, Error> {
        let mut builder = builder
            .stride(first(&c.stride))
            .dilation(first(&c.dilation))
            .padding_before_after(first(&c.padding_before), first(&c.padding_after))
            .groups(c.groups)
            .layout(if c.layout == CONVRELU_NCHW { Layout::Nchw } else { Layout::Nhwc });
        if c.input_pitch > 0 {
            builder = builder.input_pitch(c.input_pitch);
        }
        if c.output_pitch > 0 {
            builder = builder.output_pitch(c.output_pitch);
        }
        builder.build()
    }
    fn first<const R: usize>(values: &[usize; 3]) -> [usize; R] {
        std::array::from_fn(|axis| values[axis])
    }
    let convrelu_desc { batch, in_channels, out_channels, size, kernel, .. } = c;
    match c.rank {
        1 => build(ConvDesc::conv1d(*batch, *in_channels, *out_channels, first(size), first(kernel)), c),
        2 => build(ConvDesc::conv2d(*batch, *in_channels, *out_channels, first(size), first(kernel)), c),
        _ => build(ConvDesc::conv3d(*batch, *in_channels, *out_channels, first(size), first(kernel)), c),
    }
}

/// The transposed convolution that mirrors one.
pub(crate) fn c_transposed(mirrored: &ConvDesc) -> convrelu_desc {
    let mut desc = c_desc(mirrored);
    for axis in 0..mirrored.rank() {
        let full = 3 - mirrored.rank() + axis;
        let (size, output) = (mirrored.output_size()[full], mirrored.input_size()[full]);
        let scattered = (size - 1) * desc.stride[axis] + desc.dilation[axis] * (desc.kernel[axis] - 1) + 1;
        desc.size[axis] = size;
        desc.output_padding[axis] = output + desc.padding_before[axis] + desc.padding_after[axis] - scattered;
    }
    (desc.in_channels, desc.out_channels) = (mirrored.out_channels(), mirrored.in_channels());
    (desc.input_pitch, desc.output_pitch) = (mirrored.output_pitch(), mirrored.input_pitch());
    desc.kind = CONVRELU_TRANSPOSED;
    desc
}

/// The transposed convolution that Rust makes of C's descriptor.
pub(crate) fn rust_transposed(c: &convrelu_desc) -> Result<ConvTransposeDesc, Error> {
    macro_rules! build {
        ($constructor:ident, $rank:literal) => {{
            macro_rules! axes {
                ($field:ident) => {
                    std::array::from_fn::<usize, $rank, _>(|axis| c.$field[axis])
                };
            }
            let (inputs, outputs) = (c.in_channels, c.out_channels);
            let mut builder = ConvTransposeDesc::$constructor(c.batch, inputs, outputs, axes!(size), axes!(kernel))
                .stride(axes!(stride))
                .dilation(axes!(dilation))
                .padding_before_after(axes!(padding_before), axes!(padding_after))
                .output_padding(axes!(output_padding))
                .groups(c.groups)
                .layout(if c.layout == CONVRELU_NCHW { Layout::Nchw } else { Layout::Nhwc });
            if c.input_pitch > 0 {
                builder = builder.input_pitch(c.input_pitch);
            }
            if c.output_pitch > 0 {
                builder = builder.output_pitch(c.output_pitch);
            }
            builder.build()
        }};
    }
    match c.rank {
        1 => build!(conv1d, 1),
        2 => build!(conv2d, 2),
        _ => build!(conv3d, 3),
    }
}

/// The status of an error.
pub(crate) fn status_of(error: Error) -> Status {
    match error {
        Error::ZeroChannels { .. }
        | Error::ZeroGroups
        | Error::ZeroSize { .. }
        | Error::ZeroKernel { .. }
        | Error::ZeroStride { .. }
        | Error::ZeroDilation { .. } => CONVRELU_ZERO,
        Error::KernelTooLarge { .. } => CONVRELU_KERNEL_TOO_LARGE,
        Error::ChannelsNotDivisible { .. } => CONVRELU_CHANNELS_NOT_DIVISIBLE,
        Error::Overflow { .. } => CONVRELU_OVERFLOW,
        Error::PitchTooSmall { .. } => CONVRELU_PITCH_TOO_SMALL,
        Error::MissingInput => CONVRELU_MISSING_INPUT,
        Error::Executor { .. } => CONVRELU_EXECUTOR,
        Error::BufferTooShort { .. } => CONVRELU_BUFFER_TOO_SHORT,
        Error::NanThreshold { .. } => CONVRELU_NAN_THRESHOLD,
        Error::IsaUnavailable { .. } => CONVRELU_ISA_UNAVAILABLE,
        Error::PackedElsewhere { .. } => CONVRELU_PACKED_ELSEWHERE,
        Error::ThresholdShape { .. } => CONVRELU_THRESHOLD_SHAPE,
        Error::PaddingTooLarge { .. } => CONVRELU_PADDING_TOO_LARGE,
        Error::OutputPaddingTooLarge { .. } => CONVRELU_OUTPUT_PADDING_TOO_LARGE,
        Error::NanBound { .. } => CONVRELU_NAN_BOUND,
        Error::BoundsCrossed { .. } => CONVRELU_BOUNDS_CROSSED,
        other => panic!("a new error: {other}"),
    }
}
