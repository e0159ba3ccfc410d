//! Descriptors that no layer has: every mistake, through Rust's builders, C's plans and every call.

use convrelu::capi::*;
use convrelu::{ConvRelu, Error, Forward, Isa, Serial, Thresholds, Weight};

use crate::call::Call;
use crate::layer::Layer;
use crate::layers::small;
use crate::rows::{Rows, assert_plan_is_refused, assert_sentence};
use crate::structs::{good_desc, try_plan};
use crate::translate::{rust_desc, rust_transposed, status_of};

const AXES: [&str; 3] = ["depth", "height", "width"];
const MOST: usize = isize::MAX as usize / size_of::<f32>();
/// Its square is no `usize`.
const ROOT: usize = 1 << (usize::BITS / 2);

/// A mistake in a descriptor.
type Mistake = (Box<dyn Fn(&mut convrelu_desc)>, Error, Vec<String>);

/// Mistakes in the pitches of a descriptor of some rank.
fn pitch_mistakes(rank: usize, layout: u32) -> Vec<Mistake> {
    let mut rows: Vec<Mistake> = Vec::new();
    let mut row = |spoil: Box<dyn Fn(&mut convrelu_desc)>, error: Error, words: &[&dyn std::fmt::Display]| {
        rows.push((spoil, error, words.iter().map(|word| word.to_string()).collect()));
    };
    let axes = u32::try_from(rank).unwrap();
    let [input, output] = if layout == CONVRELU_NCHW { [4 * 5usize.pow(axes), 6 * 6usize.pow(axes)] } else { [4, 6] };
    let small = |argument, pitch, packed| Error::PitchTooSmall { argument, pitch, packed };
    for pitch in [1, input - 1] {
        let argument = "input_pitch";
        row(Box::new(move |d| d.input_pitch = pitch), small(argument, pitch, input), &[&argument, &pitch, &input]);
        // That of the output is too small as well.
        let both = move |d: &mut convrelu_desc| (d.input_pitch, d.output_pitch) = (pitch, 1);
        row(Box::new(both), small(argument, pitch, input), &[&argument, &pitch, &input]);
    }
    for pitch in [1, output - 1] {
        let argument = "output_pitch";
        row(Box::new(move |d| d.output_pitch = pitch), small(argument, pitch, output), &[&argument, &pitch, &output]);
    }
    let [input, output] = ["input", "output"].map(|quantity| Error::Overflow { quantity });
    for far in [MOST + 1, isize::MAX as usize, usize::MAX] {
        for batch in [0, 1] {
            let far_input = move |d: &mut convrelu_desc| (d.batch, d.input_pitch) = (batch, far);
            let far_output = move |d: &mut convrelu_desc| (d.batch, d.output_pitch) = (batch, far);
            row(Box::new(far_input), input, &[&"input"]);
            row(Box::new(far_output), output, &[&"output"]);
        }
    }
    // Products that wrap to something small.
    row(Box::new(|d| (d.batch, d.input_pitch) = (ROOT / 256, ROOT * 256)), input, &[&"input"]);
    row(Box::new(|d| (d.batch, d.output_pitch) = (ROOT / 256, ROOT * 256)), output, &[&"output"]);
    rows
}

/// All mistakes in a descriptor of some rank.
fn mistakes(rank: usize) -> Vec<Mistake> {
    const LIMIT: usize = isize::MAX as usize / 4;
    let mut rows: Vec<Mistake> = Vec::new();
    let mut row = |spoil: Box<dyn Fn(&mut convrelu_desc)>, error: Error, words: &[&dyn std::fmt::Display]| {
        rows.push((spoil, error, words.iter().map(|word| word.to_string()).collect()));
    };
    let overflow = |quantity| Error::Overflow { quantity };
    let indivisible = |argument, channels, groups| Error::ChannelsNotDivisible { argument, channels, groups };

    let argument = "in_channels";
    row(Box::new(|d| d.in_channels = 0), Error::ZeroChannels { argument }, &[&argument, &0]);
    for groups in [3, 5, 8, usize::MAX] {
        row(Box::new(move |d| d.groups = groups), indivisible(argument, 4, groups), &[&argument, &4, &groups]);
    }
    let argument = "out_channels";
    row(Box::new(|d| d.out_channels = 0), Error::ZeroChannels { argument }, &[&argument, &0]);
    row(Box::new(|d| d.groups = 4), indivisible(argument, 6, 4), &[&argument, &6, &4]);
    row(Box::new(|d| d.groups = 0), Error::ZeroGroups, &[&"groups", &0]);

    for i in 0..rank {
        let axis = AXES[3 - rank + i];
        row(Box::new(move |d| d.size[i] = 0), Error::ZeroSize { axis }, &[&"input", &axis, &0]);
        row(Box::new(move |d| d.kernel[i] = 0), Error::ZeroKernel { axis }, &[&"kernel", &axis, &0]);
        row(Box::new(move |d| d.stride[i] = 0), Error::ZeroStride { axis }, &[&"stride", &axis, &0]);
        row(Box::new(move |d| d.dilation[i] = 0), Error::ZeroDilation { axis }, &[&"dilation", &axis, &0]);
        // The padded input is 8.
        let too_large = |kernel| Error::KernelTooLarge { axis, kernel, padded: 8 };
        row(Box::new(move |d| d.kernel[i] = 9), too_large(9), &[&"kernel", &axis, &9, &8]);
        row(Box::new(move |d| d.dilation[i] = 4), too_large(9), &[&"kernel", &axis, &9, &8]);
        let (padded, dilated) = (overflow("padded input"), overflow("dilated kernel"));
        for far in [LIMIT + 1, isize::MAX as usize, isize::MAX as usize + 1, usize::MAX - 1, usize::MAX] {
            row(Box::new(move |d| d.padding_before[i] = far), padded, &[&"padded input"]);
            row(Box::new(move |d| d.padding_after[i] = far), padded, &[&"padded input"]);
            row(Box::new(move |d| d.size[i] = far), padded, &[&"padded input"]);
            row(Box::new(move |d| d.dilation[i] = far), dilated, &[&"dilated kernel"]);
            row(Box::new(move |d| d.kernel[i] = far), dilated, &[&"dilated kernel"]);
        }
        // As far as an axis may go: more output than memory.
        row(Box::new(move |d| d.padding_before[i] = LIMIT), overflow("output"), &[&"output"]);
        row(Box::new(move |d| d.padding_after[i] = LIMIT), overflow("output"), &[&"output"]);
        row(Box::new(move |d| d.size[i] = LIMIT), overflow("input"), &[&"input"]);
        // More taps than offsets.
        let taps = move |d: &mut convrelu_desc| {
            d.stride[i] = LIMIT;
            d.padding_before[i] = 1 << 25;
            d.kernel[i] = (1 << 24) + 1;
        };
        row(Box::new(taps), overflow("kernel"), &[&"kernel"]);
    }

    for many in [MOST, MOST + 1, isize::MAX as usize, usize::MAX] {
        row(Box::new(move |d| d.batch = many), overflow("input"), &[&"input"]);
        row(Box::new(move |d| d.in_channels = many), overflow("input"), &[&"input"]);
        row(Box::new(move |d| d.out_channels = many), overflow("output"), &[&"output"]);
    }
    // An empty batch does not make an image addressable.
    row(Box::new(|d| (d.batch, d.in_channels) = (0, usize::MAX)), overflow("input"), &[&"input"]);
    row(Box::new(|d| (d.batch, d.out_channels) = (0, usize::MAX)), overflow("output"), &[&"output"]);
    // Products that wrap to something small.
    row(Box::new(|d| (d.batch, d.in_channels) = (ROOT, ROOT)), overflow("input"), &[&"input"]);
    row(Box::new(|d| (d.batch, d.out_channels) = (ROOT, ROOT)), overflow("output"), &[&"output"]);
    let pointwise = |d: &mut convrelu_desc| {
        (d.size, d.kernel, d.padding_before, d.padding_after) = ([1; 3], [1; 3], [0; 3], [0; 3]);
    };
    let weights = move |d: &mut convrelu_desc| {
        pointwise(d);
        (d.in_channels, d.out_channels) = (ROOT, ROOT);
    };
    row(Box::new(weights), overflow("weight"), &[&"weight"]);
    let thresholds = move |d: &mut convrelu_desc| {
        pointwise(d);
        (d.in_channels, d.out_channels) = (MOST / 4, 1);
        (d.kernel[0], d.padding_before[0]) = (5, 4);
    };
    row(Box::new(thresholds), overflow("thresholds"), &[&"thresholds"]);
    if rank >= 2 {
        let square = move |d: &mut convrelu_desc| {
            pointwise(d);
            (d.size[0], d.size[1]) = (ROOT, ROOT);
        };
        row(Box::new(square), overflow("input"), &[&"input"]);
        let kernel = move |d: &mut convrelu_desc| {
            (d.kernel, d.padding_before, d.stride) = ([4097; 3], [5000; 3], [usize::MAX; 3]);
            (d.in_channels, d.out_channels) = (1, 1);
        };
        row(Box::new(kernel), overflow(if usize::BITS == 32 && rank == 3 { "thresholds" } else { "kernel" }), &[]);
        #[cfg(target_pointer_width = "32")]
        row(Box::new(|d| (d.size[0], d.size[1]) = (1 << 16, 1 << 16)), overflow("input"), &[&"input"]);
    }
    rows
}

/// Rust's builder, `convrelu_plan_init`, and every call with a plan into which the descriptor was put by hand.
#[test]
fn descriptors() {
    let mut rows = Rows::default();
    let layer = Layer::new(small(), Isa::detect());
    for rank in 1..=3 {
        for layout in [CONVRELU_NCHW, CONVRELU_NHWC] {
            let good = good_desc(rank, layout);
            assert!(rust_desc(&good).is_ok() && try_plan(&good, CONVRELU_ISA_AUTO).is_ok());
            for (spoil, error, words) in mistakes(rank).into_iter().chain(pitch_mistakes(rank, layout)) {
                let mut desc = good;
                spoil(&mut desc);
                let sentence = error.to_string();
                assert_sentence(&sentence, &words.iter().map(String::as_str).collect::<Vec<_>>());
                assert_eq!(rust_desc(&desc), Err(error), "{desc:?}");
                let refused = (status_of(error), sentence);
                assert_eq!(try_plan(&desc, CONVRELU_ISA_AUTO), Err(refused.clone()), "{desc:?}");
                rows.0 += 2;
                let forged = convrelu_plan { desc, ..layer.c };
                for call in layer.calls().filter(|call| !matches!(call, Call::AdareluForward | Call::AdareluBackward)) {
                    rows.refused_by_c(&layer, call, |_| (), |raw| raw.plan = forged, (refused.0, &refused.1));
                }
                assert_plan_is_refused(&forged, (refused.0, &refused.1));
            }
        }
    }
    let batch = small().with_batch(usize::MAX);
    assert_eq!(batch, Err(Error::Overflow { quantity: "input" }));
    println!("descriptors: {} rows", rows.0);
    assert!(rows.0 > 5000);
}

/// Extents whose product does not fit 32 bits are good where addresses have 64.
#[cfg(target_pointer_width = "64")]
#[test]
fn products_beyond_32_bits() {
    let mut desc = good_desc(2, CONVRELU_NCHW);
    (desc.size, desc.batch) = ([1 << 16; 3], 3);
    let rust = rust_desc(&desc).unwrap();
    assert_eq!(rust.input_len(), 12 << 32);
    assert!(try_plan(&desc, CONVRELU_ISA_AUTO).is_ok());
    let layer = Layer::new(small(), Isa::detect());
    let plan = ConvRelu::new(rust).with_threads(1);
    // A call with small buffers sees it.
    let mut short = vec![0.0; 8];
    let operands = Forward::new(&layer.case.input, Weight::Plain(&layer.case.weight), Thresholds::RELU);
    let error = Error::BufferTooShort { argument: "input", len: layer.case.input.len(), required: 12 << 32 };
    assert_eq!(plan.forward(operands, &mut short, &mut [], &Serial), Err(error));
}

/// Whatever is wrong with a descriptor of a transposed convolution, Rust's builder and C's plan say the same.
#[test]
fn transposed_descriptors() {
    let mut refused = 0;
    for rank in 1..=3 {
        for layout in [CONVRELU_NCHW, CONVRELU_NHWC] {
            let mut good = good_desc(rank, layout);
            (good.kind, good.stride, good.output_padding) = (CONVRELU_TRANSPOSED, [2; 3], [1; 3]);
            assert!(rust_transposed(&good).is_ok() && try_plan(&good, CONVRELU_ISA_AUTO).is_ok());
            let mut check = |desc: &convrelu_desc| match rust_transposed(desc) {
                Ok(_) => {
                    try_plan(desc, CONVRELU_ISA_AUTO).unwrap_or_else(|error| panic!("{error:?}: {desc:?}"));
                    None
                }
                Err(error) => {
                    let sentence = error.to_string();
                    assert_eq!(try_plan(desc, CONVRELU_ISA_AUTO), Err((status_of(error), sentence)), "{desc:?}");
                    refused += 1;
                    Some(error)
                }
            };
            for (spoil, ..) in mistakes(rank).into_iter().chain(pitch_mistakes(rank, layout)) {
                let mut desc = good;
                spoil(&mut desc);
                check(&desc);
            }
            for axis in 0..rank {
                let name = AXES[3 - rank + axis];
                let mut desc = good;
                desc.output_padding[axis] = 2;
                let error = Error::OutputPaddingTooLarge { axis: name, output_padding: 2, step: 2 };
                assert_eq!(check(&desc), Some(error));
                desc.dilation[axis] = 3;
                assert_eq!(check(&desc), None);
                let mut desc = good;
                // (5 − 1) · 2 + 3 + 1 outputs.
                (desc.padding_before[axis], desc.padding_after[axis]) = (5, 7);
                assert_eq!(check(&desc), Some(Error::PaddingTooLarge { axis: name, padding: 12, unpadded: 12 }));
            }
            let channels = convrelu_desc { in_channels: 0, ..good };
            assert_eq!(check(&channels), Some(Error::ZeroChannels { argument: "in_channels" }));
            let pitch = convrelu_desc { output_pitch: 1, ..good };
            assert!(matches!(check(&pitch), Some(Error::PitchTooSmall { argument: "output_pitch", pitch: 1, .. })));
        }
    }
    println!("descriptors of transposed convolutions: {refused} rows");
    assert!(refused > 300);
}
