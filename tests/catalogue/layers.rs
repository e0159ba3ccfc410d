//! The layers that the tests take, with weights that the C interface has packed.

use convrelu::capi::convrelu_status::*;
use convrelu::capi::*;
use convrelu::transposed::ConvTranspose;
use convrelu::{ConvDesc, ConvRelu, Isa, Layout, Pass};

use crate::call::Call;
use crate::common::{Axis, Case, Rng, Shape, Values};
use crate::layer::Layer;
use crate::raw::Raw;
use crate::translate::{c_desc, c_plan, c_transposed, rust_transposed};

impl Layer {
    pub(crate) fn new(desc: ConvDesc, isa: Isa) -> Self {
        Self::of(Case::new(desc, Values::Continuous, 31), None, c_plan(&c_desc(&desc), isa), isa)
    }

    /// The transposed convolution that mirrors one.
    pub(crate) fn transposed(mirrored: ConvDesc, isa: Isa) -> Self {
        let mut case = Case::new(mirrored, Values::Continuous, 31);
        case.bias = Some(Rng(7).values(Values::Continuous, mirrored.in_channels()));
        let c = c_transposed(&mirrored);
        let plan = ConvTranspose::with_isa(rust_transposed(&c).unwrap(), isa).unwrap();
        Self::of(case, Some(plan), c_plan(&c, isa), isa)
    }

    fn of(case: Case, transposed: Option<ConvTranspose>, c: convrelu_plan, isa: Isa) -> Self {
        let plan = ConvRelu::with_isa(case.desc, isa).unwrap();
        let mut layer = Self { case, plan, transposed, c, packed: [const { Vec::new() }; 2] };
        layer.packed = [Pass::ForwardPacked, Pass::BackwardInputPacked].map(|pass| {
            let mut buffers = layer.buffers(Call::Pack(pass), true);
            let (status, message) = Raw::new(&layer, Call::Pack(pass), &mut buffers).call();
            assert_eq!(status, CONVRELU_OK, "{message}");
            buffers.swap_remove(1).memory
        });
        layer
    }
}

/// Small layers of both layouts: dense, grouped, depthwise, one to three axes, with and without gaps.
pub(crate) fn layers() -> impl Iterator<Item = ConvDesc> {
    let same = Axis::new(5, 3).padding(1, 1);
    let shapes = [
        Shape::new(2, 3, 5, &[same; 2]),
        Shape::new(1, 17, 33, &[Axis::new(6, 1)]),
        Shape::new(1, 1, 2, &[same.stride(2); 2]).groups(3),
        Shape::new(1, 2, 3, &[Axis::new(4, 2).dilation(2); 3]).groups(2),
        Shape::new(2, 2, 4, &[same, Axis::new(6, 2)]).gaps([3, 2]),
        Shape::new(2, 1, 1, &[same; 2]).groups(16).gaps([1, 4]),
    ];
    shapes.into_iter().flat_map(|shape| [Layout::Nchw, Layout::Nhwc].map(|layout| shape.clone().layout(layout).desc()))
}

pub(crate) fn benches() -> impl Iterator<Item = Layer> {
    layers().flat_map(|desc| Isa::available().map(move |isa| Layer::new(desc, isa)))
}

/// Their transposed counterparts.
pub(crate) fn transposed_benches() -> impl Iterator<Item = Layer> {
    layers().flat_map(|desc| Isa::available().map(move |isa| Layer::transposed(desc, isa)))
}

pub(crate) fn small() -> ConvDesc {
    layers().next().unwrap()
}
