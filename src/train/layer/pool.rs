//! Max, average and global average pooling.

use pulp::{Simd, WithSimd};
use serde::{Deserialize, Serialize};

use super::{Layer, LayerKind, Operation};
use crate::error::Error;
use crate::layout::Layout;
use crate::train::context::Context;
use crate::train::error::TrainError;
use crate::train::shape::{Shape, extents};
use crate::train::threads::{for_each, share};
use crate::train::vectorized::{LANES, fold, vectorized};

/// Windows of a pooling layer over `[depth, height, width]`, without padding. Positions behind the last whole window are left
/// out, as by default in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PoolWindow {
    /// Extents.
    pub kernel: [usize; 3],
    /// Distances of neighbouring windows.
    pub stride: [usize; 3],
}

impl PoolWindow {
    /// Windows that lie side by side.
    pub const fn apart(kernel: [usize; 3]) -> Self {
        Self { kernel, stride: kernel }
    }
}

/// A window on images of a shape.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    input: Shape,
    output: Shape,
    window: PoolWindow,
}

impl Geometry {
    fn new(name: &str, input: Shape, window: PoolWindow) -> Result<Self, TrainError> {
        let PoolWindow { kernel, stride } = window;
        if (0..3).any(|axis| kernel[axis] == 0 || stride[axis] == 0 || kernel[axis] > input.size[axis]) {
            return Err(TrainError::setting(
                "pooling window",
                format_args!("{}, stride {}, in {name}", extents(&kernel), extents(&stride)),
                format_args!("it must be 1 at least and fit into the input, which is {}", extents(&input.size)),
            ));
        }
        if u32::try_from(input.len()).is_err() {
            return Err(TrainError::setting("pooled image", input.len(), "it must have fewer than 2³² elements"));
        }
        let size = [0, 1, 2].map(|axis| (input.size[axis] - kernel[axis]) / stride[axis] + 1);
        Ok(Self { input, output: Shape { size, ..input }, window })
    }

    /// Steps from one output to the next in a row of outputs: how far the input moves.
    fn pitch(&self) -> usize {
        match self.input.layout {
            Layout::Nchw => self.window.stride[2],
            Layout::Nhwc => 1,
        }
    }

    /// Visits the rows of outputs whose inputs lie [`pitch`](Self::pitch) apart, every tap of the window in turn:
    /// `visit(first output, outputs, first input, whether it is the first tap)`.
    #[inline(always)]
    fn walk(&self, mut visit: impl FnMut(usize, usize, usize, bool)) {
        let Self { input: Shape { channels, size, layout }, output, window: PoolWindow { kernel, stride } } = *self;
        let last = layout == Layout::Nhwc;
        // A row holds positions or channels.
        let (planes, len, scale) = if last { (1, channels, channels) } else { (channels, output.size[2], 1) };
        let [depth, height, width] = [output.size[0], output.size[1], if last { output.size[2] } else { 1 }];
        let mut row = 0;
        for plane in 0..planes {
            for (d, h, w) in (0..depth).flat_map(|d| (0..height).flat_map(move |h| (0..width).map(move |w| (d, h, w))))
            {
                let mut first = true;
                for kd in 0..kernel[0] {
                    for kh in 0..kernel[1] {
                        let line = (plane * size[0] + d * stride[0] + kd) * size[1] + h * stride[1] + kh;
                        for kw in 0..kernel[2] {
                            visit(row, len, (line * size[2] + w * stride[2] + kw) * scale, first);
                            first = false;
                        }
                    }
                }
                row += len;
            }
        }
    }

    /// Images in one thread's share.
    fn share(&self, context: &Context) -> usize {
        share(context.batch, self.input.len(), context.threads)
    }
}

/// `f(x, y)` for a row of outputs, whose inputs lie `pitch` apart.
#[inline(always)]
fn gather(x: &[f32], pitch: usize, y: &mut [f32], f: impl Fn(f32, &mut f32) + Copy) {
    // Behind the last one, the row is too short for a whole chunk.
    let Some((last, whole)) = y.split_last_mut() else { return };
    f(x[whole.len() * pitch], last);
    for (x, y) in x.chunks_exact(pitch).zip(whole) {
        f(x[0], y);
    }
}

vectorized! {
    /// The maxima of an image, channels first, over windows side by side of one row, two or three wide, or two.
    fn tile_maxima<'a>(geometry: Geometry, x: &'a [f32], y: &'a mut [f32], sources: &'a mut [u32]) {
        match geometry.window.kernel {
            [_, 1, 2] => tile_maxima_at::<1, 2>(geometry, x, y, sources),
            [_, 1, _] => tile_maxima_at::<1, 3>(geometry, x, y, sources),
            [_, _, 2] => tile_maxima_at::<2, 2>(geometry, x, y, sources),
            _ => tile_maxima_at::<2, 3>(geometry, x, y, sources),
        }
    }

    /// The sums of an image, times `scale`.
    fn averages<'a>(geometry: Geometry, x: &'a [f32], scale: f32, y: &'a mut [f32]) {
        match geometry.pitch() {
            1 => averages_at(geometry, 1, x, y),
            2 => averages_at(geometry, 2, x, y),
            3 => averages_at(geometry, 3, x, y),
            pitch => averages_at(geometry, pitch, x, y),
        }
        y.iter_mut().for_each(|y| *y *= scale);
    }

    /// The gradient of [`averages`].
    fn spread<'a>(geometry: Geometry, g: &'a [f32], scale: f32, dx: &'a mut [f32]) {
        dx.fill(0.0);
        let pitch = geometry.pitch();
        geometry.walk(#[inline(always)] |row, len, input, _| {
            let g = &g[row..][..len];
            if pitch == 1 {
                dx[input..][..len].iter_mut().zip(g).for_each(|(dx, g)| *dx += scale * g);
            } else {
                dx[input..].iter_mut().step_by(pitch).zip(g).for_each(|(dx, g)| *dx += scale * g);
            }
        });
    }

    /// Means of the planes of an image, channels first.
    fn plane_means<'a>(x: &'a [f32], positions: usize, y: &'a mut [f32]) {
        for (x, y) in x.chunks_exact(positions).zip(y) {
            let mut lanes = [0.0; LANES];
            let (whole, rest) = x.as_chunks::<LANES>();
            for x in whole {
                lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane += x);
            }
            lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += x);
            *y = fold(lanes) / positions as f32;
        }
    }

    /// Means of the channels of an image, channels last.
    fn row_means<'a>(x: &'a [f32], positions: usize, y: &'a mut [f32]) {
        y.fill(0.0);
        for x in x.chunks_exact(y.len()) {
            y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        }
        y.iter_mut().for_each(|y| *y /= positions as f32);
    }
}

/// The maxima of an image and their positions. It is no plain loop like the others, because the compiler would not vectorise it.
struct Maxima<'a> {
    geometry: Geometry,
    x: &'a [f32],
    y: &'a mut [f32],
    sources: &'a mut [u32],
}

impl Maxima<'_> {
    /// With a constant for the usual `pitch`es.
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, pitch: usize) {
        let Self { geometry, x, y, sources } = self;
        let steps: [u32; LANES] = std::array::from_fn(|i| i as u32);
        let width = S::F32_LANES.min(LANES);
        let steps = simd.partial_load_u32s(&steps[..width]);
        geometry.walk(
            #[inline(always)]
            |row, len, input, first| {
                let (x, y, sources) = (&x[input..], &mut y[row..][..len], &mut sources[row..][..len]);
                let input = input as u32;
                if first {
                    gather(x, pitch, y, |x, y| *y = x);
                    sources.iter_mut().enumerate().for_each(|(i, source)| *source = input + (i * pitch) as u32);
                    return;
                }
                let mut done = 0;
                if pitch == 1 && S::F32_LANES <= LANES {
                    let (xs, ys) = (S::as_simd_f32s(&x[..len]).0, S::as_mut_simd_f32s(&mut *y).0);
                    for ((x, y), source) in xs.iter().zip(ys).zip(S::as_mut_simd_u32s(&mut *sources).0) {
                        // The comparison is strict, so that the first of equal values counts. A NaN is passed on.
                        let not_above = simd
                            .and_m32s(simd.less_than_or_equal_f32s(*x, *x), simd.not_m32s(simd.less_than_f32s(*y, *x)));
                        let here = simd.add_u32s(simd.splat_u32s(input + done as u32), steps);
                        *y = simd.select_f32s(not_above, *y, *x);
                        *source = simd.select_u32s(not_above, *source, here);
                        done += S::F32_LANES;
                    }
                }
                for i in done..len {
                    let above = (x[i * pitch] > y[i]) | x[i * pitch].is_nan();
                    y[i] = if above { x[i * pitch] } else { y[i] };
                    sources[i] = if above { input + (i * pitch) as u32 } else { sources[i] };
                }
            },
        );
    }
}

impl WithSimd for Maxima<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.geometry.pitch() {
            1 => self.at(simd, 1),
            2 => self.at(simd, 2),
            3 => self.at(simd, 3),
            pitch => self.at(simd, pitch),
        }
    }
}

/// As [`Maxima`], in one go for each output.
#[inline(always)]
fn tile_maxima_at<const H: usize, const W: usize>(geometry: Geometry, x: &[f32], y: &mut [f32], sources: &mut [u32]) {
    let [_, height, width] = geometry.input.size;
    let [_, out_height, out_width] = geometry.output.size;
    let planes = x.chunks_exact(height * width).enumerate();
    let outputs = y.chunks_exact_mut(out_height * out_width).zip(sources.chunks_exact_mut(out_height * out_width));
    for ((plane, x), (y, sources)) in planes.zip(outputs) {
        let rows = y.chunks_exact_mut(out_width).zip(sources.chunks_exact_mut(out_width));
        for (row, (y, sources)) in rows.enumerate() {
            let lines: [&[[f32; W]]; H] =
                std::array::from_fn(|h| &x[(row * H + h) * width..][..width].as_chunks().0[..y.len()]);
            let start = ((plane * height + row * H) * width) as u32;
            for i in 0..y.len() {
                let (mut best, mut tap) = (lines[0][i][0], 0);
                for (h, line) in lines.iter().enumerate() {
                    for (w, &x) in line[i].iter().enumerate() {
                        let above = (x > best) | x.is_nan();
                        best = if above { x } else { best };
                        tap = if above { (h * width + w) as u32 } else { tap };
                    }
                }
                y[i] = best;
                sources[i] = start + (i * W) as u32 + tap;
            }
        }
    }
}

#[inline(always)]
fn averages_at(geometry: Geometry, pitch: usize, x: &[f32], y: &mut [f32]) {
    geometry.walk(
        #[inline(always)]
        |row, len, input, first| {
            let (x, y) = (&x[input..], &mut y[row..][..len]);
            if first {
                gather(x, pitch, y, |x, y| *y = x);
            } else {
                gather(x, pitch, y, |x, y| *y += x);
            }
        },
    );
}

/// The greatest element of each window. Of equal elements, the first one counts. A NaN wins if there is one.
#[derive(Debug)]
pub struct MaxPool {
    name: String,
    geometry: Geometry,
    /// For each output of the last batch, the position in its image from which it came.
    sources: Vec<u32>,
}

impl MaxPool {
    /// A layer for images of a shape.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] if the window exceeds the input.
    pub fn new(name: &str, input: Shape, window: PoolWindow) -> Result<Self, TrainError> {
        Ok(Self { name: name.to_owned(), geometry: Geometry::new(name, input, window)?, sources: Vec::new() })
    }
}

impl Layer for MaxPool {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Pooling
    }

    fn output(&self) -> Shape {
        self.geometry.output
    }

    fn operation(&self) -> Operation<'_> {
        Operation::MaxPool(self.geometry.window)
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let geometry = self.geometry;
        let (from, to) = (geometry.input.len(), geometry.output.len());
        if self.sources.len() < output.len() {
            self.sources.resize(output.len(), 0);
        }
        let PoolWindow { kernel, stride } = geometry.window;
        let tiles = geometry.input.layout == Layout::Nchw
            && kernel == stride
            && matches!(kernel, [1, 1 | 2, 2 | 3])
            && geometry.input.size[0] == geometry.output.size[0];
        let images = geometry.share(context);
        let jobs = input.chunks(images * from).zip(output.chunks_mut(images * to));
        let jobs = jobs.zip(self.sources.chunks_mut(images * to));
        for_each(context.threads, jobs, |((x, y), sources)| {
            let each = x.chunks_exact(from).zip(y.chunks_exact_mut(to)).zip(sources.chunks_exact_mut(to));
            for ((x, y), sources) in each {
                if tiles {
                    tile_maxima(geometry, x, y, sources);
                } else {
                    pulp::Arch::new().dispatch(Maxima { geometry, x, y, sources });
                }
            }
        });
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        _: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let Some(grad_input) = grad_input else { return Ok(()) };
        let (from, to) = (self.geometry.input.len(), self.geometry.output.len());
        let images = self.geometry.share(context);
        let jobs = grad_input.chunks_mut(images * from).zip(grad_output.chunks(images * to));
        for_each(context.threads, jobs.zip(self.sources.chunks(images * to)), |((dx, g), sources)| {
            dx.fill(0.0);
            let each = dx.chunks_exact_mut(from).zip(g.chunks_exact(to)).zip(sources.chunks_exact(to));
            for ((dx, g), sources) in each {
                g.iter().zip(sources).for_each(|(g, &source)| dx[source as usize] += g);
            }
        });
        Ok(())
    }
}

/// The mean of each window.
#[derive(Debug)]
pub struct AveragePool {
    name: String,
    geometry: Geometry,
}

impl AveragePool {
    /// A layer for images of a shape.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] if the window exceeds the input.
    pub fn new(name: &str, input: Shape, window: PoolWindow) -> Result<Self, TrainError> {
        Ok(Self { name: name.to_owned(), geometry: Geometry::new(name, input, window)? })
    }

    fn scale(&self) -> f32 {
        1.0 / self.geometry.window.kernel.iter().product::<usize>() as f32
    }
}

impl Layer for AveragePool {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Pooling
    }

    fn output(&self) -> Shape {
        self.geometry.output
    }

    fn operation(&self) -> Operation<'_> {
        Operation::AveragePool(self.geometry.window)
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let (geometry, scale) = (self.geometry, self.scale());
        let (from, to) = (geometry.input.len(), geometry.output.len());
        let images = geometry.share(context);
        let jobs = input.chunks(images * from).zip(output.chunks_mut(images * to));
        for_each(context.threads, jobs, |(x, y)| {
            let each = x.chunks_exact(from).zip(y.chunks_exact_mut(to));
            each.for_each(|(x, y)| averages(geometry, x, scale, y));
        });
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        _: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let Some(grad_input) = grad_input else { return Ok(()) };
        let (geometry, scale) = (self.geometry, self.scale());
        let (from, to) = (geometry.input.len(), geometry.output.len());
        let images = geometry.share(context);
        let jobs = grad_input.chunks_mut(images * from).zip(grad_output.chunks(images * to));
        for_each(context.threads, jobs, |(dx, g)| {
            let each = dx.chunks_exact_mut(from).zip(g.chunks_exact(to));
            each.for_each(|(dx, g)| spread(geometry, g, scale, dx));
        });
        Ok(())
    }
}

/// The mean of each channel.
#[derive(Debug)]
pub struct GlobalAveragePool {
    name: String,
    input: Shape,
}

impl GlobalAveragePool {
    /// A layer for images of a shape.
    pub fn new(name: &str, input: Shape) -> Self {
        Self { name: name.to_owned(), input }
    }
}

impl Layer for GlobalAveragePool {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Pooling
    }

    fn output(&self) -> Shape {
        Shape { size: [1; 3], ..self.input }
    }

    fn operation(&self) -> Operation<'_> {
        Operation::GlobalAveragePool
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let (from, to, positions) = (self.input.len(), self.input.channels, self.input.positions());
        let images = share(context.batch, from, context.threads);
        let jobs = input.chunks(images * from).zip(output.chunks_mut(images * to));
        for_each(context.threads, jobs, |(x, y)| {
            for (x, y) in x.chunks_exact(from).zip(y.chunks_exact_mut(to)) {
                match self.input.layout {
                    Layout::Nchw => plane_means(x, positions, y),
                    Layout::Nhwc => row_means(x, positions, y),
                }
            }
        });
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        _: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let Some(grad_input) = grad_input else { return Ok(()) };
        let (from, to, positions) = (self.input.len(), self.input.channels, self.input.positions());
        let scale = 1.0 / positions as f32;
        let images = share(context.batch, from, context.threads);
        let jobs = grad_input.chunks_mut(images * from).zip(grad_output.chunks(images * to));
        for_each(context.threads, jobs, |(dx, g)| {
            for (dx, g) in dx.chunks_exact_mut(from).zip(g.chunks_exact(to)) {
                match self.input.layout {
                    Layout::Nchw => {
                        dx.chunks_exact_mut(positions).zip(g).for_each(|(dx, g)| dx.fill(scale * g));
                    }
                    Layout::Nhwc => {
                        for dx in dx.chunks_exact_mut(to) {
                            dx.iter_mut().zip(g).for_each(|(dx, g)| *dx = scale * g);
                        }
                    }
                }
            }
        });
        Ok(())
    }
}
