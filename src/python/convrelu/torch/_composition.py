"""The layer composed of PyTorch's own operations: every dtype, device and order of derivatives.

`forward` and `backward` define what the kernels compute; they serve float64, CUDA and MPS tensors. `double_backward` is made of
differentiable operations, so that derivatives of any order exist.

Shapes: `input` `(N, C, *S)`, `weight` `(O, C / groups, *K)`, `thresholds` `(C, *K)` or `None` (then the number `threshold` counts
everywhere), gradients of the output `(N, O, *P)`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Geometry(NamedTuple):
    """Where taps lie: one number per spatial axis."""

    stride: Sequence[int]
    padding_before: Sequence[int]
    padding_after: Sequence[int]
    dilation: Sequence[int]
    groups: int


class Epilogue(NamedTuple):
    """What becomes of the output: `clamp(scale · y + shift + residual, low, high)`.

    `scale` and `shift` `(O,)`, `residual` `(N, O, *P)`; `None` for none. The bounds are infinite for none.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    residual: Tensor | None = None
    low: float = -math.inf
    high: float = math.inf


def finish(y: Tensor, epilogue: Epilogue) -> Tensor:
    """An output `(N, O, *P)` after its epilogue. A residual may be of any shape that the output's broadcasts with."""
    axes = (-1, *[1] * (y.dim() - 2))
    if epilogue.scale is not None:
        y = y * epilogue.scale.reshape(axes)
    if epilogue.shift is not None:
        y = y + epilogue.shift.reshape(axes)
    if epilogue.residual is not None:
        y = y + epilogue.residual
    if (epilogue.low, epilogue.high) == (0, math.inf):
        return functional.relu(y)
    return y if (epilogue.low, epilogue.high) == (-math.inf, math.inf) else y.clamp(epilogue.low, epilogue.high)


def _pads(geometry: Geometry) -> list[int]:
    pairs = zip(reversed(geometry.padding_before), reversed(geometry.padding_after), strict=True)
    return [number for pair in pairs for number in pair]


def _patches(x: Tensor, kernel: Sequence[int], geometry: Geometry) -> Tensor:
    """What each tap sees: `(N, C, *P, *K)`."""
    x = functional.pad(x, _pads(geometry))
    for axis, size in enumerate(kernel):
        dilation = geometry.dilation[axis]
        x = x.unfold(2 + axis, dilation * (size - 1) + 1, geometry.stride[axis])[..., ::dilation]
    return x


def _fold(patches: Tensor, size: Sequence[int], geometry: Geometry) -> Tensor:
    """The adjoint of `_patches`: `(N, C, *size)`."""
    rank = len(size)
    outputs, kernel = patches.shape[2 : 2 + rank], patches.shape[2 + rank :]
    before, after = geometry.padding_before, geometry.padding_after
    padded = patches.new_zeros(*patches.shape[:2], *(s + b + a for s, b, a in zip(size, before, after, strict=True)))
    for tap in itertools.product(*(range(k) for k in kernel)):
        starts = [t * d for t, d in zip(tap, geometry.dilation, strict=True)]
        steps = zip(starts, outputs, geometry.stride, strict=True)
        window = tuple(slice(start, start + step * (count - 1) + 1, step) for start, count, step in steps)
        padded[(..., *window)] += patches[(..., *tap)]
    return padded[(..., *(slice(b, b + s) for b, s in zip(before, size, strict=True)))]


def _columns(patches: Tensor, groups: int) -> Tensor:
    """Patches as one matrix per group: `(groups, C / groups · K, N · P)`.

    One matrix for all images: a product with one per image would copy the weight, and its gradient, as often.
    """
    rank = (patches.dim() - 2) // 2
    batch, channels = patches.shape[:2]
    outputs, kernel = patches.shape[2 : 2 + rank], patches.shape[2 + rank :]
    order = [1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank)]
    rows = channels // groups * math.prod(kernel)
    return patches.permute(order).reshape(groups, rows, batch * math.prod(outputs))


def _uncolumns(columns: Tensor, channels: int, kernel: Sequence[int], batch: int, outputs: Sequence[int]) -> Tensor:
    """The inverse of `_columns`."""
    rank = len(kernel)
    order = [1 + rank, 0, *range(2 + rank, 2 + 2 * rank), *range(1, 1 + rank)]
    return columns.reshape(channels, *kernel, batch, *outputs).permute(order)


def _flat(grad: Tensor, groups: int) -> Tensor:
    """A gradient of the output as one matrix per group: `(groups, O / groups, N · P)`."""
    return grad.transpose(0, 1).reshape(groups, grad.shape[1] // groups, grad.shape[0] * math.prod(grad.shape[2:]))


def _rows(weight: Tensor, groups: int) -> Tensor:
    """The weight as one matrix per group: `(groups, O / groups, C / groups · K)`."""
    return weight.reshape(groups, weight.shape[0] // groups, math.prod(weight.shape[1:]))


def _spread(thresholds: Tensor, rank: int) -> Tensor:
    """Thresholds beside patches: `(C, 1, …, 1, *K)`."""
    return thresholds.reshape(thresholds.shape[0], *[1] * rank, *thresholds.shape[1:])


def _activate(patches: Tensor, thresholds: Tensor | None, threshold: float) -> Tensor:
    if thresholds is not None:
        theta = _spread(thresholds, (patches.dim() - 2) // 2)
        return torch.where(patches <= theta, theta, patches)
    return patches if threshold == -math.inf else torch.where(patches <= threshold, threshold, patches)


def _masks(patches: Tensor, thresholds: Tensor | None, threshold: float) -> tuple[Tensor, Tensor]:
    """Where a gradient goes to the input, and where to the thresholds. A tie's goes to the thresholds, a NaN's nowhere."""
    if thresholds is not None:
        theta = _spread(thresholds, (patches.dim() - 2) // 2)
        return patches > theta, patches <= theta
    if threshold == -math.inf:
        everywhere = torch.ones_like(patches, dtype=torch.bool)
        return everywhere, ~everywhere
    return patches > threshold, patches <= threshold


def _output(flat: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """The inverse of `_flat`, and a bias."""
    y = flat.reshape(shape[1], shape[0], *shape[2:]).transpose(0, 1)
    return y if bias is None else y + bias.reshape(-1, *[1] * (len(shape) - 2))


def forward(
    input: Tensor, weight: Tensor, thresholds: Tensor | None, threshold: float, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """`y = Σ w · max(x, θ) + b`: `(N, O, *P)`."""
    patches = _patches(input, weight.shape[2:], geometry)
    outputs = patches.shape[2 : input.dim()]
    columns = _columns(_activate(patches, thresholds, threshold), geometry.groups)
    return _output(_rows(weight, geometry.groups) @ columns, bias, [input.shape[0], weight.shape[0], *outputs])


def backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    geometry: Geometry,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of input, thresholds, weight and bias, those that are wanted.

    That of the thresholds is a sum without axes where there is one number for all.
    """
    rank = input.dim() - 2
    kernel, outputs = weight.shape[2:], grad.shape[2:]
    flat = _flat(grad, geometry.groups)
    patches = _patches(input, kernel, geometry)
    grad_input = grad_thresholds = grad_weight = grad_bias = None
    if wanted[0] or wanted[1]:
        reach = _uncolumns(_rows(weight, geometry.groups).mT @ flat, input.shape[1], kernel, input.shape[0], outputs)
        to_input, to_thresholds = _masks(patches, thresholds, threshold)
        if wanted[0]:
            grad_input = _fold(torch.where(to_input, reach, 0), input.shape[2:], geometry)
        if wanted[1]:
            blocked = torch.where(to_thresholds, reach, 0)
            grad_thresholds = blocked.sum() if thresholds is None else blocked.sum([0, *range(2, 2 + rank)])
    if wanted[2]:
        columns = _columns(_activate(patches, thresholds, threshold), geometry.groups)
        grad_weight = (flat @ columns.mT).reshape(weight.shape)
    if wanted[3]:
        grad_bias = grad.sum([0, *range(2, 2 + rank)])
    return [grad_input, grad_thresholds, grad_weight, grad_bias]


def double_backward(
    cotangents: Sequence[Tensor | None],
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    thresholds: Tensor | None,
    threshold: float,
    geometry: Geometry,
) -> list[Tensor | None]:
    """Gradients of `grad`, `input`, `weight` and `thresholds`, given those of what `backward` returns.

    `backward` is bilinear in `grad` and `weight`, and piecewise constant in what the masks depend on. Its gradients are the same
    layer again: with the direction `(∂x, ∂θ)` in place of the activated patches, and with `∂w` in place of the weight.
    """
    to_x, to_theta, to_weight, to_bias = cotangents
    rank, groups = input.dim() - 2, geometry.groups
    kernel, outputs = weight.shape[2:], grad.shape[2:]
    flat = _flat(grad, groups)
    patches = _patches(input, kernel, geometry)
    of_input, of_thresholds = _masks(patches, thresholds, threshold)
    grad_grad = grad_weight = grad_input = grad_thresholds = None
    direction: Tensor | None = None
    if to_x is not None:
        direction = torch.where(of_input, _patches(to_x, kernel, geometry), 0)
    if to_theta is not None:
        theta = to_theta if thresholds is None else _spread(to_theta, rank)
        blocked = torch.where(of_thresholds, theta, 0)
        direction = blocked if direction is None else direction + blocked
    if direction is not None:
        columns = _columns(direction, groups)
        grad_grad = _rows(weight, groups) @ columns
        grad_weight = (flat @ columns.mT).reshape(weight.shape)
    if to_weight is not None:
        columns = _columns(_activate(patches, thresholds, threshold), groups)
        along = _rows(to_weight, groups) @ columns
        grad_grad = along if grad_grad is None else grad_grad + along
        reach = _uncolumns(_rows(to_weight, groups).mT @ flat, input.shape[1], kernel, input.shape[0], outputs)
        grad_input = _fold(torch.where(of_input, reach, 0), input.shape[2:], geometry)
        if thresholds is not None:
            grad_thresholds = torch.where(of_thresholds, reach, 0).sum([0, *range(2, 2 + rank)])
    if grad_grad is not None:
        grad_grad = _output(grad_grad, to_bias, grad.shape)
    elif to_bias is not None:
        grad_grad = to_bias.reshape(-1, *[1] * rank).expand(grad.shape)
    return [grad_grad, grad_input, grad_weight, grad_thresholds]
