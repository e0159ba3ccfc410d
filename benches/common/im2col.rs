//! What the kernels are compared with: the clamp applied while patches are gathered, and the `gemm` crate.

use convrelu::{ConvDesc, Layout};

/// Patches of one image and one group, one row of `[channel][tap]` values (in the order of the weight) per position.
pub(crate) struct Im2Col {
    desc: ConvDesc,
    patch: Vec<f32>,
}

impl Im2Col {
    pub(crate) fn new(desc: ConvDesc) -> Self {
        let positions: usize = desc.output_size().iter().product();
        Self { patch: vec![0.0; positions * desc.in_channels() / desc.groups() * desc.taps()], desc }
    }

    /// The forward pass, by one matrix product for each image and group.
    pub(crate) fn forward(&mut self, input: &[f32], weight: &[f32], thresholds: &[f32], output: &mut [f32]) {
        let desc = self.desc;
        let positions: usize = desc.output_size().iter().product();
        let (group_in, group_out) = (desc.in_channels() / desc.groups(), desc.out_channels() / desc.groups());
        let depth = group_in * desc.taps();
        let images = input.chunks_exact(desc.input_len() / desc.batch());
        for (image, output) in images.zip(output.chunks_exact_mut(desc.output_len() / desc.batch())) {
            for group in 0..desc.groups() {
                self.gather(image, thresholds, group * group_in);
                // Strides of the output over (channel of the group, position), and where the group begins.
                let (rows, columns, first) = match desc.layout() {
                    Layout::Nchw => (positions, 1, group * group_out * positions),
                    Layout::Nhwc => (1, desc.out_channels(), group * group_out),
                };
                let weight = &weight[group * group_out * depth..][..group_out * depth];
                let output = &mut output[first..];
                assert!(output.len() > (group_out - 1) * rows + (positions - 1) * columns);
                // SAFETY: output[c][p] = Σ weight[c][k] · patch[p][k]; the weight holds group_out × depth elements,
                // the patches positions × depth, and the assertion covers the last element of the output.
                unsafe {
                    gemm::gemm(
                        group_out,
                        positions,
                        depth,
                        output.as_mut_ptr(),
                        columns as isize,
                        rows as isize,
                        false,
                        weight.as_ptr(),
                        1,
                        depth as isize,
                        self.patch.as_ptr(),
                        depth as isize,
                        1,
                        0.0f32,
                        1.0f32,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            }
        }
    }

    /// Fills the patches of the group whose first input channel is `first`.
    fn gather(&mut self, image: &[f32], thresholds: &[f32], first: usize) {
        let desc = self.desc;
        let group_in = desc.in_channels() / desc.groups();
        let [kd, kh, kw] = desc.kernel();
        let (input, output) = (desc.input_size(), desc.output_size());
        // Strides over (channel, position) of the image, over (channel, tap) of the thresholds and of a patch.
        let strides = |channels: usize, positions: usize| match desc.layout() {
            Layout::Nchw => (positions, 1),
            Layout::Nhwc => (1, channels),
        };
        let (image_c, image_p) = strides(desc.in_channels(), input.iter().product());
        let (theta_c, theta_k) = strides(desc.in_channels(), desc.taps());
        let (patch_c, patch_k) = strides(group_in, desc.taps());
        let source = |axis: usize, o: usize, k: usize| {
            let padded = o * desc.stride()[axis] + k * desc.dilation()[axis];
            padded.checked_sub(desc.padding_before()[axis]).filter(|&i| i < input[axis])
        };
        let mut patches = self.patch.chunks_exact_mut(group_in * desc.taps());
        for o in 0..output.iter().product() {
            let [od, oh, ow] = [o / (output[1] * output[2]), o / output[2] % output[1], o % output[2]];
            let Some(patch) = patches.next() else { return };
            for k in 0..desc.taps() {
                let [d, h, w] = [k / (kh * kw) % kd, k / kw % kh, k % kw];
                let at = match (source(0, od, d), source(1, oh, h), source(2, ow, w)) {
                    (Some(d), Some(h), Some(w)) => Some((d * input[1] + h) * input[2] + w),
                    _ => None,
                };
                for c in 0..group_in {
                    let x = at.map_or(0.0, |at| image[(first + c) * image_c + at * image_p]);
                    let theta = thresholds[(first + c) * theta_c + k * theta_k];
                    patch[c * patch_c + k * patch_k] = if x > theta { x } else { theta };
                }
            }
        }
    }
}
