"""The layers as modules: `ConvReLU1d`, `ConvTranspose1d` and their siblings, `FusedConvReLU`, `AdaReLU`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import functional
from ._composition import Epilogue, Geometry, finish
from ._operators import output_shape

__all__ = [
    "AdaReLU",
    "ConvReLU1d",
    "ConvReLU2d",
    "ConvReLU3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "FusedConvReLU",
]

ThresholdInit = Literal["zero", "glorot"] | tuple[Literal["gaussian", "uniform"], float]


def check_threshold_init(init: Any) -> None:
    """Raises `ValueError` where there is no such initialisation."""
    if init in ("zero", "glorot"):
        return
    if isinstance(init, tuple) and len(init) == 2 and init[0] in ("gaussian", "uniform"):
        scale = init[1]
        if isinstance(scale, int | float) and math.isfinite(scale) and scale >= 0:
            return
    raise ValueError(
        f"threshold_init is {init!r}: it must be 'zero', 'glorot', ('gaussian', s) or ('uniform', s) with a finite s, at least 0"
    )


@torch.no_grad()
def init_thresholds(thresholds: Tensor, init: ThresholdInit, fan_in: int, fan_out: int) -> Tensor:
    """Fills thresholds: zeros, a Gaussian of deviation `s`, uniform in ±`s`, or Glorot (variance `2 / (fan_in + fan_out)`)."""
    check_threshold_init(init)
    if init == "zero":
        return thresholds.zero_()
    if init == "glorot":
        return thresholds.normal_(0, math.sqrt(2 / (fan_in + fan_out)))
    kind, scale = init
    return thresholds.normal_(0, scale) if kind == "gaussian" else thresholds.uniform_(-scale, scale)


class _ConvReLU(nn.Module):
    """What the layers of one, two and three dimensions share."""

    rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: functional.Axes,
        stride: functional.Axes = 1,
        padding: functional.Padding = 0,
        dilation: functional.Axes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        threshold_init: ThresholdInit = "zero",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: it must be an integer of at least 1")
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value % groups:
                raise ValueError(f"{name} is {value}: it must be divisible by groups ({groups})")
        check_threshold_init(threshold_init)
        rank = self.rank
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = functional.axes("kernel_size", kernel_size, rank, 1)
        self.stride = functional.axes("stride", stride, rank, 1)
        self.dilation = functional.axes("dilation", dilation, rank, 1)
        before, after = functional.paddings(padding, self.kernel_size, self.stride, self.dilation)
        pairs = before if before == after else tuple(zip(before, after, strict=True))
        self.padding = padding if isinstance(padding, str) else pairs
        self.threshold_init = threshold_init
        self._geometry = Geometry(self.stride, before, after, self.dilation, groups)
        room = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size, **room))
        self.thresholds = nn.Parameter(torch.empty(in_channels, *self.kernel_size, **room))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, **room))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values: weight and bias as those of `torch.nn.Conv2d`, thresholds as `threshold_init` says."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        taps = math.prod(self.kernel_size)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight.shape[1] * taps)
            nn.init.uniform_(self.bias, -bound, bound)
        # As the crate's trainer counts fans: channels of all groups, times taps.
        init_thresholds(self.thresholds, self.threshold_init, self.in_channels * taps, self.out_channels * taps)

    def forward(self, input: Tensor) -> Tensor:
        """`(batch, in_channels, *size)` to `(batch, out_channels, *output_size)`, or both without batch."""
        if input.dim() == self.rank + 1:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        functional.check(input, self.weight, self.thresholds, self.bias, self.groups)
        return functional.planned(input, self.weight, self.thresholds, self.bias, self._geometry)

    def extra_repr(self) -> str:
        """The arguments that are not the defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        ones, zeros = (1,) * self.rank, (0,) * self.rank
        parts += [f"padding={self.padding!r}"] if self.padding != zeros else []
        parts += [f"dilation={self.dilation}"] if self.dilation != ones else []
        parts += [f"groups={self.groups}"] if self.groups != 1 else []
        parts += ["bias=False"] if self.bias is None else []
        parts += [f"threshold_init={self.threshold_init!r}"] if self.threshold_init != "zero" else []
        return ", ".join(parts)


_DOC = """A convolution with a trained threshold per input channel and tap, over {axes}.

    `y = Σ w · max(x, θ) + b`: with thresholds of 0, which is how they begin, it is a ReLU and a convolution.

    Arguments are those of `torch.nn.Conv{rank}d`, and `threshold_init`: `"zero"`, `("gaussian", s)`, `("uniform", s)` or
    `"glorot"`.

    Parameters: `weight` `(out_channels, in_channels // groups, *kernel_size)`, `thresholds` `(in_channels, *kernel_size)`, `bias`
    `(out_channels,)` or `None`.
    """


class ConvReLU1d(_ConvReLU):  # noqa: D101
    __doc__ = _DOC.format(axes="one axis", rank=1)
    rank = 1


class ConvReLU2d(_ConvReLU):  # noqa: D101
    __doc__ = _DOC.format(axes="two axes", rank=2)
    rank = 2


class ConvReLU3d(_ConvReLU):  # noqa: D101
    __doc__ = _DOC.format(axes="three axes", rank=3)
    rank = 3


class FusedConvReLU(nn.Module):
    """A ConvReLU layer and what followed it: `clamp(scale · y + shift + residual, low, high)`. `fuse` makes it.

    It computes that in one pass where no gradient is asked for (`torch.no_grad()`, `torch.inference_mode()`), and else by the
    layer and PyTorch's operations. Parameters are those of the layer; `scale` and `shift` are buffers, or `None`.
    """

    def __init__(self, layer: _ConvReLU, scale: Tensor | None, shift: Tensor | None, low: float, high: float) -> None:
        super().__init__()
        self.weight, self.thresholds, self.bias = layer.weight, layer.thresholds, layer.bias
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.low, self.high = low, high
        self._layer, self._geometry = repr(layer), layer._geometry
        self.train(layer.training)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """`(batch, in_channels, *size)` to `(batch, out_channels, *output_size)`, or both without batch.

        `residual` is added; it has the shape of the output, or one that broadcasts with it.
        """
        if residual is not None and not isinstance(residual, Tensor):
            # A trace does not know that what is added is a number.
            residual = torch.as_tensor(residual, dtype=input.dtype, device=input.device)
        if input.dim() == self.weight.dim() - 1:
            shape = (1, *output_shape(input.unsqueeze(0), self.weight, *self._geometry[:4])[1:])
            batched = None if residual is None else residual.expand(shape[1:]).unsqueeze(0)
            return self.forward(input.unsqueeze(0), batched).squeeze(0)
        functional.check(input, self.weight, self.thresholds, self.bias, self._geometry.groups)
        epilogue, rest = Epilogue(self.scale, self.shift, residual, self.low, self.high), None
        if residual is not None:
            if residual.dim() != 0:  # PyTorch adds a number from anywhere.
                functional.check_device(input, "residual", residual)
            shape = output_shape(input, self.weight, *self._geometry[:4])
            if list(residual.shape) != shape or residual.dtype is not input.dtype:
                # The kernels add only what lies as the output does.
                epilogue, rest = Epilogue(self.scale, self.shift), Epilogue(None, None, residual, self.low, self.high)
        y = functional.planned(input, self.weight, self.thresholds, self.bias, self._geometry, epilogue)
        return y if rest is None else finish(y, rest)

    def extra_repr(self) -> str:
        """The layer, and what else it does."""
        parts = [self._layer, "normalised" if self.scale is not None else ""]
        parts += [f"low={self.low}" if self.low != -math.inf else "", f"high={self.high}" if self.high != math.inf else ""]
        return ", ".join(part for part in parts if part)


class _ConvTranspose:
    """The forward pass of the transposed layers. All else is PyTorch's modules, from which they are derived."""

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """`(batch, in_channels, *size)` to `(batch, out_channels, *output_size)`, or both without batch.

        `output_size`, where it is given, stands for `output_padding`: the spatial axes of the output, or all its axes.
        """
        rank = len(self.kernel_size)
        sizes = (self.stride, self.padding, self.kernel_size, rank, self.dilation)
        extra = self._output_padding(input, output_size, *sizes)
        return functional.conv_transpose(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )


_TRANSPOSED_DOC = """`torch.nn.ConvTranspose{rank}d`, computed by the kernels: its arguments, its parameters, its state."""


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):  # noqa: D101
    __doc__ = _TRANSPOSED_DOC.format(rank=1)


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):  # noqa: D101
    __doc__ = _TRANSPOSED_DOC.format(rank=2)


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):  # noqa: D101
    __doc__ = _TRANSPOSED_DOC.format(rank=3)


class AdaReLU(nn.Module):
    """An activation with trained thresholds (eq. 4): `y = x` if `x > θ`, else `θ`.

    `shape` says which values share a threshold: nothing, all of them; a number, those of a channel; the shape of an image,
    `(channels, *size)`, none. `threshold_init` is that of the layers, without `"glorot"`: an activation has no fans.
    """

    def __init__(
        self,
        shape: int | Sequence[int] | None = None,
        *,
        threshold_init: ThresholdInit = "zero",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        extents = () if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
        if any(isinstance(extent, bool) or not isinstance(extent, int) or extent < 1 for extent in extents):
            raise ValueError(f"shape is {shape!r}: it must be None, channels, or (channels, *size), each at least 1")
        check_threshold_init(threshold_init)
        if threshold_init == "glorot":
            raise ValueError("threshold_init is 'glorot': an activation has no fans; it must be 'zero', or drawn with a scale")
        self.threshold_init = threshold_init
        self.thresholds = nn.Parameter(torch.empty(extents, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial thresholds."""
        init_thresholds(self.thresholds, self.threshold_init, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        """`(batch, channels, *size)`, elementwise."""
        return functional.ada_relu(input, self.thresholds)

    def extra_repr(self) -> str:
        """The shape of the thresholds."""
        return f"{tuple(self.thresholds.shape)}"


#: Modules of which a trace of a network records the call, not what it does.
LEAVES = (_ConvReLU, FusedConvReLU, _ConvTranspose, AdaReLU)
