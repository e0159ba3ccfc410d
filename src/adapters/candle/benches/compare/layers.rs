//! Single layers: outputs, and outputs with the gradients of input and weight.

use std::hint::black_box;
use std::time::Duration;

use candle_core::{Device, Result, Tensor, Var};
use convrelu::{ConvDesc, Layout};
use convrelu_candle::functional;

use crate::report::{Pass, Row};
use crate::shapes::shapes;
use crate::{Call, Failure, interleaved, is_same};

/// The crate's table, and what candle's issue 3119 is about: two images of 320 × 320 pixels, from 3 to 16 channels.
fn layers() -> std::result::Result<Vec<(&'static str, ConvDesc)>, convrelu::Error> {
    let mut layers = shapes(Layout::Nchw).to_vec();
    layers.push(("3119", ConvDesc::conv2d(2, 3, 16, [320; 2], [3; 2]).padding([1; 2]).build()?));
    Ok(layers)
}

/// What a layer is, in a few characters: `8 × 48 → 12, 32×32, 3×3`.
fn describe(desc: &ConvDesc) -> String {
    let axes =
        |extents: [usize; 3]| extents[3 - desc.rank()..].iter().map(usize::to_string).collect::<Vec<_>>().join("×");
    let (batch, size, kernel) = (desc.batch(), axes(desc.input_size()), axes(desc.kernel()));
    let mut text = format!("{batch} × {} → {}, {size}, {kernel}", desc.in_channels(), desc.out_channels());
    for (name, value) in [("stride", desc.stride()[2]), ("groups", desc.groups())] {
        if value > 1 {
            text += &format!(", {name} {value}");
        }
    }
    text
}

/// Ours.
fn ours(desc: &ConvDesc, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (padding, stride, groups) = (desc.padding_before()[2], desc.stride()[2], desc.groups());
    match desc.rank() {
        1 => functional::conv1d(x, w, padding, stride, 1, groups),
        2 => functional::conv2d(x, w, padding, stride, 1, groups),
        _ => functional::conv3d(x, w, padding, stride, 1, groups),
    }
}

/// candle's. It has none of three axes.
fn candles(desc: &ConvDesc, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (padding, stride, groups) = (desc.padding_before()[2], desc.stride()[2], desc.groups());
    match desc.rank() {
        1 => x.conv1d(w, padding, stride, 1, groups),
        2 => x.conv2d(w, padding, stride, 1, groups),
        _ => candle_core::bail!("candle has no convolution of three axes"),
    }
}

/// One of the two.
type Side = fn(&ConvDesc, &Tensor, &Tensor) -> Result<Tensor>;

/// Output, and the gradients of both variables where they are asked for.
fn results(side: Side, desc: &ConvDesc, x: &Var, w: &Var, pass: Pass) -> Result<Vec<Tensor>> {
    if pass == Pass::Forward {
        return Ok(vec![side(desc, &x.detach(), &w.detach())?]);
    }
    let y = side(desc, x, w)?;
    // The gradient of the output is 1.
    let gradients = y.backward()?;
    Ok([x, w].into_iter().filter_map(|variable| gradients.get(variable)).cloned().chain([y]).collect())
}

/// The elements of all results, one after another.
fn elements(results: &[Tensor]) -> Result<Vec<Vec<f32>>> {
    results.iter().map(|result| result.flatten_all()?.to_vec1()).collect()
}

/// Measures all layers whose names contain a text.
pub(crate) fn measure(
    threads: u32,
    only: &str,
    rounds: u32,
    sample: Duration,
    found: &mut dyn FnMut(Row) -> std::result::Result<(), Failure>,
) -> std::result::Result<(), Failure> {
    for (name, desc) in layers()?.iter().filter(|(name, _)| name.contains(only)) {
        let spatial = |extents: [usize; 3]| extents[3 - desc.rank()..].to_vec();
        let per_group = desc.in_channels() / desc.groups();
        let variable = |outer: [usize; 2], extents| {
            Var::from_tensor(&Tensor::randn(0f32, 1.0, [&outer, &spatial(extents)[..]].concat(), &Device::Cpu)?)
        };
        let x = variable([desc.batch(), desc.in_channels()], desc.input_size())?;
        let w = variable([desc.out_channels(), per_group], desc.kernel())?;
        for pass in [Pass::Forward, Pass::ForwardAndBackward] {
            let has_candles = desc.rank() < 3;
            if has_candles {
                let [ours, candles] = [ours as Side, candles]
                    .map(|side| results(side, desc, &x, &w, pass).and_then(|results| elements(&results)));
                // candle's gradients of layers of one axis are wrong for more than one image: only the output is compared.
                let all = desc.rank() > 1 || pass == Pass::Forward;
                let (ours, candles) = (ours?, candles?);
                let skipped = if all { 0 } else { 2 };
                if !ours.iter().zip(&candles).skip(skipped).all(|(ours, candles)| is_same(ours, candles)) {
                    return Err(format!("{name}: the sides' results differ").into());
                }
            }
            let (x, w) = (&x, &w);
            let call = |side: Side| -> Call<'_> {
                Box::new(move || drop(black_box(results(side, desc, x, w, pass).expect("as before"))))
            };
            let (ours_us, candle_us) = interleaved(call(ours), has_candles.then(|| call(candles)), rounds, sample);
            let shape = describe(desc);
            found(Row { threads, name: (*name).to_owned(), shape, pass, ours_us, candle_us })?;
        }
    }
    Ok(())
}
