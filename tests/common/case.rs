//! Cases: a geometry and the values to put through it.

use std::fmt;

use convrelu::{ConvDesc, Error, Layout};

/// One spatial axis of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) size: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) before: usize,
    pub(crate) after: usize,
}

impl Axis {
    /// An axis of a pointwise convolution.
    pub(crate) const fn new(size: usize, kernel: usize) -> Self {
        Self { size, kernel, stride: 1, dilation: 1, before: 0, after: 0 }
    }

    pub(crate) const fn padding(self, before: usize, after: usize) -> Self {
        Self { before, after, ..self }
    }

    pub(crate) const fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(crate) const fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }
}

/// A descriptor in the making, with channels counted per group, so that any numbers fit together.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    pub(crate) groups: usize,
    pub(crate) group_in: usize,
    pub(crate) group_out: usize,
    pub(crate) layout: Layout,
    /// One to three axes.
    pub(crate) axes: Vec<Axis>,
    /// Elements between pixels (channels last) or images (channels first) of input and output.
    pub(crate) gaps: [usize; 2],
}

impl Shape {
    /// One group, NCHW.
    pub(crate) fn new(batch: usize, in_channels: usize, out_channels: usize, axes: &[Axis]) -> Self {
        let layout = Layout::Nchw;
        let (group_in, group_out, axes) = (in_channels, out_channels, axes.to_vec());
        Self { batch, groups: 1, group_in, group_out, layout, axes, gaps: [0; 2] }
    }

    pub(crate) fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    pub(crate) fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    pub(crate) fn gaps(self, gaps: [usize; 2]) -> Self {
        Self { gaps, ..self }
    }

    /// Through the constructor of its rank.
    pub(crate) fn build(&self) -> Result<ConvDesc, Error> {
        macro_rules! build {
            ($constructor:ident, $rank:literal) => {{
                let axis =
                    |field: fn(&Axis) -> usize| -> [usize; $rank] { std::array::from_fn(|i| field(&self.axes[i])) };
                let (inputs, outputs) =
                    (self.groups.saturating_mul(self.group_in), self.groups.saturating_mul(self.group_out));
                let builder = ConvDesc::$constructor(self.batch, inputs, outputs, axis(|a| a.size), axis(|a| a.kernel))
                    .stride(axis(|a| a.stride))
                    .dilation(axis(|a| a.dilation))
                    .padding_before_after(axis(|a| a.before), axis(|a| a.after))
                    .groups(self.groups)
                    .layout(self.layout);
                let packed = builder.build()?;
                let [input, output] = self.gaps;
                let pitched = builder.input_pitch(packed.input_pitch().saturating_add(input));
                pitched.output_pitch(packed.output_pitch().saturating_add(output)).build()
            }};
        }
        match self.axes.len() {
            1 => build!(conv1d, 1),
            2 => build!(conv2d, 2),
            3 => build!(conv3d, 3),
            rank => panic!("a convolution of rank {rank}"),
        }
    }

    /// [`build`](Self::build) where the shape is known to be good.
    pub(crate) fn desc(&self) -> ConvDesc {
        self.build().unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

/// SplitMix64: values from a seed, the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Any bits.
    pub(crate) fn bits(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    pub(crate) fn values(&mut self, kind: Values, len: usize) -> Vec<f32> {
        (0..len).map(|_| kind.draw(self)).collect()
    }
}

/// What values a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Uniform in −1..1.
    Continuous,
    /// Multiples of ¼ in −1..=1: every ninth is a tie with a threshold drawn alike, and both zeros occur.
    Quantised,
    /// Zero in one of two places.
    Sparse,
    /// −2..=2: sums of products stay exact in f32, so every order of summation gives the same bits.
    Integers,
}

impl Values {
    fn draw(self, rng: &mut Rng) -> f32 {
        match self {
            Self::Continuous => (rng.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0,
            Self::Quantised => {
                let quarter = (rng.below(9) as f32 - 4.0) / 4.0;
                if quarter == 0.0 && rng.below(2) == 0 { -0.0 } else { quarter }
            }
            Self::Sparse => {
                if rng.below(2) == 0 {
                    0.0
                } else {
                    Self::Continuous.draw(rng)
                }
            }
            Self::Integers => rng.below(5) as f32 - 2.0,
        }
    }
}

/// Thresholds of a case.
#[derive(Clone, Debug)]
pub(crate) enum Theta {
    PerTap(Vec<f32>),
    Uniform(f32),
}

impl Theta {
    /// Elements of its gradient.
    pub(crate) fn grad_len(&self, desc: &ConvDesc) -> usize {
        match self {
            Self::PerTap(_) => desc.threshold_len(),
            Self::Uniform(_) => 1,
        }
    }

    /// Whether the layer is a plain convolution, whose gradients ask for no input.
    pub(crate) fn is_linear(&self) -> bool {
        matches!(self, Self::Uniform(f32::NEG_INFINITY))
    }

    /// One threshold for each channel and tap.
    pub(crate) fn per_tap(&self, desc: &ConvDesc) -> Vec<f32> {
        match self {
            Self::PerTap(theta) => theta.clone(),
            Self::Uniform(theta) => vec![*theta; desc.threshold_len()],
        }
    }
}

/// What becomes of the sums of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) scale: Option<Vec<f32>>,
    pub(crate) shift: Option<Vec<f32>>,
    /// As long as the output; NaN in gaps.
    pub(crate) residual: Option<Vec<f32>>,
    /// Whether the output itself holds the residual.
    pub(crate) in_output: bool,
    pub(crate) bounds: [f32; 2],
}

/// Which parts an [`Ending`] has: scale, shift, residual, and whether that lies in the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) has: [bool; 3],
    pub(crate) in_output: bool,
    pub(crate) bounds: [f32; 2],
}

impl Parts {
    /// Bounds: none, one, both, and the same twice.
    pub(crate) const BOUNDS: [[f32; 2]; 6] = [
        [f32::NEG_INFINITY, f32::INFINITY],
        [0.0, f32::INFINITY],
        [0.0, 6.0],
        [f32::NEG_INFINITY, 0.5],
        [-0.75, 0.5],
        [0.25, 0.25],
    ];
}

impl Ending {
    fn parts(&self) -> Parts {
        let has = [&self.scale, &self.shift, &self.residual].map(|part| part.is_some());
        Parts { has, in_output: self.in_output, bounds: self.bounds }
    }

    /// The residual that the output holds before the call.
    pub(crate) fn before(&self) -> Option<&Vec<f32>> {
        self.residual.as_ref().filter(|_| self.in_output)
    }
}

/// A layer, its parameters, an input and a gradient of its output.
#[derive(Clone)]
pub(crate) struct Case {
    /// What the values were made from.
    pub(crate) made: (Values, u64),
    pub(crate) desc: ConvDesc,
    pub(crate) input: Vec<f32>,
    pub(crate) weight: Vec<f32>,
    pub(crate) theta: Theta,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) grad_output: Vec<f32>,
    pub(crate) ending: Option<Ending>,
}

/// What makes the case again, instead of its thousands of values.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uniform = match self.theta {
            Theta::PerTap(_) => None,
            Theta::Uniform(theta) => Some(theta),
        };
        f.debug_struct("Case")
            .field("desc", &self.desc)
            .field("values and seed", &self.made)
            .field("uniform threshold", &uniform)
            .field("bias", &self.bias.is_some())
            .field("ending", &self.ending.as_ref().map(Ending::parts))
            .finish()
    }
}

impl Case {
    /// Values of one kind, one threshold per tap, a bias. What lies between pixels or images is NaN.
    pub(crate) fn new(desc: ConvDesc, kind: Values, seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut case = Self {
            made: (kind, seed),
            input: rng.values(kind, desc.input_len()),
            weight: rng.values(kind, desc.weight_len()),
            theta: Theta::PerTap(rng.values(kind, desc.threshold_len())),
            bias: Some(rng.values(kind, desc.bias_len())),
            grad_output: rng.values(kind, desc.output_len()),
            ending: None,
            desc,
        };
        for (values, tensor) in [(&mut case.input, Tensor::Input), (&mut case.grad_output, Tensor::Output)] {
            values.iter_mut().enumerate().filter(|(i, _)| tensor.is_gap(&desc, *i)).for_each(|(_, v)| *v = f32::NAN);
        }
        case
    }

    pub(crate) fn with_theta(self, theta: Theta) -> Self {
        Self { theta, ..self }
    }

    /// With what becomes of its sums, of the same kind of values.
    pub(crate) fn with_ending(self, parts: Parts) -> Self {
        let (desc, (kind, seed)) = (&self.desc, self.made);
        let mut rng = Rng(!seed);
        let [scale, shift, residual] = [desc.out_channels(), desc.out_channels(), desc.output_len()];
        let mut draw = |has: bool, len| has.then(|| rng.values(kind, len));
        let (scale, shift) = (draw(parts.has[0], scale), draw(parts.has[1], shift));
        let mut residual = draw(parts.has[2], residual);
        for (i, value) in residual.iter_mut().flatten().enumerate() {
            if Tensor::Output.is_gap(desc, i) {
                *value = f32::NAN;
            }
        }
        let ending = Ending { scale, shift, residual, in_output: parts.in_output, bounds: parts.bounds };
        Self { ending: Some(ending), ..self }
    }

    pub(crate) fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }
}

/// The channel of an element that is no gap.
pub(crate) fn channel_of(desc: &ConvDesc, index: usize) -> usize {
    match desc.layout() {
        Layout::Nchw => index % desc.output_pitch() / desc.output_size().iter().product::<usize>(),
        Layout::Nhwc => index % desc.output_pitch(),
    }
}

/// A tensor of activations, or of their gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tensor {
    Input,
    Output,
}

impl Tensor {
    /// Whether an element belongs to no channel.
    pub(crate) fn is_gap(self, desc: &ConvDesc, index: usize) -> bool {
        let (channels, size, pitch) = match self {
            Self::Input => (desc.in_channels(), desc.input_size(), desc.input_pitch()),
            Self::Output => (desc.out_channels(), desc.output_size(), desc.output_pitch()),
        };
        let used = match desc.layout() {
            Layout::Nchw => channels * size.iter().product::<usize>(),
            Layout::Nhwc => channels,
        };
        index % pitch >= used
    }
}
