//! Descriptors of any numbers whatever: refused, or good enough to plan with. Nothing is allocated or computed.
#![no_main]

use arbitrary::Arbitrary;
use convrelu::{ConvDesc, ConvDescBuilder, ConvRelu, Isa, Layout, Pass};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Axes<const R: usize> {
    size: [usize; R],
    kernel: [usize; R],
    stride: [usize; R],
    dilation: [usize; R],
    before: [usize; R],
    after: [usize; R],
}

#[derive(Arbitrary, Debug)]
enum Rank {
    One(Axes<1>),
    Two(Axes<2>),
    Three(Axes<3>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Pitch {
    Packed,
    /// So much more than packed.
    Wider(usize),
    Any(usize),
}

impl Pitch {
    fn of(self, packed: usize) -> Option<usize> {
        match self {
            Self::Packed => None,
            Self::Wider(by) => Some(packed.wrapping_add(by)),
            Self::Any(pitch) => Some(pitch),
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Descriptor {
    batch: usize,
    groups: usize,
    in_channels: usize,
    out_channels: usize,
    channels_last: bool,
    /// Distances of the input's and the output's pixels or images.
    pitches: [Pitch; 2],
    /// Right shifts of every number: without them nearly all are refused for their size.
    shifts: [u8; 4],
    rank: Rank,
    threads: usize,
}

impl Descriptor {
    fn shifted(&self, index: usize, value: usize) -> usize {
        value >> (self.shifts[index] % 64)
    }

    fn build<const R: usize>(&self, builder: ConvDescBuilder<R>, axes: &Axes<R>) -> Option<ConvDesc> {
        let layout = if self.channels_last { Layout::Nhwc } else { Layout::Nchw };
        let mut builder = builder
            .stride(axes.stride.map(|stride| self.shifted(2, stride)))
            .dilation(axes.dilation.map(|dilation| self.shifted(3, dilation)))
            .padding_before_after(
                axes.before.map(|padding| self.shifted(3, padding)),
                axes.after.map(|padding| self.shifted(3, padding)),
            )
            .groups(self.shifted(0, self.groups))
            .layout(layout);
        let packed = builder.build().ok()?;
        let [input, output] = self.pitches.map(|pitch| match pitch {
            Pitch::Wider(by) => Pitch::Wider(self.shifted(0, by)),
            other => other,
        });
        if let Some(pitch) = input.of(packed.input_pitch()) {
            builder = builder.input_pitch(pitch);
        }
        if let Some(pitch) = output.of(packed.output_pitch()) {
            builder = builder.output_pitch(pitch);
        }
        let desc = builder.build().ok()?;
        assert!(desc.input_len() >= packed.input_len() && desc.output_len() >= packed.output_len());
        Some(desc)
    }

    fn desc(&self) -> Option<ConvDesc> {
        let batch = self.shifted(1, self.batch);
        // A multiple of the groups more often than not.
        let groups = self.shifted(0, self.groups);
        let channels = |value: usize| match self.shifted(0, value) {
            odd if odd % 8 == 7 => odd,
            multiple => multiple.wrapping_mul(groups),
        };
        let (inputs, outputs) = (channels(self.in_channels), channels(self.out_channels));
        macro_rules! build {
            ($constructor:ident, $axes:expr) => {{
                let size = $axes.size.map(|size| self.shifted(1, size));
                let kernel = $axes.kernel.map(|kernel| self.shifted(2, kernel));
                self.build(ConvDesc::$constructor(batch, inputs, outputs, size, kernel), $axes)
            }};
        }
        match &self.rank {
            Rank::One(axes) => build!(conv1d, axes),
            Rank::Two(axes) => build!(conv2d, axes),
            Rank::Three(axes) => build!(conv3d, axes),
        }
    }
}

fuzz_target!(|descriptor: Descriptor| {
    let Some(desc) = descriptor.desc() else { return };
    for isa in Isa::available().chain([Isa::Emulated512]).filter(|isa| isa.is_available()) {
        let plan =
            ConvRelu::with_isa(desc, isa).expect("an available instruction set").with_threads(descriptor.threads);
        plan.packed_weight_len();
        for pass in
            [Pass::Forward, Pass::ForwardPacked, Pass::BackwardInput, Pass::BackwardInputPacked, Pass::BackwardWeight]
        {
            plan.workspace_len(pass);
        }
    }
});
