//! Output positions that read padding.

use core::ops::Range;

use crate::desc::ConvDesc;
use crate::geometry::Reads;
use crate::layout::Layout;

/// The output positions, a range per axis, that read inside the input through a tap.
pub(crate) fn unpadded(desc: &ConvDesc, tap: usize) -> [Range<usize>; 3] {
    let k = desc.kernel_position(tap);
    [0, 1, 2].map(|axis| Reads::forward(desc, axis).unpadded(k[axis]).range())
}

/// Whether all output positions do.
pub(crate) fn is_inside(desc: &ConvDesc, unpadded: &[Range<usize>; 3]) -> bool {
    unpadded.iter().zip(desc.output_size()).all(|(range, size)| range.len() == size)
}

/// Adds to `sums`, one per output channel, the gradients of the positions outside the box `unpadded`.
pub(crate) fn sum_outside(desc: &ConvDesc, grad_output: &[f32], unpadded: &[Range<usize>; 3], sums: &mut [f32]) {
    let size = desc.output_size();
    let [d, h, w] = unpadded.clone();
    let all = size.map(|size| 0..size);
    // Planes before and after, rows of the planes between, columns of the rows between.
    let boxes = [
        [0..d.start, all[1].clone(), all[2].clone()],
        [d.end.max(d.start)..size[0], all[1].clone(), all[2].clone()],
        [d.clone(), 0..h.start, all[2].clone()],
        [d.clone(), h.end.max(h.start)..size[1], all[2].clone()],
        [d.clone(), h.clone(), 0..w.start],
        [d, h, w.end.max(w.start)..size[2]],
    ];
    let channels = desc.out_channels();
    for image in 0..desc.batch() {
        let image = &grad_output[image * desc.output_image_len()..][..desc.output_image_len()];
        for [ds, hs, ws] in &boxes {
            if ds.is_empty() || hs.is_empty() || ws.is_empty() {
                continue;
            }
            match desc.layout() {
                Layout::Nhwc => {
                    for (d, h) in ds.clone().flat_map(|d| hs.clone().map(move |h| (d, h))) {
                        let row = &image[((d * size[1] + h) * size[2] + ws.start) * channels..];
                        for pixel in row.chunks_exact(channels).take(ws.len()) {
                            sums.iter_mut().zip(pixel).for_each(|(sum, g)| *sum += g);
                        }
                    }
                }
                Layout::Nchw => {
                    for (sum, plane) in sums.iter_mut().zip(image.chunks_exact(size[0] * size[1] * size[2])) {
                        *sum += sum_box(plane, size, [ds.clone(), hs.clone(), ws.clone()]);
                    }
                }
            }
        }
    }
}

/// The sum over a box of one plane, along its longer side inside.
fn sum_box(plane: &[f32], size: [usize; 3], [ds, hs, ws]: [Range<usize>; 3]) -> f32 {
    let mut sum = 0.0;
    for d in ds {
        let plane = &plane[d * size[1] * size[2]..][..size[1] * size[2]];
        if ws.len() >= hs.len() {
            for h in hs.clone() {
                sum += plane[h * size[2]..][ws.clone()].iter().sum::<f32>();
            }
        } else {
            for w in ws.clone() {
                let mut column = 0.0;
                for h in hs.clone() {
                    column += plane[h * size[2] + w];
                }
                sum += column;
            }
        }
    }
    sum
}
