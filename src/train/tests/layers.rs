//! Every layer through the [`Layer`] trait: gradients against finite differences, both layouts against each other, the
//! same bits on any number of threads; and the values that layers compute, against their formulas.

use crate::desc::ConvDesc;
use crate::error::Error;
use crate::isa::Isa;
use crate::layout::Layout;
use crate::strided::transpose;
use crate::train::random::{Purpose, stream};
use crate::train::*;

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];

/// Values that are spread out, so that few lie within a step of a threshold or of each other.
fn spread(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| libm::sinf((i * i + 7 * i + 31 * seed) as f32)).collect()
}

/// Images in PyTorch's order, as they lie in a shape's layout.
fn laid_out(images: &[f32], shape: Shape) -> Vec<f32> {
    let mut out = images.to_vec();
    if shape.layout == Layout::Nhwc {
        let (channels, positions) = (shape.channels, shape.positions());
        for (from, to) in images.chunks_exact(shape.len()).zip(out.chunks_exact_mut(shape.len())) {
            transpose(from, positions, to, channels, channels, positions);
        }
    }
    out
}

/// The inverse of [`laid_out`].
fn canonical(images: &[f32], shape: Shape) -> Vec<f32> {
    let mut out = images.to_vec();
    if shape.layout == Layout::Nhwc {
        let (channels, positions) = (shape.channels, shape.positions());
        for (from, to) in images.chunks_exact(shape.len()).zip(out.chunks_exact_mut(shape.len())) {
            transpose(from, channels, to, positions, positions, channels);
        }
    }
    out
}

/// A layer with what it takes.
struct Case {
    layer: Box<dyn Layer>,
    input: Shape,
    /// Whether inputs are tokens, which have no gradient.
    tokens: bool,
}

impl Case {
    /// A layer whose normalisations and biases are away from one and zero, where mistakes could hide.
    fn new(mut layer: impl Layer + 'static, input: Shape) -> Self {
        let mut seed = 100;
        layer.visit_mut(&mut |parameter| {
            seed += 1;
            if matches!(parameter.kind, Kind::Norm | Kind::Bias | Kind::Slope) {
                let offsets = parameter.restored(&spread(parameter.value.len(), seed));
                parameter.value.iter_mut().zip(offsets).for_each(|(value, offset)| *value += 0.3 * offset);
            }
        });
        Self { layer: Box::new(layer), input, tokens: false }
    }

    fn of_tokens(layer: impl Layer + 'static, input: Shape) -> Self {
        Self { tokens: true, ..Self::new(layer, input) }
    }

    fn name(&self) -> String {
        format!("{} {:?}", self.layer.name(), self.input)
    }

    /// A batch of inputs.
    fn images(&self, batch: usize) -> Vec<f32> {
        let mut values = spread(batch * self.input.len(), 1);
        if self.tokens {
            values.iter_mut().for_each(|value| *value = (4.5 * (*value + 1.0)).floor());
        }
        laid_out(&values, self.input)
    }

    /// The gradient that comes back to its outputs.
    fn direction(&self, batch: usize) -> Vec<f32> {
        laid_out(&spread(batch * self.layer.output().len(), 2), self.layer.output())
    }

    fn state(&self) -> Vec<&Parameter> {
        let mut state = Vec::new();
        self.layer.visit(&mut |parameter| state.push(parameter));
        state
    }
}

fn rng() -> rand::rngs::ChaCha8Rng {
    stream(3, Purpose::Init, [0, 0])
}

fn shape2(channels: usize, size: [usize; 2], layout: Layout) -> Shape {
    Shape { channels, size: [1, size[0], size[1]], layout }
}

fn conv2(name: &str, input: Shape, out_channels: usize, clamp: Clamp) -> Conv {
    let [_, height, width] = input.size;
    let desc = ConvDesc::conv2d(1, input.channels, out_channels, [height, width], [3, 3]).padding([1, 1]);
    let desc = desc.layout(input.layout).build().unwrap();
    Conv::new(name, desc, Isa::detect(), clamp, true, WeightInit::He, &mut rng()).unwrap()
}

/// The parts of two dense layers with bottlenecks: narrow, with an activation that keeps what its gradient needs, then wide.
fn bottleneck_parts(input: Shape, init: ThresholdInit) -> Vec<[(BatchNorm, Sequence); 2]> {
    let layer = |index: usize, seen: Shape| {
        let (mut narrow, name) = (Sequence::new("narrow", seen), format!("dense{index}"));
        narrow.push(Activate::new(&format!("{name}.elu"), seen, Pointwise::Elu(1.0), &mut rng()));
        narrow.push(conv2(&format!("{name}.conv1"), seen, 5, Clamp::Linear));
        let mut wide = Sequence::new("wide", narrow.output());
        wide.push(conv2(&format!("{name}.conv2"), narrow.output(), 2, Clamp::Trained(init)));
        let norms = [("norm1", seen), ("norm2", narrow.output())];
        let [first, second] = norms.map(|(norm, shape)| BatchNorm::new(&format!("{name}.{norm}"), shape));
        [(first, narrow), (second, wide)]
    };
    vec![layer(0, input), layer(1, input.with_channels(input.channels + 2))]
}

/// A dense block of them.
fn bottlenecks(name: &str, input: Shape, init: ThresholdInit) -> DenseBlock {
    let mut block = DenseBlock::new(name, input);
    bottleneck_parts(input, init).into_iter().for_each(|layer| block.push(layer));
    block
}

/// All layers of a layout, on images `scale` times as high as need be.
fn cases(layout: Layout, scale: usize) -> Vec<Case> {
    let random = ThresholdInit::Gaussian(0.5);
    let line = Shape { channels: 3, size: [1, 1, 7 * scale], layout };
    let image = shape2(3, [5 * scale, 4], layout);
    let volume = Shape { channels: 2, size: [3 * scale, 4, 3], layout };
    let mut cases = Vec::new();

    // Gaussian thresholds, because with zero every padded tap is a tie, where the gradient jumps.
    for (suffix, clamp) in [("", Clamp::Linear), (" relu", Clamp::Relu), (" convrelu", Clamp::Trained(random))] {
        let conv = |name: &str, desc: Result<ConvDesc, Error>| {
            Conv::new(name, desc.unwrap(), Isa::detect(), clamp, true, WeightInit::He, &mut rng()).unwrap()
        };
        let desc = ConvDesc::conv1d(1, 3, 4, [7 * scale], [3]).padding([1]).layout(layout).build();
        cases.push(Case::new(conv(&format!("conv 1d{suffix}"), desc), line));
        cases.push(Case::new(conv2(&format!("conv 2d{suffix}"), image, 4, clamp), image));
        let desc = ConvDesc::conv2d(1, 3, 4, [5 * scale, 4], [3, 3]).padding([1, 1]).stride([2, 2]);
        cases.push(Case::new(conv(&format!("conv 2d by 2{suffix}"), desc.layout(layout).build()), image));
        let desc = ConvDesc::conv3d(1, 2, 3, volume.size, [3, 2, 3]).padding([1, 0, 1]).layout(layout).build();
        cases.push(Case::new(conv(&format!("conv 3d{suffix}"), desc), volume));
    }
    for (name, shape) in [("line", line), ("image", image), ("volume", volume)] {
        let mut flat = Sequence::new("flat", shape);
        flat.push(Flatten::new("flatten", shape));
        let linear = Linear::new(&format!("linear {name}"), flat.output(), 40, WeightInit::Pytorch, &mut rng());
        flat.push(linear);
        cases.push(Case::new(flat, shape));
        cases.push(Case::new(Flatten::new("flatten", shape), shape));
        cases.push(Case::new(BatchNorm::new("norm", shape), shape));
        cases.push(Case::new(GlobalAveragePool::new("global pool", shape), shape));
    }
    // Windows of which some leave a rest, overlap, or leave gaps.
    let square = |kernel, stride| PoolWindow { kernel: [1, kernel, kernel], stride: [1, stride, stride] };
    let windows = [
        (line, PoolWindow::apart([1, 1, 3])),
        (line, PoolWindow::apart([1, 1, 2])),
        (line, PoolWindow { kernel: [1, 1, 3], stride: [1, 1, 1] }),
        (line, PoolWindow { kernel: [1, 1, 1], stride: [1, 1, 4] }),
        (image, square(2, 2)),
        (image, square(3, 1)),
        (image, square(3, 2)),
        (image, PoolWindow::apart([1, 2, 3])),
        (image, PoolWindow { kernel: [1, 5, 4], stride: [1; 3] }),
        (volume, PoolWindow::apart([2, 2, 2])),
        (volume, PoolWindow::apart([1, 2, 2])),
        (volume, PoolWindow { kernel: [2, 3, 2], stride: [1, 1, 1] }),
    ];
    for (shape, window) in windows {
        cases.push(Case::new(MaxPool::new(&format!("max {window:?}"), shape, window).unwrap(), shape));
        cases.push(Case::new(AveragePool::new(&format!("average {window:?}"), shape, window).unwrap(), shape));
    }
    let shares = [Sharing::Layer, Sharing::Channel, Sharing::Element];
    let fixed =
        [Pointwise::Relu, Pointwise::LeakyRelu(0.01), Pointwise::Elu(1.0), Pointwise::Elu(0.5), Pointwise::Selu];
    let slopes = shares.map(|sharing| Pointwise::PRelu { sharing });
    let thresholds = shares.map(|sharing| Pointwise::AdaRelu { sharing, init: random });
    for pointwise in fixed.into_iter().chain(slopes).chain(thresholds) {
        for shape in [image, volume, shape2(4, [1, 1], layout)] {
            cases.push(Case::new(Activate::new(&format!("{pointwise:?}"), shape, pointwise, &mut rng()), shape));
        }
    }
    cases.push(Case::new(Dropout::new("dropout", image, 0.4, 1), image));
    let text = Shape { channels: 1, size: [1, 1, 6 * scale], layout };
    cases.push(Case::of_tokens(Embedding::new("embedding", text, 8, 5, 1.0, &mut rng()), text));
    cases.push(Case::of_tokens(OneHot::new("one-hot", text, 7), text));

    let mut block = DenseBlock::new("dense", image);
    for layer in 0..2 {
        let seen = block.output();
        let mut body = Sequence::new("body", seen);
        body.push(conv2(&format!("dense{layer}.conv"), seen, 2, Clamp::Relu));
        block.push([(BatchNorm::new(&format!("dense{layer}.norm"), seen), body)]);
    }
    cases.push(Case::new(block, image));
    cases.push(Case::new(bottlenecks("dense bottlenecks", image, random), image));
    let body = |name: &str, out| {
        let mut body = Sequence::new(name, image);
        body.push(conv2(&format!("{name}.conv"), image, out, Clamp::Linear));
        body.push(BatchNorm::new(&format!("{name}.norm"), image.with_channels(out)));
        body
    };
    cases.push(Case::new(Residual::new(body("residual", 3), None), image));
    cases.push(Case::new(Residual::new(body("residual with shortcut", 4), Some(body("shortcut", 4))), image));
    cases.push(Case::new(Sequence::new("nothing", image), image));
    cases
}

fn context(batch: usize, threads: usize, mode: Mode) -> Context {
    let mut context = Context::new(batch, threads, mode);
    (context.seed, context.step) = (5, 7);
    context
}

/// The loss whose gradient with respect to the output is `direction`.
fn loss(layer: &mut dyn Layer, context: &mut Context, input: &[f32], direction: &[f32]) -> f64 {
    let mut output = vec![f32::NAN; direction.len()];
    layer.forward(context, input, &mut output).unwrap();
    output.iter().zip(direction).map(|(y, d)| f64::from(*y) * f64::from(*d)).sum()
}

/// Whether a gradient differs from the central differences of the loss, as a function of the value, with each of two steps:
/// a kink seldom lies within the smaller one.
fn differs(at: f32, grad: f32, mut loss: impl FnMut(f32) -> f64) -> bool {
    [2e-3, 3e-4].into_iter().all(|step| {
        let slope = (loss(at + step) - loss(at - step)) / f64::from(2.0 * step);
        let near = (slope - f64::from(grad)).abs() <= 1e-2 * f64::from(grad).abs().max(1.0);
        // So that a NaN differs.
        !near
    })
}

/// Compares all gradients of a layer with central differences; the share of each tensor's elements where a kink lies within
/// the step, which may differ, is bounded.
fn check_gradients(case: &mut Case) {
    const BATCH: usize = 3;
    let name = case.name();
    let (mut x, direction) = (case.images(BATCH), case.direction(BATCH));
    let mut context = context(BATCH, 1, Mode::Train);
    let layer = &mut *case.layer;
    loss(layer, &mut context, &x, &direction);
    let mut grad_input = vec![f32::NAN; x.len()];
    layer.backward(&mut context, &x, &direction, Some(&mut grad_input)).unwrap();

    if case.tokens {
        assert!(grad_input.iter().all(|&g| g == 0.0), "{name}: tokens have no gradient");
    } else {
        let mut wrong = 0;
        for i in 0..x.len() {
            let at = x[i];
            let differs = differs(at, grad_input[i], |value| {
                x[i] = value;
                loss(layer, &mut context, &x, &direction)
            });
            x[i] = at;
            wrong += usize::from(differs);
        }
        assert!(wrong * 50 <= x.len(), "{name}: {wrong} of the input's {} gradients differ", x.len());
    }
    let mut grads = Vec::new();
    layer.visit(&mut |parameter| grads.push(parameter.grad.clone()));
    for (p, grad) in grads.into_iter().enumerate() {
        let change = |layer: &mut dyn Layer, i: usize, change: &mut dyn FnMut(&mut f32)| {
            let mut index = 0;
            layer.visit_mut(&mut |parameter| {
                if index == p {
                    change(&mut parameter.value[i]);
                }
                index += 1;
            });
        };
        assert!(grad.is_empty() || grad.iter().any(|&g| g != 0.0), "{name}: parameter {p} has no gradient");
        let (mut wrong, total) = (0, grad.len());
        for (i, grad) in grad.into_iter().enumerate() {
            let mut at = 0.0;
            change(layer, i, &mut |value| at = *value);
            let differs = differs(at, grad, |value| {
                change(layer, i, &mut |at| *at = value);
                loss(layer, &mut context, &x, &direction)
            });
            change(layer, i, &mut |value| *value = at);
            wrong += usize::from(differs);
        }
        assert!(wrong * 50 <= total, "{name}: {wrong} of parameter {p}'s {total} gradients differ");
    }
}

#[test]
fn gradients_are_those_of_the_layers() {
    for layout in LAYOUTS {
        cases(layout, 1).iter_mut().for_each(check_gradients);
    }
}

/// What a training pass and an evaluation leave behind: output, gradients of the input and of the parameters, state, output
/// of the evaluation.
fn results(case: &mut Case, batch: usize, threads: usize) -> Vec<Vec<f32>> {
    let (x, direction) = (case.images(batch), case.direction(batch));
    let [mut output, mut evaluated] = [(); 2].map(|()| vec![f32::NAN; direction.len()]);
    let mut grad_input = vec![f32::NAN; x.len()];
    let mut context = context(batch, threads, Mode::Train);
    case.layer.forward(&mut context, &x, &mut output).unwrap();
    case.layer.backward(&mut context, &x, &direction, Some(&mut grad_input)).unwrap();
    context.mode = Mode::Evaluate;
    case.layer.forward(&mut context, &x, &mut evaluated).unwrap();
    let shape = case.layer.output();
    let mut results = vec![canonical(&output, shape), canonical(&grad_input, case.input), canonical(&evaluated, shape)];
    for parameter in case.state() {
        results.push(parameter.canonical(&parameter.value));
        if parameter.is_trained() {
            results.push(parameter.canonical(&parameter.grad));
        }
    }
    results
}

fn bits(results: Vec<Vec<f32>>) -> Vec<Vec<u32>> {
    results.into_iter().map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn threads_do_not_change_a_bit() {
    // Enough elements for several threads, and images that they do not share evenly.
    for layout in LAYOUTS {
        for (mut one, mut three) in cases(layout, 4).into_iter().zip(cases(layout, 4)) {
            let name = one.name();
            let [one, three] =
                [(&mut one, 1), (&mut three, 3)].map(|(case, threads)| bits(results(case, 401, threads)));
            assert!(one == three, "{name}");
        }
    }
}

#[test]
fn layouts_agree() {
    let [first, last] = LAYOUTS.map(|layout| cases(layout, 1));
    for (mut first, mut last) in first.into_iter().zip(last) {
        // What is dropped follows the order in memory.
        if first.layer.kind() == LayerKind::Dropout {
            continue;
        }
        let name = first.name();
        let [first, last] = [&mut first, &mut last].map(|case| results(case, 5, 1));
        assert_eq!(first.len(), last.len());
        for (index, (first, last)) in first.iter().zip(&last).enumerate() {
            assert_eq!(first.len(), last.len());
            for (a, b) in first.iter().zip(last) {
                assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{name}: result {index}: {a} {b}");
            }
        }
    }
}

/// The first layer of a network is not asked for the gradient of the images.
#[test]
fn parameters_have_their_gradients_whoever_asks_for_the_inputs() {
    let grads = |case: &mut Case, asked: bool| {
        let (x, direction) = (case.images(3), case.direction(3));
        let mut context = context(3, 1, Mode::Train);
        loss(&mut *case.layer, &mut context, &x, &direction);
        let mut grad_input = vec![0.0; x.len()];
        case.layer.backward(&mut context, &x, &direction, asked.then_some(&mut grad_input[..])).unwrap();
        case.state().iter().map(|parameter| parameter.grad.clone()).collect::<Vec<_>>()
    };
    for layout in LAYOUTS {
        for (mut asked, mut not) in cases(layout, 1).into_iter().zip(cases(layout, 1)) {
            assert_eq!(grads(&mut asked, true), grads(&mut not, false), "{}", asked.name());
        }
    }
}

/// Gradients are added up over passes, and a smaller batch after a larger one finds nothing left behind.
#[test]
fn passes_add_up() {
    for layout in LAYOUTS {
        for (mut both, mut each) in cases(layout, 1).into_iter().zip(cases(layout, 1)) {
            results(&mut both, 5, 1);
            let small = results(&mut both, 2, 1);
            let alone = results(&mut each, 2, 1);
            // Running statistics remember the first pass: only what a training pass returns is alike.
            assert_eq!(bits(small[..2].to_vec()), bits(alone[..2].to_vec()), "{}", both.name());
            results(&mut each, 5, 1);
            for (a, b) in both.state().iter().zip(each.state()) {
                for (a, b) in a.grad.iter().zip(&b.grad) {
                    assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{}: {a} {b}", both.name());
                }
            }
        }
    }
}

#[test]
fn pooling_is_that_of_its_windows() {
    for layout in LAYOUTS {
        // More channels than a vector has elements, and not a whole number of vectors.
        let input = Shape { channels: 19, size: [3, 5, 7], layout };
        let x = spread(2 * input.len(), 1);
        let windows = [
            PoolWindow::apart([1, 2, 2]),
            PoolWindow::apart([1, 1, 2]),
            PoolWindow::apart([1, 1, 3]),
            PoolWindow::apart([1, 2, 3]),
            PoolWindow::apart([2, 2, 2]),
            PoolWindow { kernel: [2, 3, 3], stride: [1, 2, 2] },
            PoolWindow { kernel: [1, 2, 3], stride: [3, 1, 4] },
        ];
        for window in windows {
            let PoolWindow { kernel, stride } = window;
            let mut max = MaxPool::new("max", input, window).unwrap();
            let mut average = AveragePool::new("average", input, window).unwrap();
            let output = max.output();
            assert_eq!(output, average.output());
            let [mut maxima, mut averages] = [(); 2].map(|()| vec![f32::NAN; 2 * output.len()]);
            let mut context = context(2, 1, Mode::Train);
            let images = laid_out(&x, input);
            max.forward(&mut context, &images, &mut maxima).unwrap();
            average.forward(&mut context, &images, &mut averages).unwrap();
            let (maxima, averages) = (canonical(&maxima, output), canonical(&averages, output));
            for (o, (max, average)) in maxima.iter().zip(averages).enumerate() {
                let [_, height, width] = output.size;
                let (plane, at) = (o / output.positions(), o % output.positions());
                let at = [at / width / height, at / width % height, at % width];
                let taps = (0..kernel.iter().product::<usize>()).map(|tap| {
                    let tap = [tap / kernel[2] / kernel[1], tap / kernel[2] % kernel[1], tap % kernel[2]];
                    let [d, h, w] = [0, 1, 2].map(|axis| at[axis] * stride[axis] + tap[axis]);
                    x[((plane * 3 + d) * 5 + h) * 7 + w]
                });
                assert_eq!(*max, taps.clone().fold(f32::NEG_INFINITY, f32::max), "{window:?} {layout:?}");
                let mean = taps.clone().sum::<f32>() / taps.count() as f32;
                assert!((average - mean).abs() < 1e-6, "{window:?} {layout:?}: {average} {mean}");
            }
        }
    }
}

#[test]
fn the_first_maximum_wins_and_nan_is_passed_on() {
    for layout in LAYOUTS {
        // In the second image the window has its NaN in the middle; its greater number comes last.
        const CHANNELS: usize = 19;
        let planes = |planes: [[f32; 4]; 2]| planes.into_iter().flat_map(|plane| [plane; CHANNELS].concat()).collect();
        let images: Vec<f32> = planes([[1.0, 3.0, 3.0, 2.0], [1.0, f32::NAN, 0.0, 9.0]]);
        let grads: Vec<f32> = planes([[0.0, 1.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]);
        for (shape, window) in [
            (shape2(CHANNELS, [2, 2], layout), PoolWindow::apart([1, 2, 2])),
            (shape2(CHANNELS, [2, 2], layout), PoolWindow { kernel: [1, 2, 2], stride: [1, 1, 1] }),
            (shape2(CHANNELS, [1, 4], layout), PoolWindow::apart([1, 1, 4])),
        ] {
            let mut pool = MaxPool::new("pool", shape, window).unwrap();
            let mut context = context(2, 1, Mode::Train);
            let (mut output, mut grad) = ([0.0; 2 * CHANNELS], vec![5.0; images.len()]);
            let x = laid_out(&images, shape);
            pool.forward(&mut context, &x, &mut output).unwrap();
            let (first, second) = output.split_at(CHANNELS);
            assert!(first.iter().all(|&y| y == 3.0) && second.iter().all(|y| y.is_nan()));
            let g = [[1.0; CHANNELS], [2.0; CHANNELS]].concat();
            pool.backward(&mut context, &x, &g, Some(&mut grad)).unwrap();
            assert_eq!(canonical(&grad, shape), grads);
        }
    }
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let input = shape2(1, [4, 4], Layout::Nchw);
    for window in [
        PoolWindow::apart([1, 5, 1]),
        PoolWindow::apart([0, 1, 1]),
        PoolWindow { kernel: [1, 2, 2], stride: [1, 0, 1] },
        PoolWindow::apart([2, 2, 2]),
    ] {
        assert!(matches!(MaxPool::new("pool", input, window), Err(TrainError::Setting { .. })), "{window:?}");
        assert!(matches!(AveragePool::new("pool", input, window), Err(TrainError::Setting { .. })), "{window:?}");
    }
    let error = MaxPool::new("pool", input, PoolWindow::apart([1, 5, 1])).unwrap_err().to_string();
    assert!(error.contains("1 × 5 × 1") && error.contains("pool"), "{error}");
}

/// What an activation makes of −2, −0.5, 0, 0.5, 2 and NaN.
fn activated(pointwise: Pointwise) -> [f32; 6] {
    let mut output = [0.0; 6];
    let mut layer = Activate::new("f", shape2(1, [2, 3], Layout::Nchw), pointwise, &mut rng());
    let input = [-2.0, -0.5, 0.0, 0.5, 2.0, f32::NAN];
    layer.forward(&mut context(1, 1, Mode::Train), &input, &mut output).unwrap();
    output
}

#[test]
fn activations_are_those_of_their_formulas() {
    let check = |pointwise, want: [f32; 5]| {
        let found = activated(pointwise);
        assert!(found[5].is_nan(), "{pointwise:?}");
        for (found, want) in found.into_iter().zip(want) {
            assert!((found - want).abs() < 1e-6, "{pointwise:?}: {found} {want}");
        }
    };
    check(Pointwise::Relu, [0.0, 0.0, 0.0, 0.5, 2.0]);
    check(Pointwise::LeakyRelu(0.01), [-0.02, -0.005, 0.0, 0.5, 2.0]);
    check(Pointwise::PRelu { sharing: Sharing::Layer }, [-0.5, -0.125, 0.0, 0.5, 2.0]);
    let [far, near] = [-2.0f32, -0.5].map(f32::exp_m1);
    check(Pointwise::Elu(0.5), [0.5 * far, 0.5 * near, 0.0, 0.5, 2.0]);
    let (scale, alpha) = (1.050_701, 1.673_263_2);
    check(Pointwise::Selu, [scale * alpha * far, scale * alpha * near, 0.0, scale * 0.5, scale * 2.0]);
    check(Pointwise::AdaRelu { sharing: Sharing::Element, init: ThresholdInit::Zero }, [0.0, 0.0, 0.0, 0.5, 2.0]);
}

#[test]
fn parameters_of_activations_have_the_shape_of_their_sharing() {
    for layout in LAYOUTS {
        let image = shape2(3, [5, 4], layout);
        for (sharing, shape) in
            [(Sharing::Layer, vec![1]), (Sharing::Channel, vec![3]), (Sharing::Element, vec![3, 5, 4])]
        {
            let layer =
                Activate::new("f", image, Pointwise::AdaRelu { sharing, init: ThresholdInit::Zero }, &mut rng());
            let case = Case::new(layer, image);
            assert_eq!((&case.state()[0].name[..], &case.state()[0].shape), ("f.thresholds", &shape));
            assert_eq!(case.state()[0].kind, Kind::Threshold);
            let case = Case::new(Activate::new("f", image, Pointwise::PRelu { sharing }, &mut rng()), image);
            assert_eq!((&case.state()[0].name[..], &case.state()[0].shape), ("f.weight", &shape));
            assert_eq!(case.state()[0].kind, Kind::Slope);
        }
    }
}

#[test]
fn a_threshold_that_is_no_number_is_an_error() {
    let image = shape2(2, [3, 3], Layout::Nchw);
    let pointwise = Pointwise::AdaRelu { sharing: Sharing::Channel, init: ThresholdInit::Zero };
    let mut layer = Activate::new("f", image, pointwise, &mut rng());
    layer.visit_mut(&mut |parameter| parameter.value[1] = f32::NAN);
    let result = layer.forward(&mut context(1, 1, Mode::Train), &[0.0; 18], &mut [0.0; 18]);
    assert_eq!(result, Err(Error::NanThreshold { index: 1 }));
}

#[test]
fn units_that_never_exceed_their_threshold_are_dead() {
    let images = [-1.0, 0.0, 1.0, -2.0, -1.0, 2.0, 0.5, -3.0];
    for layout in LAYOUTS {
        let shape = shape2(2, [1, 2], layout);
        let x = laid_out(&images, shape);
        let units = |pointwise, change: &mut dyn FnMut(&mut Parameter)| {
            let mut layer = Activate::new("f", shape, pointwise, &mut rng());
            layer.visit_mut(change);
            let mut output = [0.0; 8];
            layer.forward(&mut context(2, 1, Mode::Train), &x, &mut output).unwrap();
            let total = layer.units().total;
            assert_eq!(layer.units(), Units { dead: total, total }, "training records nothing");
            layer.forward(&mut context(2, 1, Mode::Evaluate), &x, &mut output).unwrap();
            let units = layer.units();
            layer.reset_units();
            assert_eq!(layer.units().dead, total);
            (units.dead, total)
        };
        // The channels' peaks are 2 and 1, those of the elements −1, 2, 1, −2.
        let none = &mut |_: &mut Parameter| {};
        assert_eq!(units(Pointwise::Relu, none), (0, 2));
        let adarelu = |sharing| Pointwise::AdaRelu { sharing, init: ThresholdInit::Zero };
        assert_eq!(units(adarelu(Sharing::Layer), &mut |p| p.value.fill(1.5)), (1, 2));
        assert_eq!(units(adarelu(Sharing::Channel), &mut |p| p.value.copy_from_slice(&[2.0, 0.0])), (1, 2));
        assert_eq!(units(adarelu(Sharing::Element), none), (2, 4));
        let set = &mut |p: &mut Parameter| p.value = p.restored(&[-2.0, 3.0, 0.0, -2.0]);
        assert_eq!(units(adarelu(Sharing::Element), set), (2, 4));
    }
}

#[test]
fn dropout_keeps_the_mean_and_follows_seed_and_step() {
    let image = shape2(10, [50, 40], Layout::Nchw);
    let x = vec![1.0; image.len()];
    let drop = |seed, step, index, mode| {
        let mut layer = Dropout::new("dropout", image, 0.2, index);
        let mut context = context(1, 1, mode);
        (context.seed, context.step) = (seed, step);
        let mut output = vec![f32::NAN; x.len()];
        layer.forward(&mut context, &x, &mut output).unwrap();
        output
    };
    let first = drop(1, 2, 3, Mode::Train);
    assert!(first.iter().all(|&y| y == 0.0 || y == 1.25));
    let mean = first.iter().sum::<f32>() / first.len() as f32;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    assert_eq!(first, drop(1, 2, 3, Mode::Train));
    for (seed, step, index) in [(2, 2, 3), (1, 3, 3), (1, 2, 4)] {
        assert_ne!(first, drop(seed, step, index, Mode::Train));
    }
    assert_eq!(drop(1, 2, 3, Mode::Evaluate), x);
}

#[test]
fn tokens_become_vectors() {
    let text = Shape::new(1, [1, 1, 6]);
    let measured = |deviation| {
        let vectors = Embedding::new("embedding", text, 2000, 10, deviation, &mut rng());
        let mut values = Vec::new();
        vectors.visit(&mut |p| values.extend_from_slice(&p.value));
        assert_eq!(values[..10], [0.0; 10]);
        mean_and_deviation(&values[10..]).unwrap()
    };
    for deviation in [1.0, 0.05] {
        let (mean, found) = measured(deviation);
        let deviation = f64::from(deviation);
        assert!(mean.abs() < 0.03 * deviation && (found / deviation - 1.0).abs() < 0.03, "{mean} {found}");
    }
    // Padding, two of the vocabulary, and what is not in it.
    let tokens = [0.0, 1.0, 3.0, 4.0, -1.0, f32::NAN];
    for layout in LAYOUTS {
        let text = Shape { channels: 1, size: [1, 1, 6], layout };
        let mut context = context(1, 1, Mode::Train);
        let mut layer = Embedding::new("embedding", text, 4, 2, 1.0, &mut rng());
        layer.visit_mut(&mut |p| p.value.copy_from_slice(&[9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let mut output = [f32::NAN; 12];
        layer.forward(&mut context, &tokens, &mut output).unwrap();
        let vectors = [0.0, 1.0, 5.0, 0.0, 0.0, 0.0, 0.0, 2.0, 6.0, 0.0, 0.0, 0.0];
        assert_eq!(canonical(&output, layer.output()), vectors);
        layer.backward(&mut context, &tokens, &laid_out(&spread(12, 1), layer.output()), None).unwrap();
        let g = spread(12, 1);
        layer.visit(&mut |p| assert_eq!(p.grad, [0.0, 0.0, g[1], g[7], 0.0, 0.0, g[2], g[8]]));

        let mut layer = OneHot::new("one-hot", text, 3);
        let mut output = [f32::NAN; 18];
        layer.forward(&mut context, &tokens, &mut output).unwrap();
        let mut ones = [0.0; 18];
        (ones[1], ones[14]) = (1.0, 1.0);
        assert_eq!(canonical(&output, layer.output()), ones);
    }
}

/// Means, deviations and running statistics in double precision; evaluation with the running ones.
#[test]
fn batch_norm_is_that_of_its_formula() {
    const BATCH: usize = 4;
    for layout in LAYOUTS {
        let shape = shape2(3, [5, 4], layout);
        let mut layer = BatchNorm::new("norm", shape);
        let (weight, bias) = ([0.5, 2.0, -1.0], [0.1, 0.2, 0.3]);
        layer.visit_mut(&mut |parameter| match parameter.kind {
            Kind::Norm => parameter.value = weight.to_vec(),
            Kind::Bias => parameter.value = bias.to_vec(),
            _ => {}
        });
        let [mut mean, mut variance] = [[0.0f64; 3], [1.0; 3]];
        let count = BATCH * 20;
        let mut output = vec![f32::NAN; BATCH * shape.len()];
        for pass in 0..3 {
            // Means far from 0, where a careless variance cancels.
            let x: Vec<f32> = spread(BATCH * shape.len(), pass).into_iter().map(|x| 100.0 + x).collect();
            let images = laid_out(&x, shape);
            let channel = |c: usize| {
                let x = &x;
                (0..count).map(move |i| f64::from(x[(i / 20 * 3 + c) * 20 + i % 20]))
            };
            let check = |output: &[f32], mean: [f64; 3], variance: [f64; 3], tolerance: f64| {
                let output = canonical(output, shape);
                for c in 0..3 {
                    for (i, x) in channel(c).enumerate() {
                        let want =
                            f64::from(weight[c]) * (x - mean[c]) / (variance[c] + 1e-5).sqrt() + f64::from(bias[c]);
                        let found = f64::from(output[(i / 20 * 3 + c) * 20 + i % 20]);
                        assert!((found - want).abs() < tolerance * want.abs().max(1.0), "{layout:?}: {found} {want}");
                    }
                }
            };
            layer.forward(&mut context(BATCH, 1, Mode::Train), &images, &mut output).unwrap();
            let means = [0, 1, 2].map(|c| channel(c).sum::<f64>() / count as f64);
            let squares = [0, 1, 2].map(|c| channel(c).map(|x| (x - means[c]).powi(2)).sum::<f64>());
            check(&output, means, squares.map(|sum| sum / count as f64), 1e-4);
            for c in 0..3 {
                mean[c] += 0.1 * (means[c] - mean[c]);
                variance[c] += 0.1 * (squares[c] / (count - 1) as f64 - variance[c]);
            }
            layer.forward(&mut context(BATCH, 1, Mode::Evaluate), &images, &mut output).unwrap();
            check(&output, mean, variance, 1e-5);
        }
        let mut running = Vec::new();
        layer.visit(&mut |p| running.extend((!p.is_trained()).then_some(&p.value)));
        for c in 0..3 {
            let [m, v] = [f64::from(running[0][c]), f64::from(running[1][c])];
            assert!((m - mean[c]).abs() < 1e-4 && (v - variance[c]).abs() < 1e-5, "{m} {v}");
        }
    }
}

/// Into some channels of a wider tensor, and from some of a wider gradient: the same bits, and nothing else is touched.
#[test]
fn layers_write_into_wider_tensors() {
    const BATCH: usize = 3;
    for layout in LAYOUTS {
        for (mut dense, mut wide) in cases(layout, 1).into_iter().zip(cases(layout, 1)) {
            let name = dense.name();
            let (x, direction) = (dense.images(BATCH), dense.direction(BATCH));
            let shape = dense.layer.output();
            let (total, first) = (shape.channels + 5, 2);
            let at = Channels::of(total, first, shape, BATCH);
            let runs = shape.with_channels(total).runs(BATCH);
            // Which element of the dense tensor lies at one of the wide one.
            let place = |i: usize| {
                let (outer, channel, inner) = (i / runs.step(), i / runs.inner % total, i % runs.inner);
                let channel = channel.checked_sub(first).filter(|&channel| channel < shape.channels)?;
                Some((outer * shape.channels + channel) * runs.inner + inner)
            };
            let len = runs.outer * runs.step();
            let mut output = vec![f32::NAN; direction.len()];
            let mut wide_output = vec![-7.0; len];
            let [mut context, mut wide_context] = [(); 2].map(|()| context(BATCH, 1, Mode::Train));
            dense.layer.forward(&mut context, &x, &mut output).unwrap();
            wide.layer.forward_into(&mut wide_context, &x, &mut wide_output, at).unwrap();
            for (i, found) in wide_output.iter().enumerate() {
                let want = place(i).map_or(-7.0, |place| output[place]);
                assert_eq!(found.to_bits(), want.to_bits(), "{name}: {i}");
            }
            // Gaps are not read either.
            let wide_direction: Vec<f32> = (0..len).map(|i| place(i).map_or(f32::NAN, |i| direction[i])).collect();
            let [mut grad, mut wide_grad] = [(); 2].map(|()| vec![f32::NAN; x.len()]);
            dense.layer.backward(&mut context, &x, &direction, Some(&mut grad)).unwrap();
            wide.layer.backward_from(&mut wide_context, &x, &wide_direction, at, Some(&mut wide_grad)).unwrap();
            let grads = |case: &Case| case.state().iter().map(|parameter| parameter.grad.clone()).collect::<Vec<_>>();
            assert_eq!(bits(vec![grad]), bits(vec![wide_grad]), "{name}");
            assert_eq!(bits(grads(&dense)), bits(grads(&wide)), "{name}");
        }
    }
}

/// A dense block is what its layers make one after the other, with all features put together anew for each; so are its
/// gradients. The batch is more than passes through together.
#[test]
fn a_dense_block_is_made_of_its_layers() {
    const BATCH: usize = 150;
    let init = ThresholdInit::Gaussian(0.5);
    for layout in LAYOUTS {
        let input = shape2(3, [33, 32], layout);
        let mut block = Case::new(bottlenecks("dense", input, init), input);
        let (x, direction) = (block.images(BATCH), block.direction(BATCH));
        let mut context = context(BATCH, 1, Mode::Train);
        let [mut output, mut grad_input] = [direction.len(), x.len()].map(|len| vec![f32::NAN; len]);
        block.layer.forward(&mut context, &x, &mut output).unwrap();
        block.layer.backward(&mut context, &x, &direction, Some(&mut grad_input)).unwrap();

        // The same layers in a sequence of their own each.
        let mut layers = Vec::new();
        for layer in bottleneck_parts(input, init) {
            let mut sequence = Sequence::new("layer", layer[0].0.output());
            for (norm, body) in layer {
                sequence.push(norm);
                sequence.push(body);
            }
            layers.push(sequence);
        }
        let mut seed = 100;
        for layer in &mut layers {
            // As [`Case::new`] does with the block's.
            layer.visit_mut(&mut |parameter| {
                seed += 1;
                if matches!(parameter.kind, Kind::Norm | Kind::Bias | Kind::Slope) {
                    let offsets = parameter.restored(&spread(parameter.value.len(), seed));
                    parameter.value.iter_mut().zip(offsets).for_each(|(value, offset)| *value += 0.3 * offset);
                }
            });
        }
        let total = block.layer.output().channels;
        // Images of a shape from the last channels of those of all, and back.
        let part = |all: &[f32], first: usize, shape: Shape| {
            let all = canonical(all, input.with_channels(total));
            let positions = shape.positions();
            let images = all.chunks_exact(total * positions);
            let part: Vec<f32> = images.flat_map(|image| image[first * positions..][..shape.len()].to_vec()).collect();
            laid_out(&part, shape)
        };
        let put = |all: &mut Vec<f32>, first: usize, shape: Shape, images: &[f32]| {
            let wide = input.with_channels(total);
            let (mut whole, images) = (canonical(all, wide), canonical(images, shape));
            let positions = shape.positions();
            for (to, from) in whole.chunks_exact_mut(wide.len()).zip(images.chunks_exact(shape.len())) {
                to[first * positions..][..shape.len()].iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
            *all = laid_out(&whole, wide);
        };
        let mut features = vec![0.0; direction.len()];
        put(&mut features, total - 3, input, &x);
        let mut seen = Vec::new();
        for layer in &mut layers {
            let (from, to) = (layer.input(), layer.output());
            let images = part(&features, total - from.channels, from);
            let mut new = vec![f32::NAN; BATCH * to.len()];
            layer.forward(&mut context, &images, &mut new).unwrap();
            put(&mut features, total - from.channels - to.channels, to, &new);
            seen.push(images);
        }
        let mut grads = direction.clone();
        for (layer, images) in layers.iter_mut().zip(&seen).rev() {
            let (from, to) = (layer.input(), layer.output());
            let g = part(&grads, total - from.channels - to.channels, to);
            let mut grad = vec![f32::NAN; images.len()];
            layer.backward(&mut context, images, &g, Some(&mut grad)).unwrap();
            put(&mut grads, total - from.channels, from, &grad);
        }
        let near = |what: &str, found: &[f32], want: &[f32], least: f32| {
            assert_eq!(found.len(), want.len());
            let scale = want.iter().fold(least, |scale, x| scale.max(x.abs()));
            for (found, want) in found.iter().zip(want) {
                assert!((found - want).abs() <= 2e-5 * scale, "{layout:?} {what}: {found} {want}, of {scale}");
            }
        };
        near("output", &output, &features, 1.0);
        near("gradient", &grad_input, &part(&grads, total - 3, input), 1.0);
        let mut want = Vec::new();
        layers.iter().for_each(|layer| layer.visit(&mut |parameter| want.push((&parameter.value, &parameter.grad))));
        let state = block.state();
        assert_eq!(state.len(), want.len());
        for (found, (value, grad)) in state.iter().zip(want) {
            near(&found.name, &found.value, value, 1.0);
            // Sums over 158 400 positions, of which some cancel.
            near(&found.name, &found.grad, grad, 20.0);
        }
    }
}

#[test]
#[should_panic(expected = "some images at a time")]
fn dense_layers_take_nothing_that_needs_the_whole_batch() {
    let image = shape2(3, [4, 4], Layout::Nchw);
    let mut body = Sequence::new("body", image);
    body.push(BatchNorm::new("inner", image));
    DenseBlock::new("dense", image).push([(BatchNorm::new("norm", image), body)]);
}

/// Forward and backward against double precision: odd sizes, one image, one pixel, means far from 0 beside small deviations, and
/// a value far from all others where sums begin.
#[test]
fn batch_norm_is_exact_where_it_is_hard() {
    let sizes = [(3, [5, 7]), (1, [1, 1]), (19, [1, 1]), (17, [3, 11]), (2, [37, 41]), (5, [16, 1])];
    for layout in LAYOUTS {
        for (channels, size) in sizes {
            for batch in [1, 2, 5] {
                for (offset, outlier) in [(0.0, 0.0), (1e4, 0.0), (-3e4, 0.0), (0.0, 1e4)] {
                    let shape = shape2(channels, size, layout);
                    let (positions, len) = (shape.positions(), batch * shape.len());
                    let mut x: Vec<f32> = spread(len, 1).into_iter().map(|x| offset + 1.4 * x).collect();
                    (0..channels).for_each(|c| x[c * positions] += outlier);
                    let g = spread(len, 2);
                    let mut layer = BatchNorm::new("norm", shape);
                    let parameters = [spread(channels, 3), spread(channels, 4)];
                    let mut values = parameters.iter();
                    layer.visit_mut(&mut |parameter| {
                        if parameter.is_trained() {
                            parameter.value.clone_from(values.next().unwrap());
                        }
                    });
                    let [mut y, mut dx] = [(); 2].map(|()| vec![f32::NAN; len]);
                    let (images, grads) = (laid_out(&x, shape), laid_out(&g, shape));
                    let mut context = context(batch, 1, Mode::Train);
                    layer.forward(&mut context, &images, &mut y).unwrap();
                    layer.backward(&mut context, &images, &grads, Some(&mut dx)).unwrap();
                    let (y, dx) = (canonical(&y, shape), canonical(&dx, shape));
                    let mut trained = Vec::new();
                    layer
                        .visit(&mut |parameter| trained.extend(parameter.is_trained().then(|| parameter.grad.clone())));
                    for c in 0..channels {
                        let places: Vec<usize> = (0..batch * positions)
                            .map(|i| (i / positions * channels + c) * positions + i % positions)
                            .collect();
                        let count = places.len() as f64;
                        let sum = |f: &dyn Fn(usize) -> f64| places.iter().map(|&i| f(i)).sum::<f64>();
                        let mean = sum(&|i| x[i].into()) / count;
                        let variance = sum(&|i| (f64::from(x[i]) - mean).powi(2)) / count;
                        let inverse = 1.0 / (variance + 1e-5).sqrt();
                        let [weight, bias] = [0, 1].map(|p| f64::from(parameters[p][c]));
                        let normal = |i: usize| (f64::from(x[i]) - mean) * inverse;
                        let (grad_bias, grad_weight) = (sum(&|i| g[i].into()), sum(&|i| f64::from(g[i]) * normal(i)));
                        let case = format!("{shape:?}, {batch} images, {offset} {outlier}");
                        let near = |what: &str, found: f32, want: f64, scale: f64| {
                            let far = (f64::from(found) - want).abs();
                            assert!(far <= 2e-5 * scale, "{case}: {what} {found} {want}");
                        };
                        near("bias", trained[1][c], grad_bias, count.sqrt());
                        let least = count.sqrt().max(normal(places[0]).abs());
                        near("weight", trained[0][c], grad_weight, grad_weight.abs().max(least));
                        for &i in &places {
                            near("output", y[i], weight * normal(i) + bias, normal(i).abs().max(1.0));
                            let centred = f64::from(g[i]) - (grad_bias + normal(i) * grad_weight) / count;
                            let scale = (weight * inverse).abs() * normal(i).abs().max(1.0);
                            near("gradient", dx[i], weight * inverse * centred, scale);
                        }
                    }
                }
            }
        }
    }
}
