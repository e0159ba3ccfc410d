//! Output positions that read padding.

use core::ops::Range;

use crate::desc::ConvDesc;
use crate::geometry::Reads;
use crate::sums::add_positions;

/// The output positions that read the input, not padding, through a tap: a range per axis.
pub(crate) fn unpadded(desc: &ConvDesc, tap: usize) -> [Range<usize>; 3] {
    let k = desc.kernel_position(tap);
    [0, 1, 2].map(|axis| Reads::forward(desc, axis).unpadded(k[axis]).range())
}

/// Whether no output position reads padding through the tap that `unpadded` belongs to.
pub(crate) fn is_inside(desc: &ConvDesc, unpadded: &[Range<usize>; 3]) -> bool {
    unpadded.iter().zip(desc.output_size()).all(|(range, size)| range.len() == size)
}

/// Adds to `sums`, one for each of some output channels, the gradients of the positions outside the box `unpadded`.
pub(crate) fn sum_outside(
    desc: &ConvDesc,
    grad_output: &[f32],
    [d, h, w]: &[Range<usize>; 3],
    channels: Range<usize>,
    sums: &mut [f32],
) {
    let size = desc.output_size();
    let [_, rows, columns] = size.map(|size| 0..size);
    // Planes before and after, rows of the planes between, columns of the rows between.
    let mut boxes = [
        [0..d.start, rows.clone(), columns.clone()],
        [d.end.max(d.start)..size[0], rows, columns.clone()],
        [d.clone(), 0..h.start, columns.clone()],
        [d.clone(), h.end.max(h.start)..size[1], columns],
        [d.clone(), h.clone(), 0..w.start],
        [d.clone(), h.clone(), w.end.max(w.start)..size[2]],
    ];
    // Most boxes are empty. They are dropped here, so that not every channel of every image looks at them.
    let mut used = 0;
    for index in 0..boxes.len() {
        if !boxes[index].iter().any(Range::is_empty) {
            boxes.swap(used, index);
            used += 1;
        }
    }
    add_positions(&desc.output_tensor(), grad_output, &boxes[..used], channels, sums);
}
