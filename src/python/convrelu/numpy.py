"""The layer as functions on NumPy arrays: forward pass and gradients, in float32, by the kernels.

Shapes are those of PyTorch, with one to three spatial axes `size`:

- `input`: `(batch, in_channels, *size)`
- `weight`: `(out_channels, in_channels // groups, *kernel)`
- `thresholds`: `(in_channels, *kernel)`, or one number for all; `-inf` makes a plain convolution, 0 a ReLU before it
- `bias`: `(out_channels,)` or `None`
- `stride`, `padding`, `dilation`: one number, or one per axis; an entry of `padding` may be a pair (before, after).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _layer

__all__ = ["Gradients", "conv_relu", "conv_relu_backward"]

Axes = int | Sequence[int]
Padding = int | Sequence[int | tuple[int, int]]


class Gradients(NamedTuple):
    """Gradients of a layer, each of the shape of what it belongs to. `thresholds` has no axes where one number was given."""

    input: NDArray[np.float32]
    weight: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    bias: NDArray[np.float32]


def _axes(name: str, value: Any, rank: int, least: int) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int | np.integer) else tuple(value)
    if len(values) != rank or any(not isinstance(v, int | np.integer) or v < least for v in values):
        raise ValueError(f"{name} is {value!r}: it must be an integer, or {rank} of them, each at least {least}")
    return tuple(int(v) for v in values)


def _floats(name: str, value: ArrayLike, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} has the dtype {array.dtype}: it must hold real numbers")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}: it must be {shape}")
    return np.ascontiguousarray(array, np.float32)


class _Call:
    """Checked operands of a call, and their plan."""

    def __init__(
        self,
        input: ArrayLike,
        weight: ArrayLike,
        thresholds: ArrayLike | float,
        stride: Axes,
        padding: Padding,
        dilation: Axes,
        groups: int,
        threads: int | None,
    ) -> None:
        self.input, self.weight = _floats("input", input), _floats("weight", weight)
        rank = self.weight.ndim - 2
        if not 1 <= rank <= 3:
            raise ValueError(
                f"weight has the shape {self.weight.shape}: it must be (out_channels, in_channels // groups, *kernel), "
                "with 1 to 3 axes of the kernel"
            )
        if self.input.ndim != rank + 2:
            raise ValueError(
                f"input has the shape {self.input.shape}: with a weight of {self.weight.ndim} axes it must have as many, "
                "(batch, in_channels, *size)"
            )
        batch, channels, *size = self.input.shape
        kernel = self.weight.shape[2:]
        if not isinstance(groups, int) or groups < 1 or channels != self.weight.shape[1] * groups:
            raise ValueError(
                f"input has {channels} channels: it must be the {self.weight.shape[1]} of the weight times groups ({groups!r})"
            )
        strides, dilations = _axes("stride", stride, rank, 1), _axes("dilation", dilation, rank, 1)
        entries = (padding,) * rank if isinstance(padding, int) else tuple(padding)
        pairs = [(p, p) if isinstance(p, int | np.integer) else tuple(p) for p in entries]
        if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"padding is {padding!r}: it must be an integer, or {rank} integers or pairs (before, after)")
        before, after = (_axes("padding", [pair[i] for pair in pairs], rank, 0) for i in (0, 1))
        self.per_tap: NDArray[np.float32] | None = None
        self.threshold = math.nan
        if np.ndim(thresholds) == 0:
            self.threshold = float(thresholds)  # type: ignore[arg-type]
            if math.isnan(self.threshold):
                raise ValueError("thresholds is NaN: it must be a number, or -inf for a plain convolution")
        else:
            self.per_tap = _floats("thresholds", thresholds, (channels, *kernel))
        self.plan = _layer.plan(
            _layer.NCHW, batch, channels, self.weight.shape[0], groups, tuple(size), kernel, strides, dilations, before, after,
            0, 0, _layer.threads() if threads is None else threads,
        )  # fmt: skip

    def thresholds_address(self) -> int | None:
        return None if self.per_tap is None else self.per_tap.ctypes.data


def conv_relu(
    input: ArrayLike,
    weight: ArrayLike,
    thresholds: ArrayLike | float,
    bias: ArrayLike | None = None,
    stride: Axes = 1,
    padding: Padding = 0,
    dilation: Axes = 1,
    groups: int = 1,
    *,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """`y = Σ w · max(x, θ) + b` (eq. 8 of the paper), of shape `(batch, out_channels, *output_size)`.

    `threads` is how many threads to use, all that the process may run on where it is `None`. Raises `ValueError` or `TypeError`
    that names the argument, its value and the rule.
    """
    call = _Call(input, weight, thresholds, stride, padding, dilation, groups, threads)
    bias = None if bias is None else _floats("bias", bias, (call.weight.shape[0],))
    output = np.empty(call.plan.output_shape, np.float32)
    bias_address = None if bias is None else bias.ctypes.data
    operands = (call.input.ctypes.data, call.weight.ctypes.data, call.thresholds_address(), call.threshold, bias_address)
    call.plan.forward(*operands, output.ctypes.data)
    return output


def conv_relu_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    thresholds: ArrayLike | float,
    stride: Axes = 1,
    padding: Padding = 0,
    dilation: Axes = 1,
    groups: int = 1,
    *,
    threads: int | None = None,
) -> Gradients:
    """The gradients of `conv_relu`, given that of its output."""
    call = _Call(input, weight, thresholds, stride, padding, dilation, groups, threads)
    grad_output = _floats("grad_output", grad_output, call.plan.output_shape)
    theta, address = call.thresholds_address(), grad_output.ctypes.data
    gradients = Gradients(
        np.empty(call.input.shape, np.float32),
        np.empty(call.weight.shape, np.float32),
        np.empty(() if call.per_tap is None else call.per_tap.shape, np.float32),
        np.empty(call.weight.shape[0], np.float32),
    )
    into = [gradient.ctypes.data for gradient in gradients]
    x = call.input.ctypes.data
    call.plan.backward_input(x, call.weight.ctypes.data, theta, call.threshold, address, into[0], into[2])
    call.plan.backward_weight(x, theta, call.threshold, address, into[1], into[3])
    return gradients
