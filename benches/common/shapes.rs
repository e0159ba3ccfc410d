//! The layers that are measured.

use convrelu::{ConvDesc, Layout};

/// Names and descriptors: d1–d4 DenseNet · v1–v4 VGG-16 · r1–r3 ResNet-18 · g1 depthwise · t1–t3 character CNN, 1D ·
/// c1–c2 C3D-like, 3D.
pub(crate) fn shapes(layout: Layout) -> [(&'static str, ConvDesc); 17] {
    let conv = |batch, groups, [inputs, outputs]: [usize; 2], size, kernel, stride| {
        ConvDesc::conv2d(batch, inputs, outputs, [size; 2], [kernel; 2])
            .padding([kernel / 2; 2])
            .stride([stride; 2])
            .groups(groups)
            .layout(layout)
            .build()
            .expect("a layer of the table")
    };
    let text = |inputs, size, kernel| {
        ConvDesc::conv1d(8, inputs, 256, [size], [kernel]).layout(layout).build().expect("a layer of the table")
    };
    let video = |inputs, outputs, [depth, size]: [usize; 2]| {
        ConvDesc::conv3d(1, inputs, outputs, [depth, size, size], [3; 3])
            .padding([1; 3])
            .layout(layout)
            .build()
            .expect("a layer of the table")
    };
    [
        ("d1", conv(8, 1, [48, 12], 32, 3, 1)),
        ("d2", conv(8, 1, [96, 48], 32, 1, 1)),
        ("d3", conv(8, 1, [48, 12], 16, 3, 1)),
        ("d4", conv(8, 1, [48, 12], 8, 3, 1)),
        ("v1", conv(8, 1, [3, 64], 32, 3, 1)),
        ("v2", conv(8, 1, [64, 64], 32, 3, 1)),
        ("v3", conv(8, 1, [256, 256], 8, 3, 1)),
        ("v4", conv(8, 1, [512, 512], 4, 3, 1)),
        ("r1", conv(8, 1, [64, 128], 32, 3, 2)),
        ("r2", conv(1, 1, [128, 128], 28, 3, 1)),
        ("r3", conv(1, 1, [64, 64], 56, 3, 1)),
        ("g1", conv(1, 128, [128, 128], 56, 3, 1)),
        ("t1", text(70, 1014, 7)),
        ("t2", text(256, 336, 7)),
        ("t3", text(256, 110, 3)),
        ("c1", video(32, 64, [16, 28])),
        ("c2", video(128, 128, [8, 14])),
    ]
}
