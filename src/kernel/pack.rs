//! Clamped patches, packed for the products of [`product`](super::product).
//!
//! Each element is loaded, clamped and stored once, whatever the number of output channels: about one cycle per vector,
//! against half a cycle of multiply-adds per vector and output channel.

use core::ops::Range;

use pulp::WithSimd;

use super::offsets::Offsets;
use super::product;
use super::vector::Vector;

/// Columns of positions: `columns[k][l] = f(source[offset[k] + position[l]]; θ[k])`.
pub(crate) struct PatchColumns<'a> {
    pub(crate) source: &'a [f32],
    pub(crate) offsets: Offsets<'a>,
    /// One per offset.
    pub(crate) thresholds: &'a [f32],
    /// One per lane, ascending: whole vectors.
    pub(crate) positions: &'a [u32],
    pub(crate) columns: &'a mut [f32],
}

/// Where a run of a patch comes from: the source of its first element inside, and the range of its elements that are
/// inside; the others are padding.
pub(crate) type Run = [u32; 3];

/// Rows of patches, `rows[p][k] = f(x; θ[k])` over the runs of each position one after another, cut to `steps`.
pub(crate) struct PatchRows<'a> {
    pub(crate) source: &'a [f32],
    /// `[row][run]`
    pub(crate) runs: &'a [Run],
    /// Elements of a run.
    pub(crate) run_len: usize,
    /// Runs of a row.
    pub(crate) runs_per_row: usize,
    /// The part of each row that is packed.
    pub(crate) steps: Range<usize>,
    /// One for each of the steps.
    pub(crate) thresholds: &'a [f32],
    /// `[row][step]`
    pub(crate) rows: &'a mut [f32],
}

/// Entry of [`PatchColumns`] for one instruction set.
///
/// # Safety
///
/// The instruction set of `S` is available.
pub(super) unsafe fn columns<S: Vector>(patch: PatchColumns<'_>) {
    // SAFETY: the caller's.
    let simd = unsafe { S::token() };
    let lanes = patch.positions.len();
    assert!(lanes.is_multiple_of(S::LANES) && (1..=product::most_vectors::<S>()).contains(&(lanes / S::LANES)));
    assert!(patch.positions.is_sorted_by(|a, b| a < b));
    let last = patch.positions[lanes - 1] as usize;
    assert!(last.saturating_add(patch.offsets.max()) < patch.source.len());
    let steps = patch.offsets.table().len();
    assert!(steps <= patch.thresholds.len() && steps.saturating_mul(lanes) <= patch.columns.len());
    simd.vectorize(PackColumns { simd, patch });
}

struct PackColumns<'a, S> {
    simd: S,
    patch: PatchColumns<'a>,
}

impl<S: Vector> WithSimd for PackColumns<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<T: pulp::Simd>(self, _: T) {
        let Self { simd, patch } = self;
        let PatchColumns { source, offsets, thresholds, positions, columns } = patch;
        let vectors = positions.len() / S::LANES;
        let mut consecutive = true;
        for v in 0..vectors {
            let first = v * S::LANES;
            // Ascending, so there is no gap where the ends are that far apart.
            consecutive &= positions[first + S::LANES - 1] - positions[first] == S::LANES as u32 - 1;
        }
        if consecutive && vectors == 2 {
            let starts = [positions[0] as usize, positions[S::LANES] as usize];
            let (source, columns) = (source.as_ptr(), columns.as_mut_ptr());
            for (k, &offset) in offsets.table().iter().enumerate() {
                // SAFETY: the entry has checked the largest offset with the last position, and the lengths.
                unsafe {
                    let theta = simd.splat_f32s(*thresholds.as_ptr().add(k));
                    let x = source.add(offset as usize);
                    let to = columns.add(k * 2 * S::LANES);
                    simd.store(to, simd.activate(simd.load(x.add(starts[0])), theta));
                    simd.store(to.add(S::LANES), simd.activate(simd.load(x.add(starts[1])), theta));
                }
            }
            return;
        }
        for v in 0..vectors {
            let positions = &positions[v * S::LANES..][..S::LANES];
            // SAFETY: as above; lane 0 of vector `v`.
            unsafe {
                let to = columns.as_mut_ptr().add(v * S::LANES);
                pack_vector(simd, source, offsets, thresholds, positions, to, vectors * S::LANES);
            }
        }
    }
}

/// The most lanes of a vector.
pub(super) const MOST_LANES: usize = 16;

/// Packs one vector of positions with gaps: each stretch of consecutive positions is a load of its own.
///
/// # Safety
///
/// The checks of [`columns`]; at `to`, a vector is writable at each step, `pitch` apart.
#[inline(always)]
unsafe fn pack_vector<S: Vector>(
    simd: S,
    source: &[f32],
    offsets: Offsets<'_>,
    thresholds: &[f32],
    positions: &[u32],
    to: *mut f32,
    pitch: usize,
) {
    let mut lane_numbers = [0.0; MOST_LANES];
    for (l, number) in lane_numbers.iter_mut().enumerate() {
        *number = l as f32;
    }
    // SAFETY: a vector has at most MOST_LANES lanes.
    let lane_numbers = unsafe { simd.load(lane_numbers.as_ptr()) };
    // Where a vector is read that has the right elements from some lane on. Positions ascend, so a later stretch is
    // read at a later place; all loads end by the last position.
    let mut shifts = [positions[0] as usize; MOST_LANES];
    let mut starts = [lane_numbers; MOST_LANES];
    let mut stretches = 1;
    for lane in 1..S::LANES {
        if positions[lane] != positions[lane - 1] + 1 {
            shifts[stretches] = positions[lane] as usize - lane;
            starts[stretches] = simd.splat_f32s(lane as f32);
            stretches += 1;
        }
    }
    for (k, &offset) in offsets.table().iter().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let x = source.as_ptr().add(offset as usize);
            let mut value = simd.load(x.add(shifts[0]));
            for s in 1..stretches {
                let later = simd.greater_than_or_equal_f32s(lane_numbers, starts[s]);
                value = simd.select_f32s(later, simd.load(x.add(shifts[s])), value);
            }
            let theta = simd.splat_f32s(*thresholds.as_ptr().add(k));
            simd.store(to.add(k * pitch), simd.activate(value, theta));
        }
    }
}

/// Entry of [`PatchRows`] for one instruction set.
///
/// # Safety
///
/// The instruction set of `S` is available.
pub(super) unsafe fn rows<S: Vector>(patch: PatchRows<'_>) {
    // SAFETY: the caller's.
    let simd = unsafe { S::token() };
    simd.vectorize(PackRows { simd, patch });
}

struct PackRows<'a, S> {
    simd: S,
    patch: PatchRows<'a>,
}

impl<S: Vector> WithSimd for PackRows<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<T: pulp::Simd>(self, _: T) {
        let Self { simd, patch } = self;
        let PatchRows { source, runs, run_len, runs_per_row, steps, thresholds, rows } = patch;
        let pitch = steps.len();
        for (runs, row) in runs.chunks_exact(runs_per_row).zip(rows.chunks_exact_mut(pitch)) {
            let mut step = steps.start;
            while step < steps.end {
                let (run, first) = (step / run_len, step % run_len);
                let end = run_len.min(first + steps.end - step);
                let [at, start, inside_end] = runs[run].map(|n| n as usize);
                // The elements `first..end` of the run: padding, inside, padding.
                let from = start.clamp(first, end);
                let until = inside_end.clamp(from, end);
                let out = &mut row[step - steps.start..][..end - first];
                let thetas = &thresholds[step - steps.start..][..end - first];
                pad(&mut out[..from - first], &thetas[..from - first]);
                if from < until {
                    let x = &source[at + from - start..][..until - from];
                    clamp(simd, x, &thetas[from - first..until - first], &mut out[from - first..until - first]);
                }
                pad(&mut out[until - first..], &thetas[until - first..]);
                step += end - first;
            }
        }
    }
}

/// Padding is zero before it is clamped.
#[inline(always)]
fn pad(out: &mut [f32], thetas: &[f32]) {
    for (out, theta) in out.iter_mut().zip(thetas) {
        *out = if *theta > 0.0 { *theta } else { 0.0 };
    }
}

/// `out[i] = f(x[i]; θ[i])` for slices of one length.
#[inline(always)]
fn clamp<S: Vector>(simd: S, x: &[f32], thetas: &[f32], out: &mut [f32]) {
    let len = x.len();
    assert!(thetas.len() == len && out.len() == len);
    if len < S::LANES {
        for i in 0..len {
            // Keeps a NaN.
            out[i] = if x[i] <= thetas[i] { thetas[i] } else { x[i] };
        }
        return;
    }
    let mut i = 0;
    loop {
        // The last vector overlaps the one before.
        let at = if i + S::LANES <= len { i } else { len - S::LANES };
        // SAFETY: `at + LANES ≤ len`, the length of all three.
        unsafe {
            let theta = simd.load(thetas.as_ptr().add(at));
            simd.store(out.as_mut_ptr().add(at), simd.activate(simd.load(x.as_ptr().add(at)), theta));
        }
        i += S::LANES;
        if i >= len {
            break;
        }
    }
}
