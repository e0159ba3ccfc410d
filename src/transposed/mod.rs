//! Transposed convolutions ("deconvolutions"): each input position adds its multiple of the kernel to the output.
//!
//! ```text
//! y[n,d,i·stride + k·dilation − padding] += w[c,d,k] · x[n,c,i]        for all c, i, k; y begins with the bias b[d]
//! output size = (input size − 1) · stride − padding before − padding after + dilation · (kernel − 1) + output_padding + 1
//! ```
//!
//! What falls outside of the output is dropped. This is `ConvTranspose` of PyTorch and of ONNX (with explicit padding):
//! [`output_padding`](ConvTransposeDescBuilder::output_padding) makes the output larger at its end. No thresholds: a transposed
//! convolution is linear.
//!
//! | layout | input, output | weight |
//! |---|---|---|
//! | [`Nchw`](crate::Layout::Nchw) | `N C D H W` | `I O D H W`, PyTorch's order: `[in_channels][out_channels / groups][kernel]` |
//! | [`Nhwc`](crate::Layout::Nhwc) | `N D H W C` | `I D H W O`: `[in_channels][kernel][out_channels / groups]` |
//!
//! `I` counts all input channels, `O` the output channels of one group.
//!
//! It is the gradient of a convolution, the *mirrored* one, with respect to its input. So it has no kernels of its own:
//!
//! | transposed | runs as the mirrored convolution's |
//! |---|---|
//! | forward | gradient of the input, without thresholds |
//! | gradient of the input | forward pass |
//! | gradient of the weight | gradient of the weight, input and output swapped |
//!
//! ```
//! use convrelu::transposed::{ConvTranspose, ConvTransposeDesc, Forward};
//! use convrelu::{Pass, Serial, Weight};
//!
//! // Two pixels become four: each is multiplied by the kernel, two apart.
//! let desc = ConvTransposeDesc::conv1d(1, 1, 1, [2], [2]).stride([2]).build()?;
//! let plan = ConvTranspose::new(desc);
//! let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
//! let mut output = [0.0; 4];
//! let operands = Forward::new(&[1.0, 2.0], Weight::Plain(&[10.0, 20.0])).bias(&[0.5]);
//! plan.forward(operands, &mut output, &mut workspace, &Serial)?;
//! assert_eq!(output, [10.5, 20.5, 20.5, 40.5]);
//! # Ok::<(), convrelu::Error>(())
//! ```
//!
//! Everything else is as with [`ConvRelu`]: buffers, packed weights, threads, bits.

mod desc;

use core::ops::Range;

use crate::arith::{clamp, max, min};
use crate::error::Error;
use crate::geometry::{Panels, chunks};
use crate::isa::Isa;
use crate::layout::TensorLayout;
use crate::operands::{
    self, Accumulation, Gradient, InputGradients, Pass, Thresholds, Weight, WeightGradients, checked, checked_mut,
};
use crate::plan::ConvRelu;
use crate::strided;
use crate::sums::add_positions;
use crate::threads::{Executor, Rest, for_each};
#[cfg(feature = "internal-testing")]
use crate::tuning::Tuning;
use crate::weight::PackedWeight;

pub use desc::{ConvTransposeDesc, ConvTransposeDescBuilder};

/// A planned transposed convolution, the counterpart of [`ConvRelu`]: it owns no memory, and costs nothing to copy and to share.
#[derive(Clone, Copy, Debug)]
pub struct ConvTranspose {
    mirrored: ConvRelu,
}

/// Operands of [`ConvTranspose::forward`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Forward<'a> {
    /// `x`, [`ConvTransposeDesc::input_len`] elements.
    pub input: &'a [f32],
    /// `w`, [`ConvTransposeDesc::weight_len`] elements, or packed by [`ConvTranspose::pack_weight`].
    pub weight: Weight<'a>,
    /// `b`, [`ConvTransposeDesc::bias_len`] elements.
    pub bias: Option<&'a [f32]>,
}

impl<'a> Forward<'a> {
    /// Without bias.
    pub const fn new(input: &'a [f32], weight: Weight<'a>) -> Self {
        Self { input, weight, bias: None }
    }

    /// With a bias, one value per output channel.
    #[must_use]
    pub const fn bias(self, bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..self }
    }
}

/// Operands of [`ConvTranspose::backward_input`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackwardInput<'a> {
    /// `w`, [`ConvTransposeDesc::weight_len`] elements, or packed by [`ConvTranspose::pack_weight_transposed`].
    pub weight: Weight<'a>,
    /// `∂E/∂y`, [`ConvTransposeDesc::output_len`] elements.
    pub grad_output: &'a [f32],
}

impl<'a> BackwardInput<'a> {
    /// All there are.
    pub const fn new(weight: Weight<'a>, grad_output: &'a [f32]) -> Self {
        Self { weight, grad_output }
    }
}

/// Operands of [`ConvTranspose::backward_weight`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackwardWeight<'a> {
    /// `x`, [`ConvTransposeDesc::input_len`] elements.
    pub input: &'a [f32],
    /// `∂E/∂y`, [`ConvTransposeDesc::output_len`] elements.
    pub grad_output: &'a [f32],
}

impl<'a> BackwardWeight<'a> {
    /// All there are.
    pub const fn new(input: &'a [f32], grad_output: &'a [f32]) -> Self {
        Self { input, grad_output }
    }
}

impl ConvTranspose {
    /// A plan for the best instruction set of this machine ([`Isa::detect`]), for one thread.
    pub fn new(desc: ConvTransposeDesc) -> Self {
        Self { mirrored: ConvRelu::new(desc.mirrored()) }
    }

    /// A plan for the instruction set that the build's target guarantees ([`Isa::BASELINE`]), for one thread: a constant; see
    /// [`ConvRelu::baseline`].
    pub const fn baseline(desc: ConvTransposeDesc) -> Self {
        Self { mirrored: ConvRelu::baseline(desc.mirrored()) }
    }

    /// A plan for a given instruction set, for one thread.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`] where this CPU, operating system or build does not offer it.
    pub fn with_isa(desc: ConvTransposeDesc, isa: Isa) -> Result<Self, Error> {
        Ok(Self { mirrored: ConvRelu::with_isa(desc.mirrored(), isa)? })
    }

    /// A plan with other block and tile limits than the instruction set's own. For tests.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`].
    #[cfg(feature = "internal-testing")]
    #[doc(hidden)]
    pub fn with_tuning(desc: ConvTransposeDesc, isa: Isa, tuning: Tuning) -> Result<Self, Error> {
        Ok(Self { mirrored: ConvRelu::with_tuning(desc.mirrored(), isa, tuning)? })
    }

    /// The same plan for at most `threads` tasks per call; see [`ConvRelu::with_threads`].
    #[must_use]
    pub const fn with_threads(self, threads: usize) -> Self {
        Self { mirrored: self.mirrored.with_threads(threads) }
    }

    /// The descriptor.
    pub const fn desc(&self) -> ConvTransposeDesc {
        ConvTransposeDesc::mirroring(self.mirrored.desc())
    }

    /// The instruction set.
    pub const fn isa(&self) -> Isa {
        self.mirrored.isa()
    }

    /// The most threads that a call uses.
    pub const fn threads(&self) -> usize {
        self.mirrored.threads()
    }

    /// Elements of workspace that a pass needs. For the gradient of the input there is room for what is to be added to it, at
    /// most 256 KiB or one image; to replace it takes less.
    pub const fn workspace_len(&self, pass: Pass) -> usize {
        let mirrored = mirrored_pass(pass);
        if !matches!(pass, Pass::BackwardInput | Pass::BackwardInputPacked) {
            return self.mirrored.workspace_len(mirrored);
        }
        let (batch, apart) = (self.mirrored.desc().batch(), self.images_apart());
        let (mut most, mut part) = (self.mirrored.workspace_len(mirrored), 0);
        while part < 2 {
            let images = [min(apart, batch), batch % apart][part];
            if images > 0 {
                let plan = self.of_images(images);
                most = max(most, plan.desc().output_len().saturating_add(plan.workspace_len(mirrored)));
            }
            part += 1;
        }
        most
    }

    /// Elements of the buffer that [`pack_weight`](Self::pack_weight) fills.
    pub const fn packed_weight_len(&self) -> usize {
        self.mirrored.packed_weight_transposed_len()
    }

    /// Packs the weight once for many calls of [`forward`](Self::forward).
    ///
    /// `weight` holds [`ConvTransposeDesc::weight_len`] elements in the order of the layout, `buffer` at least
    /// [`packed_weight_len`](Self::packed_weight_len).
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn pack_weight<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        self.mirrored.pack_weight_transposed(weight, buffer)
    }

    /// Elements of the buffer that [`pack_weight_transposed`](Self::pack_weight_transposed) fills.
    pub const fn packed_weight_transposed_len(&self) -> usize {
        self.mirrored.packed_weight_len()
    }

    /// Packs the weight once for many calls of [`backward_input`](Self::backward_input).
    ///
    /// `weight` holds [`ConvTransposeDesc::weight_len`] elements in the order of the layout, `buffer` at least
    /// [`packed_weight_transposed_len`](Self::packed_weight_transposed_len).
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn pack_weight_transposed<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        self.mirrored.pack_weight(weight, buffer)
    }

    /// Forward pass: `y[n,d,o] = b[d] + Σ_{c,k} w[c,d,k] · x[n,c,i]`, over all `i` and `k` with
    /// `o = i·stride + k·dilation − padding`.
    ///
    /// `output` holds [`ConvTransposeDesc::output_len`] elements and is overwritten, gaps between its pixels or images apart.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`], [`Error::PackedElsewhere`]; nothing is written then. [`Error::Executor`].
    pub fn forward(
        &self,
        operands: Forward<'_>,
        output: &mut [f32],
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = self.desc();
        let Forward { input, weight, bias } = operands;
        let input = checked("input", input, desc.input_len())?;
        let bias = bias.map(|bias| checked("bias", bias, desc.bias_len())).transpose()?;
        let output = checked_mut("output", output, desc.output_len())?;
        let (weight, workspace) = self.mirrored.backward_input_pass().checked(weight, workspace)?;
        let (mut start, mut accumulation) = (bias, Accumulation::Overwrite);
        if let Some(bias) = bias
            && !self.mirrored.backward_input_pass().begins()
        {
            self.fill(bias, output, executor)?;
            (start, accumulation) = (None, Accumulation::Add);
        }
        let operands = operands::BackwardInput::linear(weight, input);
        let gradients = InputGradients::new().input(Gradient::new(output, accumulation));
        self.mirrored.backward_input_pass().backward_input(start, operands, gradients, workspace, executor)
    }

    /// Gradient of the input, `∂E/∂x[n,c,i] = Σ_{d,k} w[c,d,k] · g[n,d,i·stride + k·dilation − padding]`. It does not depend
    /// on the input.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`], [`Error::PackedElsewhere`]; nothing is written then. [`Error::Executor`].
    pub fn backward_input(
        &self,
        operands: BackwardInput<'_>,
        grad_input: Gradient<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = self.desc();
        let BackwardInput { weight, grad_output } = operands;
        let grad_output = checked("grad_output", grad_output, desc.output_len())?;
        let Gradient { values, accumulation } = grad_input.checked("grad_input", desc.input_len())?;
        let run = |plan: &ConvRelu, grad_output: &[f32], to: &mut [f32], workspace: &mut [f32]| {
            let operands = operands::Forward::new(grad_output, weight, Thresholds::LINEAR);
            plan.forward(operands, to, workspace, executor)
        };
        if accumulation == Accumulation::Overwrite {
            return run(&self.mirrored, grad_output, values, workspace);
        }
        let pass = match weight {
            Weight::Plain(_) => Pass::BackwardInput,
            Weight::Packed(_) => Pass::BackwardInputPacked,
        };
        let workspace = checked_mut("workspace", workspace, self.workspace_len(pass))?;
        let [from, to] = [self.mirrored.desc().input_tensor(), self.mirrored.desc().output_tensor()];
        for images in chunks(0..desc.batch(), self.images_apart()) {
            let plan = self.of_images(images.len());
            let (apart, workspace) = workspace.split_at_mut(plan.desc().output_len());
            run(&plan, &grad_output[images.start * from.image_stride..], apart, workspace)?;
            let values = &mut values[images.start * to.image_stride..];
            let rows = Rows::of(&plan.desc().output_tensor());
            for row in rows.all() {
                strided::add(&apart[row.clone()], &mut values[row], 1);
            }
        }
        Ok(())
    }

    /// Gradients of the weight, `∂E/∂w[c,d,k] = Σ_{n,i} x[n,c,i] · g[n,d,i·stride + k·dilation − padding]`, and of the bias,
    /// `∂E/∂b[d] = Σ_{n,o} g[n,d,o]`, whichever of them are asked for.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`]; nothing is written then. [`Error::Executor`].
    pub fn backward_weight(
        &self,
        operands: BackwardWeight<'_>,
        gradients: WeightGradients<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = self.desc();
        let BackwardWeight { input, grad_output } = operands;
        let input = checked("input", input, desc.input_len())?;
        let grad_output = checked("grad_output", grad_output, desc.output_len())?;
        let WeightGradients { grad_weight, grad_bias } = gradients;
        let grad_bias = grad_bias.map(|gradient| gradient.checked("grad_bias", desc.bias_len())).transpose()?;
        let operands = operands::BackwardWeight::new(grad_output, Thresholds::LINEAR, input);
        let gradients = WeightGradients { grad_weight, grad_bias: None };
        self.mirrored.backward_weight(operands, gradients, workspace, executor)?;
        match grad_bias {
            Some(grad_bias) => self.add_bias(grad_output, grad_bias.zeroed(), executor),
            None => Ok(()),
        }
    }

    /// Images whose gradients of the input wait apart before they are added, for the mirrored forward pass overwrites.
    const fn images_apart(&self) -> usize {
        /// Elements, 256 KiB.
        const APART: usize = 64 * 1024;
        let desc = self.mirrored.desc();
        clamp(APART / desc.of_images(1).output_len(), 1, max(desc.batch(), 1))
    }

    /// The mirrored convolution's plan for so many images.
    const fn of_images(&self, images: usize) -> ConvRelu {
        if images == self.mirrored.desc().batch() { self.mirrored } else { self.mirrored.of_images(images) }
    }

    /// Writes the bias to all positions of the output.
    fn fill(&self, bias: &[f32], output: &mut [f32], executor: &dyn Executor) -> Result<(), Error> {
        let tensor = self.desc().output_tensor();
        let rows = Rows::of(&tensor);
        let parts = Panels::into_parts(rows.count, self.mirrored.layer().parts_of(rows.count.saturating_mul(rows.len)));
        let mut rest = Rest::of(output);
        let jobs = parts.iter().map(move |own| {
            let [start, end] = [own.start, own.end].map(|row| rows.start(row));
            // Nothing follows the last row.
            let len = if own.end == rows.count { rows.start(own.end - 1) + rows.len } else { end } - start;
            (rest.cut(len), own)
        });
        for_each(executor, parts.count(), jobs, &|(output, own): (&mut [f32], Range<usize>)| {
            if rows.of_pixels && rows.stride == rows.len {
                strided::repeat(bias, output);
                return;
            }
            let first = rows.start(own.start);
            for row in own {
                let output = &mut output[rows.start(row) - first..][..rows.len];
                if rows.of_pixels {
                    output.copy_from_slice(bias);
                } else {
                    output.fill(bias[row % bias.len()]);
                }
            }
        })
    }

    /// Adds to the gradient of the bias.
    fn add_bias(&self, grad_output: &[f32], grad_bias: &mut [f32], executor: &dyn Executor) -> Result<(), Error> {
        let tensor = &self.desc().output_tensor();
        let all = [tensor.size.map(|size| 0..size)];
        let work = tensor.positions().saturating_mul(tensor.images).saturating_mul(tensor.channels);
        let parts = Panels::into_parts(tensor.channels, self.mirrored.layer().parts_of(work));
        let mut rest = Rest::of(grad_bias);
        let jobs = parts.iter().map(move |channels| (rest.cut(channels.len()), channels));
        for_each(executor, parts.count(), jobs, &|(sums, channels): (&mut [f32], Range<usize>)| {
            add_positions(tensor, grad_output, &all, channels, sums);
        })
    }
}

/// The pass of the mirrored convolution that one of the transposed one runs as.
const fn mirrored_pass(pass: Pass) -> Pass {
    match pass {
        Pass::Forward => Pass::BackwardInput,
        Pass::ForwardPacked => Pass::BackwardInputPacked,
        Pass::BackwardInput => Pass::Forward,
        Pass::BackwardInputPacked => Pass::ForwardPacked,
        Pass::BackwardWeight => Pass::BackwardWeight,
    }
}

/// The elements of a tensor without its gaps: pixels, or planes of channels, in memory order.
#[derive(Clone, Copy)]
struct Rows {
    count: usize,
    /// Elements of each.
    len: usize,
    of_pixels: bool,
    /// Rows of an image, and the distance of images.
    per_image: usize,
    image_stride: usize,
    /// Distance of rows.
    stride: usize,
}

impl Rows {
    fn of(tensor: &TensorLayout) -> Self {
        let of_pixels = tensor.channels_last();
        let [per_image, len, stride] = if of_pixels {
            [tensor.positions(), tensor.channels, tensor.strides.spatial[2]]
        } else {
            [tensor.channels, tensor.positions(), tensor.strides.channel]
        };
        let image_stride = tensor.image_stride;
        Self { count: tensor.images * per_image, len, of_pixels, per_image, image_stride, stride }
    }

    /// Where a row begins.
    fn start(&self, row: usize) -> usize {
        row / self.per_image * self.image_stride + row % self.per_image * self.stride
    }

    fn all(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).map(move |row| self.start(row)..self.start(row) + self.len)
    }
}
