//! The numbers that every side computes with.

use convrelu::{ConvDesc, Layout};

use crate::buffer::Buffer;

/// Tensors of one problem in one layout, values in −1..1.
pub(crate) struct Operands {
    pub(crate) layout: Layout,
    pub(crate) input: Buffer,
    pub(crate) weight: Buffer,
    pub(crate) thresholds: Buffer,
    pub(crate) grad_output: Buffer,
}

impl Operands {
    pub(crate) fn new(desc: &ConvDesc) -> Self {
        Self {
            layout: desc.layout(),
            input: values(desc.input_len(), 1),
            weight: values(desc.weight_len(), 2),
            thresholds: values(desc.threshold_len(), 3),
            grad_output: values(desc.output_len(), 4),
        }
    }
}

fn values(len: usize, seed: u32) -> Buffer {
    let mut state = seed;
    let draw = || {
        // Marsaglia's xorshift32.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut buffer = Buffer::zeros(len);
    buffer.fill_with(draw);
    buffer
}
