"""The layers as functions: `conv_relu`, `conv_transpose`, `ada_relu`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _autograd, _epilogue, _onnx, _operators, _transposed
from ._composition import Epilogue, Geometry

__all__ = ["Epilogue", "ada_relu", "conv_relu", "conv_transpose"]

Axes = int | Sequence[int]
Padding = int | str | Sequence[int | tuple[int, int]]


def axes(name: str, value: Any, rank: int, least: int) -> tuple[int, ...]:
    """`value` for each of `rank` axes, each an integer of at least `least`."""
    values = (value,) * rank if isinstance(value, int | torch.SymInt) else tuple(value)
    if len(values) == 1:
        values *= rank
    if len(values) != rank or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in values):
        raise ValueError(f"{name} is {value!r}: it must be an integer, or {rank} of them, each at least {least}")
    return values


def paddings(
    value: Padding, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and after each axis. `"same"` puts the odd one behind, as PyTorch does."""
    rank = len(kernel)
    if isinstance(value, str):
        if value == "valid":
            return (0,) * rank, (0,) * rank
        if value != "same":
            raise ValueError(f"padding is {value!r}: it must be 'valid', 'same', an integer, or {rank} integers or pairs")
        if any(step != 1 for step in stride):
            raise ValueError(f"padding is 'same' and stride is {tuple(stride)}: padding='same' needs a stride of 1")
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    if isinstance(value, int):
        before = after = axes("padding", value, rank, 0)
        return before, after
    entries = tuple(value) * (rank if len(value) == 1 else 1)
    pairs = [(entry, entry) if isinstance(entry, int) else tuple(entry) for entry in entries]
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"padding is {value!r}: it must be an integer, or {rank} integers or pairs (before, after)")
    return axes("padding", [p[0] for p in pairs], rank, 0), axes("padding", [p[1] for p in pairs], rank, 0)


def check_device(input: Tensor, name: str, tensor: Tensor) -> None:
    """Raises `ValueError` where a tensor is not where the input is."""
    if tensor.device != input.device:
        raise ValueError(f"{name} is on {tensor.device}: it must be where input is, on {input.device}")


def _check_like(input: Tensor, name: str, tensor: Tensor | None) -> None:
    """Whether an operand, where there is one, has the input's device and dtype. Autocast gives all of them one dtype."""
    if tensor is None:
        return
    check_device(input, name, tensor)
    if tensor.dtype is not input.dtype and not _operators.is_autocast_enabled(input.device.type):
        raise TypeError(f"{name} has the dtype {tensor.dtype}: it must be that of input, {input.dtype}")


def check(input: Tensor, weight: Tensor, thresholds: Tensor | float, bias: Tensor | None, groups: int) -> None:
    """Raises `ValueError` or `TypeError`, with the argument, its value and the rule, where operands do not fit."""
    shape = tuple(weight.shape)
    if not 3 <= len(shape) <= 5:
        raise ValueError(
            f"weight has the shape {shape}: it must be (out_channels, in_channels // groups, *kernel_size) with 1 to 3 axes of "
            "the kernel"
        )
    if input.dim() != len(shape):
        raise ValueError(
            f"input has the shape {tuple(input.shape)}: with a kernel of {len(shape) - 2} axes it must be (batch, in_channels, "
            "*size), or the same without batch"
        )
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ValueError(f"groups is {groups!r}: it must be an integer of at least 1")
    if shape[0] % groups:
        raise ValueError(f"weight has {shape[0]} output channels: they must be a multiple of groups ({groups})")
    channels = shape[1] * groups
    if input.shape[1] != channels:
        raise ValueError(
            f"input has the shape {tuple(input.shape)} and so {input.shape[1]} channels: it must have {channels}, as the weight "
            f"has {shape[1]} per group and groups is {groups}"
        )
    if not input.dtype.is_floating_point:
        raise TypeError(f"input has the dtype {input.dtype}: it must be of floating point")
    others: list[tuple[str, Any]] = [("weight", weight), ("bias", bias)]
    if isinstance(thresholds, Tensor):
        others.append(("thresholds", thresholds))
        if tuple(thresholds.shape) != (channels, *shape[2:]):
            raise ValueError(
                f"thresholds has the shape {tuple(thresholds.shape)}: it must be (in_channels, *kernel_size), here "
                f"{(channels, *shape[2:])}, or a single number"
            )
    elif math.isnan(thresholds):
        raise ValueError("thresholds is nan: it must be a number; -inf makes a plain convolution")
    if bias is not None and tuple(bias.shape) != (shape[0],):
        raise ValueError(f"bias has the shape {tuple(bias.shape)}: it must be (out_channels,), here ({shape[0]},)")
    for name, tensor in others:
        _check_like(input, name, tensor)


def conv_relu(
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | float,
    bias: Tensor | None = None,
    stride: Axes = 1,
    padding: Padding = 0,
    dilation: Axes = 1,
    groups: int = 1,
    *,
    epilogue: Epilogue | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """A convolution whose taps see `max(x, θ)`: `y = Σ w · max(x, θ) + b` (eq. 8 of the paper).

    - `input`: `(batch, in_channels, *size)`, or without `batch`; one to three axes of `size`
    - `weight`: `(out_channels, in_channels // groups, *kernel_size)`
    - `thresholds`: `(in_channels, *kernel_size)`, or one number (or tensor without axes) for all; `-inf` makes a plain
      convolution, 0 a ReLU before it
    - `bias`: `(out_channels,)`
    - `padding`: integers, `"same"`, `"valid"`, or pairs (before, after) per axis; zeros are padded before the activation
    - `epilogue`: what becomes of the output before it is stored, `clamp(scale · y + shift + residual, low, high)`; in one pass
      where no operand requires a gradient
    - `out`: a tensor of the output's shape to write to, such as a slice of channels of a wider one; without gradients

    float32 on the CPU goes to the kernels; other dtypes and devices to a composition of PyTorch's operations.
    """
    rank = weight.dim() - 2
    if input.dim() == rank + 1:
        if epilogue is not None and epilogue.residual is not None:
            epilogue = epilogue._replace(residual=epilogue.residual.unsqueeze(0))
        y = conv_relu(
            input.unsqueeze(0), weight, thresholds, bias, stride, padding, dilation, groups,
            epilogue=epilogue, out=None if out is None else out.unsqueeze(0),
        )  # fmt: skip
        return y.squeeze(0) if out is None else out
    if isinstance(thresholds, Tensor) and thresholds.dim() == 0:
        thresholds = thresholds.expand(input.shape[1], *weight.shape[2:])
    check(input, weight, thresholds, bias, groups)
    strides, dilations = axes("stride", stride, rank, 1), axes("dilation", dilation, rank, 1)
    before, after = paddings(padding, weight.shape[2:], strides, dilations)
    geometry = Geometry(strides, before, after, dilations, groups)
    if epilogue is not None:
        check_epilogue(epilogue, input, weight, geometry)
    return planned(input, weight, thresholds, bias, geometry, epilogue, out)


def check_epilogue(epilogue: Epilogue, input: Tensor, weight: Tensor, geometry: Geometry) -> None:
    """Raises `ValueError` or `TypeError` where an epilogue does not fit operands that `check` has seen."""
    out_channels = weight.shape[0]
    shapes = {"scale": (out_channels,), "shift": (out_channels,)}
    if epilogue.residual is not None:
        shapes["residual"] = tuple(_operators.output_shape(input, weight, *geometry[:4]))
    for name, shape in shapes.items():
        tensor = getattr(epilogue, name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}: it must be {shape}")
        _check_like(input, name, tensor)
    low, high = epilogue.low, epilogue.high
    if not low <= high:
        raise ValueError(f"low is {low} and high is {high}: low must be at most high, and neither NaN")


def planned(
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | float,
    bias: Tensor | None,
    geometry: Geometry,
    epilogue: Epilogue | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`conv_relu` of operands that `check` and `check_epilogue` have seen, with a batch."""
    per_tap, threshold = (thresholds, 0.0) if isinstance(thresholds, Tensor) else (None, float(thresholds))
    if out is not None:
        return _into(out, input, weight, per_tap, threshold, bias, geometry, epilogue)
    if epilogue is not None:
        return _epilogue.conv_relu(input, weight, per_tap, threshold, bias, epilogue, geometry)
    if torch.onnx.is_in_onnx_export():
        return _onnx.conv_relu(input, weight, per_tap, threshold, bias, geometry)
    return _autograd.conv_relu(input, weight, per_tap, threshold, bias, geometry)


def _into(
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    bias: Tensor | None,
    geometry: Geometry,
    epilogue: Epilogue | None,
) -> Tensor:
    parts = () if epilogue is None else epilogue[:3]
    operands = [tensor for tensor in (input, weight, thresholds, bias, *parts, out) if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in operands):
        raise RuntimeError("out is given and an operand requires a gradient: out= has no derivative; use torch.no_grad()")
    if any(tensor.dtype is not torch.float32 or tensor.device.type != "cpu" for tensor in operands):
        raise TypeError(f"out is a {out.dtype} tensor on {out.device}: it and all operands must be float32 on the CPU")
    shape = tuple(_operators.output_shape(input, weight, *geometry[:4]))
    if tuple(out.shape) != shape:
        raise ValueError(f"out has the shape {tuple(out.shape)}: it must be {shape}")
    return _operators.forward_by_kernels(out, input, weight, thresholds, threshold, bias, geometry, epilogue)


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Axes = 1,
    padding: Axes = 0,
    output_padding: Axes = 0,
    groups: int = 1,
    dilation: Axes = 1,
) -> Tensor:
    """A transposed convolution, as `torch.nn.functional.conv_transpose2d` and its siblings; it has no thresholds.

    - `input`: `(batch, in_channels, *size)`, or without `batch`; one to three axes of `size`
    - `weight`: `(in_channels, out_channels // groups, *kernel_size)`
    - `bias`: `(out_channels,)`
    - `padding` is cut off both ends of the output, `output_padding` is appended to it; less than stride or dilation.

    float32 on the CPU goes to the kernels; other dtypes and devices to PyTorch.
    """
    rank = weight.dim() - 2
    if not 1 <= rank <= 3:
        raise ValueError(
            f"weight has the shape {tuple(weight.shape)}: it must be (in_channels, out_channels // groups, *kernel_size) with 1 "
            "to 3 axes of the kernel"
        )
    if input.dim() == rank + 1:
        y = conv_transpose(input.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation)
        return y.squeeze(0)
    if input.dim() != rank + 2 or input.shape[1] != weight.shape[0]:
        raise ValueError(
            f"input has the shape {tuple(input.shape)}: it must be (batch, in_channels, *size) with the {weight.shape[0]} "
            f"channels of the weight and {rank} axes of size"
        )
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"groups is {groups!r}: it must be at least 1 and divide the {weight.shape[0]} input channels")
    if bias is not None and tuple(bias.shape) != (weight.shape[1] * groups,):
        raise ValueError(
            f"bias has the shape {tuple(bias.shape)}: it must be (out_channels,), here ({weight.shape[1] * groups},)"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        _check_like(input, name, tensor)
    options = [axes("stride", stride, rank, 1), axes("padding", padding, rank, 0)]
    options += [axes("output_padding", output_padding, rank, 0), axes("dilation", dilation, rank, 1)]
    for extra, step, spread in zip(options[2], options[0], options[3], strict=True):
        if extra >= max(step, spread):
            raise ValueError(
                f"output_padding is {output_padding!r}: it must be less than stride {stride!r} or dilation {dilation!r}"
            )
    return _transposed.conv_transpose(input, weight, bias, *options, groups)


def ada_relu(input: Tensor, thresholds: Tensor) -> Tensor:
    """`y = x` if `x > θ`, else `θ` (eq. 4), elementwise; a tie sends its gradient to θ.

    `input` is `(batch, channels, *size)`. `thresholds` has one element for all, `channels` of them, or the shape of an image,
    `(channels, *size)`.
    """
    check_device(input, "thresholds", thresholds)
    if thresholds.numel() == 1:
        theta = thresholds.reshape(())
    elif tuple(thresholds.shape) == tuple(input.shape[1:]):
        theta = thresholds
    elif input.dim() >= 2 and tuple(thresholds.shape) == (input.shape[1],):
        theta = thresholds.reshape(-1, *[1] * (input.dim() - 2))
    else:
        raise ValueError(
            f"thresholds has the shape {tuple(thresholds.shape)}: with an input of the shape {tuple(input.shape)} it must have "
            f"one element, the {input.shape[1] if input.dim() > 1 else 'missing'} channels, or the shape of an image"
        )
    return torch.where(input <= theta, theta, input)
