//! The network: an 8×8 digit is a signal of 8 channels and length 8; two layers of 3 taps and one over the whole length.

use core::ops::Range;

use convrelu::{ConvDesc, ConvDescBuilder, ConvRelu, Pass};

/// Layers of the network.
pub const LAYERS: usize = 3;
/// Digits of a training step.
pub const BATCH: usize = 4;
/// Digits that there are to tell apart.
pub const CLASSES: usize = 10;
/// Step of gradient descent: a power of two, so that a product with it is exact.
pub const LEARNING_RATE: f32 = 1.0 / 64.0;

/// Plans are constants; what they say of buffers is known to the compiler.
pub const INFERENCE: [ConvRelu; LAYERS] = plans(1);
pub const TRAINING: [ConvRelu; LAYERS] = plans(BATCH);

const fn plans(batch: usize) -> [ConvRelu; LAYERS] {
    [
        plan(ConvDesc::conv1d(batch, 8, 16, [8], [3]).padding([1])),
        plan(ConvDesc::conv1d(batch, 16, 32, [8], [3]).padding([1])),
        plan(ConvDesc::conv1d(batch, 32, CLASSES, [8], [8])),
    ]
}

const fn plan(layer: ConvDescBuilder<1>) -> ConvRelu {
    match layer.build() {
        Ok(desc) => ConvRelu::baseline(desc),
        Err(_) => panic!("a constant descriptor"),
    }
}

/// Elements of the workspace that some passes of all layers can share.
pub const fn workspace_len(plans: &[ConvRelu; LAYERS], passes: &[Pass]) -> usize {
    let mut most = 0;
    let mut layer = 0;
    while layer < LAYERS {
        let mut pass = 0;
        while pass < passes.len() {
            let len = plans[layer].workspace_len(passes[pass]);
            if len > most {
                most = len;
            }
            pass += 1;
        }
        layer += 1;
    }
    most
}

/// Consecutive parts of a buffer, one per layer, and where the last one ends.
pub type Parts = [usize; LAYERS + 1];

/// A part of [`Parts`].
pub const fn part(parts: &Parts, layer: usize) -> Range<usize> {
    parts[layer]..parts[layer + 1]
}

macro_rules! parts {
    ($plans:expr, $plan:ident => $len:expr) => {{
        let mut parts = [0; LAYERS + 1];
        let mut layer = 0;
        while layer < LAYERS {
            let $plan = &$plans[layer];
            parts[layer + 1] = parts[layer] + $len;
            layer += 1;
        }
        parts
    }};
}

/// Trained numbers of all layers, each layer's weight, thresholds and bias one after the other.
pub const PARAMETERS: Parts = parts!(TRAINING, plan => {
    plan.desc().weight_len() + plan.desc().threshold_len() + plan.desc().bias_len()
});
/// Outputs of all layers.
pub const INFERENCE_OUTPUTS: Parts = parts!(INFERENCE, plan => plan.desc().output_len());
pub const TRAINING_OUTPUTS: Parts = parts!(TRAINING, plan => plan.desc().output_len());
/// Packed weights of all layers.
pub const PACKED: Parts = parts!(INFERENCE, plan => plan.packed_weight_len());

/// Weights and thresholds of each layer.
const LENS: [[usize; 2]; LAYERS] = {
    let mut lens = [[0; 2]; LAYERS];
    let mut layer = 0;
    while layer < LAYERS {
        let desc = TRAINING[layer].desc();
        lens[layer] = [desc.weight_len(), desc.threshold_len()];
        layer += 1;
    }
    lens
};

/// Multiply-adds of each layer for one digit, those with padding among them.
pub const MACS: [u32; LAYERS] = {
    let mut macs = [0; LAYERS];
    let mut layer = 0;
    while layer < LAYERS {
        macs[layer] = (INFERENCE[layer].desc().flops() / 2.0) as u32;
        layer += 1;
    }
    macs
};

/// The parameters of one layer, or their gradients.
pub struct Parameters<T> {
    pub weight: T,
    pub thresholds: T,
    pub bias: T,
}

impl<'a> Parameters<&'a [f32]> {
    /// The parameters of a layer out of all.
    pub fn of(all: &'a [f32; PARAMETERS[LAYERS]], layer: usize) -> Self {
        let [weights, thresholds] = LENS[layer];
        let (weight, rest) = all[part(&PARAMETERS, layer)].split_at(weights);
        let (thresholds, bias) = rest.split_at(thresholds);
        Self { weight, thresholds, bias }
    }
}

impl<'a> Parameters<&'a mut [f32]> {
    /// The parameters of a layer out of all.
    pub fn of_mut(all: &'a mut [f32; PARAMETERS[LAYERS]], layer: usize) -> Self {
        let [weights, thresholds] = LENS[layer];
        let (weight, rest) = all[part(&PARAMETERS, layer)].split_at_mut(weights);
        let (thresholds, bias) = rest.split_at_mut(thresholds);
        Self { weight, thresholds, bias }
    }
}

/// What the network starts from; a table in flash.
pub static INITIAL: [f32; PARAMETERS[LAYERS]] = initial();

const fn initial() -> [f32; PARAMETERS[LAYERS]] {
    let mut values = [0.0; PARAMETERS[LAYERS]];
    let mut random = 0x2545_f491;
    let mut layer = 0;
    while layer < LAYERS {
        let desc = TRAINING[layer].desc();
        let terms = desc.in_channels() * desc.taps();
        // The variance of He et al. within a factor of two, without a square root: 2^k ≈ √(6 / terms).
        let mut bound = 1.0;
        while bound * bound * terms as f32 > 6.0 {
            bound *= 0.5;
        }
        let mut at = PARAMETERS[layer];
        while at < PARAMETERS[layer + 1] {
            // Numerical Recipes' generator; its high bits.
            random = 1_664_525u32.wrapping_mul(random).wrapping_add(1_013_904_223);
            let uniform = (random >> 8) as f32 / (1 << 24) as f32;
            let in_layer = at - PARAMETERS[layer];
            values[at] = if in_layer < desc.weight_len() {
                bound * (2.0 * uniform - 1.0)
            } else {
                // Thresholds and biases: small, and of both signs.
                0.5 * uniform - 0.125
            };
            at += 1;
        }
        layer += 1;
    }
    values
}

/// What is known of a few digits: made by `examples/golden.rs`.
pub struct Samples {
    /// Pixels of 0 to 16, in rows.
    pub pixels: [[u8; 64]; BATCH],
    pub labels: [u8; BATCH],
    /// The class that the untrained network finds.
    pub classes: [u8; BATCH],
    /// Mean loss before and after one step.
    pub losses: [f32; 2],
}

impl Samples {
    /// Bytes of the file.
    pub const LEN: usize = BATCH * (64 + 1 + 1) + 2 * 4;

    /// Reads the file, at compile time.
    pub const fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let mut pixels = [[0; 64]; BATCH];
        let (mut labels, mut classes) = ([0; BATCH], [0; BATCH]);
        let mut at = 0;
        let mut sample = 0;
        while sample < BATCH {
            let mut pixel = 0;
            while pixel < 64 {
                pixels[sample][pixel] = bytes[at];
                at += 1;
                pixel += 1;
            }
            labels[sample] = bytes[at];
            classes[sample] = bytes[at + 1];
            at += 2;
            sample += 1;
        }
        let losses = [read(bytes, at), read(bytes, at + 4)];
        Self { pixels, labels, classes, losses }
    }

    /// Writes the input of the network for some samples from `first` on.
    pub fn load(&self, first: usize, input: &mut [f32]) {
        let pixels = self.pixels.iter().skip(first).flatten();
        for (x, pixel) in input.iter_mut().zip(pixels) {
            *x = f32::from(*pixel) / 16.0;
        }
    }
}

const fn read(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Mean cross entropy of softmax, and its gradient in place of the logits.
pub fn loss(logits: &mut [f32], labels: &[u8; BATCH]) -> f32 {
    let mut sum = 0.0;
    for (logits, label) in logits.chunks_exact_mut(CLASSES).zip(labels) {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        let mut of_label = 0.0;
        for (class, logit) in logits.iter_mut().enumerate() {
            if class == usize::from(*label) {
                of_label = *logit - most;
            }
            *logit = libm::expf(*logit - most);
            total += *logit;
        }
        sum += libm::logf(total) - of_label;
        for (class, logit) in logits.iter_mut().enumerate() {
            let target = if class == usize::from(*label) { 1.0 } else { 0.0 };
            *logit = (*logit / total - target) / BATCH as f32;
        }
    }
    sum / BATCH as f32
}

/// The index of the largest.
pub fn class(logits: &[f32]) -> u8 {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, logit) in (0..).zip(logits) {
        if *logit > best.1 {
            best = (class, *logit);
        }
    }
    best.0
}
