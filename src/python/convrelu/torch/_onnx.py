"""What the layer becomes in `torch.onnx.export`: nodes of the standard, no operator of ours.

A ConvReLU layer is exactly this: a convolution with one-hot kernels takes each tap to a channel of its own, `Max` clamps the
channels to their thresholds, a 1×1 convolution sums them. Thresholds that are all the same number are a `Max` and a plain
convolution; all 0, a `Relu` and a convolution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ._composition import Geometry, _pads


def _real(thresholds: Tensor) -> Tensor | None:
    """The tensor with the values of one that stands for it in a trace; `None` where it is not known.

    The exporter traces a network with tensors that have shapes, but no values. What made them knows for which tensors they stand.
    """
    mode = getattr(thresholds, "fake_mode", None)
    if mode is None:
        return thresholds if type(thresholds) in (Tensor, torch.nn.Parameter) else None
    try:
        converter = mode.fake_tensor_converter
        known = list(converter.meta_converter.describer.lookup_tensor.keys())
        return next((tensor for tensor in known if converter._get_memo(tensor) is thresholds), None)
    except AttributeError:
        return None


def _number(thresholds: Tensor) -> float | None:
    """The number that all thresholds are; `None` where they differ, or where their values are not known."""
    real = _real(thresholds)
    if real is None or real.device.type == "meta":
        return None
    with torch._C._DisableTorchDispatch():
        first = float(real.detach().flatten()[0])
        return first if bool((real.detach() == first).all()) else None


_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def conv_relu(
    input: Tensor, weight: Tensor, thresholds: Tensor | None, threshold: float, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """The layer as nodes. Padding comes before the activation, so that padded taps are clamped as they are in the layer."""
    if thresholds is not None:
        number = _number(thresholds)
        if number is not None:
            thresholds, threshold = None, number
    rank = input.dim() - 2
    convolution = _CONVOLUTIONS[rank]
    padding: tuple[int, ...] = tuple(geometry.padding_before)
    if tuple(geometry.padding_after) != padding:
        input, padding = functional.pad(input, _pads(geometry)), (0,) * rank
    if thresholds is None:
        # Of a threshold of at most 0, padding is what it was. (With -inf there is nothing to clamp.)
        if threshold > 0:
            input, padding = functional.pad(input, [p for p in reversed(padding) for _ in (0, 1)]), (0,) * rank
        if threshold == 0:
            input = functional.relu(input)
        elif threshold != -math.inf:
            input = torch.maximum(input, torch.tensor(threshold, dtype=input.dtype))
        return convolution(input, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups)
    channels, taps = input.shape[1], math.prod(weight.shape[2:])
    hot = torch.eye(taps, dtype=weight.dtype).reshape(taps, 1, *weight.shape[2:]).repeat(channels, *[1] * (rank + 1))
    windows = convolution(input, hot, None, geometry.stride, padding, geometry.dilation, channels)
    clamped = torch.maximum(windows, thresholds.reshape(1, channels * taps, *[1] * rank))
    flat = weight.reshape(weight.shape[0], -1, *[1] * rank)
    return convolution(clamped, flat, bias, groups=geometry.groups)
