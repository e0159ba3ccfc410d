//! The calls of the library that the firmware makes. With the feature `stub` they do nothing, and plans are not linked.
//!
//! The layer is a constant, for what is known of its plan at compile time need not be linked: the other algorithms.
//!
//! None is inlined: the checked run and the other one call one copy, as a program does that is no test.

use convrelu::Error;

use crate::network::Parameters;

#[cfg(not(feature = "stub"))]
pub use library::*;
#[cfg(feature = "stub")]
pub use stub::*;

#[cfg(not(feature = "stub"))]
mod library {
    use super::*;
    use crate::network::{INFERENCE, TRAINING};
    use convrelu::{
        BackwardInput, BackwardWeight, Forward, Gradient, InputGradients, PackedWeight, Serial, Thresholds, Weight,
        WeightGradients,
    };

    pub type Packed<'a> = PackedWeight<'a>;

    #[inline(never)]
    pub fn pack<'a, const LAYER: usize>(weight: &[f32], buffer: &'a mut [f32]) -> Result<Packed<'a>, Error> {
        const { &INFERENCE[LAYER] }.pack_weight(weight, buffer)
    }

    /// The outputs of one layer for one digit.
    #[inline(never)]
    pub fn infer<const LAYER: usize>(
        input: &[f32],
        packed: &Packed<'_>,
        parameters: Parameters<&[f32]>,
        output: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (weight, thresholds) = (Weight::Packed(packed), Thresholds::PerTap(parameters.thresholds));
        let operands = Forward::new(input, weight, thresholds).bias(parameters.bias);
        const { &INFERENCE[LAYER] }.forward(operands, output, workspace, &Serial)
    }

    /// The outputs of one layer for a batch.
    #[inline(never)]
    pub fn forward<const LAYER: usize>(
        input: &[f32],
        parameters: Parameters<&[f32]>,
        output: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (weight, thresholds) = (Weight::Plain(parameters.weight), Thresholds::PerTap(parameters.thresholds));
        let operands = Forward::new(input, weight, thresholds).bias(parameters.bias);
        const { &TRAINING[LAYER] }.forward(operands, output, workspace, &Serial)
    }

    /// The gradients of a layer's weight and bias.
    #[inline(never)]
    pub fn backward_weight<const LAYER: usize>(
        input: &[f32],
        parameters: &Parameters<&[f32]>,
        grad_output: &[f32],
        gradients: &mut Parameters<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let operands = BackwardWeight::new(input, Thresholds::PerTap(parameters.thresholds), grad_output);
        let gradients = WeightGradients::new()
            .weight(Gradient::overwrite(gradients.weight))
            .bias(Gradient::overwrite(gradients.bias));
        const { &TRAINING[LAYER] }.backward_weight(operands, gradients, workspace, &Serial)
    }

    /// The gradients of a layer's input and thresholds.
    #[inline(never)]
    pub fn backward_input<const LAYER: usize>(
        input: &[f32],
        parameters: &Parameters<&[f32]>,
        grad_output: &[f32],
        grad_input: &mut [f32],
        gradients: &mut Parameters<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (weight, thresholds) = (Weight::Plain(parameters.weight), Thresholds::PerTap(parameters.thresholds));
        let operands = BackwardInput::new(input, weight, thresholds, grad_output);
        let gradients = InputGradients::new()
            .input(Gradient::overwrite(grad_input))
            .thresholds(Gradient::overwrite(gradients.thresholds));
        const { &TRAINING[LAYER] }.backward_input(operands, gradients, workspace, &Serial)
    }
}

#[cfg(feature = "stub")]
mod stub {
    use core::hint::black_box;

    use super::*;

    pub type Packed<'a> = &'a [f32];

    #[inline(never)]
    pub fn pack<'a, const LAYER: usize>(weight: &[f32], buffer: &'a mut [f32]) -> Result<Packed<'a>, Error> {
        black_box(weight);
        Ok(black_box(buffer))
    }

    #[inline(never)]
    pub fn infer<const LAYER: usize>(
        input: &[f32],
        packed: &Packed<'_>,
        parameters: Parameters<&[f32]>,
        output: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        black_box((input, packed, parameters.thresholds, parameters.bias, output, workspace));
        Ok(())
    }

    #[inline(never)]
    pub fn forward<const LAYER: usize>(
        input: &[f32],
        parameters: Parameters<&[f32]>,
        output: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        black_box((input, parameters.weight, parameters.thresholds, parameters.bias, output, workspace));
        Ok(())
    }

    #[inline(never)]
    pub fn backward_weight<const LAYER: usize>(
        input: &[f32],
        parameters: &Parameters<&[f32]>,
        grad_output: &[f32],
        gradients: &mut Parameters<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        black_box((input, parameters.thresholds, grad_output, &mut gradients.weight, &mut gradients.bias, workspace));
        Ok(())
    }

    #[inline(never)]
    pub fn backward_input<const LAYER: usize>(
        input: &[f32],
        parameters: &Parameters<&[f32]>,
        grad_output: &[f32],
        grad_input: &mut [f32],
        gradients: &mut Parameters<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        black_box((input, parameters.weight, parameters.thresholds, grad_output));
        black_box((grad_input, &mut gradients.thresholds, workspace));
        Ok(())
    }
}
