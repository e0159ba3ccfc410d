//! What our side is compared with. A peer that cannot compute something says so and gives no row.

use std::rc::Rc;

use clap::ValueEnum;
use convrelu::ConvDesc;
use serde::{Deserialize, Serialize};

use crate::dnnl::{Convolution, Dnnl, Format};
use crate::im2col::Im2Col;
use crate::notation::Problem;
use crate::operands::Operands;
use crate::pass::{LayoutName, Pass};

/// A peer, as `--peers` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// Both oneDNN peers of a layout.
    Onednn,
    /// oneDNN in its own formats, reorders left out.
    OnednnAny,
    /// oneDNN on plain NCHW tensors, with the reorders it needs.
    OnednnNchw,
    /// oneDNN on plain NHWC tensors, with the reorders it needs.
    OnednnNhwc,
    /// Patches gathered and clamped, and the crate `gemm`.
    Im2colGemm,
    /// The crate `candle-core`.
    Candle,
    /// The crate `burn-flex`.
    BurnFlex,
    /// Our side alone.
    None,
}

impl Peer {
    /// The peers of one row of the table, in order, among those chosen.
    pub(crate) fn of_layout(chosen: &[Self], layout: LayoutName) -> Vec<Self> {
        [Self::OnednnAny, Self::onednn_plain(layout), Self::Im2colGemm, Self::Candle, Self::BurnFlex]
            .into_iter()
            .filter(|peer| chosen.contains(peer) || peer.is_onednn() && chosen.contains(&Self::Onednn))
            .collect()
    }

    /// oneDNN on tensors in a plain layout.
    pub(crate) fn onednn_plain(layout: LayoutName) -> Self {
        match layout {
            LayoutName::Nchw => Self::OnednnNchw,
            LayoutName::Nhwc => Self::OnednnNhwc,
        }
    }

    pub(crate) fn is_onednn(self) -> bool {
        matches!(self, Self::Onednn | Self::OnednnAny | Self::OnednnNchw | Self::OnednnNhwc)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Onednn => "onednn",
            Self::OnednnAny => "onednn-any",
            Self::OnednnNchw => "onednn-nchw",
            Self::OnednnNhwc => "onednn-nhwc",
            Self::Im2colGemm => "im2col-gemm",
            Self::Candle => "candle",
            Self::BurnFlex => "burn-flex",
            Self::None => "none",
        }
    }
}

/// A peer's pass of one problem, ready to run.
pub(crate) struct Contestant {
    pub(crate) run: Box<dyn FnMut()>,
    /// Runs it as a plain convolution; the result in our layout.
    pub(crate) result: Vec<f32>,
}

/// What a contestant is made of.
pub(crate) struct Task<'a> {
    pub(crate) problem: &'a Problem,
    pub(crate) desc: ConvDesc,
    pub(crate) pass: Pass,
    pub(crate) operands: Rc<Operands>,
    pub(crate) dnnl: Option<&'a Rc<Dnnl>>,
}

impl Task<'_> {
    /// Prepares a peer, or says why it has no row.
    pub(crate) fn contestant(&self, peer: Peer) -> Result<Contestant, String> {
        match peer {
            Peer::OnednnAny => self.onednn(Format::Any),
            Peer::OnednnNchw | Peer::OnednnNhwc => self.onednn(Format::Plain(self.operands.layout)),
            Peer::Im2colGemm => self.im2col(),
            Peer::Candle => self.candle(),
            Peer::BurnFlex => self.burn_flex(),
            Peer::Onednn | Peer::None => Err(String::from("names no row")),
        }
    }

    fn onednn(&self, format: Format) -> Result<Contestant, String> {
        let dnnl = self.dnnl.ok_or("oneDNN is not loaded: DNNL_LIB is not set")?;
        let mut convolution = Convolution::new(dnnl, self.problem, self.pass, format, &self.operands)?;
        let result = convolution.result();
        Ok(Contestant { run: Box::new(move || convolution.run()), result })
    }

    fn im2col(&self) -> Result<Contestant, String> {
        if self.pass != Pass::Forward {
            return Err(String::from("forward only"));
        }
        let (mut im2col, operands) = (Im2Col::new(self.desc), self.operands.clone());
        let mut output = vec![0.0; self.desc.output_len()];
        let linear = vec![f32::NEG_INFINITY; self.desc.threshold_len()];
        im2col.forward(&operands.input, &operands.weight, &linear, &mut output);
        let result = output.clone();
        let run = move || im2col.forward(&operands.input, &operands.weight, &operands.thresholds, &mut output);
        Ok(Contestant { run: Box::new(run), result })
    }

    #[cfg(not(feature = "candle"))]
    fn candle(&self) -> Result<Contestant, String> {
        Err(String::from("built without the feature `candle`"))
    }

    #[cfg(feature = "candle")]
    fn candle(&self) -> Result<Contestant, String> {
        use candle_core::{Device, Tensor};

        let (problem, operands) = (self.problem, &self.operands);
        if self.pass != Pass::Forward || operands.layout != convrelu::Layout::Nchw || problem.rank == 3 {
            return Err(String::from("forward, NCHW, one or two dimensions only"));
        }
        let axes = &problem.axes[3 - problem.rank..];
        let axis = axes[0];
        let same =
            |a: &crate::notation::Axis| (a.stride, a.dilation, a.before) == (axis.stride, axis.dilation, axis.before);
        if !axes.iter().all(|a| same(a) && a.after == a.before as isize) {
            return Err(String::from("the same stride, dilation and padding on all sides only"));
        }
        let shape = |outer: [usize; 2], spatial: fn(&crate::notation::Axis) -> usize| {
            outer.into_iter().chain(axes.iter().map(spatial)).collect::<Vec<_>>()
        };
        let tensor = |data: &[f32], shape: Vec<usize>| {
            Tensor::from_vec(data.to_vec(), shape, &Device::Cpu).map_err(|error| error.to_string())
        };
        let input = tensor(&operands.input, shape([problem.batch, problem.in_channels], |a| a.input))?;
        let group_in = problem.in_channels / problem.groups;
        let weight = tensor(&operands.weight, shape([problem.out_channels, group_in], |a| a.kernel))?;
        let (rank, groups) = (problem.rank, problem.groups);
        let forward = move || {
            let (padding, stride, dilation) = (axis.before, axis.stride, axis.dilation);
            if rank == 1 {
                input.conv1d(&weight, padding, stride, dilation, groups)
            } else {
                input.conv2d(&weight, padding, stride, dilation, groups)
            }
        };
        let result = forward().and_then(|output| output.flatten_all()?.to_vec1()).map_err(|error| error.to_string())?;
        let run = move || {
            std::hint::black_box(forward().ok());
        };
        Ok(Contestant { run: Box::new(run), result })
    }

    #[cfg(not(feature = "burn-flex"))]
    fn burn_flex(&self) -> Result<Contestant, String> {
        Err(String::from("built without the feature `burn-flex`"))
    }

    #[cfg(feature = "burn-flex")]
    fn burn_flex(&self) -> Result<Contestant, String> {
        use burn_backend::TensorData;
        use burn_backend::ops::ModuleOps;
        use burn_flex::{Flex, FlexTensor};

        let (problem, operands, pass) = (self.problem, &self.operands, self.pass);
        if operands.layout != convrelu::Layout::Nchw {
            return Err(String::from("NCHW only"));
        }
        let axes = &problem.axes[3 - problem.rank..];
        if axes.iter().any(|a| a.after != a.before as isize) {
            return Err(String::from("the same padding on both sides only"));
        }
        let tensor = |data: &[f32], outer: [usize; 2], spatial: fn(&crate::notation::Axis) -> usize| {
            let shape: Vec<usize> = outer.into_iter().chain(axes.iter().map(spatial)).collect();
            FlexTensor::from_data(TensorData::new(data.to_vec(), shape))
        };
        let group_in = problem.in_channels / problem.groups;
        let x = tensor(&operands.input, [problem.batch, problem.in_channels], |a| a.input);
        let w = tensor(&operands.weight, [problem.out_channels, group_in], |a| a.kernel);
        let g = tensor(&operands.grad_output, [problem.batch, problem.out_channels], |a| a.output);
        /// The three passes in one dimension count.
        macro_rules! passes {
            ($rank:literal, $forward:ident, $input:ident, $weight:ident) => {{
                let of = |value: fn(&crate::notation::Axis) -> usize| {
                    let mut values = [0; $rank];
                    values.iter_mut().zip(axes).for_each(|(v, axis)| *v = value(axis));
                    values
                };
                let options = burn_backend::ops::ConvOptions::<$rank>::new(
                    of(|a| a.stride),
                    of(|a| a.before),
                    of(|a| a.dilation),
                    problem.groups,
                );
                Box::new(move || match pass {
                    Pass::Forward => Flex::$forward(x.clone(), w.clone(), None, options.clone()),
                    Pass::BackwardInput => Flex::$input(x.clone(), w.clone(), g.clone(), options.clone()),
                    Pass::BackwardWeight => Flex::$weight(x.clone(), w.clone(), g.clone(), options.clone()),
                }) as Box<dyn FnMut() -> FlexTensor>
            }};
        }
        let mut call = match problem.rank {
            1 => passes!(1, conv1d, conv1d_x_backward, conv1d_weight_backward),
            2 => passes!(2, conv2d, conv2d_x_backward, conv2d_weight_backward),
            _ => passes!(3, conv3d, conv3d_x_backward, conv3d_weight_backward),
        };
        let result = call().into_data().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))?;
        let run = move || {
            std::hint::black_box(call());
        };
        Ok(Contestant { run: Box::new(run), result })
    }
}
