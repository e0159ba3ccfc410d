//! Kernel of the gradients of inputs and thresholds with input channels in lanes: products of the output's gradient with weights,
//! masked by the input.
//!
//! A tile is `R` inputs at a constant distance, read through the same taps, by `V` vectors of input channels. For each tap the
//! sum over output channels runs in registers. Then a mask sends it to the input's gradient, where the input exceeds the
//! threshold, or to the threshold's. The input's gradient lies in the first-level cache between taps. The first tap stores, the
//! other taps add. A uniform threshold has one mask for all taps, and a linear layer has none. In these two cases the sum
//! continues from tap to tap.
//!
//! | | tile | loads, multiply-adds per output channel |
//! |---|---|---|
//! | AVX-512 | 6 × 4 | 10, 24 |
//! | AVX2 | 3 × 4 (rows held, weights streamed) | 7, 12 |
//! | NEON | 5 × 4 (four output channels per load of a row) | 5.25, 20 |
//!
//! The code that walks the tiles uses no special instructions. Each shape of a tile is a function of its own that uses the
//! instruction set. So no function grows with the number of shapes. The functions ask for the mask when they run. A branch per tap
//! costs little beside the sum over output channels, and a function per mask would be three times the code.

use super::Kernel;
use super::tile::{Sums, few, load, outlined, store, unrolled, with_const};
use super::vector::{MOST_LANES, Vector, ZEROS};
use super::view::PixelsMut;
use crate::geometry::{Lattice, Panels};

/// Which gradient receives the sum of an input and a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// To the input if it exceeds the tap's threshold; to the threshold if it does not.
    PerTap,
    /// As `PerTap`, with one threshold for all taps. A sum that goes to the threshold may be counted for any tap.
    Uniform,
    /// To the input.
    Linear,
}

/// The gradients of some panels of input channels at some inputs. All inputs are read through the same taps. `G` is the sum over
/// output channels, `G[i][t][l] = Σ_d grad_output[i][t][d] · weight[t][d][l]`:
///
/// ```text
/// grad_input[i][l] (+)= Σ_t G[i][t][l]  where input[i][l] > θ[t][l]
/// sums[t][l]        +=  Σ_i G[i][t][l]  where input[i][l] ≤ θ[t][l]
/// ```
pub(crate) struct MaskedProducts<'a> {
    /// The inputs. Their first steps lead through the input and its gradient, their second steps through the output's gradient.
    pub(crate) inputs: Lattice<2>,
    /// The taps; there may be none. Their first steps count taps among all taps. Their second steps lead backward through the
    /// output's gradient.
    pub(crate) taps: Lattice<2>,
    /// The number of the first tap among all taps.
    pub(crate) first_tap: usize,
    /// The number of taps in a panel's weights, thresholds and sums.
    pub(crate) all_taps: usize,
    /// The number of panels. All have the same width. If there are several, they consist of whole vectors.
    pub(crate) panels: usize,
    /// The input from the first input's first channel on. The kernel does not read it if the mask is linear.
    pub(crate) input: &'a [f32],
    pub(crate) grad_output: &'a [f32],
    /// The offset in `grad_output` of the element that meets the first input through the first tap.
    pub(crate) first_output: usize,
    /// Output channels to sum over.
    pub(crate) depth: usize,
    /// `[panel][tap][output channel][lane]`
    pub(crate) weight: &'a [f32],
    /// `[panel][tap][lane]`
    pub(crate) thresholds: &'a [f32],
    /// `[panel][tap][lane]`. The kernel adds to it, also in lanes without a channel. Not used if the mask is linear.
    pub(crate) sums: &'a mut [f32],
    /// Channels of each panel.
    pub(crate) channels: usize,
    /// The gradient at the inputs, for the channels of all panels.
    pub(crate) grad_input: Option<PixelsMut<'a>>,
    /// Whether `grad_input` is added to.
    pub(crate) add: bool,
    pub(crate) mask: Mask,
    /// Most inputs per tile.
    pub(crate) tile: usize,
}

/// Most vectors of a tile.
pub(super) const fn most_vectors<S: Vector>() -> usize {
    if S::FEW_TILES && S::LANES > 1 { 2 } else { 4 }
}

/// Most inputs of a tile.
///
/// Beside the sums, the registers hold the operands of all inputs and one vector of weights, or all vectors of weights and one
/// operand.
pub(super) const fn most_rows<S: Vector>(vectors: usize) -> usize {
    if S::FEW_TILES && S::LANES > 1 {
        return 2;
    }
    match (S::REGISTERS, vectors, S::AT_HAND) {
        (0..32, 3.., _) => 3,
        (0..32, 2, _) => 6,
        (_, 4, 1) => 6,
        (_, 4, _) => 5,
        (_, 3, 2..) => 6,
        _ => 8,
    }
}

/// Elements of the largest tile: 6 × 4 vectors, or 8 × 3.
const MOST_TILE: usize = 24 * MOST_LANES;

/// The chains of multiply-adds that keep two units busy: a multiply-add takes four cycles, and each unit begins one per cycle. A
/// tile with fewer sums takes as long as a tile with this many.
const CHAINS: usize = 8;

impl Kernel for MaskedProducts<'_> {
    fn check<S: Vector>(&self) {
        let vectors = self.channels.div_ceil(S::LANES);
        assert!((1..=most_vectors::<S>()).contains(&vectors) && self.tile >= 1);
        assert!(self.inputs.counts.iter().all(|&count| count > 0));
        let width = vectors * S::LANES;
        assert!(self.panels == 1 || self.channels == width);
        let channels = self.channels.saturating_mul(self.panels);
        if !self.taps.counts.contains(&0) {
            let taps = self.first_tap.saturating_add(self.taps.last(0)).saturating_add(1);
            assert!(taps <= self.all_taps);
            let lanes = self.all_taps.saturating_mul(width).saturating_mul(self.panels);
            assert!(lanes.saturating_mul(self.depth) <= self.weight.len());
            assert!(self.mask == Mask::Linear || lanes <= self.thresholds.len() && lanes <= self.sums.len());
            assert!(self.taps.last(1) <= self.first_output);
            let end = self.first_output.saturating_add(self.inputs.last(1)).saturating_add(self.depth);
            assert!(end <= self.grad_output.len());
        }
        assert!(self.mask == Mask::Linear || self.inputs.last(0).saturating_add(channels) <= self.input.len());
        if let Some(pixels) = &self.grad_input {
            let Lattice { counts, steps: [steps, _] } = self.inputs;
            assert!(pixels.positions == Lattice { counts, steps: [steps] } && pixels.channels == channels);
        }
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        let whole = self.channels.is_multiple_of(S::LANES);
        // SAFETY: checked; without copies there are whole vectors and a gradient.
        unsafe {
            if whole && self.grad_input.is_some() {
                walk(simd, self, None);
            } else {
                walk_with_copies(simd, self);
            }
        }
    }
}

/// What the tiles of a call share.
struct Panel {
    taps: Lattice<2>,
    depth: usize,
    /// Those of the first tap.
    weight: *const f32,
    thresholds: *const f32,
    sums: *mut f32,
    /// Whether the gradient of the input is added to, not replaced. Never with a uniform mask.
    add: bool,
    mask: Mask,
}

/// Where a tile lies: its first input, and the distance of the others.
#[derive(Clone, Copy)]
struct Place {
    input: *const f32,
    input_step: usize,
    /// Through the first tap.
    grad_output: *const f32,
    grad_output_step: usize,
    grad_input: *mut f32,
    grad_input_step: usize,
    /// The next tile: its first input, the gradient of that input, and the distance of its inputs. Only prefetches use this.
    next: (*const f32, *mut f32, usize),
}

/// A tile of some shape.
///
/// # Safety
///
/// The panel and the place are those of a [checked](Kernel#checked) call, with as many inputs and vectors as the tile has
/// [in reach](Vector#in-reach) at the place.
type Tile<S> = unsafe fn(S, &Panel, &Place);

/// Copies of a tile of inputs and of their gradients, each with room for the largest tile of the call.
type Copies<'a> = [&'a mut [f32]; 2];

/// Elements of a small tile: 3 × 4 vectors of eight lanes. The function fills its copies with zeros before the first tile, and
/// filling copies of the largest size would take longer than a small tile.
const SMALL_TILE: usize = 6 * MOST_LANES;

/// [`walk`], with copies on its stack.
///
/// # Safety
///
/// The call is [checked](Kernel#checked).
unsafe fn walk_with_copies<S: Vector>(simd: S, call: MaskedProducts<'_>) {
    let vectors = call.channels.div_ceil(S::LANES);
    // SAFETY: checked.
    unsafe {
        if most_rows::<S>(vectors) * vectors * S::LANES <= SMALL_TILE {
            walk_with_copies_of::<S, SMALL_TILE>(simd, call);
        } else {
            walk_with_copies_of::<S, MOST_TILE>(simd, call);
        }
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked), and none of its tiles has more than `LEN` elements.
#[inline(never)]
unsafe fn walk_with_copies_of<S: Vector, const LEN: usize>(simd: S, call: MaskedProducts<'_>) {
    let [mut inputs, mut gradients] = [[0.0; LEN]; 2];
    // SAFETY: checked, and the copies have room.
    unsafe { walk(simd, call, Some([&mut inputs, &mut gradients])) }
}

/// Walks all tiles.
///
/// # Safety
///
/// The call is [checked](Kernel#checked). There are copies with room for its tiles, or whole vectors of channels and a gradient of the input.
#[inline(never)]
unsafe fn walk<S: Vector>(simd: S, call: MaskedProducts<'_>, mut copies: Option<Copies<'_>>) {
    let vectors = call.channels.div_ceil(S::LANES);
    let width = vectors * S::LANES;
    let no_taps = call.taps.counts.contains(&0);
    let mask = match call.mask {
        // Without taps the gradient is zero, which needs no masks.
        _ if no_taps => Mask::Linear,
        // This mask keeps the sums over the taps in the gradient. It cannot if the gradient already holds values to add to.
        Mask::Uniform if call.add => Mask::PerTap,
        mask => mask,
    };
    if no_taps && (call.add || call.grad_input.is_none()) {
        return;
    }
    let inputs = call.inputs.joined();
    let most = most_rows::<S>(vectors).min(call.tile);
    // Most boxes of inputs are a single line.
    let line = inputs.counts[..3] == [1; 3];
    let axis = if line { 3 } else { inputs.tile_axis(most, CHAINS.div_ceil(vectors)) };
    let [input_step, grad_output_step] = inputs.steps.map(|steps| steps[axis]);
    let tiles = Panels::of_at_most(inputs.counts[axis], most);
    let larger = tiles.len() % tiles.count();
    let sizes = [(larger, tiles.max()), (tiles.count() - larger, tiles.min())];
    let sizes = sizes.map(|(count, rows)| (count, rows, tile_of::<S>(rows, vectors)));
    let mut counts = inputs.counts;
    counts[axis] = 1;
    for index in 0..call.panels {
        // Several panels have whole vectors, so each begins where the one before ends.
        let (first, first_tap) = (index * width, (index * call.all_taps + call.first_tap) * width);
        let mut targets = Targets {
            input: if mask == Mask::Linear { &[] } else { &call.input[first..] },
            grad_input: call.grad_input.as_ref().map(|pixels| pixels.first.wrapping_add(first)),
            copies: copies.as_mut().map(|copies| copies.each_mut().map(|copy| &mut **copy)),
            add: call.add,
            channels: call.channels,
        };
        let panel = Panel {
            taps: call.taps,
            depth: call.depth,
            weight: call.weight.as_ptr().wrapping_add(first_tap * call.depth),
            thresholds: call.thresholds.as_ptr().wrapping_add(first_tap),
            sums: call.sums.as_mut_ptr().wrapping_add(first_tap),
            add: call.add && targets.copies.is_none(),
            mask,
        };
        let mut run = |(input, grad_output, size): (usize, usize, usize), next| {
            let (_, rows, tile) = sizes[size];
            #[cfg(feature = "internal-testing")]
            super::seen::see::<S>(super::Tiles::BackwardInput, mask as usize, rows, vectors);
            // SAFETY: checked: the places of the lattice lie in the slices, and so do the elements that they meet through each
            // tap, for each panel. `Targets::place` makes sure that all vectors of the input and of its gradient are in reach.
            unsafe {
                let at = targets.place([input, next], input_step, rows, width);
                let grad_output = call.grad_output.as_ptr().wrapping_add(call.first_output + grad_output);
                tile(simd, &panel, &Place { grad_output, grad_output_step, ..at });
                targets.finish(input, input_step, rows, width);
            }
        };
        // The loop runs each tile one round late, when it knows the next tile, which the tile prefetches.
        let mut last = None;
        for a in 0..counts[0] {
            for b in 0..counts[1] {
                for c in 0..counts[2] {
                    for d in 0..counts[3] {
                        let start = |steps: [usize; 4]| a * steps[0] + b * steps[1] + c * steps[2] + d * steps[3];
                        let [mut input, mut grad_output] = inputs.steps.map(start);
                        for (size, (count, rows, _)) in sizes.into_iter().enumerate() {
                            for _ in 0..count {
                                if let Some(last) = last.replace((input, grad_output, size)) {
                                    run(last, input);
                                }
                                // Wraps, because a step that is never taken may be the largest `usize`.
                                input = input.wrapping_add(rows.wrapping_mul(input_step));
                                grad_output = grad_output.wrapping_add(rows.wrapping_mul(grad_output_step));
                            }
                        }
                    }
                }
            }
        }
        if let Some(last) = last {
            run(last, last.0);
        }
    }
}

/// Inputs and their gradients. A tile writes the gradient to a copy if its vectors would reach beyond the panel's channels, or if
/// the gradient is not requested.
struct Targets<'a> {
    /// Empty where it is not read.
    input: &'a [f32],
    grad_input: Option<*mut f32>,
    copies: Option<Copies<'a>>,
    /// Whether the values of a copy are added to the gradient.
    add: bool,
    channels: usize,
}

impl Targets<'_> {
    /// The place of a tile and that of the next one.
    ///
    /// # Safety
    ///
    /// The inputs and the targets are those of a [checked](Kernel#checked) call.
    unsafe fn place(&mut self, [first, next]: [usize; 2], step: usize, rows: usize, width: usize) -> Place {
        let input = self.input.as_ptr();
        let grad_input = self.grad_input.unwrap_or(core::ptr::null_mut());
        let mut place = Place {
            input: input.wrapping_add(first),
            input_step: step,
            grad_output: core::ptr::null(),
            grad_output_step: 0,
            grad_input: grad_input.wrapping_add(first),
            grad_input_step: step,
            next: (input.wrapping_add(next), grad_input.wrapping_add(next), step),
        };
        if let Some([inputs, grad_inputs]) = &mut self.copies {
            (place.grad_input, place.grad_input_step) = (grad_inputs.as_mut_ptr(), width);
            // The last vector may read what follows its channels, but not beyond the end of the input.
            if !self.input.is_empty() && first + (rows - 1) * step + width > self.input.len() {
                for (row, copy) in inputs.chunks_exact_mut(width).take(rows).enumerate() {
                    copy[..self.channels].copy_from_slice(&self.input[first + row * step..][..self.channels]);
                }
                (place.input, place.input_step) = (inputs.as_ptr(), width);
            }
        }
        place
    }

    /// Stores the gradient that a tile has left in the copy.
    ///
    /// # Safety
    ///
    /// The inputs and the targets are those of a [checked](Kernel#checked) call.
    unsafe fn finish(&mut self, first: usize, step: usize, rows: usize, width: usize) {
        let (Some([_, copy]), Some(grad_input)) = (&self.copies, self.grad_input) else { return };
        for (row, copy) in copy.chunks_exact(width).take(rows).enumerate() {
            // SAFETY: checked: the gradient holds the panel's channels at each place, and the call alone may write them.
            let to = unsafe { core::slice::from_raw_parts_mut(grad_input.add(first + row * step), self.channels) };
            if self.add {
                to.iter_mut().zip(copy).for_each(|(to, from)| *to += from);
            } else {
                to.copy_from_slice(&copy[..self.channels]);
            }
        }
    }
}

/// The tile of a shape.
fn tile_of<S: Vector>(rows: usize, vectors: usize) -> Tile<S> {
    with_const!(vectors, V in [1 2 3 4] => {
        with_const!(rows, R in [1 2 3 4 5 6 7 8] if V <= most_vectors::<S>() && R <= most_rows::<S>(V) => {
            return tile::<S, R, V>;
        });
    });
    unreachable!("no tile of {rows} inputs and {vectors} vectors")
}

/// A tile as a function of its own.
///
/// # Safety
///
/// As [`Tile`] asks.
unsafe fn tile<S: Vector, const R: usize, const V: usize>(simd: S, panel: &Panel, place: &Place) {
    // SAFETY: as this function asks.
    outlined!(simd => unsafe { run_tile::<S, R, V>(simd, panel, place) });
}

/// # Safety
///
/// As [`Tile`] asks.
#[inline(always)]
unsafe fn run_tile<S: Vector, const R: usize, const V: usize>(simd: S, panel: &Panel, place: &Place) {
    prefetch::<S, R, V>(simd, panel, place);
    let zeros = [[simd.splat_f32s(0.0); V]; R];
    let [tap_steps, output_steps] = panel.taps.steps;
    let [_, depths, heights, widths] = panel.taps.counts;
    let width = V * S::LANES;
    let Place { grad_input: to, grad_input_step: to_step, .. } = *place;
    let per_tap = panel.mask == Mask::PerTap;
    let mut fresh = !panel.add;
    // The taps whose sums the tile stores or adds before it masks.
    let mut unmasked = match panel.mask {
        Mask::PerTap => 0,
        Mask::Uniform => depths * heights * widths - 1,
        Mask::Linear => usize::MAX,
    };
    // SAFETY: the taps are those of a checked call. Its slices hold the elements that the inputs meet through each tap.
    unsafe {
        for d in 0..depths {
            for h in 0..heights {
                for w in 0..widths {
                    let tap = (d * tap_steps[1] + h * tap_steps[2] + w * tap_steps[3]) * width;
                    let before = d * output_steps[1] + h * output_steps[2] + w * output_steps[3];
                    // The sums over several taps are kept in the gradient. If they stayed in registers from tap to tap, the
                    // compiler would spill some of them at every step.
                    let mut sums = zeros;
                    if !per_tap && !fresh {
                        unrolled!(ROW in 0..R => sums[ROW] = load::<S, V>(simd, to.add(ROW * to_step)));
                    }
                    let rows = Rows::<R>::new(place.grad_output.sub(before), place.grad_output_step);
                    accumulate(simd, &mut sums, rows, panel.weight.add(tap * panel.depth), panel.depth);
                    if unmasked == 0 {
                        // What the first tap is added to is zero, and so is what the sum of all taps is added to.
                        let zeros = fresh || !per_tap;
                        let (before, step) = if zeros { (ZEROS.as_ptr(), 0) } else { (to.cast_const(), to_step) };
                        let own = if per_tap { tap } else { 0 };
                        mask::<S, R, V>(
                            simd,
                            &sums,
                            place,
                            [before, panel.thresholds.add(own)],
                            step,
                            panel.sums.add(own),
                        );
                    } else {
                        store(simd, sums, to, to_step);
                        unmasked -= 1;
                    }
                    fresh = false;
                }
            }
        }
        // Without taps.
        if panel.mask == Mask::Linear && fresh {
            store(simd, zeros, to, to_step);
        }
    }
}

/// Prefetches the next tile's inputs, if they are read, and their gradients, while this tile is computed.
#[inline(always)]
fn prefetch<S: Vector, const R: usize, const V: usize>(simd: S, panel: &Panel, place: &Place) {
    let (input, to, step) = place.next;
    unrolled!(ROW in 0..R => prefetch_row::<S, V, true>(simd, to.wrapping_add(ROW * step)));
    if panel.mask != Mask::Linear {
        unrolled!(ROW in 0..R => prefetch_row::<S, V, false>(simd, input.wrapping_add(ROW * step)));
    }
}

/// Prefetches the lines of a row of `V` vectors.
#[inline(always)]
fn prefetch_row<S: Vector, const V: usize, const WRITING: bool>(simd: S, row: *const f32) {
    // Lines are of 16 elements.
    let last = V * S::LANES - 1;
    for (offset, holds) in [(0, true), (last, true), (16, last > 32), (32, last > 32)] {
        let line = row.wrapping_add(offset);
        if holds && WRITING {
            simd.prefetch_for_writing(line.cast_mut());
        } else if holds {
            simd.prefetch(line);
        }
    }
}

/// Pointers to every third row, and the distance of rows. Instructions scale the distance by 0, 1 or 2, so the pointers reach all
/// rows.
#[derive(Clone, Copy)]
struct Rows<const R: usize> {
    thirds: [*const f32; 3],
    step: usize,
}

impl<const R: usize> Rows<R> {
    #[inline(always)]
    fn new(first: *const f32, step: usize) -> Self {
        // Wraps, because a tile may have fewer than three or six rows. Such pointers are not used then.
        let third = step.wrapping_mul(3);
        Self { thirds: [first, first.wrapping_add(third), first.wrapping_add(third).wrapping_add(third)], step }
    }

    /// Element `U` of `N` of row `ROW`, in all lanes.
    ///
    /// # Safety
    ///
    /// In reach: `N` elements of each of the `R` rows; `ROW < R`, `U < N`.
    #[inline(always)]
    unsafe fn broadcast<S: Vector, const ROW: usize, const U: usize, const N: usize>(self, simd: S) -> S::f32s {
        // SAFETY: in reach.
        unsafe { simd.broadcast::<U, N>(self.thirds[ROW / 3].add(ROW % 3 * self.step)) }
    }

    #[inline(always)]
    fn advance(&mut self, steps: usize) {
        let [a, b, c] = self.thirds;
        self.thirds = [a.wrapping_add(steps), b.wrapping_add(steps), c.wrapping_add(steps)];
    }
}

/// `sums[r][v] += Σ_d g[r][d] · w[d][v]`
///
/// # Safety
///
/// In reach: `depth` elements of each of `R` rows, `depth` steps of `V` vectors of weights.
#[inline(always)]
unsafe fn accumulate<S: Vector, const R: usize, const V: usize>(
    simd: S,
    sums: &mut Sums<S, R, V>,
    mut rows: Rows<R>,
    mut weight: *const f32,
    depth: usize,
) {
    /// Steps per iteration of the loop.
    const UNROLL: usize = 4;
    let mut left = depth;
    // SAFETY: in reach: both loops end at step `depth`.
    unsafe {
        if const { !S::FEW_TILES } {
            while left >= UNROLL {
                few!(U in 0..UNROLL => step::<S, R, V, U, UNROLL>(simd, sums, rows, weight));
                rows.advance(UNROLL);
                weight = weight.add(UNROLL * V * S::LANES);
                left -= UNROLL;
            }
        }
        while left > 0 {
            step::<S, R, V, 0, 1>(simd, sums, rows, weight);
            rows.advance(1);
            weight = weight.add(V * S::LANES);
            left -= 1;
        }
    }
}

/// Step `U` of `N`.
///
/// # Safety
///
/// In reach: `N` elements of each row, `N` steps of weights; `U < N`.
#[inline(always)]
unsafe fn step<S: Vector, const R: usize, const V: usize, const U: usize, const N: usize>(
    simd: S,
    sums: &mut Sums<S, R, V>,
    rows: Rows<R>,
    weight: *const f32,
) {
    let zero = simd.splat_f32s(0.0);
    // SAFETY: in reach, for `U < N`.
    unsafe {
        let weight = weight.add(U * V * S::LANES);
        if R < V {
            let mut held = [zero; R];
            few!(ROW in 0..R => held[ROW] = rows.broadcast::<S, ROW, U, N>(simd));
            few!(VECTOR in 0..V => {
                let w = simd.load(weight.add(VECTOR * S::LANES));
                few!(ROW in 0..R => sums[ROW][VECTOR] = simd.mul_add(held[ROW], w, sums[ROW][VECTOR]));
            });
        } else {
            let mut held = [zero; V];
            few!(VECTOR in 0..V => held[VECTOR] = simd.load(weight.add(VECTOR * S::LANES)));
            unrolled!(ROW in 0..R => {
                let g = rows.broadcast::<S, ROW, U, N>(simd);
                few!(VECTOR in 0..V => sums[ROW][VECTOR] = simd.mul_add(g, held[VECTOR], sums[ROW][VECTOR]));
            });
        }
    }
}

/// Sends each sum to the gradient of the input, where it is added to `before`, or to that of the threshold.
///
/// # Safety
///
/// In reach: `V` vectors of each of `R` inputs, of their gradients and of the rows at `before`, and `V` vectors at `thetas` and at
/// `held`.
#[inline(always)]
unsafe fn mask<S: Vector, const R: usize, const V: usize>(
    simd: S,
    sums: &Sums<S, R, V>,
    place: &Place,
    [before, thetas]: [*const f32; 2],
    before_step: usize,
    held: *mut f32,
) {
    // SAFETY: in reach: `ROW < R` and `VECTOR < V`.
    few!(VECTOR in 0..V => unsafe {
        let (thetas, held) = (thetas.add(VECTOR * S::LANES), held.add(VECTOR * S::LANES));
        let theta = simd.load(thetas);
        // Two chains of additions have half the latency of one.
        let mut own = [simd.load(held), simd.splat_f32s(0.0)];
        unrolled!(ROW in 0..R => {
            let x = simd.load(place.input.add(ROW * place.input_step + VECTOR * S::LANES));
            let to = place.grad_input.add(ROW * place.grad_input_step + VECTOR * S::LANES);
            let [passes, stops] = simd.divide(x, theta);
            let sum = sums[ROW][VECTOR];
            own[ROW % 2] = simd.add_where(stops, own[ROW % 2], sum);
            let before = simd.load(before.add(ROW * before_step + VECTOR * S::LANES));
            simd.store(to, simd.add_where(passes, before, sum));
        });
        simd.store(held, if R == 1 { own[0] } else { simd.add_f32s(own[0], own[1]) });
    });
}
