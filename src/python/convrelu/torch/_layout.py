"""Where a tensor's elements lie, as the kernels see it: channels first or last, and the pitch of a slice of channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._layer import NCHW, NHWC

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _pitch(tensor: Tensor, layout: int) -> int | None:
    """Elements between neighbouring pixels (channels last) or images (channels first); `None` where it lies otherwise."""
    shape, strides = tensor.shape, tensor.stride()
    channels = shape[1]
    if layout == NCHW:
        step = 1
        for axis in range(len(shape) - 1, 0, -1):
            if shape[axis] != 1 and strides[axis] != step:
                return None
            step *= shape[axis]
        if shape[0] == 1:
            return step
        return strides[0] if strides[0] >= step else None
    if channels != 1 and strides[1] != 1:
        return None
    step = pitch = 0
    for axis in [*range(len(shape) - 1, 1, -1), 0]:
        if shape[axis] == 1:
            continue
        if pitch == 0:
            step = pitch = strides[axis]
            if pitch < channels:
                return None
        if strides[axis] != step:
            return None
        step *= shape[axis]
    return pitch or channels


def layout_of(tensor: Tensor) -> int:
    """How the output of a layer lies whose input is this: channels last where the input does, and channels first do not fit."""
    if tensor.is_contiguous():
        return NCHW
    memory_format = _LAST.get(tensor.dim())
    if memory_format is not None and tensor.is_contiguous(memory_format=memory_format):
        return NHWC
    if tensor.numel() == 0 or _pitch(tensor, NCHW) is not None:
        return NCHW
    return NCHW if _pitch(tensor, NHWC) is None else NHWC


def laid(tensor: Tensor, layout: int) -> tuple[Tensor, int]:
    """The tensor in a layout, copied only where it does not lie so, and its pitch (0: nothing lies between)."""
    if layout == NCHW:
        if tensor.is_contiguous():
            return tensor, 0
    else:
        memory_format = _LAST.get(tensor.dim())
        if memory_format is not None and tensor.is_contiguous(memory_format=memory_format):
            return tensor, 0
    if tensor.numel() != 0:
        pitch = _pitch(tensor, layout)
        if pitch is not None:
            return tensor, pitch
    if layout == NCHW:
        return tensor.contiguous(), 0
    return to_last(tensor), 0


def to_last(tensor: Tensor) -> Tensor:
    """The tensor with axis 1 behind all others in memory; its shape stays."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def empty(like: Tensor, shape: Sequence[int], layout: int) -> Tensor:
    """Room for a tensor of this shape in a layout."""
    if layout == NCHW:
        return like.new_empty(shape)
    return like.new_empty((shape[0], *shape[2:], shape[1])).movedim(-1, 1)
